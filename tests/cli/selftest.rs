//! `putback selftest`.

use crate::harness::{TestEnvironment, schema};

#[test]
fn a_good_machine_passes_without_a_repository_and_nothing_is_left_behind() {
    let environment = TestEnvironment::new();
    std::fs::create_dir(environment.path("work/disk")).unwrap();
    let run = environment
        .run(["selftest", "--dir", "disk"])
        .success()
        .shows("ok      Argon2id (RFC 9106, 5.3)")
        .shows("ok      backup and restore: 5 files")
        .shows("ok      a fault at every request: ")
        .shows("write packs, with fsync")
        .shows("tests passed");
    assert!(!run.stdout().contains("FAILED"));
    assert_eq!(std::fs::read_dir(environment.path("work/disk")).unwrap().count(), 0);
    assert!(!environment.path("repository").exists());
    environment
        .run(["selftest", "--dir", "nowhere"])
        .code(2)
        .complains("--dir names nowhere, which does not exist");
}

#[test]
fn programs_get_each_test_and_each_speed() {
    let environment = TestEnvironment::new();
    let run = environment.run(["selftest", "--json"]).success();
    schema::check_messages("selftest", &run.messages());
    let summary = run.messages().pop().unwrap();
    let tests = summary["tests"].as_array().unwrap();
    assert!(tests.len() > 12 && tests.iter().all(|test| test["passed"] == true), "{tests:?}");
    let damage = tests.iter().find(|test| test["name"] == "damage is noticed").unwrap();
    assert!(damage["detail"].as_str().unwrap().contains(" changes of stored objects"));
    let stages = summary["stages"].as_array().unwrap();
    let is_told = |stage: &&serde_json::Value| {
        stage["bytes_per_second"].as_u64().is_some_and(|n| n > 0) || stage["milliseconds"].is_u64()
    };
    assert_eq!(stages.iter().filter(is_told).count(), 9);
}
