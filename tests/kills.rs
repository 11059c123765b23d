//! The program killed at random moments of everything that writes: what was reported as safe stays safe, and
//! nobody has to repair anything.
//!
//! Beside every run stands a model: which snapshots there are, and what each holds. After each kill the repository
//! is checked to the last byte, the snapshots are those that the model allows, and one of them is restored and
//! compared; at the end all of them are. `crash.rs` and `putio.rs` have kills of backups alone; all of them together are more than 200.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use putio_emulator::Emulator;

use crate::crash::{Random, change, copy};
use crate::harness::putio::options;
use crate::harness::{PASSWORD, TestEnvironment, assert_same_tree};

/// Commit window, listing lag and second look in seconds: prune may delete soon after it has marked.
const TIMES: &str = "2,0.3,0.05";

/// What is done to the repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Backup {
        with_checkpoints: bool,
    },
    Forget(String),
    Undelete(String),
    Tag(String),
    Rewrite(String),
    /// Marks, and deletes nothing.
    Mark,
    /// Also deletes what was marked long enough ago.
    Prune,
    /// Both at once; only where there are locks.
    PruneInstantly,
    ChangePassword,
    RotateKeys,
    /// Moves what is sealed under an old key, and deletes what was marked long enough ago.
    RewriteEpoch,
}

/// One repository, two machines that use it in turn, and what should be there.
struct Scene {
    environment: TestEnvironment,
    emulator: Option<Emulator>,
    random: Random,
    /// What the source held, by snapshot.
    listed: BTreeMap<String, PathBuf>,
    forgotten: BTreeMap<String, PathBuf>,
    /// How long each kind of work takes.
    durations: BTreeMap<&'static str, Duration>,
    saved: usize,
    /// What was done last, for a failure.
    history: Vec<String>,
    is_over: bool,
}

impl Work {
    fn name(&self) -> &'static str {
        match self {
            Self::Backup { with_checkpoints: true } => "backup with checkpoints",
            Self::Backup { with_checkpoints: false } => "backup",
            Self::Forget(_) => "forget",
            Self::Undelete(_) => "undelete",
            Self::Tag(_) => "tag",
            Self::Rewrite(_) => "rewrite",
            Self::Mark => "prune that marks",
            Self::Prune => "prune",
            Self::PruneInstantly => "prune --instant",
            Self::ChangePassword => "key passwd",
            Self::RotateKeys => "key rotate",
            Self::RewriteEpoch => "prune --rewrite-epoch",
        }
    }

    /// Whether another snapshot with the same content takes the place of its target.
    fn replaces(&self) -> bool {
        matches!(self, Self::Tag(_) | Self::Rewrite(_))
    }

    /// Which snapshot it is about.
    fn target(&self) -> Option<&String> {
        match self {
            Self::Forget(id) | Self::Undelete(id) | Self::Tag(id) | Self::Rewrite(id) => Some(id),
            _ => None,
        }
    }
}

impl Scene {
    fn new(environment: TestEnvironment, emulator: Option<Emulator>) -> Self {
        let mut environment = environment;
        environment.set("PUTBACK_TEST_TIMES", TIMES);
        environment.run(["init", "--kdf-cost", "low", "--pack-size", "8M"]).success();
        std::fs::write(environment.path("work/password"), PASSWORD).unwrap();
        let mut scene = Self {
            environment,
            emulator,
            random: Random::new(),
            listed: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            durations: BTreeMap::new(),
            saved: 0,
            history: Vec::new(),
            is_over: false,
        };
        for _ in 0..6 {
            change(&scene.environment, &mut scene.random);
        }
        // Every kind of work once, to its end, to know how long it takes.
        for _ in 0..2 {
            scene.finish(&Work::Backup { with_checkpoints: false });
        }
        scene.finish(&Work::Backup { with_checkpoints: true });
        let first = scene.some_listed();
        scene.finish(&Work::Forget(first.clone()));
        scene.finish(&Work::Undelete(first));
        let first = scene.some_listed();
        scene.finish(&Work::Tag(first));
        let first = scene.some_listed();
        scene.finish(&Work::Rewrite(first));
        scene.finish(&Work::ChangePassword);
        scene.finish(&Work::RotateKeys);
        let first = scene.some_listed();
        scene.finish(&Work::Forget(first));
        scene.finish(&Work::Mark);
        scene.finish(&Work::Prune);
        scene.finish(&Work::RewriteEpoch);
        if scene.emulator.is_none() {
            scene.finish(&Work::PruneInstantly);
        }
        scene
    }

    fn some_listed(&mut self) -> String {
        let number = self.random.below(self.listed.len() as u64) as usize;
        self.listed.keys().nth(number).unwrap().clone()
    }

    /// What may be done now.
    fn draw(&mut self) -> Work {
        let many = self.listed.len() > 6;
        match self.random.below(if self.emulator.is_none() { 19 } else { 18 }) {
            0..4 if !many => Work::Backup { with_checkpoints: self.random.below(3) == 0 },
            0..7 if self.listed.len() > 2 => Work::Forget(self.some_listed()),
            7..9 if !self.forgotten.is_empty() => {
                let number = self.random.below(self.forgotten.len() as u64) as usize;
                Work::Undelete(self.forgotten.keys().nth(number).unwrap().clone())
            }
            9 | 10 => Work::Tag(self.some_listed()),
            11 => Work::Mark,
            12 | 13 => Work::Prune,
            14 => Work::ChangePassword,
            15 => Work::RotateKeys,
            16 => Work::RewriteEpoch,
            17 => Work::Rewrite(self.some_listed()),
            18 => Work::PruneInstantly,
            _ => Work::Backup { with_checkpoints: false },
        }
    }

    fn command(&mut self, work: &Work) -> Command {
        let source = self.environment.source().into_os_string().into_string().unwrap();
        let tag = format!("tag-{}", self.random.below(1000));
        let arguments: Vec<&str> = match work {
            Work::Backup { with_checkpoints } => {
                let interval = if *with_checkpoints { "0s" } else { "1h" };
                vec!["backup", &source, "--checkpoint-interval", interval]
            }
            Work::Forget(id) => vec!["forget", id, "--unsafe-allow-remove-all"],
            Work::Undelete(id) => vec!["undelete", id],
            Work::Tag(id) => vec!["tag", "--add", &tag, id],
            Work::Rewrite(id) => vec!["rewrite", "--set-description", &tag, id],
            Work::Mark => vec!["prune", "--max-unused", "0", "--grace", "1h"],
            Work::Prune => vec!["prune", "--max-unused", "0", "--grace", "0s"],
            Work::PruneInstantly => vec!["prune", "--max-unused", "0", "--instant"],
            Work::ChangePassword => {
                vec!["key", "passwd", "--new-password-file", "password", "--kdf-cost", "low"]
            }
            Work::RotateKeys => vec!["key", "rotate", "--drop-others"],
            Work::RewriteEpoch => {
                vec!["prune", "--max-unused", "0", "--grace", "0s", "--rewrite-epoch"]
            }
        };
        let mut command = self.environment.command(arguments);
        // Two machines: what one of them has in its directories, the other does not know.
        let machine = format!("machine-{}", self.random.below(2));
        for kind in ["cache", "state"] {
            command.arg(format!("--{kind}-dir"));
            command.arg(self.environment.path(format!("{machine}/{kind}")));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Does it to its end.
    fn finish(&mut self, work: &Work) {
        let started = Instant::now();
        let output = self.command(work).output().unwrap();
        self.durations.insert(work.name(), started.elapsed());
        assert!(output.status.success(), "{}: {work:?}: {output:?}", self.history());
        self.look(work, true);
    }

    /// Kills it at some moment; false if it had ended before.
    fn kill(&mut self, work: &Work) -> bool {
        let longest = self.durations[work.name()].mul_f64(1.1);
        let moment = longest.mul_f64(self.random.below(1000) as f64 / 1000.0);
        let mut command = self.command(work);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The moment is what is random here; nothing is waited for.
        std::thread::sleep(moment);
        child.kill().unwrap();
        let status = child.wait().unwrap();
        let is_killed = status.code().is_none();
        self.history.push(format!("{work:?} after {moment:?}: {status}"));
        self.settle();
        // What prune has removed cannot come back, and says so.
        let is_refused = matches!(work, Work::Undelete(_)) && status.code() == Some(1);
        assert!(is_killed || status.success() || is_refused, "{}", self.history());
        self.look(work, status.success());
        is_killed
    }

    /// Waits until the service has done with what the killed program had sent.
    fn settle(&self) {
        let Some(emulator) = &self.emulator else { return };
        let deadline = Instant::now() + Duration::from_secs(2);
        while emulator.log().iter().any(|entry| entry.status.is_none()) && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(2));
        }
        emulator.clear_log();
    }

    /// Compares the list of snapshots with what this work may have done to it.
    fn look(&mut self, work: &Work, is_done: bool) {
        let document = self.environment.run(["snapshots", "--json"]).success().document();
        let complete = document.as_array().unwrap().iter();
        let now: Vec<String> = complete
            .filter(|row| row["is_checkpoint"] == false)
            .map(|row| row["id"].as_str().unwrap().to_owned())
            .collect();
        let new: Vec<&String> = now.iter().filter(|id| !self.listed.contains_key(*id)).collect();
        let gone: Vec<String> =
            self.listed.keys().filter(|id| !now.contains(id)).cloned().collect();
        let target = work.target();
        let (new_least, new_most, may_go) = match work {
            // A second one may stand beside the first, whose commit had taken too long.
            Work::Backup { .. } => (usize::from(is_done), 2, false),
            Work::Forget(_) => (0, 0, true),
            // None where it is there already, under another id.
            Work::Undelete(_) => (0, 1, false),
            Work::Tag(_) | Work::Rewrite(_) => (usize::from(is_done), 1, true),
            _ => (0, 0, false),
        };
        let story = self.history();
        assert!((new_least..=new_most).contains(&new.len()), "{story}: {work:?} left {new:?}");
        let explained = gone.iter().all(|id| may_go && Some(id) == target);
        assert!(explained, "{story}: {work:?} lost {gone:?}");
        assert!(!is_done || !may_go || gone.len() == 1, "{story}: {work:?} did nothing");
        assert!(
            !work.replaces() || gone.is_empty() || new.len() == 1,
            "{story}: {work:?} lost a snapshot"
        );

        let content = match target {
            _ if new.is_empty() => None,
            Some(target) => self.listed.get(target).or_else(|| self.forgotten.get(target)).cloned(),
            None => {
                self.saved += 1;
                let folder = self.environment.path(format!("saved-{}", self.saved));
                copy(&self.environment.source(), &folder);
                Some(folder)
            }
        };
        for id in new {
            self.listed.insert(id.clone(), content.clone().unwrap());
        }
        for id in gone {
            let content = self.listed.remove(&id).unwrap();
            if matches!(work, Work::Forget(_)) {
                self.forgotten.insert(id, content);
            }
        }
        if let Work::Undelete(id) = work
            && is_done
        {
            self.forgotten.remove(id);
        }
    }

    /// Restores a snapshot and compares it.
    fn restore(&self, id: &str) {
        let target = self.environment.path(format!("work/{id}"));
        let selector = format!("{id}:{}", self.environment.source().display());
        let arguments = ["restore", &selector, "--target", target.to_str().unwrap(), "--quiet"];
        let output = self.environment.command(arguments).output().unwrap();
        assert!(output.status.success(), "{}: {id}: {output:?}", self.history());
        assert_same_tree(&self.listed[id], &target);
        std::fs::remove_dir_all(target).unwrap();
    }

    fn check(&self) {
        // On put.io each pack costs requests; the last check reads them all.
        let reads_all = self.emulator.is_none() || self.is_over;
        let arguments: &[&str] = if reads_all { &["check", "--read-data"] } else { &["check"] };
        let output = self.environment.command(arguments).output().unwrap();
        assert!(output.status.success(), "{}: {output:?}", self.history());
    }

    /// Where there are no locks, a slot whose second copy is missing may be one that another machine is about to remove:
    /// only a person knows better.
    fn complete_slots(&self) {
        if self.emulator.is_some() {
            let run = self.environment.run(["repair", "index", "--yes", "--json"]).success();
            for message in run.error_messages() {
                let is_copy = |object: &str| object.starts_with("copies/keys-");
                // A run that was killed before its segment leaves packs that nothing names yet.
                let is_expected = message["message_type"] != "finding"
                    || message["remedy"] == "name it"
                    || message["object"].as_str().is_some_and(is_copy);
                assert!(is_expected, "{}: {message}", self.history());
            }
        }
    }

    fn history(&self) -> String {
        self.history.join("\n")
    }

    fn run(&mut self, kills: usize) {
        let mut killed = 0;
        for round in 0.. {
            assert!(
                round < 6 * kills,
                "only {killed} of {round} runs were killed before their end"
            );
            if killed == kills {
                break;
            }
            change(&self.environment, &mut self.random);
            let work = self.draw();
            let is_killed = self.kill(&work);
            killed += usize::from(is_killed);
            if is_killed && matches!(work, Work::ChangePassword | Work::RotateKeys) {
                // One of the two copies of a slot may be missing: the next run that changes passwords writes it, or
                // removes the slot if it is the one that opens.
                self.finish(&work);
                self.complete_slots();
            }
            self.check();
            if self.emulator.is_none() || round % 4 == 0 {
                let id = self.some_listed();
                self.restore(&id);
            }
        }
        // The next runs need no help, and give back what killed ones left.
        self.finish(&Work::Backup { with_checkpoints: false });
        self.finish(&Work::Prune);
        self.is_over = true;
        self.check();
        for id in self.listed.keys().cloned().collect::<Vec<_>>() {
            self.restore(&id);
        }
    }
}

fn on_a_disk(kills: usize) {
    Scene::new(TestEnvironment::new(), None).run(kills);
}

fn on_putio(kills: usize) {
    let (mut environment, emulator) = TestEnvironment::signed_in(options());
    environment.set("PUTBACK_REPO", "putio:backups/laptop");
    // The emulator needs no patience.
    environment.set("PUTBACK_TPSLIMIT", "1000");
    Scene::new(environment, Some(emulator)).run(kills);
}

// Several, so that they run side by side.

#[test]
fn kills_of_any_work_on_a_disk_lose_nothing_1() {
    on_a_disk(30);
}

#[test]
fn kills_of_any_work_on_a_disk_lose_nothing_2() {
    on_a_disk(30);
}

#[test]
fn kills_of_any_work_on_a_disk_lose_nothing_3() {
    on_a_disk(30);
}

#[test]
fn kills_of_any_work_on_putio_lose_nothing_1() {
    on_putio(25);
}

#[test]
fn kills_of_any_work_on_putio_lose_nothing_2() {
    on_putio(25);
}
