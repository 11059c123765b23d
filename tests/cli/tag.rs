//! `putback tag`.

use crate::harness::{TestEnvironment, assert_same_tree, schema};

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
