//! `putback stats`.

use crate::harness::{TestEnvironment, schema};

#[test]
fn snapshots_are_counted_together_and_alone() {
    let environment = TestEnvironment::with_snapshot();
    environment.backup();
    let all = environment.run(["stats", "--json"]).success().document();
    schema::check("stats", "document", &all);
    assert_eq!((&all["snapshots_count"], &all["total_file_count"]), (&2.into(), &6.into()));
    let one = environment.run(["stats", "latest", "--json"]).success().document();
    assert_eq!(one["total_file_count"], 3);
    assert_eq!(one["total_size"], 300_023);
    assert!(one["unique_bytes"].as_u64().unwrap() <= 300_023);
    environment.run(["stats", "latest", "--human"]).success().shows("293.0 KiB").shows("files");
}
