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
        .complains("if you know why it is gone")
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

fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn every_snapshot_that_lost_something_is_named_with_its_files_however_short_the_lists_are() {
    let environment = TestEnvironment::with_repository();
    for number in 0..120_u8 {
        environment.write(format!("many/{number:03}"), noise(number, 20_000));
    }
    environment.backup();
    let lost = pack(&environment);
    environment.write("more", "x");
    environment.backup();
    std::fs::remove_dir_all(environment.source().join("many")).unwrap();
    environment.write("more", "y");
    environment.backup();
    std::fs::remove_file(lost).unwrap();

    let run = environment
        .run(["check", "--read-data"])
        .code(1)
        .complains("  and 115 more; --verbose shows 95 of them\n")
        .complains(": 120 files\n")
        .complains("hint: snapshots that are not named above are whole; ");
    let named = |stderr: &str| stderr.lines().filter(|line| line.starts_with("hurt: ")).count();
    assert_eq!(named(&run.stderr()), 2, "{}", run.stderr());
    environment
        .run(["check", "--verbose"])
        .code(1)
        .complains("  and 20 more\n")
        .complains("as far as can be told without reading all data");
    let run = environment.run(["check", "--json"]).code(1);
    assert_eq!(run.message("summary")["hurt_snapshots"], 2);
    let errors = run.error_messages();
    schema::check_messages("check", &errors);
    let of_type = |wanted: &str| -> Vec<_> {
        errors.iter().filter(|message| message["message_type"] == wanted).collect()
    };
    let damages = of_type("damage");
    assert_eq!((damages.len(), &damages[0]["hurts_total"]), (1, &120.into()));
    assert_eq!(damages[0]["hurts"].as_array().unwrap().len(), 100);
    let hurt = of_type("hurt_snapshot");
    assert_eq!(hurt.len(), 2);
    assert!(hurt.iter().all(|snapshot| snapshot["files"] == 120), "{hurt:?}");
}

#[test]
fn packs_that_nothing_names_are_not_called_harmless_when_something_is_missing() {
    let environment = TestEnvironment::with_snapshot();
    let segments = std::fs::read_dir(environment.path("repository/index")).unwrap();
    for segment in segments {
        std::fs::remove_file(segment.unwrap().path()).unwrap();
    }
    environment
        .run(["check"])
        .code(1)
        .shows("named by no index segment")
        .shows("`putback repair index` names them")
        .complains("hurt: snapshot ");
    environment.run(["repair", "index", "--yes"]).success();
    environment.run(["check"]).success().shows("no damage found").hides("named by no");
}

#[test]
fn what_opens_a_repository_is_missing_and_not_damaged_when_it_is_gone() {
    let environment = TestEnvironment::with_snapshot();
    let folder = |name: &str| environment.path("repository").join(name);
    let empty = |name: &str, prefix: &str| {
        for entry in std::fs::read_dir(folder(name)).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with(prefix) {
                std::fs::remove_file(path).unwrap();
            }
        }
    };
    empty("keys", "");
    empty("copies", "keys-");
    environment
        .run(["check"])
        .code(1)
        .complains("no password slot is left")
        .complains("--key-file");
    empty("config", "");
    empty("copies", "");
    let run = environment.run(["snapshots"]).code(1).complains("no configuration is left");
    assert!(!run.stderr().contains("read-data"), "{}", run.stderr());
}

#[test]
fn a_pack_that_was_replaced_by_more_bytes_is_read_and_its_files_are_named() {
    let environment = TestEnvironment::with_repository();
    for number in 0..3_u8 {
        environment.write(format!("file {number}"), noise(number, 200_000));
    }
    environment.backup();
    let pack = pack(&environment);
    let size = std::fs::metadata(&pack).unwrap().len() as usize;
    std::fs::remove_file(&pack).unwrap();
    std::fs::write(&pack, noise(7, size + 1)).unwrap();
    let run = environment.run(["check"]).code(1).complains("putback check --read-data` tells");
    assert!(!run.stderr().contains("are whole"), "{}", run.stderr());
    for flags in [&["--read-data"][..], &["--read-data-subset", "1"]] {
        environment
            .run(["check"].iter().chain(flags))
            .code(1)
            .complains("file 2 in snapshot ")
            .complains("hurt: snapshot ")
            .complains(": 3 files\n");
    }
    environment
        .run(["repair", "packs", "--yes"])
        .code(3)
        .complains("file 2 in snapshot ")
        .complains(": 3 files\n")
        .shows("blobs are lost");
}
