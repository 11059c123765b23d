//! `putback check`.

use clap::Args;
use putback_repo::{CheckOptions, CheckReport, ReadData};

use crate::context::Context;
use crate::report::{Failure, Outcome};
use crate::ui::progress::{self, Entries, Kind};
use crate::ui::{json, text};

/// Paths shown for each damage; with --verbose all that are known.
const HURTS_SHOWN: usize = 5;

/// Check that the repository is whole
///
/// Without --read-data: that every object is there and all snapshots can be walked. With it, every
/// byte is also read, decrypted, decompressed and compared with its hash. Nothing is changed.
///
/// It also says when the storage shows less than this machine, or another one, has seen there
/// before: snapshots that are gone although nobody forgot them, or older settings.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback check\n  \
        putback check --read-data\n  \
        putback check --read-data-subset 5%\n  \
        putback check --read-data-subset 3/10")]
pub(crate) struct CheckArgs {
    /// Read all data
    #[arg(long, env = "PUTBACK_READ_DATA")]
    read_data: bool,
    /// Read a part of the data: 5% or 10G at random, or 3/10 for the third of ten parts
    #[arg(long, env = "PUTBACK_READ_DATA_SUBSET", value_name = "PART", value_parser = subset)]
    read_data_subset: Option<Subset>,
    /// Take for known, on this machine, that the storage lost snapshots or was rolled back: because
    /// it was copied, or restored from a copy. What it loses later is noticed as before
    #[arg(long, env = "PUTBACK_ACCEPT_ROLLBACK")]
    accept_rollback: bool,
}

/// `--read-data-subset`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subset(pub(crate) ReadData);

pub(crate) fn subset(text: &str) -> Result<Subset, String> {
    let error = || "write 5%, 3/10 or a size such as 10G".to_owned();
    if let Some(percent) = text.strip_suffix('%') {
        let percent: f64 = percent.trim().parse().map_err(|_| error())?;
        let is_valid = percent > 0.0 && percent <= 100.0;
        return if is_valid { Ok(Subset(ReadData::Percent(percent))) } else { Err(error()) };
    }
    if let Some((n, of)) = text.split_once('/') {
        let n: u32 = n.trim().parse().map_err(|_| error())?;
        let of: u32 = of.trim().parse().map_err(|_| error())?;
        let is_valid = n >= 1 && n <= of;
        return if is_valid { Ok(Subset(ReadData::Part { n, of })) } else { Err(error()) };
    }
    match text::parse_bytes(text) {
        Ok(bytes) if bytes > 0 => Ok(Subset(ReadData::Bytes(bytes))),
        _ => Err(error()),
    }
}

/// Checks.
pub(crate) fn run(context: &Context, args: &CheckArgs) -> anyhow::Result<Outcome> {
    // The stronger of the two, as for other flags that answer the same question.
    let mut asked = Vec::new();
    asked.extend(args.read_data.then_some("read_data"));
    asked.extend(args.read_data_subset.as_ref().map(|_| "read_data_subset"));
    let read = match (context.origins.strongest(&asked)?, &args.read_data_subset) {
        (Some("read_data"), _) => ReadData::All,
        (_, Some(Subset(part))) => *part,
        _ => ReadData::No,
    };
    let repository = context.open()?;
    let accepted = match args.accept_rollback {
        true => repository.accept_rollback()?,
        false => Vec::new(),
    };
    let cancel = context.interrupt.cancel("stopping");
    let options = CheckOptions { read, workers: context.workers(), cancel };
    let report = progress::watch(&context.ui, Kind::Check, Entries::None, |observer| {
        repository.check(&options, observer)
    })?;
    context.show_warnings(&repository);
    show(context, &report, &accepted);
    if report.damages_total > 0 {
        return Err(Failure::Damaged { damages: report.damages_total }.into());
    }
    if !report.rollback.is_empty() {
        return Err(Failure::RolledBack.into());
    }
    Ok(if report.is_interrupted { Outcome::Interrupted } else { Outcome::Done })
}

fn show(context: &Context, report: &CheckReport, accepted: &[String]) {
    let ui = &context.ui;
    let printable = |texts: &[String]| texts.iter().map(|text| text::printable(text)).collect();
    for damage in &report.damages {
        if ui.is_json() {
            let hurts = damage.hurts.iter().map(|(snapshot, path)| {
                let (item, item_base64) = json::name(path);
                json::Hurt { snapshot: snapshot.to_string(), item, item_base64 }
            });
            ui.json_error(&json::CheckDamage {
                message_type: "damage",
                object: text::printable(&damage.object),
                message: text::printable(&damage.message),
                hurts: hurts.collect(),
            });
            continue;
        }
        let shown = if ui.verbosity() > 0 { usize::MAX } else { HURTS_SHOWN };
        let mut lines: Vec<String> = damage.hurts.iter().take(shown).map(hurt).collect();
        if let Some(more) = damage.hurts.len().checked_sub(shown).filter(|more| *more > 0) {
            lines.push(format!("and {more} more; --verbose shows them"));
        }
        ui.damage(&damage.object, &damage.message, &lines, None);
    }
    if ui.is_json() {
        ui.json_summary(&json::CheckSummary {
            message_type: "summary",
            num_errors: report.damages_total,
            snapshots: report.snapshots,
            packs: report.packs,
            packs_read: report.packs_read,
            bytes_read: report.bytes_read,
            blobs: report.blobs,
            unreferenced_packs: report.unreferenced_packs,
            is_interrupted: report.is_interrupted,
            rollback_evidence: printable(&report.rollback),
            rollback_accepted: printable(accepted),
            warnings: printable(&report.warnings),
        });
        return;
    }
    for warning in &report.warnings {
        ui.warning(warning);
    }
    for known in accepted {
        ui.say(format_args!("known from now on: {}", text::printable(known)));
    }
    for evidence in &report.rollback {
        ui.error(&text::printable(evidence), &[], None);
    }
    ui.say(format_args!(
        "checked {}, {}, {}",
        text::counted(report.snapshots, "snapshot", "snapshots"),
        text::counted(report.packs, "pack", "packs"),
        text::counted(report.blobs, "blob", "blobs"),
    ));
    if report.packs_read > 0 {
        ui.say(format_args!(
            "read {} ({})",
            text::counted(report.packs_read, "pack", "packs"),
            text::bytes(report.bytes_read)
        ));
    }
    if report.unreferenced_packs > 0 {
        ui.say(format_args!(
            "{} in use by no snapshot: harmless, of a backup that was interrupted or is running",
            text::counted(report.unreferenced_packs, "pack is", "packs are")
        ));
    }
    if report.is_interrupted {
        ui.interrupted("interrupted; what was not reached has not been checked");
    } else if report.damages_total == 0 && report.rollback.is_empty() {
        ui.say(format_args!("no damage found"));
    } else if report.damages_total == 0 {
        ui.say(format_args!("no damage found in what is there"));
    }
}

fn hurt((snapshot, path): &(putback_format::id::SnapshotId, Vec<u8>)) -> String {
    format!("{} in snapshot {}", text::escaped(path), snapshot.short())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_data_is_a_percentage_a_fraction_or_a_size() {
        assert!(matches!(subset("2.5%"), Ok(Subset(ReadData::Percent(part))) if part == 2.5));
        assert!(matches!(subset("3/10"), Ok(Subset(ReadData::Part { n: 3, of: 10 }))));
        assert!(matches!(subset("1G"), Ok(Subset(ReadData::Bytes(1_073_741_824)))));
        for text in ["", "0%", "101%", "nan%", "0/3", "4/3", "1/0", "x", "0"] {
            assert!(subset(text).is_err(), "{text}");
        }
    }
}
