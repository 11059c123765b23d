//! Storages to which their users gave a name: `[storages.NAME]` of the configuration file.
//!
//! ```toml
//! [storages.putio]
//! type = "putio"
//! account = "ada"
//! token-file = "storages/putio.token"
//! connections = 4
//! ```
//!
//! `token-file` is relative to the folder of the configuration file. [`table`] reads such a table,
//! [`edit`] changes the file and leaves everything else in it as it is, [`token`] keeps the
//! secrets, [`open`] makes a client or a store of it all.

pub(crate) mod edit;
pub(crate) mod limits;
pub(crate) mod name;
pub(crate) mod open;
mod private;
pub(crate) mod table;
pub(crate) mod token;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::config;
use crate::report::Failure;
use crate::storages::limits::Limits;
use crate::storages::token::TokenSource;
use crate::ui::text;

/// What the program's own commands call a storage that is not given a name.
pub(crate) const DEFAULT_NAME: &str = "putio";
/// Variable with a token; it alone makes a storage.
pub(crate) const TOKEN_VARIABLE: &str = "PUTBACK_PUTIO_TOKEN";
/// Variable with the path of a file with a token; it alone makes a storage, too.
pub(crate) const TOKEN_FILE_VARIABLE: &str = "PUTBACK_PUTIO_TOKEN_FILE";
/// Variable with a command that prints a token; it alone makes a storage, too.
pub(crate) const TOKEN_COMMAND_VARIABLE: &str = "PUTBACK_PUTIO_TOKEN_COMMAND";
/// Variable with the address of the API, which wins over that of the storage.
pub(crate) const API_URL_VARIABLE: &str = "PUTBACK_PUTIO_API_URL";
/// Variable with the address for uploads, which wins over that of the storage.
pub(crate) const UPLOAD_URL_VARIABLE: &str = "PUTBACK_PUTIO_UPLOAD_URL";

/// A storage of put.io.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    /// What stands in front of the colon.
    pub(crate) name: String,
    /// Where its token is found in this run.
    pub(crate) token: TokenSource,
    /// Where its table says that its token is, which the environment may overrule; `None` if the
    /// configuration file does not have the storage.
    pub(crate) configured: Option<TokenSource>,
    /// User name of its account, as it was when somebody signed in.
    pub(crate) account: Option<String>,
    /// The application that signs in.
    pub(crate) client_id: Option<String>,
    /// Address of the API, if it is not put.io's.
    pub(crate) api_url: Option<String>,
    /// Address for uploads, if it is not put.io's.
    pub(crate) upload_url: Option<String>,
    /// What is deleted does not go to the trash.
    pub(crate) skip_trash: bool,
    /// How it may be used.
    pub(crate) limits: Limits,
}

impl Storage {
    /// A storage with nothing but a name and a token.
    pub(crate) fn new(name: &str, token: TokenSource) -> Self {
        Self {
            name: name.to_owned(),
            token,
            configured: None,
            account: None,
            client_id: None,
            api_url: None,
            upload_url: None,
            skip_trash: false,
            limits: Limits::default(),
        }
    }

    /// Whether the configuration file has it, so that it can be changed there.
    pub(crate) fn is_configured(&self) -> bool {
        self.configured.is_some()
    }
}

/// All storages that the configuration and the environment have.
#[derive(Debug, Default)]
pub(crate) struct Storages {
    /// The configuration file, whether it exists or not.
    file: Option<PathBuf>,
    /// By name.
    all: Vec<Storage>,
}

impl Storages {
    /// What `file` has, and what the environment adds.
    pub(crate) fn new(file: Option<PathBuf>, configured: Vec<Storage>) -> Result<Self, Failure> {
        let mut storages = Self { file, all: configured };
        if let Some(token) = token_of_environment()? {
            match storages.all.iter_mut().find(|storage| storage.name == DEFAULT_NAME) {
                Some(storage) => storage.token = token,
                None => storages.all.push(Storage::new(DEFAULT_NAME, token)),
            }
        }
        storages.all.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(storages)
    }

    /// All of them, in the order of their names.
    pub(crate) fn all(&self) -> &[Storage] {
        &self.all
    }

    /// The configuration file, to which storages are added.
    pub(crate) fn file(&self) -> Result<&Path, Failure> {
        self.file.as_deref().ok_or_else(|| {
            Failure::other("this user has no configuration folder", "give --config FILE")
        })
    }

    /// The storage of this name, if there is one.
    pub(crate) fn find(&self, name: &str) -> Option<&Storage> {
        self.all.iter().find(|storage| storage.name == name)
    }

    /// The storage of this name, or what to say if there is none.
    pub(crate) fn get(&self, name: &str) -> Result<&Storage, Failure> {
        self.find(name).ok_or_else(|| {
            Failure::usage_with(
                format!("no storage '{}' is configured", text::printable(name)),
                self.hint(name),
            )
        })
    }

    /// What somebody can do who named a storage that is not there.
    fn hint(&self, name: &str) -> String {
        let names: Vec<&str> = self.all.iter().map(|storage| storage.name.as_str()).collect();
        let known = match names.as_slice() {
            [] => String::new(),
            [only] => format!("there is '{only}'; "),
            several => format!("there are {}; ", several.join(", ")),
        };
        match name::check(name) {
            Ok(()) if name == DEFAULT_NAME => format!("{known}`putback login` adds it"),
            Ok(()) => format!("{known}`putback login --name {name}` adds one of this name"),
            Err(_) => format!("{known}`putback login` adds one"),
        }
    }
}

/// The token that the environment has, if it has one.
fn token_of_environment() -> Result<Option<TokenSource>, Failure> {
    let set = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
    let file = set(TOKEN_FILE_VARIABLE).map(|path| TokenSource::File(PathBuf::from(path)));
    let command = set(TOKEN_COMMAND_VARIABLE).map(TokenSource::Command);
    let variable = set(TOKEN_VARIABLE).map(|_| TokenSource::Variable);
    let mut given = [
        (TOKEN_VARIABLE, variable),
        (TOKEN_FILE_VARIABLE, file),
        (TOKEN_COMMAND_VARIABLE, command),
    ]
    .into_iter()
    .filter_map(|(name, source)| source.map(|source| (name, source)));
    let Some((name, source)) = given.next() else { return Ok(None) };
    match given.next() {
        None => Ok(Some(source)),
        Some((other, _)) => Err(Failure::usage(format!("{name} and {other} exclude each other"))),
    }
}

/// The folder that relative paths of a configuration file start from.
pub(crate) fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Where the token of a storage is kept unless its table says otherwise.
pub(crate) fn token_file_of(file: &Path, name: &str) -> PathBuf {
    folder_of(file).join(relative_token_file(name))
}

/// The same as it stands in the table.
pub(crate) fn relative_token_file(name: &str) -> String {
    format!("storages/{name}.token")
}

/// `path` for a person.
pub(crate) fn display(path: &Path) -> String {
    config::display(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storage_that_is_not_there_is_answered_with_those_that_are() {
        let storage = |name| Storage::new(name, TokenSource::Variable);
        let storages = |all| Storages { file: None, all };
        for (all, name, expected) in [
            (vec![], "putio", "`putback login` adds it"),
            (vec![], "work", "`putback login --name work` adds one of this name"),
            (vec![storage("putio")], "c", "there is 'putio'; `putback login` adds one"),
            (
                vec![storage("a1"), storage("b1")],
                "work",
                "there are a1, b1; `putback login --name work` adds one of this name",
            ),
        ] {
            let Failure::Usage { message, hint } = storages(all).get(name).unwrap_err() else {
                panic!("not wrong usage");
            };
            assert_eq!(message, format!("no storage '{name}' is configured"));
            assert_eq!(hint.as_deref(), Some(expected));
        }
    }
}
