//! Backups into a repository that lost something: what is still at its source is stored again.

use std::sync::atomic::{AtomicBool, Ordering};

use putback_engine::backup::BackupReport;
use putback_format::key::BlobKind;
use putback_repo::{Event, Observer};
use putback_store::{ObjectPath, Store};

use crate::support::*;

/// Paths of all packs of one kind of blobs.
fn packs_of(machine: &Machine, kind: BlobKind) -> Vec<ObjectPath> {
    let repository = machine.open();
    repository.load_index().unwrap();
    let packs = repository.index().packs();
    let packs = packs.iter().filter(|(number, _)| repository.pack(*number).unwrap().kind == kind);
    packs.map(|(_, id)| ObjectPath::new(&format!("packs/{id}")).unwrap()).collect()
}

/// Deletes packs when a file of this name begins to be read, once.
struct Deleting<'a> {
    machine: &'a Machine,
    packs: Vec<ObjectPath>,
    name: &'a str,
    is_done: AtomicBool,
}

impl Observer for Deleting<'_> {
    fn event(&self, event: Event<'_>) {
        if let Event::FileStarted { path } = event
            && path.ends_with(self.name.as_bytes())
            && !self.is_done.swap(true, Ordering::SeqCst)
        {
            let stat = |path| self.machine.store.stat(path).unwrap();
            self.machine.store.delete(&self.packs.iter().map(stat).collect::<Vec<_>>()).unwrap();
        }
    }
}

fn prepared() -> (Machine, BackupReport) {
    let machine = Machine::new();
    for number in 0..20 {
        machine.write(format!("folder-{}/file-{number}", number % 3), noise(number, 40_000));
    }
    machine.let_rest();
    let first = machine.back_up();
    (machine, first)
}

#[test]
fn damaged_tree_pages_are_stored_again() {
    let (machine, first) = prepared();
    for pack in packs_of(&machine, BlobKind::Tree) {
        assert!(machine.store.damage(&pack, |bytes| bytes[60] ^= 1));
    }
    let second = machine.back_up();
    assert_eq!(second.parent, first.snapshot);
    machine.assert_restores(&second);
    // Every file was read again, as nothing told that it was known, and none had to be stored.
    assert_eq!(second.statistics.bytes_read, 20 * 40_000);
    assert!(second.statistics.bytes_added < 50_000, "{:?}", second.statistics);
    let third = machine.back_up();
    assert_eq!(third.statistics.bytes_read, 0);
    machine.assert_restores(&third);
}

#[test]
fn packs_that_are_lost_while_a_backup_relies_on_them_are_made_up_for() {
    for kinds in [&[BlobKind::Data][..], &[BlobKind::Tree], &[BlobKind::Data, BlobKind::Tree]] {
        let (machine, _) = prepared();
        machine.write("last", noise(99, 40_000));
        let packs = kinds.iter().flat_map(|kind| packs_of(&machine, *kind)).collect();
        let is_done = AtomicBool::new(false);
        let deleting = Deleting { machine: &machine, packs, name: "/last", is_done };
        let report = machine.try_back_up(|_| {}, &deleting).unwrap();
        assert!(deleting.is_done.into_inner());
        machine.assert_restores(&report);
        let files = report.statistics;
        assert_eq!(files.files_new + files.files_changed + files.files_unchanged, 21);
    }
}

#[test]
fn a_file_whose_list_of_chunks_is_damaged_is_stored_again() {
    let machine = Machine::new();
    // Some 1,600 chunks: more than an entry holds.
    machine.write("long", noise(1, 26 << 20));
    machine.write("short", b"short");
    machine.let_rest();
    machine.back_up();
    for pack in packs_of(&machine, BlobKind::Tree) {
        assert!(machine.store.damage(&pack, |bytes| bytes[60] ^= 1));
    }
    let second = machine.back_up();
    machine.assert_restores(&second);
    assert!(second.statistics.bytes_added < 1 << 20, "{:?}", second.statistics);
}
