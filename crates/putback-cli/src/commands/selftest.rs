//! `putback selftest`.

mod memory;
mod speed;

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use putback_format::vectors::KNOWN_ANSWERS;

use crate::context::Context;
use crate::report::{Failure, Outcome};
use crate::ui::table::Lines;
use crate::ui::{json, text};

/// Find out whether this machine can be relied on, and how fast it is
///
/// Computes what is known: hashes, ciphers, key derivation, compression, encodings. Makes a repository
/// in memory, backs up into it while every single request fails in turn, damages it, restores, and
/// compares. Measures each stage of a backup on one core. Needs no repository and takes about ten
/// seconds.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback selftest\n  \
        putback selftest --dir /mnt/backup\n  \
        putback selftest --json")]
pub(crate) struct SelftestArgs {
    /// Folder whose disk is to be measured, instead of the one for temporary files; what is written
    /// there is removed again
    #[arg(long, env = "PUTBACK_DIR", value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// What one test found.
struct Finding {
    name: &'static str,
    /// What was done, or what is wrong.
    outcome: Result<String, String>,
    milliseconds: u64,
}

/// Runs a test.
fn find(name: &'static str, test: impl FnOnce() -> Result<String, String>) -> Finding {
    let started = Instant::now();
    let outcome = test();
    let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Finding { name, outcome, milliseconds }
}

/// Tests this machine.
pub(crate) fn run(context: &Context, args: &SelftestArgs) -> anyhow::Result<Outcome> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("putback-selftest-");
    let folder = match &args.dir {
        Some(dir) => {
            builder.tempdir_in(dir).map_err(|error| Failure::file_of("--dir", dir, &error))?
        }
        None => builder.tempdir()?,
    };
    let mut findings = Vec::new();
    let mut note = |finding: Finding| {
        show(context, &finding);
        findings.push(finding);
    };
    for known in &KNOWN_ANSWERS {
        note(find(known.name, || known.check().map(|()| String::new())));
    }
    for finding in memory::rehearse(folder.path(), context.workers()) {
        note(finding);
    }
    let mut speeds = Vec::new();
    let measured = find("speed of each stage", || {
        speeds = speed::measure(folder.path())?;
        Ok(String::new())
    });
    note(measured);
    folder.close()?;

    if context.ui.is_json() {
        context.ui.json(&summary(&findings, &speeds));
    } else {
        let mut table = Lines::new(&["Stage, on one core", ">Speed"]);
        for stage in &speeds {
            table.row(vec![stage.name.to_owned(), stage.shown()]);
        }
        let mut out = context.ui.out();
        out.write_all(table.render().as_bytes())?;
        out.finish()?;
    }
    verdict(&findings)?;
    context.ui.say(format_args!("all {} tests passed", findings.len()));
    Ok(Outcome::Done)
}

/// A failure that names what failed, if anything did.
fn verdict(findings: &[Finding]) -> Result<(), Failure> {
    let failed: Vec<&str> =
        findings.iter().filter(|f| f.outcome.is_err()).map(|finding| finding.name).collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::other(
        format!("{} of {} tests failed: {}", failed.len(), findings.len(), failed.join(", ")),
        "do not rely on backups of this machine until this is cleared up: memory, processor and \
         disk can be the cause, or a program that was built wrongly",
    ))
}

fn show(context: &Context, finding: &Finding) {
    if context.ui.is_json() {
        return;
    }
    let (verdict, detail) = match &finding.outcome {
        Ok(detail) => ("ok    ", detail),
        Err(message) => ("FAILED", message),
    };
    let detail = match detail.is_empty() {
        true => String::new(),
        false => format!(": {}", text::printable(detail)),
    };
    context.ui.say(format_args!("{verdict}  {}{detail}", finding.name));
}

fn summary(findings: &[Finding], speeds: &[speed::Stage]) -> json::SelftestSummary {
    let tests = findings
        .iter()
        .map(|finding| json::SelftestTest {
            name: finding.name,
            passed: finding.outcome.is_ok(),
            detail: finding.outcome.clone().unwrap_or_else(|message| message),
            milliseconds: finding.milliseconds,
        })
        .collect();
    let stages = speeds
        .iter()
        .map(|stage| json::SelftestStage {
            name: stage.name,
            bytes_per_second: stage.bytes_per_second(),
            milliseconds: stage.milliseconds(),
        })
        .collect();
    json::SelftestSummary { message_type: "summary", tests, stages }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_in_the_summary_with_its_reason() {
        let findings =
            [find("good", || Ok("5 of 5".to_owned())), find("bad", || Err("why".to_owned()))];
        let summary = summary(&findings, &[]);
        let tests: Vec<_> = summary.tests.iter().map(|t| (t.name, t.passed, &*t.detail)).collect();
        assert_eq!(tests, [("good", true, "5 of 5"), ("bad", false, "why")]);
        let failure = verdict(&findings).unwrap_err();
        assert_eq!(failure.to_string(), "1 of 2 tests failed: bad");
        assert!(verdict(&findings[..1]).is_ok());
    }
}
