//! What changed is read and stored, what did not is not.

use std::fs;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use putback_engine::backup::ParentChoice;
use putback_format::snapshot::IncidentKind;
use putback_repo::{Cancel, Event, Observer};
use putback_store::Store;

use crate::support::*;

/// Does something at every event.
struct Act<F>(F);

impl<F: Fn(&Event<'_>) + Send + Sync> Observer for Act<F> {
    fn event(&self, event: Event<'_>) {
        (self.0)(&event);
    }
}

fn names(event: &Event<'_>, name: &str) -> bool {
    matches!(event, Event::FileStarted { path } if path.ends_with(name.as_bytes()))
}

#[test]
fn a_second_backup_reads_nothing_and_stores_no_tree() {
    let machine = Machine::new();
    for number in 0..300 {
        machine.write(format!("folder-{}/file-{number}", number % 7), noise(number, 2000));
    }
    machine.let_rest();
    let first = machine.back_up();
    assert_eq!(first.statistics.bytes_read, 300 * 2000);
    let blobs = machine.open();
    blobs.load_index().unwrap();
    let second = machine.back_up();
    let counts = second.statistics;
    assert_eq!((counts.bytes_read, counts.files_unchanged, counts.files_new), (0, 300, 0));
    // The folders above the source may have changed meanwhile: one page each.
    let above = machine.source().components().count() as u64;
    assert!(counts.blobs_added <= above, "{} blobs", counts.blobs_added);
    assert_eq!(second.parent, first.snapshot);
    machine.assert_restores(&second);
    machine.assert_clean();
}

#[test]
fn files_that_were_just_changed_are_read_again() {
    let machine = Machine::new();
    machine.write("file", b"some content");
    assert_eq!(machine.back_up().statistics.bytes_read, 12);
    // Within the two seconds, so that the time stamps prove nothing.
    let counts = machine.back_up().statistics;
    assert_eq!((counts.bytes_read, counts.files_unchanged), (12, 1));
    machine.let_rest();
    assert_eq!(machine.back_up().statistics.bytes_read, 12);
    assert_eq!(machine.back_up().statistics.bytes_read, 0);
}

#[test]
fn a_file_that_was_just_changed_when_a_long_reading_began_is_read_again() {
    let machine = Machine::new();
    machine.write("large", noise(1, 300_000));
    let observer = Act(|event: &Event<'_>| {
        // Reading takes longer than time stamps count as fresh.
        if matches!(event, Event::Advanced { by, .. } if by.bytes > 0 && by.items == 0) {
            machine.let_rest();
        }
    });
    machine.try_back_up(|_| {}, &observer).unwrap();
    assert_eq!(machine.back_up().statistics.bytes_read, 300_000);
    assert_eq!(machine.back_up().statistics.bytes_read, 0);
}

#[test]
fn a_change_that_keeps_size_and_time_is_found_by_the_change_time() {
    let machine = Machine::new();
    let path = machine.write("file", noise(1, 5000));
    machine.let_rest();
    machine.back_up();
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, noise(2, 5000)).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let report = machine.back_up();
    assert_eq!(report.statistics.files_changed, 1);
    machine.assert_restores(&report);
}

#[test]
fn one_changed_byte_in_a_folder_of_5_000_entries_stores_few_pages() {
    let machine = Machine::new();
    for number in 0..5000 {
        machine.write(format!("folder/file-{number:04}"), noise(number, 300));
    }
    machine.let_rest();
    machine.back_up();
    machine.write("folder/file-2500", noise(9999, 300));
    let report = machine.back_up();
    let counts = report.statistics;
    assert_eq!((counts.files_changed, counts.files_unchanged), (1, 4999));
    // The file, its page, and one page for each folder above.
    let above = machine.source().components().count() as u64;
    assert!(counts.blobs_added <= 3 + above, "{} blobs", counts.blobs_added);
    machine.assert_restores(&report);
}

#[test]
fn a_renamed_folder_is_stored_without_its_data() {
    let machine = Machine::new();
    for number in 0..50 {
        machine.write(format!("before/file-{number}"), noise(number, 20_000));
    }
    machine.let_rest();
    machine.back_up();
    fs::rename(machine.source().join("before"), machine.source().join("after")).unwrap();
    let report = machine.back_up();
    assert_eq!(report.statistics.files_new, 50);
    assert!(report.statistics.bytes_added < 20_000, "{}", report.statistics.bytes_added);
    machine.assert_restores(&report);
}

#[test]
fn a_file_that_vanishes_before_it_is_read_is_told_and_the_rest_is_saved() {
    let machine = Machine::new();
    let path = machine.write("vanishing", noise(1, 1000));
    machine.write("staying", noise(2, 1000));
    let observer = Act(|event: &Event<'_>| {
        if names(event, "/vanishing") {
            fs::remove_file(&path).unwrap();
        }
    });
    let report = machine.try_back_up(|_| {}, &observer).unwrap();
    assert_eq!(report.statistics.incidents, 1);
    assert_eq!(report.incidents[0].kind, IncidentKind::Vanished);
    assert!(report.incidents[0].path.ends_with(b"/vanishing"));
    // The folder has changed since it was looked at: only what is in it is compared.
    let target = machine.restore(&report);
    let names: Vec<_> =
        fs::read_dir(target.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["staying"]);
}

#[test]
fn a_file_that_grew_before_it_was_read_is_read_again_and_whole() {
    let machine = Machine::new();
    let path = machine.write("growing", noise(1, 200_000));
    let has_grown = AtomicU64::new(0);
    let observer = Act(|event: &Event<'_>| {
        if names(event, "/growing") && has_grown.fetch_add(1, Ordering::SeqCst) == 0 {
            let mut file = fs::File::options().append(true).open(&path).unwrap();
            file.write_all(&noise(2, 70_000)).unwrap();
        }
    });
    let report = machine.try_back_up(|_| {}, &observer).unwrap();
    assert_eq!(report.statistics.incidents, 0);
    machine.assert_restores(&report);
}

#[test]
fn a_file_that_grows_all_the_time_is_told_and_what_was_read_is_saved() {
    let machine = Machine::new();
    let path = machine.write("growing", noise(1, 400_000));
    let observer = Act(|event: &Event<'_>| {
        if let Event::Advanced { by, .. } = event
            && by.bytes > 0
            && by.items == 0
        {
            let mut file = fs::File::options().append(true).open(&path).unwrap();
            file.write_all(b"more").unwrap();
        }
    });
    let report = machine.try_back_up(|_| {}, &observer).unwrap();
    assert_eq!(report.statistics.incidents, 1);
    assert_eq!(report.incidents[0].kind, IncidentKind::ChangedWhileRead);
    let target = machine.restore(&report);
    let (saved, now) = (fs::read(target.path().join("growing")).unwrap(), fs::read(&path).unwrap());
    assert!(saved.len() >= 400_000 && now.starts_with(&saved));
    // It is read again next time, whatever its times say.
    assert_eq!(machine.back_up().statistics.files_changed, 1);
}

#[test]
fn a_file_that_is_cut_short_while_it_is_read_is_saved_as_it_is_then() {
    let machine = Machine::new();
    let path = machine.write("shrinking", noise(1, 400_000));
    let observer = Act(|event: &Event<'_>| {
        if names(event, "/shrinking") {
            fs::File::options().write(true).open(&path).unwrap().set_len(1000).unwrap();
        }
    });
    let report = machine.try_back_up(|_| {}, &observer).unwrap();
    machine.assert_restores(&report);
}

#[test]
fn a_dry_run_writes_nothing_to_the_repository() {
    let machine = Machine::new();
    machine.write("file", noise(1, 100_000));
    let before = machine.store.paths();
    let report = machine.back_up_with(|options| options.dry_run = true);
    assert_eq!(report.snapshot, None);
    assert!(report.statistics.bytes_added >= 100_000);
    assert_eq!(machine.store.paths(), before);
    let report = machine.back_up();
    assert!(report.statistics.bytes_added >= 100_000, "the dry run had stored something");
}

#[test]
fn a_snapshot_that_would_equal_its_parent_is_skipped_if_that_is_asked_for() {
    let machine = Machine::new();
    machine.write("file", noise(1, 1000));
    machine.let_rest();
    let skip = || machine.back_up_with(|options| options.skip_if_unchanged = true);
    assert!(!skip().is_unchanged);
    let before = machine.store.list("snapshots").unwrap();
    // The folders above belong to others, whose files come and go: try until they rest for a moment.
    let unchanged = (0..20).map(|_| skip()).find(|report| report.is_unchanged).unwrap();
    assert_eq!(unchanged.snapshot, None);
    assert!(machine.store.list("snapshots").unwrap().len() >= before.len());
    machine.write("other", b"x");
    let changed = skip();
    assert!(!changed.is_unchanged && changed.snapshot.is_some());
}

#[test]
fn the_parent_is_the_one_that_was_asked_for() {
    let machine = Machine::new();
    machine.write("file", noise(1, 1000));
    machine.let_rest();
    let first = machine.back_up();
    machine.write("second", noise(2, 2000));
    machine.let_rest();
    let second = machine.back_up();
    let asked = first.snapshot.unwrap().to_string();
    let third = machine.back_up_with(|options| options.parent = ParentChoice::Snapshot(asked));
    assert_eq!((third.parent, third.statistics.bytes_read), (first.snapshot, 2000));
    let forced = machine.back_up_with(|options| options.parent = ParentChoice::None);
    assert_eq!((forced.parent, forced.statistics.bytes_read), (None, 3000));
    assert_eq!(forced.statistics.files_new, 2);
    let elsewhere = machine.back_up_with(|options| options.host = "other".to_owned());
    assert_eq!(elsewhere.parent, None);
    assert_ne!(second.snapshot, None);
}

#[test]
fn an_interrupted_backup_goes_on_from_its_checkpoint_without_reading_again() {
    let machine = Machine::new();
    for number in 0..60 {
        machine.write(format!("file-{number:02}"), noise(number, 100_000));
    }
    machine.let_rest();
    let (cancel, done) = (Cancel::default(), AtomicU64::new(0));
    let observer = Act(|event: &Event<'_>| {
        if matches!(event, Event::Entry { .. }) && done.fetch_add(1, Ordering::SeqCst) == 20 {
            cancel.cancel();
        }
    });
    let interrupted =
        machine.try_back_up(|options| options.cancel = cancel.clone(), &observer).unwrap();
    assert!(interrupted.is_interrupted);
    let saved = interrupted.statistics.files_new;
    assert!((20..60).contains(&saved), "{saved}");

    let resumed = Mutex::new(None);
    let observer = Act(|event: &Event<'_>| {
        if let Event::Resumed { checkpoint, .. } = event {
            *resumed.lock().unwrap() = Some(*checkpoint);
        }
    });
    let report = machine.try_back_up(|_| {}, &observer).unwrap();
    assert_eq!(*resumed.lock().unwrap(), Some(interrupted.snapshot));
    assert_eq!(report.statistics.files_unchanged, saved);
    assert_eq!(report.statistics.bytes_read, (60 - saved) * 100_000);
    machine.assert_restores(&report);
    // The checkpoint is void now.
    let filter = putback_repo::SnapshotFilter { include_checkpoints: true, ..Default::default() };
    assert_eq!(machine.open().snapshots(&filter).unwrap().len(), 1);
    machine.assert_clean();
}

#[test]
fn checkpoints_at_every_moment_change_nothing_about_the_snapshot() {
    let machine = Machine::new();
    for number in 0..40 {
        machine.write(format!("folder-{}/file-{number:02}", number % 5), noise(number, 5000));
    }
    let checkpoints = AtomicU64::new(0);
    let observer = Act(|event: &Event<'_>| {
        if matches!(event, Event::Checkpoint { .. }) {
            checkpoints.fetch_add(1, Ordering::SeqCst);
        }
    });
    let report = machine
        .try_back_up(|options| options.checkpoint_interval = Duration::ZERO, &observer)
        .unwrap();
    assert!(checkpoints.load(Ordering::SeqCst) > 20);
    machine.assert_restores(&report);
    machine.assert_clean();
}

#[test]
fn a_worker_that_panics_ends_the_backup_and_nobody_waits_for_ever() {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let machine = Machine::new();
            for number in 0..20 {
                machine.write(format!("file-{number}"), noise(number, 500_000));
            }
            let observer = Act(|event: &Event<'_>| {
                assert!(!names(event, "/file-7"), "a panic in a worker, on purpose");
            });
            let run =
                std::panic::AssertUnwindSafe(|| machine.try_back_up(|_| {}, &observer).map(drop));
            let has_failed = std::panic::catch_unwind(run).map_or(true, |result| result.is_err());
            sender.send((has_failed, machine.store.list("snapshots").unwrap().len())).unwrap();
            machine.back_up();
            machine.assert_clean();
        });
        let ended = receiver.recv_timeout(Duration::from_secs(60));
        if ended.is_err() {
            // The hanging thread would keep the scope open.
            eprintln!("the backup hangs after a panic of a worker");
            std::process::abort();
        }
        assert_eq!(ended, Ok((true, 0)));
    });
}
