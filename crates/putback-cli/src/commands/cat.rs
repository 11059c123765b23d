//! `putback cat`.

use std::ffi::OsString;

use clap::Args;
use putback_engine::dump;

use crate::commands::select::{FilterArgs, SnapshotPath};
use crate::context::Context;
use crate::report::{Failure, Outcome};

/// Print a file of a snapshot
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback cat latest:/etc/fstab\n  \
        putback cat latest~1 /home/ada/notes.txt | less")]
pub(crate) struct CatArgs {
    /// latest, latest~N, an id or its beginning; with :PATH, the file
    #[arg(value_name = "SNAPSHOT[:PATH]", value_parser = SnapshotPath::parser())]
    snapshot: SnapshotPath,
    /// The file, if it is not behind the colon
    #[arg(value_name = "PATH")]
    file: Option<OsString>,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Prints a file.
pub(crate) fn run(context: &Context, args: &CatArgs) -> anyhow::Result<Outcome> {
    let wanted = args.snapshot.with_path(args.file.as_ref())?;
    if !wanted.has_path {
        return Err(Failure::usage_with("no file was named", "write SNAPSHOT:PATH").into());
    }
    let repository = context.open()?;
    let stored = wanted.find(&repository, &args.filter)?;
    context.show_warnings(&repository);
    let mut out = context.ui.out();
    dump::cat(&repository, &stored.snapshot, &wanted.path, &mut out)?;
    out.finish()?;
    Ok(Outcome::Done)
}
