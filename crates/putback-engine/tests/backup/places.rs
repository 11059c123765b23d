//! Where sources and repositories lie: mounts, full disks, read-only disks, one inside the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use putback_engine::Error;
use putback_engine::backup::{BackupReport, Source, backup};
use putback_format::tree::EntryKind;
use putback_repo::Repository;
use putback_store::ErrorKind;
use putback_store::local::LocalStore;

use crate::support::*;

/// A file system in memory, mounted until it is dropped. Needs root, as continuous integration has.
struct Mount(PathBuf);

impl Mount {
    fn new(path: PathBuf, size: &str) -> Self {
        fs::create_dir_all(&path).unwrap();
        let mount = Self(path);
        mount.run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        mount
    }

    fn make_read_only(&self) {
        self.run("mount", &["-o", "remount,ro"]);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let status = Command::new(program).args(arguments).arg(&self.0).status().unwrap();
        assert!(status.success(), "{program} {arguments:?} needs root");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// A repository in a folder.
fn local(folder: &Path) -> (Arc<LocalStore>, String) {
    let store = Arc::new(LocalStore::new(folder.to_path_buf()));
    let key = init(Arc::clone(&store) as Arc<_>).export_key().to_string();
    (store, key)
}

fn open(store: &Arc<LocalStore>, key: &str) -> Repository {
    let directories = putback_repo::Machine::default();
    Repository::open_with_exported_key(Arc::clone(store) as Arc<_>, key, &directories).unwrap()
}

fn back_up(store: &Arc<LocalStore>, key: &str, source: &Path) -> Result<BackupReport, Error> {
    let mut options = options();
    options.repository_folder = Some(store.root().to_path_buf());
    backup(&open(store, key), Source::Paths(vec![source.to_path_buf()]), &options, &())
}

fn kind_of(error: &Error) -> Option<ErrorKind> {
    match error {
        Error::Repository(putback_repo::Error::Store(error)) => Some(error.kind),
        _ => None,
    }
}

/// Names of all entries of the source in a snapshot.
fn names(machine: &Machine, report: &BackupReport) -> Vec<String> {
    let repository = machine.open();
    repository.load_index().unwrap();
    let snapshot = repository.read_snapshot(&report.snapshot.unwrap()).unwrap();
    let source = machine.source();
    let mut names = Vec::new();
    putback_engine::list::walk(
        &repository,
        &snapshot,
        source.as_os_str().as_encoded_bytes(),
        &mut |path, entry| {
            let name = String::from_utf8_lossy(path).into_owned();
            let name = name.strip_prefix(source.to_str().unwrap()).unwrap().to_owned();
            let suffix = if matches!(entry.kind, EntryKind::Directory { .. }) { "/" } else { "" };
            names.push(format!("{name}{suffix}"));
            Ok(putback_engine::list::Descend::Yes)
        },
    )
    .unwrap();
    names
}

#[test]
fn what_is_mounted_below_a_root_stays_out_if_that_is_asked_for() {
    let machine = Machine::new();
    machine.write("file", b"here");
    let mount = Mount::new(machine.source().join("mounted"), "1m");
    fs::write(mount.0.join("there"), b"elsewhere").unwrap();
    let report = machine.back_up();
    assert_eq!(names(&machine, &report), ["/file", "/mounted/", "/mounted/there"]);
    let report = machine.back_up_with(|options| options.filter.one_file_system = true);
    assert_eq!(names(&machine, &report), ["/file", "/mounted/"]);
}

#[test]
fn exclude_rules_leave_out_what_they_say() {
    let machine = Machine::new();
    for name in ["a.tmp", "keep.tmp", "cache/x", "deep/cache/y", "B.JPG", "ok"] {
        machine.write(name, b"x");
    }
    machine.write("large", [0; 2000]);
    let report = machine.back_up_with(|options| {
        let filter = &mut options.filter;
        filter.exclude = vec!["*.tmp".to_owned(), "!keep.tmp".to_owned(), "cache/".to_owned()];
        filter.iexclude = vec!["*.jpg".to_owned()];
        filter.exclude_larger_than = Some(1000);
    });
    assert_eq!(names(&machine, &report), ["/deep/", "/keep.tmp", "/ok"]);
}

#[test]
fn a_source_inside_the_repository_is_refused() {
    let machine = Machine::new();
    let (store, key) = local(&machine.root.path().join("repository"));
    let link = machine.root.path().join("link");
    std::os::unix::fs::symlink(store.root(), &link).unwrap();
    for inside in [store.root().to_path_buf(), store.root().join("packs"), link.join("index")] {
        let error = back_up(&store, &key, &inside).unwrap_err();
        let is_told = matches!(&error, Error::Refused { message } if message.contains("inside the repository"));
        assert!(is_told, "{}: {error}", inside.display());
    }
    assert!(open(&store, &key).snapshots(&Default::default()).unwrap().is_empty());
}

#[test]
fn a_repository_inside_the_source_is_left_out() {
    let machine = Machine::new();
    machine.write("file", b"x");
    let (store, key) = local(&machine.source().join("folder/repository"));
    let report = back_up(&store, &key, &machine.source()).unwrap();
    assert_eq!(report.statistics.files_new, 1);
    let size = |store: &Arc<LocalStore>| fs::read_dir(store.root().join("packs")).unwrap().count();
    let before = size(&store);
    let again = back_up(&store, &key, &machine.source()).unwrap();
    assert_eq!((again.statistics.files_new, again.statistics.incidents), (0, 0));
    assert!(size(&store) <= before + 2);
}

#[test]
fn a_disk_that_is_full_in_the_middle_fails_clearly_and_hurts_nothing() {
    let machine = Machine::new();
    let mount = Mount::new(machine.root.path().join("disk"), "16m");
    let (store, key) = local(&mount.0.join("repository"));
    machine.write("small", noise(1, 1 << 20));
    let first = back_up(&store, &key, &machine.source()).unwrap();
    let large = machine.write("large", noise(2, 24 << 20));
    let error = back_up(&store, &key, &machine.source()).unwrap_err();
    assert_eq!(kind_of(&error), Some(ErrorKind::Full), "{error}");

    let repository = open(&store, &key);
    let options = putback_repo::CheckOptions {
        read: putback_repo::ReadData::All,
        workers: 2,
        ..Default::default()
    };
    assert_eq!(repository.check(&options, &()).unwrap().damages, []);
    let snapshots = repository.snapshots(&Default::default()).unwrap();
    assert_eq!(
        snapshots.iter().map(|stored| Some(stored.id)).collect::<Vec<_>>(),
        [first.snapshot]
    );
    // Nothing that takes room is left of what did not fit.
    let left = fs::read_dir(store.root().join("packs")).unwrap();
    let names: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| name.len() == 64), "{names:?}");

    fs::remove_file(large).unwrap();
    machine.write("medium", noise(3, 2 << 20));
    let next = back_up(&store, &key, &machine.source()).unwrap();
    let target = tempfile::tempdir().unwrap();
    let repository = open(&store, &key);
    let snapshot = repository.read_snapshot(&next.snapshot.unwrap()).unwrap();
    let path = machine.source();
    let report = putback_engine::restore::restore(
        &repository,
        &snapshot,
        path.as_os_str().as_encoded_bytes(),
        &restore_options(target.path()),
        &(),
    );
    assert_eq!(report.unwrap().problems, 0);
    assert_same_tree(&machine.source(), target.path());
}

#[test]
fn a_read_only_repository_refuses_backups_and_can_be_checked_and_restored() {
    let machine = Machine::new();
    let mount = Mount::new(machine.root.path().join("disk"), "16m");
    let (store, key) = local(&mount.0.join("repository"));
    machine.write("file", noise(1, 100_000));
    let first = back_up(&store, &key, &machine.source()).unwrap();
    mount.make_read_only();
    machine.write("other", noise(2, 1000));
    let error = back_up(&store, &key, &machine.source()).unwrap_err();
    assert_eq!(kind_of(&error), Some(ErrorKind::Denied), "{error}");
    fs::remove_file(machine.source().join("other")).unwrap();

    let repository = open(&store, &key);
    let check = repository.check(&Default::default(), &()).unwrap();
    assert_eq!(check.damages, []);
    let snapshot = repository.read_snapshot(&first.snapshot.unwrap()).unwrap();
    let target = tempfile::tempdir().unwrap();
    let path = machine.source();
    let report = putback_engine::restore::restore(
        &repository,
        &snapshot,
        path.as_os_str().as_encoded_bytes(),
        &restore_options(target.path()),
        &(),
    );
    assert_eq!(report.unwrap().problems, 0);
    assert_same_tree(&machine.source(), target.path());
}
