//! `putback dump`.

use std::process::Command;

use crate::harness::{TestEnvironment, assert_same_tree};

#[test]
fn a_folder_becomes_a_tar_archive() {
    let environment = TestEnvironment::with_snapshot();
    let selector = format!("latest:{}", environment.source().display());
    environment.run(["dump", &selector, "--target", "out.tar"]).success();
    let out = environment.path("work/out");
    std::fs::create_dir(&out).unwrap();
    let tar = Command::new("tar").args(["-xf", "../out.tar"]).current_dir(&out).status().unwrap();
    assert!(tar.success());
    assert_same_tree(&environment.source(), &out);
    // The same bytes on standard output.
    let run = environment.run(["dump", &selector]).success();
    assert!(run.stdout_bytes() == std::fs::read(environment.path("work/out.tar")).unwrap());
}

#[test]
fn a_folder_becomes_a_zip_archive() {
    let environment = TestEnvironment::with_snapshot();
    let run = environment.run(["dump", "latest", "--archive", "zip"]).success();
    assert_eq!(&run.stdout_bytes()[..2], b"PK");
}

#[test]
fn a_single_file_is_written_as_it_is() {
    let environment = TestEnvironment::with_snapshot();
    let file = environment.source().join("a.txt");
    let run = environment.run(["dump", "latest", file.to_str().unwrap()]).success();
    assert_eq!(run.stdout(), "first file\n");
}

#[test]
fn what_is_not_there_cannot_be_dumped() {
    let environment = TestEnvironment::with_snapshot();
    environment.run(["dump", "latest:/no/such", "-t", "out"]).code(1).complains("/no/such");
    assert!(!environment.path("work/out").exists());
    environment.run(["dump", "latest", "--archive", "rar"]).code(2).complains("rar");
}

#[test]
#[cfg(target_os = "linux")]
fn a_target_that_is_full_has_an_exit_code_and_a_hint() {
    let environment = TestEnvironment::with_snapshot();
    environment
        .run(["dump", "latest", "--target", "/dev/full"])
        .code(14)
        .complains("error: cannot write the archive")
        .complains("\nhint: make room there");
}
