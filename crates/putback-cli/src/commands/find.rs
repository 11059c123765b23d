//! `putback find`.

use std::io::Write;

use clap::{Args, ValueEnum};
use putback_engine::find::{self, FindOptions, Hit};
use putback_format::id::SnapshotId;
use putback_format::tree::Timestamp;
use putback_repo::StoredSnapshot;

use crate::commands::ls::long_line;
use crate::commands::select::FilterArgs;
use crate::context::Context;
use crate::report::{Failure, Outcome};
use crate::ui::{Out, json, text};

/// Find files in snapshots
///
/// A pattern without a slash is compared with names, one with a slash with whole paths. Several
/// patterns: any of them.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback find report.odt\n  \
        putback find '*.JPG' --ignore-case --newer 2026-01-01 --long\n  \
        putback find '/home/**' --snapshot latest --type f --size +100M")]
pub(crate) struct FindArgs {
    /// Patterns
    #[arg(value_name = "PATTERN", required = true)]
    patterns: Vec<String>,
    /// Only in this snapshot: latest, latest~N, an id or its beginning; several: all of them
    #[arg(short, long, env = "PUTBACK_SNAPSHOT", value_name = "SNAPSHOT")]
    snapshot: Vec<String>,
    /// Upper and lower case are equal
    #[arg(short, long, env = "PUTBACK_IGNORE_CASE")]
    ignore_case: bool,
    /// Changed after this time, or less long ago than this: 2026-01-01, 7d
    #[arg(short = 'O', long, env = "PUTBACK_NEWER", value_name = "TIME",
          value_parser = text::parse_time_or_age, alias = "oldest")]
    newer: Option<Timestamp>,
    /// Changed before this time, or longer ago than this
    #[arg(short = 'N', long, env = "PUTBACK_OLDER", value_name = "TIME",
          value_parser = text::parse_time_or_age, alias = "newest")]
    older: Option<Timestamp>,
    /// Only entries of these kinds, separated by commas
    #[arg(long = "type", env = "PUTBACK_TYPE", value_name = "TYPES", value_delimiter = ',')]
    kinds: Vec<Type>,
    /// Only files of this size; +SIZE at least, -SIZE at most; can be given twice
    #[arg(long, env = "PUTBACK_SIZE", value_name = "SIZE", allow_hyphen_values = true)]
    size: Vec<String>,
    /// Show mode, owner, size and time
    #[arg(short, long, env = "PUTBACK_LONG")]
    long: bool,
    /// Show sizes as 1.5 GiB
    #[arg(long, env = "PUTBACK_HUMAN")]
    human: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// `--type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Type {
    #[value(name = "f", alias = "file", help = "Files")]
    File,
    #[value(name = "d", alias = "dir", help = "Folders")]
    Directory,
    #[value(name = "l", alias = "symlink", help = "Symbolic links")]
    Symlink,
    #[value(name = "o", alias = "other", help = "Devices, pipes and sockets")]
    Other,
}

impl Type {
    fn letter(self) -> char {
        match self {
            Self::File => 'f',
            Self::Directory => 'd',
            Self::Symlink => 'l',
            Self::Other => 'o',
        }
    }
}

/// Finds files.
pub(crate) fn run(context: &Context, args: FindArgs) -> anyhow::Result<Outcome> {
    let (size_min, size_max) = sizes(&args.size)?;
    let options = FindOptions {
        patterns: args.patterns.clone(),
        ignore_case: args.ignore_case,
        newer: args.newer,
        older: args.older,
        kinds: args.kinds.iter().map(|kind| kind.letter()).collect(),
        size_min,
        size_max,
    };
    let repository = context.open()?;
    let snapshots = args.filter.choose(&repository, &args.snapshot)?;
    context.show_warnings(&repository);
    let mut printer = Printer {
        out: context.ui.out(),
        json: context.ui.is_json(),
        args: &args,
        snapshots: &snapshots,
        current: None,
        hits: 0,
        groups: 0,
        failure: None,
    };
    printer.begin();
    find::find(&repository, &snapshots, &options, &mut |hit| printer.hit(&hit))?;
    printer.end()?;
    Ok(Outcome::Done)
}

/// Smallest and largest size that the bounds allow.
fn sizes(bounds: &[String]) -> Result<(Option<u64>, Option<u64>), Failure> {
    let (mut size_min, mut size_max) = (None::<u64>, None::<u64>);
    for bound in bounds {
        let (sign, size) = match bound.as_bytes().first() {
            Some(b'+') => ('+', &bound[1..]),
            Some(b'-') => ('-', &bound[1..]),
            _ => ('=', bound.as_str()),
        };
        let size = text::parse_bytes(size).map_err(|message| {
            Failure::usage_with(message, "write --size +100M for at least, --size -1G for at most")
        })?;
        if sign != '-' {
            size_min = Some(size_min.map_or(size, |known| known.max(size)));
        }
        if sign != '+' {
            size_max = Some(size_max.map_or(size, |known| known.min(size)));
        }
    }
    Ok((size_min, size_max))
}

/// Writes hits as they come, under their snapshots.
struct Printer<'a> {
    out: Out<'a>,
    json: bool,
    args: &'a FindArgs,
    snapshots: &'a [StoredSnapshot],
    current: Option<SnapshotId>,
    hits: u64,
    groups: u64,
    failure: Option<std::io::Error>,
}

impl Printer<'_> {
    fn attempt(&mut self, write: impl FnOnce(&mut Self) -> std::io::Result<()>) {
        if self.failure.is_none()
            && let Err(error) = write(self)
        {
            self.failure = Some(error);
        }
    }

    fn begin(&mut self) {
        if self.json {
            self.attempt(|printer| printer.out.write_all(b"["));
        }
    }

    fn hit(&mut self, hit: &Hit) {
        self.attempt(|printer| printer.write_hit(hit));
    }

    fn write_hit(&mut self, hit: &Hit) -> std::io::Result<()> {
        if self.current != Some(hit.snapshot) {
            self.end_group()?;
            self.current = Some(hit.snapshot);
            self.begin_group(hit.snapshot)?;
        }
        if self.json {
            self.out.write_all(if self.hits == 0 { b"\n" } else { b",\n" })?;
            self.out
                .write_all(json::line(&json::Node::new(&hit.path, &hit.entry)).trim_ascii_end())?;
        } else if self.args.long {
            writeln!(self.out, "{}", long_line(&hit.path, &hit.entry, self.args.human))?;
        } else {
            writeln!(self.out, "{}", text::escaped(&hit.path))?;
        }
        self.hits += 1;
        Ok(())
    }

    fn begin_group(&mut self, snapshot: SnapshotId) -> std::io::Result<()> {
        self.hits = 0;
        let gap = if self.groups == 0 { "" } else { "\n" };
        self.groups += 1;
        if self.json {
            let comma = if self.groups == 1 { "" } else { "," };
            return write!(self.out, "{comma}\n{{\"snapshot\":\"{snapshot}\",\"matches\":[");
        }
        let time = self.snapshots.iter().find(|stored| stored.id == snapshot);
        let time = time
            .map_or_else(String::new, |stored| format!(" of {}", text::time(stored.snapshot.time)));
        writeln!(self.out, "{gap}snapshot {}{time}", snapshot.short())
    }

    fn end_group(&mut self) -> std::io::Result<()> {
        if self.json && self.current.is_some() {
            write!(self.out, "\n],\"hits\":{}}}", self.hits)?;
        }
        Ok(())
    }

    fn end(mut self) -> std::io::Result<()> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        self.end_group()?;
        if self.json {
            self.out.write_all(b"\n]\n")?;
        }
        self.out.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bounds_or_exact() {
        let check = |bounds: &[&str], expected| {
            let bounds: Vec<String> = bounds.iter().map(ToString::to_string).collect();
            assert_eq!(sizes(&bounds).unwrap(), expected, "{bounds:?}");
        };
        check(&[], (None, None));
        check(&["+1K"], (Some(1024), None));
        check(&["-1K"], (None, Some(1024)));
        check(&["7"], (Some(7), Some(7)));
        check(&["+1K", "-2K"], (Some(1024), Some(2048)));
        assert!(sizes(&["+x".to_owned()]).is_err());
    }
}
