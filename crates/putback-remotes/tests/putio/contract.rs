//! The contract of all stores, on an account that behaves well and on such that do not.

use std::sync::atomic::{AtomicUsize, Ordering};

use putback_remotes::{PutioOptions, PutioStore};
use putback_store::testing::contract::{CHECKS, check_store};
use putio_emulator::{Emulator, Profile, storm};

use crate::support::{emulator, emulator_with, options};

/// Puts stores, each in a folder of its own, through the contract.
fn check(emulator: &Emulator) {
    let stores_made = AtomicUsize::new(0);
    check_store(&|| {
        let number = stores_made.fetch_add(1, Ordering::Relaxed);
        let folder = format!("store {number}/repository");
        Box::new(PutioStore::open(PutioOptions { folder, ..options(emulator) }).unwrap())
    });
}

#[test]
fn a_folder_of_put_io_keeps_the_contract() {
    check(&emulator());
}

#[test]
fn it_does_where_put_io_is_as_bad_as_it_is_believed_to_be() {
    check(&emulator_with(|options| options.profile = Profile::realistic()));
}

#[test]
fn it_does_where_everything_uncertain_is_as_bad_as_it_may_be() {
    check(&emulator_with(|options| options.profile = Profile::hostile()));
}

/// Most of a storm is waiting, so the checks run side by side, each on a service of its own.
#[test]
fn it_does_in_a_storm() {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                while let Some((claim, check)) = CHECKS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let emulator = emulator();
                    emulator.set_faults(storm(0.3, 11));
                    check(&|| Box::new(PutioStore::open(options(&emulator)).unwrap()));
                    assert_eq!(emulator.violations(), [], "{claim}");
                }
            });
        }
    });
}

#[test]
fn the_root_of_an_account_is_a_store_that_exists() {
    let emulator = emulator();
    let store = PutioStore::open(PutioOptions { folder: String::new(), ..options(&emulator) });
    let store: &dyn putback_store::Store = &store.unwrap();
    assert_eq!(store.list("").unwrap(), []);
    store.create(&["packs"]).unwrap();
    let path = "packs/a".parse().unwrap();
    store.write(&path, b"bytes").unwrap();
    assert_eq!(store.read_all(&path, 5).unwrap(), b"bytes");
    assert_eq!(emulator.read_file("user", "packs/a").unwrap(), b"bytes");
    assert_eq!(store.list("packs").unwrap().len(), 1);
    store.create(&["packs", "index"]).unwrap();
    assert_eq!(store.list("packs").unwrap().len(), 1);
}
