//! `putback replicate`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use putback_engine::replicate::{self, Plan, ReplicateOptions, ReplicateReport};

use crate::commands::init::compression_level;
use crate::commands::select::FilterArgs;
use crate::commands::snapshots::joined_paths;
use crate::context::Context;
use crate::password::OtherPassword;
use crate::report::{Failure, Outcome};
use crate::ui::progress::{self, Entries, Kind};
use crate::ui::{json, text};

/// Copy snapshots to another repository
///
/// Without SNAPSHOT: all that the filters choose and that the other repository does not have yet, oldest
/// first. The other repository has a password, keys and chunks of its own: everything is read, verified
/// and stored anew, unless it was made with `putback init --like`, which lets chunks be copied as they are
/// and those that are there be left alone. Snapshots that were forgotten there are copied again, and so
/// are those that were repaired there: what is lost comes back.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback replicate --to /mnt/second/backup\n  \
        putback replicate --to putio:backups/laptop --to-password-file ~/.second-password --tag keep\n  \
        putback init --repo putio:backups/laptop --like /mnt/disk/backup")]
pub(crate) struct ReplicateArgs {
    /// latest, latest~N, ids or their beginnings
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// The other repository: a folder, file:///path, or STORAGE:PATH
    #[arg(
        long,
        env = "PUTBACK_TO",
        value_name = "LOCATION",
        required = true,
        help_heading = "The other repository"
    )]
    to: OsString,
    /// File that holds its password; see also PUTBACK_TO_PASSWORD
    #[arg(
        long,
        env = "PUTBACK_TO_PASSWORD_FILE",
        value_name = "FILE",
        help_heading = "The other repository"
    )]
    to_password_file: Option<PathBuf>,
    /// Command that prints its password; run by the shell
    #[arg(
        long,
        env = "PUTBACK_TO_PASSWORD_COMMAND",
        value_name = "COMMAND",
        help_heading = "The other repository"
    )]
    to_password_command: Option<OsString>,
    /// Open file descriptor to read its password from
    #[arg(
        long,
        env = "PUTBACK_TO_PASSWORD_FD",
        value_name = "N",
        help_heading = "The other repository"
    )]
    to_password_fd: Option<u32>,
    /// Compression of what is added, instead of the other repository's: -7 to 22, or fast, default,
    /// better, max
    #[arg(long, env = "PUTBACK_COMPRESSION", value_name = "LEVEL", value_parser = compression_level,
          allow_negative_numbers = true)]
    compression: Option<i32>,
    /// Copy nothing; list what would be copied
    #[arg(short = 'n', long, env = "PUTBACK_DRY_RUN")]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Copies.
pub(crate) fn run(context: &Context, args: &ReplicateArgs) -> anyhow::Result<Outcome> {
    let source = context.open()?;
    let password = OtherPassword {
        prefix: "to",
        file: args.to_password_file.as_deref(),
        command: args.to_password_command.as_ref(),
        descriptor: args.to_password_fd,
    };
    let target = context.open_other(&args.to, &password)?;
    let chosen = args.filter.choose(&source, &args.snapshots)?;
    let plan = replicate::plan(&source, &target, &chosen)?;
    context.show_warnings(&source);
    context.show_warnings(&target);
    if args.dry_run {
        show_plan(context, &plan);
        return Ok(Outcome::Done);
    }
    let options = ReplicateOptions {
        workers: context.workers(),
        compression_level: args.compression,
        cancel: context.interrupt.cancel("stopping; the snapshot in hand is given up"),
    };
    let report = progress::watch(&context.ui, Kind::Replicate, Entries::None, |observer| {
        replicate::execute(&source, &target, &plan, &options, observer)
    });
    context.show_warnings(&source);
    context.show_warnings(&target);
    let report = report?;
    show(context, &plan, &report);
    if report.is_interrupted {
        return Ok(Outcome::Interrupted);
    }
    if report.copied.is_empty() && plan.present.is_empty() && !report.failed.is_empty() {
        return Err(Failure::other(
            "no snapshot was copied",
            "`putback check --read-data` says what is damaged",
        )
        .into());
    }
    Ok(Outcome::of_problems(report.failed.len() as u64))
}

fn show_plan(context: &Context, plan: &Plan) {
    let ui = &context.ui;
    if ui.is_json() {
        for stored in &plan.missing {
            ui.json(&json::ReplicateMissing {
                message_type: "missing",
                snapshot_id: stored.id.to_string(),
                total_bytes: stored.snapshot.statistics.bytes_total,
            });
        }
        summary(context, plan, &ReplicateReport::default(), true);
        return;
    }
    for stored in &plan.missing {
        ui.say(format_args!(
            "snapshot {} of {} would be copied: {}, {}",
            stored.id.short(),
            text::time(stored.snapshot.time),
            joined_paths(&stored.snapshot.paths),
            text::bytes(stored.snapshot.statistics.bytes_total),
        ));
    }
    ui.say(format_args!(
        "{} to copy, {} there already",
        text::counted(plan.missing.len() as u64, "snapshot", "snapshots"),
        text::count(plan.present.len() as u64),
    ));
    if !plan.is_like && !plan.missing.is_empty() {
        ui.say(format_args!("chunks differ there: files are read as a whole and cut anew"));
    }
    ui.say(format_args!("dry run: nothing was changed"));
}

fn show(context: &Context, plan: &Plan, report: &ReplicateReport) {
    let ui = &context.ui;
    for (old, new) in &report.copied {
        if ui.is_json() {
            ui.json(&json::Replaced {
                message_type: "copied",
                old_snapshot_id: old.to_string(),
                new_snapshot_id: new.to_string(),
            });
        } else {
            ui.say(format_args!("snapshot {} is there as {}", old.short(), new.short()));
        }
    }
    for (id, error) in &report.failed {
        let message = format!("snapshot {} was not copied", id.short());
        let why = text::printable(&error.to_string());
        if ui.is_json() {
            ui.json_error(&json::SnapshotError {
                message_type: "error",
                error: json::ErrorMessage { message: &format!("{message}: {why}") },
                during: "replicate",
                item: id.to_string(),
            });
        } else {
            ui.error(
                &message,
                &[why],
                Some("`putback repair snapshots` makes one of what is left"),
            );
        }
    }
    if ui.is_json() {
        summary(context, plan, report, false);
        return;
    }
    ui.say(format_args!(
        "{} copied, {} there already",
        text::counted(report.copied.len() as u64, "snapshot", "snapshots"),
        text::count(plan.present.len() as u64),
    ));
    if !report.copied.is_empty() {
        ui.say(format_args!(
            "{} of files read; {} of chunks and trees were new there, and take {}",
            text::bytes(report.bytes_read),
            text::bytes(report.written.plain_bytes),
            text::bytes(report.written.stored_bytes),
        ));
    }
    if report.is_interrupted {
        ui.interrupted("interrupted; run the same command again for the others");
    }
}

fn summary(context: &Context, plan: &Plan, report: &ReplicateReport, dry_run: bool) {
    let done = report.copied.len() + report.failed.len();
    context.ui.json(&json::ReplicateSummary {
        message_type: "summary",
        dry_run,
        is_like: plan.is_like,
        copied_snapshots: report.copied.len() as u64,
        present_snapshots: plan.present.len() as u64,
        missing_snapshots: (plan.missing.len() - done) as u64,
        error_count: report.failed.len() as u64,
        bytes_read: report.bytes_read,
        bytes_added: report.written.plain_bytes,
        bytes_stored: report.written.stored_bytes,
        packs_written: report.written.packs,
        is_interrupted: report.is_interrupted,
    });
}
