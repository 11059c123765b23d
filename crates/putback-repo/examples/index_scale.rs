//! Measures the index with made-up entries: time to build, to open, to look up, memory and file size; and what the
//! planning of a prune needs where snapshots need every second blob of the first half, in no order.
//!
//! ```text
//! cargo run --release -p putback-repo --features testing --example index_scale -- FOLDER [MILLIONS...]
//! ```
//!
//! Each size runs in a process of its own, so that its peak memory is its own: once to build the tables, once
//! to open and use them, once to plan.

#![expect(clippy::print_stdout, reason = "a table is what it is for")]

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use putback_repo::testing::{BLOBS_PER_SEGMENT, blob_id, made_up_index, plan_prune};

const LOOK_UPS: u64 = 200_000;

/// Peak resident memory of this process in MiB.
fn peak_mib() -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no VmHWM")?;
    let kib: f64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
    Ok(kib / 1024.0)
}

fn folder_bytes(folder: &Path) -> Result<u64, Box<dyn Error>> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

/// One process: builds or opens, and looks up.
fn measure(folder: &Path, millions: u64) -> Result<(), Box<dyn Error>> {
    let segments = (millions * 1_000_000).div_ceil(BLOBS_PER_SEGMENT);
    let blobs = segments * BLOBS_PER_SEGMENT;
    let started = Instant::now();
    let index = made_up_index(folder, segments)?;
    let opened = started.elapsed();
    let time = |first: u64, step: u64| -> Result<(f64, u64), Box<dyn Error>> {
        let ids: Vec<_> = (0..LOOK_UPS).map(|n| blob_id(first + n * step)).collect();
        let started = Instant::now();
        let mut found = 0;
        for id in &ids {
            found += u64::from(index.find(id)?.is_some());
        }
        Ok((started.elapsed().as_secs_f64() * 1e6 / LOOK_UPS as f64, found))
    };
    let (present, found) = time(0, blobs / LOOK_UPS)?;
    let (absent, none) = time(blobs, 1)?;
    assert_eq!((found, none), (LOOK_UPS, 0), "the index answered wrongly");
    let mib = folder_bytes(folder)? as f64 / f64::from(1 << 20);
    println!(
        "| {blobs} | {:.2} | {present:.2} | {absent:.2} | {:.0} | {mib:.0} |",
        opened.as_secs_f64(),
        peak_mib()?,
    );
    Ok(())
}

/// Another process: plans a prune. Half of the packs are needed by half, the others not at all.
fn plan(folder: &Path, millions: u64) -> Result<(), Box<dyn Error>> {
    let segments = (millions * 1_000_000).div_ceil(BLOBS_PER_SEGMENT);
    let blobs = segments * BLOBS_PER_SEGMENT;
    let index = made_up_index(folder, segments)?;
    let before = peak_mib()?;
    let started = Instant::now();
    let (noted, unneeded) = plan_prune(&index, (0..blobs / 2).step_by(2).map(blob_id))?;
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!(noted, blobs / 4, "a needed blob was not found");
    println!(
        "planning a prune: {noted} of {blobs} blobs needed, {unneeded} packs unneeded; {seconds:.2} s, \
         peak {:.0} MiB, of which opening the index {before:.0}",
        peak_mib()?,
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let folder = arguments.next().ok_or("usage: index_scale FOLDER [MILLIONS...]")?;
    let rest: Vec<String> = arguments.map(|argument| argument.to_string_lossy().into()).collect();
    if let [flag, millions] = rest.as_slice()
        && flag == "--one"
    {
        return measure(Path::new(&folder), millions.parse()?);
    }
    if let [flag, millions] = rest.as_slice()
        && flag == "--plan"
    {
        return plan(Path::new(&folder), millions.parse()?);
    }
    println!(
        "| blobs | seconds to build, then to open | us a look-up, there | us, not there | peak MiB | files MiB |"
    );
    println!("|---|---|---|---|---|---|");
    let sizes = if rest.is_empty() { vec!["1".into(), "10".into(), "100".into()] } else { rest };
    for millions in sizes {
        let folder = Path::new(&folder).join(&millions);
        // To build, to open, to plan.
        for flag in ["--one", "--one", "--plan"] {
            let mut command = Command::new(std::env::current_exe()?);
            if !command.arg(&folder).args([flag, &millions]).status()?.success() {
                return Err("a measurement failed".into());
            }
        }
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(())
}
