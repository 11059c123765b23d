//! What of the source stays out of a backup, and why.
//!
//! A [`Filter`] is asked three times: about a name before anything is asked of the system
//! ([`Filter::decide_name`]), about an object once its [`Stat`] is known ([`Filter::decide_stat`]), and about
//! the contents of a directory once its names are known ([`Filter::inspect_directory`]). Each answer carries
//! its reason. Nobody asks about what lies in an excluded directory.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::Error;
use crate::backup::FilterOptions;
use crate::pattern::Patterns;
use crate::platform::{self, Directory, FileKind, Names, Stat};
use crate::source::display_path;
use crate::source::roots::RepositoryFolder;

/// The first bytes of a `CACHEDIR.TAG` (Cache Directory Tagging Specification).
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
/// An ignore file beyond this is cut off: its further patterns exclude nothing.
const IGNORE_FILE_BYTES_MAX: u64 = 16 << 20;

/// The rules of one backup.
#[derive(Debug, Default)]
pub struct Filter {
    patterns: Patterns,
    tags: Vec<Tag>,
    ignore_files: Vec<Vec<u8>>,
    file_bytes_max: Option<u64>,
    one_file_system: bool,
    repository: RepositoryFolder,
}

/// A file whose presence keeps the rest of its directory out.
#[derive(Debug)]
struct Tag {
    name: Vec<u8>,
    header: Vec<u8>,
    exclusion: Exclusion,
}

/// Why something stays out of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exclusion {
    /// A pattern matches its path.
    Pattern {
        /// The pattern.
        pattern: Arc<str>,
    },
    /// A pattern in an ignore file of the source matches it.
    IgnoreFile {
        /// Absolute path of the ignore file.
        file: Arc<[u8]>,
        /// The pattern.
        pattern: Arc<str>,
    },
    /// Its directory holds a file of this name.
    Tagged {
        /// The name.
        name: Arc<[u8]>,
    },
    /// Its directory calls itself a cache.
    Cache,
    /// It is larger than wanted.
    Large {
        /// The largest size that is wanted.
        bytes_max: u64,
    },
    /// It is on another file system than its root.
    OtherFileSystem,
    /// It is the repository that the backup goes to.
    Repository,
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern { pattern } => write!(f, "matches '{pattern}'"),
            Self::IgnoreFile { file, pattern } => {
                write!(f, "matches '{pattern}' in {}", display_path(file))
            }
            Self::Tagged { name } => {
                write!(f, "its folder holds {}", String::from_utf8_lossy(name))
            }
            Self::Cache => f.write_str("its folder is a cache"),
            Self::Large { bytes_max } => write!(f, "larger than {bytes_max} bytes"),
            Self::OtherFileSystem => f.write_str("on another file system"),
            Self::Repository => f.write_str("is the repository"),
        }
    }
}

/// What the files in a directory say about it.
#[derive(Debug, Default)]
pub struct DirectoryRules {
    /// The only name to keep, and why the others stay out.
    pub only: Option<(Vec<u8>, Exclusion)>,
    /// Ignore files in force below the directory.
    pub ignore: Option<Arc<IgnoreRules>>,
}

/// The patterns of the ignore files of one directory, and those of the directories around it.
#[derive(Debug)]
pub struct IgnoreRules {
    matcher: Gitignore,
    /// Where in a path the part begins that the patterns see.
    relative_start: usize,
    outer: Option<Arc<Self>>,
}

impl Filter {
    /// Makes rules of options; reads the files of patterns that they name.
    ///
    /// Patterns are ordered as: `exclude`, `exclude_files`, `iexclude`, `iexclude_files`.
    ///
    /// # Errors
    /// - [`Error::Pattern`]: a pattern cannot be understood.
    /// - [`Error::Source`]: a file of patterns cannot be read.
    pub fn new(options: &FilterOptions) -> Result<Self, Error> {
        let mut patterns = Patterns::from_texts(&options.exclude, &[])?;
        for file in &options.exclude_files {
            patterns.push_lines(&read_pattern_file(file)?, false)?;
        }
        for text in &options.iexclude {
            patterns.push(text.as_bytes(), true)?;
        }
        for file in &options.iexclude_files {
            patterns.push_lines(&read_pattern_file(file)?, true)?;
        }

        let mut tags = Vec::new();
        for (name, header) in &options.exclude_if_present {
            let name = plain_name(name)?;
            let exclusion = Exclusion::Tagged { name: name.clone().into() };
            tags.push(Tag { name, header: header.clone().unwrap_or_default(), exclusion });
        }
        if options.exclude_caches {
            let header = CACHE_SIGNATURE.to_vec();
            tags.push(Tag { name: CACHE_TAG.to_vec(), header, exclusion: Exclusion::Cache });
        }
        Ok(Self {
            patterns,
            tags,
            ignore_files: options
                .ignore_files
                .iter()
                .map(|name| plain_name(name))
                .collect::<Result<_, _>>()?,
            file_bytes_max: options.exclude_larger_than,
            one_file_system: options.one_file_system,
            repository: RepositoryFolder::default(),
        })
    }

    /// Leaves the repository out, wherever the walk meets it.
    #[must_use]
    pub fn without_repository(mut self, repository: RepositoryFolder) -> Self {
        self.repository = repository;
        self
    }

    /// Whether what is on another file system than its root stays out.
    #[must_use]
    pub fn is_one_file_system(&self) -> bool {
        self.one_file_system
    }

    /// Decides by path and kind alone. `path` is absolute; that of `/` is empty.
    #[must_use]
    pub fn decide_name(
        &self,
        path: &[u8],
        is_directory: bool,
        ignore: Option<&IgnoreRules>,
    ) -> Option<Exclusion> {
        if let Some(pattern) = self.patterns.last_match(path, is_directory)
            && !pattern.is_negated()
        {
            return Some(Exclusion::Pattern { pattern: pattern.text().clone() });
        }
        ignore.and_then(|rules| rules.decide(path, is_directory))
    }

    /// Whether a pattern may exclude something below the directory `path`.
    #[must_use]
    pub fn may_exclude_below(&self, path: &[u8]) -> bool {
        self.patterns.may_match_below(path)
    }

    /// Decides by what the system says about the object; `root_device` is the device of its root.
    ///
    /// A directory that stays out as [`Exclusion::OtherFileSystem`] is kept as an empty one.
    #[must_use]
    pub fn decide_stat(&self, stat: &Stat, root_device: u64) -> Option<Exclusion> {
        if stat.is_directory() && self.repository.is(stat.identity()) {
            return Some(Exclusion::Repository);
        }
        if self.one_file_system && stat.device != root_device {
            return Some(Exclusion::OtherFileSystem);
        }
        match self.file_bytes_max {
            Some(bytes_max) if stat.kind == FileKind::File && stat.size > bytes_max => {
                Some(Exclusion::Large { bytes_max })
            }
            _ => None,
        }
    }

    /// Looks for tags and ignore files among the names of a directory.
    ///
    /// Costs no call to the system unless one is there. An ignore file that cannot be read, or a line in it
    /// that cannot be understood, excludes nothing.
    #[must_use]
    pub fn inspect_directory(
        &self,
        path: &[u8],
        directory: &Directory,
        names: &Names,
        outer: Option<&Arc<IgnoreRules>>,
    ) -> DirectoryRules {
        for tag in &self.tags {
            if may_be_file(names, &tag.name) && starts_with_header(directory, tag) {
                let only = Some((tag.name.clone(), tag.exclusion.clone()));
                return DirectoryRules { only, ignore: outer.cloned() };
            }
        }
        let ignore = self.read_ignore_files(path, directory, names, outer);
        DirectoryRules { only: None, ignore: ignore.or_else(|| outer.cloned()) }
    }

    fn read_ignore_files(
        &self,
        path: &[u8],
        directory: &Directory,
        names: &Names,
        outer: Option<&Arc<IgnoreRules>>,
    ) -> Option<Arc<IgnoreRules>> {
        let mut builder: Option<GitignoreBuilder> = None;
        for name in &self.ignore_files {
            if !may_be_file(names, name) {
                continue;
            }
            let Some(bytes) = read_start(directory, name, IGNORE_FILE_BYTES_MAX) else {
                continue;
            };
            let mut file = path.to_vec();
            file.push(b'/');
            file.extend_from_slice(name);
            let file = platform::path_of_bytes(&file);
            let builder = builder.get_or_insert_with(|| GitignoreBuilder::new(""));
            for line in bytes.split(|byte| *byte == b'\n') {
                let Ok(line) = std::str::from_utf8(line) else {
                    continue;
                };
                // Git, too, passes over a line that it does not understand.
                let _ =
                    builder.add_line(Some(file.clone()), line.strip_suffix('\r').unwrap_or(line));
            }
        }
        let matcher = builder?.build().ok().filter(|matcher| !matcher.is_empty())?;
        Some(Arc::new(IgnoreRules {
            matcher,
            relative_start: path.len() + 1,
            outer: outer.cloned(),
        }))
    }
}

impl IgnoreRules {
    /// The innermost directory whose files have something to say decides.
    fn decide(&self, path: &[u8], is_directory: bool) -> Option<Exclusion> {
        let mut rules = self;
        loop {
            let relative = platform::path_of_bytes(path.get(rules.relative_start..)?);
            match rules.matcher.matched(&relative, is_directory) {
                Match::Whitelist(_) => return None,
                Match::Ignore(glob) => {
                    let file = platform::bytes_of_path(glob.from().unwrap_or(Path::new(""))).into();
                    return Some(Exclusion::IgnoreFile { file, pattern: glob.original().into() });
                }
                Match::None => rules = rules.outer.as_deref()?,
            }
        }
    }
}

fn read_pattern_file(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Source { path: path.display().to_string(), source })
}

fn plain_name(name: &std::ffi::OsStr) -> Result<Vec<u8>, Error> {
    let bytes = platform::bytes_of_os(name).into_owned();
    if platform::is_plain_name(&bytes) {
        return Ok(bytes);
    }
    let message = "it must be the name of a file, without a folder".to_owned();
    Err(Error::Pattern { pattern: name.display().to_string(), message })
}

fn may_be_file(names: &Names, name: &[u8]) -> bool {
    names.find(name).is_some_and(|kind| kind.is_none_or(|kind| kind == FileKind::File))
}

fn starts_with_header(directory: &Directory, tag: &Tag) -> bool {
    if tag.header.is_empty() {
        return directory.stat(&tag.name).is_ok_and(|stat| stat.kind == FileKind::File);
    }
    read_start(directory, &tag.name, tag.header.len() as u64)
        .is_some_and(|start| start == tag.header)
}

/// The first bytes of a regular file, nothing if it cannot be read.
fn read_start(directory: &Directory, name: &[u8], bytes_max: u64) -> Option<Vec<u8>> {
    let file = directory.open_file(name).ok()?;
    if platform::stat_file(&file).ok()?.kind != FileKind::File {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
