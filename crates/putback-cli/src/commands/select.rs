//! How snapshots and what is in them are named on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use putback_repo::{Repository, SnapshotFilter, StoredSnapshot};

use crate::bytes;
use crate::context::Context;
use crate::report::Failure;
use crate::ui::text;

/// Flags that say which snapshots are meant.
#[derive(Args, Debug)]
#[command(next_help_heading = "Which snapshots")]
pub(crate) struct FilterArgs {
    /// Only snapshots of this host; several: any of them
    #[arg(short = 'H', long, env = "PUTBACK_HOST", value_name = "HOST", value_delimiter = ',')]
    pub(crate) host: Vec<String>,
    /// Only snapshots with all of these tags, TAG[,TAG...]; several: any of them
    #[arg(long, env = "PUTBACK_TAG", value_name = "TAGS")]
    pub(crate) tag: Vec<String>,
    /// Only snapshots of this path; several: all of them
    #[arg(long, env = "PUTBACK_PATH", value_name = "PATH")]
    pub(crate) path: Vec<PathBuf>,
    /// Also checkpoints of unfinished backups
    #[arg(long, env = "PUTBACK_CHECKPOINTS")]
    pub(crate) checkpoints: bool,
}

impl FilterArgs {
    /// What the repository is asked for.
    pub(crate) fn filter(&self) -> anyhow::Result<SnapshotFilter> {
        let tags = self.tag.iter().map(|tags| split_tags(tags)).collect();
        let paths = self.path.iter().map(|path| bytes::absolute(path)).collect::<Result<_, _>>()?;
        Ok(SnapshotFilter {
            hosts: self.host.clone(),
            tags,
            paths,
            include_checkpoints: self.checkpoints,
        })
    }

    /// The snapshots with these ids, or all that pass the filter.
    pub(crate) fn choose(
        &self,
        repository: &Repository,
        ids: &[String],
    ) -> anyhow::Result<Vec<StoredSnapshot>> {
        let filter = self.filter()?;
        if ids.is_empty() {
            return Ok(repository.snapshots(&filter)?);
        }
        let mut chosen: Vec<StoredSnapshot> = Vec::new();
        for id in ids {
            let found = repository.find_snapshot(id, &filter)?;
            if !chosen.iter().any(|known| known.id == found.id) {
                chosen.push(found);
            }
        }
        Ok(chosen)
    }
}

/// `a,b` as two tags.
pub(crate) fn split_tags(tags: &str) -> Vec<String> {
    tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

/// `SNAPSHOT[:PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotPath {
    /// `latest`, `latest~N`, an id or its beginning.
    pub(crate) selector: String,
    /// Raw bytes behind the colon; `/` if there is none.
    pub(crate) path: Vec<u8>,
    /// Whether there was a colon.
    pub(crate) has_path: bool,
}

impl SnapshotPath {
    /// Parses an argument.
    pub(crate) fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().try_map(|text| Self::parse(&text))
    }

    pub(crate) fn parse(text: &OsString) -> Result<Self, Failure> {
        let raw = bytes::of(text);
        let colon = raw.iter().position(|byte| *byte == b':');
        let (selector, path) = match colon {
            Some(colon) => (&raw[..colon], &raw[colon + 1..]),
            None => (raw.as_slice(), &b"/"[..]),
        };
        let selector = std::str::from_utf8(selector).ok().filter(|selector| !selector.is_empty());
        let selector = selector.ok_or_else(|| {
            Failure::usage(format!(
                "'{}' names no snapshot; write 'latest' or an id",
                text::escaped(&raw)
            ))
        })?;
        let path = if path.is_empty() { b"/" } else { path };
        Ok(Self { selector: selector.to_owned(), path: path.to_vec(), has_path: colon.is_some() })
    }

    /// With the path that stands in an argument of its own, if one does.
    pub(crate) fn with_path(&self, path: Option<&OsString>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(self.clone()) };
        if self.has_path {
            return Err(Failure::usage(
                "the path is given twice: behind the colon and as an argument of its own",
            ));
        }
        Ok(Self { selector: self.selector.clone(), path: bytes::of(path), has_path: true })
    }

    /// The snapshot.
    pub(crate) fn find(
        &self,
        repository: &Repository,
        filter: &FilterArgs,
    ) -> anyhow::Result<StoredSnapshot> {
        Ok(repository.find_snapshot(&self.selector, &filter.filter()?)?)
    }
}

/// Says that a checkpoint is not all of what was to be backed up. Without a word, what is made of it would pass for all.
pub(crate) fn warn_of_checkpoint(context: &Context, stored: &StoredSnapshot) {
    if !stored.snapshot.complete {
        context.ui.warning(&format!(
            "snapshot {} is a checkpoint of an unfinished backup: what that had not reached is missing",
            stored.id.short()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_named_with_and_without_a_path() {
        for (text, selector, path) in [
            ("latest", "latest", "/"),
            ("latest~2:/etc", "latest~2", "/etc"),
            ("1a2b:home/a:b", "1a2b", "home/a:b"),
            ("1a2b:", "1a2b", "/"),
        ] {
            let parsed = SnapshotPath::parse(&OsString::from(text)).unwrap();
            assert_eq!(
                (parsed.selector.as_str(), parsed.path.as_slice()),
                (selector, path.as_bytes()),
                "{text}"
            );
        }
        for text in ["", ":/etc"] {
            assert!(SnapshotPath::parse(&OsString::from(text)).is_err(), "{text}");
        }
    }
}
