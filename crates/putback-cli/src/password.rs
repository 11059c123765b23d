//! Where passwords come from: file, command, descriptor, environment, terminal. Never arguments.
//!
//! What is read is zeroised when dropped. Nothing here has a `Debug` that could show it.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use putback_repo::Password;
use zeroize::Zeroizing;

use crate::args::{Origin, Origins};
use crate::context::{Context, shell_output};
use crate::report::Failure;
use crate::ui::text;

/// Longest password.
const PASSWORD_BYTES_MAX: usize = 64 << 10;

/// What opens a repository.
pub(crate) enum Secret {
    /// A password.
    Password(Password),
    /// The text of `key export`, and the file that it is in.
    ExportedKey { text: Zeroizing<String>, path: String },
}

/// Flags that say what opens the repository; the last stands for the environment variable.
const GIVERS: [&str; 5] =
    ["password_file", "password_command", "password_fd", "key_file", "password"];

/// Whether an exported key opens the repository rather than a password.
pub(crate) fn is_exported_key(context: &Context) -> Result<bool, Failure> {
    let origins = with_variable(&context.origins, "PUTBACK_PASSWORD", "password");
    Ok(origins.strongest(&GIVERS)? == Some("key_file"))
}

/// What the flags, the environment or the configuration give; `None` if a person is to be asked.
pub(crate) fn given(context: &Context) -> anyhow::Result<Option<Secret>> {
    let global = &context.global;
    let origins = with_variable(&context.origins, "PUTBACK_PASSWORD", "password");
    let Some(chosen) = origins.strongest(&GIVERS)? else { return Ok(None) };
    if chosen == "key_file" {
        let path = global.key_file.clone().unwrap_or_default();
        let content = read_file(&origins.named(chosen), &path, "an exported key")?;
        // What is no text is found out by whoever reads it as a key.
        let text = Zeroizing::new(String::from_utf8_lossy(&content).into_owned());
        let path = text::escaped(path_bytes(&path));
        return Ok(Some(Secret::ExportedKey { text, path }));
    }
    let password = read(
        chosen,
        &Sources {
            flag: origins.named(chosen),
            file: global.password_file.as_deref(),
            command: global.password_command.as_ref(),
            descriptor: global.password_fd,
            variable: "PUTBACK_PASSWORD",
        },
    )?;
    Ok(Some(Secret::Password(password)))
}

/// The password for a new repository: given, or asked for twice.
pub(crate) fn for_new_repository(context: &Context, shown: &str) -> anyhow::Result<Password> {
    match given(context)? {
        Some(Secret::Password(password)) => Ok(password),
        Some(Secret::ExportedKey { .. }) => {
            Err(Failure::usage("a new repository needs a password; --key-file opens existing ones")
                .into())
        }
        None => {
            let what = format!("password for the new repository {shown}");
            prompt_twice(&Wanted::new(what, &ways("")))
        }
    }
}

/// Flags that give a password beside the one that opens the repository.
#[derive(clap::Args, Debug)]
pub(crate) struct NewPasswordArgs {
    /// File that holds the new password; see also PUTBACK_NEW_PASSWORD
    #[arg(long, env = "PUTBACK_NEW_PASSWORD_FILE", value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// Command that prints the new password; run by the shell
    #[arg(long, env = "PUTBACK_NEW_PASSWORD_COMMAND", value_name = "COMMAND")]
    new_password_command: Option<OsString>,
    /// Open file descriptor to read the new password from
    #[arg(long, env = "PUTBACK_NEW_PASSWORD_FD", value_name = "N")]
    new_password_fd: Option<u32>,
}

impl NewPasswordArgs {
    /// The new password: given, or asked for twice.
    pub(crate) fn read(&self, context: &Context) -> anyhow::Result<Password> {
        let origins = with_variable(&context.origins, "PUTBACK_NEW_PASSWORD", "new_password");
        let ids = ["new_password_file", "new_password_command", "new_password_fd", "new_password"];
        let Some(chosen) = origins.strongest(&ids)? else {
            return prompt_twice(&Wanted::new("new password", &ways("new")));
        };
        read(
            chosen.trim_start_matches("new_"),
            &Sources {
                flag: origins.named(chosen),
                file: self.new_password_file.as_deref(),
                command: self.new_password_command.as_ref(),
                descriptor: self.new_password_fd,
                variable: "PUTBACK_NEW_PASSWORD",
            },
        )
    }
}

/// Flags that give the password of a second repository, under the names that its command has for them.
pub(crate) struct OtherPassword<'a> {
    /// What the flags begin with: `to` for `--to-password-file` and `PUTBACK_TO_PASSWORD`.
    pub(crate) prefix: &'static str,
    pub(crate) file: Option<&'a Path>,
    pub(crate) command: Option<&'a OsString>,
    pub(crate) descriptor: Option<u32>,
}

impl OtherPassword<'_> {
    /// What a person is asked for.
    pub(crate) fn wanted(&self, shown: &str) -> Wanted {
        Wanted::of_repository(shown, self.prefix)
    }

    /// What the flags or the environment give; `None` if a person is to be asked.
    pub(crate) fn given(&self, context: &Context) -> anyhow::Result<Option<Password>> {
        let variable = format!("PUTBACK_{}_PASSWORD", self.prefix.to_uppercase());
        let ids = ["password_file", "password_command", "password_fd", "password"];
        let ids = ids.map(|id| format!("{}_{id}", self.prefix));
        let ids = ids.each_ref().map(String::as_str);
        let origins = with_variable(&context.origins, &variable, ids[3]);
        let Some(chosen) = origins.strongest(&ids)? else { return Ok(None) };
        let sources = Sources {
            flag: origins.named(chosen),
            file: self.file,
            command: self.command,
            descriptor: self.descriptor,
            variable: &variable,
        };
        Ok(Some(read(&chosen[self.prefix.len() + 1..], &sources)?))
    }
}

/// A password that is asked for.
pub(crate) struct Wanted {
    /// Which one: `password of the repository /srv/backup`.
    what: String,
    /// What to do where nobody can be asked.
    hint: String,
}

impl Wanted {
    /// `ways` are the flags and variables that give it.
    pub(crate) fn new(what: impl Into<String>, ways: &str) -> Self {
        Self { what: what.into(), hint: format!("give it with {ways}") }
    }

    /// That of the repository whose flags begin with `prefix`.
    pub(crate) fn of_repository(shown: &str, prefix: &str) -> Self {
        Self::new(format!("password of the repository {shown}"), &ways(prefix))
    }
}

/// The flags and the variable that give a password; `prefix` is what they begin with, if anything.
fn ways(prefix: &str) -> String {
    let (flag, variable) = match prefix {
        "" => (String::new(), String::new()),
        prefix => (format!("{prefix}-"), format!("{}_", prefix.to_uppercase())),
    };
    format!(
        "--{flag}password-file, --{flag}password-command, --{flag}password-fd or \
         PUTBACK_{variable}PASSWORD"
    )
}

/// Asks on the terminal, without showing what is typed; `remark` goes before the question.
pub(crate) fn prompt(remark: &str, wanted: &Wanted) -> anyhow::Result<Password> {
    let typed = typed(&format!("{remark}{}: ", wanted.what), wanted)?;
    checked(Zeroizing::new(typed.as_bytes().to_vec()), "the terminal")
}

/// Asks on the terminal; `None` if nothing was typed.
pub(crate) fn prompt_or_none(question: &str, wanted: &Wanted) -> anyhow::Result<Option<Password>> {
    let typed = typed(question, wanted)?;
    Ok((!typed.is_empty()).then(|| Password::new(typed.as_bytes().to_vec())))
}

/// The password in a file that `flag` names.
pub(crate) fn from_file(flag: &str, path: &Path) -> anyhow::Result<Password> {
    let sources = Sources {
        flag: flag.to_owned(),
        file: Some(path),
        command: None,
        descriptor: None,
        variable: "",
    };
    read("password_file", &sources)
}

fn typed(question: &str, wanted: &Wanted) -> Result<Zeroizing<String>, Failure> {
    rpassword::prompt_password(question).map(Zeroizing::new).map_err(|error| match error.kind() {
        std::io::ErrorKind::Interrupted => Failure::Interrupted,
        // Ctrl-D.
        std::io::ErrorKind::UnexpectedEof => {
            Failure::usage_with(format!("no {} was typed", wanted.what), wanted.hint.as_str())
        }
        _ => Failure::NoPassword { what: wanted.what.clone(), hint: wanted.hint.clone() },
    })
}

fn prompt_twice(wanted: &Wanted) -> anyhow::Result<Password> {
    let first = typed(&format!("{}: ", wanted.what), wanted)?;
    if first.is_empty() {
        return Err(empty("the terminal").into());
    }
    let second = typed("once more: ", wanted)?;
    if first != second {
        return Err(
            Failure::other("the two passwords differ", "nothing was changed; try again").into()
        );
    }
    checked(Zeroizing::new(first.as_bytes().to_vec()), "the terminal")
}

/// Where one password may come from.
struct Sources<'a> {
    /// What chose among the others, as messages name it.
    flag: String,
    file: Option<&'a Path>,
    command: Option<&'a OsString>,
    descriptor: Option<u32>,
    variable: &'a str,
}

fn read(chosen: &str, sources: &Sources<'_>) -> anyhow::Result<Password> {
    let (content, origin) = match chosen {
        "password_file" => {
            let path = sources.file.unwrap_or(Path::new(""));
            let mut content = read_file(&sources.flag, path, "a password")?;
            (std::mem::take(&mut *content), text::escaped(path_bytes(path)))
        }
        "password_command" => {
            let flag = &sources.flag;
            let command = sources.command.cloned().unwrap_or_default();
            (shell_output(&command, flag)?, format!("the command of {flag}"))
        }
        "password_fd" => {
            let number = sources.descriptor.unwrap_or(0);
            let file = std::fs::File::open(format!("/dev/fd/{number}")).map_err(|error| {
                let flag = &sources.flag;
                Failure::usage(format!(
                    "{flag} names descriptor {number}, which is not open: {error}"
                ))
            })?;
            let content = read_bounded(file, "the descriptor", "a password")?;
            (content, format!("descriptor {number}"))
        }
        _ => {
            let value = std::env::var_os(sources.variable).unwrap_or_default();
            (value.into_encoded_bytes(), sources.variable.to_owned())
        }
    };
    let mut content = Zeroizing::new(content);
    // Editors and `echo` end a file by a line break that nobody means.
    if content.last() == Some(&b'\n') {
        content.pop();
        if content.last() == Some(&b'\r') {
            content.pop();
        }
    }
    checked(content, &origin)
}

fn checked(mut content: Zeroizing<Vec<u8>>, origin: &str) -> anyhow::Result<Password> {
    if content.is_empty() {
        return Err(empty(origin).into());
    }
    Ok(Password::new(std::mem::take(&mut *content)))
}

fn empty(origin: &str) -> Failure {
    Failure::usage(format!("the password from {origin} is empty"))
}

/// A small file that `flag` names and that holds `what`.
fn read_file(flag: &str, path: &Path, what: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let unusable = |error| Failure::file_of(flag, path, &error);
    let file = std::fs::File::open(path).map_err(unusable)?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(unusable(std::io::ErrorKind::IsADirectory.into()).into());
    }
    read_bounded(file, &text::escaped(path_bytes(path)), what).map(Zeroizing::new)
}

fn read_bounded(file: impl Read, shown: &str, what: &str) -> anyhow::Result<Vec<u8>> {
    // Allocated at once, so that growing leaves no copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(PASSWORD_BYTES_MAX + 1));
    file.take(PASSWORD_BYTES_MAX as u64 + 1).read_to_end(&mut content)?;
    if content.len() > PASSWORD_BYTES_MAX {
        return Err(Failure::usage(format!("{shown} is too long for {what}")).into());
    }
    Ok(std::mem::take(&mut *content))
}

fn with_variable(origins: &Origins, variable: &str, id: &str) -> Origins {
    let is_set = std::env::var_os(variable).is_some_and(|value| !value.is_empty());
    origins.with(id, if is_set { Origin::Environment } else { Origin::BuiltIn })
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}
