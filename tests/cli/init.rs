//! `putback init`.

use crate::harness::{TestEnvironment, schema};

#[test]
fn a_repository_is_made_once() {
    let environment = TestEnvironment::new();
    environment
        .run(["init", "--kdf-cost", "low"])
        .success()
        .shows("created repository")
        .shows("at [ROOT]/repository");
    environment.run(["init"]).code(1).complains("there is already a repository at");
    environment.run(["snapshots"]).success();
}

#[test]
fn a_folder_with_files_of_somebody_is_left_alone() {
    let environment = TestEnvironment::new();
    let repository = environment.path("repository");
    std::fs::create_dir(&repository).unwrap();
    std::fs::write(repository.join("photo.jpg"), "mine").unwrap();
    for arguments in [&["init", "--kdf-cost", "low"][..], &["backup", "--init", "."]] {
        environment
            .run(arguments)
            .code(2)
            .complains("[ROOT]/repository is not empty: it holds photo.jpg")
            .complains("hint: give the repository a folder of its own");
    }
    assert_eq!(std::fs::read_dir(&repository).unwrap().count(), 1);
    // What stands in the root of a disk, and what an `init` that was killed may leave.
    std::fs::remove_file(repository.join("photo.jpg")).unwrap();
    for folder in ["lost+found", ".Trash-1000", "keys", "config"] {
        std::fs::create_dir(repository.join(folder)).unwrap();
    }
    environment.run(["init", "--kdf-cost", "low"]).success();
    // Then nothing else is in the way of saying what is there.
    std::fs::write(repository.join("photo.jpg"), "mine").unwrap();
    environment.run(["init"]).code(1).complains("there is already a repository at");
}

#[test]
fn a_file_is_no_place_for_a_repository() {
    let environment = TestEnvironment::new();
    let repository = environment.path("repository");
    std::fs::write(&repository, "mine").unwrap();
    environment
        .run(["init"])
        .code(2)
        .complains("[ROOT]/repository is a file, and a repository is a folder");
    let below = repository.join("below");
    let below = below.to_str().unwrap();
    let run = environment.run(["--repo", below, "init", "--kdf-cost", "low"]).code(1);
    let run = run.complains("cannot use [ROOT]/repository/below\n  caused by: not a directory");
    assert!(!run.stderr().contains("does not exist"), "{}", run.stderr());
    assert_eq!(std::fs::read(&repository).unwrap(), b"mine");
}

#[test]
fn programs_get_the_id_and_the_location() {
    let environment = TestEnvironment::new();
    let run = environment.run(["init", "--kdf-cost", "low", "--json"]).success();
    let message = run.message("initialized");
    assert_eq!(message["id"].as_str().unwrap().len(), 32);
    schema::check_messages("init", &run.messages());
}

#[test]
fn its_settings_are_kept() {
    let environment = TestEnvironment::new();
    let flags = [
        "--pack-size",
        "8M",
        "--chunk-size",
        "256K",
        "--compression",
        "better",
        "--kdf-cost",
        "low",
    ];
    environment.run(["init"].into_iter().chain(flags)).success();
    let info = environment.run(["repo", "info", "--json"]).success().document();
    assert_eq!(info["pack_bytes"], 8 << 20);
    assert_eq!(info["chunk_bytes_average"], 256 << 10);
    assert_eq!(info["compression_level"], 9);
}

#[test]
fn impossible_settings_are_refused() {
    let environment = TestEnvironment::new();
    for flags in [
        ["--kdf-cost", "extreme"],
        ["--pack-size", "big"],
        ["--compression", "23"],
        ["--compression", "best"],
        ["--chunk-size", "99999999999"],
    ] {
        environment.run(["init"].into_iter().chain(flags)).code(2).complains(flags[0]);
    }
    for flags in [["--pack-size", "1M"], ["--chunk-size", "4M"], ["--chunk-size", "100000"]] {
        assert_ne!(environment.run(["init"].into_iter().chain(flags)).stderr(), "", "{flags:?}");
        assert!(!environment.path("repository").join("config").exists(), "{flags:?}");
    }
}
