//! `putback check`.

use std::path::{Path, PathBuf};

use crate::harness::{TestEnvironment, schema};

fn pack(environment: &TestEnvironment) -> PathBuf {
    let packs = environment.path("repository/packs");
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(packs).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort_by_key(|path| std::fs::metadata(path).unwrap().len());
    all.pop().unwrap()
}

fn flip(path: &Path) {
    let mut content = std::fs::read(path).unwrap();
    let middle = content.len() / 3;
    content[middle] ^= 1;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    }
    std::fs::write(path, content).unwrap();
}

#[test]
fn a_whole_repository_has_no_damage() {
    let environment = TestEnvironment::with_snapshot();
    environment.run(["check"]).success().shows("no damage found").hides("read ");
    for flags in
        [&["--read-data"][..], &["--read-data-subset", "100%"], &["--read-data-subset", "1/1"]]
    {
        environment
            .run(["check"].iter().chain(flags))
            .success()
            .shows("no damage found")
            .shows("read ");
    }
    let run = environment.run(["check", "--read-data", "--json"]).success();
    assert_eq!(run.message("summary")["num_errors"], 0);
    schema::check_messages("check", &run.messages());
}

#[test]
fn a_flipped_bit_is_found_and_what_it_hurts_is_named() {
    let environment = TestEnvironment::with_snapshot();
    flip(&pack(&environment));
    let run = environment.run(["check", "--read-data"]).code(1);
    run.complains("damaged: ").complains("error: the repository is damaged").hides("no damage");
    let run = environment.run(["check", "--read-data", "--json"]).code(1);
    assert!(run.message("summary")["num_errors"].as_u64().unwrap() >= 1);
    let errors = run.error_messages();
    assert_eq!(errors.last().unwrap()["message_type"], "exit_error");
    schema::check_messages("check", &errors);
}

#[test]
fn a_missing_pack_is_found_without_reading_data() {
    let environment = TestEnvironment::with_snapshot();
    std::fs::remove_file(pack(&environment)).unwrap();
    environment.run(["check"]).code(1).complains("damaged: ");
}

#[test]
fn a_part_that_makes_no_sense_is_wrong_usage() {
    let environment = TestEnvironment::new();
    for part in ["0%", "101%", "4/3", "some"] {
        environment.run(["check", "--read-data-subset", part]).code(2).complains("5%");
    }
    environment
        .run(["check", "--read-data", "--read-data-subset", "5%"])
        .code(2)
        .complains("exclude each other");
}

#[test]
fn a_storage_that_was_put_back_is_told_and_can_be_accepted() {
    let environment = TestEnvironment::with_snapshot();
    let snapshots = environment.path("repository/snapshots");
    let names = || -> Vec<_> {
        std::fs::read_dir(&snapshots).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let first = names();
    environment.write("new.txt", "x");
    environment.backup();
    let second = names().into_iter().find(|name| !first.contains(name)).unwrap();
    std::fs::remove_file(second).unwrap();
    environment
        .run(["snapshots"])
        .success()
        .complains("warning: snapshot number 2 of writer")
        .complains("hint: `putback check` says what is missing");
    let run = environment.run(["snapshots", "--quiet"]).success();
    assert_eq!(run.stderr(), "");
    environment
        .run(["check"])
        .code(1)
        .shows("no damage found in what is there")
        .complains("error: snapshot number 2 of writer")
        .complains("hint: if you know why")
        .complains("`putback check --accept-rollback`");
    let run = environment.run(["check", "--json"]).code(1);
    assert_eq!(run.message("summary")["rollback_evidence"].as_array().unwrap().len(), 1);
    schema::check_messages("check", &run.messages());
    environment
        .run(["check", "--accept-rollback"])
        .success()
        .shows("known from now on: snapshot number 2 of writer")
        .shows("no damage found\n");
    environment.run(["check"]).success().shows("no damage found\n").hides("known");
    let run = environment.run(["snapshots"]).success();
    assert_eq!(run.stderr(), "");
}
