//! `putback check`.

use clap::Args;
use putback_format::id::SnapshotId;
use putback_repo::{CheckOptions, CheckReport, HurtSnapshot, ReadData};

use crate::context::Context;
use crate::report::{Failure, Outcome};
use crate::ui::progress::{self, Entries, Kind};
use crate::ui::{Ui, json, text};

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
    /// Read a part of the data: 5% or 10G at random, or 3/10 for the third of ten parts; also what is listed with
    /// another size or checksum
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
    });
    context.show_warnings(&repository);
    let report = report?;
    let names_all = show(context, &report, &accepted);
    if report.damages_total > 0 {
        let whole = whole_beside(&report, read, names_all).to_owned();
        return Err(Failure::Damaged { damages: report.damages_total, whole }.into());
    }
    if !report.rollback.is_empty() {
        return Err(Failure::RolledBack.into());
    }
    Ok(if report.is_interrupted { Outcome::Interrupted } else { Outcome::Done })
}

/// What is whole beside the damage that was shown; the beginning of a sentence that goes on, or nothing.
fn whole_beside(report: &CheckReport, read: ReadData, names_all_files: bool) -> &'static str {
    match (report.is_interrupted, read, names_all_files) {
        (true, ..) => "",
        (false, ReadData::All, true) => "snapshots and files that are not named above are whole; ",
        (false, ReadData::All, false) => "snapshots that are not named above are whole; ",
        (false, ..) => {
            "snapshots that are not named above have all they need as far as can be told without reading all \
             data, and `putback check --read-data` tells what each damaged pack has lost; "
        }
    }
}

/// Shows what was found. Says whether every path that is hurt was among it.
fn show(context: &Context, report: &CheckReport, accepted: &[String]) -> bool {
    let ui = &context.ui;
    let mut names_all = report.damages.len() as u64 == report.damages_total;
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
                hurts_total: damage.hurts_total,
                hurts_at_least: damage.hurts_at_least,
            });
            names_all &= !damage.hurts_at_least && damage.hurts.len() as u64 == damage.hurts_total;
            continue;
        }
        let (lines, more) =
            hurt_lines(ui, &damage.hurts, damage.hurts_total, damage.hurts_at_least);
        names_all &= more.is_none();
        ui.damage(&damage.object, &damage.message, &lines, more.as_deref(), None);
    }
    let more = report.damages_total - report.damages.len() as u64;
    if more > 0 && !ui.is_json() {
        ui.interrupted(&format!("and {} more like these", text::count(more)));
    }
    show_hurt_snapshots(ui, &report.hurt_snapshots);
    if ui.is_json() {
        ui.json_summary(&json::CheckSummary {
            message_type: "summary",
            num_errors: report.damages_total,
            hurt_snapshots: report.hurt_snapshots.len() as u64,
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
        return names_all;
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
            "{} named by no index segment{}",
            text::counted(report.unreferenced_packs, "pack is", "packs are"),
            match is_harmless(report) {
                true => ", and no snapshot needs more than is named: left by a backup that was interrupted or is running",
                false => ": left by a backup that was interrupted or is running, or what named them is lost; \
                          `putback repair index` names them",
            }
        ));
    }
    if report.is_interrupted {
        ui.interrupted("interrupted; what was not reached has not been checked");
    } else if report.damages_total == 0 && report.rollback.is_empty() {
        ui.say(format_args!("no damage found"));
    } else if report.damages_total == 0 {
        ui.say(format_args!("no damage found in what is there"));
    }
    names_all
}

/// Whether packs that no segment names can be no more than leftovers: snapshots are there, and nothing is missing.
fn is_harmless(report: &CheckReport) -> bool {
    report.snapshots > 0
        && report.damages_total == 0
        && report.rollback.is_empty()
        && !report.is_interrupted
}

/// Names every snapshot that lost something, on standard error.
pub(crate) fn show_hurt_snapshots(ui: &Ui, snapshots: &[HurtSnapshot]) {
    for hurt in snapshots {
        if ui.is_json() {
            ui.json_error(&json::HurtSnapshot {
                message_type: "hurt_snapshot",
                snapshot: hurt.id.to_string(),
                files: hurt.files,
                directories: hurt.directories,
                is_unreadable: hurt.is_unreadable,
            });
        } else {
            ui.interrupted(&hurt_snapshot(hurt));
        }
    }
}

fn hurt_snapshot(hurt: &HurtSnapshot) -> String {
    let mut line = format!("hurt: snapshot {}", hurt.id.short());
    if let Some(time) = hurt.time {
        line.push_str(&format!(" of {}", text::time(time)));
    }
    if hurt.is_unreadable {
        line.push_str(": it cannot be read");
        return line;
    }
    let mut parts = Vec::new();
    if hurt.files > 0 {
        parts.push(text::counted(hurt.files, "file", "files"));
    }
    if hurt.directories > 0 {
        let of = text::counted(hurt.directories, "directory", "directories");
        parts.push(format!("part of {of}, with what was in there"));
    }
    line.push_str(&format!(": {}", parts.join(", and ")));
    line
}

/// Lines for the paths that something hurts, and one that says how many are not among them.
pub(crate) fn hurt_lines(
    ui: &Ui,
    hurts: &[(SnapshotId, Vec<u8>)],
    total: u64,
    is_least: bool,
) -> (Vec<String>, Option<String>) {
    let shown = if ui.verbosity() > 0 { usize::MAX } else { HURTS_SHOWN };
    let lines: Vec<String> = hurts
        .iter()
        .take(shown)
        .map(|(snapshot, path)| format!("{} in snapshot {}", text::escaped(path), snapshot.short()))
        .collect();
    let hidden = (hurts.len() - lines.len()) as u64;
    let more = total.saturating_sub(lines.len() as u64);
    let line = match (more, is_least) {
        (0, false) => return (lines, None),
        (0, true) => "and maybe more".to_owned(),
        (more, true) => format!("and at least {} more", text::count(more)),
        (more, false) => format!("and {} more", text::count(more)),
    };
    let line = match hidden {
        0 => line,
        hidden if hidden == more && !is_least => format!("{line}; --verbose shows them"),
        hidden => format!("{line}; --verbose shows {} of them", text::count(hidden)),
    };
    (lines, Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lost_something_is_told_with_true_counts() {
        let hurts: Vec<_> = (0..100_u8)
            .map(|number| (SnapshotId::from_bytes([7; 32]), format!("/{number}").into_bytes()))
            .collect();
        let check = |shown: usize, total, is_least, expected: Option<&str>| {
            let (lines, more) = hurt_lines(&Ui::early(), &hurts[..shown], total, is_least);
            assert_eq!((lines.len(), more.as_deref()), (shown.min(HURTS_SHOWN), expected));
        };
        check(5, 5, false, None);
        check(5, 5, true, Some("and maybe more"));
        check(6, 6, false, Some("and 1 more; --verbose shows them"));
        check(100, 1124, false, Some("and 1,119 more; --verbose shows 95 of them"));
        check(100, 1124, true, Some("and at least 1,119 more; --verbose shows 95 of them"));
        check(0, 7, false, Some("and 7 more"));
        let id = SnapshotId::from_bytes([7; 32]);
        let hurt = HurtSnapshot { id, time: None, files: 1, directories: 2, is_unreadable: false };
        let line = hurt_snapshot(&hurt);
        assert!(line.ends_with(": 1 file, and part of 2 directories, with what was in there"));
        let line = hurt_snapshot(&HurtSnapshot { is_unreadable: true, ..hurt });
        assert!(line.ends_with(": it cannot be read"), "{line}");
    }

    #[test]
    fn only_what_is_true_is_said_to_be_whole() {
        let report = CheckReport::default();
        let all = |report: &CheckReport, read| whole_beside(report, read, true);
        assert!(all(&report, ReadData::All).contains("snapshots and files"));
        assert!(!whole_beside(&report, ReadData::All, false).contains("files"));
        assert!(all(&report, ReadData::No).contains("as far as can be told"));
        assert!(all(&report, ReadData::Percent(99.0)).contains("as far as can be told"));
        let stopped = CheckReport { is_interrupted: true, ..report };
        assert_eq!(all(&stopped, ReadData::All), "");
    }

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
