//! A backup of a folder that breaks at any request of the store: earlier snapshots stay, the next
//! run succeeds, and nothing needs repair.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use putback_engine::backup::{BackupOptions, Source, backup};
use putback_store::Store;
use putback_store::testing::faulty::{Calls, Fault, FaultyStore};

use crate::support::*;

/// Copies cache, state and store of a machine, not its source.
fn fork(machine: &Machine) -> Machine {
    let copy = Machine {
        root: tempfile::tempdir().unwrap(),
        store: machine.store.fork(),
        key: machine.key.clone(),
    };
    let status = std::process::Command::new("cp")
        .args(["-a", "--reflink=auto"])
        .args([machine.root.path().join("cache"), machine.root.path().join("state")])
        .arg(copy.root.path())
        .status();
    assert!(status.unwrap().success());
    copy
}

/// Each fault takes one of `stride` requests, so that each request meets one of the faults at least;
/// with `PUTBACK_EXHAUSTIVE=1` each meets all.
fn check(change: impl Fn(&mut BackupOptions) + Sync, stride: usize, points_least: u64) {
    let stride = if std::env::var_os("PUTBACK_EXHAUSTIVE").is_some() { 1 } else { stride };
    let machine = Machine::new();
    for number in 0..12 {
        machine.write(format!("folder-{}/file-{number}", number % 3), noise(number, 30_000));
    }
    let first = machine.back_up();
    let first_tree = machine.restore(&first);
    machine.write("folder-0/new", noise(100, 50_000));
    machine.write("folder-1/file-1", noise(101, 30_000));
    std::fs::remove_file(machine.source().join("folder-2/file-2")).unwrap();
    machine.write("top", b"inline");

    let run = |copy: &Machine, store: Arc<dyn Store>| {
        let mut options = options();
        change(&mut options);
        let repository = copy.open_store(store)?;
        backup(&repository, Source::Paths(vec![machine.source()]), &options, &())
    };
    let points = AtomicU64::new(0);
    let faults = |number| {
        [
            Fault::before(Calls::Any, number),
            Fault::after(Calls::Any, number),
            Fault::before(Calls::Any, number).crashing(),
            Fault::after(Calls::Any, number).crashing(),
        ]
    };
    std::thread::scope(|scope| {
        for variant in 0..4 {
            let (points, machine, first, first_tree, run) =
                (&points, &machine, &first, &first_tree, &run);
            scope.spawn(move || {
                for number in (1 + variant as u64 % stride as u64..).step_by(stride) {
                    let copy = fork(machine);
                    let faulty = FaultyStore::new(Arc::new(copy.store.clone()), number);
                    faulty.plant(faults(number)[variant]);
                    let result = run(&copy, Arc::new(faulty.clone()));
                    if faulty.failure_count() == 0 {
                        result.unwrap();
                        return;
                    }
                    points.fetch_add(1, Ordering::Relaxed);
                    let again = run(&copy, Arc::new(copy.store.clone()));
                    let again = again.unwrap_or_else(|error| {
                        panic!("request {number}, fault {variant}, {result:?}: {error}")
                    });
                    assert_eq!(again.statistics.incidents, 0);
                    copy.assert_clean();
                    // The paths in the snapshot are those of the first machine.
                    for (report, expected) in
                        [(first, first_tree.path()), (&again, machine.source().as_path())]
                    {
                        let target = restore_of(&copy, report, machine);
                        assert_same_tree(expected, target.path());
                    }
                }
            });
        }
    });
    let points = points.into_inner();
    assert!(points >= points_least, "{points}");
}

fn restore_of(
    copy: &Machine,
    report: &putback_engine::backup::BackupReport,
    machine: &Machine,
) -> tempfile::TempDir {
    let repository = copy.open();
    let snapshot = repository.read_snapshot(&report.snapshot.unwrap()).unwrap();
    let target = tempfile::tempdir().unwrap();
    let path = machine.source();
    let path = path.as_os_str().as_encoded_bytes();
    let options = restore_options(target.path());
    let report =
        putback_engine::restore::restore(&repository, &snapshot, path, &options, &()).unwrap();
    assert_eq!(report.problems, 0);
    target
}

#[test]
fn a_backup_that_broke_at_any_request_can_be_repeated() {
    check(|_| {}, 1, 80);
}

#[test]
fn a_backup_with_a_checkpoint_after_every_step_that_broke_at_any_request_can_be_repeated() {
    check(|options| options.checkpoint_interval = Duration::ZERO, 4, 100);
}
