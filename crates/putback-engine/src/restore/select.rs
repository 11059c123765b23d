//! Which entries of a snapshot are wanted: `include` and `exclude` as a pure function of paths.
//!
//! Paths are absolute, as in the snapshot, also when only a folder of it is restored. What an exclude pattern
//! matches is left out with everything below. With include patterns, what one of them matches is taken with
//! everything below, and the directories above it are passed through.

use crate::Error;
use crate::pattern::Patterns;
use crate::restore::RestoreOptions;

/// What is to become of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Restored; for a directory, so is everything in it that is not excluded.
    Yes,
    /// A directory that matters only if something in it is wanted.
    Passage,
    /// Left out with everything below.
    No,
}

/// The patterns of one restore.
#[derive(Debug)]
pub(super) struct Selection {
    include: Patterns,
    exclude: Patterns,
}

impl Selection {
    /// # Errors
    /// [`Error::Pattern`], naming the pattern.
    pub(super) fn new(options: &RestoreOptions) -> Result<Self, Error> {
        Ok(Self {
            include: Patterns::from_texts(&options.include, &options.iinclude)?,
            exclude: Patterns::from_texts(&options.exclude, &options.iexclude)?,
        })
    }

    /// Whether patterns leave anything out.
    pub(super) fn is_everything(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Decides about `path` in a directory that was decided to be `inside`. The path of `/` is empty.
    pub(super) fn decide(&self, inside: Wanted, path: &[u8], is_directory: bool) -> Wanted {
        if inside == Wanted::No || self.exclude.is_match(path, is_directory) {
            return Wanted::No;
        }
        self.decide_included(inside, path, is_directory)
    }

    /// What holds for the folder that was asked for by name: excludes do not count against it.
    pub(super) fn decide_base(&self, path: &[u8]) -> Wanted {
        let ends = (0..=path.len()).filter(|end| path.get(*end).is_none_or(|byte| *byte == b'/'));
        ends.map(|end| &path[..end]).fold(Wanted::Passage, |inside, above| {
            match self.decide_included(inside, above, true) {
                // What was named lies off the patterns; they may still match in it, if they float.
                Wanted::No => Wanted::Passage,
                wanted => wanted,
            }
        })
    }

    fn decide_included(&self, inside: Wanted, path: &[u8], is_directory: bool) -> Wanted {
        if self.include.is_empty() {
            return Wanted::Yes;
        }
        match self.include.last_match(path, is_directory) {
            Some(pattern) if pattern.is_negated() => return Wanted::No,
            Some(_) => return Wanted::Yes,
            None if inside == Wanted::Yes => return Wanted::Yes,
            None => {}
        }
        if is_directory && self.include.may_match_below(path) {
            Wanted::Passage
        } else {
            Wanted::No
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::tests::options;

    fn selection(include: &[&str], exclude: &[&str]) -> Selection {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let mut options = options(std::path::Path::new("/unused"));
        options.include = texts(include);
        options.exclude = texts(exclude);
        Selection::new(&options).expect("valid")
    }

    /// Decides about a path by way of all directories above it, as a walk does.
    fn decide(selection: &Selection, path: &str) -> Wanted {
        let is_directory = path.ends_with('/');
        let path = path.trim_end_matches('/').as_bytes();
        let mut inside = selection.decide_base(b"");
        for end in (1..path.len()).filter(|end| path[*end] == b'/') {
            inside = selection.decide(inside, &path[..end], true);
        }
        selection.decide(inside, path, is_directory)
    }

    #[test]
    fn includes_excludes_and_the_directories_between() {
        use Wanted::{No, Passage, Yes};
        let check = |include: &[&str], exclude: &[&str], path: &str, expected: Wanted| {
            let selection = selection(include, exclude);
            assert_eq!(decide(&selection, path), expected, "{include:?} {exclude:?} {path}");
        };
        check(&[], &[], "/a/b", Yes);
        check(&[], &["*.o"], "/a/b.o", No);
        check(&[], &["/a"], "/a/b/c", No);
        check(&[], &["*.o", "!keep.o"], "/keep.o", Yes);

        check(&["/a/b"], &[], "/a/", Passage);
        check(&["/a/b"], &[], "/a/b/", Yes);
        check(&["/a/b"], &[], "/a/b/c/d", Yes);
        check(&["/a/b"], &[], "/a/x", No);
        check(&["/a/b"], &[], "/x/", No);
        check(&["/a/b"], &["c"], "/a/b/c", No);

        check(&["/a/*/c"], &[], "/a/x/", Passage);
        check(&["/a/*/c"], &[], "/a/x/c", Yes);
        check(&["/a/*/c"], &[], "/a/x/y/", No);
        check(&["/a/**/c"], &[], "/a/", Passage);
        check(&["/a/**/c"], &[], "/a/x/y/z/", Passage);
        check(&["/a/**/c"], &[], "/b/", No);

        check(&["*.txt"], &[], "/a/b/", Passage);
        check(&["*.txt"], &[], "/a/b/c.txt", Yes);
        check(&["*.txt"], &[], "/a/b/c.bin", No);
        check(&["/a", "!*.o"], &[], "/a/b.o", No);
        check(&["/a", "!*.o"], &[], "/a/b.c", Yes);
        // A file is no passage.
        check(&["/a/b"], &[], "/a", No);
    }

    #[test]
    fn case_is_ignored_also_on_the_way() {
        let mut options = options(std::path::Path::new("/unused"));
        options.iinclude = vec!["/Docs/*.PDF".to_owned()];
        let selection = Selection::new(&options).expect("valid");
        assert_eq!(decide(&selection, "/docs/"), Wanted::Passage);
        assert_eq!(decide(&selection, "/DOCS/a.pdf"), Wanted::Yes);
        assert_eq!(decide(&selection, "/other/"), Wanted::No);
    }

    #[test]
    fn what_was_asked_for_by_name_is_entered_whatever_patterns_say() {
        let check = |include: &[&str], exclude: &[&str], base: &str, expected: Wanted| {
            let decided = selection(include, exclude).decide_base(base.as_bytes());
            assert_eq!(decided, expected, "{include:?} {exclude:?} {base}");
        };
        check(&[], &["/a"], "/a/b", Wanted::Yes);
        check(&["/a"], &[], "/a/b", Wanted::Yes);
        check(&["/a/b/c"], &[], "/a/b", Wanted::Passage);
        check(&["/x"], &[], "/a/b", Wanted::Passage);
        check(&["c"], &[], "", Wanted::Passage);
    }
}
