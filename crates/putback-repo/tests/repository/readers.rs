//! A reader that loaded the index before a prune finds what the prune moved.

use std::sync::Arc;
use std::time::Duration;

use putback_format::id::BlobId;
use putback_format::key::BlobKind;
use putback_repo::prune::{MaxUnused, PruneOptions};
use putback_repo::{Error, Machine, Repository, Times};
use putback_store::memory::MemoryStore;
use putback_store::testing::faulty::FaultyStore;
use putback_store::{Capabilities, Store};

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

#[test]
fn a_pack_that_is_gone_is_not_asked_for_with_every_blob_and_found_when_it_is_back() {
    for is_remote in [false, true] {
        let capabilities = Capabilities { is_remote, connections: 2, is_consistent: !is_remote };
        let store = MemoryStore::new().with_capabilities(capabilities);
        let writer = init(Arc::new(store.clone())).unwrap();
        let key = writer.export_key();
        let bytes = noise(1, 4096 * 100);
        let stored = back_up(&writer, &files([("large", bytes.as_slice())])).unwrap();
        let rows = store.list("packs").unwrap();
        let pack = rows.into_iter().max_by_key(|row| row.size).unwrap().path;
        let object = store.read_all(&pack, 1 << 30).unwrap();
        delete(&store, &pack);

        let calm = FaultyStore::new(Arc::new(store.clone()), 1);
        let times = Times { second_look: Duration::from_secs(1), ..Times::default() };
        let machine = Machine { times, ..Machine::default() };
        let reader =
            Repository::open_with_exported_key(Arc::new(calm.clone()), &key, &machine).unwrap();
        reader.load_index().unwrap();
        let ids: Vec<BlobId> = bytes
            .chunks(4096)
            .map(|chunk| reader.id_keys().blob_id(BlobKind::Data, chunk))
            .collect();
        let before = calm.request_count();
        for id in &ids {
            let error = reader.read_blob(BlobKind::Data, id).unwrap_err();
            assert!(matches!(error, Error::BlobLost { .. }), "{error}");
        }
        let asked = calm.request_count() - before;
        assert!(asked < 20, "{asked} requests for {} blobs of one pack", ids.len());

        store.write(&pack, &object).unwrap();
        std::thread::sleep(times.second_look);
        let snapshot = reader.read_snapshot(&stored.id).unwrap();
        assert!(contents(&reader, &snapshot).unwrap()["large"] == bytes);
    }
}
