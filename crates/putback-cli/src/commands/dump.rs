//! `putback dump`.

use std::ffi::OsString;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Args, ValueEnum};
use putback_engine::dump::{self, ArchiveFormat};
use putback_format::snapshot::Snapshot;
use putback_format::tree::EntryKind;
use putback_repo::{Event, Observer, Repository};

use crate::commands::select::{FilterArgs, SnapshotPath, warn_of_checkpoint};
use crate::context::Context;
use crate::report::{Failure, Outcome};
use crate::ui::progress::{self, Entries, Kind};

/// Write a folder of a snapshot as an archive, or a file as it is
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback dump latest:/home/ada --target ada.tar\n  \
        putback dump latest:/srv/www --archive zip > www.zip\n  \
        putback dump latest /etc/fstab --target fstab.old")]
pub(crate) struct DumpArgs {
    /// latest, latest~N, an id or its beginning; with :PATH, only what is there
    #[arg(value_name = "SNAPSHOT[:PATH]", value_parser = SnapshotPath::parser())]
    snapshot: SnapshotPath,
    /// Folder or file, if it is not behind the colon
    #[arg(value_name = "PATH")]
    file: Option<OsString>,
    /// Kind of archive; a single file is written as it is unless this is given
    #[arg(short, long, env = "PUTBACK_ARCHIVE", value_name = "KIND")]
    archive: Option<Archive>,
    /// File to write to, replaced if it exists; standard output if not given
    #[arg(short, long, env = "PUTBACK_TARGET", value_name = "FILE")]
    target: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
}

/// `--archive`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Archive {
    Tar,
    Zip,
}

/// Writes an archive or a file.
pub(crate) fn run(context: &Context, args: &DumpArgs) -> anyhow::Result<Outcome> {
    let wanted = args.snapshot.with_path(args.file.as_ref())?;
    let repository = context.open()?;
    let stored = wanted.find(&repository, &args.filter)?;
    context.show_warnings(&repository);
    warn_of_checkpoint(context, &stored);
    let entry = repository.entry_at(&stored.snapshot, &wanted.path)?;
    let is_directory = matches!(entry.kind, EntryKind::Directory { .. });
    let format = match args.archive {
        Some(Archive::Tar) => Some(ArchiveFormat::Tar),
        Some(Archive::Zip) => Some(ArchiveFormat::Zip),
        None => is_directory.then_some(ArchiveFormat::Tar),
    };
    let problems = match &args.target {
        Some(target) => {
            let file = Replacement::create(context, target)?;
            let mut out = BufWriter::with_capacity(256 << 10, &file.file);
            let problems =
                write(context, &repository, &stored.snapshot, &wanted.path, format, &mut out)?;
            out.flush()?;
            drop(out);
            file.keep()?;
            problems
        }
        None => {
            if format.is_some() && context.ui.is_stdout_terminal() {
                return Err(Failure::usage_with(
                    "an archive is not written to a terminal",
                    "give --target FILE, or send standard output to a file or another program",
                )
                .into());
            }
            let mut out = context.ui.out();
            let problems =
                write(context, &repository, &stored.snapshot, &wanted.path, format, &mut out)?;
            out.finish()?;
            problems
        }
    };
    Ok(Outcome::of_problems(problems))
}

fn write(
    context: &Context,
    repository: &Repository,
    snapshot: &Snapshot,
    path: &[u8],
    format: Option<ArchiveFormat>,
    out: &mut dyn Write,
) -> anyhow::Result<u64> {
    let problems = AtomicU64::new(0);
    match format {
        None => dump::cat(repository, snapshot, path, out)?,
        Some(format) => progress::watch(&context.ui, Kind::Dump, Entries::None, |observer| {
            let observer = CountProblems { observer, problems: &problems };
            dump::archive(repository, snapshot, path, format, out, &observer)
        })?,
    };
    Ok(problems.into_inner())
}

/// Counts entries that are not in the archive as they should be.
struct CountProblems<'a> {
    observer: &'a dyn Observer,
    problems: &'a AtomicU64,
}

impl Observer for CountProblems<'_> {
    fn event(&self, event: Event<'_>) {
        if let Event::Problem { .. } = event {
            self.problems.fetch_add(1, Ordering::Relaxed);
        }
        self.observer.event(event);
    }
}

/// A file that takes its name when it is complete: a dump that fails leaves what was there.
struct Replacement {
    file: fs_err::File,
    /// The temporary and the final name; none where the target is no regular file, such as a pipe.
    names: Option<(PathBuf, PathBuf)>,
}

impl Replacement {
    fn create(context: &Context, target: &Path) -> anyhow::Result<Self> {
        let is_other = std::fs::metadata(target).is_ok_and(|metadata| !metadata.is_file());
        let Some(name) = target.file_name().filter(|_| !is_other) else {
            return Ok(Self { file: fs_err::File::create(target)?, names: None });
        };
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}.part", std::process::id()));
        let temporary = target.with_file_name(temporary);
        context.interrupt.remove(temporary.clone());
        let file = fs_err::File::create(&temporary)?;
        Ok(Self { file, names: Some((temporary, target.to_owned())) })
    }

    fn keep(mut self) -> anyhow::Result<()> {
        if let Some((temporary, target)) = self.names.take() {
            fs_err::rename(temporary, target)?;
        }
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some((temporary, _)) = &self.names {
            // What is left is a part that nobody asked for.
            let _ = fs_err::remove_file(temporary);
        }
    }
}
