//! What all commands share in what they print.

use std::ffi::OsStr;
use std::io::Read;
use std::process::Stdio;

use crate::harness::TestEnvironment;

#[test]
fn quiet_operations_print_nothing() {
    let environment = TestEnvironment::new();
    environment.write("a.txt", "one");
    let source = environment.source();
    environment.run(["init", "--quiet", "--kdf-cost", "low"]).success().silent();
    environment.run([OsStr::new("backup"), "-q".as_ref(), source.as_os_str()]).success().silent();
    environment.run([OsStr::new("backup"), "-qv".as_ref(), source.as_os_str()]).success().silent();
    environment.run(["restore", "latest", "--target", "out", "-q"]).success().silent();
    environment.run(["check", "-q", "--read-data"]).success().silent();
    environment.run(["key", "export", "--output", "key", "-q"]).success().silent();
}

#[test]
fn quiet_listings_print_what_they_are_asked_for() {
    let environment = TestEnvironment::with_snapshot();
    environment.run(["ls", "-q", "latest"]).success().shows("a.txt");
    environment.run(["snapshots", "-q"]).success().shows("ID").hides("1 snapshot");
}

#[test]
fn quiet_does_not_hide_errors() {
    TestEnvironment::new()
        .run(["snapshots", "-q"])
        .code(10)
        .complains("error: there is no repository");
}

#[test]
fn quiet_and_json_leave_the_summary() {
    let environment = TestEnvironment::with_repository();
    environment.write("a.txt", "one");
    let source = environment.source();
    let run = environment
        .run([OsStr::new("backup"), "-q".as_ref(), "--json".as_ref(), source.as_os_str()])
        .success();
    assert_eq!(run.messages().len(), 1);
    assert_eq!(run.message("summary")["files_new"], 1);
}

#[test]
fn nothing_is_drawn_where_there_is_no_terminal() {
    let environment = TestEnvironment::with_snapshot();
    for command in
        [&["check", "--read-data"][..], &["restore", "latest", "-t", "out"], &["backup", ".", "-v"]]
    {
        let run = environment.run(command).success();
        assert!(
            !run.stderr().contains('\u{1b}') && !run.stderr().contains('\r'),
            "{}",
            run.stderr()
        );
        assert!(!run.stdout_bytes().contains(&0x1b));
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let environment = TestEnvironment::new();
    // The script is longer than a pipe holds.
    let mut command = environment.command(["completions", "zsh"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(stderr, "");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn errors_have_a_cause_and_a_hint_where_there_are_any() {
    let environment = TestEnvironment::new();
    let run = environment.run(["--password-file", "/no/such", "init"]).code(1);
    run.complains("error: ").complains("/no/such");
    environment.run(["snapshots"]).code(10).complains("\nhint: `putback init`");
}

#[test]
fn a_cadence_out_of_range_is_refused() {
    let environment = TestEnvironment::new();
    environment.run(["--progress-fps", "0", "snapshots"]).code(2).complains("0.01 to 10");
    environment.run(["--progress-fps", "1000", "snapshots"]).code(2).complains("0.01 to 10");
}
