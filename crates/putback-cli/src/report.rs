//! Where a message and an exit code come from: the only mapping from errors to either.
//!
//! The numbers are listed in `docs/exit-codes.md`. Libraries say what happened and to which object;
//! the hint says what the reader can do, and is added here because only here commands are known.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use putback_engine::Error as EngineError;
use putback_repo::Error as RepositoryError;
use putback_store::{Error as StoreError, ErrorKind};
use thiserror::Error;

use crate::storages;
use crate::ui::{Ui, json, text};

/// What a command that did not fail leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All was done.
    Done,
    /// Done, but for some entries; each was reported.
    Incomplete,
    /// Stopped because the user asked for it.
    Interrupted,
}

impl Outcome {
    /// `Incomplete` if `problems` is not zero.
    pub(crate) fn of_problems(problems: u64) -> Self {
        if problems == 0 { Self::Done } else { Self::Incomplete }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Done => code::DONE,
            Outcome::Incomplete => code::INCOMPLETE,
            Outcome::Interrupted => code::INTERRUPTED,
        })
    }
}

/// The exit codes.
pub(crate) mod code {
    pub(crate) const DONE: u8 = 0;
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    pub(crate) const INCOMPLETE: u8 = 3;
    pub(crate) const NO_REPOSITORY: u8 = 10;
    pub(crate) const BUSY: u8 = 11;
    pub(crate) const WRONG_PASSWORD: u8 = 12;
    pub(crate) const SIGN_IN: u8 = 13;
    pub(crate) const FULL: u8 = 14;
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// What can go wrong in the program itself rather than in a library.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The command line, the environment or the configuration asks for something impossible.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What would be right.
        hint: Option<String>,
    },
    /// Something else, with its own hint.
    #[error("{message}")]
    Other {
        /// What happened.
        message: String,
        /// What the user can do.
        hint: Option<String>,
    },
    /// No source of a password was given and there is no terminal to ask.
    #[error("no {what} was given, and there is no terminal to ask for it")]
    NoPassword {
        /// Which one.
        what: String,
        /// How it can be given.
        hint: String,
    },
    /// Nobody has signed in to a storage, or its token is refused.
    #[error("{message}")]
    SignIn {
        /// What happened.
        message: String,
        /// What the user can do.
        hint: String,
    },
    /// A new token is refused.
    #[error("{message}")]
    Refused {
        /// What happened.
        message: String,
        /// What the user can do.
        hint: String,
        /// What the service said.
        source: Box<putio::Error>,
    },
    /// The service behind a storage refused or failed.
    #[error("{message}")]
    Service {
        /// What was asked of it.
        message: String,
        /// The storage.
        storage: String,
        /// What it said.
        source: Box<putio::Error>,
    },
    /// Somebody pressed Ctrl-C where something was asked for.
    #[error("interrupted")]
    Interrupted,
    /// What is said to be an exported key opens nothing.
    #[error("{path} is not a whole exported key")]
    KeyFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: Option<putback_format::Error>,
    },
    /// `check` found damage, which it has already shown.
    #[error("the repository is damaged in {}", text::counted(*.damages, "place", "places"))]
    Damaged {
        /// How many.
        damages: u64,
        /// What can be said of the rest: the beginning of a sentence that goes on, or nothing.
        whole: String,
    },
    /// `check` found that the storage shows less than it did, which it has already said.
    #[error("the storage shows less than was seen there before")]
    RolledBack,
}

impl Failure {
    /// Wrong usage without a hint.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: None }
    }

    /// Wrong usage, and what would be right.
    pub(crate) fn usage_with(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    /// A file that `flag` names cannot be used.
    ///
    /// What the command line names must be there: it is wrong usage, unless the disk itself failed.
    pub(crate) fn file_of(flag: &str, path: &Path, error: &io::Error) -> Self {
        let path = text::escaped(path.as_os_str().as_encoded_bytes());
        let why = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "does not exist",
            io::ErrorKind::IsADirectory => "is a folder",
            io::ErrorKind::PermissionDenied => "you may not read",
            io::ErrorKind::InvalidData => "is not UTF-8 text",
            _ => {
                let message = format!("cannot read {path}, which {flag} names: {error}");
                return Self::Other { message, hint: None };
            }
        };
        Self::usage(format!("{flag} names {path}, which {why}"))
    }

    /// A failure and what to do about it.
    pub(crate) fn other(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Other { message: message.into(), hint: Some(hint.into()) }
    }
}

/// Whether `error` says that there is no repository.
pub(crate) fn is_no_repository(error: &anyhow::Error) -> bool {
    matches!(repository_error(error), Some(RepositoryError::NoRepository { .. }))
}

/// Whether `error` says that the password is wrong.
pub(crate) fn is_wrong_password(error: &anyhow::Error) -> bool {
    matches!(repository_error(error), Some(RepositoryError::WrongPassword { .. }))
}

/// Whether `error` says that somebody pressed Ctrl-C where something was asked for.
pub(crate) fn is_interrupted_prompt(error: &anyhow::Error) -> bool {
    matches!(failure(error), Some(Failure::Interrupted))
}

/// Whether `error` says that something in the repository is lost or damaged.
pub(crate) fn is_damage(error: &anyhow::Error) -> bool {
    repository_error(error).is_some_and(|error| {
        error.is_damage() || matches!(error, RepositoryError::PacksLost { .. })
    })
}

/// What an error and its causes say, each on a line.
pub(crate) fn messages(error: &anyhow::Error) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for cause in error.chain() {
        let line = text::printable(&cause.to_string());
        // An error that is shown as its cause would say the same twice.
        if lines.last() != Some(&line) {
            lines.push(line);
        }
    }
    lines
}

/// Prints an error with its causes and hint, and says which code it leads to.
pub(crate) fn failed(ui: &Ui, error: &anyhow::Error) -> ExitCode {
    let code = exit_code(error);
    let mut lines = messages(error);
    if code == code::INTERRUPTED && !ui.is_json() {
        ui.interrupted(&lines.join(": "));
        return ExitCode::from(code);
    }
    let hint = hint(ui, error);
    let message = if lines.is_empty() { String::new() } else { lines.remove(0) };
    if ui.is_json() {
        ui.json_error(&json::ExitError {
            message_type: "exit_error",
            code,
            message,
            causes: lines,
            hint,
        });
    } else {
        ui.error(&message, &lines, hint.as_deref());
    }
    ExitCode::from(code)
}

/// Prints what clap has to say: help and version on standard output, wrong usage as an error.
pub(crate) fn command_line(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    let ui = Ui::early();
    let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if ui.is_json() && !is_help {
        let rendered = error.to_string();
        let mut lines = rendered.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or("wrong usage");
        let message = first.strip_prefix("error: ").unwrap_or(first);
        ui.json_error(&json::ExitError {
            message_type: "exit_error",
            code: code::USAGE,
            message: text::printable(message),
            causes: Vec::new(),
            hint: Some("`putback help` lists the commands and their flags".to_owned()),
        });
        return ExitCode::from(code::USAGE);
    }
    // A closed pipe behind `putback --help` is nobody's error.
    drop(error.print());
    ExitCode::from(if is_help { code::DONE } else { code::USAGE })
}

fn repository_error(error: &anyhow::Error) -> Option<&RepositoryError> {
    error.chain().find_map(|cause| {
        if let Some(EngineError::Repository(inner)) = cause.downcast_ref::<EngineError>() {
            return Some(inner);
        }
        cause.downcast_ref::<RepositoryError>()
    })
}

fn store_error(error: &anyhow::Error) -> Option<&StoreError> {
    match repository_error(error) {
        Some(RepositoryError::Store(inner)) => Some(inner),
        _ => error.chain().find_map(|cause| cause.downcast_ref::<StoreError>()),
    }
}

/// Whether the disk that a restore or dump writes to is full.
fn is_target_full(error: &anyhow::Error) -> bool {
    let is_full = |source: &io::Error| {
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    };
    error.chain().any(|cause| match cause.downcast_ref() {
        Some(EngineError::Target { source, .. }) => is_full(source),
        _ => false,
    }) || error.downcast_ref().is_some_and(is_full)
}

fn failure(error: &anyhow::Error) -> Option<&Failure> {
    error.chain().find_map(|cause| cause.downcast_ref::<Failure>())
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(failure) = failure(error) {
        return match failure {
            Failure::Usage { .. } => code::USAGE,
            Failure::SignIn { .. } | Failure::Refused { .. } => code::SIGN_IN,
            Failure::Service { source, .. } => service_code(&source.kind),
            Failure::KeyFile { .. } => code::WRONG_PASSWORD,
            Failure::Interrupted => code::INTERRUPTED,
            Failure::Other { .. }
            | Failure::NoPassword { .. }
            | Failure::Damaged { .. }
            | Failure::RolledBack => code::FAILED,
        };
    }
    if is_target_full(error) {
        return code::FULL;
    }
    if let Some(store) = store_error(error) {
        return match store.kind {
            ErrorKind::Full => code::FULL,
            ErrorKind::Unauthorized => code::SIGN_IN,
            ErrorKind::Locked => code::BUSY,
            _ => code::FAILED,
        };
    }
    let engine = error.chain().find_map(|cause| cause.downcast_ref::<EngineError>());
    if let Some(EngineError::StorageFull { .. }) = engine {
        return code::FULL;
    }
    if let Some(EngineError::Pattern { .. } | EngineError::DeleteByCheckpoint) = engine {
        return code::USAGE;
    }
    match repository_error(error) {
        Some(RepositoryError::NoRepository { .. }) => code::NO_REPOSITORY,
        Some(
            RepositoryError::WrongPassword { .. }
            | RepositoryError::KeyOfOther { .. }
            | RepositoryError::OutdatedKey { .. },
        ) => code::WRONG_PASSWORD,
        Some(RepositoryError::Cancelled) => code::INTERRUPTED,
        Some(
            RepositoryError::CommitContended
            | RepositoryError::OthersActive { .. }
            | RepositoryError::KeysContended { .. }
            | RepositoryError::KeysRotated { .. },
        ) => code::BUSY,
        Some(RepositoryError::BadOption { .. } | RepositoryError::BadSelector { .. }) => {
            code::USAGE
        }
        _ => code::FAILED,
    }
}

fn service_code(kind: &putio::ErrorKind) -> u8 {
    match kind {
        putio::ErrorKind::Unauthorized => code::SIGN_IN,
        putio::ErrorKind::Full => code::FULL,
        putio::ErrorKind::Cancelled => code::INTERRUPTED,
        _ => code::FAILED,
    }
}

/// What can be done about an answer of put.io.
fn service_hint(kind: &putio::ErrorKind, storage: Option<&str>) -> Option<String> {
    let hint = match kind {
        putio::ErrorKind::Unauthorized => return Some(sign_in_hint(storage)),
        putio::ErrorKind::Full => {
            "make room in the account, its trash included; earlier snapshots are not affected"
        }
        putio::ErrorKind::PaymentRequired => {
            "the account needs a plan before anything more can be stored: https://app.put.io"
        }
        putio::ErrorKind::RateLimited => "wait a little and try again; --tpslimit asks more slowly",
        putio::ErrorKind::CaptchaNeeded { .. } => {
            "open that page in a browser, then run the command again"
        }
        putio::ErrorKind::Network => {
            "is there a connection? HTTPS_PROXY names a proxy, --cacert its certificate"
        }
        putio::ErrorKind::Withheld => {
            "put.io knows the file and cannot hand it out now; others are not affected; try again later; if \
             that stays so for days, delete this one file on put.io: then it counts as lost, and \
             `putback repair` saves what can be saved"
        }
        putio::ErrorKind::Server => "put.io has a problem of its own; try again later",
        putio::ErrorKind::Expired => "begin again: the code was not confirmed in time",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// What can be done without a password slot.
const NO_SLOT: &str = "an exported key opens the repository: --key-file FILE; with it `putback key add` makes a new \
                       password slot. Or copy the folders keys and copies from a copy of the repository";
/// What can be done without a configuration.
const NO_CONFIG: &str = "nothing opens the repository without it: copy the folders config and copies from a copy of \
                         the repository, or ask the storage for what it deleted";

/// How to sign in to a storage again.
pub(crate) fn sign_in_hint(storage: Option<&str>) -> String {
    let is_set = std::env::var_os(storages::TOKEN_VARIABLE).is_some_and(|value| !value.is_empty());
    match storage {
        Some(storages::DEFAULT_NAME) if is_set => {
            format!("put a token that is valid into {}", storages::TOKEN_VARIABLE)
        }
        Some(name) => format!("sign in again: putback storage reconnect {}", text::printable(name)),
        None => "sign in again: putback storage reconnect NAME".to_owned(),
    }
}

/// What put.io said, if an error comes from there.
fn service_error(error: &anyhow::Error) -> Option<&putio::Error> {
    error.chain().find_map(|cause| cause.downcast_ref::<putio::Error>())
}

fn hint(ui: &Ui, error: &anyhow::Error) -> Option<String> {
    if let Some(failure) = failure(error) {
        return match failure {
            Failure::Usage { hint, .. } | Failure::Other { hint, .. } => hint.clone(),
            Failure::NoPassword { hint, .. }
            | Failure::SignIn { hint, .. }
            | Failure::Refused { hint, .. } => Some(hint.clone()),
            Failure::Service { source, storage, .. } => service_hint(&source.kind, Some(storage)),
            Failure::KeyFile { .. } => Some(
                "compare it with the text that `putback key export` printed, line by line; a \
                 password opens the repository too"
                    .to_owned(),
            ),
            Failure::Interrupted => None,
            Failure::RolledBack => Some(
                "what was deleted by hand may lie in the storage's trash, and is whole again when it is \
                 brought back; if you know why it is gone, because the storage was copied or restored from \
                 a copy, take it for known on this machine: `putback check --accept-rollback`"
                    .to_owned(),
            ),
            Failure::Damaged { whole, .. } => Some(format!(
                "{whole}{}`putback repair index` and `putback repair packs` save what can be saved, and the next \
                 backup stores again what is still at its source",
                // A folder of this machine has no trash of which that is true.
                match ui.remotes().only_name() {
                    Some(_) => "what was deleted by hand may lie in the storage's trash, and is whole again when it \
                                is brought back; ",
                    None => "",
                }
            )),
        };
    }
    let engine = error.chain().find_map(|cause| cause.downcast_ref::<EngineError>());
    if let Some(EngineError::StorageFull { checkpoint, .. }) = engine {
        let safe = checkpoint.map_or_else(
            || "earlier snapshots are not affected".to_owned(),
            |id| format!("what was backed up so far is safe as checkpoint {}, and the next backup continues from it", id.short()),
        );
        return Some(format!("make room on the storage, its trash included; {safe}"));
    }
    if let Some(EngineError::DeleteByCheckpoint) = engine {
        let hint = "restore it without --delete, or a snapshot of a backup that came to its end";
        return Some(hint.to_owned());
    }
    if is_target_full(error) {
        let hint = "make room there, or give another target; a restore goes on where it was when \
                    the same command is run again";
        return Some(hint.to_owned());
    }
    if let Some(store) = store_error(error) {
        let storage = ui.remotes().only_name();
        let said = service_error(error);
        if let Some(hint) = said.and_then(|said| service_hint(&said.kind, storage.as_deref())) {
            return Some(hint);
        }
        return match store.kind {
            ErrorKind::Full => Some(
                "make room on the storage, its trash included; earlier snapshots are not affected"
                    .to_owned(),
            ),
            ErrorKind::Denied => {
                Some("check the owner and the permissions of the repository's folder".to_owned())
            }
            ErrorKind::RateLimited => Some("wait a little and try again".to_owned()),
            ErrorKind::Locked => Some("wait until the other operation ends".to_owned()),
            ErrorKind::Unauthorized => Some(sign_in_hint(storage.as_deref())),
            ErrorKind::Corrupt => {
                Some("`putback check --read-data` lists what is damaged".to_owned())
            }
            _ => None,
        };
    }
    let hint = match repository_error(error)? {
        RepositoryError::NoRepository { .. } => {
            "`putback init` makes one there; is the location right, and is its disk mounted?"
        }
        RepositoryError::RepositoryExists { .. } => {
            "back up into it with its password, or give another location"
        }
        RepositoryError::WrongPassword { .. } => {
            "check the password and where it comes from; upper and lower case differ"
        }
        RepositoryError::KeyOfOther { .. } => {
            "give the key that was exported from this repository, or one of its passwords"
        }
        RepositoryError::OutdatedKey { .. } => {
            "give a password that was kept when the keys were rotated, or a key that was exported \
             since then"
        }
        RepositoryError::KeysRotated { .. } => {
            "nothing is lost: run the command again, it goes on with the new keys. If it says this \
             again, `putback key rotate` with all passwords joins the keys of all of them"
        }
        RepositoryError::KeysContended { .. } => {
            "run the command again; if another machine rotated the keys, with a password that it kept"
        }
        RepositoryError::NoPasswordKept { .. } => {
            "give a password that opens the repository; nothing was changed"
        }
        RepositoryError::NoFreeEpoch { .. } => {
            "make a new repository, and keep this one for its snapshots; nothing was changed"
        }
        RepositoryError::NewerFormat { .. } => {
            "update putback; nothing is lost by that, and nothing was changed"
        }
        RepositoryError::Damaged { object, .. }
            if object.starts_with("index/") || object.starts_with("marks/") =>
        {
            "no snapshot is lost by that; `putback repair index` does without it"
        }
        RepositoryError::NoSlots { .. } => NO_SLOT,
        RepositoryError::NoConfig { .. } => NO_CONFIG,
        RepositoryError::Damaged { object, .. } if object.starts_with("every password slot") => {
            NO_SLOT
        }
        RepositoryError::Damaged { object, .. } if object.starts_with("keys/") => {
            "another password may open the repository, and an exported key does: --key-file FILE"
        }
        RepositoryError::Damaged { object, .. }
            if object.starts_with("config/") || object == "the configuration" =>
        {
            NO_CONFIG
        }
        RepositoryError::PacksLost { .. } => {
            "run the command again; if that fails too, `putback repair packs` saves what is left"
        }
        RepositoryError::LostChanged { .. } => {
            "nothing was written or forgotten for it; run the command again to see what is lost now"
        }
        RepositoryError::Damaged { .. }
        | RepositoryError::BlobDamaged { .. }
        | RepositoryError::BlobLost { .. }
        | RepositoryError::BlobUnknown { .. } => {
            "`putback check --read-data` lists all damage and what it hurts; `putback repair` saves what \
             can be saved"
        }
        RepositoryError::BlobMissing { .. } => {
            "nothing was marked or deleted; `putback check` lists what is missing, and a backup of what is \
             still at its source stores it anew; a snapshot that cannot be mended can be forgotten"
        }
        RepositoryError::SnapshotsGone { .. } => {
            "nothing was marked or deleted; bring them back, from the trash of the storage or from another copy \
             of the repository; if that cannot be, `putback check --accept-rollback` takes it for known on this \
             machine"
        }
        RepositoryError::OthersActive { .. } => {
            "leave --instant out: what is marked goes with a prune after the grace period, beside any \
             number of backups"
        }
        RepositoryError::NoSnapshot { .. } => {
            "`putback snapshots` lists them; --host, --tag and --path apply here too"
        }
        RepositoryError::NotForgotten { .. } => "it is among those that `putback snapshots` lists",
        RepositoryError::Removed { .. } => {
            "`putback undelete` lists those that can still be brought back"
        }
        RepositoryError::Ambiguous { candidates, .. } => {
            let ids: Vec<String> =
                candidates.iter().take(5).map(|id| id.to_string()[..12].to_owned()).collect();
            return Some(format!("give more digits: {}", ids.join(", ")));
        }
        RepositoryError::BadSelector { .. } => "`putback snapshots` lists ids and times",
        RepositoryError::NoFreeSlot { .. } => "remove one that is not needed: `putback key remove`",
        RepositoryError::TwoRepositories { .. } => {
            "two machines made a repository there at the same moment: move everything to another \
             folder and begin again"
        }
        RepositoryError::CommitContended => {
            "run the command again when nothing else changes the repository"
        }
        RepositoryError::Local { .. } => {
            "--cache-dir and --state-dir choose other folders, --no-cache does without a cache"
        }
        RepositoryError::LastSlot => "add another password first: `putback key add`",
        RepositoryError::NoSlot { .. } => "`putback key list` shows the slots",
        RepositoryError::AmbiguousSlot { candidates, .. } => {
            let ids: Vec<String> =
                candidates.iter().map(|id| id.to_string()[..12].to_owned()).collect();
            return Some(format!("nothing was changed; give more digits: {}", ids.join(", ")));
        }
        RepositoryError::NoPath { .. } => "`putback ls SNAPSHOT` shows what is in the snapshot",
        _ => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: impl Into<anyhow::Error>, code: u8) {
        let error = error.into();
        assert_eq!(exit_code(&error), code, "{error:?}");
        let wrapped = error.context("while doing something");
        assert_eq!(exit_code(&wrapped), code, "{wrapped:?}");
    }

    fn store(kind: ErrorKind) -> StoreError {
        StoreError {
            kind,
            status: putback_store::Status::Permanent,
            operation: putback_store::Operation::Write,
            path: "packs/00".to_owned(),
            source: None,
        }
    }

    #[test]
    fn every_cause_has_its_exit_code_at_any_depth() {
        let location = || "/r".to_owned();
        check(Failure::usage("x"), 2);
        check(Failure::NoPassword { what: "password".to_owned(), hint: String::new() }, 1);
        check(RepositoryError::NoRepository { location: location() }, 10);
        check(EngineError::from(RepositoryError::NoRepository { location: location() }), 10);
        check(RepositoryError::WrongPassword { location: location() }, 12);
        let host = || "h".to_owned();
        let snapshot = putback_format::id::SnapshotId::from_bytes([7; 32]);
        check(RepositoryError::OthersActive { snapshot, host: host(), age_seconds: 60 }, 11);
        check(RepositoryError::Cancelled, 130);
        check(EngineError::from(RepositoryError::Cancelled), 130);
        check(RepositoryError::RepositoryExists { location: location() }, 1);
        check(store(ErrorKind::Full), 14);
        check(EngineError::StorageFull { available: 7, checkpoint: None }, 14);
        check(RepositoryError::from(store(ErrorKind::Full)), 14);
        check(EngineError::from(RepositoryError::from(store(ErrorKind::Unauthorized))), 13);
        check(RepositoryError::from(store(ErrorKind::Locked)), 11);
        check(store(ErrorKind::Other), 1);
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        check(EngineError::Target { path: "/t".to_owned(), source: full() }, 14);
        check(full(), 14);
        check(RepositoryError::Local { path: "/c".to_owned(), source: full() }, 1);
        for (kind, code) in [
            (putio::ErrorKind::Unauthorized, 13),
            (putio::ErrorKind::Full, 14),
            (putio::ErrorKind::Network, 1),
        ] {
            let source = putio::Error::new(kind, "account", "").into();
            check(
                Failure::Service { message: String::new(), storage: "a1".to_owned(), source },
                code,
            );
        }
    }

    #[test]
    fn the_storage_to_sign_in_to_again_is_named() {
        let ui = Ui::early();
        let refused = || putio::Error::new(putio::ErrorKind::Unauthorized, "list", "");
        let unauthorized = || {
            let error =
                StoreError { source: Some(refused().into()), ..store(ErrorKind::Unauthorized) };
            anyhow::Error::new(EngineError::from(RepositoryError::from(error)))
        };
        let expected =
            |name: &str| Some(format!("sign in again: putback storage reconnect {name}"));
        assert_eq!(hint(&ui, &unauthorized()), expected("NAME"));
        ui.remotes().attach("work", crate::ui::remote::Traffic::default);
        assert_eq!(hint(&ui, &unauthorized()), expected("work"));
        let failure = Failure::Service {
            message: String::new(),
            storage: "other".to_owned(),
            source: refused().into(),
        };
        assert_eq!(hint(&ui, &failure.into()), expected("other"));
    }
}
