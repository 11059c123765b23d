//! A reader that loaded the index before a prune finds what the prune moved.

use std::sync::Arc;
use std::time::Duration;

use putback_repo::prune::{MaxUnused, PruneOptions};
use putback_repo::{Machine, Times};
use putback_store::memory::MemoryStore;

use crate::support::*;

#[test]
fn what_a_prune_moved_is_found_without_opening_again() {
    let store = MemoryStore::new();
    let writer = init(Arc::new(store.clone())).unwrap();
    let key = writer.export_key();
    // Both in one pack, of which the first snapshot's part is not needed later.
    let both = files([("old", noise(1, 60_000).as_slice()), ("kept", noise(2, 60_000).as_slice())]);
    let kept = files([("kept", noise(2, 60_000).as_slice())]);
    let first = back_up(&writer, &both).unwrap();
    let second = back_up(&writer, &kept).unwrap();

    let times = Times { second_look: Duration::from_secs(3600), ..Times::default() };
    let reader = open_with(store.clone(), &key, &Machine { times, ..Machine::default() });
    reader.load_index().unwrap();

    writer.forget(std::slice::from_ref(&first)).unwrap();
    let options =
        PruneOptions { instant: true, max_unused: MaxUnused::Bytes(0), ..PruneOptions::default() };
    let report = writer.prune(&options, &()).unwrap();
    assert!(report.packs_repacked > 0 && report.packs_deleted > 1, "{report:?}");

    let snapshot = reader.read_snapshot(&second.id).unwrap();
    assert!(contents(&reader, &snapshot).unwrap() == kept);
    // What is really gone stays gone, and is not asked for again and again.
    let lost = contents(&reader, &first.snapshot).unwrap_err();
    assert!(lost.is_about_blob(), "{lost}");
}
