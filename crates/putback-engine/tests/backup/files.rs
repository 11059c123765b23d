//! Every kind of file and name comes back as it was.

use std::ffi::OsStr;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use putback_store::Store;
use rustix::fs::{AtFlags, CWD, FileType, Mode};

use crate::support::*;

#[test]
fn names_and_kinds_of_every_sort_come_back() {
    let machine = Machine::new();
    let names: [&[u8]; 9] = [
        b"plain",
        b"with space",
        b"new\nline",
        b"tab\tand\x07bell",
        b"not-utf8-\xff\xfe\x80",
        "grüße-日本語-🎒".as_bytes(),
        b"-leading-dash",
        b"\\back'quote\"",
        &[b'x'; 255],
    ];
    for name in names {
        let name = OsStr::from_bytes(name);
        machine.write(name, name.as_bytes());
        fs::create_dir_all(machine.source().join("folders").join(name)).unwrap();
    }
    machine.write("empty", b"");
    machine.write("inline", [1; 128]);
    machine.write("chunk", [2; 129]);
    machine.write("many chunks", noise(1, 3 << 20));
    fs::create_dir(machine.source().join("empty folder")).unwrap();
    symlink("../nowhere/\u{1f512}", machine.source().join("link")).unwrap();
    symlink(OsStr::from_bytes(&[0xff; 3000]), machine.source().join("long link")).unwrap();
    let at = |name: &str| machine.source().join(name);
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    for (name, mode) in
        [("plain", 0o4755), ("inline", 0o000), ("chunk", 0o2711), ("folders", 0o1777)]
    {
        fs::set_permissions(at(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    let old = rustix::fs::Timespec { tv_sec: -86_400, tv_nsec: 123_456_789 };
    let times = rustix::fs::Timestamps { last_access: old, last_modification: old };
    rustix::fs::utimensat(CWD, at("link"), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    rustix::fs::utimensat(CWD, at("many chunks"), &times, AtFlags::empty()).unwrap();

    let report = machine.back_up();
    assert_eq!((report.statistics.incidents, report.statistics.files_new), (0, 13));
    machine.assert_restores(&report);
    machine.assert_clean();
}

#[test]
fn extended_attributes_come_back_large_ones_too() {
    let machine = Machine::new();
    let path = machine.write("file", b"content");
    // ext4 keeps the attributes of a file in one block.
    let large = if noise_fits(&path, 60_000) { 60_000 } else { 3_500 };
    xattr::set(&path, "user.large", &noise(1, large)).unwrap();
    xattr::set(machine.source().join("."), "user.empty", b"").unwrap();
    fs::create_dir(machine.source().join("folder")).unwrap();
    xattr::set(machine.source().join("folder"), "user.\u{fc}", b"\0\xff").unwrap();
    let report = machine.back_up();
    assert_eq!(report.statistics.incidents, 0);
    machine.assert_restores(&report);
}

fn noise_fits(path: &std::path::Path, bytes: usize) -> bool {
    let fits = xattr::set(path, "user.probe", &noise(2, bytes)).is_ok();
    drop(xattr::remove(path, "user.probe"));
    fits
}

#[test]
fn holes_are_neither_read_nor_stored_and_come_back_as_holes() {
    let machine = Machine::new();
    let path = machine.source().join("sparse");
    let mut file = fs::File::create(&path).unwrap();
    file.set_len(1 << 30).unwrap();
    for (number, offset) in [0u64, 300 << 20, (1 << 30) - (64 << 10)].into_iter().enumerate() {
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(&noise(number as u64, 64 << 10)).unwrap();
    }
    // Allocation may be late: what counts are the blocks on the disk.
    file.sync_all().unwrap();
    drop(file);
    let only_hole = fs::File::create(machine.source().join("hole")).unwrap();
    only_hole.set_len(5 << 20).unwrap();
    drop(only_hole);

    let report = machine.back_up();
    assert_eq!(report.statistics.bytes_read, 3 * (64 << 10));
    assert_eq!(report.statistics.bytes_total, 3 * (64 << 10));
    let stored: u64 = machine.store.list("packs").unwrap().iter().map(|row| row.size).sum();
    assert!(stored < 300 << 10, "{stored}");
    let target = machine.restore(&report);
    for name in ["sparse", "hole"] {
        let (expected, found) = (machine.source().join(name), target.path().join(name));
        let blocks = |path| fs::metadata(path).unwrap().blocks();
        assert_eq!(blocks(&found), blocks(&expected), "{name}");
    }
    assert_same_tree(&machine.source(), target.path());
}

#[test]
fn hard_links_are_read_once_and_come_back_linked() {
    let machine = Machine::new();
    let large = machine.write("large-1", noise(1, 6 << 20));
    let small = machine.write("a/small", noise(2, 1000));
    fs::hard_link(&large, machine.source().join("large-2")).unwrap();
    fs::hard_link(&large, machine.source().join("a/large-3")).unwrap();
    fs::hard_link(&small, machine.source().join("small-2")).unwrap();
    let report = machine.back_up();
    assert_eq!(report.statistics.bytes_read, (6 << 20) + 1000);
    let target = machine.restore(&report);
    assert_same_tree(&machine.source(), target.path());
    let inode = |name| fs::metadata(target.path().join(name)).unwrap().ino();
    assert_eq!(inode("large-1"), inode("large-2"));
    assert_eq!(inode("large-1"), inode("a/large-3"));
    assert_eq!(inode("a/small"), inode("small-2"));
}

/// Makes `depth` folders in each other, from the inside of each: the path is longer than a call takes.
fn dig(source: &std::path::Path, depth: usize) {
    let mut folder =
        rustix::fs::open(source, rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
    for level in 0..depth {
        let name = format!("level-{level}");
        rustix::fs::mkdirat(&folder, &name, Mode::from_raw_mode(0o755)).unwrap();
        folder = rustix::fs::openat(&folder, &name, rustix::fs::OFlags::DIRECTORY, Mode::empty())
            .unwrap();
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let file = rustix::fs::openat(&folder, "file", flags, Mode::from_raw_mode(0o644)).unwrap();
    rustix::io::write(&file, b"at the bottom").unwrap();
}

#[test]
fn folders_300_levels_deep_come_back() {
    let machine = Machine::new();
    dig(&machine.source(), 300);
    let report = machine.back_up();
    assert_eq!(report.statistics.incidents, 0);
    machine.assert_restores(&report);
    machine.assert_clean();
}

#[test]
fn folders_deeper_than_a_path_may_be_long_are_backed_up_and_checked() {
    let machine = Machine::new();
    dig(&machine.source(), 3000);
    let report = machine.back_up();
    assert_eq!(report.statistics.incidents, 0);
    assert!(report.statistics.directories >= 3000);
    assert_eq!(report.statistics.files_new, 1);
    machine.assert_clean();
}

#[test]
fn a_folder_of_20_000_files_comes_back() {
    let machine = Machine::new();
    for number in 0..20_000 {
        machine.write(format!("file-{number}"), format!("content {number}"));
    }
    let report = machine.back_up();
    assert_eq!(report.statistics.files_new, 20_000);
    machine.assert_restores(&report);
}
