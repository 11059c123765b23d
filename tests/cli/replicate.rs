//! `putback replicate`, and `putback init --like`.

use std::ffi::OsStr;
use std::path::Path;

use crate::harness::{Run, TestEnvironment, assert_same_tree, schema};

/// A repository with a snapshot, and a second one whose password differs.
fn two(like: bool) -> TestEnvironment {
    let mut environment = TestEnvironment::with_snapshot();
    environment.set("PUTBACK_TO_PASSWORD", "another password");
    let second = environment.path("second");
    let first = environment.path("repository");
    let password = environment.path("password");
    std::fs::write(&password, "another password\n").unwrap();
    let mut arguments = vec![
        OsStr::new("init"),
        OsStr::new("--kdf-cost"),
        OsStr::new("low"),
        OsStr::new("--repo"),
        second.as_os_str(),
        OsStr::new("--password-file"),
        password.as_os_str(),
    ];
    if like {
        environment.set("PUTBACK_LIKE_PASSWORD", crate::harness::PASSWORD);
        arguments.extend([OsStr::new("--like"), first.as_os_str()]);
    }
    environment.run(arguments).success();
    environment
}

fn replicate(environment: &TestEnvironment, arguments: &[&str]) -> Run {
    let second = environment.path("second");
    let fixed = [OsStr::new("replicate"), OsStr::new("--to"), second.as_os_str()];
    environment.run(fixed.into_iter().chain(arguments.iter().map(OsStr::new)))
}

/// Runs a command on the second repository.
fn on_second(environment: &TestEnvironment, arguments: &[&str]) -> Run {
    let second = environment.path("second");
    let password = environment.path("password");
    let fixed = [
        OsStr::new("--repo"),
        second.as_os_str(),
        OsStr::new("--password-file"),
        password.as_os_str(),
    ];
    environment.run(fixed.into_iter().chain(arguments.iter().map(OsStr::new)))
}

fn second_snapshots(environment: &TestEnvironment) -> Vec<serde_json::Value> {
    on_second(environment, &["snapshots", "--json"])
        .success()
        .document()
        .as_array()
        .unwrap()
        .clone()
}

fn restored(environment: &TestEnvironment, target: &str) -> std::path::PathBuf {
    on_second(environment, &["restore", "latest", "--target", target]).success();
    let source = environment.source();
    environment.path("work").join(target).join(source.strip_prefix(Path::new("/")).unwrap())
}

fn check_copies(like: bool) {
    let environment = two(like);
    environment.write("folder/inline", "few");
    environment
        .write("folder/deeper/d.bin", (0..3_000_000u32).map(|n| (n / 7) as u8).collect::<Vec<_>>());
    environment.backup();
    replicate(&environment, &["-n"])
        .success()
        .shows("2 snapshots to copy, 0 there already")
        .shows("dry run: nothing was changed");
    let run = replicate(&environment, &["--json"]).success();
    let messages = run.messages();
    schema::check_messages("replicate", &messages);
    let summary = run.message("summary");
    assert_eq!(summary["is_like"], like);
    assert_eq!(
        (&summary["copied_snapshots"], &summary["missing_snapshots"]),
        (&2.into(), &0.into())
    );

    let originals = environment.run(["snapshots", "--json"]).success().document();
    let copies = second_snapshots(&environment);
    assert_eq!(copies.len(), 2);
    for (original, copy) in originals.as_array().unwrap().iter().zip(&copies) {
        assert_ne!(original["id"], copy["id"]);
        for field in ["time", "hostname", "username", "paths", "tags", "summary", "program_version"]
        {
            assert_eq!(original[field], copy[field], "{field}");
        }
    }
    assert_eq!(copies[1]["parent"], copies[0]["id"], "parents are those of the copies");
    assert_same_tree(&environment.source(), &restored(&environment, "all"));
    assert_eq!(on_second(&environment, &["check", "--read-data"]).success().stderr(), "");

    // A second run copies what is new, and reads nothing else.
    replicate(&environment, &[]).success().shows("0 snapshots copied, 2 there already");
    environment.write("folder/new", vec![9; 40_000]);
    environment.backup();
    let summary = replicate(&environment, &["--json"]).success().message("summary");
    assert_eq!(
        (&summary["copied_snapshots"], &summary["present_snapshots"]),
        (&1.into(), &2.into())
    );
    assert_eq!(summary["bytes_read"], 40_000);
    assert!(summary["bytes_added"].as_u64().unwrap() < 60_000, "{summary}");
    assert_same_tree(&environment.source(), &restored(&environment, "more"));
    // Other words make it no other copy, and going back neither.
    on_second(&environment, &["tag", "--add", "copied"]).success();
    replicate(&environment, &[]).success().shows("0 snapshots copied, 3 there already");
    let first = environment.path("repository");
    let mut back = environment;
    back.set("PUTBACK_TO_PASSWORD", crate::harness::PASSWORD);
    on_second(&back, &["replicate", "--to", first.to_str().unwrap()])
        .success()
        .shows("0 snapshots copied, 3 there already");
}

#[test]
fn snapshots_are_cut_anew_for_a_repository_of_its_own_kind() {
    check_copies(false);
}

#[test]
fn snapshots_are_copied_chunk_by_chunk_to_a_repository_that_is_like_it() {
    check_copies(true);
}

#[test]
fn paths_that_were_removed_from_a_copy_are_not_missing_in_the_next_one() {
    let environment = two(false);
    replicate(&environment, &[]).success();
    on_second(&environment, &["rewrite", "--exclude", "b.txt"])
        .success()
        .shows("1 snapshot rewritten");
    environment.write("new.txt", "new");
    environment.backup();
    replicate(&environment, &[]).success().shows("1 snapshot copied, 1 there already");
    assert_same_tree(&environment.source(), &restored(&environment, "all"));
}

#[test]
fn what_a_repair_left_out_of_a_copy_comes_back_with_the_next_run() {
    let environment = two(false);
    let mut content = vec![0; 700_000];
    blake3::Hasher::new_keyed(&[5; 32]).finalize_xof().fill(&mut content);
    environment.write("lost.bin", content);
    environment.backup();
    replicate(&environment, &[]).success().shows("2 snapshots copied");
    let packs = std::fs::read_dir(environment.path("second/packs")).unwrap();
    let packs = packs.map(|entry| entry.unwrap().path());
    let largest = packs.max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    std::fs::remove_file(largest).unwrap();
    on_second(&environment, &["repair", "packs", "--yes"]).code(3);
    on_second(&environment, &["repair", "snapshots", "--forget", "--yes"])
        .success()
        .complains("lost.bin");
    replicate(&environment, &[]).success().shows(" copied, ");
    assert_same_tree(&environment.source(), &restored(&environment, "all"));
    replicate(&environment, &[]).success().shows("0 snapshots copied, 2 there already");
    on_second(&environment, &["check", "--read-data"]).success();
}

#[test]
fn filters_and_ids_say_what_is_copied() {
    let environment = two(false);
    let source = environment.source();
    environment.run(["backup", source.to_str().unwrap(), "--tag", "keep"]).success();
    replicate(&environment, &["--tag", "keep"])
        .success()
        .shows("1 snapshot copied, 0 there already");
    replicate(&environment, &["latest"]).success().shows("0 snapshots copied, 1 there already");
    assert_eq!(second_snapshots(&environment).len(), 1);
}

#[test]
fn a_snapshot_that_cannot_be_read_is_named_and_the_others_are_copied() {
    let environment = two(false);
    let noise: Vec<u8> =
        (0..400_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    environment.write("damaged.bin", noise);
    let packs = || {
        let folder = environment.path("repository/packs");
        let mut packs: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        packs.sort();
        packs
    };
    let before = packs();
    environment.backup();
    let new = packs().into_iter().filter(|pack| !before.contains(pack));
    let largest = new.max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&largest, bytes).unwrap();
    std::fs::remove_file(environment.source().join("damaged.bin")).unwrap();
    environment.write("later.txt", "later");
    environment.backup();

    replicate(&environment, &[])
        .code(3)
        .complains("damaged.bin could not be copied")
        .complains("was not copied")
        .shows("2 snapshots copied, 0 there already");
    assert_eq!(second_snapshots(&environment).len(), 2);
    assert_same_tree(&environment.source(), &restored(&environment, "all"));
    assert_eq!(on_second(&environment, &["check", "--read-data"]).success().stderr(), "");
}

#[test]
fn wrong_usage_and_wrong_passwords_are_told() {
    let mut environment = two(true);
    environment.run(["replicate"]).code(2).complains("--to");
    let first = environment.path("repository");
    environment.set("PUTBACK_TO_PASSWORD", crate::harness::PASSWORD);
    environment
        .run([OsStr::new("replicate"), OsStr::new("--to"), first.as_os_str()])
        .code(1)
        .complains("the same repository");
    replicate(&environment, &[]).code(12).complains("wrong password");
    environment.run(["replicate", "--to", "/nowhere"]).code(10).complains("no repository");
    let third = environment.path("third");
    let like = |more: &[&str]| {
        let fixed =
            [OsStr::new("init"), OsStr::new("--repo"), third.as_os_str(), OsStr::new("--like")];
        let fixed = fixed.into_iter().chain([first.as_os_str()]);
        environment.run(fixed.chain(more.iter().map(OsStr::new)))
    };
    like(&["--chunk-size", "64K"]).code(2).complains("--chunk-size");
    let password = environment.path("password");
    like(&["--like-password-file", password.to_str().unwrap()])
        .code(12)
        .complains("wrong password");
    assert!(!third.exists(), "nothing was made");
}
