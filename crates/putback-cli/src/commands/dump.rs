//! `putback dump`.

use std::ffi::OsString;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use putback_engine::dump::{self, ArchiveFormat};
use putback_format::snapshot::Snapshot;
use putback_format::tree::EntryKind;
use putback_repo::Repository;

use crate::commands::select::{FilterArgs, SnapshotPath};
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
    let entry = repository.entry_at(&stored.snapshot, &wanted.path)?;
    let is_directory = matches!(entry.kind, EntryKind::Directory { .. });
    let format = match args.archive {
        Some(Archive::Tar) => Some(ArchiveFormat::Tar),
        Some(Archive::Zip) => Some(ArchiveFormat::Zip),
        None => is_directory.then_some(ArchiveFormat::Tar),
    };
    match &args.target {
        Some(target) => {
            let mut out = BufWriter::with_capacity(256 << 10, fs_err::File::create(target)?);
            write(context, &repository, &stored.snapshot, &wanted.path, format, &mut out)?;
            out.flush()?;
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
            write(context, &repository, &stored.snapshot, &wanted.path, format, &mut out)?;
            out.finish()?;
        }
    }
    Ok(Outcome::Done)
}

fn write(
    context: &Context,
    repository: &Repository,
    snapshot: &Snapshot,
    path: &[u8],
    format: Option<ArchiveFormat>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    match format {
        None => dump::cat(repository, snapshot, path, out)?,
        Some(format) => progress::watch(&context.ui, Kind::Dump, Entries::None, |observer| {
            dump::archive(repository, snapshot, path, format, out, observer)
        })?,
    };
    Ok(())
}
