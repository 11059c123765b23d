use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use putback_format::tree::{Extent, Timestamp, Xattr};

use super::*;

fn is_root() -> bool {
    effective_uid() == 0
}

fn xattr(name: &str, value: &[u8]) -> Xattr {
    Xattr { name: name.as_bytes().to_vec(), value: value.to_vec() }
}

/// `cap_net_raw=ep`, as the kernel stores it (VFS_CAP_REVISION_2).
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// `u::rw-,u:1:r--,g::r--,m::r--,o::---` as the kernel stores it.
const ACL: &[u8] = &[
    2, 0, 0, 0, //
    0x01, 0, 6, 0, 0xff, 0xff, 0xff, 0xff, //
    0x02, 0, 4, 0, 1, 0, 0, 0, //
    0x04, 0, 4, 0, 0xff, 0xff, 0xff, 0xff, //
    0x10, 0, 4, 0, 0xff, 0xff, 0xff, 0xff, //
    0x20, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
];

#[test]
fn names_are_sorted_by_bytes_and_know_their_kind() {
    let folder = tempfile::tempdir().unwrap();
    let odd: [&[u8]; 5] = [b"b", b"B", b"a\nb", b"\xff\xfe", b"a"];
    for name in odd {
        File::create(folder.path().join(path_of_bytes(name))).unwrap();
    }
    fs::create_dir(folder.path().join("dir")).unwrap();
    symlink("nowhere", folder.path().join("link")).unwrap();

    let directory = Directory::open(folder.path()).unwrap();
    let mut names = Names::default();
    for _ in 0..2 {
        directory.read_names(&mut names).unwrap();
        let listed: Vec<_> = (0..names.len()).map(|index| names.get(index)).collect();
        let file = Some(FileKind::File);
        assert_eq!(
            listed,
            [
                (&b"B"[..], file),
                (b"a", file),
                (b"a\nb", file),
                (b"b", file),
                (b"dir", Some(FileKind::Directory)),
                (b"link", Some(FileKind::Symlink)),
                (b"\xff\xfe", file),
            ]
        );
    }
    assert_eq!(names.find(b"dir"), Some(Some(FileKind::Directory)));
    assert_eq!(names.find(b"c"), None);
    assert_eq!(directory.stat(b"\xff\xfe").unwrap().kind, FileKind::File);
}

#[test]
fn a_hundred_thousand_names_are_listed_whole() {
    let folder = tempfile::tempdir().unwrap();
    let directory = TargetDirectory::open(folder.path()).unwrap();
    for index in 0..100_000 {
        directory.create_symlink(b"x", format!("n{index}").as_bytes()).unwrap();
    }
    let mut names = Names::default();
    directory.read_names(&mut names).unwrap();
    assert_eq!(names.len(), 100_000);
    assert!((1..names.len()).all(|index| names.get(index - 1).0 < names.get(index).0));
}

#[test]
fn stat_agrees_with_the_standard_library() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, b"12345").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(&path, folder.path().join("other")).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    let stat = Directory::open(folder.path()).unwrap().stat(b"file").unwrap();
    assert_eq!((stat.kind, stat.mode, stat.size, stat.links), (FileKind::File, 0o4751, 5, 2));
    assert_eq!((stat.uid, stat.gid, stat.inode), (metadata.uid(), metadata.gid(), metadata.ino()));
    assert_eq!(
        (stat.mtime.seconds, i64::from(stat.mtime.nanoseconds)),
        (metadata.mtime(), metadata.mtime_nsec())
    );
    assert_eq!(
        (stat.ctime.seconds, i64::from(stat.ctime.nanoseconds)),
        (metadata.ctime(), metadata.ctime_nsec())
    );
    assert_eq!(stat.blocks, metadata.blocks());
    assert_eq!(stat_path(&path).unwrap(), stat);
    assert_eq!(stat_file(&File::open(&path).unwrap()).unwrap(), stat);
}

#[test]
fn every_kind_is_told_and_links_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let target = TargetDirectory::open(folder.path()).unwrap();
    target.create_child(b"dir").unwrap();
    target.create_symlink(b"link", b"link").unwrap();
    target.create_special(b"fifo", FileKind::Fifo, 0, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    let directory = target.as_directory();
    let kind = |name: &[u8]| directory.stat(name).unwrap().kind;
    assert_eq!(kind(b"dir"), FileKind::Directory);
    assert_eq!(kind(b"link"), FileKind::Symlink);
    assert_eq!(kind(b"fifo"), FileKind::Fifo);
    assert_eq!(kind(b"socket"), FileKind::Socket);
    assert_eq!(directory.read_link(b"link").unwrap(), b"link");
    assert!(directory.open_file(b"link").is_err());
    let error = directory.open_child(b"link").unwrap_err();
    assert!(is_not_a_directory(&error), "{error}");
    // Nobody writes to the FIFO; opening it must not wait for somebody.
    let fifo = directory.open_file(b"fifo").unwrap();
    assert_eq!(stat_file(&fifo).unwrap().kind, FileKind::Fifo);
    if is_root() && target.create_special(b"null", FileKind::CharacterDevice, 1, 3).is_ok() {
        target.create_special(b"block", FileKind::BlockDevice, 300, 70_000).unwrap();
        let stat = directory.stat(b"null").unwrap();
        assert_eq!(
            (stat.kind, stat.rdev_major, stat.rdev_minor),
            (FileKind::CharacterDevice, 1, 3)
        );
        let stat = directory.stat(b"block").unwrap();
        assert_eq!(
            (stat.kind, stat.rdev_major, stat.rdev_minor),
            (FileKind::BlockDevice, 300, 70_000)
        );
    }
}

#[test]
fn hostile_names_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let target = TargetDirectory::open(folder.path()).unwrap();
    for name in [&b""[..], b".", b"..", b"a/b", b"/etc", b"a\0b", b"../x"] {
        let shown = String::from_utf8_lossy(name).escape_debug().to_string();
        let check = |error: io::Error| {
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{shown}");
            assert!(error.to_string().contains(&format!("'{shown}'")), "{error}");
        };
        check(target.create_child(name).unwrap_err());
        check(target.create_file(name).unwrap_err());
        check(target.open_child(name).unwrap_err());
        check(target.open_file(name).unwrap_err());
        check(target.open_file_for_writing(name).unwrap_err());
        check(target.create_symlink(b"x", name).unwrap_err());
        check(target.create_special(name, FileKind::Fifo, 0, 0).unwrap_err());
        check(target.create_hard_link(&target, b"x", name).unwrap_err());
        check(target.rename(b"x", name).unwrap_err());
        check(target.rename(name, b"x").unwrap_err());
        check(target.rename_new(b"x", name).unwrap_err());
        check(target.rename_new(name, b"x").unwrap_err());
        check(target.remove_file(name).unwrap_err());
        check(target.remove_directory(name).unwrap_err());
        check(target.remove_all(name).problems.pop().unwrap().1);
        check(target.apply_metadata(name, &metadata(0o644)).unwrap_err());
        check(target.as_directory().stat(name).unwrap_err());
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn links_on_the_way_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("a/b/c")).unwrap();
    symlink("a", folder.path().join("link")).unwrap();
    symlink("/", folder.path().join("a/out")).unwrap();
    assert!(Directory::open_without_links(&folder.path().join("a/b")).is_ok());
    assert!(Directory::open_without_links(&folder.path().join("link/b")).is_err());
    assert!(Directory::open_without_links(&folder.path().join("a/../a")).is_err());
    let target = TargetDirectory::open(folder.path()).unwrap();
    for below in [&b"a/b/c"[..], b"a//b/", b"/a", b""] {
        assert!(target.open_below(below).is_ok(), "{}", String::from_utf8_lossy(below));
    }
    for outside in [&b"link/b"[..], b"a/out", b"a/out/etc", b"a/../a", b"..", b"a/.", b"nothing"] {
        assert!(target.open_below(outside).is_err(), "{}", String::from_utf8_lossy(outside));
    }
    let identity = |directory: &TargetDirectory| directory.stat_self().unwrap().identity();
    assert_eq!(identity(&target.open_below(b"").unwrap()), identity(&target));
}

#[test]
fn extended_attributes_are_read_whole_and_sorted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let file = File::create(&path).unwrap();
    assert!(file_xattrs(&file).list.is_empty());
    let long = vec![7; 1000];
    if ::xattr::set(&path, "user.b", b"").is_err() {
        return; // This file system has none.
    }
    ::xattr::set(&path, "user.a", &long).unwrap();
    let mut expected = vec![xattr("user.a", &long), xattr("user.b", b"")];
    if is_root() {
        ::xattr::set(&path, "security.capability", CAPABILITY).unwrap();
        expected.insert(0, xattr("security.capability", CAPABILITY));
        if ::xattr::set(&path, "system.posix_acl_access", ACL).is_ok() {
            expected.insert(1, xattr("system.posix_acl_access", ACL));
        }
    }
    let directory = Directory::open(folder.path()).unwrap();
    for found in [file_xattrs(&file), directory.entry_xattrs(b"file")] {
        assert_eq!(found.list, expected);
        assert_eq!(found.problem, None);
    }
    // More names than the first buffer holds.
    for index in 0..40 {
        ::xattr::set(folder.path(), format!("user.name-{index:04}"), b"x").unwrap();
    }
    assert_eq!(directory.xattrs().list.len(), 40);
}

#[test]
fn attributes_of_a_link_are_its_own() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), b"").unwrap();
    symlink("file", folder.path().join("link")).unwrap();
    if !is_root() || ::xattr::set(folder.path().join("link"), "trusted.own", b"1").is_err() {
        return;
    }
    let _ = ::xattr::set(folder.path().join("file"), "user.other", b"2");
    let directory = Directory::open(folder.path()).unwrap();
    assert_eq!(directory.entry_xattrs(b"link").list, [xattr("trusted.own", b"1")]);
}

#[test]
fn holes_are_found_and_data_is_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let file = TargetDirectory::open(folder.path()).unwrap().create_file(b"sparse").unwrap();
    let mebibyte = 1 << 20;
    file.set_len(8 * mebibyte).unwrap();
    file.write_all_at(&[1; 4096], mebibyte).unwrap();
    file.write_all_at(&[1; 100], 4 * mebibyte).unwrap();
    let stat = stat_file(&file).unwrap();
    assert!(stat.may_have_holes());
    let data = data_extents(&file, stat.size).unwrap();
    let expected =
        [Extent { offset: mebibyte, length: 4096 }, Extent { offset: 4 * mebibyte, length: 4096 }];
    assert_eq!(data, expected);
    let holes = holes_between(&data, stat.size);
    let covered: u64 = data.iter().chain(&holes).map(|extent| extent.length).sum();
    assert_eq!((holes.len(), covered), (3, stat.size));

    // The file was shorter or longer a moment ago.
    assert_eq!(
        data_extents(&file, mebibyte + 10).unwrap(),
        [Extent { offset: mebibyte, length: 10 }]
    );
    assert_eq!(data_extents(&file, 16 * mebibyte).unwrap(), expected);
    file.set_len(0).unwrap();
    assert_eq!(data_extents(&file, 8 * mebibyte).unwrap(), []);
    file.write_all_at(&[1; 10], 0).unwrap();
    assert_eq!(data_extents(&file, 10).unwrap(), [Extent { offset: 0, length: 10 }]);
    assert!(!stat_file(&file).unwrap().may_have_holes());
}

#[test]
fn holes_are_what_data_leaves() {
    let extent = |offset, length| Extent { offset, length };
    assert_eq!(holes_between(&[], 0), []);
    assert_eq!(holes_between(&[], 5), [extent(0, 5)]);
    assert_eq!(holes_between(&[extent(0, 5)], 5), []);
    assert_eq!(
        holes_between(&[extent(1, 2), extent(4, 1)], 6),
        [extent(0, 1), extent(3, 1), extent(5, 1)]
    );
}

#[test]
fn a_punched_hole_reads_as_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let target = TargetDirectory::open(folder.path()).unwrap();
    let file = target.create_file(b"file").unwrap();
    file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
    match punch_hole(&file, Extent { offset: 4096, length: 512 << 10 }) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return,
        result => result.unwrap(),
    }
    let mut bytes = vec![9; 1 << 20];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[4096..4096 + (512 << 10)].iter().all(|byte| *byte == 0));
    assert_eq!(bytes.iter().filter(|byte| **byte == 1).count(), 512 << 10);
    assert!(stat_file(&file).unwrap().may_have_holes());
}

#[test]
fn new_names_are_exclusive() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let target = TargetDirectory::open(folder.path()).unwrap();
    symlink(outside.path(), folder.path().join("to-directory")).unwrap();
    symlink(outside.path().join("planted"), folder.path().join("to-nothing")).unwrap();
    for name in [&b"to-directory"[..], b"to-nothing"] {
        assert_eq!(target.create_file(name).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(target.create_child(name).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(target.open_or_create_child(name).is_err());
        assert!(target.open_file_for_writing(name).is_err());
    }
    assert!(target.open_or_create_child(b"new").unwrap().1);
    assert!(!target.open_or_create_child(b"new").unwrap().1);
    assert_eq!(
        target.open_file_for_writing(b"new").unwrap_err().kind(),
        io::ErrorKind::IsADirectory
    );
    assert_eq!(target.open_file(b"new").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(target.stat(b"new").unwrap().mode, 0o700);
    target.create_file(b"file").unwrap();
    assert_eq!(target.stat(b"file").unwrap().mode, 0o600);
}

#[test]
fn a_complete_file_replaces_another() {
    let folder = tempfile::tempdir().unwrap();
    let target = TargetDirectory::open(folder.path()).unwrap();
    fs::write(folder.path().join("file"), b"old").unwrap();
    let (first, file) = target.create_temporary_file().unwrap();
    let (second, _) = target.create_temporary_file().unwrap();
    assert_ne!(first, second);
    file.write_all_at(b"new", 0).unwrap();
    target.rename(&first, b"file").unwrap();
    assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"new");
    target.create_child(b"dir").unwrap();
    assert!(target.rename(&second, b"dir").is_err());
}

#[test]
fn a_complete_file_replaces_nothing_where_its_name_should_be_free() {
    let folder = tempfile::tempdir().unwrap();
    let target = TargetDirectory::open(folder.path()).unwrap();
    fs::write(folder.path().join("file"), b"old").unwrap();
    let (temporary, file) = target.create_temporary_file().unwrap();
    file.write_all_at(b"new", 0).unwrap();
    let error = target.rename_new(&temporary, b"file").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"old");
    target.rename_new(&temporary, b"other").unwrap();
    assert_eq!(fs::read(folder.path().join("other")).unwrap(), b"new");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

fn metadata(mode: u32) -> TargetMetadata<'static> {
    let mtime = Timestamp { seconds: 1_000_000_000, nanoseconds: 123_456_789 };
    TargetMetadata { owner: None, mode, xattrs: None, mtime, flags: 0 }
}

fn assert_no_problem(problems: &[MetadataProblem]) {
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn metadata_of_a_file_is_set_whole() {
    let folder = tempfile::tempdir().unwrap();
    let target = TargetDirectory::open(folder.path()).unwrap();
    let file = target.create_file(b"file").unwrap();
    if !is_root() || ::xattr::set(folder.path(), "user.test", b"").is_err() {
        return;
    }
    let xattrs = [xattr("security.capability", CAPABILITY), xattr("user.a", b"b")];
    let wanted = TargetMetadata {
        owner: Some((1234, 5678)),
        xattrs: Some(&xattrs),
        flags: FLAG_NODUMP,
        ..metadata(0o6755)
    };
    let _ = ::xattr::set(folder.path().join("file"), "user.stale", b"x");
    assert_no_problem(&apply_metadata(&file, &wanted));
    let stat = stat_file(&file).unwrap();
    assert_eq!((stat.uid, stat.gid, stat.mode), (1234, 5678, 0o6755));
    assert_eq!(stat.mtime, wanted.mtime);
    assert_eq!(stat.flags & FLAG_NODUMP, FLAG_NODUMP);
    assert_eq!(file_xattrs(&file).list, xattrs);
    // Setting it again changes nothing.
    assert_no_problem(&apply_metadata(&file, &wanted));
    assert_eq!(file_xattrs(&file).list, xattrs);
}

#[test]
fn an_immutable_flag_is_set_last() {
    let folder = tempfile::tempdir().unwrap();
    let target = TargetDirectory::open(folder.path()).unwrap();
    let file = target.create_file(b"file").unwrap();
    let wanted = TargetMetadata { flags: FLAG_IMMUTABLE | FLAG_APPEND, ..metadata(0o640) };
    let problems = apply_metadata(&file, &wanted);
    let stat = stat_file(&file).unwrap();
    assert_eq!((stat.mode, stat.mtime), (0o640, wanted.mtime));
    if problems.is_empty() {
        assert_eq!(stat.flags, FLAG_IMMUTABLE | FLAG_APPEND);
        let removal = target.remove_all(b"file");
        assert_eq!((removal.removed, removal.problems.len()), (0, 1));
        rustix::fs::ioctl_setflags(&file, rustix::fs::IFlags::empty()).unwrap();
    } else {
        assert_eq!(problems[0].step, MetadataStep::Flags);
    }
}

#[test]
fn set_user_id_needs_the_owner() {
    let folder = tempfile::tempdir().unwrap();
    let target = TargetDirectory::open(folder.path()).unwrap();
    let file = target.create_file(b"file").unwrap();
    assert_no_problem(&apply_metadata(&file, &metadata(0o6755)));
    assert_eq!(stat_file(&file).unwrap().mode, 0o755);
    // The greatest number is no owner.
    let wanted = TargetMetadata { owner: Some((u32::MAX, 0)), ..metadata(0o4755) };
    let steps: Vec<_> = apply_metadata(&file, &wanted).iter().map(|problem| problem.step).collect();
    assert_eq!(steps, [MetadataStep::Owner, MetadataStep::Mode]);
    assert_eq!(stat_file(&file).unwrap().mode, 0o755);
    let child = target.create_child(b"dir").unwrap();
    assert_no_problem(&child.apply_metadata_to_self(&metadata(0o2755)));
    assert_eq!(child.stat_self().unwrap().mode, 0o2755);
}

#[test]
fn an_inherited_acl_does_not_stay() {
    let folder = tempfile::tempdir().unwrap();
    if ::xattr::set(folder.path(), "system.posix_acl_default", ACL).is_err() {
        return;
    }
    let target = TargetDirectory::open(folder.path()).unwrap();
    let file = target.create_file(b"file").unwrap();
    assert_eq!(file_xattrs(&file).list.len(), 1);
    assert_no_problem(&apply_metadata(
        &file,
        &TargetMetadata { xattrs: Some(&[]), ..metadata(0o644) },
    ));
    assert_eq!(file_xattrs(&file).list, []);
    assert_eq!(stat_file(&file).unwrap().mode, 0o644);
}

#[test]
fn metadata_of_what_cannot_be_opened_is_set_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let target = TargetDirectory::open(folder.path()).unwrap();
    fs::write(folder.path().join("victim"), b"").unwrap();
    let before = target.stat(b"victim").unwrap();
    target.create_symlink(b"victim", b"link").unwrap();
    target.create_special(b"fifo", FileKind::Fifo, 0, 0).unwrap();
    let xattrs = [xattr("trusted.a", b"b")];
    let has_xattrs = is_root() && ::xattr::set(folder.path(), "trusted.a", b"b").is_ok();
    for name in [&b"link"[..], b"fifo"] {
        let mut wanted = metadata(0o622);
        if is_root() {
            wanted.owner = Some((12, 34));
        }
        if has_xattrs {
            wanted.xattrs = Some(&xattrs);
        }
        assert_no_problem(&target.apply_metadata(name, &wanted).unwrap());
        let stat = target.stat(name).unwrap();
        assert_eq!(stat.mtime, wanted.mtime);
        assert_eq!(wanted.owner.unwrap_or((stat.uid, stat.gid)), (stat.uid, stat.gid));
        if has_xattrs {
            assert_eq!(target.as_directory().entry_xattrs(name).list, xattrs);
        }
    }
    assert_eq!(target.stat(b"fifo").unwrap().mode, 0o622);
    assert_eq!(target.stat(b"victim").unwrap(), before);
}

#[test]
fn hard_links_share_an_inode_and_links_are_linked_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let target = TargetDirectory::open(folder.path()).unwrap();
    let child = target.create_child(b"dir").unwrap();
    target.create_file(b"file").unwrap();
    target.create_symlink(b"nowhere", b"link").unwrap();
    child.create_hard_link(&target, b"file", b"file").unwrap();
    child.create_hard_link(&target, b"link", b"link").unwrap();
    for name in [&b"file"[..], b"link"] {
        assert_eq!(target.stat(name).unwrap(), child.stat(name).unwrap());
        assert_eq!(target.stat(name).unwrap().links, 2);
    }
}

#[test]
fn removal_takes_everything_and_follows_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), b"").unwrap();
    let target = TargetDirectory::open(folder.path()).unwrap();
    let mut deep = target.create_child(b"tree").unwrap();
    // Deeper than a path may be long, and than a process may open files.
    for _ in 0..1500 {
        let link = outside.path().as_os_str().as_bytes();
        deep.create_symlink(link, b"link").unwrap();
        deep.create_file(b"zzz").unwrap();
        deep = deep.create_child(b"directory").unwrap();
    }
    let removal = target.remove_all(b"tree");
    assert!(removal.problems.is_empty(), "{:?}", removal.problems);
    assert_eq!(removal.removed, 1 + 3 * 1500);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(outside.path().join("kept").exists());
    assert_eq!(target.remove_all(b"nothing").removed, 0);
}

#[test]
fn names_survive_the_way_to_a_path_and_back() {
    let name = b"/a/\xff\xfe/\xc3\xa4";
    assert_eq!(bytes_of_path(&path_of_bytes(name)).as_ref(), name);
    assert!(is_plain_name(b"...") && is_plain_name(b" ") && !is_plain_name(b"a/"));
}

#[test]
fn this_machine_and_user_have_names() {
    assert!(!host_name().is_empty());
    let name = user_name(&Users::new());
    assert!(!name.is_empty());
    assert!(!is_root() || name == "root");
    raise_open_files_limit();
    assert!(open_files_limit() > 2);
    assert!(!is_exhaustion(&io::ErrorKind::NotFound.into()));
    assert!(stat_path(Path::new("/no/such/path")).is_err());
    assert!(stat_path_following(Path::new("/")).unwrap().is_directory());
}

#[test]
#[cfg(target_os = "linux")]
fn what_is_mounted_is_known() {
    let proc = Path::new("/proc");
    assert!(stat_path(proc).unwrap().is_mount_root);
    assert!(Directory::open(proc).unwrap().stat_self().unwrap().is_mount_root);
    assert!(Directory::open(Path::new("/")).unwrap().stat(b"proc").unwrap().is_mount_root);
    let folder = tempfile::tempdir().unwrap();
    assert!(!stat_path(folder.path()).unwrap().is_mount_root);
    assert!(!Directory::open(folder.path()).unwrap().stat_self().unwrap().is_mount_root);
}
