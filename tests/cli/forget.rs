//! `putback forget`.

use crate::harness::{TestEnvironment, schema};

/// Four snapshots on three days of `box`, one of `lap`; oldest first.
fn five() -> (TestEnvironment, Vec<String>) {
    let environment = TestEnvironment::with_repository();
    environment.write("a.txt", "one");
    let source = environment.source();
    let source = source.to_str().unwrap();
    for (host, tag, time) in [
        ("box", "important", "2026-01-01T10:00:00Z"),
        ("lap", "daily", "2026-01-01T11:00:00Z"),
        ("box", "daily", "2026-01-02T10:00:00Z"),
        ("box", "daily", "2026-01-03T10:00:00Z"),
        ("box", "daily", "2026-01-03T12:00:00Z"),
    ] {
        environment.run(["backup", source, "--host", host, "--tag", tag, "--time", time]).success();
    }
    let ids = ids(&environment);
    (environment, ids)
}

fn ids(environment: &TestEnvironment) -> Vec<String> {
    let all = environment.run(["snapshots", "--json"]).success().document();
    let id = |snapshot: &serde_json::Value| snapshot["short_id"].as_str().unwrap().to_owned();
    all.as_array().unwrap().iter().map(id).collect()
}

#[test]
fn rules_keep_what_they_name_and_the_rest_is_forgotten() {
    let (environment, all) = five();
    let dry = environment.run(["forget", "-d", "2", "--dry-run"]).success();
    let text = dry.stdout();
    let line = |id: &str| {
        text.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("no {id} in {text}"))
    };
    assert!(text.contains("host box, paths [ROOT]/source\n"), "{text}");
    assert!(line(&all[4]).starts_with("keep") && line(&all[4]).contains("daily"), "{text}");
    assert!(line(&all[3]).starts_with("forget") && line(&all[0]).starts_with("forget"), "{text}");
    assert!(line(&all[2]).starts_with("keep") && line(&all[1]).starts_with("keep"), "{text}");
    assert!(text.contains("3 snapshots kept, 2 to forget\n"), "{text}");
    assert!(text.contains("dry run: nothing was changed"), "{text}");
    assert_eq!(ids(&environment), all);

    environment
        .run(["forget", "-d", "2"])
        .success()
        .shows("3 snapshots kept, 2 forgotten\n")
        .shows("`putback undelete` brings back");
    assert_eq!(ids(&environment), [&*all[1], &*all[2], &*all[4]]);
    // The gaps in the numbers of snapshots are explained.
    assert_eq!(environment.run(["check"]).success().stderr(), "");
}

#[test]
fn what_was_made_last_stays_though_an_earlier_one_is_dated_in_the_future() {
    let environment = TestEnvironment::with_repository();
    environment.write("f", "old");
    let source = environment.source();
    let source = source.to_str().unwrap();
    environment.run(["backup", source, "--time", "2026-01-01T00:00:00Z"]).success();
    environment.run(["backup", source, "--time", "2999-01-01T00:00:00Z"]).success();
    let file = environment.write("g", "new");
    environment.run(["backup", source]).success();
    let all = ids(&environment);
    assert_eq!(all.len(), 3);
    environment
        .run(["forget", "--keep-last", "1", "--prune"])
        .success()
        .shows("2 snapshots kept, 1 forgotten")
        .shows("dated in the future")
        .complains("warning: snapshot")
        .complains("is dated in the future, by 9");
    assert_eq!(ids(&environment), all[1..]);
    environment.run(["prune", "--instant"]).success();
    environment.run(["cat", "latest", file.to_str().unwrap()]).success().shows("new");
    environment.run(["check", "--read-data"]).success();
    // Named, it goes as any other.
    environment.run(["forget", &all[1]]).success().shows("1 snapshot forgotten");
    assert_eq!(ids(&environment), all[2..]);
}

#[test]
fn paths_are_in_the_title_of_a_group_or_in_its_table() {
    let (environment, _) = five();
    let table = |arguments: &[&str]| {
        let all = [&["forget", "-n", "-l", "1"], arguments].concat();
        let text = environment.run(all).success().stdout();
        (text.matches("Paths\n").count(), text.matches("[ROOT]/source").count())
    };
    assert_eq!(table(&[]), (0, 2), "two groups");
    assert_eq!(table(&["--group-by", "host"]), (2, 5));
    assert_eq!(table(&["--group-by", "host", "--compact"]), (0, 0));
}

#[test]
fn every_kind_of_rule_is_understood() {
    let (environment, _) = five();
    let check = |arguments: &[&str], kept: u64, forgotten: u64| {
        let expected = match kept {
            1 => format!("1 snapshot kept, {forgotten} to forget\n"),
            kept => format!("{kept} snapshots kept, {forgotten} to forget\n"),
        };
        environment.run(["forget", "-n"].iter().chain(arguments)).success().shows(&expected);
    };
    check(&["--keep-last", "1"], 2, 3);
    check(&["-l", "unlimited"], 5, 0);
    check(&["-l", "-1"], 5, 0);
    check(&["--keep-hourly", "2"], 3, 2);
    check(&["--keep-weekly", "1", "--group-by", ""], 1, 4);
    check(&["-w", "1", "-m", "1", "-y", "1"], 2, 3);
    check(&["--keep-within", "1d"], 3, 2);
    check(&["--keep-within", "1d2h"], 4, 1);
    check(&["--keep-within-daily", "2w"], 4, 1);
    check(&["--keep-within-monthly", "1y5m7d2h"], 2, 3);
    check(&["--keep-tag", "important"], 3, 2);
    check(&["-l", "1", "--host", "box"], 1, 3);
    check(&["-l", "1", "--group-by", "host,tags"], 3, 2);
    let nobody = environment.run(["forget", "-l", "1", "--host", "nobody"]).success();
    nobody.shows("no snapshot matches");
}

#[test]
fn what_is_named_is_forgotten_and_the_last_of_a_group_only_if_that_is_meant() {
    let (environment, all) = five();
    environment.run(["forget", &all[0], &all[2]]).success().shows("2 snapshots forgotten\n");
    assert_eq!(ids(&environment).len(), 3);
    environment
        .run(["forget", &all[1]])
        .code(1)
        .complains("no snapshot would be left of host lap, paths [ROOT]/source")
        .complains("--unsafe-allow-remove-all");
    assert_eq!(ids(&environment).len(), 3);
    environment.run(["forget", &all[1], "--unsafe-allow-remove-all"]).success();
    environment.run(["forget", &all[1]]).code(1).complains("no snapshot matches");
    environment
        .run(["forget", "--host", "box", "--unsafe-allow-remove-all"])
        .success()
        .shows("0 snapshots kept, 2 forgotten");
    assert_eq!(ids(&environment).len(), 0);
}

#[test]
fn usage_that_would_forget_by_accident_is_wrong() {
    let (environment, all) = five();
    environment.run(["forget"]).code(2).complains("--keep-last 10");
    environment.run(["forget", "--keep-last", "0"]).code(2).complains("nothing says what");
    environment.run(["forget", "--unsafe-allow-remove-all"]).code(2).complains("--host");
    environment.run(["forget", &all[0], "-l", "1"]).code(2).complains("one or the other");
    environment.run(["forget", "--keep-within", "5 moons"]).code(2).complains("1y5m7d2h");
    environment.run(["forget", "-l", "many"]).code(2).complains("unlimited");
    environment.run(["forget", "-l", "1", "-g", "moon"]).code(2).complains("host, paths, tags");
    assert_eq!(ids(&environment), all);
    // Rules of the configuration stand back where an id is typed.
    environment.configure("[profile.home.forget]\nkeep-daily = 7\n");
    environment.run(["--profile", "home", "forget", &all[0]]).success().shows("1 snapshot");
    environment.run(["--profile", "home", "forget", "-n"]).success().shows("1 to forget");
}

#[test]
fn quiet_says_nothing() {
    let (environment, _) = five();
    environment.run(["--quiet", "forget", "-l", "1"]).success().silent();
    assert_eq!(ids(&environment).len(), 2);
}

#[test]
fn programs_get_what_is_kept_and_why_and_what_is_removed() {
    let (environment, all) = five();
    let document = environment.run(["forget", "-l", "2", "-n", "--json"]).success().document();
    schema::check("forget", "document", &document);
    assert_eq!(document[0]["host"], "box");
    assert_eq!(document[0]["keep"].as_array().unwrap().len(), 2);
    assert_eq!(document[0]["remove"][0]["short_id"], all[0].as_str());
    assert_eq!(document[0]["reasons"][0]["matches"][0], "last");
    let run = environment.run(["forget", "-l", "2", "--prune", "--json"]).success();
    let text = run.stdout();
    let summary = text.lines().last().unwrap();
    schema::check("prune", "summary", &serde_json::from_str(summary).unwrap());
}

#[test]
fn a_prune_may_follow() {
    let environment = TestEnvironment::with_snapshot();
    environment.write("a.txt", "second text\n");
    environment.write("folder/deeper/c.bin", "shorter");
    environment.backup();
    environment.run(["forget", "-l", "1", "--prune", "-n"]).success().shows("to mark:");
    environment
        .run(["forget", "-l", "1", "--prune"])
        .success()
        .shows("1 snapshot kept, 1 forgotten")
        .shows("marked: ");
}
