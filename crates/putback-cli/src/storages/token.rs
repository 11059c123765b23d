//! Where the token of a storage is, and how it is read, kept and forgotten.
//!
//! A token is never in the configuration file itself, in arguments, or in anything that is shown.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use putio::Token;
use zeroize::Zeroizing;

use crate::context::shell_output;
use crate::report::{self, Failure};
use crate::storages::{TOKEN_VARIABLE, display, private};
use crate::ui::{Ui, text};

/// Longest file, or output of a command, with a token.
const TOKEN_BYTES_MAX: usize = 64 << 10;

/// Where a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenSource {
    /// In a file.
    File(PathBuf),
    /// A command prints it.
    Command(OsString),
    /// In `PUTBACK_PUTIO_TOKEN`.
    Variable,
}

impl TokenSource {
    /// The kind of source, for programs.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Command(_) => "command",
            Self::Variable => "environment",
        }
    }

    /// Where it is, for a person.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::File(path) => display(path),
            Self::Command(command) => {
                format!("the command '{}'", text::escaped(command.as_encoded_bytes()))
            }
            Self::Variable => TOKEN_VARIABLE.to_owned(),
        }
    }

    /// Reads the token of the storage `name`.
    pub(crate) fn read(&self, ui: &Ui, name: &str) -> anyhow::Result<Token> {
        match self {
            Self::File(path) => read_file(ui, path, name),
            Self::Command(command) => {
                let flag = format!("the token of storage '{name}'");
                let output = Zeroizing::new(shell_output(command, &flag)?);
                token(&output, &self.describe())
            }
            Self::Variable => {
                let value = std::env::var_os(TOKEN_VARIABLE).unwrap_or_default();
                token(&Zeroizing::new(value.into_encoded_bytes()), TOKEN_VARIABLE)
            }
        }
    }
}

fn read_file(ui: &Ui, path: &Path, name: &str) -> anyhow::Result<Token> {
    let file = match fs_err::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::SignIn {
                message: format!("nobody has signed in to storage '{name}' on this machine"),
                hint: report::sign_in_hint(Some(name)),
            }
            .into());
        }
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if metadata.is_file() && private::is_open_to_others(&metadata) {
        ui.warning(&format!(
            "others on this machine may read the token in {}; `chmod 600` forbids it",
            display(path)
        ));
    }
    token(&read_bounded(file)?, &display(path))
}

/// Reads a token from a stream, as from standard input.
pub(crate) fn read_stream(stream: impl Read, origin: &str) -> anyhow::Result<Token> {
    token(&read_bounded(stream)?, origin)
}

/// Reads a token that was typed.
pub(crate) fn from_text(text: &Zeroizing<String>, origin: &str) -> anyhow::Result<Token> {
    token(text.as_bytes(), origin)
}

fn token(content: &[u8], origin: &str) -> anyhow::Result<Token> {
    let refused =
        |reason: &str| Failure::usage(format!("what is in {origin} is no token: {reason}"));
    if content.len() > TOKEN_BYTES_MAX {
        return Err(refused("it is too long").into());
    }
    let text = std::str::from_utf8(content).map_err(|_| refused("it is not text"))?;
    if text.trim().is_empty() {
        return Err(refused("it is empty").into());
    }
    // What the client says of it has no part of it.
    let token = Token::new(text.trim().to_owned()).map_err(|error| refused(&error.message))?;
    Ok(token)
}

fn read_bounded(stream: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // Allocated at once, so that growing leaves no copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(TOKEN_BYTES_MAX + 1));
    stream.take(TOKEN_BYTES_MAX as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// Keeps a token in a file for its owner alone.
pub(crate) fn keep(path: &Path, token: &Token) -> anyhow::Result<()> {
    let mut content = Zeroizing::new(Vec::with_capacity(token.expose().len() + 1));
    content.extend_from_slice(token.expose().as_bytes());
    content.push(b'\n');
    private::replace_secret(path, &content).map_err(|error| {
        anyhow::Error::new(error).context(format!("cannot keep the token in {}", display(path)))
    })
}

/// Removes the file of a token; one that is gone already is fine.
pub(crate) fn forget(path: &Path) -> anyhow::Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ui() -> Ui {
        Ui::new(false, true, 0, crate::ui::progress::Cadence::default())
    }

    #[test]
    fn a_token_is_kept_and_read_again_whatever_stands_around_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("storages/putio.token");
        keep(&path, &Token::new("ABCDEF".to_owned()).unwrap()).unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"ABCDEF\n");
        let source = TokenSource::File(path.clone());
        assert_eq!(source.read(&ui(), "putio").unwrap().expose(), "ABCDEF");
        fs_err::write(&path, " ABC \r\n").unwrap();
        assert_eq!(source.read(&ui(), "putio").unwrap().expose(), "ABC");
        forget(&path).unwrap();
        forget(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        let long = "x".repeat(TOKEN_BYTES_MAX + 1);
        for content in ["", "\n", "sec ret", "sec\nret", "s\u{fc}cret", &long] {
            let error = token(content.as_bytes(), "the place").unwrap_err().to_string();
            assert!(error.starts_with("what is in the place is no token: "), "{error}");
            assert!(!error.contains("cret") && !error.contains("xxx"), "{error}");
        }
        assert!(token(b"\xff\xfe", "x").is_err());
    }

    #[test]
    fn a_missing_token_asks_to_sign_in() {
        let error = TokenSource::File("/no/such".into()).read(&ui(), "work").unwrap_err();
        assert_eq!(error.to_string(), "nobody has signed in to storage 'work' on this machine");
        let Some(Failure::SignIn { hint, .. }) = error.downcast_ref() else { panic!("{error}") };
        assert_eq!(hint, "sign in again: putback storage reconnect work");
    }
}
