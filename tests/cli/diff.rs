//! `putback diff`.

use crate::harness::{TestEnvironment, schema};

fn two() -> TestEnvironment {
    let environment = TestEnvironment::with_snapshot();
    environment.write("a.txt", "first file, changed\n");
    environment.write("new.txt", "x");
    std::fs::remove_file(environment.source().join("folder/b.txt")).unwrap();
    environment
}

#[test]
fn two_snapshots_are_compared() {
    let environment = two();
    environment.backup();
    let run = environment.run(["diff", "latest~1", "latest"]).success();
    let run = run.shows("M    [ROOT]/source/a.txt\n").shows("+    [ROOT]/source/new.txt\n");
    run.shows("-    [ROOT]/source/folder/b.txt\n")
        .shows("files: 1 added, 1 removed, 1 changed")
        .hides("c.bin");
}

#[test]
fn a_snapshot_is_compared_with_a_local_folder() {
    let environment = two();
    let source = environment.source();
    let source = source.to_str().unwrap();
    let run = environment.run(["diff", &format!("latest:{source}"), source]).success();
    run.shows("M    ").shows("a.txt").shows("+    ").shows("new.txt").hides("c.bin");
}

#[test]
fn programs_get_lines_whose_fields_are_documented() {
    let environment = two();
    environment.backup();
    let run = environment.run(["diff", "latest~1", "latest", "--json"]).success();
    assert_eq!(run.message("statistics")["added"]["files"], 1);
    schema::check_messages("diff", &run.messages());
}

#[test]
fn a_snapshot_that_does_not_exist_is_named() {
    TestEnvironment::with_snapshot()
        .run(["diff", "latest", "latest~1"])
        .code(1)
        .complains("no snapshot matches 'latest~1'");
}

#[test]
#[cfg(unix)]
fn a_local_file_that_cannot_be_read_is_an_error_and_the_rest_is_compared() {
    use std::os::unix::fs::PermissionsExt;
    let environment = two();
    let secret = environment.source().join("folder/deeper/c.bin");
    std::fs::write(&secret, vec![8; 300_000]).unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o000)).unwrap();
    let source = environment.source();
    let source = source.to_str().unwrap();
    let arguments = ["diff", &format!("latest:{source}"), source, "--content"];
    let run = environment.run_unprivileged(arguments.iter().chain(&["--quiet"])).code(3);
    run.shows("a.txt").complains("error: ").complains("c.bin could not be compared: ");
    let run = environment.run_unprivileged(arguments.iter().chain(&["--json"])).code(3);
    schema::check_messages("diff", &run.error_messages());
    assert_eq!(run.error_messages()[0]["during"], "diff");
}
