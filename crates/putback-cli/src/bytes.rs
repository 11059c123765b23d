//! Names of the system as raw bytes and back, in one place because it differs between systems.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::report::Failure;

/// The bytes of a name or path, as snapshots hold them.
pub(crate) fn of(text: &OsStr) -> Vec<u8> {
    text.as_encoded_bytes().to_vec()
}

/// The name that has these bytes.
#[cfg(unix)]
pub(crate) fn to_os_string(bytes: Vec<u8>) -> Result<OsString, Failure> {
    Ok(std::os::unix::ffi::OsStringExt::from_vec(bytes))
}

/// The name that has these bytes, which must be UTF-8 on this system.
#[cfg(not(unix))]
pub(crate) fn to_os_string(bytes: Vec<u8>) -> Result<OsString, Failure> {
    String::from_utf8(bytes).map(OsString::from).map_err(|error| {
        Failure::usage(format!(
            "the path '{}' is not UTF-8",
            crate::ui::text::escaped(error.as_bytes())
        ))
    })
}

/// `path` made absolute without looking at the disk, `.` and `..` resolved by name, as raw bytes.
pub(crate) fn absolute(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::path::Component;
    let mut out = PathBuf::new();
    for component in std::path::absolute(path)?.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    Ok(of(out.as_os_str()))
}

/// Base 64 with padding (RFC 4648, section 4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut bits = [0; 4];
        bits[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(bits);
        for position in 0..4 {
            if position <= group.len() {
                let digit = (bits >> (18 - 6 * position)) & 63;
                out.push(char::from(DIGITS[digit as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }

    #[test]
    fn a_path_becomes_absolute_by_name_alone() {
        assert_eq!(absolute(Path::new("/a/./b/../c/")).unwrap(), b"/a/c");
        assert_eq!(absolute(Path::new("/../x")).unwrap(), b"/x");
    }
}
