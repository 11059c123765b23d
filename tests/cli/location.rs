//! How the repository is named.

use crate::harness::TestEnvironment;

#[test]
fn a_storage_or_scheme_that_is_not_supported_is_never_taken_for_a_folder() {
    let environment = TestEnvironment::new();
    environment
        .run(["--repo", "putio:backup", "init"])
        .code(2)
        .complains("no storage 'putio' is configured")
        .complains(
            "hint: `putback login` adds it; if 'putio:...' is a folder, write it with a leading ./",
        );
    environment
        .run(["--repo", "s3://bucket", "init"])
        .code(2)
        .complains("does not support 's3://'");
    assert_eq!(std::fs::read_dir(environment.path("work")).unwrap().count(), 0);
}

#[test]
fn a_command_that_needs_a_repository_says_how_to_give_one() {
    let mut environment = TestEnvironment::new();
    environment.unset("PUTBACK_REPO");
    environment
        .run(["snapshots"])
        .code(2)
        .complains("no repository was given")
        .complains("PUTBACK_REPO");
}

#[test]
fn two_ways_to_name_the_repository_are_refused_and_a_flag_wins_over_a_variable() {
    let mut environment = TestEnvironment::new();
    environment
        .run(["--repo", "a", "--repo-file", "b", "snapshots"])
        .code(2)
        .complains("--repo and --repo-file");
    std::fs::write(environment.path("work/location"), "file-says://x\n").unwrap();
    environment.run(["--repo-file", "location", "snapshots"]).code(2).complains("'file-says://'");
    environment
        .run(["--repo-command", "echo command-says://x", "snapshots"])
        .code(2)
        .complains("'command-says://'");
    environment.unset("PUTBACK_REPO");
    environment.set("PUTBACK_REPO_FILE", "location");
    environment.run(["snapshots"]).code(2).complains("'file-says://'");
    environment.set("PUTBACK_REPO_COMMAND", "echo x");
    environment.run(["snapshots"]).code(2).complains("PUTBACK_REPO_FILE and PUTBACK_REPO_COMMAND");
}

#[test]
fn a_command_for_the_location_that_fails_is_an_error() {
    let environment = TestEnvironment::new();
    environment
        .run(["--repo-command", "exit 3", "snapshots"])
        .code(1)
        .complains("the command of --repo-command failed");
}

#[test]
fn a_missing_repository_has_an_exit_code_of_its_own() {
    let environment = TestEnvironment::new();
    for command in
        [&["snapshots"][..], &["check"], &["ls", "latest"], &["backup", "."], &["repo", "info"]]
    {
        environment
            .run(command)
            .code(10)
            .complains("there is no repository at")
            .complains("putback init");
    }
    let run = environment.run(["snapshots", "--json"]).code(10);
    assert_eq!(run.error_messages()[0]["code"], 10);
}
