//! `putback undelete`.

use crate::harness::{TestEnvironment, assert_same_tree, schema};

/// Two snapshots; the first alone has `gone.bin`. Ids, the older first.
fn two() -> (TestEnvironment, Vec<String>) {
    let environment = TestEnvironment::with_repository();
    let gone = environment.write("gone.bin", [1; 200_000]);
    environment.write("kept.txt", "kept");
    environment.backup();
    std::fs::remove_file(gone).unwrap();
    environment.backup();
    let ids = ids(&environment);
    (environment, ids)
}

fn ids(environment: &TestEnvironment) -> Vec<String> {
    let all = environment.run(["snapshots", "--json"]).success().document();
    let id = |snapshot: &serde_json::Value| snapshot["short_id"].as_str().unwrap().to_owned();
    all.as_array().unwrap().iter().map(id).collect()
}

#[test]
fn what_was_forgotten_comes_back_under_a_new_id_with_the_same_content() {
    let (environment, all) = two();
    environment.run(["restore", "latest~1", "--target", "before"]).success();
    environment.run(["undelete"]).success().shows("0 forgotten snapshots");
    environment.run(["forget", &all[0]]).success();
    environment.run(["undelete", "--list"]).success().shows(&all[0]).shows("1 forgotten snapshot");
    let list = environment.run(["undelete", "--json"]).success().document();
    schema::check("snapshots", "document", &list);
    assert_eq!(list[0]["short_id"], all[0].as_str());
    environment.run(["undelete", "--all", "-n"]).success().shows("would come back");
    assert_eq!(ids(&environment), [&*all[1]]);

    let run = environment.run(["undelete", &all[0][..6]]).success();
    let run = run.shows(&format!("snapshot {} is back as ", all[0]));
    let new = run.stdout().trim().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(ids(&environment), [&*new, &*all[1]], "its time is what it was");
    environment.run(["restore", &new, "--target", "after"]).success();
    assert_same_tree(&environment.path("work/before"), &environment.path("work/after"));
    // It is there: neither listed nor brought back again.
    environment.run(["undelete"]).success().shows("0 forgotten snapshots");
    environment.run(["undelete", "--all"]).success().shows("nothing to bring back");
    environment.run(["undelete", &all[0]]).success().complains("is there already, as");
    assert_eq!(ids(&environment).len(), 2);
    environment.run(["undelete", &all[1]]).code(1).complains("is not forgotten");
}

#[test]
fn what_prune_has_marked_comes_back_and_what_it_has_removed_does_not() {
    let (environment, all) = two();
    environment.run(["restore", "latest~1", "--target", "before"]).success();
    environment.run(["forget", &all[0], "--prune"]).success();
    let run = environment.run(["undelete", "--all", "--json"]).success();
    let messages = run.messages();
    schema::check_messages("undelete", &messages);
    assert_eq!(messages[1]["undeleted_snapshots"], 1);
    let new = messages[0]["new_snapshot_id"].as_str().unwrap().to_owned();
    environment.run(["prune", "--grace", "0s"]).success();
    environment.run(["restore", &new, "--target", "after"]).success();
    assert_same_tree(&environment.path("work/before"), &environment.path("work/after"));
    environment.run(["check", "--read-data"]).success();

    environment.run(["forget", &new]).success();
    environment.run(["prune", "--instant"]).success();
    environment
        .run(["undelete", &new])
        .code(1)
        .complains("was forgotten, and prune has removed it")
        .complains("`putback undelete` lists");
    environment
        .run(["undelete", "ffffffff"])
        .code(1)
        .complains("no forgotten snapshot matches 'ffffffff'")
        .complains("hint: `putback undelete --list` shows");
}

#[test]
fn wrong_usage_is_told_and_quiet_is_quiet() {
    let (environment, all) = two();
    environment.run(["undelete", &all[0], "--all"]).code(2).complains("--all");
    environment.run(["undelete", &all[0], "--list"]).code(2).complains("--list");
    environment
        .run(["undelete", "latest"])
        .code(2)
        .complains("'latest' is not a forgotten snapshot: use its id")
        .complains("hint: `putback undelete --list` shows");
    environment.run(["forget", &all[0]]).success();
    environment.run(["-q", "undelete", &all[0]]).success().silent();
    assert_eq!(ids(&environment).len(), 2);
}
