//! Existing files: that what must not be written to is replaced by renaming, whatever else is right about it.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::*;

/// So little fits into a window that files of a few chunks do not.
const NARROW: Limits = Limits {
    pieces_max: 5,
    entries_max: 7,
    entries_first: 2,
    bytes_max: 1 << 20,
    files_open_max: 4,
    folders_open_max: 4,
    frames_per_task: 8,
};

fn restore_narrowly(lab: &Lab, snapshot: &Snapshot, dry_run: bool) -> (RestoreReport, Told) {
    let told = Told::default();
    let options = RestoreOptions { dry_run, ..lab.options() };
    let report =
        restore_within(NARROW, &lab.repository, snapshot, b"/data", &options, &told).unwrap();
    assert_eq!(told.problems(), []);
    told.check_progress();
    (report, told)
}

#[test]
fn a_file_that_reaches_over_windows_is_replaced_if_any_of_it_is_wrong() {
    let content = noise(1, 400_000);
    let check = |wrong_at: usize, has_other_name: bool| {
        let lab = Lab::new();
        lab.write("file", &content);
        let snapshot = lab.back_up();
        let mut old = content.clone();
        old[wrong_at] ^= 1;
        lab.write_target("file", &old);
        let other = lab.folder.path().join("other");
        if has_other_name {
            fs::hard_link(lab.target().join("file"), &other).unwrap();
        }
        let handle = fs::File::open(lab.target().join("file")).unwrap();
        for dry_run in [true, false] {
            let (report, told) = restore_narrowly(&lab, &snapshot, dry_run);
            assert_eq!(told.action("/data/file"), Some(Action::Updated));
            assert_eq!((report.bytes_written, report.bytes_reused), (400_000, 0), "{dry_run}");
        }
        lab.check_same();
        let mut kept = vec![0; old.len()];
        handle.read_exact_at(&mut kept, 0).unwrap();
        assert!(kept == old, "wrong at {wrong_at}: it was written to");
        if has_other_name {
            assert!(fs::read(other).unwrap() == old);
        }
        for dry_run in [true, false] {
            let (report, _) = restore_narrowly(&lab, &snapshot, dry_run);
            assert_eq!((report.files_unchanged, report.bytes_reused), (1, 400_000));
        }
    };
    for has_other_name in [false, true] {
        check(399_999, has_other_name);
        check(200_000, has_other_name);
        check(0, has_other_name);
    }
}

#[test]
fn a_large_file_with_other_names_that_reaches_over_windows_is_not_written_to() {
    let lab = Lab::new();
    lab.write("large", noise(1, 5 << 20));
    let snapshot = lab.back_up();
    let mut old = noise(1, 5 << 20);
    old[5_000_000] ^= 1;
    lab.write_target("large", &old);
    let other = lab.folder.path().join("other");
    fs::hard_link(lab.target().join("large"), &other).unwrap();
    let (report, _) = restore_narrowly(&lab, &snapshot, false);
    assert_eq!(report.bytes_written, 5 << 20);
    lab.check_same();
    assert!(fs::read(other).unwrap() == old);
}

/// Somebody else makes a file when the restore has begun one of the same name.
struct Neighbour {
    path: PathBuf,
    told: Told,
}

impl Observer for Neighbour {
    fn event(&self, event: Event<'_>) {
        if let Event::FileStarted { .. } = event {
            fs::write(&self.path, b"theirs").unwrap();
        }
        self.told.event(event);
    }
}

#[test]
fn a_file_that_was_not_there_when_its_name_was_looked_up_is_not_replaced() {
    for overwrite in [Overwrite::Never, Overwrite::IfNewer] {
        let lab = Lab::new();
        lab.write("file", noise(1, 200_000));
        let snapshot = lab.back_up();
        let options = RestoreOptions { overwrite, ..lab.options() };
        let neighbour = Neighbour { path: lab.target().join("file"), told: Told::default() };
        let report = restore(&lab.repository, &snapshot, b"/data", &options, &neighbour).unwrap();
        assert_eq!(report.problems, 1);
        let problems = neighbour.told.problems();
        assert_eq!(problems[0].0, "/data/file");
        assert!(problems[0].2.starts_with("cannot write the file: "), "{problems:?}");
        assert!(problems[0].2.contains("exists"), "{problems:?}");
        assert_eq!(lab.read("file").unwrap(), b"theirs");
        assert_eq!(fs::read_dir(lab.target()).unwrap().count(), 1);
    }
}

/// A program that runs until it is dropped: it waits for input.
struct Running(Child);

impl Running {
    fn start(program: &Path) -> Self {
        let mut command = Command::new(program);
        command.arg0("sh").stdin(Stdio::piped());
        loop {
            match command.spawn() {
                Ok(child) => return Self(child),
                // Another test started a process while this one wrote the file.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_program_that_runs_is_replaced() {
    // What follows the program in its file does not matter to it.
    let program = fs::read("/bin/sh").unwrap();
    let check = |extra: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let lab = Lab::new();
        let content = [&program[..], &noise(1, extra)].concat();
        lab.write("program", &content);
        let mode = || fs::Permissions::from_mode(0o755);
        fs::set_permissions(lab.source().join("program"), mode()).unwrap();
        let snapshot = lab.back_up();
        let mut old = content.clone();
        change(&mut old);
        lab.write_target("program", &old);
        fs::set_permissions(lab.target().join("program"), mode()).unwrap();
        let running = Running::start(&lab.target().join("program"));
        let (report, told) = lab.restore(&snapshot, &lab.options());
        assert_eq!(told.problems(), []);
        told.check_progress();
        assert_eq!((report.files_updated, report.bytes_written), (1, content.len() as u64));
        lab.check_same();
        drop(running);
        // While it runs, what is right is kept.
        let running = Running::start(&lab.target().join("program"));
        let (report, told) = lab.restore(&snapshot, &lab.options());
        assert_eq!(told.problems(), []);
        assert_eq!((report.files_unchanged, report.bytes_written), (1, 0));
        drop(running);
    };
    check(5 << 20, &|bytes| *bytes.last_mut().unwrap() ^= 1);
    check(5 << 20, &|bytes| bytes.extend_from_slice(b"more"));
    check(100, &|bytes| bytes.extend_from_slice(b"more"));
}

#[test]
fn files_that_became_one_get_each_its_own_metadata() {
    for (overwrite, length) in
        [(Overwrite::Always, 5), (Overwrite::Always, 200_000), (Overwrite::IfChanged, 200_000)]
    {
        let lab = Lab::new();
        for (name, mode) in [("a", 0o600), ("b", 0o644), ("c", 0o640), ("d", 0o644)] {
            lab.write(name, noise(1, length));
            let path = lab.source().join(name);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            set_mtime(&path, 1_000_000_000, 0);
        }
        let snapshot = lab.back_up();
        // As a program leaves them that makes one file of all with the same content.
        fs::create_dir(lab.target()).unwrap();
        fs::copy(lab.source().join("b"), lab.target().join("b")).unwrap();
        set_mtime(&lab.target().join("b"), 1_000_000_000, 0);
        for name in ["a", "c"] {
            fs::hard_link(lab.target().join("b"), lab.target().join(name)).unwrap();
        }
        let options = RestoreOptions { overwrite, ..lab.options() };
        for expected in [(2, 1, 1), (0, 0, 4)] {
            let (report, told) = lab.restore(&snapshot, &options);
            assert_eq!(told.problems(), []);
            let counts = (report.files_updated, report.files_restored, report.files_unchanged);
            assert_eq!(counts, expected, "{overwrite:?} {length}");
            lab.check_same();
        }
    }
}

#[test]
fn other_names_outside_the_target_keep_their_metadata() {
    let lab = Lab::new();
    let names = ["inline", "single", "several", "xattr", "linked", "pipe", "link"];
    for (name, length) in [("inline", 5), ("single", 5_000), ("several", 200_000)] {
        lab.write(name, noise(1, length));
    }
    lab.write("xattr", b"content");
    lab.write("linked", b"more content");
    fs::hard_link(lab.source().join("linked"), lab.source().join("linked too")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        lab.source().join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    symlink("nowhere", lab.source().join("link")).unwrap();
    let snapshot = lab.back_up();
    lab.restore(&snapshot, &lab.options());

    // As `cp -al` makes them; then something changes both.
    let outside = lab.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    for name in names {
        fs::hard_link(lab.target().join(name), outside.join(name)).unwrap();
    }
    for name in ["inline", "single", "several", "linked", "pipe"] {
        let mode = fs::Permissions::from_mode(0o707);
        fs::set_permissions(outside.join(name), mode).unwrap();
    }
    let time = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 },
        last_modification: rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 },
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, outside.join("link"), &time, flags).unwrap();
    xattr::set(outside.join("xattr"), "user.mine", b"1").unwrap();
    let before = look(&outside);

    let (_, told) = lab.restore(&snapshot, &lab.options());
    assert_eq!(told.problems(), []);
    lab.check_same();
    let after = look(&outside);
    for name in names {
        let (before, after) = (&before[name.as_bytes()], &after[name.as_bytes()]);
        // Attributes are looked at by root alone, who may set all of them.
        if name != "xattr" || is_root() {
            assert!(
                Seen { links: 0, ..after.clone() } == Seen { links: 0, ..before.clone() },
                "{name}"
            );
        }
    }
}

/// A target whose `lib` is a link to `usr`, as after the merge of `/usr`, and a snapshot that has it as a folder.
fn lab_with_link() -> (Lab, Snapshot) {
    let lab = Lab::new();
    lab.write("lib/systemd/system/unit", b"unit");
    lab.write("lib/systemd/system/more/unit", b"more");
    lab.write("other/file", b"other");
    let mut snapshot = lab.back_up();
    snapshot.paths = vec![b"/data/lib/systemd/system".to_vec(), b"/data/other".to_vec()];
    lab.write_target("usr/program", b"precious");
    lab.write_target("usr/systemd/system/unit", b"mine");
    symlink("usr", lab.target().join("lib")).unwrap();
    (lab, snapshot)
}

fn check_link_stays(lab: &Lab) {
    assert_eq!(fs::read_link(lab.target().join("lib")).unwrap(), Path::new("usr"));
    assert_eq!(lab.read("usr/program").unwrap(), b"precious");
    assert_eq!(lab.read("usr/systemd/system/unit").unwrap(), b"mine");
    assert!(!lab.target().join("usr/systemd/system/more").exists());
}

#[test]
fn a_link_on_the_way_to_what_was_backed_up_stays_and_is_told() {
    let (lab, snapshot) = lab_with_link();
    for (overwrite, dry_run, delete, verify) in [
        (Overwrite::Always, true, false, false),
        (Overwrite::Always, false, false, true),
        (Overwrite::Always, false, true, false),
        (Overwrite::IfChanged, false, false, true),
        (Overwrite::IfNewer, false, false, false),
        (Overwrite::Never, false, false, false),
    ] {
        let options = RestoreOptions { overwrite, dry_run, delete, verify, ..lab.options() };
        let (report, told) = lab.restore(&snapshot, &options);
        let [(path, _, message)] = &told.problems()[..] else { panic!("{:?}", told.problems()) };
        assert_eq!((path.as_str(), report.problems, report.files_total), ("/data/lib", 1, 1));
        assert_eq!(
            message,
            "it is a symbolic link here, as it may have been for the backup; it is neither replaced nor \
             followed, and nothing below it is restored: restore that by itself, as \
             SNAPSHOT:/data/lib/systemd/system with --target and the real folder"
        );
        assert_eq!(lab.read("other/file").is_some(), !dry_run);
        check_link_stays(&lab);
    }
    // As the message says.
    let folder = lab.target().join("usr/systemd/system");
    let options = options(&folder);
    let path = b"/data/lib/systemd/system";
    let report = restore(&lab.repository, &snapshot, path, &options, &()).unwrap();
    assert_eq!((report.problems, report.files_total), (0, 2));
    assert_eq!(fs::read(folder.join("unit")).unwrap(), b"unit");
    assert_eq!(fs::read(folder.join("more/unit")).unwrap(), b"more");
}

#[test]
fn a_link_on_the_way_to_what_is_included_stays_and_is_told_if_there_is_such() {
    let (lab, mut snapshot) = lab_with_link();
    snapshot.paths = vec![b"/data".to_vec()];
    for (include, problems) in
        [("/data/lib/systemd/system/more", 1), ("unit", 1), ("/data/lib/*/none", 0), ("file", 0)]
    {
        for dry_run in [true, false] {
            let include = vec![include.to_owned()];
            let options = RestoreOptions { include, dry_run, ..lab.options() };
            let (report, told) = lab.restore(&snapshot, &options);
            assert_eq!(report.problems, problems, "{:?}", told.problems());
            for (path, _, message) in told.problems() {
                assert_eq!(path, "/data/lib");
                assert!(message.contains("it is a symbolic link here; it is neither"), "{message}");
                assert!(message.contains("as SNAPSHOT:/data/lib with --target"), "{message}");
            }
            check_link_stays(&lab);
        }
    }
    // The folder itself is wanted: that it is one and no link is what the snapshot says.
    let (report, _) = lab.restore(&snapshot, &lab.options());
    assert_eq!(report.problems, 0);
    assert_eq!(lab.read("lib/systemd/system/unit").unwrap(), b"unit");
    assert_eq!(lab.read("usr/systemd/system/unit").unwrap(), b"mine");
}
