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
    let run = |environment: &TestEnvironment| without_terminal(environment, &["snapshots"]);
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

/// Runs the program in a session of its own, which has no terminal.
#[cfg(target_os = "linux")]
fn without_terminal(environment: &TestEnvironment, arguments: &[&str]) -> std::process::Output {
    let command = environment.command(arguments);
    let mut setsid = std::process::Command::new("setsid");
    setsid.arg("--wait").arg(command.get_program()).args(command.get_args()).env_clear();
    setsid.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    setsid.stdin(std::process::Stdio::null()).output().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn without_a_terminal_it_is_said_which_password_is_missing_and_what_gives_it() {
    let mut environment = TestEnvironment::with_repository();
    let other = environment.path("other").to_str().unwrap().to_owned();
    environment.run(["--repo", &other, "init", "--kdf-cost", "low"]).success();
    let new = environment.path("new").to_str().unwrap().to_owned();
    let first = environment.path("repository").to_str().unwrap().to_owned();
    let check = |environment: &TestEnvironment, arguments: &[&str], what: &str, flags: &str| {
        let output = without_terminal(environment, arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_eq!(
            stderr,
            format!(
                "error: no {what} was given, and there is no terminal to ask for it\n\
                 hint: give it with {flags}\n"
            )
        );
    };
    let of = |location: &str| format!("password of the repository {location}");
    let to = "--to-password-file, --to-password-command, --to-password-fd or PUTBACK_TO_PASSWORD";
    check(&environment, &["replicate", "--to", &other], &of(&other), to);
    let like = "--like-password-file, --like-password-command, --like-password-fd or \
                PUTBACK_LIKE_PASSWORD";
    check(&environment, &["--repo", &new, "init", "--like", &other], &of(&other), like);
    let added = "--new-password-file, --new-password-command, --new-password-fd or \
                 PUTBACK_NEW_PASSWORD";
    check(&environment, &["key", "add"], "new password", added);
    environment.unset("PUTBACK_PASSWORD");
    let own = "--password-file, --password-command, --password-fd or PUTBACK_PASSWORD";
    check(&environment, &["replicate", "--to", &other], &of(&first), own);
    let first_of_new = format!("password for the new repository {new}");
    check(&environment, &["--repo", &new, "init"], &first_of_new, own);
}
