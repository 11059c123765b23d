//! `putback rewrite`.

use crate::harness::{TestEnvironment, assert_same_tree, schema};

fn snapshots(environment: &TestEnvironment) -> Vec<serde_json::Value> {
    let all = environment.run(["snapshots", "--json"]).success().document();
    all.as_array().unwrap().clone()
}

#[test]
fn a_path_is_removed_from_all_snapshots_and_everything_else_stays() {
    let environment = TestEnvironment::with_snapshot();
    environment.write("folder/secret.key", vec![42; 5000]);
    environment.backup();
    environment.write("later.txt", "later\n");
    environment.backup();
    let before = snapshots(&environment);
    let run = environment.run(["rewrite", "--exclude", "secret.key", "-n"]).success();
    run.shows("would be rewritten, without 1 file (4.9 KiB)")
        .shows("[ROOT]/source/folder/secret.key (4.9 KiB)")
        .shows("2 snapshots to rewrite, 1 as they should be")
        .shows("dry run: nothing was changed");
    assert_eq!(snapshots(&environment), before);

    environment
        .run(["rewrite", "--exclude", "secret.key"])
        .success()
        .shows("2 snapshots rewritten, 1 as they should be")
        .shows("the old snapshots are forgotten")
        .shows("putback prune --purge");
    let after = snapshots(&environment);
    assert_eq!(after.len(), 3);
    assert_eq!(after[0], before[0], "nothing was removed from the first");
    for (old, new) in before.iter().zip(&after).skip(1) {
        assert_ne!(old["id"], new["id"]);
        for field in ["time", "hostname", "username", "paths", "tags"] {
            assert_eq!(old[field], new[field], "{field}");
        }
        let total = |snapshot: &serde_json::Value| {
            let summary = &snapshot["summary"];
            (summary["total_files_processed"].as_u64(), summary["total_bytes_processed"].as_u64())
        };
        let ((files, bytes), (files_left, bytes_left)) = (total(old), total(new));
        assert_eq!(files_left, files.map(|files| files - 1));
        assert_eq!(bytes_left, bytes.map(|bytes| bytes - 5000));
    }
    environment.run(["ls", "--recursive", "latest"]).success().hides("secret").shows("later.txt");
    std::fs::remove_file(environment.source().join("folder/secret.key")).unwrap();
    environment.run(["restore", "latest", "--target", "after"]).success();
    let restored =
        environment.path("work/after").join(environment.source().strip_prefix("/").unwrap());
    assert_same_tree(&environment.source(), &restored);
    assert_eq!(environment.run(["check", "--read-data"]).success().stderr(), "");
    // Until prune has removed it, it can be had back.
    environment.run(["undelete"]).success().shows("2 forgotten snapshots can be brought back");
    environment
        .run(["rewrite", "--exclude", "secret.key"])
        .success()
        .shows("0 snapshots rewritten");
}

#[test]
fn what_was_removed_leaves_the_storage_with_a_purge() {
    let environment = TestEnvironment::with_repository();
    // Does not compress, so that the storage shows whether it is there.
    let mut secret = vec![0; 3_000_000];
    let mut state = 1u64;
    for byte in &mut secret {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
    environment.write("a.txt", "first file\n".repeat(100));
    environment.write("secret.key", &secret);
    environment.backup();
    let stored = || {
        let packs = std::fs::read_dir(environment.path("repository/packs")).unwrap();
        packs.map(|pack| pack.unwrap().metadata().unwrap().len()).sum::<u64>()
    };
    assert!(stored() > 3_000_000);
    environment.run(["rewrite", "--exclude", "secret.key"]).success();
    assert!(stored() > 3_000_000, "still there for undelete");
    environment.run(["prune", "--purge", "--instant", "--yes"]).success();
    assert!(stored() < 100_000, "{} bytes are left", stored());
    environment.run(["check", "--read-data"]).success();
    environment.run(["undelete"]).success().shows("0 forgotten snapshots");
}

#[test]
fn words_about_a_snapshot_change_and_the_old_one_stays_if_asked() {
    let environment = TestEnvironment::with_snapshot();
    let before = snapshots(&environment).remove(0);
    environment
        .run([
            "rewrite",
            "--set-host",
            "lap",
            "--set-user",
            "bob",
            "--set-description",
            "the first",
            "--set-time",
            "2026-01-02T03:04:05Z",
            "--add-tag",
            "a,b",
            "--keep",
            "latest",
        ])
        .success()
        .shows("1 snapshot rewritten, 0 as they should be")
        .shows(&format!("  hostname: '{}' -> 'lap'\n", before["hostname"].as_str().unwrap()))
        .shows(&format!("  username: '{}' -> 'bob'\n", before["username"].as_str().unwrap()))
        .shows("  description: none -> 'the first'\n")
        .shows("  tags: none -> 'a,b'\n")
        .shows("' -> '2026-01-02T05:04:05+02:00'\n")
        .hides("prune");
    let all = snapshots(&environment);
    assert_eq!(all.len(), 2);
    assert!(all.contains(&before));
    let new = all.iter().find(|snapshot| **snapshot != before).unwrap();
    assert_eq!((&new["hostname"], &new["username"]), (&"lap".into(), &"bob".into()));
    assert_eq!(new["description"], "the first");
    assert_eq!(new["tags"], serde_json::json!(["a", "b"]));
    assert!(new["time"].as_str().unwrap().starts_with("2026-01-02T05:04:05"), "{}", new["time"]);
    assert_eq!(new["summary"], before["summary"]);
    environment
        .run(["rewrite", "--new-host", "lap", "--host", "lap"])
        .success()
        .shows("0 snapshots rewritten, 1 as they should be");
}

#[test]
fn other_names_of_a_removed_file_keep_its_content() {
    let environment = TestEnvironment::with_repository();
    environment.write("kept/one", vec![5; 100_000]);
    std::fs::hard_link(
        environment.source().join("kept/one"),
        environment.source().join("kept/two"),
    )
    .unwrap();
    std::fs::hard_link(environment.source().join("kept/one"), environment.source().join("gone"))
        .unwrap();
    environment.backup();
    let gone = environment.source().join("gone");
    environment.run(["rewrite", "--exclude", gone.to_str().unwrap()]).success();
    environment.run(["prune", "--purge", "--instant", "--yes"]).success();
    environment.run(["restore", "latest", "--target", "after"]).success();
    std::fs::remove_file(gone).unwrap();
    let restored =
        environment.path("work/after").join(environment.source().strip_prefix("/").unwrap());
    assert_same_tree(&environment.source(), &restored);
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let inode = |name| std::fs::metadata(restored.join(name)).unwrap().ino();
        assert_eq!(inode("kept/one"), inode("kept/two"), "they are still one file");
    }
}

#[test]
fn programs_get_what_was_removed_and_old_and_new_ids() {
    let environment = TestEnvironment::with_snapshot();
    let run = environment.run(["rewrite", "--json", "--iexclude", "DEEPER"]).success();
    let messages = run.messages();
    schema::check_messages("rewrite", &messages);
    let of_type = |name: &str| messages.iter().filter(|m| m["message_type"] == name).count();
    assert_eq!((of_type("removed"), of_type("changed")), (1, 1));
    let removed = run.message("removed");
    assert!(removed["item"].as_str().unwrap().ends_with("/folder/deeper"));
    assert_eq!((&removed["files"], &removed["bytes"]), (&1.into(), &300_000.into()));
    assert_eq!(run.message("changed")["changes"], serde_json::json!([]));
    assert_eq!(run.message("changed")["new_snapshot_id"], snapshots(&environment)[0]["id"]);
    assert_eq!(run.message("summary")["bytes_removed"], 300_000);
    let run = environment
        .run(["rewrite", "--json", "-n", "--set-host", "lap", "--add-tag", "b,a"])
        .success();
    schema::check_messages("rewrite", &run.messages());
    let old = &snapshots(&environment)[0]["hostname"];
    let expected = serde_json::json!([
        { "field": "hostname", "old": old, "new": "lap" },
        { "field": "tags", "old": "", "new": "a,b" },
    ]);
    assert_eq!(run.message("changed")["changes"], expected);
}

#[test]
fn wrong_usage_is_told_and_a_snapshot_is_not_emptied() {
    let mut environment = TestEnvironment::with_snapshot();
    environment.run(["rewrite"]).code(2).complains("--exclude PATTERN");
    environment.run(["rewrite", "--set-tag", "a", "--add-tag", "b"]).code(2).complains("--set-tag");
    environment.run(["rewrite", "--exclude", "[a"]).code(2).complains("[a");
    environment
        .run(["rewrite", "--exclude", "*"])
        .code(1)
        .complains("nothing would be left of it")
        .complains("no snapshot was rewritten");
    assert_eq!(snapshots(&environment).len(), 1);
    // What is set for backups removes nothing.
    environment.set("PUTBACK_EXCLUDE", "*.txt");
    environment
        .run(["rewrite", "--set-host", "x"])
        .code(2)
        .complains("PUTBACK_EXCLUDE is for backups");
}

#[test]
fn many_snapshots_get_one_time_only_if_each_is_named() {
    let environment = TestEnvironment::with_snapshot();
    environment.write("later.txt", "later\n");
    environment.backup();
    let before = snapshots(&environment);
    let time = ["rewrite", "--set-time", "2026-01-02T03:04:05Z"];
    for more in [&[][..], &["-n"], &["--path", environment.source().to_str().unwrap()]] {
        environment
            .run(time.iter().chain(more))
            .code(2)
            .complains("--set-time would give 2 snapshots the same time")
            .complains("hint: name the snapshots");
    }
    assert_eq!(snapshots(&environment), before);
    environment
        .run(time.iter().chain(&["latest", "latest~1"]))
        .success()
        .shows("2 snapshots rewritten");
    let after = snapshots(&environment);
    assert_eq!(after.len(), 2);
    assert_eq!(after[0]["time"], after[1]["time"]);
}

#[test]
fn a_snapshot_is_not_left_with_nothing_but_the_way_to_what_it_held() {
    let environment = TestEnvironment::with_snapshot();
    let before = snapshots(&environment);
    let source = environment.source();
    let root = environment.path("");
    for all in [source.to_str().unwrap(), root.to_str().unwrap().trim_end_matches('/')] {
        environment
            .run(["rewrite", "latest", "--exclude", all])
            .code(1)
            .complains("nothing would be left of it: forget it instead")
            .complains("no snapshot was rewritten");
    }
    assert_eq!(snapshots(&environment), before);
    // The folder itself is something that was backed up.
    let below = format!("{}/*", source.display());
    environment.run(["rewrite", "latest", "--exclude", &below]).success().shows("1 snapshot rew");
    environment.run(["ls", "--recursive", "latest"]).success().shows("/source").hides("a.txt");
}

#[test]
fn damaged_snapshots_stay_and_what_is_lost_can_be_removed() {
    let (environment, id, pack, file) = super::tag::with_lost_pack();
    environment
        .run(["rewrite", "--set-user", "bob"])
        .code(3)
        .shows("2 snapshots rewritten, 0 as they should be")
        .complains(&format!("error: snapshot {id} stays as it is\n  caused by: blob "))
        .complains(&format!(" is lost: pack {pack} is missing\n"))
        .complains("hint: `putback repair packs` saves");
    environment
        .run(["rewrite", "--set-user", "eve", &id])
        .code(1)
        .complains("error: no snapshot was rewritten\nhint: `putback repair packs`");
    // Without what is lost it needs nothing of that.
    environment
        .run(["rewrite", "--exclude", file, &id])
        .success()
        .shows("1 snapshot rewritten")
        .hides("stays as it is");
    environment.run(["rewrite", "--set-user", "eve"]).success().shows("3 snapshots rewritten");
}
