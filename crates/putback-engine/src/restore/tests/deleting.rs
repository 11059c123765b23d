//! What `delete` leaves alone because the snapshot does not know what belongs there.

use std::path::PathBuf;
use std::process::Command;

use putback_format::snapshot::Incident;

use super::*;

/// A file system in memory, or another folder, mounted until it is dropped. Needs root, as continuous integration has.
struct Mount(PathBuf);

impl Mount {
    fn new(path: PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        let status = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&path).status();
        assert!(status.unwrap().success(), "mounting needs root");
        Self(path)
    }

    /// Mounts `folder` at `path` too.
    fn bind(folder: &Path, path: PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        let status = Command::new("mount").arg("--bind").arg(folder).arg(&path).status();
        assert!(status.unwrap().success(), "mounting needs root");
        Self(path)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn delete_all(lab: &Lab, snapshot: &Snapshot, path: &str, dry_run: bool) -> (Vec<String>, Told) {
    let mut options = lab.options();
    (options.delete, options.dry_run) = (true, dry_run);
    let told = Told::default();
    restore(&lab.repository, snapshot, path.as_bytes(), &options, &told).unwrap();
    assert_eq!(told.problems(), []);
    let deleted = told.actions().into_iter().filter(|(_, action)| *action == Action::Deleted);
    (deleted.map(|(path, _)| path).collect(), told)
}

fn warnings(told: &Told) -> Vec<String> {
    told.warnings.lock().unwrap().clone()
}

#[test]
fn what_is_mounted_in_the_target_stays_and_is_told() {
    let lab = Lab::new();
    lab.write("top/disk/known/file", b"1");
    lab.write("top/plain/file", b"2");
    fs::create_dir(lab.source().join("top/unmounted")).unwrap();
    let snapshot = lab.back_up();
    let mounts = ["top/disk", "top/unmounted"].map(|path| Mount::new(lab.target().join(path)));
    for path in ["top/disk/mine", "top/disk/known/mine", "top/unmounted/mine", "top/plain/mine"] {
        lab.write_target(path, b"precious");
    }
    for dry_run in [true, false] {
        let (deleted, told) = delete_all(&lab, &snapshot, "/data", dry_run);
        assert_eq!(deleted, ["/data/top/plain/mine"]);
        let expected = ["/data/top/disk", "/data/top/unmounted"].map(|path| {
            format!(
                "nothing of {path} is deleted: another file system is mounted there; restore it by \
                 itself to delete there too"
            )
        });
        assert_eq!(warnings(&told), expected);
    }
    for path in ["top/disk/mine", "top/disk/known/mine", "top/unmounted/mine"] {
        assert_eq!(lab.read(path).unwrap(), b"precious", "{path}");
    }
    assert_eq!(lab.read("top/disk/known/file").unwrap(), b"1");

    // By itself, or where it was backed up by itself, it is what the snapshot speaks of.
    let mut with_root = snapshot;
    with_root.paths = vec![b"/data".to_vec(), b"/data/top/disk".to_vec()];
    let (deleted, _) = delete_all(&lab, &with_root, "/data", true);
    assert_eq!(deleted, ["/data/top/disk/known/mine", "/data/top/disk/mine"]);
    let mut options = options(&lab.target().join("top/disk"));
    options.delete = true;
    let report = restore(&lab.repository, &with_root, b"/data/top/disk", &options, &()).unwrap();
    assert_eq!(report.files_deleted, 2);
    drop(mounts);
}

#[test]
fn a_folder_of_the_same_device_that_is_mounted_in_the_target_stays_and_is_told() {
    let lab = Lab::new();
    lab.write("top/known/deep/file", b"1");
    lab.write("top/plain/file", b"2");
    let snapshot = lab.back_up();
    let elsewhere = lab.folder.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("deep")).unwrap();
    for path in ["mine", "deep/mine"] {
        fs::write(elsewhere.join(path), b"precious").unwrap();
    }
    let mounts =
        ["top/known", "top/extra"].map(|path| Mount::bind(&elsewhere, lab.target().join(path)));
    let stat = platform::stat_path(&mounts[0].0).unwrap();
    assert_eq!(stat.device, platform::stat_path(&lab.target()).unwrap().device);
    lab.write_target("top/plain/mine", b"extra");
    let mut options = lab.options();
    options.delete = true;
    let (_, told) = lab.restore(&snapshot, &options);
    let mounted = |(path, _, message): &(String, IncidentKind, String)| {
        path == "/data/top/extra" && message == "cannot delete it: something is mounted there"
    };
    assert!(matches!(&told.problems()[..], [one] if mounted(one)), "{:?}", told.problems());
    let expected = "nothing of /data/top/known is deleted: something is mounted there; restore it by \
                    itself to delete there too";
    assert_eq!(warnings(&told), [expected]);
    assert_eq!(lab.read("top/plain/mine"), None);
    assert_eq!(fs::read(elsewhere.join("mine")).unwrap(), b"precious");
    assert_eq!(fs::read(elsewhere.join("deep/mine")).unwrap(), b"precious");
    assert_eq!(fs::read(elsewhere.join("deep/file")).unwrap(), b"1");

    // By itself, or where it was backed up by itself, it is what the snapshot speaks of.
    drop(mounts);
    fs::remove_dir(lab.target().join("top/extra")).unwrap();
    let _mount = Mount::bind(&elsewhere, lab.target().join("top/known"));
    let mut with_root = snapshot;
    with_root.paths = vec![b"/data".to_vec(), b"/data/top/known".to_vec()];
    let (deleted, _) = delete_all(&lab, &with_root, "/data", true);
    assert_eq!(deleted, ["/data/top/known/deep/mine", "/data/top/known/mine"]);
    let mut options = self::options(&lab.target().join("top/known"));
    options.delete = true;
    with_root.paths.pop();
    let report = restore(&lab.repository, &with_root, b"/data/top/known", &options, &()).unwrap();
    assert_eq!(report.files_deleted, 2);
}

#[test]
fn a_folder_that_was_kept_empty_as_a_mount_point_is_not_emptied() {
    let lab = Lab::new();
    lab.write("top/file", b"1");
    for folder in ["top/empty", "top/home"] {
        fs::create_dir(lab.source().join(folder)).unwrap();
    }
    let snapshot = back_up(&lab.repository, &lab.source(), &|path, entry| {
        // As with --one-file-system.
        entry.device += u64::from(path == b"/data/top/home");
        true
    });
    for path in ["top/mine", "top/empty/mine", "top/home/mine", "top/home/deep/mine"] {
        lab.write_target(path, b"precious");
    }
    let expected = vec!["/data/top/empty/mine", "/data/top/mine"];
    let (deleted, told) = delete_all(&lab, &snapshot, "/data", false);
    assert_eq!(
        (deleted, warnings(&told)),
        (expected.into_iter().map(Into::into).collect(), vec![])
    );
    assert_eq!(lab.read("top/home/mine").unwrap(), b"precious");
    assert_eq!(lab.read("top/home/deep/mine").unwrap(), b"precious");

    let mut options = options(&lab.target().join("top/home"));
    options.delete = true;
    let report = restore(&lab.repository, &snapshot, b"/data/top/home", &options, &()).unwrap();
    assert_eq!(report.files_deleted, 0);
    let mut as_root = snapshot;
    as_root.paths.push(b"/data/top/home".to_vec());
    let report = restore(&lab.repository, &as_root, b"/data/top/home", &options, &()).unwrap();
    assert_eq!(report.files_deleted, 3);
}

#[test]
fn what_the_backup_could_not_read_is_not_deleted() {
    let lab = Lab::new();
    lab.write("part/known", b"1");
    lab.write("open/known", b"2");
    fs::create_dir(lab.source().join("closed")).unwrap();
    let mut snapshot = lab.back_up();
    let incident =
        |path: &str, kind| Incident { path: path.into(), kind, message: "it was so".to_owned() };
    snapshot.incidents = vec![
        incident("/data/closed", IncidentKind::Unreadable),
        incident("/data/part", IncidentKind::Unreadable),
        incident("/data/open/lost", IncidentKind::Lost),
        incident("/data/open/moved", IncidentKind::Vanished),
        incident("/data/open/not there/secret", IncidentKind::Unreadable),
        incident("/data/open", IncidentKind::MetadataIncomplete),
        incident("/data/open/known", IncidentKind::ChangedWhileRead),
    ];
    snapshot.statistics.incidents = snapshot.incidents.len() as u64;
    let kept = [
        "closed/mine",
        "closed/deep/mine",
        "part/mine",
        "open/lost",
        "open/moved",
        "open/not there/secret/mine",
    ];
    for path in kept {
        lab.write_target(path, b"precious");
    }
    for path in ["open/not there/extra", "open/loster", "extra"] {
        lab.write_target(path, b"extra");
    }
    for dry_run in [true, false] {
        let (deleted, told) = delete_all(&lab, &snapshot, "/data", dry_run);
        assert_eq!(deleted, ["/data/extra", "/data/open/loster", "/data/open/not there/extra"]);
        let mut told = warnings(&told);
        told.sort();
        let paths = ["closed", "open/lost", "open/moved", "open/not there/secret", "part"];
        let expected = paths.map(|path| {
            format!("nothing of /data/{path} is deleted: the backup could not read all of it")
        });
        assert_eq!(told, expected);
    }
    for path in kept {
        assert_eq!(lab.read(path).unwrap(), b"precious", "{path}");
    }
    // Restored by itself, it is not better known.
    let (deleted, _) = delete_all(&lab, &snapshot, "/data/closed", false);
    assert_eq!(deleted, [""; 0]);

    lab.write_target("extra", b"extra");
    snapshot.incidents = vec![incident("/", IncidentKind::Unreadable)];
    assert_eq!(delete_all(&lab, &snapshot, "/data", false).0, [""; 0]);
}

#[test]
fn nothing_is_deleted_when_not_all_that_could_not_be_read_is_named() {
    let lab = Lab::new();
    lab.write("dir/file", b"1");
    let mut snapshot = lab.back_up();
    lab.write_target("dir/mine", b"precious");
    lab.write_target("mine", b"precious");
    snapshot.statistics.incidents = 1;
    let (deleted, told) = delete_all(&lab, &snapshot, "/data", false);
    assert_eq!(deleted, [""; 0]);
    assert_eq!(
        warnings(&told),
        ["nothing is deleted: the backup could not read more than the snapshot has room to name"]
    );
    assert_eq!(lab.read("dir/file").unwrap(), b"1");
}

#[test]
fn a_checkpoint_does_not_say_what_to_delete() {
    let lab = Lab::new();
    lab.write("file", b"1");
    let mut snapshot = lab.back_up();
    snapshot.complete = false;
    lab.write_target("mine", b"precious");
    let mut options = lab.options();
    options.delete = true;
    let refused = restore(&lab.repository, &snapshot, b"/data", &options, &()).unwrap_err();
    assert!(matches!(refused, Error::DeleteByCheckpoint), "{refused}");
    assert_eq!((lab.read("file"), lab.read("mine").is_some()), (None, true));
    options.delete = false;
    restore(&lab.repository, &snapshot, b"/data", &options, &()).unwrap();
    assert_eq!(lab.read("file").unwrap(), b"1");
}

#[test]
fn the_repository_stays_wherever_it_lies_in_the_target() {
    let lab = Lab::new();
    lab.write("top/file", b"1");
    fs::create_dir(lab.source().join("known")).unwrap();
    let snapshot = lab.back_up();
    for dry_run in [true, false] {
        for place in ["new/deep/backup", "top/backup", "known"] {
            lab.write_target(&format!("{place}/packs/ab"), b"precious");
            lab.write_target("new/deep/mine", b"extra");
            let mut options = lab.options();
            (options.delete, options.dry_run) = (true, dry_run);
            options.repository_folder = Some(lab.target().join(place));
            let (report, told) = lab.restore(&snapshot, &options);
            assert_eq!((report.problems, told.problems()), (0, vec![]));
            let expected = format!(
                "nothing of /data/{place} is deleted: the snapshot is in the repository there"
            );
            assert_eq!(warnings(&told), [expected]);
            assert_eq!(told.action("/data/new/deep/mine"), Some(Action::Deleted));
            assert_eq!(lab.read(&format!("{place}/packs/ab")).unwrap(), b"precious");
            assert_eq!(lab.read("new/deep/mine").is_some(), dry_run);
            fs::remove_dir_all(lab.target().join(place)).unwrap();
        }
    }
    // Into the repository itself, and into one of its folders.
    for target in ["repository", "repository/packs"] {
        let folder = lab.folder.path();
        fs::create_dir_all(folder.join("repository/packs")).unwrap();
        fs::write(folder.join("repository/packs/ab"), b"precious").unwrap();
        let mut options = options(&folder.join(target));
        options.delete = true;
        options.repository_folder = Some(folder.join("repository"));
        let (report, told) = lab.restore(&snapshot, &options);
        assert_eq!((report.files_deleted, warnings(&told).len()), (0, 1));
        assert!(folder.join("repository/packs/ab").exists());
    }
}

#[test]
fn other_repositories_stay_unless_they_are_restored() {
    let lab = Lab::new();
    lab.write("known/file", b"1");
    for name in ["config", "keys", "packs", "index", "snapshots"] {
        lab.write(&format!("restored/{name}/object"), name);
    }
    let snapshot = lab.back_up();
    let store = putback_store::local::LocalStore::new(lab.target().join("disk/replica"));
    drop(backup::repository(Arc::new(store), 8 << 20, 16 << 10));
    let made = look(&lab.target().join("disk/replica"));
    assert!(made.len() > 3, "{:?}", made.keys());
    for name in ["config", "keys", "packs"] {
        lab.write_target(&format!("no repository/{name}/file"), b"extra");
    }
    lab.write_target("disk/mine", b"extra");
    lab.write_target("restored/packs/extra", b"extra");
    for dry_run in [true, false] {
        let (deleted, told) = delete_all(&lab, &snapshot, "/data", dry_run);
        let mut expected = vec!["/data/disk/mine".to_owned(), "/data/no repository".to_owned()];
        for name in ["config", "keys", "packs"] {
            expected.push(format!("/data/no repository/{name}"));
            expected.push(format!("/data/no repository/{name}/file"));
        }
        expected.push("/data/restored/packs/extra".to_owned());
        let mut deleted = deleted;
        deleted.sort();
        assert_eq!(deleted, expected);
        let expected = "nothing of /data/disk/replica is deleted: it is a repository, as it seems; \
                        delete it by hand if nobody needs it";
        assert_eq!(warnings(&told), [expected]);
        assert_same(&look(&lab.target().join("disk/replica")), &made);
    }
}

#[test]
fn nothing_is_deleted_beside_a_name_that_is_there_without_being_listed() {
    for (is_folder, exclude) in [(false, None), (true, None), (false, Some("/data/dir/photos"))] {
        let lab = Lab::new();
        lab.write("dir/a/file", b"a");
        lab.write("dir/known/file", b"known");
        lab.write(if is_folder { "dir/photos/file" } else { "dir/photos" }, b"new");
        lab.write("dir/sub/file", b"sub");
        lab.write("other/file", b"other");
        let snapshot = lab.back_up();
        for path in ["dir/PHOTOS", "dir/known/mine", "dir/sub/mine", "dir/zzz", "other/mine"] {
            lab.write_target(path, b"mine");
        }
        let mut options = lab.options();
        options.delete = true;
        options.exclude.extend(exclude.map(str::to_owned));
        // Told by the thread that plans, between the listing of the folder and the look at what comes next in it: as
        // if the file system took one name for the other.
        let photos = lab.target().join("dir/photos");
        let make = move |path: &[u8]| {
            if path == b"/data/dir/a" {
                fs::write(&photos, b"mine").unwrap();
            }
        };
        let told = Told { at_entry: Some(Box::new(make)), ..Told::default() };
        restore(&lab.repository, &snapshot, b"/data", &options, &told).unwrap();
        let problems: Vec<_> = told.problems().into_iter().map(|problem| problem.0).collect();
        let expected: &[_] = if exclude.is_none() { &["/data/dir/photos"] } else { &[] };
        assert_eq!(problems, expected);
        let expected = "nothing of /data/dir is deleted: 'photos' was not in its list, and is there; it was \
                        made just now, or is another file's name in other letters";
        assert_eq!(warnings(&told), [expected]);
        for path in ["dir/PHOTOS", "dir/photos", "dir/sub/mine", "dir/zzz"] {
            assert_eq!(lab.read(path).unwrap(), b"mine", "{path}");
        }
        assert_eq!((lab.read("dir/known/mine"), lab.read("other/mine")), (None, None));
        assert_eq!(lab.read("dir/sub/file").unwrap(), b"sub");
    }
}
