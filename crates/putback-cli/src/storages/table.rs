//! `[storages.NAME]` as it is read. Every key is checked, whichever command runs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::{Table, Value};

use crate::config::nearest;
use crate::report::Failure;
use crate::storages::limits::{self, Limits};
use crate::storages::token::TokenSource;
use crate::storages::{Storage, display, folder_of, name, token_file_of};
use crate::ui::text;

/// The kinds of storages.
pub(crate) const TYPES: &[&str] = &["putio"];

/// Keys of a storage, besides those of [`Limits`].
const KEYS: &[&str] = &[
    "type",
    "account",
    "token-file",
    "token-command",
    "client-id",
    "api-url",
    "upload-url",
    "skip-trash",
];

/// The storages of a configuration file: `value` is what `storages` is in it.
pub(crate) fn read(file: &Path, value: &Value) -> Result<Vec<Storage>, Failure> {
    let Value::Table(tables) = value else {
        return Err(Failure::usage(format!(
            "'storages' in {} must be tables [storages.NAME]",
            display(file)
        )));
    };
    let mut all: Vec<Storage> = Vec::new();
    for (name, value) in tables {
        name::check(name).map_err(|failure| in_file(failure, file))?;
        if let Some(other) = all.iter().find(|other| other.name.eq_ignore_ascii_case(name)) {
            return Err(Failure::usage(format!(
                "the storages '{}' and '{name}' of {} differ in upper and lower case only",
                other.name,
                display(file)
            )));
        }
        let Value::Table(table) = value else {
            return Err(Failure::usage(format!(
                "'{name}' in [storages] of {} must be a table",
                display(file)
            )));
        };
        all.push(Reader { file, name, table }.storage()?);
    }
    Ok(all)
}

/// Whether `url` may be asked with a token: over TLS, or on this machine.
pub(crate) fn check_url(url: &str) -> Result<(), String> {
    let error = || "write https://HOST, or http://127.0.0.1:PORT for a server on this machine";
    let lower = url.to_ascii_lowercase();
    let (rest, is_plain) = match (lower.strip_prefix("https://"), lower.strip_prefix("http://")) {
        (Some(rest), _) => (rest, false),
        (None, Some(rest)) => (rest, true),
        (None, None) => return Err(error().to_owned()),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let is_this_machine = matches!(host, "127.0.0.1" | "::1" | "localhost");
    let is_clean =
        !url.contains(|c: char| c.is_control() || c.is_whitespace() || "@?#".contains(c));
    if host.is_empty() || !is_clean || (is_plain && !is_this_machine) {
        return Err(error().to_owned());
    }
    Ok(())
}

/// A base address as flags and variables give it.
pub(crate) fn url(text: &str) -> Result<String, String> {
    check_url(text)?;
    Ok(text.trim_end_matches('/').to_owned())
}

fn in_file(failure: Failure, file: &Path) -> Failure {
    match failure {
        Failure::Usage { message, hint } => {
            Failure::Usage { message: format!("{}: {message}", display(file)), hint }
        }
        other => other,
    }
}

/// Takes one table apart.
struct Reader<'a> {
    file: &'a Path,
    name: &'a str,
    table: &'a Table,
}

impl Reader<'_> {
    fn storage(&self) -> Result<Storage, Failure> {
        let known: Vec<&str> = KEYS.iter().chain(limits::KEYS).copied().collect();
        for key in self.table.keys() {
            if !known.contains(&key.as_str()) {
                let message = format!("unknown key '{}' in {}", text::printable(key), self.place());
                let meant = nearest(key, &known).unwrap_or_default();
                return Err(Failure::usage_with(message, format!("did you mean '{meant}'?")));
            }
        }
        match self.text("type")? {
            Some(kind) if TYPES.contains(&kind) => {}
            Some(kind) => {
                return Err(Failure::usage_with(
                    format!("unknown type '{}' in {}", text::printable(kind), self.place()),
                    format!("known types are {}", TYPES.join(", ")),
                ));
            }
            None => {
                return Err(Failure::usage_with(
                    format!("{} has no type", self.place()),
                    format!("add type = \"{}\"", TYPES[0]),
                ));
            }
        }
        let token = match (self.path("token-file")?, self.text("token-command")?) {
            (Some(_), Some(_)) => {
                return Err(Failure::usage(format!(
                    "'token-file' and 'token-command' in {} exclude each other",
                    self.place()
                )));
            }
            (Some(path), None) => TokenSource::File(path),
            (None, Some(command)) => TokenSource::Command(OsString::from(command)),
            (None, None) => TokenSource::File(token_file_of(self.file, self.name)),
        };
        Ok(Storage {
            name: self.name.to_owned(),
            token: token.clone(),
            configured: Some(token),
            account: self.text("account")?.map(str::to_owned),
            client_id: self.scalar("client-id")?,
            api_url: self.parsed::<Url>("api-url")?.map(|url| url.0),
            upload_url: self.parsed::<Url>("upload-url")?.map(|url| url.0),
            skip_trash: self.switch("skip-trash")?,
            limits: Limits {
                connections: self.parsed("connections")?,
                limit_upload: self.parsed("limit-upload")?,
                limit_download: self.parsed("limit-download")?,
                tpslimit: self.parsed("tpslimit")?,
                cacert: self.path("cacert")?,
            },
        })
    }

    /// A string.
    fn text(&self, key: &str) -> Result<Option<&str>, Failure> {
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "must be a string")),
        }
    }

    /// A string or a number, as text.
    fn scalar(&self, key: &str) -> Result<Option<String>, Failure> {
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
            Some(Value::Integer(number)) => Ok(Some(number.to_string())),
            Some(Value::Float(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(self.wrong(key, "must be a string or a number")),
        }
    }

    /// True or false; false if it is not there.
    fn switch(&self, key: &str) -> Result<bool, Failure> {
        match self.table.get(key) {
            None => Ok(false),
            Some(Value::Boolean(value)) => Ok(*value),
            Some(_) => Err(self.wrong(key, "must be true or false")),
        }
    }

    /// A path, relative to the folder of the file.
    fn path(&self, key: &str) -> Result<Option<PathBuf>, Failure> {
        Ok(self.text(key)?.map(|path| folder_of(self.file).join(path)))
    }

    /// A value that its type reads.
    fn parsed<T: FromStr<Err = String>>(&self, key: &str) -> Result<Option<T>, Failure> {
        let Some(text) = self.scalar(key)? else { return Ok(None) };
        text.parse().map(Some).map_err(|reason: String| {
            Failure::usage(format!(
                "'{}' is not a valid value of '{key}' in {}: {reason}",
                text::printable(&text),
                self.place()
            ))
        })
    }

    fn wrong(&self, key: &str, reason: &str) -> Failure {
        Failure::usage(format!("'{key}' in {} {reason}", self.place()))
    }

    fn place(&self) -> String {
        format!("[storages.{}] of {}", self.name, display(self.file))
    }
}

/// A base address, as [`url`] reads it.
struct Url(String);

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        url(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(content: &str) -> Result<Vec<Storage>, Failure> {
        let table: Table = content.parse().unwrap();
        read(Path::new("/c/putback.toml"), &table["storages"])
    }

    fn refused(content: &str, expected: &str, expected_hint: Option<&str>) {
        let Failure::Usage { message, hint } = parse(content).unwrap_err() else {
            panic!("not wrong usage");
        };
        assert_eq!(message, expected);
        assert_eq!(hint.as_deref(), expected_hint);
    }

    #[test]
    fn a_table_says_all_there_is_to_say_of_a_storage() {
        let all = parse(
            "[storages.putio]\ntype = 'putio'\n[storages.work]\ntype = 'putio'\naccount = 'ada'\n\
             token-file = 'secrets/t'\nclient-id = 1234\napi-url = 'https://api.example/'\n\
             connections = 3\ntpslimit = 1.5\nlimit-upload = '2M'\nlimit-download = 100\n\
             cacert = '/etc/ca.pem'\nskip-trash = true\n[storages.pass]\ntype = 'putio'\ntoken-command = 'pass putio'",
        )
        .unwrap();
        let find = |name: &str| all.iter().find(|storage| storage.name == name).unwrap();
        assert_eq!(find("putio").token, TokenSource::File("/c/storages/putio.token".into()));
        assert_eq!(find("pass").token, TokenSource::Command("pass putio".into()));
        let work = find("work");
        assert_eq!(work.token, TokenSource::File("/c/secrets/t".into()));
        assert_eq!(work.client_id.as_deref(), Some("1234"));
        assert!(work.skip_trash && !find("pass").skip_trash);
        assert_eq!(work.api_url.as_deref(), Some("https://api.example"));
        for (key, value) in [
            ("connections", "3"),
            ("tpslimit", "1.5"),
            ("limit-upload", "2M"),
            ("limit-download", "100K"),
            ("cacert", "/etc/ca.pem"),
        ] {
            assert_eq!(work.limits.shown(key).as_deref(), Some(value));
        }
    }

    #[test]
    fn what_is_wrong_in_a_table_is_named() {
        let place = "[storages.putio] of /c/putback.toml";
        refused(
            "[storages.putio]\ntype = 'putio'\nskip-trash = 'yes'",
            &format!("'skip-trash' in {place} must be true or false"),
            None,
        );
        refused(
            "[storages.putio]\ntype = 'putio'\ntoken_file = 'x'",
            &format!("unknown key 'token_file' in {place}"),
            Some("did you mean 'token-file'?"),
        );
        refused(
            "[storages.putio]\ntype = 'putoi'",
            &format!("unknown type 'putoi' in {place}"),
            Some("known types are putio"),
        );
        refused("[storages.putio]", &format!("{place} has no type"), Some("add type = \"putio\""));
        refused(
            "[storages.putio]\ntype = 'putio'\nconnections = 0",
            &format!(
                "'0' is not a valid value of 'connections' in {place}: not a number from 1 to 64"
            ),
            None,
        );
        refused(
            "[storages.putio]\ntype = 'putio'\ntoken-file = 1",
            &format!("'token-file' in {place} must be a string"),
            None,
        );
        refused(
            "[storages.putio]\ntype = 'putio'\ntoken-file = 'a'\ntoken-command = 'b'",
            &format!("'token-file' and 'token-command' in {place} exclude each other"),
            None,
        );
        refused(
            "[storages.s3]\ntype = 'putio'",
            "/c/putback.toml: 's3' cannot be the name of a storage: it stands for something else in \
             front of a colon",
            Some("take a name such as putio, backup or putio-2"),
        );
        refused(
            "[storages.Ab]\ntype = 'putio'\n[storages.aB]\ntype = 'putio'",
            "the storages 'Ab' and 'aB' of /c/putback.toml differ in upper and lower case only",
            None,
        );
        refused(
            "storages = 1",
            "'storages' in /c/putback.toml must be tables [storages.NAME]",
            None,
        );
        refused(
            "storages.putio = 1",
            "'putio' in [storages] of /c/putback.toml must be a table",
            None,
        );
    }

    #[test]
    fn a_token_goes_over_tls_or_stays_on_this_machine() {
        for url in [
            "https://api.put.io",
            "https://api.put.io:8443/base",
            "HTTPS://api.put.io/",
            "http://127.0.0.1:9000",
            "http://localhost",
            "http://[::1]:80",
        ] {
            check_url(url).unwrap();
        }
        for url in [
            "",
            "api.put.io",
            "http://api.put.io",
            "ftp://x",
            "https://",
            "https:///x",
            "http://127.0.0.1.evil.example",
            "http://localhost@evil.example",
            "https://a b",
            "https://x/?token=1",
        ] {
            assert!(check_url(url).is_err(), "{url}");
        }
    }
}
