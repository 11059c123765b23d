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
fn a_checkpoint_is_dumped_with_a_warning() {
    const WARNING: &str =
        "is a checkpoint of an unfinished backup: what that had not reached is missing";
    let (environment, checkpoint) = TestEnvironment::with_checkpoint();
    let file = environment.source().join("a.txt");
    let run = environment.run(["dump", &checkpoint, file.to_str().unwrap()]).success();
    assert_eq!(run.complains(WARNING).stdout(), "first file\n");
    environment.run(["dump", &checkpoint, "-t", "first.tar"]).success().complains(WARNING);
    let latest = ["dump", "latest", "--checkpoints", "-t", "latest.tar"];
    environment.run(latest).success().complains(WARNING);
    environment.backup();
    let run = environment.run(["dump", "latest", "-t", "complete.tar"]).success();
    assert!(!run.stderr().contains("checkpoint"), "{}", run.stderr());
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

#[test]
#[cfg(target_os = "linux")]
fn tar_restores_holes_and_odd_names_without_a_warning() {
    use std::io::{Seek, SeekFrom, Write};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    let environment = TestEnvironment::with_repository();
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(120));
    for name in ["holes", "ends-in-a-hole", &long] {
        let path = environment.write(name, "begin");
        let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.seek(SeekFrom::Start(5_000_000)).unwrap();
        file.write_all(b"middle").unwrap();
        file.set_len(if name == "ends-in-a-hole" { 9_000_000 } else { 5_000_006 }).unwrap();
    }
    for odd in [&b"odd\xff"[..], &[b"odd\xff".as_slice(), &[b'x'; 200]].concat(), "grün".as_bytes()]
    {
        environment.write(std::ffi::OsStr::from_bytes(odd), "odd");
    }
    environment.backup();
    let selector = format!("latest:{}", environment.source().display());
    environment.run(["dump", &selector, "--target", "out.tar"]).success();
    let archive = environment.path("work/out.tar");
    assert!(std::fs::metadata(&archive).unwrap().len() < 1_000_000, "holes are in the archive");
    let out = environment.path("work/out");
    std::fs::create_dir(&out).unwrap();
    let tar = Command::new("tar").arg("-xf").arg(&archive).current_dir(&out).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&tar.stderr), "");
    assert!(tar.status.success());
    assert_same_tree(&environment.source(), &out);
    for name in ["holes", "ends-in-a-hole", &long] {
        let blocks = |folder: &std::path::Path| folder.join(name).metadata().unwrap().blocks();
        assert!(blocks(&out) <= blocks(&environment.source()) + 256, "{name} has lost its holes");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn tar_restores_access_control_lists() {
    let environment = TestEnvironment::with_repository();
    let path = environment.write("file", "x");
    let set = |arguments: &[&str], path: &std::path::Path| {
        let status = Command::new("setfacl").args(arguments).arg(path).status();
        status.expect("setfacl: scripts/tools.sh installs the package acl").success()
    };
    if !set(&["-m", "u:4242:r-x"], &path)
        || !set(&["-d", "-m", "g:4343:rwx"], &environment.source())
    {
        eprintln!("this file system has no access control lists");
        return;
    }
    environment.backup();
    let selector = format!("latest:{}", environment.source().display());
    environment.run(["dump", &selector, "--target", "out.tar"]).success();
    let out = environment.path("work/out");
    std::fs::create_dir(&out).unwrap();
    let mut tar = Command::new("tar");
    let tar = tar.args(["--acls", "-xpf", "../out.tar"]).current_dir(&out).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&tar.stderr), "");
    let get = |folder: &std::path::Path| {
        let mut get = Command::new("getfacl");
        let output = get.args(["-R", "-n", "."]).current_dir(folder).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(get(&out).contains("4242") && get(&out).contains("4343"));
    assert_eq!(get(&out), get(&environment.source()));
}
