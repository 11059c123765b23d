//! Restores into real folders, from repositories in memory.

pub(super) mod backup;
mod closing;
mod deleting;
mod existing;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};

use putback_format::key::BlobKind;
use putback_format::tree::{Content, EntryKind, Timestamp, encode_entry};
use putback_store::memory::MemoryStore;
use rustix::fs::IFlags;
use tempfile::TempDir;

use super::*;
use backup::{Seen, back_up, join, look};

/// Options that restore everything.
pub(super) fn options(target: &Path) -> RestoreOptions {
    RestoreOptions {
        target: target.to_owned(),
        include: Vec::new(),
        exclude: Vec::new(),
        iinclude: Vec::new(),
        iexclude: Vec::new(),
        overwrite: Overwrite::Always,
        delete: false,
        sparse: false,
        verify: false,
        numeric_owner: false,
        no_owner: false,
        dry_run: false,
        workers: 2,
        repository_folder: None,
        cancel: Cancel::default(),
    }
}

/// A source, a repository in memory and a target.
struct Lab {
    folder: TempDir,
    store: MemoryStore,
    repository: Repository,
}

/// Is given the path of each entry when that is told.
type AtEntry = Box<dyn Fn(&[u8]) + Send + Sync>;

/// What a restore told.
#[derive(Default)]
struct Told {
    entries: Mutex<Vec<(String, Action)>>,
    problems: Mutex<Vec<(String, IncidentKind, String)>>,
    warnings: Mutex<Vec<String>>,
    advanced: Mutex<BTreeMap<String, Amount>>,
    totals: Mutex<BTreeMap<String, Amount>>,
    /// Asked to stop after so many entries.
    cancel_after: Option<(usize, Cancel)>,
    at_verify: Option<Box<dyn Fn() + Send + Sync>>,
    at_entry: Option<AtEntry>,
}

impl Observer for Told {
    fn event(&self, event: Event<'_>) {
        let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        match event {
            Event::Entry { path, action, .. } => {
                if let Some(at_entry) = &self.at_entry {
                    at_entry(path);
                }
                let mut entries = self.entries.lock().unwrap();
                entries.push((text(path), action));
                if let Some((count, cancel)) = &self.cancel_after
                    && entries.len() >= *count
                {
                    cancel.cancel();
                }
            }
            Event::Problem { path, kind, message } => {
                self.problems.lock().unwrap().push((text(path), kind, message.to_owned()));
            }
            Event::Warning { message } => self.warnings.lock().unwrap().push(message.to_owned()),
            Event::Advanced { phase, by } => {
                let mut advanced = self.advanced.lock().unwrap();
                let amount = advanced.entry(format!("{phase:?}")).or_default();
                amount.items += by.items;
                amount.bytes += by.bytes;
            }
            Event::PhaseStarted { phase, total } => {
                if let Some(total) = total {
                    self.totals.lock().unwrap().insert(format!("{phase:?} expected"), total);
                }
                if phase == Phase::Verify
                    && let Some(at_verify) = &self.at_verify
                {
                    at_verify();
                }
            }
            Event::Total { phase, total } => {
                self.totals.lock().unwrap().insert(format!("{phase:?}"), total);
            }
            _ => {}
        }
    }
}

impl Told {
    /// What was told bit by bit adds up.
    fn check_progress(&self) {
        let advanced = self.advanced.lock().unwrap()["Restore"];
        assert_eq!(advanced, self.totals.lock().unwrap()["Restore"]);
    }

    /// Entries with their actions, sorted.
    fn actions(&self) -> Vec<(String, Action)> {
        let mut entries = self.entries.lock().unwrap().clone();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries
    }

    fn problems(&self) -> Vec<(String, IncidentKind, String)> {
        let mut problems = self.problems.lock().unwrap().clone();
        problems.sort_by(|a, b| a.0.cmp(&b.0));
        problems
    }

    fn action(&self, path: &str) -> Option<Action> {
        self.entries.lock().unwrap().iter().find(|(found, _)| found == path).map(|entry| entry.1)
    }
}

/// Bytes that do not repeat and do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

impl Lab {
    fn new() -> Self {
        let store = MemoryStore::new();
        let repository = backup::repository(Arc::new(store.clone()), 8 << 20, 16 << 10);
        let lab = Self { folder: TempDir::new().unwrap(), store, repository };
        fs::create_dir(lab.source()).unwrap();
        lab
    }

    fn source(&self) -> std::path::PathBuf {
        self.folder.path().join("source")
    }

    fn target(&self) -> std::path::PathBuf {
        self.folder.path().join("target")
    }

    fn options(&self) -> RestoreOptions {
        options(&self.target())
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.source().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn write_target(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.target().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn back_up(&self) -> Snapshot {
        back_up(&self.repository, &self.source(), &|_, _| true)
    }

    /// Restores the contents of the source.
    fn restore(&self, snapshot: &Snapshot, options: &RestoreOptions) -> (RestoreReport, Told) {
        let told = Told::default();
        let report = restore(&self.repository, snapshot, b"/data", options, &told).unwrap();
        (report, told)
    }

    /// The target looks as the source does.
    fn check_same(&self) {
        assert_same(&look(&self.target()), &look(&self.source()));
    }

    fn remove_target(&self) {
        make_removable(&self.target());
        fs::remove_dir_all(self.target()).unwrap();
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        fs::read(self.target().join(path)).ok()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        make_removable(self.folder.path());
    }
}

/// Opens up folders that only root could empty, and files that not even root could remove.
fn make_removable(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o755)).unwrap();
            make_removable(&entry.path());
        } else if let Ok(stat) = platform::stat_path(&entry.path())
            && stat.flags & platform::FLAGS_CLOSING != 0
        {
            set_closing_flags(&entry.path(), IFlags::empty());
        }
    }
}

/// Makes a file immutable or append-only, or neither.
fn set_closing_flags(path: &Path, flags: IFlags) {
    let file = fs::File::open(path).unwrap();
    let others = rustix::fs::ioctl_getflags(&file).unwrap() - (IFlags::IMMUTABLE | IFlags::APPEND);
    rustix::fs::ioctl_setflags(&file, others | flags).expect("this needs root");
}

fn assert_same(found: &BTreeMap<Vec<u8>, Seen>, expected: &BTreeMap<Vec<u8>, Seen>) {
    for (path, expected) in expected {
        let path_text = String::from_utf8_lossy(path);
        let found = found.get(path).unwrap_or_else(|| panic!("{path_text} is missing"));
        if found.content != expected.content {
            panic!("{path_text} has another content");
        }
        let bare = |seen: &Seen| Seen { content: Vec::new(), ..seen.clone() };
        assert_eq!(bare(found), bare(expected), "{path_text}");
    }
    let extra: Vec<_> = found.keys().filter(|path| !expected.contains_key(*path)).collect();
    assert!(extra.is_empty(), "{extra:?} is too much");
}

fn is_root() -> bool {
    platform::effective_uid() == 0
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: u32) {
    let file = fs::File::open(path).unwrap();
    let since = std::time::Duration::new(seconds.unsigned_abs(), 0);
    let whole =
        if seconds < 0 { std::time::UNIX_EPOCH - since } else { std::time::UNIX_EPOCH + since };
    file.set_modified(whole + std::time::Duration::from_nanos(nanoseconds.into())).unwrap();
}

/// A tree with everything in it that this user may make.
fn make_everything(lab: &Lab) {
    let source = lab.source();
    for (number, length) in
        [0, 1, 128, 129, 5_000, 40_000, 70_000, 300_000, 3_000_000].into_iter().enumerate()
    {
        lab.write(&format!("sizes/{length}"), noise(number as u64, length));
    }
    for number in 0..200 {
        lab.write(&format!("many/{}/{number}", number % 7), noise(1000 + number, 600));
        lab.write(&format!("many/{}/small {number}", number % 7), number.to_string());
    }
    lab.write("same/a", noise(7, 300_000));
    lab.write("same/b", noise(7, 300_000));
    lab.write("same/zeros", vec![0; 200_000]);
    fs::create_dir_all(source.join("empty/deep/er")).unwrap();

    for name in [&b"new\nline"[..], b"not utf-8 \xff\xfe", b"-rf", b" ", b"...", b"\\", b"*"] {
        let name = std::ffi::OsString::from_vec(name.to_vec());
        fs::create_dir_all(source.join("names")).unwrap();
        fs::write(source.join("names").join(name), b"x").unwrap();
    }
    fs::create_dir(join(&source, b"names/dir \xff")).unwrap();
    fs::write(join(&source, b"names/dir \xff/in it"), noise(9, 900)).unwrap();

    symlink("../sizes/129", source.join("names/link")).unwrap();
    symlink("/nowhere/at/all", source.join("names/dangling")).unwrap();
    symlink("..", source.join("empty/up")).unwrap();

    let sparse = fs::File::create(source.join("sparse")).unwrap();
    sparse.write_all_at(&noise(20, 100_000), 1 << 20).unwrap();
    sparse.write_all_at(&noise(21, 8_192), 3 << 20).unwrap();
    sparse.set_len(5 << 20).unwrap();
    fs::File::create(source.join("only a hole")).unwrap().set_len(1 << 20).unwrap();
    let small = fs::File::create(source.join("small and sparse")).unwrap();
    small.write_all_at(b"end", 1 << 16).unwrap();

    fs::create_dir(source.join("links")).unwrap();
    lab.write("links/b", noise(30, 500));
    fs::hard_link(source.join("links/b"), source.join("links/a")).unwrap();
    fs::hard_link(source.join("links/b"), source.join("empty/c")).unwrap();
    lab.write("links/large", noise(31, 400_000));
    fs::hard_link(source.join("links/large"), source.join("zz large")).unwrap();
    lab.write("links/inline", b"tiny");
    fs::hard_link(source.join("links/inline"), source.join("links/inline too")).unwrap();

    xattr::set(source.join("sizes/5000"), "user.comment", b"\x00binary\xff").unwrap();
    xattr::set(source.join("sizes/300000"), "user.a", &[b'x'; 2_000]).unwrap();
    xattr::set(source.join("sizes/128"), "user.b", b"").unwrap();
    xattr::set(source.join("empty"), "user.dir", b"1").unwrap();
    let set_mode = |path: &str, mode: u32| {
        fs::set_permissions(source.join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    for (path, mode) in [
        ("sizes/0", 0o400),
        ("sizes/1", 0o777),
        ("sizes/128", 0o640),
        ("sizes/129", 0o755),
        ("sizes/300000", 0o444),
        ("empty/deep", 0o700),
        ("many/3", 0o1777),
        ("many/4", 0o2755),
        ("sizes/5000", 0o4711),
        ("sizes/40000", 0o2755),
    ] {
        set_mode(path, mode);
    }
    if is_root() {
        make_what_root_may(lab);
    }
    set_mtime(&source.join("sizes/1"), -1_000_000, 1);
    set_mtime(&source.join("sizes/129"), 1_234_567_890, 999_999_999);
    set_mtime(&source.join("sizes/3000000"), 1, 0);
    set_mtime(&source.join("empty/deep/er"), 1_000_000_000, 5);
    set_mtime(&source.join("empty"), 1_000_000_001, 6);
    set_mode("many/5", 0o555);
}

fn make_what_root_may(lab: &Lab) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let source = lab.source();
    let owned = |path: &str, uid, gid| {
        std::os::unix::fs::lchown(source.join(path), Some(uid), Some(gid)).unwrap();
    };
    owned("sizes/129", 4_000_000, 4_000_001);
    owned("sizes/3000000", 12_345, 0);
    owned("names/link", 4_000_000, 4_000_001);
    owned("many/6", 4_000_000, 4_000_001);
    owned("sizes/128", 1, 2);
    lab.write("capable", noise(40, 1_000));
    // cap_net_raw+ep, as the kernel stores it.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    owned("capable", 77, 78);
    xattr::set(source.join("capable"), "security.capability", &capability).unwrap();
    xattr::set(source.join("names/link"), "trusted.link", b"yes").unwrap();
    // user::rw-, user:77:r--, group::r--, mask::r--, other::---
    let acl: Vec<u8> = [
        [1u16, 6, 0xffff, 0xffff],
        [2, 4, 77, 0],
        [4, 4, 0xffff, 0xffff],
        [16, 4, 0xffff, 0xffff],
        [32, 0, 0xffff, 0xffff],
    ]
    .iter()
    .flatten()
    .flat_map(|number| number.to_le_bytes())
    .collect();
    let acl = [&2u32.to_le_bytes()[..], &acl].concat();
    lab.write("acl/before", noise(41, 700));
    xattr::set(source.join("acl"), "system.posix_acl_default", &acl).unwrap();
    // Made after: this one has an ACL, the other has none.
    lab.write("acl/with", noise(42, 700));
    fs::create_dir(source.join("acl/inner")).unwrap();
    lab.write("acl/inner/deeper", noise(43, 70_000));
    let special = |path: &str, kind, device| {
        mknodat(CWD, source.join(path), kind, Mode::from_raw_mode(0o620), device).unwrap();
    };
    fs::create_dir(source.join("special")).unwrap();
    special("special/fifo", FileType::Fifo, 0);
    special("special/null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    special("special/loop", FileType::BlockDevice, rustix::fs::makedev(7, 300));
    owned("special/loop", 5, 6);
    let file = fs::File::open(source.join("sizes/70000")).unwrap();
    // Not every file system has flags.
    let _ = rustix::fs::ioctl_setflags(&file, IFlags::NODUMP);
}

#[test]
fn everything_comes_back_as_it_was() {
    let lab = Lab::new();
    make_everything(&lab);
    let snapshot = lab.back_up();
    let (report, told) = lab.restore(&snapshot, &lab.options());
    assert_eq!(told.problems(), []);
    lab.check_same();
    assert_eq!(report.files_restored, report.files_total);
    assert_eq!((report.files_updated, report.files_unchanged, report.problems), (0, 0, 0));
    told.check_progress();
}

#[test]
fn nothing_depends_on_where_windows_end_or_how_many_handles_there_are() {
    let lab = Lab::new();
    make_everything(&lab);
    let snapshot = lab.back_up();
    let limits = Limits {
        pieces_max: 5,
        entries_max: 7,
        entries_first: 2,
        bytes_max: 1 << 20,
        files_open_max: 1,
        folders_open_max: 1,
        frames_per_task: 8,
    };
    for workers in [1, 2, 5] {
        let mut options = lab.options();
        options.workers = workers;
        options.verify = true;
        for expected in [Action::Restored, Action::Unchanged] {
            let told = Told::default();
            let path = b"/data";
            let report =
                restore_within(limits, &lab.repository, &snapshot, path, &options, &told).unwrap();
            assert_eq!(told.problems(), []);
            told.check_progress();
            lab.check_same();
            let count = match expected {
                Action::Restored => report.files_restored,
                _ => report.files_unchanged,
            };
            assert_eq!(count, report.files_total, "{expected:?} {report:?}");
        }
        lab.remove_target();
    }
}

#[test]
fn restoring_again_reads_and_changes_nothing() {
    let lab = Lab::new();
    make_everything(&lab);
    let snapshot = lab.back_up();
    lab.restore(&snapshot, &lab.options());
    let ctimes = |lab: &Lab| -> Vec<(i64, i64)> {
        look(&lab.target())
            .iter()
            // Without privileges, a folder that may not be written is opened up and closed again.
            .filter(|(_, seen)| is_root() || seen.mode != 0o555)
            .map(|(path, _)| fs::symlink_metadata(join(&lab.target(), path)).unwrap())
            .map(|metadata| (metadata.ctime(), metadata.ctime_nsec()))
            .collect()
    };
    let before = ctimes(&lab);
    for overwrite in [Overwrite::Always, Overwrite::IfChanged] {
        let mut options = lab.options();
        options.overwrite = overwrite;
        let (report, told) = lab.restore(&snapshot, &options);
        assert_eq!(told.problems(), []);
        assert_eq!((report.files_unchanged, report.bytes_written), (report.files_total, 0));
        assert!(ctimes(&lab) == before, "{overwrite:?}");
        told.check_progress();
    }
    lab.check_same();
}

#[test]
fn sub_folders_and_single_files_go_into_the_target() {
    let lab = Lab::new();
    lab.write("a/b/c", b"content");
    lab.write("a/other", b"other");
    let snapshot = lab.back_up();
    let check = |path: &str, expected: &[&str]| {
        let target = lab.folder.path().join("target");
        restore(&lab.repository, &snapshot, path.as_bytes(), &lab.options(), &()).unwrap();
        let found: Vec<_> =
            look(&target).into_keys().map(|path| String::from_utf8(path).unwrap()).collect();
        assert_eq!(found, expected, "{path}");
        lab.remove_target();
    };
    check("/", &["data", "data/a", "data/a/b", "data/a/b/c", "data/a/other"]);
    check("", &["data", "data/a", "data/a/b", "data/a/b/c", "data/a/other"]);
    check("/data/a", &["b", "b/c", "other"]);
    check("data//a/./", &["b", "b/c", "other"]);
    check("/data/a/b/c", &["c"]);
    let missing = restore(&lab.repository, &snapshot, b"/data/x", &lab.options(), &());
    assert!(missing.unwrap_err().to_string().contains("'/data/x' is not in the snapshot"));
    assert!(!lab.target().exists());
}

#[test]
fn a_target_that_is_made_looks_like_the_folder_and_one_that_exists_keeps_its_looks() {
    let lab = Lab::new();
    lab.write("private/a", b"1");
    fs::set_permissions(lab.source().join("private"), fs::Permissions::from_mode(0o711)).unwrap();
    let snapshot = lab.back_up();
    let mode = || fs::metadata(lab.target()).unwrap().mode() & 0o7777;
    restore(&lab.repository, &snapshot, b"/data/private", &lab.options(), &()).unwrap();
    assert_eq!(mode(), 0o711);
    fs::set_permissions(lab.target(), fs::Permissions::from_mode(0o750)).unwrap();
    restore(&lab.repository, &snapshot, b"/data/private", &lab.options(), &()).unwrap();
    assert_eq!(mode(), 0o750);
}

#[test]
fn overwrite_policies_decide_what_happens_to_a_file_that_is_there() {
    use Action::{Skipped, Unchanged, Updated};
    const NEW: &[u8] = b"the content that was backed up, longer than what goes into an entry: \
        0123456789 0123456789 0123456789 0123456789 0123456789 0123456789";
    let same_length = vec![b'x'; NEW.len()];
    let check = |overwrite, existing: &[u8], age: i64, action: Action, expected: &[u8]| {
        for content in [NEW, b"tiny"] {
            let lab = Lab::new();
            let fit = |bytes: &[u8]| {
                let bytes = if bytes == NEW { content } else { bytes };
                let is_same_length = bytes.len() == NEW.len();
                bytes[..if is_same_length { content.len() } else { bytes.len() }].to_vec()
            };
            lab.write("file", content);
            set_mtime(&lab.source().join("file"), 1_000_000_000, 0);
            let snapshot = lab.back_up();
            lab.write_target("file", fit(existing));
            set_mtime(&lab.target().join("file"), 1_000_000_000 - age, 0);
            for dry_run in [true, false] {
                let mut options = lab.options();
                (options.overwrite, options.dry_run) = (overwrite, dry_run);
                let (_, told) = lab.restore(&snapshot, &options);
                let case = format!("{overwrite:?} {age} {dry_run} {existing:?}");
                assert_eq!(told.action("/data/file"), Some(action), "{case}");
                if !dry_run {
                    assert_eq!(lab.read("file").unwrap(), fit(expected), "{case}");
                }
            }
        }
    };
    check(Overwrite::Always, b"old", 5, Updated, NEW);
    check(Overwrite::Always, &same_length, 0, Updated, NEW);
    check(Overwrite::Always, NEW, 0, Unchanged, NEW);
    check(Overwrite::Always, NEW, -5, Updated, NEW);
    check(Overwrite::IfChanged, b"old", 0, Updated, NEW);
    check(Overwrite::IfChanged, &same_length, 1, Updated, NEW);
    check(Overwrite::IfChanged, &same_length, 0, Unchanged, &same_length);
    check(Overwrite::IfNewer, b"old", 1, Updated, NEW);
    check(Overwrite::IfNewer, b"old", 0, Skipped, b"old");
    check(Overwrite::IfNewer, b"old", -1, Skipped, b"old");
    check(Overwrite::Never, b"old", 100, Skipped, b"old");
}

#[test]
fn what_is_of_another_kind_is_replaced_where_that_is_safe() {
    let check = |make: fn(&Path), overwrite, delete, is_replaced: bool, has_problem: bool| {
        for is_directory in [false, true] {
            let lab = Lab::new();
            let path = if is_directory { "it/inner" } else { "it" };
            lab.write(path, b"wanted");
            let snapshot = lab.back_up();
            fs::create_dir(lab.target()).unwrap();
            make(&lab.target().join("it"));
            let mut options = lab.options();
            (options.overwrite, options.delete) = (overwrite, delete);
            let (report, told) = lab.restore(&snapshot, &options);
            let is_existing_directory =
                fs::symlink_metadata(lab.target().join("it")).is_ok_and(|m| m.is_dir());
            if is_directory && is_existing_directory {
                // Directories are merged whatever the policy says.
                continue;
            }
            let problems = told.problems();
            assert_eq!(problems.len(), usize::from(has_problem && !is_directory), "{problems:?}");
            assert_eq!(report.problems, problems.len() as u64);
            let is_found = lab.read(path) == Some(b"wanted".to_vec());
            assert_eq!(is_found, is_replaced, "{overwrite:?} {delete} {is_directory}");
            assert_eq!(fs::read("/etc/hostname").ok(), fs::read("/etc/hostname").ok());
        }
    };
    let empty_folder: fn(&Path) = |path| fs::create_dir(path).unwrap();
    let full_folder: fn(&Path) = |path| {
        fs::create_dir(path).unwrap();
        fs::write(path.join("other"), b"other").unwrap();
    };
    let link: fn(&Path) = |path| symlink("/etc", path).unwrap();
    check(empty_folder, Overwrite::Always, false, true, false);
    check(full_folder, Overwrite::Always, false, false, true);
    check(full_folder, Overwrite::Always, true, true, false);
    check(full_folder, Overwrite::Never, true, false, false);
    check(link, Overwrite::Always, false, true, false);
    check(link, Overwrite::IfChanged, false, true, false);
    check(link, Overwrite::Never, false, false, false);
}

#[test]
fn a_link_in_the_target_is_never_followed() {
    let lab = Lab::new();
    lab.write("dir/file", noise(1, 500));
    lab.write("dir/large", noise(2, 200_000));
    lab.write("dir/sub/x", b"x");
    lab.write("file", b"inside");
    let snapshot = lab.back_up();
    let outside = lab.folder.path().join("outside");
    fs::create_dir_all(outside.join("sub")).unwrap();
    fs::write(outside.join("file"), b"untouched").unwrap();
    fs::write(outside.join("large"), b"untouched").unwrap();
    let before = look(&outside);
    fs::create_dir(lab.target()).unwrap();
    symlink(&outside, lab.target().join("dir")).unwrap();
    symlink(outside.join("file"), lab.target().join("file")).unwrap();

    let mut options = lab.options();
    options.delete = true;
    for overwrite in [Overwrite::Never, Overwrite::Always] {
        options.overwrite = overwrite;
        let (_, told) = lab.restore(&snapshot, &options);
        assert_eq!(told.problems(), []);
        assert_same(&look(&outside), &before);
    }
    lab.check_same();
}

#[test]
fn hostile_names_are_refused_and_stay_in_the_repository() {
    let lab = Lab::new();
    for name in [&b"../evil"[..], b"..", b".", b"", b"a/b", b"/tmp/evil", b"a\0b"] {
        let mut entry = Entry::new(
            "x",
            EntryKind::File {
                size: 4,
                content: Content::Inline(b"evil".to_vec()),
                holes: Vec::new(),
            },
        );
        entry.name = name.to_vec();
        // What no builder would make: a page of one entry with this name.
        let mut page = vec![0x82, 0x01, 0x81];
        encode_entry(&entry, &mut page);
        let snapshot = snapshot_of_page(&lab, &page);
        let (report, told) = lab.restore(&snapshot, &lab.options());
        assert_eq!(report.problems, 1, "{name:?}");
        assert_eq!(told.problems()[0].0, "/data");
        assert!(look(&lab.target()).is_empty());
        assert_eq!(fs::read_dir(lab.folder.path()).unwrap().count(), 2);
    }
    assert!(!Path::new("/tmp/evil").exists());
}

/// A snapshot whose folder `/data` has this one page.
fn snapshot_of_page(lab: &Lab, page: &[u8]) -> Snapshot {
    let backup = lab.repository.begin_backup(None, 1).unwrap();
    let mut tree = backup.frame_writer(BlobKind::Tree);
    let page = tree.put(page).unwrap();
    tree.flush().unwrap();
    backup.flush().unwrap();
    drop(tree);
    backup.finish().unwrap();
    back_up(&lab.repository, &lab.source(), &|_, _| true);
    let mut snapshot = lab.back_up();
    // Found by way of the root, as any other.
    let mut data = Entry::new("data", EntryKind::Directory { pages: vec![page] });
    data.mode = 0o755;
    let mut builder = putback_format::page::PageBuilder::new();
    builder.push(&data).unwrap();
    let backup = lab.repository.begin_backup(None, 1).unwrap();
    let mut tree = backup.frame_writer(BlobKind::Tree);
    let root = tree.put(&builder.finish().unwrap()).unwrap();
    tree.flush().unwrap();
    backup.flush().unwrap();
    drop(tree);
    backup.finish().unwrap();
    snapshot.root.kind = EntryKind::Directory { pages: vec![root] };
    snapshot
}

#[test]
fn a_damaged_page_hides_no_more_than_itself_and_nothing_is_deleted_there() {
    let lab = Lab::new();
    lab.write("good/a", b"a");
    let missing = putback_format::id::BlobId::from_bytes([7; 32]);
    let snapshot = {
        lab.write("bad/x", b"x");
        back_up(&lab.repository, &lab.source(), &|path, entry| {
            if path == b"/data/bad" {
                entry.kind = EntryKind::Directory { pages: vec![missing] };
            }
            true
        })
    };
    lab.write_target("bad/keep", b"keep");
    lab.write_target("good/gone", b"gone");
    let mut options = lab.options();
    options.delete = true;
    let (report, told) = lab.restore(&snapshot, &options);
    assert_eq!(report.problems, 1);
    assert_eq!(told.problems()[0].0, "/data/bad");
    assert_eq!(lab.read("bad/keep").unwrap(), b"keep");
    assert_eq!(lab.read("good/a").unwrap(), b"a");
    assert_eq!(lab.read("good/gone"), None);
}

#[test]
fn delete_removes_what_the_snapshot_has_not_and_no_more() {
    let lab = Lab::new();
    lab.write("a", b"1");
    lab.write("dir/b", b"2");
    lab.write("left out/c", b"3");
    let snapshot = lab.back_up();
    for path in ["data/extra", "data/dir/extra", "data/old/deep/er/x", "data/left out/mine"] {
        lab.write_target(path, b"extra");
    }
    for path in ["data/keep.o", "data/half/keep.o", "data/half/go", "above/x", "data/.zz"] {
        lab.write_target(path, b"extra");
    }
    let outside = lab.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), b"precious").unwrap();
    symlink(&outside, lab.target().join("data/old/link")).unwrap();

    let mut options = lab.options();
    options.delete = true;
    options.exclude = vec!["*.o".into(), "left out".into()];
    let expected = [
        "above",
        "above/x",
        "data",
        "data/a",
        "data/dir",
        "data/dir/b",
        "data/half",
        "data/half/keep.o",
        "data/keep.o",
        "data/left out",
        "data/left out/mine",
    ];
    let mut deleted = Vec::new();
    for dry_run in [true, false] {
        options.dry_run = dry_run;
        let told = Told::default();
        let report = restore(&lab.repository, &snapshot, b"/", &options, &told).unwrap();
        assert_eq!(told.problems(), []);
        let now: Vec<_> =
            told.actions().into_iter().filter(|(_, action)| *action == Action::Deleted).collect();
        assert_eq!(report.files_deleted, now.len() as u64);
        assert!(deleted.is_empty() || deleted == now);
        deleted = now;
    }
    let names: Vec<&str> = deleted.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        names,
        [
            "/data/.zz",
            "/data/dir/extra",
            "/data/extra",
            "/data/half/go",
            "/data/old",
            "/data/old/deep",
            "/data/old/deep/er",
            "/data/old/deep/er/x",
            "/data/old/link",
        ]
    );
    let found: Vec<_> =
        look(&lab.target()).into_keys().map(|path| String::from_utf8(path).unwrap()).collect();
    assert_eq!(found, expected);
    assert_eq!(fs::read(outside.join("precious")).unwrap(), b"precious");
}

#[test]
fn includes_and_excludes_choose_and_folders_come_only_with_something_in_them() {
    let lab = Lab::new();
    for path in ["docs/a.txt", "docs/b.pdf", "docs/deep/er/c.TXT", "src/main.rs", "src/x/y.txt"] {
        lab.write(path, path);
    }
    fs::create_dir_all(lab.source().join("docs/none")).unwrap();
    set_mtime(&lab.source().join("docs"), 1_000_000_000, 0);
    let snapshot = lab.back_up();
    let check = |set: &dyn Fn(&mut RestoreOptions), expected: &[&str]| {
        let mut options = lab.options();
        set(&mut options);
        lab.restore(&snapshot, &options);
        let found: Vec<_> =
            look(&lab.target()).into_keys().map(|path| String::from_utf8(path).unwrap()).collect();
        assert_eq!(found, expected);
        lab.remove_target();
    };
    let texts = |texts: &[&str]| -> Vec<String> { texts.iter().map(|&text| text.into()).collect() };
    check(
        &|options| options.include = texts(&["*.txt"]),
        &["docs", "docs/a.txt", "src", "src/x", "src/x/y.txt"],
    );
    check(
        &|options| options.iinclude = texts(&["/data/docs/**/*.txt"]),
        &["docs", "docs/a.txt", "docs/deep", "docs/deep/er", "docs/deep/er/c.TXT"],
    );
    check(
        &|options| options.include = texts(&["/data/src"]),
        &["src", "src/main.rs", "src/x", "src/x/y.txt"],
    );
    check(
        &|options| {
            options.exclude = texts(&["src/", "none"]);
            options.iexclude = texts(&["*.txt"]);
        },
        &["docs", "docs/b.pdf", "docs/deep", "docs/deep/er"],
    );
    let mut options = lab.options();
    options.include = texts(&["a.txt"]);
    lab.restore(&snapshot, &options);
    let mtime = fs::metadata(lab.target().join("docs")).unwrap().mtime();
    assert_eq!(mtime, 1_000_000_000, "passages get their metadata");
    options.include = texts(&["[a"]);
    let error = restore(&lab.repository, &snapshot, b"/", &options, &()).unwrap_err();
    assert!(error.to_string().contains("[a"), "{error}");
}

#[test]
fn an_existing_passage_without_a_match_stays_untouched() {
    let lab = Lab::new();
    lab.write("a/x", b"1");
    lab.write("b/y", b"2");
    let snapshot = lab.back_up();
    lab.write_target("b/mine", b"3");
    set_mtime(&lab.target().join("b"), 77, 0);
    let mut options = lab.options();
    options.include = vec!["x".into()];
    lab.restore(&snapshot, &options);
    assert_eq!(fs::metadata(lab.target().join("b")).unwrap().mtime(), 77);
    assert_eq!(lab.read("a/x").unwrap(), b"1");
    assert_eq!(lab.read("b/y"), None);
}

#[test]
fn a_dry_run_tells_the_same_and_writes_nothing() {
    let lab = Lab::new();
    make_everything(&lab);
    let snapshot = lab.back_up();
    let check = |prepare: &dyn Fn()| {
        prepare();
        let before = lab.target().exists().then(|| look(&lab.target()));
        let mut options = lab.options();
        options.delete = true;
        options.dry_run = true;
        let (planned, told_plan) = lab.restore(&snapshot, &options);
        assert_eq!(told_plan.problems(), []);
        assert_eq!(lab.target().exists().then(|| look(&lab.target())), before);
        options.dry_run = false;
        let (done, told) = lab.restore(&snapshot, &options);
        let counts = |report: &RestoreReport| {
            [
                report.files_total,
                report.bytes_total,
                report.files_restored,
                report.files_updated,
                report.files_unchanged,
                report.files_skipped,
                report.files_deleted,
                report.problems,
            ]
        };
        assert_eq!(counts(&planned), counts(&done));
        assert_eq!(told_plan.actions(), told.actions());
        told_plan.check_progress();
        told.check_progress();
        lab.check_same();
    };
    check(&|| {});
    check(&|| {});
    check(&|| {
        lab.write_target("sizes/5000", b"other");
        lab.write_target("sizes/1", b"");
        lab.write_target("many/1/extra/x", b"extra");
        fs::remove_file(lab.target().join("names/link")).unwrap();
        symlink("elsewhere", lab.target().join("names/link")).unwrap();
        fs::remove_dir_all(lab.target().join("same")).unwrap();
        fs::remove_file(lab.target().join("links/a")).unwrap();
    });
}

#[test]
fn an_interrupted_restore_is_continued() {
    let lab = Lab::new();
    make_everything(&lab);
    for number in 0..30 {
        lab.write(&format!("large/{number}"), noise(500 + number, 200_000));
    }
    let snapshot = lab.back_up();
    for overwrite in [Overwrite::Always, Overwrite::IfChanged] {
        let mut options = lab.options();
        options.overwrite = overwrite;
        options.cancel = Cancel::default();
        let told = Told { cancel_after: Some((300, options.cancel.clone())), ..Told::default() };
        let report = restore(&lab.repository, &snapshot, b"/data", &options, &told).unwrap();
        assert!(report.is_interrupted);
        assert!(report.files_restored < report.files_total, "{report:?}");
        assert_eq!(told.problems(), []);
        options.cancel = Cancel::default();
        let (report, told) = lab.restore(&snapshot, &options);
        assert_eq!(told.problems(), []);
        assert!(report.files_unchanged > 200 && report.bytes_reused > 100_000, "{report:?}");
        assert!(!report.is_interrupted);
        lab.check_same();
        lab.remove_target();
    }
}

#[test]
fn an_interrupted_restore_leaves_no_part_of_a_file_that_would_be_kept_later() {
    let lab = Lab::new();
    for number in 0..40 {
        lab.write(&format!("large/{number}"), noise(500 + number, 300_000));
    }
    let snapshot = lab.back_up();
    for overwrite in [Overwrite::Never, Overwrite::IfNewer] {
        let mut options = lab.options();
        options.overwrite = overwrite;
        options.cancel = Cancel::default();
        let told = Told { cancel_after: Some((5, options.cancel.clone())), ..Told::default() };
        restore(&lab.repository, &snapshot, b"/data", &options, &told).unwrap();
        for (path, seen) in look(&lab.target()) {
            if seen.kind == platform::FileKind::File {
                assert_eq!(seen.content, fs::read(join(&lab.source(), &path)).unwrap());
            }
        }
        options.cancel = Cancel::default();
        lab.restore(&snapshot, &options);
        lab.check_same();
        lab.remove_target();
    }
}

#[test]
fn a_large_existing_file_is_kept_and_changed_where_it_differs() {
    let lab = Lab::new();
    let content = noise(1, 6 << 20);
    lab.write("image", &content);
    let snapshot = lab.back_up();
    let check = |change: &dyn Fn(&mut Vec<u8>), is_kept: bool| {
        let mut changed = content.clone();
        change(&mut changed);
        lab.write_target("image", &changed);
        let inode = || fs::metadata(lab.target().join("image")).unwrap().ino();
        let before = inode();
        let (report, told) = lab.restore(&snapshot, &lab.options());
        assert_eq!(told.problems(), []);
        told.check_progress();
        assert_eq!(report.files_updated, 1);
        assert_eq!(inode() == before, is_kept);
        let (low, high) = if is_kept { (5 << 20, 6 << 20) } else { (0, 0) };
        assert!((low..=high).contains(&report.bytes_reused), "{report:?}");
        assert_eq!(report.bytes_reused + report.bytes_written, 6 << 20);
        lab.check_same();
    };
    check(&|bytes| bytes[3_000_000..3_000_100].fill(0), true);
    check(&|bytes| bytes.truncate(5_800_000), true);
    check(&|bytes| bytes.extend_from_slice(b"and more"), true);
    check(&|bytes| *bytes = noise(2, 6 << 20), false);
}

#[test]
fn a_small_existing_file_is_replaced_only_when_the_new_one_is_complete() {
    let lab = Lab::new();
    lab.write("file", noise(1, 100_000));
    let snapshot = lab.back_up();
    let mut old = noise(1, 100_000);
    old[99_000] ^= 1;
    lab.write_target("file", &old);
    let handle = fs::File::open(lab.target().join("file")).unwrap();
    let (_, told) = lab.restore(&snapshot, &lab.options());
    told.check_progress();
    lab.check_same();
    let mut kept = vec![0; 100_000];
    handle.read_exact_at(&mut kept, 0).unwrap();
    assert_eq!(kept, old);
}

#[test]
fn other_names_of_an_existing_file_are_not_changed_with_it() {
    let lab = Lab::new();
    lab.write("large", noise(1, 6 << 20));
    lab.write("small", b"new");
    let snapshot = lab.back_up();
    let mut old = noise(1, 6 << 20);
    old[5_000_000] ^= 1;
    lab.write_target("large", &old);
    lab.write_target("small", b"old");
    for name in ["large", "small"] {
        let other = lab.folder.path().join(format!("other {name}"));
        fs::hard_link(lab.target().join(name), other).unwrap();
    }
    lab.restore(&snapshot, &lab.options());
    lab.check_same();
    assert_eq!(fs::read(lab.folder.path().join("other large")).unwrap(), old);
    assert_eq!(fs::read(lab.folder.path().join("other small")).unwrap(), b"old");
}

#[test]
fn hard_links_are_made_anew_where_they_were_broken() {
    let lab = Lab::new();
    lab.write("a", noise(1, 500));
    for name in ["b", "c"] {
        fs::hard_link(lab.source().join("a"), lab.source().join(name)).unwrap();
    }
    let snapshot = lab.back_up();
    lab.restore(&snapshot, &lab.options());
    lab.check_same();
    fs::remove_file(lab.target().join("b")).unwrap();
    fs::write(lab.target().join("b"), noise(1, 500)).unwrap();
    fs::remove_file(lab.target().join("c")).unwrap();
    let (report, _) = lab.restore(&snapshot, &lab.options());
    assert_eq!((report.files_unchanged, report.files_updated, report.files_restored), (1, 1, 1));
    lab.check_same();
}

#[test]
fn names_of_different_files_with_one_inode_number_stay_apart() {
    let lab = Lab::new();
    lab.write("a", b"1");
    lab.write("b", b"2");
    let snapshot = back_up(&lab.repository, &lab.source(), &|_, entry| {
        if entry.is_file() {
            (entry.device, entry.inode, entry.links) = (1, 2, 2);
        }
        true
    });
    lab.restore(&snapshot, &lab.options());
    assert_eq!((lab.read("a"), lab.read("b")), (Some(b"1".to_vec()), Some(b"2".to_vec())));
}

#[test]
fn files_that_differ_in_the_place_of_their_hole_alone_stay_apart() {
    let lab = Lab::new();
    for (name, offset) in [("a", 0), ("b", 1 << 20)] {
        let file = fs::File::create(lab.source().join(name)).unwrap();
        file.set_len(2 << 20).unwrap();
        file.write_all_at(&noise(1, 1 << 20), offset).unwrap();
    }
    let snapshot = back_up(&lab.repository, &lab.source(), &|_, entry| {
        if entry.is_file() {
            (entry.device, entry.inode, entry.links) = (1, 2, 2);
            entry.mtime = Timestamp::from_seconds(1);
        }
        true
    });
    lab.restore(&snapshot, &lab.options());
    for name in ["a", "b"] {
        assert!(lab.read(name).unwrap() == fs::read(lab.source().join(name)).unwrap(), "{name}");
    }
}

#[test]
fn sparse_makes_holes_of_zeros() {
    let lab = Lab::new();
    let mut content = vec![0; 1 << 20];
    content[500_000..500_100].fill(1);
    lab.write("zeros", &content);
    lab.write("single", vec![0; 8192]);
    let snapshot = lab.back_up();
    let blocks = |name: &str| fs::metadata(lab.target().join(name)).unwrap().blocks();
    let mut options = lab.options();
    options.sparse = true;
    lab.restore(&snapshot, &options);
    assert_eq!(lab.read("zeros").unwrap(), content);
    assert_eq!(lab.read("single").unwrap(), vec![0; 8192]);
    // A file system may keep some more than what was written.
    assert!(blocks("zeros") <= 256 && blocks("single") == 0, "{}", blocks("zeros"));
}

#[test]
fn holes_are_made_in_existing_files_too() {
    let lab = Lab::new();
    let file = fs::File::create(lab.source().join("file")).unwrap();
    file.write_all_at(&noise(1, 5 << 20), 0).unwrap();
    file.set_len(8 << 20).unwrap();
    let snapshot = lab.back_up();
    let mut old = noise(1, 5 << 20);
    old.extend_from_slice(&noise(2, 3 << 20));
    lab.write_target("file", &old);
    let (report, told) = lab.restore(&snapshot, &lab.options());
    assert_eq!(told.problems(), []);
    assert_eq!((report.bytes_reused, report.bytes_written), (5 << 20, 0));
    lab.check_same();
}

#[test]
fn a_file_with_damaged_content_is_left_out_and_named_and_others_come_back() {
    let lab = Lab::new();
    for number in 0..50 {
        lab.write(&format!("small/{number:02}"), noise(number, 3_000));
    }
    lab.write("large", noise(100, 400_000));
    fs::hard_link(lab.source().join("large"), lab.source().join("other name")).unwrap();
    let snapshot = lab.back_up();
    for sparse in [false, true] {
        let store = lab.store.fork();
        let password = putback_repo::Password::new(b"password".to_vec());
        let packs = store.paths().into_iter().filter(|path| path.folder() == "packs");
        let (pack, _) = packs
            .map(|path| (path.clone(), putback_store::Store::stat(&store, &path).unwrap().size))
            .max_by_key(|(_, size)| *size)
            .unwrap();
        // In the first frame: one blob or all of its blobs are lost with it.
        assert!(store.damage(&pack, |bytes| bytes[1_000] ^= 1));
        let directories = putback_repo::Machine::default();
        let repository = Repository::open(Arc::new(store), &password, &directories).unwrap();
        let mut options = lab.options();
        options.sparse = sparse;
        lab.write_target("small/00", b"old content");
        let told = Told::default();
        let report = restore(&repository, &snapshot, b"/data", &options, &told).unwrap();
        let problems = told.problems();
        assert!(!problems.is_empty());
        assert_eq!(report.problems, problems.len() as u64);
        let found = look(&lab.target());
        for (path, expected) in look(&lab.source()) {
            let text = format!("/data/{}", String::from_utf8_lossy(&path));
            let problem = problems.iter().find(|(of, ..)| *of == text);
            match (problem, found.get(&path)) {
                (Some((_, kind, _)), found) => {
                    assert_eq!(*kind, IncidentKind::Lost);
                    let old = found.map(|seen| seen.content.as_slice());
                    assert!(old.is_none_or(|old| old == b"old content"), "{text}");
                }
                (None, Some(found)) => assert_eq!(found.content, expected.content, "{text}"),
                (None, None) => panic!("{text} is missing and was not told"),
            }
        }
        assert!(!found.keys().any(|path| path.ends_with(b".tmp")));
        lab.remove_target();
    }
}

#[test]
fn another_copy_of_a_damaged_blob_serves() {
    let lab = Lab::new();
    for number in 0..20 {
        lab.write(&format!("{number}"), noise(number, 20_000));
    }
    let password = putback_repo::Password::new(b"password".to_vec());
    let directories = putback_repo::Machine::default();
    // Two writers that do not know of each other store everything twice.
    let other = Repository::open(Arc::new(lab.store.clone()), &password, &directories).unwrap();
    let unaware = other.begin_backup(None, 1).unwrap();
    let snapshot = lab.back_up();
    let packs = |lab: &Lab| -> Vec<_> {
        lab.store.paths().into_iter().filter(|path| path.folder() == "packs").collect()
    };
    let first = packs(&lab);
    let mut data = unaware.frame_writer(BlobKind::Data);
    let chunker = other.chunker();
    for number in 0..20 {
        let bytes = noise(number, 20_000);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (chunk, others) = rest.split_at(chunker.cut(rest));
            data.put(chunk).unwrap();
            rest = others;
        }
    }
    data.flush().unwrap();
    drop(data);
    unaware.flush().unwrap();
    unaware.finish().unwrap();
    let second: Vec<_> = packs(&lab).into_iter().filter(|path| !first.contains(path)).collect();
    assert_eq!(second.len(), 1);
    let check = |damaged: &[putback_store::ObjectPath], is_gone: bool| {
        let store = lab.store.fork();
        for path in damaged {
            if putback_store::Store::stat(&store, path).unwrap().size < 100_000 {
                continue;
            }
            if is_gone {
                let info = putback_store::Store::stat(&store, path).unwrap();
                putback_store::Store::delete(&store, &[info]).unwrap();
            } else {
                store.damage(path, |bytes| bytes[5_000] ^= 1);
            }
        }
        let repository = Repository::open(Arc::new(store), &password, &directories).unwrap();
        let told = Told::default();
        restore(&repository, &snapshot, b"/data", &lab.options(), &told).unwrap();
        assert_eq!(told.problems(), []);
        lab.check_same();
        lab.remove_target();
    };
    for is_gone in [false, true] {
        check(&first, is_gone);
        check(&second, is_gone);
    }
}

#[test]
fn verify_finds_what_changed_after_it_was_written() {
    let lab = Lab::new();
    lab.write("tiny", b"tiny");
    lab.write("small", noise(1, 500));
    lab.write("large", noise(2, 500_000));
    lab.write("good", noise(3, 50_000));
    lab.write("longer", noise(4, 500));
    lab.write("gone", noise(5, 500));
    let hole = fs::File::create(lab.source().join("hole")).unwrap();
    hole.set_len(1 << 20).unwrap();
    let snapshot = lab.back_up();
    let mut options = lab.options();
    options.verify = true;
    let (report, told) = lab.restore(&snapshot, &options);
    assert_eq!(report.problems, 0);
    let expected = told.totals.lock().unwrap()["Verify expected"];
    assert_eq!(told.advanced.lock().unwrap()["Verify"], expected);

    let target = lab.target();
    let told = Told {
        at_verify: Some(Box::new(move || {
            let open =
                |name: &str| fs::File::options().write(true).open(target.join(name)).unwrap();
            open("tiny").write_all_at(b"T", 0).unwrap();
            open("small").write_all_at(b"x", 499).unwrap();
            open("large").write_all_at(b"xyz", 400_000).unwrap();
            open("longer").write_all_at(b"x", 500).unwrap();
            open("hole").write_all_at(b"x", 5_000).unwrap();
            fs::remove_file(target.join("gone")).unwrap();
        })),
        ..Told::default()
    };
    let report = restore(&lab.repository, &snapshot, b"/data", &options, &told).unwrap();
    let problems = told.problems();
    let names: Vec<&str> = problems.iter().map(|(path, ..)| path.as_str()).collect();
    let expected = ["gone", "hole", "large", "longer", "small", "tiny"];
    assert_eq!(names, expected.map(|name| format!("/data/{name}")));
    assert_eq!(report.problems, 6);
}

#[test]
fn verify_leaves_out_what_the_policy_kept() {
    let lab = Lab::new();
    lab.write("a", b"new");
    lab.write("dir/b", b"new");
    lab.write("c/d", noise(1, 400));
    let snapshot = lab.back_up();
    lab.write_target("a", b"kept");
    lab.write_target("dir", b"kept");
    let mut options = lab.options();
    options.verify = true;
    options.overwrite = Overwrite::Never;
    let (report, told) = lab.restore(&snapshot, &options);
    assert_eq!(told.problems(), []);
    assert_eq!((report.files_skipped, report.files_restored), (2, 1));
}

#[test]
fn owners_go_by_name_unless_numbers_or_nobody_is_asked_for() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.write("file", b"1");
    lab.write("dir/file", noise(1, 1_000));
    let snapshot = back_up(&lab.repository, &lab.source(), &|_, entry| {
        (entry.uid, entry.gid) = (4_000_000, 4_000_001);
        (entry.user, entry.group) = (b"root".to_vec(), b"no such group".to_vec());
        true
    });
    let check = |set: fn(&mut RestoreOptions), expected: (u32, u32)| {
        let mut options = lab.options();
        set(&mut options);
        lab.restore(&snapshot, &options);
        for (path, seen) in look(&lab.target()) {
            assert_eq!(seen.owner, expected, "{}", String::from_utf8_lossy(&path));
        }
        lab.remove_target();
    };
    check(|_| {}, (0, 4_000_001));
    check(|options| options.numeric_owner = true, (4_000_000, 4_000_001));
    check(|options| options.no_owner = true, (0, 0));
}

#[test]
fn set_user_id_is_not_kept_without_the_owner() {
    let lab = Lab::new();
    lab.write("program", noise(1, 1_000));
    let path = lab.source().join("program");
    fs::set_permissions(path, fs::Permissions::from_mode(0o4755)).unwrap();
    let snapshot = lab.back_up();
    let mut options = lab.options();
    options.no_owner = true;
    let (_, told) = lab.restore(&snapshot, &options);
    assert_eq!(told.problems(), []);
    let mode = fs::metadata(lab.target().join("program")).unwrap().mode() & 0o7777;
    assert_eq!(mode, 0o755);
}

#[test]
fn sockets_are_passed_over() {
    let lab = Lab::new();
    let _socket = std::os::unix::net::UnixListener::bind(lab.source().join("s")).unwrap();
    let snapshot = lab.back_up();
    let (report, told) = lab.restore(&snapshot, &lab.options());
    assert_eq!((report.files_total, report.files_skipped, report.problems), (0, 0, 0));
    assert_eq!(told.action("/data/s"), Some(Action::Excluded));
    assert!(look(&lab.target()).is_empty());
}

#[test]
fn metadata_that_cannot_be_set_is_a_problem_and_the_file_stays() {
    let lab = Lab::new();
    lab.write("file", noise(1, 1_000));
    lab.write("other", noise(2, 1_000));
    let snapshot = back_up(&lab.repository, &lab.source(), &|path, entry| {
        if path == b"/data/file" {
            entry.xattrs = vec![putback_format::tree::Xattr {
                name: b"nonsense.x".to_vec(),
                value: b"1".to_vec(),
            }];
        }
        true
    });
    let (report, told) = lab.restore(&snapshot, &lab.options());
    assert_eq!((report.files_restored, report.problems), (2, 1));
    let (path, kind, message) = &told.problems()[0];
    assert_eq!((path.as_str(), *kind), ("/data/file", IncidentKind::MetadataIncomplete));
    assert!(message.contains("nonsense.x"), "{message}");
    assert_eq!(lab.read("file").unwrap(), noise(1, 1_000));
}

#[test]
fn a_trusted_file_gets_its_metadata_and_its_content_is_not_looked_at() {
    let lab = Lab::new();
    lab.write("file", noise(1, 1_000));
    let snapshot = lab.back_up();
    lab.restore(&snapshot, &lab.options());
    let path = lab.target().join("file");
    fs::write(&path, noise(2, 1_000)).unwrap();
    let mtime = fs::metadata(lab.source().join("file")).unwrap().modified().unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(mtime).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let mut options = lab.options();
    options.overwrite = Overwrite::IfChanged;
    let (report, told) = lab.restore(&snapshot, &options);
    assert_eq!((report.files_updated, report.bytes_reused), (1, 1_000));
    assert_eq!(told.action("/data/file"), Some(Action::Updated));
    assert_eq!(lab.read("file").unwrap(), noise(2, 1_000));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
}

#[test]
fn a_target_that_is_no_folder_is_refused() {
    let lab = Lab::new();
    let snapshot = lab.back_up();
    fs::write(lab.target(), b"a file").unwrap();
    let error = restore(&lab.repository, &snapshot, b"/", &lab.options(), &()).unwrap_err();
    assert!(matches!(error, Error::Target { .. }), "{error:?}");
}

#[test]
fn progress_of_everything_adds_up_to_what_the_snapshot_says() {
    let lab = Lab::new();
    make_everything(&lab);
    let snapshot = lab.back_up();
    let told = Told::default();
    restore(&lab.repository, &snapshot, b"/", &lab.options(), &told).unwrap();
    let totals = told.totals.lock().unwrap();
    assert_eq!(totals["Restore expected"], totals["Restore"]);
    assert_eq!(told.advanced.lock().unwrap()["Restore"], totals["Restore"]);
}

#[test]
fn a_file_of_many_chunks_in_list_pages_comes_back() {
    let lab = Lab::new();
    // 16 KiB chunks on average: more than an entry holds.
    lab.write("huge", noise(1, 24 << 20));
    let snapshot = lab.back_up();
    let entry = lab.repository.entry_at(&snapshot, b"/data/huge").unwrap();
    assert!(matches!(entry.kind, EntryKind::File { content: Content::Lists { .. }, .. }));
    lab.restore(&snapshot, &lab.options());
    lab.check_same();
    let file = fs::File::options().write(true).open(lab.target().join("huge")).unwrap();
    file.write_all_at(b"changed", 10 << 20).unwrap();
    let limits = Limits { pieces_max: 100, ..Limits::DEFAULT };
    let options = lab.options();
    let report =
        restore_within(limits, &lab.repository, &snapshot, b"/data", &options, &()).unwrap();
    assert!(report.bytes_written < 200_000 && report.bytes_reused > 20 << 20, "{report:?}");
    lab.check_same();
}

#[test]
fn decisions_follow_policy_kind_and_time() {
    use super::decide::{Decision, DirectoryDecision, decide, decide_directory};
    use crate::platform::{FileKind, Stat};
    let existing = |kind, size, seconds| Stat {
        kind,
        mode: 0,
        uid: 0,
        gid: 0,
        size,
        blocks: 0,
        mtime: Timestamp::from_seconds(seconds),
        ctime: Timestamp::default(),
        btime: None,
        device: 0,
        inode: 0,
        links: 1,
        rdev_major: 0,
        rdev_minor: 0,
        flags: 0,
        is_mount_root: false,
    };
    let content = Content::Inline(b"12345".to_vec());
    let mut file = Entry::new("f", EntryKind::File { size: 5, content, holes: Vec::new() });
    file.mtime = Timestamp::from_seconds(100);
    let check =
        |policy, stat: Option<Stat>, expected: Decision, for_directory: DirectoryDecision| {
            assert_eq!(decide(policy, &file, stat.as_ref()), expected, "{policy:?} {stat:?}");
            let mut directory = Entry::new("f", EntryKind::Directory { pages: Vec::new() });
            directory.mtime = file.mtime;
            let decided = decide_directory(policy, &directory, stat.as_ref());
            assert_eq!(decided, for_directory, "{policy:?} {stat:?}");
        };
    use DirectoryDecision as D;
    use Overwrite::{Always, IfChanged, IfNewer, Never};
    for policy in [Always, IfChanged, IfNewer, Never] {
        check(policy, None, Decision::Create, D::Create);
    }
    let same = Some(existing(FileKind::File, 5, 100));
    check(Always, same, Decision::Compare, D::Replace);
    check(IfChanged, same, Decision::Trust, D::Replace);
    check(IfNewer, same, Decision::Skip, D::Skip);
    check(Never, same, Decision::Skip, D::Skip);
    let other = Some(existing(FileKind::File, 6, 99));
    check(Always, other, Decision::Compare, D::Replace);
    check(IfChanged, other, Decision::Compare, D::Replace);
    check(IfNewer, other, Decision::Compare, D::Replace);
    check(Never, other, Decision::Skip, D::Skip);
    let link = Some(existing(FileKind::Symlink, 5, 99));
    check(Always, link, Decision::Replace, D::Replace);
    check(IfNewer, link, Decision::Replace, D::Replace);
    check(Never, link, Decision::Skip, D::Skip);
    let directory = Some(existing(FileKind::Directory, 5, 99));
    check(Always, directory, Decision::ReplaceDirectory, D::Enter);
    check(Never, directory, Decision::Skip, D::Enter);
}

#[test]
fn tasks_are_runs_of_a_few_frames_of_one_pack() {
    use super::item::Piece;
    let lab = Lab::new();
    lab.write("file", noise(1, 10_000));
    lab.back_up();
    lab.repository.load_index().unwrap();
    let packs: Vec<_> = lab.repository.index().packs().into_iter().map(|pack| pack.0).collect();
    let check = |frames: &[(usize, u32)], expected: &[std::ops::Range<usize>]| {
        let pieces: Vec<Piece> = frames
            .iter()
            .map(|(pack, frame)| Piece {
                pack: packs[*pack],
                frame: *frame,
                offset: 0,
                length: 1,
                item: 0,
                position: 0,
                id: putback_format::id::BlobId::from_bytes([0; 32]),
            })
            .collect();
        assert_eq!(super::cut::cut_frames(&pieces, 8), expected, "{frames:?}");
    };
    check(&[], &[]);
    check(&[(0, 5)], std::slice::from_ref(&(0..1)));
    check(&[(0, 5), (0, 5), (0, 9)], std::slice::from_ref(&(0..3)));
    check(&[(0, 5), (0, 6), (1, 6), (1, 6)], &[0..2, 2..4]);
    let many: Vec<(usize, u32)> = (0..20).map(|number| (0, number / 2)).collect();
    check(&many, &[0..16, 16..20]);
}
