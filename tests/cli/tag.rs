//! `putback tag`.

use crate::harness::{TestEnvironment, assert_same_tree, schema};

/// Three snapshots, the second of which alone has a file whose pack is gone. Its short id, that of the pack, and the
/// name of the file.
pub(super) fn with_lost_pack() -> (TestEnvironment, String, String, &'static str) {
    let environment = TestEnvironment::with_snapshot();
    let packs = || {
        let packs = std::fs::read_dir(environment.path("repository/packs")).unwrap();
        packs.map(|pack| pack.unwrap().path()).collect::<std::collections::BTreeSet<_>>()
    };
    let before = packs();
    let mut noise = vec![0; 400_000];
    blake3::Hasher::new_keyed(&[3; 32]).finalize_xof().fill(&mut noise);
    let file = environment.write("lost.bin", noise);
    environment.backup();
    let id = snapshots(&environment)[1]["short_id"].as_str().unwrap().to_owned();
    let is_data = |pack: &&std::path::PathBuf| pack.metadata().unwrap().len() > 100_000;
    let pack = packs().difference(&before).find(is_data).unwrap().clone();
    std::fs::remove_file(file).unwrap();
    environment.write("later.txt", "later");
    environment.backup();
    std::fs::remove_file(&pack).unwrap();
    let name = pack.file_name().unwrap().to_str().unwrap()[..8].to_owned();
    (environment, id, name, "lost.bin")
}

fn snapshots(environment: &TestEnvironment) -> Vec<serde_json::Value> {
    let all = environment.run(["snapshots", "--json"]).success().document();
    all.as_array().unwrap().clone()
}

#[test]
fn tags_change_and_everything_else_stays() {
    let environment = TestEnvironment::with_snapshot();
    environment.run(["restore", "latest", "--target", "before"]).success();
    let before = snapshots(&environment).remove(0);
    let id = before["short_id"].as_str().unwrap();
    environment
        .run(["tag", "--add", "tax,important", "latest"])
        .success()
        .shows(&format!("snapshot {id} is now "))
        .shows("tags important,tax\n")
        .shows("1 snapshot changed, 0 as they should be");
    let after = snapshots(&environment).remove(0);
    assert_eq!(after["tags"], serde_json::json!(["important", "tax"]));
    assert_ne!(after["id"], before["id"]);
    for field in ["time", "hostname", "username", "paths", "summary", "description"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    environment.run(["restore", "latest", "--target", "after"]).success();
    assert_same_tree(&environment.path("work/before"), &environment.path("work/after"));
    // What was replaced is no loss that has to be told, nor something to bring back.
    assert_eq!(environment.run(["check"]).success().stderr(), "");
    environment.run(["undelete"]).success().shows("0 forgotten snapshots");
}

#[test]
fn tags_are_added_removed_and_set_where_the_filters_say() {
    let environment = TestEnvironment::with_repository();
    environment.write("a", "a");
    let source = environment.source();
    let source = source.to_str().unwrap();
    for host in ["box", "lap"] {
        environment.run(["backup", source, "--host", host, "--tag", "daily"]).success();
    }
    let tags = |arguments: &[&str]| {
        environment.run(["tag"].iter().chain(arguments)).success();
        snapshots(&environment).iter().map(|s| s["tags"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(tags(&["--add", "x", "--host", "lap"]), [r#"["daily"]"#, r#"["daily","x"]"#]);
    assert_eq!(tags(&["--remove", "daily", "--add", "y"]), [r#"["y"]"#, r#"["x","y"]"#]);
    assert_eq!(tags(&["--set", "z", "--tag", "x"]), [r#"["y"]"#, r#"["z"]"#]);
    assert_eq!(tags(&["--set", "", "-n"]), [r#"["y"]"#, r#"["z"]"#]);
    assert_eq!(tags(&["--set", ""]), ["[]", "[]"]);
}

#[test]
fn programs_get_old_and_new_ids() {
    let environment = TestEnvironment::with_snapshot();
    let run = environment.run(["tag", "--json", "--add", "x"]).success();
    let messages = run.messages();
    schema::check_messages("tag", &messages);
    assert_eq!(messages[0]["new_snapshot_id"], snapshots(&environment)[0]["id"]);
    assert_eq!(messages[1]["changed_snapshots"], 1);
    let again = environment.run(["tag", "--json", "--add", "x"]).success().message("summary");
    assert_eq!(
        (&again["changed_snapshots"], &again["unchanged_snapshots"]),
        (&0.into(), &1.into())
    );
}

#[test]
fn wrong_usage_is_told_and_quiet_is_quiet() {
    let environment = TestEnvironment::with_snapshot();
    environment.run(["tag", "latest"]).code(2).complains("--add TAGS");
    environment.run(["tag", "--set", "a", "--add", "b"]).code(2).complains("--set");
    environment.run(["tag", "--add", "a", "ffffffff"]).code(1).complains("no snapshot matches");
    environment.run(["tag", "-q", "--add", "a"]).success().silent();
}

#[test]
fn a_snapshot_of_which_something_is_lost_stays_and_is_named() {
    let (environment, id, pack, _) = with_lost_pack();
    let run = environment.run(["tag", "--add", "tax"]).code(3);
    run.shows("2 snapshots changed, 0 as they should be")
        .complains(&format!("error: snapshot {id} stays as it is\n  caused by: blob "))
        .complains(&format!(" is lost: pack {pack} is missing\n"))
        .complains("hint: `putback repair packs` saves")
        .complains("`putback repair snapshots`")
        .complains("is missing; a backup stores again what it needs of it");
    let tagged: Vec<bool> =
        snapshots(&environment).iter().map(|s| s["tags"] == serde_json::json!(["tax"])).collect();
    assert_eq!(tagged, [true, false, true]);
    environment
        .run(["tag", "--add", "more", &id])
        .code(1)
        .complains(&format!("snapshot {id} stays as it is"))
        .complains("error: no snapshot was changed\nhint: `putback repair packs`");
    let run = environment.run(["tag", "--json", "--set", "x"]).code(3);
    schema::check_messages("tag", &run.messages());
    assert_eq!(run.message("summary")["error_count"], 1);
    let errors = run.error_messages();
    let error = errors.iter().find(|message| message["message_type"] == "error").unwrap();
    schema::check("tag", "error", error);
    assert!(error["item"].as_str().unwrap().starts_with(&id), "{error}");
    // The recipe that it hints at leads to a repository in which all can be changed.
    environment.run(["repair", "snapshots", "--forget", "--yes"]).code(0);
    environment.run(["tag", "--add", "whole"]).success().shows("3 snapshots changed");
}
