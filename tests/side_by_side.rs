//! Many machines and a pruner at the same time, with the times of the protocol scaled down: a grace period of 6 s
//! and a commit window of 2 s. Every snapshot is restored and compared by the machine that took it, and those that
//! are left at the end once more.
//!
//! `concurrency.rs` has processes side by side in a repository that nobody prunes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::crash::copy;
use crate::harness::putio::options;
use crate::harness::{TestEnvironment, assert_same_tree, parse_lines};

/// Commit window, listing lag and second look in seconds; the grace period is [`GRACE`].
const TIMES: &str = "2,1.5,0.2";
const GRACE: &str = "6s";

/// A machine with a home, and with it a cache and a state directory, of its own.
struct Machine<'a> {
    environment: &'a TestEnvironment,
    name: String,
}

impl Machine<'_> {
    fn home(&self) -> PathBuf {
        self.environment.path(format!("homes/{}", self.name))
    }

    fn source(&self) -> PathBuf {
        self.environment.source().join(&self.name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.environment.command(arguments);
        command.env("HOME", self.home()).args(["--host", &self.name]);
        command
    }

    /// Changes the source: half of it is the same for all machines, and what they have today some of them had
    /// before.
    fn change(&self, round: usize) {
        for number in 0..6 {
            let owner = if number % 2 == 0 { "all" } else { &self.name };
            let line = format!("{owner} {number} in round {}\n", round / (number + 1) % 5);
            let name = format!("{}/folder-{}/file-{number}", self.name, number % 3);
            self.environment.write(name, line.repeat(3000 + number));
        }
    }

    /// Backs up; yields the snapshot.
    fn back_up(&self, round: usize) -> String {
        let source = self.source();
        let interval = if round % 4 == 3 { "0s" } else { "5m" };
        let mut command = self.command(&["backup", source.to_str().unwrap(), "--json"]);
        let output = command.args(["--checkpoint-interval", interval]).output().unwrap();
        assert!(output.status.success(), "{} in round {round}: {output:?}", self.name);
        let summary = parse_lines(&output.stdout)
            .into_iter()
            .find(|message| message["message_type"] == "summary")
            .unwrap();
        summary["snapshot_id"].as_str().unwrap().to_owned()
    }

    /// Restores a snapshot and compares it with what the source held.
    fn restore(&self, id: &str, expected: &std::path::Path) {
        let target = self.environment.path(format!("work/{}-{id}", self.name));
        let selector = format!("{id}:{}", self.source().display());
        let arguments = ["restore", &selector, "--quiet", "--target", target.to_str().unwrap()];
        let output = self.command(&arguments).output().unwrap();
        assert!(output.status.success(), "{} restores {id}: {output:?}", self.name);
        assert_same_tree(expected, &target);
        std::fs::remove_dir_all(target).unwrap();
    }
}

/// A round takes so long at least: in 20 of them marks come of age.
const ROUND_LEAST: Duration = Duration::from_millis(600);

/// So many times the rounds at most, if no prune has come to delete something beside them.
const ROUNDS_MORE: usize = 3;

/// When the machines of a round begin it.
#[derive(Clone, Copy, PartialEq)]
enum Turn {
    /// Whenever they have done with the one before.
    Free,
    /// Every second round one after the other, the rounds between at the same moment.
    InTurnAndAtOnce,
}

/// Runs it; `environment` has no repository yet.
#[expect(clippy::print_stderr, reason = "the figures are what a longer run is for")]
fn side_by_side(mut environment: TestEnvironment, machines: usize, rounds: usize, turn: Turn) {
    environment.set("PUTBACK_TEST_TIMES", TIMES);
    environment.run(["init", "--kdf-cost", "low", "--pack-size", "8M"]).success();
    let environment = environment;
    std::fs::create_dir(environment.path("homes")).unwrap();
    let machine = |number: usize| {
        let machine = Machine { environment: &environment, name: format!("machine-{number}") };
        // Who is signed in to a storage is so on every machine.
        copy(&environment.path("home"), &machine.home());
        machine
    };
    let machines: Vec<Machine<'_>> = (0..machines).map(machine).collect();
    let pruner = machine(usize::MAX);

    // What the sources held, by snapshot, with the number of the machine.
    let saved: Mutex<BTreeMap<String, (usize, PathBuf)>> = Mutex::default();
    let in_turn: Mutex<()> = Mutex::default();
    let barrier = std::sync::Barrier::new(machines.len());
    let working = AtomicUsize::new(machines.len());
    let (backups, deleted) = (AtomicUsize::new(0), AtomicU64::new(0));
    let mut prunes = 0;
    let mut prune = || {
        let forget = ["forget", "--keep-last", "3", "--quiet"];
        let output = environment.command(forget).env("HOME", pruner.home()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let prune = ["prune", "--grace", GRACE, "--max-unused", "0", "--json"];
        let output = environment.command(prune).env("HOME", pruner.home()).output().unwrap();
        // Among so many writers no two looks may show the same: it gives up, and the next one goes on.
        assert!(matches!(output.status.code(), Some(0 | 11)), "{output:?}");
        for message in parse_lines(&output.stdout) {
            let packs = message["packs_deleted"].as_u64().unwrap_or(0);
            deleted.fetch_add(packs, Ordering::SeqCst);
        }
        prunes += 1;
        std::thread::sleep(Duration::from_millis(300));
    };
    std::thread::scope(|scope| {
        for (number, machine) in machines.iter().enumerate() {
            let (saved, in_turn, barrier, working) = (&saved, &in_turn, &barrier, &working);
            let (backups, deleted) = (&backups, &deleted);
            scope.spawn(move || {
                let _ends = Ends(working);
                for round in 0.. {
                    // On a busy machine it takes more rounds until something goes beside them.
                    let goes_on = turn == Turn::Free
                        && deleted.load(Ordering::SeqCst) == 0
                        && round < ROUNDS_MORE * rounds;
                    if round >= rounds && !goes_on {
                        break;
                    }
                    let begun = Instant::now();
                    machine.change(round);
                    let folder = machine.environment.path(format!("saved/{number}-{round}"));
                    std::fs::create_dir_all(folder.parent().unwrap()).unwrap();
                    copy(&machine.source(), &folder);
                    let mut waits = None;
                    if turn == Turn::InTurnAndAtOnce {
                        barrier.wait();
                        waits = (round % 2 == 0).then(|| in_turn.lock().unwrap());
                    }
                    let id = machine.back_up(round);
                    backups.fetch_add(1, Ordering::SeqCst);
                    drop(waits);
                    machine.restore(&id, &folder);
                    saved.lock().unwrap().insert(id, (number, folder));
                    std::thread::sleep(ROUND_LEAST.saturating_sub(begun.elapsed()));
                }
            });
        }
        while working.load(Ordering::SeqCst) > 0 {
            prune();
        }
    });
    let beside = deleted.load(Ordering::SeqCst);
    for _ in 0..100 {
        if deleted.load(Ordering::SeqCst) == 0 {
            prune();
        }
    }
    let saved = saved.into_inner().unwrap();
    let backups = backups.into_inner();
    assert!(backups >= machines.len() * rounds);
    assert_eq!(saved.len(), backups, "every backup is a snapshot of its own");
    eprintln!(
        "{backups} snapshots, {prunes} prunes, which deleted {beside} packs beside the machines"
    );
    assert!(deleted.into_inner() > 0, "what was forgotten stays for ever");

    let run = environment.run(["check", "--read-data"]).success();
    assert_eq!(run.stderr(), "");
    let document = environment.run(["snapshots", "--json"]).success().document();
    let left: Vec<&str> =
        document.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert!(left.len() >= 3 * machines.len(), "{left:?}");
    for id in left {
        let (number, folder) = &saved[id];
        machines[*number].restore(id, folder);
    }
}

/// Counts a machine as done also when its test fails, or the pruner would wait for it for ever.
struct Ends<'a>(&'a AtomicUsize);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How many rounds there are, unless PUTBACK_TEST_ROUNDS says so.
fn rounds(usual: usize) -> usize {
    std::env::var("PUTBACK_TEST_ROUNDS").map_or(usual, |rounds| rounds.parse().unwrap())
}

fn on_putio() -> (TestEnvironment, putio_emulator::Emulator) {
    let (mut environment, emulator) = TestEnvironment::signed_in(options());
    environment.set("PUTBACK_REPO", "putio:backups/all");
    // The emulator needs no patience.
    environment.set("PUTBACK_TPSLIMIT", "1000");
    (environment, emulator)
}

#[test]
fn eight_writers_and_a_pruner_on_a_disk_lose_nothing_in_20_rounds() {
    side_by_side(TestEnvironment::new(), 8, rounds(20), Turn::Free);
}

#[test]
fn four_writers_and_a_pruner_on_putio_lose_nothing() {
    let (environment, _emulator) = on_putio();
    side_by_side(environment, 4, rounds(20), Turn::Free);
}

#[test]
fn two_machines_in_turn_and_at_once_beside_a_pruner_lose_nothing_in_20_rounds_on_a_disk() {
    side_by_side(TestEnvironment::new(), 2, rounds(20), Turn::InTurnAndAtOnce);
}

#[test]
fn two_machines_in_turn_and_at_once_beside_a_pruner_lose_nothing_in_20_rounds_on_putio() {
    let (environment, _emulator) = on_putio();
    side_by_side(environment, 2, rounds(20), Turn::InTurnAndAtOnce);
}
