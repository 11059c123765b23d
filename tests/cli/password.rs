//! Where the password comes from.

use crate::harness::{PASSWORD, TestEnvironment};

#[test]
fn a_wrong_password_has_an_exit_code_of_its_own() {
    let mut environment = TestEnvironment::with_repository();
    environment.set("PUTBACK_PASSWORD", "wrong");
    environment
        .run(["snapshots"])
        .code(12)
        .complains("error: wrong password for the repository at");
    let run = environment.run(["snapshots", "--json"]).code(12);
    assert_eq!(run.error_messages()[0]["code"], 12);
}

#[test]
fn the_password_comes_from_file_command_and_descriptor() {
    let mut environment = TestEnvironment::with_repository();
    environment.unset("PUTBACK_PASSWORD");
    std::fs::write(environment.path("work/password"), format!("{PASSWORD}\n")).unwrap();
    environment.run(["-p", "password", "snapshots"]).success();
    environment.run(["--password-command", "cat password", "snapshots"]).success();
    environment
        .run_with_input(["--password-fd", "0", "snapshots"], format!("{PASSWORD}\r\n").as_bytes())
        .success();
    environment.set("PUTBACK_PASSWORD_FILE", environment.path("work/password"));
    environment.run(["snapshots"]).success();
}

#[test]
fn an_empty_password_is_refused() {
    let mut environment = TestEnvironment::new();
    environment.unset("PUTBACK_PASSWORD");
    environment.run(["--password-command", "echo", "init"]).code(2).complains("is empty");
}

#[test]
fn two_passwords_are_refused_and_a_flag_wins_over_a_variable() {
    let mut environment = TestEnvironment::new();
    let run = environment.run(["--password-file", "a", "--password-command", "b", "init"]).code(2);
    run.complains("--password-file and --password-command exclude each other");
    // PUTBACK_PASSWORD is set too, and gives way.
    environment.run(["--password-file", "missing", "init"]).code(2).complains("missing");
    environment.set("PUTBACK_PASSWORD_COMMAND", "echo x");
    environment.run(["init"]).code(2).complains("PUTBACK_PASSWORD");
}

#[test]
fn a_command_that_fails_gives_no_password() {
    let mut environment = TestEnvironment::new();
    environment.unset("PUTBACK_PASSWORD");
    environment
        .run(["--password-command", "echo secret; exit 1", "init"])
        .code(1)
        .complains("the command of --password-command failed")
        .hides("secret");
}

#[test]
#[cfg(target_os = "linux")]
fn nobody_is_asked_for_the_password_of_a_repository_that_is_not_there() {
    let mut environment = TestEnvironment::new();
    environment.unset("PUTBACK_PASSWORD");
    // A session of its own has no terminal.
    let program = environment.command([""; 0]).get_program().to_owned();
    let run = |environment: &TestEnvironment| {
        let mut command = environment.command(["--wait"]);
        let mut setsid = std::process::Command::new("setsid");
        setsid.arg("--wait").arg(&program).arg("snapshots").env_clear();
        for (name, value) in command.stdin(std::process::Stdio::null()).get_envs() {
            setsid.envs(value.map(|value| (name, value)));
        }
        setsid.stdin(std::process::Stdio::null()).output().unwrap()
    };
    let output = run(&environment);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(10), "{stderr}");
    assert!(stderr.contains("there is no repository at"), "{stderr}");
    environment.set("PUTBACK_PASSWORD", PASSWORD);
    environment.run(["init", "--kdf-cost", "low"]).success();
    environment.unset("PUTBACK_PASSWORD");
    assert_eq!(run(&environment).status.code(), Some(1));
}

#[test]
fn no_error_shows_the_password() {
    let environment = TestEnvironment::new();
    for command in [&["snapshots"][..], &["init", "--pack-size", "1"], &["backup", "/missing"]] {
        let run = environment.run(command);
        assert!(!run.stderr().contains(PASSWORD) && !run.stdout().contains(PASSWORD));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn without_a_terminal_nobody_is_asked() {
    let mut environment = TestEnvironment::new();
    environment.unset("PUTBACK_PASSWORD");
    // A session of its own has no terminal.
    let output = std::process::Command::new("setsid")
        .arg("--wait")
        .arg(environment.command([""; 0]).get_program())
        .arg("init")
        .env_clear()
        .env("HOME", environment.path("home"))
        .env("PUTBACK_REPO", environment.path("repository"))
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("no password was given") && stderr.contains("PUTBACK_PASSWORD"),
        "{stderr}"
    );
}
