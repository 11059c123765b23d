//! Patterns: which paths a user means.
//!
//! One language for `find` and for what a restore includes and excludes; paths and patterns are raw
//! bytes, since names need not be UTF-8.
//!
//! | pattern | matches |
//! |---|---|
//! | `*.txt` | every entry of such a name, however deep |
//! | `src/*.c` | a C file in a folder `src`, however deep |
//! | `/home/*/mail` | from the root on |
//! | `a/**/b`, `**/b`, `a/**` | `**` stands for any number of folders; at the end, for everything below |
//! | `cache/` | directories only |
//! | `?`, `[a-z]`, `[!a-z]` | one character, one of these, one that is none of these; never `/` |
//! | `\*` | the character itself |
//! | `!*.txt` | takes back what earlier patterns matched |
//!
//! A character is a UTF-8 sequence, or a single byte where the name is not UTF-8. Braces mean
//! themselves. Upper and lower case are compared character by character, so `ß` and `SS` stay
//! different.
//!
//! Matching takes at most the product of both lengths, whatever the pattern.

use crate::error::Error;

/// Patterns in the order in which they were given; the last one that matches decides.
#[derive(Clone, Debug, Default)]
pub struct PatternSet {
    patterns: Vec<Pattern>,
}

/// What a [`PatternSet`] says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// No pattern speaks of it.
    None,
    /// The pattern of this index matches it.
    By(usize),
    /// The negated pattern of this index takes it back.
    Negated(usize),
}

impl Match {
    /// Whether the path is meant.
    #[must_use]
    pub fn is_match(self) -> bool {
        matches!(self, Self::By(_))
    }
}

impl PatternSet {
    /// Reads patterns.
    ///
    /// # Errors
    /// [`Error::Pattern`]: one of them is empty, or has a `[` that is not closed, a range that runs
    /// backwards, a `\` with nothing to escape, or a component `..`. Both brackets stand in one
    /// component.
    pub fn new<P: AsRef<[u8]>>(patterns: &[P], ignore_case: bool) -> Result<Self, Error> {
        let patterns = patterns
            .iter()
            .map(|pattern| Pattern::new(pattern.as_ref(), ignore_case))
            .collect::<Result<_, _>>()?;
        Ok(Self { patterns })
    }

    /// Whether there are no patterns at all; such a set matches nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a pattern means the absolute `path`, or a folder that it lies in.
    #[must_use]
    pub fn matches(&self, path: &[u8], is_directory: bool) -> Match {
        let components = components(path);
        self.last(|pattern| pattern.matches(&components, is_directory))
    }

    /// Whether a pattern means the absolute `path` itself.
    #[must_use]
    pub fn matches_exactly(&self, path: &[u8], is_directory: bool) -> Match {
        let components = components(path);
        self.last(|pattern| pattern.matches_exactly(&components, is_directory))
    }

    /// Whether [`Self::matches`] could be true of anything below the directory `path`. If not, it
    /// need not be entered.
    #[must_use]
    pub fn may_match_below(&self, path: &[u8]) -> bool {
        let components = components(path);
        self.patterns
            .iter()
            .any(|pattern| !pattern.is_negated && pattern.may_match_below(&components))
    }

    /// Whether the answer depends on a path's last component only.
    pub(crate) fn looks_at_names_only(&self) -> bool {
        self.patterns.iter().all(|pattern| {
            matches!(&pattern.components[..], [Component::AnyDepth, last] if !matches!(last, Component::AnyDepth))
        })
    }

    fn last(&self, means: impl Fn(&Pattern) -> bool) -> Match {
        match self.patterns.iter().rposition(means) {
            None => Match::None,
            Some(index) if self.patterns[index].is_negated => Match::Negated(index),
            Some(index) => Match::By(index),
        }
    }
}

fn components(path: &[u8]) -> Vec<&[u8]> {
    path.split(|&byte| byte == b'/').filter(|component| !component.is_empty()).collect()
}

/// One pattern. A relative one begins with [`Component::AnyDepth`]; none ends with it.
#[derive(Clone, Debug)]
struct Pattern {
    components: Vec<Component>,
    is_negated: bool,
    directories_only: bool,
}

#[derive(Clone, Debug)]
enum Component {
    /// Any number of folders, none included.
    AnyDepth,
    /// These bytes.
    Literal(Vec<u8>),
    Glob {
        tokens: Vec<Token>,
        ignore_case: bool,
    },
}

#[derive(Clone, Debug)]
enum Token {
    One(Unit),
    AnyOne,
    AnyRun,
    Class { negated: bool, ranges: Vec<(Unit, Unit)> },
}

impl Pattern {
    fn new(text: &[u8], ignore_case: bool) -> Result<Self, Error> {
        let invalid = |message: &str| Error::Pattern {
            pattern: String::from_utf8_lossy(text).into_owned(),
            message: message.to_owned(),
        };
        let (is_negated, body) = match text.strip_prefix(b"!") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if body.is_empty() {
            return Err(invalid("it is empty"));
        }
        let is_anchored = body[0] == b'/';
        let mut components = Vec::new();
        if !is_anchored {
            components.push(Component::AnyDepth);
        }
        let mut names_something = is_anchored;
        for part in body.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")) {
            names_something = true;
            match part {
                b".." => return Err(invalid("'..' matches no path in a snapshot")),
                b"**" => {
                    if !matches!(components.last(), Some(Component::AnyDepth)) {
                        components.push(Component::AnyDepth);
                    }
                }
                part => components.push(Component::new(part, ignore_case).map_err(invalid)?),
            }
        }
        if !names_something {
            return Err(invalid("it names nothing"));
        }
        if let Some(Component::AnyDepth) = components.last() {
            components.push(Component::Glob { tokens: vec![Token::AnyRun], ignore_case });
        }
        let directories_only = body.len() > 1 && body.ends_with(b"/");
        Ok(Self { components, is_negated, directories_only })
    }

    fn matches(&self, path: &[&[u8]], is_directory: bool) -> bool {
        match self.find_end(path, false) {
            // A folder that the path lies in.
            Some(end) if end < path.len() => true,
            Some(_) => is_directory || !self.directories_only,
            None => false,
        }
    }

    fn matches_exactly(&self, path: &[&[u8]], is_directory: bool) -> bool {
        (is_directory || !self.directories_only) && self.find_end(path, true).is_some()
    }

    /// Matches from the start of the path; says how many of its components that takes at least, or
    /// all of them if `whole` is demanded.
    fn find_end(&self, path: &[&[u8]], whole: bool) -> Option<usize> {
        let (mut next, mut at) = (0, 0);
        // Where to go on if this fails: behind the last `**`, one component later. Earlier ones
        // need no second try: the later one can skip whatever they could.
        let mut retry = None;
        loop {
            match self.components.get(next) {
                None if at == path.len() || !whole => return Some(at),
                Some(Component::AnyDepth) => {
                    next += 1;
                    retry = Some((next, at));
                    continue;
                }
                Some(component) if path.get(at).is_some_and(|name| component.matches(name)) => {
                    next += 1;
                    at += 1;
                    continue;
                }
                _ => {}
            }
            let (behind, skipped) = retry?;
            if skipped >= path.len() {
                return None;
            }
            retry = Some((behind, skipped + 1));
            (next, at) = (behind, skipped + 1);
        }
    }

    fn may_match_below(&self, directory: &[&[u8]]) -> bool {
        let mut names = directory.iter();
        for component in &self.components {
            match (component, names.next()) {
                (Component::AnyDepth, _) | (_, None) => return true,
                (component, Some(name)) if component.matches(name) => {}
                _ => return false,
            }
        }
        // The pattern means this directory or one above it.
        true
    }
}

impl Component {
    fn new(text: &[u8], ignore_case: bool) -> Result<Self, &'static str> {
        let tokens = tokens(text, ignore_case)?;
        let literal: Option<Vec<Unit>> = tokens
            .iter()
            .map(|token| match token {
                Token::One(unit) => Some(*unit),
                _ => None,
            })
            .collect();
        Ok(match literal {
            Some(units) if !ignore_case => {
                Self::Literal(units.into_iter().flat_map(Unit::bytes).collect())
            }
            _ => Self::Glob { tokens, ignore_case },
        })
    }

    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::AnyDepth => true,
            Self::Literal(bytes) => bytes == name,
            Self::Glob { tokens, ignore_case } => glob_matches(tokens, name, *ignore_case),
        }
    }
}

fn tokens(text: &[u8], ignore_case: bool) -> Result<Vec<Token>, &'static str> {
    let fold = |unit: Unit| if ignore_case { unit.fold() } else { unit };
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some((unit, behind)) = Unit::split_first(rest) {
        rest = behind;
        tokens.push(match unit {
            Unit::Char('*') => {
                if matches!(tokens.last(), Some(Token::AnyRun)) {
                    continue;
                }
                Token::AnyRun
            }
            Unit::Char('?') => Token::AnyOne,
            Unit::Char('[') => {
                let (class, behind) = class(rest)?;
                rest = behind;
                class
            }
            Unit::Char('\\') => {
                let (escaped, behind) = Unit::split_first(rest).ok_or("nothing follows a '\\'")?;
                rest = behind;
                Token::One(fold(escaped))
            }
            unit => Token::One(fold(unit)),
        });
    }
    Ok(tokens)
}

/// Reads a class from behind its `[`; yields what follows the `]` too.
fn class(text: &[u8]) -> Result<(Token, &[u8]), &'static str> {
    const OPEN: &str = "it has a '[' without ']'";
    let (negated, mut rest) = match text {
        [b'!' | b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut ranges = Vec::new();
    loop {
        let (mut first, behind) = Unit::split_first(rest).ok_or(OPEN)?;
        rest = behind;
        match first {
            // A `]` in first place means itself.
            Unit::Char(']') if !ranges.is_empty() => {
                return Ok((Token::Class { negated, ranges }, rest));
            }
            Unit::Char('\\') => (first, rest) = Unit::split_first(rest).ok_or(OPEN)?,
            _ => {}
        }
        let mut last = first;
        if let [b'-', behind @ ..] = rest
            && !behind.starts_with(b"]")
        {
            (last, rest) = Unit::split_first(behind).ok_or(OPEN)?;
            if last == Unit::Char('\\') {
                (last, rest) = Unit::split_first(rest).ok_or(OPEN)?;
            }
        }
        if last < first {
            return Err("it has a range that runs backwards");
        }
        ranges.push((first, last));
    }
}

fn glob_matches(tokens: &[Token], name: &[u8], ignore_case: bool) -> bool {
    let (mut next, mut rest) = (0, name);
    let mut retry: Option<(usize, &[u8])> = None;
    loop {
        match tokens.get(next) {
            None if rest.is_empty() => return true,
            Some(Token::AnyRun) => {
                next += 1;
                retry = Some((next, rest));
                continue;
            }
            Some(token) => {
                if let Some((unit, behind)) = Unit::split_first(rest)
                    && token.accepts(unit, ignore_case)
                {
                    next += 1;
                    rest = behind;
                    continue;
                }
            }
            None => {}
        }
        let Some((behind, from)) = retry else { return false };
        let Some((_, from)) = Unit::split_first(from) else { return false };
        retry = Some((behind, from));
        (next, rest) = (behind, from);
    }
}

impl Token {
    fn accepts(&self, unit: Unit, ignore_case: bool) -> bool {
        match self {
            Self::One(wanted) => *wanted == if ignore_case { unit.fold() } else { unit },
            Self::AnyOne | Self::AnyRun => true,
            Self::Class { negated, ranges } => {
                let within =
                    |unit: Unit| ranges.iter().any(|&(first, last)| first <= unit && unit <= last);
                let found =
                    within(unit) || ignore_case && (within(unit.fold()) || within(unit.upper()));
                found != *negated
            }
        }
    }
}

/// What `?` stands for: a character, or a byte that belongs to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Char(char),
    Byte(u8),
}

impl Unit {
    fn split_first(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let &first = bytes.first()?;
        let length = match first {
            0..0x80 => return Some((Self::Char(char::from(first)), &bytes[1..])),
            0xc2..0xe0 => 2,
            0xe0..0xf0 => 3,
            _ => 4,
        };
        let character = bytes
            .get(..length)
            .and_then(|sequence| std::str::from_utf8(sequence).ok())
            .and_then(|text| text.chars().next());
        Some(match character {
            Some(character) => (Self::Char(character), &bytes[length..]),
            None => (Self::Byte(first), &bytes[1..]),
        })
    }

    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Char(character) => character.encode_utf8(&mut [0; 4]).as_bytes().to_vec(),
            Self::Byte(byte) => vec![byte],
        }
    }

    /// The same for all cases of a letter: `ς`, `σ` and `Σ` become `σ`.
    fn fold(self) -> Self {
        match self.upper() {
            Self::Char(character) => {
                Self::Char(only(character.to_lowercase()).unwrap_or(character))
            }
            byte @ Self::Byte(_) => byte,
        }
    }

    fn upper(self) -> Self {
        match self {
            Self::Char(character) => {
                Self::Char(only(character.to_uppercase()).unwrap_or(character))
            }
            byte @ Self::Byte(_) => byte,
        }
    }
}

/// The character, if there is exactly one.
fn only(mut characters: impl Iterator<Item = char>) -> Option<char> {
    let first = characters.next()?;
    characters.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(pattern: &[u8], ignore_case: bool) -> PatternSet {
        PatternSet::new(&[pattern], ignore_case).unwrap()
    }

    /// A path that ends with `/` is a directory.
    fn check(pattern: impl AsRef<[u8]>, path: impl AsRef<[u8]>, itself: bool, or_above: bool) {
        let (pattern, path) = (pattern.as_ref(), path.as_ref());
        let name = format!("'{}' on '{}'", pattern.escape_ascii(), path.escape_ascii());
        let is_directory = path.ends_with(b"/");
        let set = set(pattern, false);
        assert_eq!(set.matches_exactly(path, is_directory).is_match(), itself, "exactly: {name}");
        assert_eq!(set.matches(path, is_directory).is_match(), or_above, "itself or above: {name}");
    }

    #[test]
    fn a_relative_pattern_matches_at_any_depth_and_an_anchored_one_at_the_root_only() {
        check("a", "/a", true, true);
        check("a", "/x/a", true, true);
        check("a", "/x/a/b", false, true);
        check("a", "/ab", false, false);
        check("/a", "/a", true, true);
        check("/a", "/x/a", false, false);
        check("/a", "/a/b/c", false, true);
        check("x/a", "/x/a", true, true);
        check("x/a", "/q/x/a", true, true);
        check("x/a", "/x/q/a", false, false);
        check("x/x/a", "/x/x/x/a", true, true);
        check("./a", "/x/a", true, true);
        check("a//b", "/a/b", true, true);
        check("/", "/", true, true);
        check("/", "/a", false, true);
    }

    #[test]
    fn two_stars_stand_for_any_number_of_folders() {
        check("a/**/b", "/a/b", true, true);
        check("a/**/b", "/a/x/y/b", true, true);
        check("a/**/b", "/a/x/y/b/c", false, true);
        check("/**/b", "/b", true, true);
        check("**/b", "/x/b", true, true);
        check("a/**", "/a", false, false);
        check("a/**", "/a/x", true, true);
        check("a/**", "/a/x/y", true, true);
        check("/**", "/", false, false);
        check("**", "/x", true, true);
        check("a/**/**/b", "/a/b", true, true);
        check("/a/**/b/*/c", "/a/b/b/x/c", true, true);
        check("/a/**/b/*/c", "/a/b/x/y/c", false, false);
        // Inside a component they are one star.
        check("a**b", "/axxb", true, true);
        check("a**b", "/a/b", false, false);
    }

    #[test]
    fn stars_question_marks_and_classes_stay_inside_a_component() {
        check("*", "/a", true, true);
        check("*.txt", "/x/a.txt", true, true);
        check("*.txt", "/x/.txt", true, true);
        check("*.txt", "/x/a.txt.gz", false, false);
        check("a*b*c", "/aXbXbXc", true, true);
        check("a*b*c", "/aXbXb", false, false);
        check("/*/b", "/a/x/b", false, false);
        check("a?c", "/abc", true, true);
        check("a?c", "/a/c", false, false);
        check("a?c", "/ac", false, false);
        check("[a-c]x", "/bx", true, true);
        check("[a-c]x", "/dx", false, false);
        check("[!a-c]x", "/dx", true, true);
        check("[^a-c]x", "/bx", false, false);
        check("[]a]", "/]", true, true);
        check("[a-]", "/-", true, true);
        check("[\\]]", "/]", true, true);
        check("{a,b}", "/a", false, false);
        check("{a,b}", "/{a,b}", true, true);
    }

    #[test]
    fn a_backslash_takes_the_meaning_from_what_follows() {
        check("\\*", "/*", true, true);
        check("\\*", "/a", false, false);
        check("\\!a", "/!a", true, true);
        check("a\\[b", "/a[b", true, true);
    }

    #[test]
    fn a_final_slash_asks_for_a_directory() {
        check("a/", "/a/", true, true);
        check("a/", "/a", false, false);
        check("a/", "/a/b", false, true);
        check("a/", "/a/a", false, true);
    }

    #[test]
    fn a_question_mark_is_a_character_or_a_byte_that_belongs_to_none() {
        check("?", "/ä", true, true);
        check("??", "/ä", false, false);
        check("?", b"/\xff", true, true);
        check("a?b", b"/a\xe4b", true, true);
        check("??", b"/\xf0\x9f", true, true);
        check("[ä-ö]", "/ö", true, true);
        check(b"\xff*", b"/\xffx", true, true);
        check("*x", b"/\xff\xfex", true, true);
    }

    #[test]
    fn case_is_ignored_on_request() {
        assert!(!set(b"readme", false).matches(b"/README", false).is_match());
        for (pattern, path, expected) in [
            ("ReadMe*", "/x/README.txt", true),
            ("ÄRGER", "/ärger", true),
            ("σίσυφος", "/ΣΊΣΥΦΟΣ", true),
            ("[A-C]x", "/bX", true),
            ("[a-c]x", "/BX", true),
            ("[!a-c]x", "/BX", false),
            ("/Users/*", "/users/me", true),
            ("ß", "/SS", false),
        ] {
            assert_eq!(
                set(pattern.as_bytes(), true).matches(path.as_bytes(), false).is_match(),
                expected,
                "{pattern}"
            );
        }
    }

    #[test]
    fn the_last_pattern_that_speaks_of_a_path_decides() {
        let set = PatternSet::new(&["*.o", "!keep.o", "/tmp", "!/tmp/a"], false).unwrap();
        assert_eq!(set.matches(b"/x/a.o", false), Match::By(0));
        assert_eq!(set.matches(b"/x/keep.o", false), Match::Negated(1));
        assert_eq!(set.matches(b"/tmp/keep.o", false), Match::By(2));
        assert_eq!(set.matches(b"/tmp/a/b", false), Match::Negated(3));
        assert_eq!(set.matches(b"/x", true), Match::None);
    }

    #[test]
    fn a_directory_is_entered_only_if_something_below_can_match() {
        for (pattern, directory, expected) in [
            ("*.txt", "/any/where", true),
            ("/home/me/mail", "/", true),
            ("/home/me/mail", "/home", true),
            ("/home/me/mail", "/home/me", true),
            ("/home/me/mail", "/home/me/mail/new", true),
            ("/home/me/mail", "/home/you", false),
            ("/home/me/mail", "/etc", false),
            ("/home/*/mail", "/home/you", true),
            ("/home/*/mail", "/home/you/work", false),
            ("/home/**/mail", "/home/you/work/x", true),
            ("/home/**/mail", "/etc", false),
            ("!/home", "/home", false),
        ] {
            assert_eq!(
                set(pattern.as_bytes(), false).may_match_below(directory.as_bytes()),
                expected,
                "{pattern} {directory}"
            );
        }
        assert!(!PatternSet::default().may_match_below(b"/"));
    }

    #[test]
    fn a_pattern_that_cannot_be_meant_is_refused_by_name() {
        for bad in [
            "", "!", "[a", "a\\", "[b-a]", "../a", "a/..", ".", "[", "[!", "[a-", "[]", "[a/b]",
            "a\\/b",
        ] {
            match PatternSet::new(&[bad], false) {
                Err(Error::Pattern { pattern, .. }) => assert_eq!(pattern, bad),
                other => panic!("{bad}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_pattern_of_many_stars_does_not_take_exponential_time() {
        let pattern = format!("{}b", "*a".repeat(200));
        let deep = format!("/{}", "a/".repeat(500));
        assert!(
            !set(pattern.as_bytes(), false)
                .matches(format!("/{}", "a".repeat(5000)).as_bytes(), false)
                .is_match()
        );
        assert!(
            !set(format!("{}b", "**/a/".repeat(100)).as_bytes(), false)
                .matches(deep.as_bytes(), true)
                .is_match()
        );
    }

    proptest! {
        #[test]
        fn every_path_matches_itself_escaped(names in prop::collection::vec(prop::collection::vec(1u8.., 1..6), 1..4)) {
            let names: Vec<Vec<u8>> = names
                .into_iter()
                .map(|name| name.into_iter().map(|byte| if byte == b'/' { b'_' } else { byte }).collect())
                .filter(|name: &Vec<u8>| name != b"." && name != b"..")
                .collect();
            prop_assume!(!names.is_empty());
            let (mut path, mut pattern) = (Vec::new(), Vec::new());
            for name in &names {
                path.push(b'/');
                path.extend(name);
                pattern.push(b'/');
                for &byte in name {
                    if byte.is_ascii() {
                        pattern.push(b'\\');
                    }
                    pattern.push(byte);
                }
            }
            prop_assert!(set(&pattern, false).matches_exactly(&path, false).is_match());
            prop_assert!(set(&pattern, true).matches_exactly(&path, false).is_match());
        }

        #[test]
        fn whatever_matches_lies_in_directories_that_may_match_below(
            pattern in "/?([ab*?]|\\*\\*|/){1,8}",
            path in "(/[ab]{1,2}){1,5}",
        ) {
            let Ok(set) = PatternSet::new(&[&pattern], false) else { return Ok(()) };
            if set.matches(path.as_bytes(), false).is_match() {
                for (end, _) in path.match_indices('/') {
                    prop_assert!(set.may_match_below(&path.as_bytes()[..end]), "{} {}", pattern, &path[..end]);
                }
            }
            if set.matches_exactly(path.as_bytes(), true).is_match() {
                prop_assert!(set.matches(path.as_bytes(), true).is_match());
            }
        }
    }
}
