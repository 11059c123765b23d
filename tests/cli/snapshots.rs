//! `putback snapshots`.

use crate::harness::{TestEnvironment, schema};

fn three() -> TestEnvironment {
    let environment = TestEnvironment::with_repository();
    environment.write("a.txt", "one");
    let source = environment.source();
    let source = source.to_str().unwrap();
    for (host, tag, time) in [
        ("box", "daily", "2026-01-01T00:00:00Z"),
        ("box", "daily,important", "2026-01-02T00:00:00Z"),
        ("lap", "weekly", "2026-01-03T00:00:00Z"),
    ] {
        environment.run(["backup", source, "--host", host, "--tag", tag, "--time", time]).success();
    }
    environment
}

#[test]
fn they_are_listed_oldest_first_with_local_times() {
    let run = three().run(["snapshots"]).success().shows("3 snapshots");
    let text = run.stdout();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("ID"), "{text}");
    assert!(
        lines[1].contains("2026-01-01T02:00:00+02:00  box") && lines[1].contains("[ROOT]/source"),
        "{text}"
    );
    assert!(lines[3].contains("2026-01-03T02:00:00+02:00  lap"), "{text}");
    assert_eq!(lines[4], "3 snapshots");
}

#[test]
fn a_snapshot_from_the_future_is_marked_and_hides_nothing_that_was_made_after_it() {
    let environment = TestEnvironment::with_repository();
    let file = environment.write("a.txt", "old");
    let source = environment.source();
    let source = source.to_str().unwrap();
    environment.run(["backup", source, "--time", "2999-01-01T00:00:00Z"]).success();
    environment
        .run(["snapshots"])
        .success()
        .shows("(future)")
        .complains("dated in the future, by 9");
    environment.run(["cat", "latest", file.to_str().unwrap()]).success().complains("is wrong now");

    environment.write("a.txt", "new");
    let warned = environment.run(["backup", source]).success();
    let warned = warned
        .complains("the clock of the machine that made it was wrong, or the clock of this machine")
        .complains("hint: this machine's clock says 20")
        .complains("putback rewrite SNAPSHOT --set-time");
    assert_eq!(warned.stderr().matches("warning:").count(), 1);
    let cat = environment.run(["cat", "latest", file.to_str().unwrap()]).success().shows("new");
    assert_eq!(cat.stderr(), "", "what is not in the future needs no warning");
    // It is the parent of the next backup, too.
    let summary = environment.run(["backup", source, "--json"]).success().message("summary");
    let all = environment.run(["snapshots", "--json"]).success().document();
    let ids: Vec<_> = all.as_array().unwrap().iter().map(|snapshot| &snapshot["id"]).collect();
    assert_eq!((&summary["parent"], &summary["snapshot_id"]), (ids[1], ids[2]));
    // With other words it does not come to the front.
    let future = ids[0].as_str().unwrap();
    environment.run(["tag", "--add", "odd", future]).success();
    environment.run(["cat", "latest", file.to_str().unwrap()]).success().shows("new");
    environment.run(["snapshots", "--tag", "odd"]).success().shows("(future)");

    // Its time can be put right.
    environment.run(["rewrite", "--tag", "odd", "--set-time", "2026-01-01T00:00:00Z"]).success();
    let listed = environment.run(["snapshots"]).success().hides("(future)");
    assert_eq!(listed.stderr(), "");
}

#[test]
fn filters_choose_among_them() {
    let environment = three();
    let source = environment.source();
    let source = source.to_str().unwrap();
    let check = |arguments: &[&str], count: usize| {
        let all =
            environment.run(["snapshots", "--json"].iter().chain(arguments)).success().document();
        assert_eq!(all.as_array().unwrap().len(), count, "{arguments:?}");
    };
    check(&[], 3);
    check(&["--host", "box"], 2);
    check(&["--host", "box,lap"], 3);
    check(&["--tag", "daily"], 2);
    check(&["--tag", "daily,important"], 1);
    check(&["--tag", "important", "--tag", "weekly"], 2);
    check(&["--path", source], 3);
    check(&["--path", "/elsewhere"], 0);
    check(&["--latest", "1"], 2);
    check(&["latest"], 1);
    check(&["latest", "latest~0"], 1);
    check(&["latest~1", "--host", "box"], 1);
}

#[test]
fn groups_have_their_own_tables() {
    let environment = three();
    environment
        .run(["snapshots", "-g", "host"])
        .success()
        .shows("host box\n")
        .shows("\nhost lap\n");
    let groups =
        environment.run(["snapshots", "--group-by", "host,tags", "--json"]).success().document();
    assert_eq!(groups.as_array().unwrap().len(), 3);
    schema::check("snapshots", "document with `--group-by`", &groups);
    environment.run(["snapshots", "-g", "moon"]).code(2).complains("moon");
}

#[test]
fn fewer_columns_are_shown_if_that_is_asked_for() {
    three().run(["snapshots", "-c"]).success().hides("Paths").hides("source").shows("important");
}

#[test]
fn programs_get_one_document_whose_fields_are_documented() {
    let environment = three();
    let all = environment.run(["snapshots", "--json"]).success().document();
    assert_eq!(all[0]["time"], "2026-01-01T02:00:00+02:00");
    assert!(all[0]["id"].as_str().unwrap().starts_with(all[0]["short_id"].as_str().unwrap()));
    assert_eq!(all[1]["parent"], all[0]["id"]);
    schema::check("snapshots", "document", &all);
}

#[test]
fn what_names_no_snapshot_is_an_error() {
    let environment = three();
    environment.run(["snapshots", "latest~3"]).code(1).complains("no snapshot matches 'latest~3'");
    environment.run(["snapshots", "newest"]).code(2).complains("'newest' is not a snapshot");
}
