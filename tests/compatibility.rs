//! Repositories that earlier programs wrote stay readable.
//!
//! `tests/fixtures/repositories/VERSION` is a repository as that version wrote it, never edited since, with
//! the password `fixture`, the second password `second`, and its exported key beside it. Each has two
//! snapshots of the same small tree. A version that changes the format adds a repository of its own.

use std::path::{Path, PathBuf};

use crate::harness::TestEnvironment;

/// Length and BLAKE3 of every regular file of the first snapshot; the second differs in `folder/text.txt`.
const FILES: [(&[u8], u64, &str); 8] = [
    (b"empty.txt", 0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
    (
        b"folder/random.bin",
        90_000,
        "e92387934b6a09a1e2ad7b1f9afdaf395ce475e834dabc75b039e37c71823c0c",
    ),
    (
        b"folder/text.txt",
        70_890,
        "7fcc0a453184acb6560100d90ac3fad73d3da7905b68b59a7dec1a7753cf8e0e",
    ),
    (b"hard-link.txt", 22, "b5d598458946f5f47214177df53a6fc7100b8b00fd17c0bde3958e924be8193c"),
    (b"not-\xff-utf8", 9, "3ad2e085b833318db18f482e6edf76eb37b037337f5109a517d421be3f025a24"),
    (b"short.txt", 22, "b5d598458946f5f47214177df53a6fc7100b8b00fd17c0bde3958e924be8193c"),
    (b"sparse", 1_048_589, "81bc991a42920ff39a24d5dcd525165de9bebc3bbb46d923dd6c6ee134eea54f"),
    (b"zeros", 100, "ac6f86fff630a56a21f59d3a0c1c6907fe3f7cafd5fa916f9b722032f6059ed9"),
];

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/repositories");
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    all.sort();
    all
}

/// A copy to work with: even reading may leave a lock file.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn environment(fixture: &Path, password: &str) -> TestEnvironment {
    let mut environment = TestEnvironment::new();
    let repository = environment.path("old");
    copy(fixture, &repository);
    environment.set("PUTBACK_REPO", repository);
    environment.set("PUTBACK_PASSWORD", password);
    environment
}

#[cfg(unix)]
#[test]
fn every_file_of_every_earlier_repository_is_restored() {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    assert!(!fixtures().is_empty());
    for fixture in fixtures() {
        let environment = environment(&fixture, "fixture");
        environment.run(["check", "--read-data"]).success().shows("no damage found");
        let target = environment.path("out");
        environment
            .run(["restore", "latest~1:/tmp/fx/tree", "--target", target.to_str().unwrap()])
            .success();
        for (name, length, hash) in FILES {
            let path = target.join(std::ffi::OsStr::from_bytes(name));
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(bytes.len() as u64, length, "{}", path.display());
            assert_eq!(blake3::hash(&bytes).to_hex().as_str(), hash, "{}", path.display());
        }
        let look = |name: &str| std::fs::symlink_metadata(target.join(name)).unwrap();
        assert_eq!(look("short.txt").ino(), look("hard-link.txt").ino());
        assert_eq!(
            (look("short.txt").mtime(), look("short.txt").mtime_nsec()),
            (1_614_834_367, 123_456_789)
        );
        assert_eq!(look("short.txt").mode() & 0o777, 0o750);
        assert!(look("pipe").file_type().is_fifo());
        assert!(look("name\nwith newline").is_dir() && look("folder/empty").is_dir());
        assert_eq!(std::fs::read_link(target.join("link")).unwrap(), Path::new("folder/text.txt"));
        assert!(look("sparse").blocks() * 512 < 1 << 20, "the hole was filled");
        environment.run(["cat", "latest:/tmp/fx/tree/folder/text.txt"]).success().shows("changed");
    }
}

#[test]
fn earlier_repositories_open_with_each_password_and_with_the_exported_key() {
    for fixture in fixtures() {
        environment(&fixture, "second").run(["snapshots"]).success().shows("2 snapshots");
        let mut environment = environment(&fixture, "wrong");
        environment.run(["snapshots"]).code(12);
        environment.unset("PUTBACK_PASSWORD");
        let key = format!("{}.key.txt", fixture.display());
        environment.run(["snapshots", "--key-file", &key]).success().shows("2 snapshots");
    }
}

#[test]
fn earlier_repositories_take_new_backups() {
    for fixture in fixtures() {
        let environment = environment(&fixture, "fixture");
        environment.write("new.txt", "new");
        let source = environment.source();
        environment.run(["backup", source.to_str().unwrap()]).success();
        environment.run(["snapshots"]).success().shows("3 snapshots");
        environment.run(["check", "--read-data"]).success().shows("no damage found");
    }
}
