//! `putback find`.

use crate::harness::{TestEnvironment, schema};

#[test]
fn files_are_found_in_all_snapshots() {
    let environment = TestEnvironment::with_snapshot();
    environment.write("new.txt", "x");
    environment.backup();
    let text = environment.run(["find", "*.txt"]).success().stdout();
    assert_eq!(text.lines().filter(|line| line.starts_with("snapshot ")).count(), 2, "{text}");
    assert_eq!(text.matches("a.txt").count(), 2, "{text}");
    assert_eq!(text.matches("new.txt").count(), 1, "{text}");
    let text =
        environment.run(["find", "*.txt", "-s", "latest~1"]).success().hides("new.txt").stdout();
    assert_eq!(text.matches("a.txt").count(), 1, "{text}");
}

#[test]
fn conditions_narrow_what_is_found() {
    let environment = TestEnvironment::with_snapshot();
    let hits = |arguments: &[&str]| {
        let document =
            environment.run(["find", "--json"].iter().chain(arguments)).success().document();
        schema::check("find", "document", &document);
        document
            .as_array()
            .unwrap()
            .iter()
            .map(|group| group["hits"].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(hits(&["A.TXT"]), 0);
    assert_eq!(hits(&["A.TXT", "-i"]), 1);
    assert_eq!(hits(&["a.txt", "b.txt"]), 2);
    assert_eq!(hits(&["*", "--type", "f"]), 3);
    assert_eq!(hits(&["*", "--type", "f", "--size", "+100K"]), 1);
    assert_eq!(hits(&["*", "--type", "f", "--size", "-100K"]), 2);
    assert_eq!(hits(&["*.txt", "--newer", "1d"]), 2);
    assert_eq!(hits(&["*.txt", "--older", "1d"]), 0);
    assert_eq!(hits(&["*.txt", "--newer", "2099-01-01"]), 0);
}

#[test]
fn conditions_that_make_no_sense_are_wrong_usage() {
    let environment = TestEnvironment::new();
    environment.run(["find"]).code(2).complains("PATTERN");
    environment.run(["find", "x", "--size", "+much"]).code(2).complains("'much' is not a size");
    environment.run(["find", "x", "--newer", "soon"]).code(2).complains("soon");
    environment.run(["find", "x", "--type", "q"]).code(2).complains("'q'");
}
