//! Several processes on one repository.

use std::ffi::OsString;
use std::process::{Child, Output, Stdio};

use crate::harness::{PASSWORD, TestEnvironment, assert_same_tree};

/// A writer with a folder, a host name and directories.
struct Writer {
    name: String,
    machine: String,
}

impl Writer {
    fn source(&self, environment: &TestEnvironment) -> std::path::PathBuf {
        environment.source().join(&self.name)
    }

    /// Starts a backup.
    fn start(&self, environment: &TestEnvironment) -> Child {
        let directory =
            |kind: &str| environment.path(format!("{}/{kind}", self.machine)).into_os_string();
        let arguments: [OsString; 9] = [
            "backup".into(),
            self.source(environment).into_os_string(),
            "--host".into(),
            self.name.clone().into(),
            "--json".into(),
            "--cache-dir".into(),
            directory("cache"),
            "--state-dir".into(),
            directory("state"),
        ];
        let mut command = environment.command(arguments);
        // Some with a checkpoint after every step.
        let interval = if self.name.len() == 3 { "0s" } else { "5m" };
        command.args(["--checkpoint-interval", interval]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

#[track_caller]
fn assert_success(output: &Output) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
}

fn fill(environment: &TestEnvironment, writer: &Writer, round: usize) {
    for number in 0..8 {
        // Half of what they have is the same for all.
        let owner = if number % 2 == 0 { "all" } else { &writer.name };
        let line = format!("{owner} {number} in round {}\n", if number < 4 { round } else { 0 });
        environment.write(format!("{}/file-{number}", writer.name), line.repeat(10_000 + number));
    }
}

#[test]
fn writers_side_by_side_all_complete_and_the_repository_is_clean() {
    let environment = TestEnvironment::with_repository();
    let writer =
        |name: &str, machine: &str| Writer { name: name.to_owned(), machine: machine.to_owned() };
    // Two of them share what one machine knows.
    let writers = [
        writer("one", "machine-1"),
        writer("two", "machine-2"),
        writer("three", "machine-3"),
        writer("four", "machine-4"),
        writer("five", "machine-5"),
        writer("six", "machine-5"),
    ];
    const ROUNDS: usize = 4;
    for round in 0..ROUNDS {
        writers.iter().for_each(|writer| fill(&environment, writer, round));
        let running: Vec<_> = writers.iter().map(|writer| writer.start(&environment)).collect();
        for child in running {
            assert_success(&child.wait_with_output().unwrap());
        }
    }
    let document = environment.run(["snapshots", "--json"]).success().document();
    assert_eq!(document.as_array().unwrap().len(), ROUNDS * writers.len());
    let check = environment.run(["check", "--read-data"]).success();
    assert_eq!(check.stderr(), "");
    for writer in &writers {
        let selector = format!("latest:{}", writer.source(&environment).display());
        let target = environment.path(format!("work/{}", writer.name));
        let arguments = ["restore", &selector, "--host", &writer.name, "--quiet", "--target"];
        let target_argument = target.as_os_str();
        let arguments = arguments.iter().map(OsString::from).chain([target_argument.to_owned()]);
        environment.run(arguments).success();
        assert_same_tree(&writer.source(&environment), &target);
    }
}

#[test]
fn two_inits_at_the_same_moment_make_one_repository_and_both_say_what_happened() {
    for _ in 0..5 {
        let environment = TestEnvironment::new();
        let start = || {
            let mut command = environment.command(["init", "--kdf-cost", "low"]);
            command.env("PUTBACK_PASSWORD", PASSWORD);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let running = [start(), start()];
        let outputs = running.map(|child| child.wait_with_output().unwrap());
        let won = outputs.iter().filter(|output| output.status.success()).count();
        assert_eq!(won, 1, "{outputs:?}");
        let lost = outputs.iter().find(|output| !output.status.success()).unwrap();
        let message = String::from_utf8_lossy(&lost.stderr);
        assert!(message.contains("already a repository"), "{message}");
        environment.write("file", "content");
        environment.backup();
        environment.run(["check", "--read-data"]).success();
    }
}
