//! The store contract on the stores of this crate and on its layers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use putback_store::local::LocalStore;
use putback_store::memory::MemoryStore;
use putback_store::testing::Call;
use putback_store::testing::contract::check_store;
use putback_store::testing::faulty::{Calls, Fault, FaultyStore};
use putback_store::testing::recording::RecordingStore;
use putback_store::{Capabilities, Store as _};

#[test]
fn memory_keeps_the_contract() {
    check_store(&|| Box::new(MemoryStore::new()));
}

#[test]
fn memory_that_claims_to_be_remote_keeps_the_contract() {
    let capabilities = Capabilities { is_remote: true, connections: 2, is_consistent: false };
    check_store(&|| Box::new(MemoryStore::new().with_capabilities(capabilities)));
}

#[test]
fn a_directory_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let stores_made = AtomicUsize::new(0);
    check_store(&|| {
        let number = stores_made.fetch_add(1, Ordering::Relaxed);
        Box::new(LocalStore::new(folder.path().join(number.to_string())))
    });
}

#[test]
fn a_directory_seen_by_two_stores_is_one_store() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = [(); 2].map(|()| LocalStore::new(folder.path().join("root")));
    first.create(&["packs"]).unwrap();
    let path = "packs/a".parse().unwrap();
    let written = first.write(&path, b"bytes").unwrap();
    assert_eq!(second.list("packs").unwrap(), std::slice::from_ref(&written));
    assert_eq!(second.stat(&path).unwrap(), written);
    assert_eq!(second.write(&path, b"bytes").unwrap(), written);
    second.delete(&[written]).unwrap();
    assert_eq!(first.list("packs").unwrap(), []);
}

#[test]
fn a_layer_without_faults_keeps_the_contract() {
    check_store(&|| Box::new(FaultyStore::new(Arc::new(MemoryStore::new()), 1)));
}

#[test]
fn a_layer_that_records_keeps_the_contract() {
    check_store(&|| Box::new(RecordingStore::new(Arc::new(MemoryStore::new()))));
}

/// Puts stores through the contract that are spoilt by `spoil`.
fn check_refused(spoil: impl Fn(&FaultyStore)) {
    check_store(&|| {
        let store = FaultyStore::new(Arc::new(MemoryStore::new()), 1);
        spoil(&store);
        Box::new(store)
    });
}

#[test]
#[should_panic = "what_was_written_is_read_back"]
fn a_store_that_cuts_objects_short_is_refused() {
    check_refused(|store| store.plant(Fault::torn(Calls::Changes, 2).lasting().silently()));
}

#[test]
#[should_panic = "listings_show_every_object_once_with_its_size"]
fn a_store_that_claims_to_be_consistent_but_lists_late_is_refused() {
    check_refused(|store| store.delay_listings(2));
}

#[test]
#[should_panic = "ranges_are_read_exactly"]
fn a_store_that_reads_other_bytes_is_refused() {
    check_refused(|store| store.flip_reads(&"packs/a".parse().unwrap(), u64::MAX));
}

#[test]
#[should_panic = "deleting_again_is_success"]
fn a_store_that_deletes_only_once_is_refused() {
    check_refused(|store| store.plant(Fault::before(Calls::Only(Call::Delete), 2).lasting()));
}
