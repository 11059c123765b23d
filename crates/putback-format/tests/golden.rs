//! Bytes that must never change: where files are cut, how blobs are named, how packs and objects are sealed.
//!
//! Whoever changes one of these constants has changed the format: repositories in the field would no longer
//! deduplicate, or no longer open.

#![allow(clippy::unwrap_used, reason = "a test says why it fails by failing")]

use putback_format::chunk::Chunker;
use putback_format::compress::Codec;
use putback_format::config::ChunkerParams;
use putback_format::envelope::{self, ObjectKind};
use putback_format::id::RepositoryId;
use putback_format::key::{BlobKind, DedupSecret, KeyRing, MasterKey};
use putback_format::pack::{FrameHead, PackBuilder, PackKey, TRAILER_BYTES, Trailer};
use putback_format::slot::{self, KdfCost, Slot};

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([2; 16]);

fn dedup() -> DedupSecret {
    DedupSecret::from_bytes([1; 32])
}

fn keys() -> KeyRing {
    KeyRing::new(dedup(), MasterKey::from_bytes([3; 32]))
}

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(b"golden").finalize_xof().fill(&mut bytes);
    bytes
}

/// All cut points of `data`, and how many there are with the BLAKE3 of their positions for longer lists.
fn cuts(data: &[u8], average: u32) -> Vec<usize> {
    let params =
        ChunkerParams { bytes_min: average / 4, bytes_average: average, bytes_max: average * 8 };
    let chunker = Chunker::new(params, &dedup().gear_table());
    let (mut cuts, mut position) = (Vec::new(), 0);
    while position < data.len() {
        position += chunker.cut(&data[position..]);
        cuts.push(position);
    }
    cuts
}

fn digest(cuts: &[usize]) -> String {
    let bytes: Vec<u8> = cuts.iter().flat_map(|cut| (*cut as u64).to_le_bytes()).collect();
    blake3::hash(&bytes).to_hex()[..16].to_owned()
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..32].to_owned()
}

#[test]
fn files_are_cut_where_they_always_were() {
    let data = random(4 << 20);
    assert_eq!(cuts(&data[..400_000], 64 << 10), CUTS_64_KIB);
    for (average, count, expected) in CUTS_BY_AVERAGE {
        let cuts = cuts(&data, average << 10);
        assert_eq!((cuts.len(), digest(&cuts).as_str()), (count, expected), "{average} KiB");
    }
    // Bytes that never meet a mask are cut at the maximum.
    assert_eq!(cuts(&vec![0; 1 << 20], 16 << 10)[..2], [128 << 10, 256 << 10]);
}

#[test]
fn blobs_have_the_names_that_they_always_had() {
    let ids = dedup().id_keys();
    assert_eq!(ids.blob_id(BlobKind::Data, b"").to_string(), BLOB_EMPTY);
    assert_eq!(ids.blob_id(BlobKind::Data, b"some bytes").to_string(), BLOB_DATA);
    assert_eq!(ids.blob_id(BlobKind::Tree, b"some bytes").to_string(), BLOB_TREE);
}

/// A pack of two raw frames: nothing in it depends on how well zstd compresses.
fn pack() -> Vec<u8> {
    let key = PackKey::new(&MasterKey::from_bytes([3; 32]), REPOSITORY, 1, [4; 32]);
    let mut builder = PackBuilder::new(BlobKind::Data, 8 << 20);
    let mut pack = Vec::new();
    for plain in [random(5000), random(70)] {
        let plain_length = plain.len() as u32;
        let blob = (dedup().id_keys().blob_id(BlobKind::Data, &plain), plain_length);
        let ordinal = builder.push(Codec::Raw, plain_length, plain.len(), &[blob]).unwrap();
        let head = FrameHead { kind: BlobKind::Data, ordinal, codec: Codec::Raw, plain_length };
        key.seal_frame(head, &plain, &mut pack).unwrap();
    }
    let (_, end) = builder.finish(&key, false).unwrap();
    pack.resize(pack.len() + end.padding as usize, 0);
    pack.extend_from_slice(&end.tail);
    pack
}

#[test]
fn packs_have_the_bytes_that_they_always_had() {
    let pack = pack();
    assert_eq!((pack.len(), hash(&pack).as_str()), PACK);
    let trailer =
        Trailer::decode(&pack[pack.len() - TRAILER_BYTES..], pack.len() as u64, REPOSITORY)
            .unwrap();
    let header = pack.len() - TRAILER_BYTES - trailer.header_length as usize;
    let key = trailer.key(&keys()).unwrap();
    let contents =
        key.unseal_header(&pack[header..pack.len() - TRAILER_BYTES], header as u64).unwrap();
    assert_eq!(contents.lengths, [5000, 70]);
}

#[test]
fn sealed_objects_have_the_bytes_that_they_always_had() {
    let master = MasterKey::from_bytes([3; 32]);
    for (kind, expected) in OBJECTS {
        let payload = random(300);
        let object = envelope::seal(kind, REPOSITORY, 1, &master, [5; 32], &payload).unwrap();
        assert_eq!(hash(&object), expected, "{kind:?}");
        assert_eq!(envelope::unseal(kind, REPOSITORY, &keys(), &object).unwrap(), payload);
    }
}

#[test]
fn slots_and_exported_keys_have_the_bytes_that_they_always_had() {
    let salts = [[6; 32], [7; 32]];
    let slot =
        slot::seal(b"password", KdfCost::LOW, REPOSITORY, &keys(), &random(64), salts).unwrap();
    assert_eq!(hash(&slot), SLOT);
    assert!(Slot::decode(&slot).unwrap().open(b"password").is_ok());
    assert_eq!(hash(slot::export(REPOSITORY, &keys()).as_bytes()), EXPORTED);
}

const CUTS_64_KIB: [usize; 4] = [133127, 287164, 385108, 400000];
const CUTS_BY_AVERAGE: [(u32, usize, &str); 4] = [
    (16, 216, "df44a42d7062df4e"),
    (64, 47, "5c93393ed9f8afb3"),
    (128, 25, "48a3fe6a4894d9ed"),
    (512, 7, "88fd607ba155cc07"),
];
const BLOB_EMPTY: &str = "368cf52468703c0fae0672a3696e878c2e6ae91321b4c6d02892ccec54bf8307";
const BLOB_DATA: &str = "f47a6b122969e6916fc30155bdd3be4361e9872afb8b5e54c78aa4752e563f4b";
const BLOB_TREE: &str = "f6c05392c44bd9d88d6df4f23ec47f1ef17c7937bee55cd567bc5a9764d178b3";
const PACK: (usize, &str) = (5632, "8ef9166384740b026dc87efbb334c30e");
const OBJECTS: [(ObjectKind, &str); 5] = [
    (ObjectKind::Config, "4df39635d8f608fa71df32d04384111d"),
    (ObjectKind::Segment, "8cfb3f247ee1ba52a02464869b29a3f6"),
    (ObjectKind::Snapshot, "7ada3ed98699338b30c0cc6f51465764"),
    (ObjectKind::Mark, "67018416f4c31f0a11c9351587908fd9"),
    (ObjectKind::SlotInfo, "398e5ff8b06f21a070fae81d9716a6fc"),
];
const SLOT: &str = "e1188ed44ddfa0b9825b844434182509";
const EXPORTED: &str = "4c4921b889b80af7c61f41f97712694f";
