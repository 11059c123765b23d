//! The program killed at any moment: nothing that was safe is lost, and the next run goes on.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::harness::{TestEnvironment, assert_same_tree};

/// Numbers that look random, the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    #[expect(clippy::print_stdout, reason = "who wants to see a failure again needs it")]
    pub(crate) fn new() -> Self {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let drawn = u64::from(now.subsec_nanos()) << 8 | u64::from(std::process::id() & 0xff);
        let seed = std::env::var("PUTBACK_SEED").map_or(drawn, |seed| seed.parse().unwrap());
        println!("seed {seed}");
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        let words = (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        words.take(usize::try_from(length).unwrap()).collect()
    }
}

/// Changes, adds and removes some files of the source.
pub(crate) fn change(environment: &TestEnvironment, random: &mut Random) {
    for _ in 0..=random.below(8) {
        let name = format!("folder-{}/file-{}", random.below(6), random.below(40));
        if random.below(5) == 0 {
            drop(std::fs::remove_file(environment.source().join(&name)));
        } else {
            let length = [0, 100, 5_000, 200_000, 1_000_000][random.below(5) as usize];
            let bytes = random.bytes(length);
            environment.write(&name, bytes);
        }
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").args([from, to]).status();
    assert!(status.unwrap().success());
}

fn backup(environment: &TestEnvironment, more: &[&str]) -> std::process::Command {
    let source = environment.source();
    let mut command =
        environment.command([OsStr::new("backup"), source.as_os_str(), "--json".as_ref()]);
    command.args(more);
    command
}

/// A checkpoint after every step.
const CHECKPOINTS: &[&str] = &["--checkpoint-interval", "0s"];

fn start(environment: &TestEnvironment, more: &[&str]) -> Child {
    let mut command = backup(environment, more);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Ids of all complete snapshots, oldest first.
fn snapshots(environment: &TestEnvironment) -> Vec<String> {
    let document = environment.run(["snapshots", "--json"]).success().document();
    let complete = document.as_array().unwrap().iter().filter(|row| row["is_checkpoint"] == false);
    complete.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

/// Restores a snapshot of the source and compares it.
#[track_caller]
fn assert_restores(environment: &TestEnvironment, id: &str, expected: &Path) {
    let target = environment.path(format!("work/{id}"));
    let selector = format!("{id}:{}", environment.source().display());
    let arguments = ["restore", &selector, "--target", target.to_str().unwrap(), "--quiet"];
    environment.run(arguments).success();
    assert_same_tree(expected, &target);
    std::fs::remove_dir_all(target).unwrap();
}

#[test]
fn fifty_backups_killed_at_random_moments_lose_no_snapshot_and_need_no_repair() {
    let environment = TestEnvironment::with_repository();
    let mut random = Random::new();
    for _ in 0..30 {
        change(&environment, &mut random);
    }
    // Kills come anywhere between the start and somewhat after the end of such runs.
    let [with_checkpoints, plain] = [CHECKPOINTS, &[]].map(|options| {
        let started = Instant::now();
        assert!(backup(&environment, options).output().unwrap().status.success());
        started.elapsed() * 5 / 4
    });
    let mut saved: BTreeMap<String, std::path::PathBuf> = BTreeMap::new();
    let mut keep = |environment: &TestEnvironment, name: String| {
        let folder = environment.path(&name);
        copy(&environment.source(), &folder);
        for id in snapshots(environment) {
            saved.entry(id).or_insert_with(|| folder.clone());
        }
        saved.clone()
    };
    keep(&environment, "saved-first".to_owned());
    let mut killed = 0;
    for round in 0..50 {
        change(&environment, &mut random);
        // With many checkpoints or none.
        let (options, longest) =
            if round % 2 == 0 { (CHECKPOINTS, with_checkpoints) } else { (&[][..], plain) };
        let mut child = start(&environment, options);
        // The moment is what is random here; nothing is waited for.
        std::thread::sleep(longest.mul_f64(random.below(1000) as f64 / 1000.0));
        child.kill().unwrap();
        killed += usize::from(!child.wait().unwrap().success());
        let known = keep(&environment, format!("saved-{round}"));
        if round % 10 == 9 {
            let output = backup(&environment, &[]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let all = keep(&environment, format!("healed-{round}"));
            assert_eq!(all.len(), known.len() + 1);
            environment.run(["check", "--read-data"]).success().hides("damaged");
        }
    }
    assert!(killed > 15, "only {killed} runs were killed before their end");
    for (id, folder) in keep(&environment, "saved-last".to_owned()) {
        assert_restores(&environment, &id, &folder);
    }
}

fn lines(child: &mut Child) -> impl Iterator<Item = Value> + use<> {
    let output = BufReader::new(child.stdout.take().unwrap());
    output.lines().map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok())
}

fn message(output: &[u8], kind: &str) -> Option<Value> {
    let lines = output.split(|byte| *byte == b'\n');
    let mut values = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    values.find(|value| value["message_type"] == kind)
}

#[test]
fn a_killed_backup_goes_on_from_its_checkpoint_without_reading_again() {
    let environment = TestEnvironment::with_repository();
    let mut random = Random::new();
    let total = 200 * 100_000;
    for number in 0..200 {
        environment.write(format!("file-{number:03}"), random.bytes(100_000));
    }
    // Until their time stamps tell changes: what was just written is always read again.
    std::thread::sleep(Duration::from_millis(2100));
    let mut child = start(&environment, &["--threads", "1", "--checkpoint-interval", "0s"]);
    let checkpoint = lines(&mut child)
        .filter(|line| line["message_type"] == "checkpoint")
        .nth(1)
        .expect("a checkpoint in every run of this length");
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    environment
        .run(["restore", "latest", "--checkpoints", "--target", "out", "--delete"])
        .code(2)
        .complains("checkpoint of an unfinished backup");

    let output = backup(&environment, &[]).output().unwrap();
    assert!(output.status.success());
    let resumed = message(&output.stdout, "resumed").expect("it says that it goes on");
    assert!(resumed["checkpoint"].is_string(), "{resumed}");
    let summary = message(&output.stdout, "summary").unwrap();
    let read = summary["bytes_read"].as_u64().unwrap();
    assert!(read < total, "{read} bytes were read after checkpoint {checkpoint}");
    assert!(summary["files_unmodified"].as_u64().unwrap() > 0);
    assert_restores(&environment, summary["snapshot_id"].as_str().unwrap(), &environment.source());
    environment.run(["check", "--read-data"]).success();
}

#[test]
fn packs_that_a_killed_backup_had_stored_are_not_stored_again() {
    let environment = TestEnvironment::new();
    environment.run(["init", "--kdf-cost", "low", "--pack-size", "8M"]).success();
    let mut random = Random::new();
    for number in 0..12 {
        environment.write(format!("file-{number}"), random.bytes(4 << 20));
    }
    let mut child = start(&environment, &["--threads", "1"]);
    // A pack is noted a moment after it is visible: only what the journal has is certain to be taken over.
    let state = environment.path("home/.local/state/putback");
    let count = || {
        let folders = std::fs::read_dir(&state).into_iter().flatten();
        let journals = folders.map(|folder| folder.unwrap().path().join("journal"));
        journals
            .filter_map(|path| std::fs::read_to_string(path).ok())
            .map(|text| text.lines().count())
            .sum::<usize>()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while count() < 1 {
        assert!(
            Instant::now() < deadline && child.try_wait().unwrap().is_none(),
            "no pack was seen"
        );
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(std::fs::read_dir(environment.path("repository/index")).unwrap().count(), 0);

    let output = backup(&environment, &[]).output().unwrap();
    assert!(output.status.success());
    let resumed = message(&output.stdout, "resumed").expect("it says that it goes on");
    let adopted = resumed["packs"].as_u64().unwrap();
    assert!(adopted >= 1);
    let summary = message(&output.stdout, "summary").unwrap();
    let added = summary["data_added"].as_u64().unwrap();
    // Each full pack holds nearly 8 MiB of this data.
    assert!(added <= (48 << 20) - adopted * (7 << 20), "{added} bytes beside {adopted} packs");
    assert_restores(&environment, summary["snapshot_id"].as_str().unwrap(), &environment.source());
    environment.run(["check", "--read-data"]).success();
}
