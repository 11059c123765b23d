//! What an answer other than success means, and whether sending the request again can help.

use crate::error::{Error, ErrorKind};
use crate::wire::ErrorEnvelope;

/// Whether to send the request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It cannot help.
    Never,
    /// It may, after a pause.
    Later {
        /// The service may have done what was asked.
        is_ambiguous: bool,
    },
    /// It was one request too many and has not been looked at. The gate is shut already.
    Limited,
}

/// A request that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) retry: Retry,
}

impl Failure {
    /// One that sending again cannot help.
    pub(crate) const fn never(error: Error) -> Self {
        Self { error, retry: Retry::Never }
    }

    /// One after which the service may have done what was asked.
    pub(crate) const fn ambiguous(error: Error) -> Self {
        Self { error, retry: Retry::Later { is_ambiguous: true } }
    }

    /// A transfer that got no further: nothing to resolve, only to begin again.
    pub(crate) const fn later(error: Error) -> Self {
        Self { error, retry: Retry::Later { is_ambiguous: false } }
    }

    /// Whether the service may have done what was asked.
    pub(crate) const fn is_ambiguous(&self) -> bool {
        matches!(self.retry, Retry::Later { is_ambiguous: true })
    }
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The API.
    Api,
    /// The upload host: refusals may mean that the account is full.
    Upload,
    /// A storage host.
    Storage,
}

/// Reads the envelope of an error; whatever is not JSON is an empty one.
pub(crate) fn read_envelope(body: &[u8]) -> ErrorEnvelope {
    serde_json::from_slice(body).unwrap_or_default()
}

/// Judges an answer whose status is not success.
pub(crate) fn judge(
    call: &'static str,
    side: Side,
    status: u16,
    envelope: ErrorEnvelope,
) -> Failure {
    let error_type = envelope.error_type.or(envelope.error);
    let message = envelope.error_message.or(envelope.message).unwrap_or_default();
    let (kind, retry) = decide(side, status, error_type.as_deref(), &message);
    let error = Error {
        kind,
        call,
        status: Some(status),
        error_type: error_type.map(|text| printable(&text, 64)),
        message: printable(&message, 200),
        source: None,
    };
    Failure { error, retry }
}

fn decide(side: Side, status: u16, error_type: Option<&str>, message: &str) -> (ErrorKind, Retry) {
    let never = |kind| (kind, Retry::Never);
    let later = |is_ambiguous| (ErrorKind::Server, Retry::Later { is_ambiguous });
    match error_type {
        // Another trash operation runs, or a storage host is away: nothing was done.
        Some("TRASH_LOCK_TIMEOUT" | "FILE_NOT_REACHABLE") => return later(false),
        Some("FILE_LOST") => return never(ErrorKind::Lost),
        _ => {}
    }
    // Neither of the answers that pass, whatever they speak of, nor of one about the token.
    let is_refused = (400..500).contains(&status) && !matches!(status, 401 | 408 | 429);
    if side == Side::Upload && is_refused && speaks_of_space(error_type, message) {
        return never(ErrorKind::Full);
    }
    match status {
        400 => never(match error_type {
            Some("NAME_ALREADY_EXIST") => ErrorKind::Conflict,
            Some("EMPTY_NAME" | "SLASH_IN_NAME" | "NAME_TOO_LONG") => ErrorKind::InvalidName,
            _ => ErrorKind::Invalid,
        }),
        401 => never(ErrorKind::Unauthorized),
        402 => never(ErrorKind::PaymentRequired),
        403 | 407 => never(ErrorKind::Denied),
        404 => never(ErrorKind::NotFound),
        408 => later(true),
        410 if error_type == Some("LINK_EXPIRED") => never(ErrorKind::Expired),
        410 => never(ErrorKind::NotFound),
        // Too large: for an upload there is nothing but space that this could mean.
        413 if side == Side::Upload => never(ErrorKind::Full),
        429 => (ErrorKind::RateLimited, Retry::Limited),
        507 => never(ErrorKind::Full),
        status if (400..500).contains(&status) => never(ErrorKind::Invalid),
        // Redirects are never followed: they come from proxies and sign-in pages of networks.
        _ => later(true),
    }
}

/// Whether an upload was refused for want of space. What the service says then is not documented.
fn speaks_of_space(error_type: Option<&str>, message: &str) -> bool {
    const WORDS: [&str; 6] =
        ["space", "quota", "disk", "storage_full", "storage full", "over_limit"];
    let says = |text: &str| {
        let text = text.to_ascii_lowercase();
        WORDS.iter().any(|word| text.contains(word))
    };
    error_type.is_some_and(says) || says(message)
}

/// A server's text, fit for a terminal and a log: no control characters, not long, and without
/// anything that looks like an address, which might carry a credential.
fn printable(text: &str, characters_max: usize) -> String {
    let words = text.split_whitespace().map(|word| {
        // First of all: what is taken out may stand between the letters that are looked for.
        let word: String = word.chars().filter(|character| !character.is_control()).collect();
        let is_secret = word.contains("://") || word.contains("token=");
        if is_secret { "[address]".to_owned() } else { word }
    });
    words.collect::<Vec<_>>().join(" ").chars().take(characters_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(side: Side, status: u16, body: &str, kind: ErrorKind, retry: Retry) {
        let failure = judge("call", side, status, read_envelope(body.as_bytes()));
        assert_eq!((failure.error.kind, failure.retry), (kind, retry), "{status} {body}");
    }

    #[test]
    fn answers_are_judged_by_status_then_type() {
        use ErrorKind as K;
        let later = |is_ambiguous| Retry::Later { is_ambiguous };
        let api = |status, error_type: &str, kind, retry| {
            let body = format!(r#"{{"status":"ERROR","error_type":"{error_type}"}}"#);
            check(Side::Api, status, &body, kind, retry);
        };
        api(400, "NAME_ALREADY_EXIST", K::Conflict, Retry::Never);
        api(400, "SLASH_IN_NAME", K::InvalidName, Retry::Never);
        api(400, "TRASH_LOCK_TIMEOUT", K::Server, later(false));
        api(400, "BadRequest", K::Invalid, Retry::Never);
        api(401, "invalid_scope", K::Unauthorized, Retry::Never);
        api(402, "BadRequest", K::PaymentRequired, Retry::Never);
        api(403, "", K::Denied, Retry::Never);
        api(404, "NotFound", K::NotFound, Retry::Never);
        api(410, "FILE_LOST", K::Lost, Retry::Never);
        api(410, "LINK_EXPIRED", K::Expired, Retry::Never);
        api(503, "FILE_NOT_REACHABLE", K::Server, later(false));
        api(429, "RATE_LIMIT_ERROR", K::RateLimited, Retry::Limited);
        api(500, "", K::Server, later(true));
        api(302, "", K::Server, later(true));
        for body in ["", "<html>502</html>", "{", "[]", r#"{"error_type": 5, "extra": null}"#] {
            check(Side::Api, 502, body, K::Server, later(true));
            check(Side::Storage, 404, body, K::NotFound, Retry::Never);
        }
    }

    #[test]
    fn a_full_account_is_recognised() {
        for (status, body) in [
            (413, ""),
            (507, ""),
            (400, r#"{"error_type":"DISK_QUOTA_EXCEEDED"}"#),
            (402, r#"{"error_message":"You don't have enough space"}"#),
            (403, r#"{"error_type":"NO_SPACE_LEFT"}"#),
        ] {
            check(Side::Upload, status, body, ErrorKind::Full, Retry::Never);
        }
        check(Side::Upload, 402, "", ErrorKind::PaymentRequired, Retry::Never);
        check(Side::Upload, 403, "", ErrorKind::Denied, Retry::Never);
        let body = r#"{"error_message":"no space"}"#;
        check(Side::Upload, 401, body, ErrorKind::Unauthorized, Retry::Never);
    }

    #[test]
    fn what_passes_is_no_full_account_whatever_it_speaks_of() {
        let later = Retry::Later { is_ambiguous: true };
        let body = r#"{"error_message":"Upload quota exceeded, try again later"}"#;
        check(Side::Upload, 429, body, ErrorKind::RateLimited, Retry::Limited);
        for status in [302, 408, 500, 502, 503] {
            let body = r#"{"error_message":"disk error"}"#;
            check(Side::Upload, status, body, ErrorKind::Server, later);
        }
    }

    #[test]
    fn messages_are_fit_for_a_terminal() {
        for (said, shown) in [
            (r"see\u001b[31m https://s01.put.io/?oauth_token=SECRET now", "see[31m [address] now"),
            (r"see https:\u0001//s01.put.io and tok\u007fen=SECRET", "see [address] and [address]"),
        ] {
            let body = format!(r#"{{"error_message":"{said}"}}"#);
            let failure = judge("call", Side::Api, 400, read_envelope(body.as_bytes()));
            assert_eq!(failure.error.message, shown);
        }
    }
}
