//! Patterns: which paths a user means.
//!
//! One language for what a backup and a restore exclude, for what a restore includes, and for `find`.
//!
//! | pattern | matches |
//! |---|---|
//! | `*.txt` | every entry of such a name, however deep |
//! | `src/*.c` | a C file in a folder `src`, however deep |
//! | `/home/*/mail` | from the root on |
//! | `a/**/b`, `**/b`, `a/**` | `**` stands for any number of folders; at the end, for everything below |
//! | `cache/` | directories only |
//! | `?`, `*` | one character, any number of them; never `/` |
//! | `[a-z]`, `[!a-z]`, `[^a-z]` | one of these, one that is none of these; never `/` |
//! | `\*` | the character itself |
//! | `!*.txt` | takes back what earlier patterns matched |
//!
//! Of several patterns the last one that matches decides. A pattern matches the path that it describes and
//! nothing below: that what lies in an excluded directory is excluded with it, and what lies in an included one
//! is included, is up to who walks.
//!
//! In a class a `]` in first place and a `-` in first or last place mean themselves. Braces always do. Empty
//! components and `.` count for nothing; `..` is refused, and so is what names no entry, such as `/`. Both
//! brackets of a class stand in one component.
//!
//! Paths and patterns are raw bytes, since names need not be UTF-8. A character is a UTF-8 sequence, or a single
//! byte where there is none. Where case is ignored, it is so character by character: `ς`, `σ` and `Σ` are one,
//! `ß` and `SS` stay different.
//!
//! A path is absolute and does not end with `/`; that of `/` is empty. Matching one pattern takes at most the
//! product of both lengths, whatever the pattern. Patterns whose last component is a plain name cost one look-up
//! together.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Error;

/// Patterns in order; the last that matches decides.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    patterns: Vec<Pattern>,
    exact: Lookup,
    /// Of patterns that ignore case: these are matched against a folded path.
    folded: Lookup,
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
    /// [`Error::Pattern`], naming the pattern: it names nothing, holds a NUL byte, a component `..`, a `[` that
    /// is not closed, a range that runs backwards, or a `\` with nothing to escape.
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
    /// As for [`Self::push`].
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

    /// Whether there are none; then nothing matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The last pattern that matches `path`, negated or not.
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

    /// Whether the last pattern that matches `path` is not negated.
    #[must_use]
    pub fn is_match(&self, path: &[u8], is_directory: bool) -> bool {
        self.last_match(path, is_directory).is_some_and(|pattern| !pattern.is_negated)
    }

    /// Whether [`Self::is_match`] can hold for anything below the directory `path`. If not, there is no need to
    /// look for matches in it.
    #[must_use]
    pub fn may_match_below(&self, path: &[u8]) -> bool {
        let folded = if self.folded.is_empty() { Cow::Borrowed(path) } else { fold_case(path) };
        self.patterns.iter().any(|pattern| {
            let path = if pattern.ignore_case { folded.as_ref() } else { path };
            !pattern.is_negated && pattern.may_match_below(path)
        })
    }

    /// Whether the answers depend on a path's last component only.
    pub(crate) fn looks_at_names_only(&self) -> bool {
        self.patterns
            .iter()
            .all(|pattern| matches!(pattern.components.as_slice(), [Component::AnyDepth, _]))
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

/// Finds the few patterns that can match a name. Numbers are positions in the list, ascending.
#[derive(Clone, Debug, Default)]
struct Lookup {
    by_name: HashMap<Vec<u8>, Vec<usize>>,
    others: Vec<usize>,
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
        // No pattern means `/` itself.
        let Some((parent, name)) = split_name(path) else { return found };
        let is_match = |index: &&usize| patterns[**index].matches(parent, name, is_directory);
        let by_name = if self.by_name.is_empty() { None } else { self.by_name.get(name) };
        let by_name = by_name.and_then(|indices| indices.iter().rev().find(is_match)).copied();
        let found = found.max(by_name);
        let is_later = |index: &&usize| found.is_none_or(|found| **index > found);
        self.others.iter().rev().take_while(is_later).find(is_match).copied().or(found)
    }
}

/// One pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Arc<str>,
    is_negated: bool,
    only_directories: bool,
    /// It was folded, and means folded paths.
    ignore_case: bool,
    /// In the order of the path. A relative pattern begins with [`Component::AnyDepth`]. None ends with it, and
    /// none has two in a row.
    components: Vec<Component>,
}

#[derive(Clone, Debug)]
enum Component {
    /// `**`: any number of folders, none included.
    AnyDepth,
    /// `*`
    AnyName,
    Literal(Vec<u8>),
    /// `*` and then literal bytes, as in `*.o`.
    Suffix(Vec<u8>),
    Glob(Vec<Token>),
}

#[derive(Clone, Debug)]
enum Token {
    One(Character),
    AnyOne,
    AnyRun,
    Class { is_negated: bool, ranges: Ranges },
}

/// First and last characters.
type Ranges = Vec<(Character, Character)>;

impl Pattern {
    fn parse(text: &[u8], ignore_case: bool) -> Result<Self, Error> {
        let shown = String::from_utf8_lossy(text);
        let refuse = |message: &str| Error::Pattern {
            pattern: shown.clone().into_owned(),
            message: message.to_owned(),
        };
        let (is_negated, body) = match text {
            [b'!', body @ ..] => (true, body),
            body => (false, body),
        };
        if body.contains(&0) {
            return Err(refuse("it contains a NUL byte"));
        }
        let mut components = Vec::new();
        if !body.starts_with(b"/") {
            components.push(Component::AnyDepth);
        }
        let mut names_something = false;
        for part in body.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")) {
            names_something = true;
            match part {
                b".." => return Err(refuse("it contains '..', which no path does")),
                b"**" if matches!(components.last(), Some(Component::AnyDepth)) => {}
                b"**" => components.push(Component::AnyDepth),
                part => components.push(Component::parse(part, ignore_case).map_err(refuse)?),
            }
        }
        if !names_something {
            return Err(refuse("it names nothing"));
        }
        if let Some(Component::AnyDepth) = components.last() {
            // Everything below, which at least has a name.
            components.push(Component::AnyName);
        }
        Ok(Self {
            text: shown.into(),
            is_negated,
            only_directories: body.ends_with(b"/"),
            ignore_case,
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

    /// Whether it means the entry `name` of the folder `parent`.
    ///
    /// Goes from the last component to the first: most patterns fail at the name, without a look at the rest.
    fn matches(&self, parent: &[u8], name: &[u8], is_directory: bool) -> bool {
        let Some((last, above)) = self.components.split_last() else { return false };
        last.matches(name)
            && (is_directory || !self.only_directories)
            && matches_folders(above, parent)
    }

    fn may_match_below(&self, directory: &[u8]) -> bool {
        let mut names = directory.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        for component in &self.components {
            match (component, names.next()) {
                (Component::AnyDepth, _) | (_, None) => return true,
                (component, Some(name)) if component.matches(name) => {}
                _ => return false,
            }
        }
        // It means this directory, or something above it.
        false
    }
}

/// Whether the components of a pattern but for its last mean the folder `path`.
fn matches_folders(components: &[Component], path: &[u8]) -> bool {
    let (mut components, mut rest) = (components, path);
    // Where to go on if this fails: at the `**` met last, above the folder that was found for what stands before
    // it. Those met earlier need no second try: this one can skip whatever they could.
    let mut retry: Option<(&[Component], &[u8])> = None;
    loop {
        match components.split_last() {
            None if rest.is_empty() => return true,
            None => {}
            Some((Component::AnyDepth, before)) => {
                let Some((component, above)) = before.split_last() else { return true };
                loop {
                    let Some((parent, name)) = split_name(rest) else { return false };
                    rest = parent;
                    if component.matches(name) {
                        break;
                    }
                }
                retry = Some((components, rest));
                components = above;
                continue;
            }
            Some((component, above)) => {
                if let Some((parent, name)) = split_name(rest)
                    && component.matches(name)
                {
                    (components, rest) = (above, parent);
                    continue;
                }
            }
        }
        match retry {
            Some(again) => (components, rest) = again,
            None => return false,
        }
    }
}

/// `/a/b` is `b` in `/a`, `/a` is `a` in nothing, and nothing is in nothing.
fn split_name(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    Some((&path[..slash], &path[slash + 1..]))
}

impl Component {
    fn parse(text: &[u8], ignore_case: bool) -> Result<Self, &'static str> {
        let tokens = parse_tokens(text, ignore_case)?;
        if let Some(bytes) = literal_bytes(&tokens) {
            return Ok(Self::Literal(bytes));
        }
        if let [Token::AnyRun, rest @ ..] = tokens.as_slice()
            && let Some(bytes) = literal_bytes(rest)
            // Bytes alone do not tell a lone one from the end of a character.
            && !bytes.first().is_some_and(|byte| (0x80..0xc0).contains(byte))
        {
            return Ok(if bytes.is_empty() { Self::AnyName } else { Self::Suffix(bytes) });
        }
        Ok(Self::Glob(tokens))
    }

    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::AnyDepth | Self::AnyName => true,
            Self::Literal(literal) => literal == name,
            Self::Suffix(suffix) => name.ends_with(suffix),
            Self::Glob(tokens) => matches_tokens(tokens, name),
        }
    }
}

fn parse_tokens(text: &[u8], ignore_case: bool) -> Result<Vec<Token>, &'static str> {
    let fold = |character: Character| if ignore_case { character.fold() } else { character };
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some((character, behind)) = Character::split_first(rest) {
        rest = behind;
        tokens.push(match character.as_char() {
            Some('*') if matches!(tokens.last(), Some(Token::AnyRun)) => continue,
            Some('*') => Token::AnyRun,
            Some('?') => Token::AnyOne,
            Some('[') => {
                let (is_negated, mut ranges, behind) = parse_class(rest)?;
                rest = behind;
                if ignore_case {
                    add_folded(&mut ranges);
                }
                Token::Class { is_negated, ranges }
            }
            Some('\\') => {
                let (escaped, behind) =
                    Character::split_first(rest).ok_or("nothing follows a '\\'")?;
                rest = behind;
                Token::One(fold(escaped))
            }
            _ => Token::One(fold(character)),
        });
    }
    Ok(tokens)
}

/// Reads a class from behind its `[`: whether it is negated, what it holds, and what follows its `]`.
fn parse_class(text: &[u8]) -> Result<(bool, Ranges, &[u8]), &'static str> {
    const OPEN: &str = "it has a '[' without ']'";
    let (is_negated, mut rest) = match text {
        [b'!' | b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut ranges = Vec::new();
    loop {
        let (mut first, behind) = Character::split_first(rest).ok_or(OPEN)?;
        rest = behind;
        match first.as_char() {
            // A `]` in first place means itself.
            Some(']') if !ranges.is_empty() => return Ok((is_negated, ranges, rest)),
            Some('\\') => (first, rest) = Character::split_first(rest).ok_or(OPEN)?,
            _ => {}
        }
        let mut last = first;
        if let [b'-', behind @ ..] = rest
            && !behind.starts_with(b"]")
        {
            (last, rest) = Character::split_first(behind).ok_or(OPEN)?;
            if last == Character::of('\\') {
                (last, rest) = Character::split_first(rest).ok_or(OPEN)?;
            }
        }
        if last < first {
            return Err("it has a range that runs backwards");
        }
        ranges.push((first, last));
    }
}

/// Adds what the characters of a class become by folding, if that is something else.
fn add_folded(ranges: &mut Ranges) {
    let mut folded: Ranges = Vec::new();
    for &(Character(first), Character(last)) in ranges.iter() {
        for character in (first..=last.min(char::MAX.into())).map(Character) {
            let becomes = character.fold();
            if becomes == character {
                continue;
            }
            match folded.last_mut() {
                Some((_, Character(end))) if *end + 1 == becomes.0 => *end += 1,
                _ => folded.push((becomes, becomes)),
            }
        }
    }
    ranges.append(&mut folded);
}

/// The bytes that are meant if every token stands for one character.
fn literal_bytes(tokens: &[Token]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for token in tokens {
        let Token::One(character) = token else { return None };
        character.push_to(&mut bytes);
    }
    Some(bytes)
}

/// Remembers only the last `*`: an earlier one need never take more than it did.
fn matches_tokens(tokens: &[Token], name: &[u8]) -> bool {
    let (mut next, mut rest) = (0, name);
    let mut last_run: Option<(usize, &[u8])> = None;
    loop {
        match tokens.get(next) {
            None if rest.is_empty() => return true,
            None => {}
            Some(Token::AnyRun) if next + 1 == tokens.len() => return true,
            Some(Token::AnyRun) => {
                next += 1;
                last_run = Some((next, rest));
                continue;
            }
            Some(token) => {
                if let Some((character, behind)) = Character::split_first(rest)
                    && token.matches(character)
                {
                    next += 1;
                    rest = behind;
                    continue;
                }
            }
        }
        // What followed the star did not fit: it takes one character more.
        let Some((behind, from)) = last_run else { return false };
        let Some((_, from)) = Character::split_first(from) else { return false };
        last_run = Some((behind, from));
        (next, rest) = (behind, from);
    }
}

impl Token {
    fn matches(&self, character: Character) -> bool {
        match self {
            Self::One(own) => *own == character,
            Self::AnyOne | Self::AnyRun => true,
            Self::Class { is_negated, ranges } => {
                ranges.iter().any(|&(first, last)| first <= character && character <= last)
                    != *is_negated
            }
        }
    }
}

/// What `?` stands for: a character, or a byte that belongs to none. Such bytes come after all characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Character(u32);

impl Character {
    const FIRST_BYTE: u32 = 0x11_0000;

    const fn of(character: char) -> Self {
        Self(character as u32)
    }

    fn as_char(self) -> Option<char> {
        char::from_u32(self.0)
    }

    #[inline]
    fn split_first(bytes: &[u8]) -> Option<(Self, &[u8])> {
        match bytes {
            [] => None,
            [first, rest @ ..] if first.is_ascii() => Some((Self(u32::from(*first)), rest)),
            bytes => Some(Self::split_first_beyond_ascii(bytes)),
        }
    }

    fn split_first_beyond_ascii(bytes: &[u8]) -> (Self, &[u8]) {
        let length = match bytes[0] {
            0xc2..0xe0 => 2,
            0xe0..0xf0 => 3,
            _ => 4,
        };
        let character = bytes
            .get(..length)
            .and_then(|sequence| std::str::from_utf8(sequence).ok())
            .and_then(|text| text.chars().next());
        match character {
            Some(character) => (Self::of(character), &bytes[length..]),
            None => (Self(Self::FIRST_BYTE + u32::from(bytes[0])), &bytes[1..]),
        }
    }

    fn fold(self) -> Self {
        self.as_char().map_or(self, |character| Self::of(fold_character(character)))
    }

    fn push_to(self, bytes: &mut Vec<u8>) {
        match self.as_char() {
            Some(character) => {
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            None => bytes.push((self.0 - Self::FIRST_BYTE) as u8),
        }
    }
}

/// Folds every character of a path; bytes that are none stay as they are.
fn fold_case(path: &[u8]) -> Cow<'_, [u8]> {
    if path.is_ascii() {
        return if path.iter().any(u8::is_ascii_uppercase) {
            Cow::Owned(path.to_ascii_lowercase())
        } else {
            Cow::Borrowed(path)
        };
    }
    let mut folded = Vec::with_capacity(path.len());
    for part in path.utf8_chunks() {
        for character in part.valid().chars() {
            let character = fold_character(character);
            folded.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        folded.extend_from_slice(part.invalid());
    }
    Cow::Owned(folded)
}

/// The same for all cases of a letter: `ς`, `σ` and `Σ` become `σ`.
fn fold_character(character: char) -> char {
    // Through the upper case, a dotless `ı` would become an `i`.
    if character.is_ascii() || character == 'ı' {
        return character.to_ascii_lowercase();
    }
    let upper = only(character.to_uppercase()).unwrap_or(character);
    only(upper.to_lowercase()).unwrap_or(upper)
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

    fn parse<P: AsRef<[u8]>>(texts: &[P], ignore_case: bool) -> Patterns {
        let mut patterns = Patterns::new();
        for text in texts {
            patterns.push(text.as_ref(), ignore_case).expect("valid");
        }
        patterns
    }

    /// The path itself, then the folders above it: what a walk asks about on its way.
    fn itself_and_above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
        std::iter::successors(Some(path), |path| split_name(path).map(|(parent, _)| parent))
    }

    /// A path that ends with `/` is a directory.
    fn check(pattern: impl AsRef<[u8]>, path: impl AsRef<[u8]>, itself: bool, or_above: bool) {
        let (pattern, path) = (pattern.as_ref(), path.as_ref());
        let name = format!("'{}' on '{}'", pattern.escape_ascii(), path.escape_ascii());
        let (path, is_directory) = match path.strip_suffix(b"/") {
            Some(path) => (path, true),
            None => (path, false),
        };
        let patterns = parse(&[pattern], false);
        assert_eq!(patterns.is_match(path, is_directory), itself, "itself: {name}");
        let is_match = |above: &[u8]| patterns.is_match(above, is_directory || above != path);
        assert_eq!(itself_and_above(path).any(is_match), or_above, "itself or above: {name}");
    }

    #[test]
    fn a_relative_pattern_matches_at_any_depth_and_an_anchored_one_at_the_root_only() {
        check("a", "/a", true, true);
        check("a", "/x/a", true, true);
        check("a", "/x/y/a", true, true);
        check("a", "/x/a/b", false, true);
        check("a", "/ab", false, false);
        check("a", "/x/ba", false, false);
        check("x/a", "/x/a", true, true);
        check("x/a", "/q/x/a", true, true);
        check("x/a", "/q/y/a", false, false);
        check("x/a", "/x/q/a", false, false);
        check("x/x/a", "/x/x/x/a", true, true);
        check("./a", "/x/a", true, true);
        check("a//b", "/a/b", true, true);
        check("./a//b", "/x/a/b", true, true);
        check("/a", "/a", true, true);
        check("/a", "/x/a", false, false);
        check("/a", "/a/b/c", false, true);
        check("/x/a", "/x/a", true, true);
        check("/x/a", "/q/x/a", false, false);
        check("/a/*", "/a/b", true, true);
        check("/a/*", "/a/b/c", false, true);
        check("/*", "/a/", true, true);
        check("/*", "/", false, false);
    }

    #[test]
    fn two_stars_stand_for_any_number_of_folders() {
        check("a/**/b", "/a/b", true, true);
        check("a/**/b", "/a/x/y/b", true, true);
        check("a/**/b", "/a/x/y/b/c", false, true);
        check("/a/**/b", "/a/b", true, true);
        check("/a/**/b", "/a/x/y/b", true, true);
        check("/a/**/b", "/x/b", false, false);
        check("/**/b", "/b", true, true);
        check("**/b", "/b", true, true);
        check("**/b", "/x/b", true, true);
        check("a/**", "/a", false, false);
        check("a/**", "/a/x", true, true);
        check("a/**", "/a/x/y", true, true);
        check("/a/**", "/a/x", true, true);
        check("/a/**", "/a/x/y", true, true);
        check("/a/**", "/a/", false, false);
        check("/**", "/", false, false);
        check("**", "/x", true, true);
        check("a/**/**/b", "/a/b", true, true);
        check("a/**/**/b", "/q/a/b", true, true);
        check("/a/**/b/*/c", "/a/b/b/x/c", true, true);
        check("/a/**/b/*/c", "/a/b/x/y/c", false, false);
        check("/**/a/**/b/*.c", "/x/a/y/b/z.c", true, true);
        // Inside a component they are one star.
        check("a**b", "/axxb", true, true);
        check("a**b", "/a/b", false, false);
    }

    #[test]
    fn stars_question_marks_and_classes_stay_inside_a_component() {
        check("*", "/a", true, true);
        check("*", "/.hidden", true, true);
        check("*.txt", "/x/a.txt", true, true);
        check("*.txt", "/x/.txt", true, true);
        check("*.txt", "/x/a.txt.gz", false, false);
        check("a*z", "/abcz", true, true);
        check("a*z", "/az", true, true);
        check("a*z", "/a/z", false, false);
        check("a*b*c", "/aXbXbXc", true, true);
        check("a*b*c", "/aXbXb", false, false);
        check("*a*a*b", "/xaxaxab", true, true);
        check("*a*a*b", "/xaxbxb", false, false);
        check("/*/b", "/a/x/b", false, false);
        check("a?c", "/abc", true, true);
        check("a?c", "/a/c", false, false);
        check("a?c", "/ac", false, false);
        check("[a-c]x", "/bx", true, true);
        check("[a-c]x", "/dx", false, false);
        check("[a-cx]1", "/b1", true, true);
        check("[a-cx]1", "/x1", true, true);
        check("[a-cx]1", "/d1", false, false);
        check("[!a-c]x", "/dx", true, true);
        check("[!a-c]x", "/ax", false, false);
        check("[^a-c]x", "/dx", true, true);
        check("[^a-c]x", "/bx", false, false);
        check("[]]", "/]", true, true);
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
        check("a\\ b", "/a b", true, true);
    }

    #[test]
    fn a_final_slash_asks_for_a_directory() {
        check("a/", "/a/", true, true);
        check("a/", "/x/a/", true, true);
        check("a/", "/a", false, false);
        check("a/", "/x/a", false, false);
        check("a/", "/a/b", false, true);
        check("a/", "/a/a", false, true);
        check("/x/*/", "/x/a/", true, true);
        check("a/**/", "/a/b/", true, true);
        check("a/**/", "/a/b", false, false);
    }

    #[test]
    fn a_question_mark_is_a_character_or_a_byte_that_belongs_to_none() {
        check("?", "/ä", true, true);
        check("??", "/ä", false, false);
        check("?", b"/\xff", true, true);
        check("a?b", b"/a\xe4b", true, true);
        check("a?b", b"/a\xff\xfeb", false, false);
        check("??", b"/\xf0\x9f", true, true);
        check("[ä-ö]", "/ö", true, true);
        check("[äö]", "/ö", true, true);
        check(b"\xff*", b"/\xffx", true, true);
        check(b"\xff\xfe", b"/\xff\xfe", true, true);
        check(b"[\xf0-\xf8]x", b"/\xf7x", true, true);
        check("*x", b"/\xff\xfex", true, true);
        check(b"*\xa4", b"/x\xa4", true, true);
        check(b"*\xa4", "/ä", false, false);
    }

    #[test]
    fn case_is_ignored_on_request() {
        for (pattern, path, expected) in [
            ("ReadMe*", "/x/README.txt", true),
            ("*.JPG", "/a/photo.jpg", true),
            ("*.JPG", "/a/PHOTO.Jpg", true),
            ("ÄRGER", "/ärger", true),
            ("ÄRGER", "/Ärger", true),
            ("σίσυφος", "/ΣΊΣΥΦΟΣ", true),
            ("[A-C]x", "/bX", true),
            ("[a-c]x", "/BX", true),
            ("[!a-c]x", "/BX", false),
            ("[ς]", "/Σ", true),
            ("[Α-Ω]x", "/ςX", true),
            ("[!Α-Ω]x", "/ςX", false),
            ("/Users/*", "/users/me", true),
            ("ß", "/SS", false),
            ("I", "/ı", false),
        ] {
            assert_eq!(
                parse(&[pattern], true).is_match(path.as_bytes(), false),
                expected,
                "{pattern} {path}"
            );
        }
        assert!(parse(&[b"\xff[\xf0-\xf8]A"], true).is_match(b"/\xff\xf7a", false));
        check("readme", "/README", false, false);

        let both = Patterns::from_texts(&["Exact".into()], &["*.JPG".into()]).expect("valid");
        assert!(both.is_match(b"/Exact", false));
        assert!(!both.is_match(b"/exact", false));
        assert!(both.is_match(b"/a.jpg", false));
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        let check = |texts: &[&str], path: &str, expected: bool| {
            let patterns = parse(texts, false);
            assert_eq!(patterns.is_match(path.as_bytes(), false), expected, "{texts:?} on {path}");
        };
        check(&["*.o", "!keep.o"], "/a/keep.o", false);
        check(&["*.o", "!keep.o"], "/a/other.o", true);
        check(&["*.o", "!keep.o", "keep.*"], "/a/keep.o", true);
        check(&["!keep.o", "*.o"], "/a/keep.o", true);
        check(&["keep.o", "!k*"], "/a/keep.o", false);
        check(&["!k*", "keep.o"], "/a/keep.o", true);
        // A pattern that ignores case counts as one behind those that do not.
        let both = Patterns::from_texts(&["*.jpg".into()], &["!KEEP.*".into()]).expect("valid");
        assert!(both.is_match(b"/a.jpg", false));
        assert!(!both.is_match(b"/keep.jpg", false));
    }

    #[test]
    fn the_pattern_that_decides_is_told() {
        let patterns = parse(&["*.o", "!keep.o", "/tmp/**", "!/tmp/a/**"], false);
        for (path, expected) in [
            ("/x/a.o", Some(("*.o", false))),
            ("/x/keep.o", Some(("!keep.o", true))),
            ("/tmp/keep.o", Some(("/tmp/**", false))),
            ("/tmp/a/b", Some(("!/tmp/a/**", true))),
            ("/x", None),
        ] {
            let decides = patterns.last_match(path.as_bytes(), true);
            let decides = decides.map(|pattern| (pattern.text().as_ref(), pattern.is_negated()));
            assert_eq!(decides, expected, "{path}");
        }
    }

    #[test]
    fn a_directory_is_looked_through_only_if_something_below_can_match() {
        for (pattern, directory, expected) in [
            ("*.txt", "/any/where", true),
            ("/home/me/mail", "", true),
            ("/home/me/mail", "/home", true),
            ("/home/me/mail", "/home/me", true),
            ("/home/me/mail", "/home/me/mail", false),
            ("/home/me/mail", "/home/me/mail/new", false),
            ("/home/me/mail", "/home/you", false),
            ("/home/me/mail", "/etc", false),
            ("/home/me/**", "/home/me/mail/new", true),
            ("/home/*/mail", "/home/you", true),
            ("/home/*/mail", "/home/you/work", false),
            ("/home/**/mail", "/home/you/work/x", true),
            ("/home/**/mail", "/etc", false),
            ("/Home/me", "/home", false),
            ("!/home", "", false),
            ("!/home", "/home", false),
        ] {
            assert_eq!(
                parse(&[pattern], false).may_match_below(directory.as_bytes()),
                expected,
                "{pattern} {directory}"
            );
        }
        assert!(parse(&["/Home/me"], true).may_match_below("/hoME".as_bytes()));
        assert!(!Patterns::new().may_match_below(b""));
    }

    #[test]
    fn only_a_single_relative_component_looks_at_nothing_but_the_name() {
        for (texts, expected) in [
            (&["*.o", "a/", "**", "**/b"][..], true),
            (&["*.o", "a/b"], false),
            (&["/a"], false),
            (&["a/**"], false),
        ] {
            assert_eq!(parse(texts, false).looks_at_names_only(), expected, "{texts:?}");
        }
    }

    #[test]
    fn a_pattern_that_cannot_be_meant_is_refused_by_name() {
        for bad in [
            "", "!", "/", "!/", "//", ".", "./", "/.", "..", "../a", "a/..", "a/../b", "a\0b", "[",
            "[!", "[]", "[a", "[a-", "[a/b]", "[b-a]", "[z-a]", "a\\", "a\\/b",
        ] {
            for ignore_case in [false, true] {
                match Patterns::new().push(bad.as_bytes(), ignore_case) {
                    Err(Error::Pattern { pattern, .. }) => assert_eq!(pattern, bad),
                    other => panic!("{bad}: {other:?}"),
                }
            }
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

    #[test]
    fn a_pattern_of_many_stars_does_not_take_exponential_time() {
        let stars = parse(&[format!("{}b", "*a".repeat(200))], false);
        assert!(!stars.is_match(format!("/{}", "a".repeat(5000)).as_bytes(), false));
        let deep = format!("{}/a", "/a".repeat(500));
        for text in [format!("{}b", "**/a/".repeat(100)), format!("/b/{}a", "**/a/".repeat(100))] {
            let folders = parse(&[text], false);
            assert!(!itself_and_above(deep.as_bytes()).any(|path| folders.is_match(path, true)));
        }
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
            prop_assert!(parse(&[&pattern], false).is_match(&path, false));
            prop_assert!(parse(&[&pattern], true).is_match(&path, false));
        }

        #[test]
        fn whatever_matches_lies_in_directories_that_may_match_below(
            pattern in "/?([ab*?]|\\*\\*|/){1,8}",
            path in "(/[ab]{1,2}){1,5}",
        ) {
            let mut patterns = Patterns::new();
            prop_assume!(patterns.push(pattern.as_bytes(), false).is_ok());
            if patterns.is_match(path.as_bytes(), true) {
                for (end, _) in path.match_indices('/') {
                    prop_assert!(patterns.may_match_below(&path.as_bytes()[..end]), "{} {}", pattern, &path[..end]);
                }
            }
        }

        #[test]
        fn matching_agrees_with_the_definition(
            pattern in "/?([ab?]|\\*|\\*\\*|/){1,8}",
            path in "(/[ab]{1,2}){1,5}",
        ) {
            fn components_match(components: &[Component], names: &[&str]) -> bool {
                match components {
                    [] => names.is_empty(),
                    [Component::AnyDepth, behind @ ..] => {
                        (0..=names.len()).any(|skipped| components_match(behind, &names[skipped..]))
                    }
                    [component, behind @ ..] => {
                        names.split_first().is_some_and(|(name, names)| {
                            component.matches(name.as_bytes()) && components_match(behind, names)
                        })
                    }
                }
            }
            let mut patterns = Patterns::new();
            prop_assume!(patterns.push(pattern.as_bytes(), false).is_ok());
            let names: Vec<&str> = path.split('/').skip(1).collect();
            prop_assert_eq!(
                patterns.is_match(path.as_bytes(), true),
                components_match(&patterns.patterns[0].components, &names)
            );
        }
    }
}
