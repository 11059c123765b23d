//! No nonce meets two plain texts under one key, whatever the random generator does.
//!
//! A million blobs are stored through a repository; then every sealed piece that lies in the store is taken apart:
//! frames and header of each pack, and each sealed object. Its key is named by kind, epoch and salt, its nonce is
//! stored before it. A pair of the two that comes twice must have the same sealed bytes behind it.
//!
//! With the system's generator no salt comes twice. With one that always says the same, all packs share a key, all objects another, and
//! all that is left is that nonces are derived from what is sealed (`docs/format.md`, "Sealing").
//!
//! `cargo nextest run -p putback-repo --test nonces --no-capture` prints the figures.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says why it fails by failing")]

#[allow(dead_code, reason = "the other tests use the rest")]
#[path = "repository/support.rs"]
mod support;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use putback_format::key::{BlobKind, KeyRing};
use putback_format::pack::{TRAILER_BYTES, Trailer};
use putback_format::tree::{Entry, EntryKind};
use putback_repo::machine::SystemRandom;
use putback_repo::{Machine, Random, Repository, Result};
use putback_store::memory::MemoryStore;
use putback_store::{ObjectPath, Store};

use support::*;

const BLOBS: u64 = 1_000_000;
const BLOB_BYTES: usize = 64;
const NONCE_BYTES: usize = 24;
/// Where the salt of a sealed object is, and where its payload begins.
const OBJECT_SALT: usize = 28;
const OBJECT_PAYLOAD: usize = 60;

/// A generator that always says the same.
#[derive(Debug)]
struct Constant;

impl Random for Constant {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(7);
        Ok(())
    }
}

/// A generator that begins again after a few calls.
#[derive(Debug, Default)]
struct Repeating(AtomicU64);

impl Random for Repeating {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        bytes.fill((self.0.fetch_add(1, Ordering::Relaxed) % 5) as u8);
        Ok(())
    }
}

/// A key, by kind, epoch and salt, and a nonce.
type Pair = (&'static str, u32, [u8; 32], [u8; NONCE_BYTES]);

/// Every pair that was seen, with a hash of what it sealed.
#[derive(Default)]
struct Pairs {
    seen: HashMap<Pair, [u8; 32]>,
    salts: BTreeSet<(&'static str, [u8; 32])>,
    pieces: u64,
    repeated: u64,
}

impl Pairs {
    fn note(&mut self, kind: &'static str, epoch: u32, salt: [u8; 32], sealed: &[u8]) {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>().unwrap();
        let sealed = *blake3::hash(rest).as_bytes();
        self.pieces += 1;
        self.salts.insert((kind, salt));
        if let Some(before) = self.seen.insert((kind, epoch, salt, *nonce), sealed) {
            self.repeated += 1;
            assert!(before == sealed, "a nonce of a {kind} key met two plain texts");
        }
    }

    /// Takes apart all that lies in a store.
    fn note_store(&mut self, store: &MemoryStore, keys: &KeyRing, repository: &Repository) {
        for path in store.paths() {
            let bytes = store.read_all(&path, u64::MAX).unwrap();
            match path.folder() {
                "packs" => self.note_pack(&path, &bytes, keys, repository),
                "config" | "index" | "snapshots" | "marks" => {
                    let epoch = u32::from_le_bytes(*bytes[24..].first_chunk().unwrap());
                    let salt = *bytes[OBJECT_SALT..].first_chunk().unwrap();
                    self.note("object", epoch, salt, &bytes[OBJECT_PAYLOAD..]);
                }
                // Slots have keys of their own passwords; second copies are copies.
                _ => {}
            }
        }
    }

    fn note_pack(
        &mut self,
        path: &ObjectPath,
        bytes: &[u8],
        keys: &KeyRing,
        repository: &Repository,
    ) {
        let (body, trailer) = bytes.split_at(bytes.len() - TRAILER_BYTES);
        let trailer = Trailer::decode(trailer, bytes.len() as u64, repository.id()).unwrap();
        let (body, header) = body.split_at(body.len() - trailer.header_length as usize);
        let key = trailer.key(keys).unwrap();
        let contents = key.unseal_header(header, body.len() as u64).unwrap();
        assert!(!contents.frames.is_empty(), "{path}");
        let mut rest = body;
        for frame in &contents.frames {
            let (sealed, others) = rest.split_at(frame.stored_length as usize);
            self.note("pack", trailer.epoch, trailer.salt, sealed);
            rest = others;
        }
        self.note("pack", trailer.epoch, trailer.salt, header);
    }
}

fn blob(number: u64) -> [u8; BLOB_BYTES] {
    let mut blob = [0; BLOB_BYTES];
    blob.as_chunks_mut::<8>().0.iter_mut().zip(1_u64..).for_each(|(word, factor)| {
        // Some compress and some do not.
        let number = if number.is_multiple_of(2) { number } else { number * factor * 0x9e37_79b9 };
        *word = number.to_le_bytes();
    });
    blob
}

/// Stores blobs of these numbers, in frames of so many, with a snapshot now and then.
fn store_blobs(store: &MemoryStore, machine: &Machine, numbers: std::ops::Range<u64>, frame: u64) {
    let opened = Repository::open(Arc::new(store.clone()), &password(), machine).unwrap();
    let backup = opened.begin_backup(None, 2).unwrap();
    let mut data = backup.frame_writer(BlobKind::Data);
    let each_commit = (numbers.end - numbers.start) / 8;
    for number in numbers.clone() {
        data.put(&blob(number)).unwrap();
        if number % frame == frame - 1 {
            data.flush().unwrap();
        }
        if (number - numbers.start) % each_commit == each_commit - 1 {
            data.flush().unwrap();
            let root = Entry::new("", EntryKind::Directory { pages: Vec::new() });
            backup.commit(draft(root)).unwrap();
        }
    }
    data.flush().unwrap();
    backup.finish().unwrap();
}

/// Stores `blobs` blobs in two repositories that share a third of them, and looks at all that is sealed.
fn check(name: &str, random: Arc<dyn Random>, blobs: u64, frame: u64) -> Pairs {
    let machine = Machine { random, ..Machine::default() };
    let mut pairs = Pairs::default();
    for numbers in [0..blobs * 2 / 3, blobs / 3..blobs] {
        let store = MemoryStore::new();
        let made =
            Repository::init(Arc::new(store.clone()), &password(), &init_options(), &machine);
        let made = made.unwrap();
        let middle = numbers.start.midpoint(numbers.end);
        // Two runs, so that a generator that was asked less begins again.
        store_blobs(&store, &machine, numbers.start..middle, frame);
        store_blobs(&store, &machine, middle..numbers.end, frame);
        pairs.note_store(&store, &keys(&made.export_key()), &made);
    }
    println!(
        "{name}: {blobs} blobs, {} sealed pieces, {} pairs of key and nonce, {} of them repeated with equal bytes, {} salts",
        pairs.pieces,
        pairs.seen.len(),
        pairs.repeated,
        pairs.salts.len()
    );
    pairs
}

#[test]
fn the_systems_generator_repeats_neither_a_salt_nor_a_nonce() {
    let pairs = check("system", Arc::new(SystemRandom), BLOBS, 32);
    assert_eq!(pairs.repeated, 0);
    let nonces: BTreeSet<_> = pairs.seen.keys().map(|(_, _, _, nonce)| nonce).collect();
    assert_eq!(nonces.len() as u64, pairs.pieces);
}

#[test]
fn with_a_constant_generator_a_nonce_comes_again_only_with_the_same_plain_bytes() {
    let pairs = check("constant", Arc::new(Constant), BLOBS, 16);
    assert_eq!(pairs.salts.len(), 2, "all packs share one key, all objects another");
    assert!(pairs.seen.len() > 50_000 && pairs.repeated > 0, "{}", pairs.seen.len());
}

#[test]
fn with_a_generator_that_repeats_a_nonce_comes_again_only_with_the_same_plain_bytes() {
    let pairs = check("repeating", Arc::new(Repeating::default()), BLOBS / 10, 16);
    assert!((3..=10).contains(&pairs.salts.len()), "{}", pairs.salts.len());
    assert!(pairs.seen.len() > 5_000, "{}", pairs.seen.len());
}
