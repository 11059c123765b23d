//! A repository on put.io as a whole: how many requests it takes, what it survives.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use putback_format::snapshot::Statistics;
use putback_format::tree::{Entry, EntryKind, Timestamp};
use putback_repo::{InitOptions, KdfCost, Machine, Password, Repository, SlotOwner, SnapshotDraft};
use putback_store::memory::MemoryStore;
use putback_store::{ObjectPath, Store};
use putio_emulator::faults::storm;
use putio_emulator::{Emulator, LogEntry, Options};
use serde_json::Value;

use crate::harness::putio::options;
use crate::harness::{PASSWORD, TestEnvironment, assert_same_tree};

const REPOSITORY: &str = "putio:backups/laptop";
/// The smallest pack there is, so that a test has several.
const PACK_SIZE: &str = "8M";

fn signed_in(options: Options) -> (TestEnvironment, Emulator) {
    let (mut environment, emulator) = TestEnvironment::signed_in(options);
    environment.set("PUTBACK_REPO", REPOSITORY);
    (environment, emulator)
}

fn with_repository(options: Options) -> (TestEnvironment, Emulator) {
    let (environment, emulator) = signed_in(options);
    environment.run(["init", "--kdf-cost", "low", "--pack-size", PACK_SIZE]).success();
    (environment, emulator)
}

/// Bytes that cannot be compressed, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    });
    words.flatten().take(length).collect()
}

fn backup_command(environment: &TestEnvironment) -> Command {
    let source = environment.source();
    environment.command([OsStr::new("backup"), source.as_os_str()])
}

fn back_up(environment: &TestEnvironment) {
    let source = environment.source();
    environment.run([OsStr::new("backup"), source.as_os_str()]).success();
}

/// Restores the latest snapshot and compares.
fn assert_restores(environment: &TestEnvironment, to: &str, expected: &Path) {
    let source = environment.source();
    let selector = format!("latest:{}", source.display());
    environment.run(["restore", &selector, "--target", to]).success();
    assert_same_tree(expected, &environment.path("work").join(to));
}

fn requests(emulator: &Emulator, work: impl FnOnce()) -> Vec<LogEntry> {
    emulator.clear_log();
    work();
    emulator.log()
}

#[track_caller]
fn assert_at_most(limit: usize, log: &[LogEntry]) {
    let lines: Vec<_> = log
        .iter()
        .map(|entry| format!("{} {}?{}", entry.method, entry.path, entry.query))
        .collect();
    assert!(log.len() <= limit, "{} requests, {limit} allowed:\n{}", log.len(), lines.join("\n"));
}

/// How many packs a backup sent: all uploads but the segment and the snapshot.
fn packs_sent(log: &[LogEntry]) -> usize {
    let uploads = log.iter().filter(|entry| entry.method == "PATCH").map(|entry| &entry.path);
    uploads.collect::<std::collections::BTreeSet<_>>().len() - 2
}

#[test]
fn routine_work_keeps_to_its_budget_of_requests() {
    let (environment, emulator) = signed_in(options());
    let log = requests(&emulator, || {
        environment.run(["init", "--kdf-cost", "low", "--pack-size", PACK_SIZE]).success();
    });
    assert_at_most(20, &log);
    for number in 0..30 {
        environment.write(format!("folder/{number}"), noise(number, 1 << 20));
    }
    // What was written a moment ago may have changed unseen, and would be read once more.
    std::thread::sleep(Duration::from_millis(2_100));
    let log = requests(&emulator, || back_up(&environment));
    let packs = packs_sent(&log);
    assert!(packs >= 4, "{packs}");
    assert_at_most(15 + 2 * packs, &log);

    let log = requests(&emulator, || back_up(&environment));
    // Other tests make folders beside this one's: that is a change above the source, a tree and a segment.
    let changed_above = log.iter().filter(|entry| entry.method == "PATCH").count() > 1;
    assert_at_most(if changed_above { 12 + 5 } else { 12 }, &log);
    environment.write("folder/new", noise(77, 5000));
    let log = requests(&emulator, || back_up(&environment));
    assert_at_most(15 + 2 * 2, &log);
    let log = requests(&emulator, || drop(environment.run(["snapshots"]).success()));
    assert_at_most(6, &log);

    let log = requests(&emulator, || {
        assert_restores(&environment, "out", &environment.source());
    });
    assert_at_most(6 + 2 * packs + 4, &log);
    let log = requests(&emulator, || drop(environment.run(["check"]).success()));
    let read = log.iter().filter(|entry| entry.path.starts_with("/download/"));
    let bytes: u64 = read.map(|entry| entry.response_bytes).sum();
    assert!(bytes < 100_000, "packs are judged by their checksums: {bytes} bytes were read");
}

/// Rows of the repository by path: how many, and how many kinds of content.
fn duplicates(emulator: &Emulator) -> BTreeMap<String, usize> {
    let mut rows: BTreeMap<String, usize> = BTreeMap::new();
    for file in emulator.files("ada").unwrap() {
        *rows.entry(file.path.clone()).or_default() += 1;
    }
    rows.retain(|_, count| *count > 1);
    rows
}

#[test]
fn a_storm_of_failures_costs_requests_and_nothing_else() {
    let run = |probability: f64, seed: u64| {
        let (environment, emulator) = with_repository(options());
        for number in 0..40 {
            environment.write(format!("folder/{number}"), noise(number, 1 << 20));
        }
        emulator.clear_log();
        if probability > 0.0 {
            emulator.set_faults(storm(probability, seed));
        }
        back_up(&environment);
        assert_restores(&environment, "out", &environment.source());
        let log = emulator.log();
        assert_eq!(emulator.violations(), [], "requests came before an advertised reset");
        emulator.clear_faults();
        environment.run(["check", "--read-data"]).success().shows("no damage found");
        // What a lost answer left twice is equal, and every row is one of the repository.
        let twice = duplicates(&emulator);
        (log.len(), twice)
    };
    let (calm, twice) = run(0.0, 0);
    assert!(twice.is_empty(), "{twice:?}");
    let (stormy, twice) = run(0.3, 4711);
    eprintln!("{calm} requests without failures, {stormy} with; {} rows twice", twice.len());
    assert!(stormy <= 2 * calm + 10, "{stormy} requests instead of {calm}");
}

/// Where the program keeps what it is sending.
fn spooled(environment: &TestEnvironment) -> usize {
    let mut folders: Vec<PathBuf> = vec![environment.path("")];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                count +=
                    usize::from(entry.path().components().any(|part| part.as_os_str() == "spool"));
            }
        }
    }
    count
}

#[test]
fn a_program_killed_while_it_sends_goes_on_at_the_byte_where_it_stopped() {
    const KILLS: u64 = 50;
    let slow = Options { upload_bytes_per_second: Some(30_000_000), ..options() };
    let (environment, emulator) = with_repository(slow);
    emulator.clear_log();
    let mut killed = 0;
    let mut round = 0;
    let started = Instant::now();
    while killed < KILLS {
        round += 1;
        assert!(started.elapsed() < Duration::from_secs(400), "{killed} kills in {round} rounds");
        environment.write(format!("folder/{}", round % 20), noise(1000 + round, 3 << 20));
        let before = emulator.log().len();
        let mut run = backup_command(&environment);
        let mut child = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // In the middle of a pack: some time after a PATCH has begun.
        let deadline = Instant::now() + Duration::from_secs(20);
        let is_sending = loop {
            let log = emulator.log();
            if log[before..].iter().any(|entry| entry.method == "PATCH" && entry.status.is_none()) {
                break true;
            }
            if child.try_wait().unwrap().is_some() || Instant::now() > deadline {
                break false;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        if is_sending {
            std::thread::sleep(Duration::from_millis(round * 7 % 60));
            child.kill().unwrap();
            killed += 1;
        }
        child.wait().unwrap();
    }
    // Let what was in flight at the last kill arrive.
    std::thread::sleep(Duration::from_millis(300));
    back_up(&environment);
    let log = emulator.log();
    let resumed: Vec<_> = log
        .iter()
        .filter(|entry| entry.method == "PATCH" && entry.offset.is_some_and(|offset| offset > 0))
        .collect();
    assert!(!resumed.is_empty(), "no upload went on where it had stopped");
    // Each went on at the very byte that the service had, or it would have been refused.
    let refused = log.iter().filter(|entry| entry.status == Some(409)).count();
    assert!(refused <= resumed.len(), "{refused} of {}", resumed.len());
    eprintln!("{killed} kills, {} uploads went on, {refused} offsets asked again", resumed.len());

    assert_eq!(spooled(&environment), 0, "what was sent is not kept");
    environment.run(["check", "--read-data"]).success().shows("no damage found");
    assert_restores(&environment, "out", &environment.source());
    let snapshots = environment.run(["snapshots", "--json"]).success().document();
    for snapshot in snapshots.as_array().unwrap() {
        let id = snapshot["id"].as_str().unwrap();
        let target = environment.path("work").join(format!("of-{}", &id[..8]));
        let target = target.to_str().unwrap();
        environment.run(["restore", id, "--target", target, "--verify"]).success();
        std::fs::remove_dir_all(target).unwrap();
    }
}

#[test]
fn a_backup_stops_with_a_checkpoint_before_the_account_is_full() {
    let mut options = options();
    options.accounts[0].quota_bytes = 70 << 20;
    let (environment, emulator) = with_repository(options);
    for number in 0..120 {
        environment.write(format!("folder/{number:03}"), noise(number, 1 << 20));
    }
    let source = environment.source();
    let arguments = [OsStr::new("backup"), source.as_os_str()];
    environment.run(arguments).code(14).complains("is safe as checkpoint");
    environment.run(["snapshots"]).success().shows("0 snapshots");
    environment.run(["snapshots", "--checkpoints"]).success().shows("1 snapshot");
    environment.run(["check"]).success().shows("no damage found");

    emulator.set_quota("ada", 1 << 40).unwrap();
    emulator.clear_log();
    environment.run(arguments).success();
    let sent: u64 = emulator.log().iter().map(|entry| entry.request_bytes).sum();
    assert!(sent < 110 << 20, "what the checkpoint holds is not sent again: {sent} bytes");
    assert_restores(&environment, "out", &source);
}

#[test]
fn a_pack_that_the_service_has_lost_is_named_and_takes_nothing_else_with_it() {
    let (environment, emulator) = with_repository(options());
    for number in 0..24 {
        environment.write(format!("folder/{number:02}"), noise(number, 1 << 20));
    }
    back_up(&environment);
    let packs = emulator
        .files("ada")
        .unwrap()
        .into_iter()
        .filter(|file| file.path.starts_with("backups/laptop/packs/") && file.size > 7 << 20);
    let lost = packs.min_by_key(|file| file.id).unwrap();
    emulator.lose_file(lost.id).unwrap();
    let name = lost.path.rsplit('/').next().unwrap().to_owned();
    environment.run(["check", "--read-data"]).code(1).complains(&name);
    let source = environment.source();
    let selector = format!("latest:{}", source.display());
    environment.run(["restore", &selector, "--target", "out"]).code(3);
    let restored = std::fs::read_dir(environment.path("work/out/folder")).unwrap().count();
    assert!((12..24).contains(&restored), "{restored} of 24 files came back");
}

/// A repository with so many snapshots of nothing, made without a request, and known to this machine.
fn seed_snapshots(environment: &TestEnvironment, emulator: &Emulator, count: i64) {
    let store = MemoryStore::new();
    let options = InitOptions {
        kdf_cost: KdfCost::LOW,
        pack_bytes: None,
        compression_level: None,
        chunk_bytes_average: None,
        owner: SlotOwner::default(),
    };
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    let password = Password::new(PASSWORD.as_bytes().to_vec());
    let made = Repository::init(shared, &password, &options, &Machine::default()).unwrap();
    let backup = made.begin_backup(None, 0).unwrap();
    let empty = Entry::new("", EntryKind::Directory { pages: Vec::new() });
    for number in 0..count {
        let draft = SnapshotDraft {
            root: empty.clone(),
            time: Timestamp { seconds: 1_700_000_000 + number * 3600, nanoseconds: 0 },
            utc_offset: 0,
            host: "host".to_owned(),
            user: "user".to_owned(),
            paths: vec![b"/source".to_vec()],
            tags: Vec::new(),
            description: String::new(),
            program: "test".to_owned(),
            parent: None,
            complete: true,
            statistics: Statistics::default(),
            incidents: Vec::new(),
            unknown: Vec::new(),
        };
        backup.commit(draft).unwrap();
    }
    backup.finish().unwrap();
    let (snapshots, others): (Vec<_>, Vec<_>) =
        store.paths().into_iter().partition(|path| path.folder() == "snapshots");
    let read = |path: &ObjectPath| store.read_all(path, 1 << 20).unwrap();
    let seed = |path: &ObjectPath| {
        emulator.seed_file("ada", &format!("backups/laptop/{path}"), &read(path)).unwrap();
    };
    others.iter().for_each(seed);
    environment.run(["snapshots"]).success().shows("0 snapshots");
    // As if it had read them before: a thousand downloads would take half a minute.
    let kept = cached_objects(environment).join("snapshots");
    std::fs::create_dir_all(&kept).unwrap();
    for path in &snapshots {
        std::fs::write(kept.join(path.name()), read(path)).unwrap();
        seed(path);
    }
}

/// Where the program keeps small objects of its one repository over a network.
fn cached_objects(environment: &TestEnvironment) -> PathBuf {
    let mut folders = vec![environment.path("")];
    while let Some(folder) = folders.pop() {
        let inside = std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path());
        let inside: Vec<PathBuf> = inside.filter(|path| path.is_dir()).collect();
        if folder.file_name().is_some_and(|name| name == "objects") {
            return inside[0].clone();
        }
        folders.extend(inside);
    }
    panic!("nothing is kept");
}

fn deletions(log: &[LogEntry]) -> usize {
    log.iter().filter(|entry| entry.path == "/v2/files/delete").count()
}

#[test]
fn one_of_a_thousand_snapshots_is_forgotten_with_few_requests_and_many_are_deleted_by_the_hundred()
{
    let (mut environment, emulator) = signed_in(options());
    seed_snapshots(&environment, &emulator, 1000);
    environment.set("PUTBACK_TEST_TIMES", "0.1,0,0.05");
    let log = requests(&emulator, || {
        drop(environment.run(["snapshots"]).success().shows("1,000 snapshots"));
    });
    assert_at_most(8, &log);
    let ids = environment.run(["snapshots", "--json"]).success().document();
    let id = ids[500]["id"].as_str().unwrap();
    let log = requests(&emulator, || drop(environment.run(["forget", id]).success()));
    assert_at_most(19, &log);

    environment.run(["forget", "--keep-last", "850"]).success();
    // The service tells whole seconds.
    std::thread::sleep(Duration::from_millis(1_200));
    let log = requests(&emulator, || {
        environment.run(["prune", "--grace", "0s"]).success().shows("removed:  150 forgotten");
    });
    assert_eq!(deletions(&log), 3, "150 in batches of 100, and the mark that told the time");
    assert_at_most(40, &log);
    let trashed = || emulator.trash("ada").unwrap().len();
    assert_eq!(trashed(), 151, "the trash is respected");

    let file = environment.config_file();
    let configuration = environment.configuration();
    let with_option =
        configuration.replace("type = \"putio\"", "type = \"putio\"\nskip-trash = true");
    assert_ne!(configuration, with_option);
    std::fs::write(&file, with_option).unwrap();
    environment.run(["storage", "show", "putio"]).success().shows("skip-trash");
    environment.run(["forget", "latest"]).success();
    std::thread::sleep(Duration::from_millis(1_200));
    environment.run(["prune", "--grace", "0s"]).success().shows("removed:  1 forgotten");
    assert_eq!(trashed(), 151, "and skipped if that is asked for");
}

#[test]
fn instant_prune_waits_for_the_window_and_the_lag_and_is_refused_beside_another_machine() {
    let (mut environment, emulator) = with_repository(options());
    environment.set("PUTBACK_TEST_TIMES", "2,1,0.1");
    let gone = environment.write("gone", noise(1, 3 << 20));
    environment.write("kept", noise(2, 1 << 20));
    back_up(&environment);
    std::fs::remove_file(gone).unwrap();
    back_up(&environment);
    environment.run(["forget", "latest~1"]).success();
    environment.run(["prune", "--instant"]).code(2).complains("give --yes");
    let dry = environment.run(["prune", "--instant", "--dry-run", "--json"]).success();
    let planned = dry.message("summary")["requests"].clone();
    let started = Instant::now();
    let run = environment.run(["prune", "--instant", "--yes", "--json"]).success();
    let summary = run.message("summary");
    assert!(started.elapsed() >= Duration::from_secs(4), "{summary}");
    assert!(summary["bytes_deleted"].as_u64().unwrap() > 3 << 20, "{summary}");
    let total = |requests: &Value| -> u64 {
        ["lists", "reads", "writes", "deletes"]
            .iter()
            .map(|key| requests[key].as_u64().unwrap())
            .sum()
    };
    let (planned, taken) = (total(&planned), total(&summary["requests"]));
    assert!(planned.abs_diff(taken) <= 4, "{planned} planned, {taken} taken: {summary}");
    assert_restores(&environment, "out", &environment.source());

    // Another machine.
    let source = environment.source();
    environment.write("more", noise(3, 1000));
    let other = [OsStr::new("backup"), source.as_os_str()];
    let mut command = environment.command(other);
    command.args(["--state-dir", "other/state", "--cache-dir", "other/cache"]);
    assert!(command.output().unwrap().status.success());
    let before = emulator.files("ada").unwrap().len();
    environment
        .run(["prune", "--instant", "--yes"])
        .code(11)
        .complains("another machine is writing")
        .complains("leave --instant out");
    assert_eq!(emulator.files("ada").unwrap().len(), before);
}
