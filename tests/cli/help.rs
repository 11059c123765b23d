//! What `--help` says.

use crate::harness::TestEnvironment;

/// Every command, as it is typed.
pub(crate) const COMMANDS: &[&str] = &[
    "",
    "init",
    "login",
    "storage",
    "storage add",
    "storage list",
    "storage show",
    "storage reconnect",
    "storage remove",
    "storage about",
    "backup",
    "restore",
    "snapshots",
    "ls",
    "find",
    "diff",
    "cat",
    "dump",
    "stats",
    "repo",
    "repo info",
    "check",
    "forget",
    "undelete",
    "prune",
    "repair",
    "repair index",
    "repair packs",
    "repair snapshots",
    "tag",
    "rewrite",
    "replicate",
    "key",
    "key add",
    "key list",
    "key remove",
    "key passwd",
    "key rotate",
    "key export",
    "selftest",
    "config",
    "config show",
    "config path",
    "config check",
    "completions",
    "man",
    "version",
];

/// Flags that are about one service, which is in the names of their variables.
const OF_PUTIO: &[&str] =
    &["client-id", "client-secret-file", "token-file", "token-command", "api-url", "upload-url"];

fn help(command: &str) -> String {
    let environment = TestEnvironment::new();
    environment.run(command.split_whitespace().chain(["--help"])).success().stdout()
}

#[test]
fn every_command_shows_an_example_of_itself() {
    for command in COMMANDS {
        let help = help(command);
        let examples =
            help.split_once("Example").unwrap_or_else(|| panic!("no example of '{command}'")).1;
        for word in command.split_whitespace() {
            assert!(
                examples.contains(word),
                "'{word}' is not in the example of '{command}':{examples}"
            );
        }
    }
}

#[test]
fn every_flag_is_shown_with_its_environment_variable() {
    for command in COMMANDS {
        let help = help(command);
        let mut flag: Option<&str> = None;
        let mut described = String::new();
        let mut count = 0;
        let check = |flag: Option<&str>, described: &str| {
            let Some(flag) = flag.filter(|flag| !matches!(*flag, "help" | "version")) else {
                return;
            };
            let service = if OF_PUTIO.contains(&flag) { "PUTIO_" } else { "" };
            let name = flag.replace('-', "_").to_uppercase();
            let variable = format!("[env: PUTBACK_{service}{name}");
            assert!(
                described.contains(&variable),
                "--{flag} of '{command}' does not name its variable:{described}"
            );
        };
        for line in help.lines() {
            let trimmed = line.trim_start();
            let long = trimmed
                .strip_prefix("--")
                .or_else(|| trimmed.split_once(", --").map(|(_, rest)| rest));
            if let Some(long) = long.filter(|_| trimmed.starts_with('-')) {
                check(flag, &described);
                flag = long.split([' ', '=', '.', '[']).next();
                described.clear();
                count += 1;
            }
            described.extend(line.split_whitespace().flat_map(|word| [word, " "]));
        }
        check(flag, &described);
        assert!(count > 10, "'{command}' shows {count} flags");
    }
}

#[test]
fn no_help_shows_the_value_of_a_variable() {
    let mut environment = TestEnvironment::new();
    environment.set("PUTBACK_PASSWORD_COMMAND", "print-the-secret");
    environment
        .run(["backup", "--help"])
        .success()
        .hides("print-the-secret")
        .hides(crate::harness::PASSWORD);
}

#[test]
fn without_a_command_the_help_is_shown_as_wrong_usage() {
    TestEnvironment::new().run([""; 0]).code(2).complains("Usage: putback");
}

#[test]
fn an_unknown_flag_is_wrong_usage_and_the_nearest_one_is_named() {
    let environment = TestEnvironment::new();
    environment.run(["backup", "--exlude", "x"]).code(2).complains("--exclude");
    environment.run(["bakcup"]).code(2).complains("backup");
}

#[test]
fn wrong_usage_is_an_object_for_programs() {
    let run = TestEnvironment::new().run(["--json", "restore"]).code(2);
    let messages = run.error_messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(
        (&messages[0]["message_type"], &messages[0]["code"]),
        (&"exit_error".into(), &2.into())
    );
    crate::harness::schema::check("every command", "exit_error", &messages[0]);
}
