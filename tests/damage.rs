//! Damage as a user meets it: found, named, and never restored. Every byte of every object is
//! damaged in `crates/putback-repo/tests/repository/damage.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Run, TestEnvironment};

fn objects(environment: &TestEnvironment, folder: &str) -> Vec<PathBuf> {
    let folder = environment.path("repository").join(folder);
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn flip(path: &Path, position: usize) {
    // Objects are written without permission to change them.
    let mut bytes = fs::read(path).unwrap();
    bytes[position] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn restore(environment: &TestEnvironment) -> (Run, PathBuf) {
    let target = environment.path("work/target");
    let selector = format!("latest:{}", environment.source().display());
    let arguments = ["restore", &selector, "--target", target.to_str().unwrap()];
    (environment.run(arguments), target)
}

#[test]
fn a_damaged_pack_is_named_with_the_files_it_hurts_and_the_others_are_restored() {
    let environment = TestEnvironment::with_snapshot();
    environment.write("inline.txt", "small enough to be in the tree");
    environment.backup();
    let before = objects(&environment, "packs");
    // New data, in a pack of its own.
    let hurt = "folder/deeper/c.bin";
    environment.write(hurt, (0..300_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    environment.backup();
    let added = objects(&environment, "packs").into_iter().filter(|path| !before.contains(path));
    let pack = added.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    flip(&pack, 1000);

    let name = pack.file_name().unwrap().to_str().unwrap().to_owned();
    let check = environment.run(["check", "--read-data"]).code(1);
    let text = format!("{}{}", check.stdout(), check.stderr());
    assert!(text.contains(&name[..8]) && text.contains(hurt), "{text}");
    let (run, target) = restore(&environment);
    let run = run.code(3);
    assert!(run.stderr().contains(hurt), "{}", run.stderr());
    assert!(run.stderr().contains(&name[..8]), "{}", run.stderr());
    for whole in ["a.txt", "folder/b.txt", "inline.txt"] {
        let (expected, found) = (environment.source().join(whole), target.join(whole));
        assert_eq!(fs::read(expected).unwrap(), fs::read(found).unwrap(), "{whole}");
    }
    let original = fs::read(environment.source().join(hurt)).unwrap();
    assert!(!target.join(hurt).exists() || fs::read(target.join(hurt)).unwrap() != original);
}

#[test]
fn a_damaged_segment_stops_every_command_that_needs_it_and_is_named() {
    let environment = TestEnvironment::with_snapshot();
    let segment = objects(&environment, "index").remove(0);
    flip(&segment, 70);
    fs::remove_dir_all(environment.path("home/.cache")).unwrap();
    let name = segment.file_name().unwrap().to_str().unwrap().to_owned();
    let source = environment.source();
    let backup = environment.run(["backup".as_ref(), source.as_os_str()]).code(1);
    assert!(backup.stderr().contains(&name[..8]), "{}", backup.stderr());
    let check = environment.run(["check"]).code(1);
    let text = format!("{}{}", check.stdout(), check.stderr());
    assert!(text.contains(&name[..8]), "{text}");
}

#[test]
fn a_lost_configuration_or_slot_is_replaced_by_its_second_copy_with_a_warning() {
    for folder in ["config", "keys"] {
        let environment = TestEnvironment::with_snapshot();
        for path in objects(&environment, folder) {
            fs::remove_file(path).unwrap();
        }
        let (run, _) = restore(&environment);
        let run = run.success();
        assert!(run.stderr().contains("second copy"), "{}", run.stderr());
        environment.run(["check"]).code(1);
        let init = environment.run(["init", "--kdf-cost", "low"]).code(1);
        assert!(init.stderr().contains("already a repository"), "{}", init.stderr());
    }
}
