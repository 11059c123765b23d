//! `putback repo info`.

use crate::harness::{TestEnvironment, schema};

#[test]
fn the_repository_and_what_it_takes_are_shown() {
    let environment = TestEnvironment::with_snapshot();
    environment
        .run(["repo", "info", "--human"])
        .success()
        .shows("repository ")
        .shows("packs")
        .shows("MiB");
    let info = environment.run(["repo", "info", "--json"]).success().document();
    schema::check("repo info", "document", &info);
    assert_eq!((&info["snapshots"], &info["key_slots"]), (&1.into(), &1.into()));
    assert!(info["packs"].as_u64().unwrap() >= 1);
    assert!(info["total_bytes"].as_u64().unwrap() > info["pack_bytes_total"].as_u64().unwrap());
}
