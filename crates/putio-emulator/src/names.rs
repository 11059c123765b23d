//! Names: which are refused, what becomes of the others, and which are the same.

use unicode_normalization::UnicodeNormalization;

use crate::options::{Collation, Names, Profile};

/// put.io's limit, taken as bytes (a client's probe found 255 without saying of what).
const NAME_BYTES_MAX: usize = 255;

/// Why a name is refused, by put.io's word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) error_type: &'static str,
    pub(crate) message: &'static str,
}

/// The name that is stored for one that was sent.
pub(crate) fn accept(name: &str, profile: &Profile) -> Result<String, Refused> {
    if name.is_empty() {
        return Err(Refused { error_type: "EMPTY_NAME", message: "Name can not be empty" });
    }
    if name.contains('/') {
        return Err(Refused { error_type: "SLASH_IN_NAME", message: "Name can not contain slash" });
    }
    if name.contains('\0') {
        return Err(Refused { error_type: "BadRequest", message: "Name can not contain NUL" });
    }
    let stored = match profile.names {
        Names::AsSent => name.to_owned(),
        Names::Changed => changed(name),
    };
    if stored.len() > NAME_BYTES_MAX {
        return Err(Refused { error_type: "NAME_TOO_LONG", message: "Name is too long" });
    }
    Ok(stored)
}

/// `\` becomes `-`; percent sequences are decoded, unless that yields no name.
fn changed(name: &str) -> String {
    let dashed = name.replace('\\', "-");
    let decoded = percent_encoding::percent_decode_str(&dashed).decode_utf8();
    match decoded {
        Ok(text) if !text.is_empty() && !text.contains(['/', '\0']) => text.into_owned(),
        _ => dashed,
    }
}

/// Names with equal keys are the same to a loose collation.
pub(crate) fn loose_key(name: &str) -> String {
    name.trim_end_matches(' ').nfc().collect::<String>().to_lowercase().nfc().collect()
}

/// Whether two names with equal keys are the same.
pub(crate) fn is_same(one: &str, other: &str, collation: Collation) -> bool {
    match collation {
        Collation::Exact => one == other,
        Collation::Loose => loose_key(one) == loose_key(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, names: Names, expected: Result<&str, &str>) {
        let profile = Profile { names, ..Profile::default() };
        let stored = accept(name, &profile);
        let stored = stored.as_deref().map_err(|refused| refused.error_type);
        assert_eq!(stored, expected, "{name:?}");
    }

    #[test]
    fn names_are_refused_changed_or_kept() {
        let longest = "x".repeat(255);
        let beyond = "é".repeat(128);
        for names in [Names::AsSent, Names::Changed] {
            check("", names, Err("EMPTY_NAME"));
            check("a/b", names, Err("SLASH_IN_NAME"));
            check("a\0b", names, Err("BadRequest"));
            check(&longest, names, Ok(&longest));
            check(&beyond, names, Err("NAME_TOO_LONG"));
            check(" plain name ", names, Ok(" plain name "));
        }
        check("a\\b%46", Names::AsSent, Ok("a\\b%46"));
        check("a\\b", Names::Changed, Ok("a-b"));
        check("test%46.txt", Names::Changed, Ok("testF.txt"));
        check("100%", Names::Changed, Ok("100%"));
        check("%ff", Names::Changed, Ok("%ff"));
        check("%2F", Names::Changed, Ok("%2F"));
    }

    #[test]
    fn a_loose_collation_ignores_case_composition_and_trailing_spaces() {
        for (one, other) in [("Readme", "README"), ("e\u{301}", "É"), ("name", "name  ")] {
            assert!(is_same(one, other, Collation::Loose), "{one:?} {other:?}");
            assert!(!is_same(one, other, Collation::Exact), "{one:?} {other:?}");
        }
        assert!(!is_same("e", "é", Collation::Loose));
    }
}
