//! `putback restore`.

use std::ffi::OsStr;

use serde_json::Value;

use crate::harness::{TestEnvironment, assert_same_tree, schema};

#[test]
fn what_was_backed_up_comes_back() {
    let environment = TestEnvironment::with_snapshot();
    environment
        .run(["restore", "latest", "--target", "out"])
        .success()
        .shows("3 new")
        .shows("restoring snapshot");
    let restored =
        environment.path("work/out").join(environment.source().strip_prefix("/").unwrap());
    assert_same_tree(&environment.source(), &restored);
}

#[test]
fn the_content_of_a_folder_goes_into_the_target() {
    let environment = TestEnvironment::with_snapshot();
    let selector = format!("latest:{}/folder", environment.source().display());
    environment.run(["restore", selector.as_str(), "-t", "out"]).success();
    assert_same_tree(&environment.source().join("folder"), &environment.path("work/out"));
}

#[test]
#[cfg(unix)]
fn names_that_are_no_text_come_back_and_are_shown_escaped() {
    use std::os::unix::ffi::OsStrExt;
    let environment = TestEnvironment::with_repository();
    let names = [
        &b"line\nbreak"[..],
        b"bad\xff\xfebytes",
        b"\x1b[31mred",
        "r\u{202e}txt".as_bytes(),
        b"back\\slash",
    ];
    for name in names {
        environment.write(OsStr::from_bytes(name), "content");
    }
    environment.backup();
    let run = environment.run(["ls", "latest"]).success();
    let run = run
        .shows(r"line\nbreak")
        .shows(r"bad\xff\xfebytes")
        .shows(r"\x1b[31mred")
        .shows(r"back\\slash");
    assert!(!run.stdout_bytes().contains(&0x1b));
    let document = environment.run(["ls", "latest", "--json"]).success().document();
    let nodes = document["nodes"].as_array().unwrap();
    let bad = nodes.iter().find(|node| node["name"].as_str().unwrap().starts_with("bad")).unwrap();
    assert!(bad["path_base64"].is_string());
    assert!(nodes.iter().any(|node| node["name"] == "line\nbreak"));
    environment.run(["restore", "latest", "--target", "out", "-v"]).success();
    let restored =
        environment.path("work/out").join(environment.source().strip_prefix("/").unwrap());
    assert_same_tree(&environment.source(), &restored);
}

#[test]
fn a_checkpoint_is_restored_with_a_warning() {
    const WARNING: &str =
        "is a checkpoint of an unfinished backup: what that had not reached is missing";
    let (environment, checkpoint) = TestEnvironment::with_checkpoint();
    let selector = format!("{checkpoint}:{}", environment.source().display());
    environment.run(["restore", &selector, "-t", "first"]).success().complains(WARNING);
    assert!(environment.path("work/first/a.txt").exists());
    assert!(!environment.path("work/first/b.txt").exists());
    let latest = ["restore", "latest", "--checkpoints", "-t", "latest"];
    environment.run(latest).success().complains(WARNING);
    let run = environment.run(["restore", &checkpoint, "-t", "json", "-n", "--json"]).success();
    let messages = run.error_messages();
    let is_told = |message: &Value| {
        message["message_type"] == "warning" && message["message"].to_string().contains(WARNING)
    };
    assert!(messages.iter().any(is_told), "{messages:?}");
    environment.backup();
    let run = environment.run(["restore", "latest", "-t", "complete"]).success();
    assert!(!run.stderr().contains("checkpoint"), "{}", run.stderr());
}

#[test]
fn without_a_target_nothing_happens() {
    TestEnvironment::new().run(["restore", "latest"]).code(2).complains("no target was given");
}

#[test]
fn a_dry_run_shows_the_plan_and_writes_nothing() {
    let environment = TestEnvironment::with_snapshot();
    let run = environment.run(["restore", "latest", "-t", "out", "--dry-run"]).success();
    run.shows("restored  ").shows("a.txt").shows("dry run: nothing was written");
    assert!(!environment.path("work/out").exists());
}

#[test]
fn programs_get_a_summary_whose_fields_are_documented() {
    let environment = TestEnvironment::with_snapshot();
    let run = environment.run(["restore", "latest", "-t", "out", "--json", "-v"]).success();
    assert_eq!(run.message("summary")["files_restored"], 3);
    schema::check_messages("restore", &run.messages());
    let run = environment.run(["restore", "latest", "-t", "out", "--json"]).success();
    assert_eq!(run.message("summary")["files_unchanged"], 3);
}

#[test]
fn existing_files_are_treated_as_asked() {
    let environment = TestEnvironment::with_snapshot();
    let selector = format!("latest:{}", environment.source().display());
    std::fs::create_dir(environment.path("work/out")).unwrap();
    let file = environment.path("work/out/a.txt");
    let extra = environment.path("work/out/extra.txt");
    std::fs::write(&extra, "extra").unwrap();
    std::fs::write(&file, "mine").unwrap();
    environment.run(["restore", selector.as_str(), "-t", "out", "--overwrite", "never"]).success();
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    environment
        .run(["restore", selector.as_str(), "-t", "out", "--overwrite", "if-newer"])
        .success();
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    environment.run(["restore", selector.as_str(), "-t", "out", "--overwrite", "always"]).success();
    assert_eq!(std::fs::read(&file).unwrap(), b"first file\n");
    assert!(extra.exists());
    environment
        .run(["restore", selector.as_str(), "-t", "out", "--delete"])
        .success()
        .shows("1 deleted");
    assert!(!extra.exists());
    environment
        .run(["restore", selector.as_str(), "-t", "out", "--overwrite", "sometimes"])
        .code(2);
}

#[test]
fn deleting_leaves_the_repository_and_its_replicas_alone() {
    let mut environment = TestEnvironment::new();
    let repository = environment.path("source/deep/repository");
    environment.set("PUTBACK_REPO", &repository);
    environment.run(["init", "--kdf-cost", "low"]).success();
    environment.write("a.txt", "first file\n");
    environment.backup();
    let replica = environment.path("source/replica");
    let second = replica.to_str().unwrap();
    environment.set("PUTBACK_TO_PASSWORD", crate::harness::PASSWORD);
    environment.run(["init", "--kdf-cost", "low", "--repo", second]).success();
    environment.run(["replicate", "--to", second]).success();
    environment.write("deep/extra", "extra");
    let target = environment.source();
    let selector = format!("latest:{}", target.display());
    let arguments = ["restore", &selector, "-t", target.to_str().unwrap(), "--delete"];
    environment
        .run(arguments)
        .success()
        .shows("1 deleted")
        .complains("/deep/repository is deleted: the snapshot is in the repository there")
        .complains("/replica is deleted: it is a repository, as it seems");
    environment.run(["check", "--read-data"]).success();
    environment.set("PUTBACK_REPO", &replica);
    environment.run(["check", "--read-data"]).success();
    // From the replica, in which the folder of the first repository is not either.
    environment.run(arguments).success().shows("0 deleted");
    environment.set("PUTBACK_REPO", &repository);
    environment.run(["check", "--read-data"]).success();
}

#[test]
fn deleting_takes_what_the_backup_excluded_unless_the_restore_does_too() {
    let environment = TestEnvironment::with_repository();
    for name in ["a.txt", "b.tmp", "folder/c.tmp"] {
        environment.write(name, "content");
    }
    let source = environment.source();
    let source = source.to_str().unwrap();
    environment.run(["backup", source, "--exclude", "*.tmp"]).success();
    let selector = format!("latest:{source}");
    let arguments = ["restore", &selector, "-t", source, "--delete"];
    let exclude = ["--exclude", "*.tmp"];
    environment.run(arguments.iter().chain(&exclude)).success().shows("0 deleted");
    environment.run(arguments.iter().chain(&["-n"])).success().shows("2 deleted");
    assert!(environment.source().join("folder/c.tmp").exists());
    environment.run(arguments).success().shows("2 deleted");
    assert!(!environment.source().join("folder/c.tmp").exists());
}

#[test]
fn only_what_is_included_and_not_excluded_is_restored() {
    let environment = TestEnvironment::with_snapshot();
    let selector = format!("latest:{}", environment.source().display());
    environment.run(["restore", selector.as_str(), "-t", "in", "-i", "*.txt"]).success();
    assert!(environment.path("work/in/folder/b.txt").exists());
    assert!(!environment.path("work/in/folder/deeper/c.bin").exists());
    environment.run(["restore", selector.as_str(), "-t", "out", "--iexclude", "*.BIN"]).success();
    assert!(environment.path("work/out/a.txt").exists());
    assert!(!environment.path("work/out/folder/deeper/c.bin").exists());
}

#[test]
fn a_snapshot_or_path_that_does_not_exist_is_named() {
    let environment = TestEnvironment::with_snapshot();
    environment
        .run(["restore", "latest~5", "-t", "out"])
        .code(1)
        .complains("no snapshot matches 'latest~5'");
    environment
        .run(["restore", "latest:/no/such", "-t", "out"])
        .code(1)
        .complains("'/no/such' is not in the snapshot");
    environment.run(["restore", ":/x", "-t", "out"]).code(2);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_ends_a_restore_with_what_was_done_and_what_can_be_done() {
    let environment = TestEnvironment::with_repository();
    environment.write("a-small", "fits");
    // Random enough that no file system makes it small.
    let large: Vec<u8> = (0..400_000_u32)
        .flat_map(|i| blake3::hash(&i.to_le_bytes()).as_bytes()[..8].to_vec())
        .collect();
    environment.write("z-large", large);
    environment.backup();
    let out = environment.path("work/out");
    std::fs::create_dir(&out).unwrap();
    let script = "exec \"$PUTBACK\" restore latest --target out";
    let output = environment.on_a_disk_of("1m", &out, script);
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(14), "{stdout}{stderr}");
    assert!(stdout.contains("restored:   1 new"), "{stdout}{stderr}");
    assert!(
        stderr.contains("error: cannot write ") && stderr.contains("hint: make room"),
        "{stderr}"
    );
}

#[test]
#[cfg(unix)]
fn who_may_not_give_files_away_finds_nothing_changed_the_second_time() {
    use std::os::unix::fs::PermissionsExt;
    let environment = TestEnvironment::with_repository();
    environment.write("a.txt", "one");
    environment.write("folder/large", vec![7; 200_000]);
    std::os::unix::fs::symlink("a.txt", environment.source().join("link")).unwrap();
    environment.backup();
    // Not below what is opened up for everybody before each run.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).unwrap();
    let target = folder.path().join("out");
    for (flags, expected) in [
        (&[][..], ["3 new, 0 changed, 0 already right", "0 new, 0 changed, 3 already right"]),
        (&["--overwrite", "if-changed"], ["0 new, 0 changed, 3 already right"; 2]),
        (&["--dry-run"], ["0 new, 0 changed, 3 already right"; 2]),
    ] {
        for expected in expected {
            let arguments = ["restore", "latest", "--target", target.to_str().unwrap()];
            environment.run_unprivileged(arguments.iter().chain(flags)).success().shows(expected);
        }
    }
}

/// Needs root, as continuous integration has, and a file system that knows such files.
#[test]
#[cfg(target_os = "linux")]
fn who_may_not_make_files_immutable_finds_them_unchanged_the_second_time() {
    use rustix::fs::IFlags;
    use std::os::unix::fs::PermissionsExt;
    let environment = TestEnvironment::with_repository();
    let set = |path: &std::path::Path, flags| {
        let file = std::fs::File::open(path).unwrap();
        let others = rustix::fs::ioctl_getflags(&file).unwrap() - IFlags::IMMUTABLE;
        rustix::fs::ioctl_setflags(&file, others | flags).expect("this needs root");
    };
    let files = [("a.txt", vec![1; 3]), ("large", vec![7; 200_000]), ("linked", vec![8; 5_000])];
    let files = files.map(|(name, content)| environment.write(name, content));
    std::fs::hard_link(&files[2], environment.source().join("linked too")).unwrap();
    files.iter().for_each(|file| set(file, IFlags::IMMUTABLE));
    environment.backup();
    files.iter().for_each(|file| set(file, IFlags::empty()));
    // Not below what is opened up for everybody before each run.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).unwrap();
    let target = folder.path().join("out");
    for (flags, expected, code) in [
        (&[][..], "4 new, 0 changed, 0 already right", 3),
        (&[], "0 new, 0 changed, 4 already right", 3),
        (&["--overwrite", "if-changed"], "0 new, 0 changed, 4 already right", 3),
        (&["--dry-run"], "0 new, 0 changed, 4 already right", 0),
    ] {
        let arguments = ["restore", "latest", "--target", target.to_str().unwrap()];
        environment.run_unprivileged(arguments.iter().chain(flags)).code(code).shows(expected);
    }
}

#[test]
#[cfg(unix)]
fn a_socket_counts_as_nothing() {
    let environment = TestEnvironment::with_repository();
    environment.write("a.txt", "one");
    let _socket = std::os::unix::net::UnixListener::bind(environment.source().join("s")).unwrap();
    environment.backup();
    let run = environment.run(["restore", "latest", "--target", "out"]).success();
    run.shows("1 new, 0 changed, 0 already right, 0 kept");
}

#[test]
fn files_of_a_lost_pack_are_told_shortly_with_one_hint_at_the_end() {
    let (environment, id, pack, file) = super::tag::with_lost_pack();
    let run = environment.run(["restore", &id, "--target", "out"]).code(3);
    let line =
        format!("error: [ROOT]/source/{file} could not be restored: pack {pack} is missing\n");
    let run = run.complains(&line).complains("1 entry could not be restored completely");
    let stderr = run.stderr();
    assert_eq!(stderr.matches("hint:").count(), 1, "{stderr}");
    let hint = stderr.trim_end().lines().last().unwrap();
    assert!(hint.starts_with("hint: `putback check --read-data`"), "{stderr}");
    assert!(hint.contains("`putback repair packs`"), "{stderr}");
    let run = environment.run(["restore", "--json", &id, "--target", "again"]).code(3);
    let summary = run.message("summary");
    assert_eq!((&summary["error_count"], &summary["errors_lost"]), (&1.into(), &1.into()));
    assert_eq!(run.error_messages()[0]["kind"], "lost");
    // What fails for another reason is no damage.
    environment.run(["restore", "latest", "--target", "whole"]).success().hides("hint:");
}

#[test]
#[cfg(unix)]
fn files_and_links_are_counted_apart_as_by_backup() {
    let environment = TestEnvironment::with_repository();
    environment.write("a.txt", "one");
    environment.write("b.txt", "two");
    std::os::unix::fs::symlink("a.txt", environment.source().join("link")).unwrap();
    environment.backup().shows("in all:   2 files,");
    environment
        .run(["restore", "latest", "--target", "out"])
        .success()
        .shows("restored:   3 new")
        .shows("in all:     2 files, 1 link or special file, 6 B\n");
    let run = environment.run(["restore", "--json", "latest", "--target", "out"]).success();
    schema::check_messages("restore", &run.messages());
    let summary = run.message("summary");
    assert_eq!((&summary["total_files"], &summary["total_others"]), (&3.into(), &1.into()));
}
