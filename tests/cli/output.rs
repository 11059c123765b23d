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
    let run = environment.run(["--repo-command", "exit 3", "snapshots"]).code(1);
    run.complains("error: the command of --repo-command failed")
        .complains("\nhint: run it by hand");
    environment.run(["snapshots"]).code(10).complains("\nhint: `putback init`");
}

#[test]
fn a_file_that_is_named_and_not_there_is_wrong_usage() {
    let mut environment = TestEnvironment::new();
    environment.unset("PUTBACK_PASSWORD");
    let check = |environment: &TestEnvironment, flag: &str, arguments: &[&str]| {
        for (path, why) in [("/no/such", "which does not exist"), ("/", "which is a folder")] {
            let run = environment.run([flag, path].iter().chain(arguments)).code(2);
            run.complains(&format!("error: {flag} names {path}, {why}"));
        }
    };
    for flag in ["--config", "--password-file", "--key-file", "--repo-file"] {
        // The repository is given by a variable too, which gives way.
        check(&environment, flag, &["snapshots"]);
    }
    for flag in ["--files-from", "--files-from-raw"] {
        environment.run(["backup", flag, "/no/such"]).code(2).complains("names /no/such, which");
        environment.run(["backup", flag, "/"]).code(2).complains("names /, which is a folder");
    }
    for flag in ["--exclude-file", "--iexclude-file"] {
        let run = environment.run(["backup", "/tmp", flag, "/no/such"]).code(2);
        run.complains(&format!("error: {flag} names /no/such, which does not exist"));
        environment.run(["backup", "/tmp", flag, "/"]).code(2).complains("names /, which is a");
    }
    environment.run(["--password-fd", "77", "snapshots"]).code(2).complains("descriptor 77");
    environment.set("PUTBACK_PASSWORD_FILE", "/no/such");
    environment.run(["snapshots"]).code(2).complains("error: PUTBACK_PASSWORD_FILE names /no/such");
}

#[test]
#[cfg(unix)]
fn a_quiet_operation_prints_errors_and_no_warnings() {
    use std::os::unix::fs::PermissionsExt;
    let environment = TestEnvironment::with_repository();
    environment.write("readable.txt", "one");
    let secret = environment.write("secret.txt", "two");
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o000)).unwrap();
    let source = environment.source();
    let arguments = [OsStr::new("backup"), "-q".as_ref(), source.as_os_str()];
    let run = environment.run_unprivileged(arguments).code(3);
    assert_eq!(run.stdout(), "");
    let stderr = run.stderr();
    assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{stderr}");
}

#[test]
#[cfg(target_os = "linux")]
fn an_interrupt_ends_every_command_with_its_own_exit_code() {
    let mut environment = TestEnvironment::with_snapshot();
    environment.unset("PUTBACK_PASSWORD");
    let source = environment.source();
    let source = source.to_str().unwrap();
    for command in [
        &["dump", "latest"][..],
        &["diff", "latest", source],
        &["find", "x"],
        &["ls", "latest"],
        &["stats"],
        &["snapshots", "--json"],
    ] {
        // It waits for a password that does not come.
        let mut program = environment.command(["--password-fd", "0"].iter().chain(command));
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = program.spawn().unwrap();
        let stdin = child.stdin.take();
        interrupt(child.id());
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(130), "{command:?}: {stderr}");
        if command.contains(&"--json") {
            let error: serde_json::Value = serde_json::from_str(&stderr).unwrap();
            assert_eq!(error["code"], 130);
        } else {
            assert_eq!(stderr, "interrupted\n", "{command:?}");
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn an_interrupt_ends_a_dump_that_nobody_reads() {
    let environment = TestEnvironment::with_repository();
    environment.write("large", vec![7; 2_000_000]);
    environment.backup();
    let mut program = environment.command(["dump", "latest"]);
    let mut child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // From now on it writes, more than the pipe holds.
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    interrupt(child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "interrupted\n");
}

/// Interrupts a process as soon as it knows what to do then.
#[cfg(target_os = "linux")]
fn interrupt(process: u32) {
    let is_ready = || {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & 2 != 0
    };
    while !is_ready() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let kill = format!("kill -INT {process}");
    assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

#[test]
fn a_cadence_out_of_range_is_refused() {
    let environment = TestEnvironment::new();
    environment.run(["--progress-fps", "0", "snapshots"]).code(2).complains("0.01 to 10");
    environment.run(["--progress-fps", "1000", "snapshots"]).code(2).complains("0.01 to 10");
}
