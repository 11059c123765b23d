//! Patterns of paths, in the manner of restic.
//!
//! | pattern | matches |
//! |---|---|
//! | `name`, `a/b` | these components at any depth |
//! | `/a/b` | this path alone |
//! | `a/` | only directories |
//! | `?`, `*`, `[a-z]`, `[^a-z]` | one character, any characters, one of a class, within a component |
//! | `**` | any number of components, none included; at the end at least one |
//! | `\*` | a plain `*`; likewise for any other character |
//! | `!a` | takes back what an earlier pattern matched |
//!
//! Of several patterns the last one that matches decides. A pattern matches the path that it describes and
//! nothing below: who excludes a directory does not descend into it.
//!
//! Paths are raw bytes. What is not UTF-8 counts as one character per byte.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::Error;

/// One pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Arc<str>,
    is_negated: bool,
    only_directories: bool,
    /// In the order of the path. A relative pattern begins with [`Component::AnyDepth`].
    components: Vec<Component>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Component {
    /// `**`
    AnyDepth,
    Literal(Vec<u8>),
    /// `*` and then literal bytes, as in `*.o`.
    Suffix(Vec<u8>),
    Glob(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Character(u32),
    AnyCharacter,
    AnyCharacters,
    Class { is_negated: bool, ranges: Vec<(u32, u32)> },
}

impl Pattern {
    /// Reads a pattern. With `ignore_case` it must be matched against a folded path.
    fn parse(text: &[u8], ignore_case: bool) -> Result<Self, Error> {
        let shown = String::from_utf8_lossy(text).into_owned();
        let refuse =
            |message: &str| Error::Pattern { pattern: shown.clone(), message: message.to_owned() };

        let folded = if ignore_case { fold_case(text) } else { Cow::Borrowed(text) };
        let (is_negated, rest) = match folded.as_ref() {
            [b'!', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        if rest.contains(&0) {
            return Err(refuse("it contains a NUL byte"));
        }
        let mut components = Vec::new();
        if !rest.starts_with(b"/") {
            components.push(Component::AnyDepth);
        }
        for component in rest.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(refuse("it contains '..', which no path does")),
                b"**" if components.last() == Some(&Component::AnyDepth) => {}
                component => components.push(Component::parse(component).map_err(refuse)?),
            }
        }
        if components.iter().all(|component| *component == Component::AnyDepth)
            && !rest.contains(&b'*')
        {
            return Err(refuse("it names nothing"));
        }
        Ok(Self {
            text: shown.into(),
            is_negated,
            only_directories: rest.ends_with(b"/"),
            components,
        })
    }

    /// The pattern as it was given.
    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Whether it begins with `!`.
    #[must_use]
    pub fn is_negated(&self) -> bool {
        self.is_negated
    }

    fn matches(&self, path: &[u8], is_directory: bool) -> bool {
        (is_directory || !self.only_directories) && matches_components(&self.components, path, true)
    }
}

impl Component {
    fn parse(text: &[u8]) -> Result<Self, &'static str> {
        if text == b"**" {
            return Ok(Self::AnyDepth);
        }
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some((character, length)) = next_character(rest) {
            rest = &rest[length..];
            let token = match u8::try_from(character) {
                Ok(b'?') => Token::AnyCharacter,
                Ok(b'*') => Token::AnyCharacters,
                Ok(b'[') => parse_class(&mut rest)?,
                Ok(b'\\') => {
                    let (escaped, length) = next_character(rest).ok_or("a backslash ends it")?;
                    rest = &rest[length..];
                    Token::Character(escaped)
                }
                _ => Token::Character(character),
            };
            if token != Token::AnyCharacters || tokens.last() != Some(&Token::AnyCharacters) {
                tokens.push(token);
            }
        }
        let literal = |tokens: &[Token]| {
            let mut bytes = Vec::new();
            tokens.iter().all(|token| push_literal(token, &mut bytes)).then_some(bytes)
        };
        if let Some(bytes) = literal(&tokens) {
            return Ok(Self::Literal(bytes));
        }
        if let [Token::AnyCharacters, rest @ ..] = tokens.as_slice()
            && let Some(bytes) = literal(rest)
        {
            return Ok(Self::Suffix(bytes));
        }
        Ok(Self::Glob(tokens))
    }

    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::AnyDepth => true,
            Self::Literal(literal) => literal == name,
            Self::Suffix(suffix) => name.ends_with(suffix),
            Self::Glob(tokens) => matches_tokens(tokens, name),
        }
    }
}

/// Reads a class up to and with its `]`.
fn parse_class(rest: &mut &[u8]) -> Result<Token, &'static str> {
    const UNCLOSED: &str = "a '[' is not closed";
    let mut take = || -> Result<(u32, bool), &'static str> {
        let (mut character, length) = next_character(rest).ok_or(UNCLOSED)?;
        *rest = &rest[length..];
        let is_escaped = character == u32::from(b'\\');
        if is_escaped {
            let (escaped, length) = next_character(rest).ok_or(UNCLOSED)?;
            *rest = &rest[length..];
            character = escaped;
        }
        Ok((character, is_escaped))
    };
    let is = |taken: (u32, bool), byte: u8| taken == (u32::from(byte), false);

    let mut taken = take()?;
    let is_negated = is(taken, b'^') || is(taken, b'!');
    if is_negated {
        taken = take()?;
    }
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    // A `]` that comes first stands for itself.
    while !is(taken, b']') || ranges.is_empty() {
        let low = taken.0;
        taken = take()?;
        if is(taken, b'-') {
            let high = take()?;
            if is(high, b']') {
                // A `-` that comes last stands for itself.
                ranges.extend([(low, low), (u32::from(b'-'), u32::from(b'-'))]);
                taken = high;
                continue;
            }
            if high.0 < low {
                return Err("a range in it runs backwards");
            }
            ranges.push((low, high.0));
            taken = take()?;
        } else {
            ranges.push((low, low));
        }
    }
    Ok(Token::Class { is_negated, ranges })
}

fn push_literal(token: &Token, bytes: &mut Vec<u8>) -> bool {
    let Token::Character(character) = token else {
        return false;
    };
    match char::from_u32(*character) {
        Some(character) => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        None => bytes.push((character - NOT_UTF8) as u8),
    }
    true
}

/// Bytes that are not UTF-8 become characters from here on, which no text contains.
const NOT_UTF8: u32 = 0x11_0000;

fn next_character(bytes: &[u8]) -> Option<(u32, usize)> {
    let first = *bytes.first()?;
    if first.is_ascii() {
        return Some((first.into(), 1));
    }
    for length in 2..=bytes.len().min(4) {
        if let Ok(text) = std::str::from_utf8(&bytes[..length]) {
            return text.chars().next().map(|character| (character.into(), length));
        }
    }
    Some((NOT_UTF8 + u32::from(first), 1))
}

/// Lower case of what is UTF-8; other bytes stay as they are.
fn fold_case(bytes: &[u8]) -> Cow<'_, [u8]> {
    if bytes.iter().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        return Cow::Borrowed(bytes);
    }
    let mut folded = Vec::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        for character in part.valid().chars().flat_map(char::to_lowercase) {
            folded.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        folded.extend_from_slice(part.invalid());
    }
    Cow::Owned(folded)
}

/// Goes from the last component to the first: most patterns fail at the name, without a look at the path.
fn matches_components(components: &[Component], path: &[u8], is_last: bool) -> bool {
    let Some((component, before)) = components.split_last() else {
        return path.is_empty();
    };
    if *component != Component::AnyDepth {
        return match split_name(path) {
            Some((parent, name)) => {
                component.matches(name) && matches_components(before, parent, false)
            }
            None => false,
        };
    }
    let mut path = path;
    if is_last {
        match split_name(path) {
            Some((parent, _)) => path = parent,
            None => return false,
        }
    }
    loop {
        if before.is_empty() || matches_components(before, path, false) {
            return true;
        }
        match split_name(path) {
            Some((parent, _)) => path = parent,
            None => return false,
        }
    }
}

/// `/a/b` is `b` in `/a`, `/a` is `a` in nothing, and nothing is in nothing.
fn split_name(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    Some((&path[..slash], &path[slash + 1..]))
}

/// Remembers only the last `*`: an earlier one need never take more than it did.
fn matches_tokens(tokens: &[Token], name: &[u8]) -> bool {
    let (mut token, mut rest) = (0, name);
    let mut last_star: Option<(usize, &[u8])> = None;
    loop {
        let next = next_character(rest);
        match (tokens.get(token), next) {
            (None, None) => return true,
            (Some(Token::AnyCharacters), _) => {
                token += 1;
                last_star = Some((token, rest));
                continue;
            }
            (Some(single), Some((character, length))) if single.matches(character) => {
                token += 1;
                rest = &rest[length..];
                continue;
            }
            _ => {}
        }
        // What followed the star did not fit: it takes one character more.
        let Some((after_star, taken)) = last_star else {
            return false;
        };
        let Some((_, length)) = next_character(taken) else {
            return false;
        };
        rest = &taken[length..];
        token = after_star;
        last_star = Some((after_star, rest));
    }
}

impl Token {
    fn matches(&self, character: u32) -> bool {
        match self {
            Self::Character(own) => *own == character,
            Self::AnyCharacter => true,
            Self::AnyCharacters => false,
            Self::Class { is_negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&character)) != *is_negated
            }
        }
    }
}

/// Patterns in order; the last that matches decides.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    patterns: Vec<Pattern>,
    exact: Lookup,
    folded: Lookup,
}

/// Finds the few patterns that can match a name. Numbers are positions in the list, ascending.
#[derive(Clone, Debug, Default)]
struct Lookup {
    by_name: HashMap<Vec<u8>, Vec<usize>>,
    others: Vec<usize>,
}

impl Patterns {
    /// No patterns.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Patterns that tell cases apart, then such that do not.
    ///
    /// # Errors
    /// [`Error::Pattern`], naming the pattern.
    pub fn from_texts(exact: &[String], ignoring_case: &[String]) -> Result<Self, Error> {
        let mut patterns = Self::new();
        for text in exact {
            patterns.push(text.as_bytes(), false)?;
        }
        for text in ignoring_case {
            patterns.push(text.as_bytes(), true)?;
        }
        Ok(patterns)
    }

    /// Adds a pattern behind those that are there.
    ///
    /// # Errors
    /// [`Error::Pattern`], naming the pattern.
    pub fn push(&mut self, text: &[u8], ignore_case: bool) -> Result<(), Error> {
        let pattern = Pattern::parse(text, ignore_case)?;
        let lookup = if ignore_case { &mut self.folded } else { &mut self.exact };
        let index = self.patterns.len();
        match pattern.components.last() {
            Some(Component::Literal(name)) => {
                lookup.by_name.entry(name.clone()).or_default().push(index);
            }
            _ => lookup.others.push(index),
        }
        self.patterns.push(pattern);
        Ok(())
    }

    /// Adds the patterns in the lines of a file. Blank lines and those that begin with `#` say nothing; a
    /// backslash makes a leading `#` or `!`, or a blank at either end, part of the pattern.
    ///
    /// # Errors
    /// [`Error::Pattern`], naming the pattern.
    pub fn push_lines(&mut self, text: &[u8], ignore_case: bool) -> Result<(), Error> {
        const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        for line in text.split(|byte| *byte == b'\n') {
            let line = trim_line(line);
            if !line.is_empty() && !line.starts_with(b"#") {
                self.push(line, ignore_case)?;
            }
        }
        Ok(())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The last pattern that matches an absolute path, negated or not. The path of `/` is empty.
    #[must_use]
    pub fn last_match(&self, path: &[u8], is_directory: bool) -> Option<&Pattern> {
        if self.patterns.is_empty() {
            return None;
        }
        let mut last = self.exact.last_match(&self.patterns, path, is_directory, None);
        if !self.folded.is_empty() {
            last = self.folded.last_match(&self.patterns, &fold_case(path), is_directory, last);
        }
        last.map(|index| &self.patterns[index])
    }

    /// Whether the last pattern that matches is not negated.
    #[must_use]
    pub fn is_match(&self, path: &[u8], is_directory: bool) -> bool {
        self.last_match(path, is_directory).is_some_and(|pattern| !pattern.is_negated)
    }
}

impl Lookup {
    fn is_empty(&self) -> bool {
        self.by_name.is_empty() && self.others.is_empty()
    }

    /// The last match if it comes after `found`, else `found`.
    fn last_match(
        &self,
        patterns: &[Pattern],
        path: &[u8],
        is_directory: bool,
        found: Option<usize>,
    ) -> Option<usize> {
        let is_match = |index: &&usize| patterns[**index].matches(path, is_directory);
        let name = split_name(path).map_or(path, |(_, name)| name);
        let by_name = if self.by_name.is_empty() { None } else { self.by_name.get(name) };
        let by_name = by_name.and_then(|indices| indices.iter().rev().find(is_match)).copied();
        let found = found.max(by_name);
        let is_later = |index: &&usize| found.is_none_or(|found| **index > found);
        self.others.iter().rev().take_while(is_later).find(is_match).copied().or(found)
    }
}

fn trim_line(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start();
    let trimmed = line.trim_ascii_end();
    let backslashes = trimmed.iter().rev().take_while(|byte| **byte == b'\\').count();
    // An odd number of backslashes escapes the blank that follows.
    if backslashes % 2 == 1 && trimmed.len() < line.len() {
        &line[..=trimmed.len()]
    } else {
        trimmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(patterns: &[&str], path: &str, is_directory: bool, expected: bool) {
        let texts: Vec<_> = patterns.iter().map(ToString::to_string).collect();
        let patterns = Patterns::from_texts(&texts, &[]).expect("valid");
        assert_eq!(
            patterns.is_match(path.as_bytes(), is_directory),
            expected,
            "{texts:?} on {path}"
        );
    }

    #[test]
    fn relative_patterns_match_at_any_depth() {
        check(&["foo"], "/foo", false, true);
        check(&["foo"], "/a/b/foo", false, true);
        check(&["foo"], "/a/foo/b", false, false);
        check(&["foo"], "/a/xfoo", false, false);
        check(&["a/foo"], "/x/a/foo", false, true);
        check(&["a/foo"], "/x/b/foo", false, false);
        check(&["./a//foo"], "/x/a/foo", false, true);
    }

    #[test]
    fn anchored_patterns_match_one_place() {
        check(&["/a/foo"], "/a/foo", false, true);
        check(&["/a/foo"], "/x/a/foo", false, false);
        check(&["/a/*"], "/a/foo", false, true);
        check(&["/a/*"], "/a/foo/b", false, false);
        check(&["/*"], "/a", true, true);
        check(&["/*"], "", true, false);
    }

    #[test]
    fn two_stars_stand_for_any_number_of_components() {
        check(&["/a/**/z"], "/a/z", false, true);
        check(&["/a/**/z"], "/a/b/c/z", false, true);
        check(&["/a/**/z"], "/b/z", false, false);
        check(&["/a/**"], "/a/b", false, true);
        check(&["/a/**"], "/a/b/c", false, true);
        check(&["/a/**"], "/a", true, false);
        check(&["**/z"], "/z", false, true);
        check(&["a/**/**/z"], "/q/a/z", false, true);
        check(&["**"], "/a", false, true);
        check(&["a**b"], "/axyb", false, true);
        check(&["a**b"], "/a/b", false, false);
        check(&["/**/a/**/b/*.c"], "/x/a/y/b/z.c", false, true);
    }

    #[test]
    fn trailing_slash_means_directories() {
        check(&["cache/"], "/x/cache", true, true);
        check(&["cache/"], "/x/cache", false, false);
        check(&["/x/*/"], "/x/cache", true, true);
    }

    #[test]
    fn last_match_decides() {
        check(&["*.o", "!keep.o"], "/a/keep.o", false, false);
        check(&["*.o", "!keep.o"], "/a/other.o", false, true);
        check(&["*.o", "!keep.o", "keep.*"], "/a/keep.o", false, true);
        check(&["!keep.o", "*.o"], "/a/keep.o", false, true);
        check(&["keep.o", "!k*"], "/a/keep.o", false, false);
        check(&["!k*", "keep.o"], "/a/keep.o", false, true);
    }

    #[test]
    fn wildcards_stay_within_a_component() {
        check(&["a*z"], "/abcz", false, true);
        check(&["a*z"], "/az", false, true);
        check(&["a*z"], "/a/z", false, false);
        check(&["*a*a*b"], "/xaxaxab", false, true);
        check(&["*a*a*b"], "/xaxbxb", false, false);
        check(&["?"], "/ä", false, true);
        check(&["a?c"], "/ac", false, false);
        check(&["[a-cx]1"], "/b1", false, true);
        check(&["[a-cx]1"], "/d1", false, false);
        check(&["[^a-c]1"], "/d1", false, true);
        check(&["[!a-c]1"], "/a1", false, false);
        check(&["[]]"], "/]", false, true);
        check(&["[a-]"], "/-", false, true);
        check(&["[äö]"], "/ö", false, true);
        check(&["[\\]]"], "/]", false, true);
        check(&["*"], "/.hidden", false, true);
        check(&["{a,b}"], "/a", false, false);
        check(&["{a,b}"], "/{a,b}", false, true);
    }

    #[test]
    fn backslash_takes_the_meaning_away() {
        check(&["\\*"], "/*", false, true);
        check(&["\\*"], "/a", false, false);
        check(&["\\!a"], "/!a", false, true);
        check(&["a\\ b"], "/a b", false, true);
    }

    #[test]
    fn bytes_that_are_not_text_count_one_each() {
        let mut patterns = Patterns::new();
        patterns.push(b"a?c", false).expect("valid");
        patterns.push(b"\xff\xfe", false).expect("valid");
        patterns.push(b"[\xf0-\xf8]x", false).expect("valid");
        assert!(patterns.is_match(b"/a\xffc", false));
        assert!(patterns.is_match(b"/\xff\xfe", false));
        assert!(patterns.is_match(b"/\xf7x", false));
        assert!(!patterns.is_match(b"/a\xff\xfec", false));
    }

    #[test]
    fn case_is_ignored_where_that_was_asked_for() {
        let patterns = Patterns::from_texts(&["Exact".into()], &["*.JPG".into(), "ÄRGER".into()])
            .expect("valid");
        for (path, expected) in [
            ("/a/photo.jpg", true),
            ("/a/PHOTO.Jpg", true),
            ("/ärger", true),
            ("/Ärger", true),
            ("/Exact", true),
            ("/exact", false),
        ] {
            assert_eq!(patterns.is_match(path.as_bytes(), false), expected, "{path}");
        }
    }

    #[test]
    fn negation_crosses_the_two_kinds() {
        let patterns = Patterns::from_texts(&["*.jpg".into()], &["!KEEP.*".into()]).expect("valid");
        assert!(patterns.is_match(b"/a.jpg", false));
        assert!(!patterns.is_match(b"/keep.jpg", false));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for text in ["", "!", "/", ".", "a/../b", "[a", "[", "[z-a]", "a\\", "a\0b"] {
            let error = Patterns::from_texts(&[text.to_owned()], &[]).expect_err(text);
            assert!(matches!(error, Error::Pattern { pattern, .. } if pattern == text), "{text:?}");
        }
    }

    #[test]
    fn lines_of_a_file_are_patterns_without_blanks_and_comments() {
        let mut patterns = Patterns::new();
        patterns
            .push_lines(
                b"\xef\xbb\xbf# comment\r\n\n  *.o  \n\\#x\nend\\ \n!keep.o\r\n\xff\nlast",
                false,
            )
            .expect("valid");
        let texts: Vec<&str> =
            patterns.patterns.iter().map(|pattern| pattern.text.as_ref()).collect();
        assert_eq!(texts, ["*.o", "\\#x", "end\\ ", "!keep.o", "\u{fffd}", "last"]);
        assert!(patterns.is_match(b"/#x", false));
        assert!(patterns.is_match(b"/end ", false));
        assert!(patterns.is_match(b"/\xff", false));
        assert!(!patterns.is_match(b"/keep.o", false));
    }
}
