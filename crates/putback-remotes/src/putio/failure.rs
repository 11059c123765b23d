//! Errors of the client as errors of a store.

use putback_store::{Error, ErrorKind, Operation, Status};

/// An error of the client, met while `operation` was done on `path`.
pub(super) fn from_client(
    operation: Operation,
    path: impl Into<String>,
    error: putio::Error,
) -> Error {
    let kind = match error.kind {
        putio::ErrorKind::NotFound => ErrorKind::NotFound,
        putio::ErrorKind::Conflict => ErrorKind::AlreadyExists,
        putio::ErrorKind::Unauthorized => ErrorKind::Unauthorized,
        putio::ErrorKind::PaymentRequired | putio::ErrorKind::Denied => ErrorKind::Denied,
        putio::ErrorKind::Lost => ErrorKind::Lost,
        putio::ErrorKind::Full => ErrorKind::Full,
        putio::ErrorKind::RateLimited | putio::ErrorKind::CaptchaNeeded { .. } => {
            ErrorKind::RateLimited
        }
        putio::ErrorKind::Corrupt => ErrorKind::Corrupt,
        _ => ErrorKind::Other,
    };
    let status = match error.kind {
        // Of this object alone, and not for ever: others can be read, and nobody may take it for lost.
        putio::ErrorKind::Withheld => Status::Temporary,
        // The client has waited and tried again for as long as it may.
        _ if error.is_temporary() => Status::Exhausted,
        _ => Status::Permanent,
    };
    Error::new(kind, operation, path).with_status(status).with_source(error)
}

/// An error of the disk that holds what waits to be sent.
pub(super) fn from_disk(path: &std::path::Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::Denied
        }
        _ => ErrorKind::Other,
    };
    Error::new(kind, Operation::Write, path.display().to_string()).with_source(error)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use super::*;

    #[test]
    fn errors_of_the_client_keep_what_a_caller_can_do_about_them() {
        use putio::ErrorKind as Client;
        for (kind, expected, status) in [
            (Client::NotFound, ErrorKind::NotFound, Status::Permanent),
            (Client::Conflict, ErrorKind::AlreadyExists, Status::Permanent),
            (Client::Unauthorized, ErrorKind::Unauthorized, Status::Permanent),
            (Client::PaymentRequired, ErrorKind::Denied, Status::Permanent),
            (Client::Denied, ErrorKind::Denied, Status::Permanent),
            (Client::Lost, ErrorKind::Lost, Status::Permanent),
            (Client::Full, ErrorKind::Full, Status::Permanent),
            (Client::RateLimited, ErrorKind::RateLimited, Status::Exhausted),
            (
                Client::CaptchaNeeded { url: "https://x".to_owned() },
                ErrorKind::RateLimited,
                Status::Permanent,
            ),
            (Client::Corrupt, ErrorKind::Corrupt, Status::Permanent),
            (Client::Network, ErrorKind::Other, Status::Exhausted),
            (Client::Server, ErrorKind::Other, Status::Exhausted),
            (Client::Withheld, ErrorKind::Other, Status::Temporary),
            (Client::Invalid, ErrorKind::Other, Status::Permanent),
            (Client::Local, ErrorKind::Other, Status::Permanent),
        ] {
            let error = putio::Error::new(kind.clone(), "list", "");
            let error = from_client(Operation::List, "putio:x", error);
            assert_eq!((error.kind, error.status), (expected, status), "{kind:?}");
            assert_eq!((error.operation, error.path.as_str()), (Operation::List, "putio:x"));
        }
    }

    #[test]
    fn a_full_disk_names_its_folder() {
        for (kind, expected) in [
            (io::ErrorKind::StorageFull, ErrorKind::Full),
            (io::ErrorKind::QuotaExceeded, ErrorKind::Full),
            (io::ErrorKind::PermissionDenied, ErrorKind::Denied),
            (io::ErrorKind::TimedOut, ErrorKind::Other),
        ] {
            let error = from_disk(Path::new("/state/spool"), kind.into());
            assert_eq!(error.kind, expected);
            assert!(error.to_string().contains("/state/spool"), "{error}");
        }
    }
}
