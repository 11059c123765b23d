//! The secret a person's account is used with.

use std::fmt;

use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind};

/// The longest token accepted, in bytes; real ones have a few dozen.
const TOKEN_BYTES_MAX: usize = 4096;

/// A secret: an account's token, or the secret of an application.
///
/// Its `Debug` output does not contain it, and its memory is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// Takes a secret as a person or a server wrote it; blanks around it are cut off.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if nothing is left, if it is longer than 4 KiB, or if it contains
    /// anything but visible ASCII characters.
    pub fn new(secret: String) -> Result<Self, Error> {
        let secret = Zeroizing::new(secret);
        let text = secret.trim();
        let complaint = if text.is_empty() {
            "the token is empty"
        } else if text.len() > TOKEN_BYTES_MAX {
            "the token is too long"
        } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            "the token contains a space or another character that no token has"
        } else {
            return Ok(Self(Zeroizing::new(text.to_owned())));
        };
        Err(Error::new(ErrorKind::Invalid, "token", complaint))
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}
