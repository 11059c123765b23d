//! Objects made to hurt their reader, each read in a process of its own: none may take more than 64 MiB beside its
//! own bytes, whatever it declares, and none takes long. Slots are apart: what Argon2id may cost is limited elsewhere.
//!
//! What holds the keys seals anything, so that most of these are well-formed up to the limits and beyond. Memory is
//! the growth of the resident set at its peak, that of zstd included, which Linux alone tells. Times are printed.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says why it fails by failing")]

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use putback_format::compress::{Codec, Compressor, Decompressor};
use putback_format::config::{ChunkerParams, Config};
use putback_format::envelope::{self, ObjectKind};
use putback_format::id::{BlobId, PackId, RepositoryId, SnapshotId, WriterId};
use putback_format::key::{BlobKind, DedupSecret, KeyRing, MasterKey};
use putback_format::limits::{
    ENTRY_BYTES_MAX, FRAME_PLAIN_BYTES_MAX, HOLES_MAX, INCIDENTS_MAX, LIST_REFS_MAX,
    MARK_PACKS_MAX, MARK_SNAPSHOTS_MAX, PACK_BLOBS_MAX, PAGE_BYTES_TARGET, PAGE_ENTRIES_MAX,
    PATHS_MAX, SEGMENT_BYTES_MAX, SMALL_OBJECT_BYTES_MAX, WRITERS_MAX,
};
use putback_format::list::decode_list_page;
use putback_format::mark::{ForgottenSnapshot, Mark, MarkKind};
use putback_format::pack::{FrameEntry, PackContents, PackKey};
use putback_format::page::TreePage;
use putback_format::seal::SEAL_OVERHEAD_BYTES;
use putback_format::segment::{Segment, SegmentPack};
use putback_format::slot;
use putback_format::snapshot::{Incident, IncidentKind, Snapshot, Statistics};
use putback_format::tree::{
    ChunkRef, Content, Entry, EntryKind, Extent, Timestamp, Xattr, encode_entry,
};

/// Memory that reading any object may take.
const KIBIBYTES_MAX: u64 = 64 << 10;
/// The figure to reach is one second; machines differ.
const TIME_MAX: Duration = Duration::from_secs(10);
const CASE: &str = "PUTBACK_HOSTILE_CASE";

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([2; 16]);
const SALT: [u8; 32] = [4; 32];

fn master() -> MasterKey {
    MasterKey::from_bytes([3; 32])
}

fn keys() -> KeyRing {
    KeyRing::new(DedupSecret::from_bytes([1; 32]), master())
}

/// How a reader takes the bytes of a case; whether it accepts them.
type Reader = fn(&[u8]) -> bool;

struct Case {
    name: &'static str,
    /// Whether it is valid: at a limit, and not beyond it.
    is_valid: bool,
    make: fn() -> Vec<u8>,
    read: Reader,
}

fn unseal(kind: ObjectKind, object: &[u8]) -> Option<Vec<u8>> {
    envelope::unseal(kind, REPOSITORY, &keys(), object).ok()
}

fn read_segment(object: &[u8]) -> bool {
    unseal(ObjectKind::Segment, object).is_some_and(|payload| Segment::decode(&payload).is_ok())
}

fn read_snapshot(object: &[u8]) -> bool {
    unseal(ObjectKind::Snapshot, object).is_some_and(|payload| Snapshot::decode(&payload).is_ok())
}

fn read_mark(object: &[u8]) -> bool {
    unseal(ObjectKind::Mark, object).is_some_and(|payload| Mark::decode(&payload).is_ok())
}

fn read_config(object: &[u8]) -> bool {
    unseal(ObjectKind::Config, object).is_some_and(|payload| Config::decode(&payload).is_ok())
}

fn read_header(sealed: &[u8]) -> bool {
    let key = PackKey::new(&master(), REPOSITORY, 1, SALT);
    key.unseal_header(sealed, 256 << 20).is_ok()
}

/// The first four bytes are the declared length.
fn read_frame(bytes: &[u8]) -> bool {
    let (length, coded) = bytes.split_first_chunk::<4>().unwrap();
    let length = u32::from_le_bytes(*length) as usize;
    Decompressor::new().unwrap().decompress(Codec::Zstd, coded, length, &mut Vec::new()).is_ok()
}

fn read_page(page: &[u8]) -> bool {
    TreePage::decode(page).is_ok()
}

/// Codec, lengths and coded bytes as they are inside a seal, with a length that may be a lie.
fn payload(plain: &[u8], declared: usize) -> Vec<u8> {
    let mut coded = Vec::new();
    let codec = Compressor::new(1).unwrap().compress(plain, &mut coded).unwrap();
    let mut out = vec![codec as u8, 0, 0, 0];
    out.extend((declared as u32).to_le_bytes());
    out.extend((coded.len() as u32).to_le_bytes());
    out.extend(coded);
    out
}

/// An object as [`envelope::seal`] would never make it.
fn sealed_as(kind: ObjectKind, plain: &[u8], declared: usize) -> Vec<u8> {
    let mut object = Vec::new();
    object.extend_from_slice(b"PUTB");
    object.extend_from_slice(&[kind as u8, 1, 0, 0]);
    object.extend_from_slice(REPOSITORY.as_bytes());
    object.extend_from_slice(&1_u32.to_le_bytes());
    object.extend_from_slice(&SALT);
    let header = object.clone();
    let inside = payload(plain, declared);
    master().object_key(&SALT).seal(&SALT, &header, &inside, &mut object).unwrap();
    object
}

fn sealed(kind: ObjectKind, plain: &[u8]) -> Vec<u8> {
    sealed_as(kind, plain, plain.len())
}

fn sealed_header(plain: &[u8]) -> Vec<u8> {
    let inside = payload(plain, plain.len());
    let mut trailer = [0; 72];
    trailer[..8].copy_from_slice(b"PUTBPACK");
    trailer[8] = 1;
    trailer[12] = 1;
    let length = (inside.len() + SEAL_OVERHEAD_BYTES) as u32;
    trailer[16..20].copy_from_slice(&length.to_le_bytes());
    trailer[24..40].copy_from_slice(REPOSITORY.as_bytes());
    trailer[40..].copy_from_slice(&SALT);
    let mut out = Vec::new();
    master().pack_key(&SALT).seal(&SALT, &trailer, &inside, &mut out).unwrap();
    out
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(b"hostile").finalize_xof().fill(&mut bytes);
    bytes
}

fn ids(count: usize) -> impl Iterator<Item = [u8; 32]> {
    (0..count as u64).map(|number| {
        let mut id = *blake3::hash(&number.to_le_bytes()).as_bytes();
        id[..8].copy_from_slice(&number.to_be_bytes());
        id
    })
}

/// As many frames as blobs.
fn contents(frames: usize) -> PackContents {
    let frame = FrameEntry { stored_length: 41, plain_length: 1, codec: Codec::Raw, blobs: 1 };
    PackContents {
        kind: BlobKind::Data,
        frames: vec![frame; frames],
        ids: ids(frames).map(BlobId::from_bytes).collect(),
        lengths: vec![1; frames],
    }
}

fn pack(id: [u8; 32], frames: usize) -> SegmentPack {
    let (id, size) = (PackId::from_bytes(id), 256 << 20);
    SegmentPack { id, salt: id_salt(&id), epoch: 1, crc32: 0, size, contents: contents(frames) }
}

fn id_salt(id: &PackId) -> [u8; 32] {
    *blake3::hash(id.as_bytes()).as_bytes()
}

/// As many packs of that many frames as a segment can hold.
fn segment_of(frames: usize) -> Vec<u8> {
    let each = Segment::pack_encoded_length(&contents(frames));
    let count = (SEGMENT_BYTES_MAX as usize - 16) / each;
    let packs = ids(count).map(|id| pack(id, frames)).collect();
    Segment { packs, ..Segment::default() }.encode().unwrap()
}

fn table(frames: usize) -> Vec<u8> {
    let segment = Segment { packs: vec![pack([1; 32], frames)], ..Segment::default() };
    segment.encode().unwrap()[16 + 80..].to_vec()
}

fn snapshot() -> Snapshot {
    Snapshot {
        root: Entry::new("", EntryKind::Directory { pages: Vec::new() }),
        time: Timestamp::default(),
        utc_offset: 0,
        host: "host".into(),
        user: "user".into(),
        paths: Vec::new(),
        tags: Vec::new(),
        description: String::new(),
        program: String::new(),
        parent: None,
        complete: true,
        statistics: Statistics::default(),
        incidents: Vec::new(),
        config_generation: 1,
        writer: WriterId::from_bytes([1; 16]),
        sequence: 1,
        seen: Vec::new(),
        unknown: Vec::new(),
    }
}

fn largest_snapshot() -> Vec<u8> {
    let mut snapshot = snapshot();
    snapshot.paths = (0..PATHS_MAX).map(|n| format!("/{n:06}").into_bytes()).collect();
    snapshot.tags = (0..1024).map(|n| format!("{n:06}")).collect();
    snapshot.seen = ids(WRITERS_MAX)
        .map(|id| (WriterId::from_bytes(id[..16].try_into().unwrap()), u64::MAX))
        .collect();
    let kind = IncidentKind::Lost;
    let incident = Incident { path: vec![b'a'; 400], kind, message: "m".into() };
    snapshot.incidents = vec![incident; INCIDENTS_MAX];
    let pages = ids(1 << 16).map(BlobId::from_bytes).collect();
    snapshot.root.kind = EntryKind::Directory { pages };
    snapshot.encode()
}

/// One value of a newer program: an array of `length` nulls.
fn nulls(length: usize) -> Vec<u8> {
    let mut value = vec![0x9a];
    value.extend((length as u32).to_be_bytes());
    value.resize(value.len() + length, 0xf6);
    value
}

fn snapshot_with(unknown: Vec<u8>) -> Vec<u8> {
    let mut snapshot = snapshot();
    snapshot.unknown = vec![(64, unknown)];
    snapshot.encode()
}

fn config() -> Config {
    Config {
        repository: REPOSITORY,
        generation: 1,
        created: Timestamp::default(),
        chunker: ChunkerParams {
            bytes_min: 32 << 10,
            bytes_average: 128 << 10,
            bytes_max: 1 << 20,
        },
        pack_bytes: 32 << 20,
        frame_bytes: 1 << 20,
        compression_level: 3,
        epoch: 1,
        unknown: (64..128).map(|key| (key, nulls(250_000))).collect(),
    }
}

/// A page of as many of these as may begin in it.
fn page_of(entry: impl Fn(u32) -> Entry) -> Vec<u8> {
    let (mut entries, mut count) = (Vec::new(), 0_usize);
    while entries.len() < PAGE_BYTES_TARGET && count < PAGE_ENTRIES_MAX {
        encode_entry(&entry(count as u32), &mut entries);
        count += 1;
    }
    page(count, &entries)
}

fn page(count: usize, entries: &[u8]) -> Vec<u8> {
    let mut page = vec![0x82, 0x01];
    // The shortest form of the count.
    match count {
        0..=23 => page.push(0x80 | count as u8),
        24..=255 => page.extend([0x98, count as u8]),
        _ => {
            page.push(0x99);
            page.extend((count as u16).to_be_bytes());
        }
    }
    [page, entries.to_vec()].concat()
}

fn named(number: u32) -> Entry {
    Entry::new(format!("{number:05}"), EntryKind::Fifo)
}

fn entry_of_holes(number: u32) -> Entry {
    let mut holes = Vec::new();
    let mut offset = 0;
    for _ in 0..HOLES_MAX {
        holes.push(Extent { offset, length: 1 });
        offset += 2;
    }
    // A byte of content behind each hole.
    let chunk = ChunkRef { id: BlobId::from_bytes([1; 32]), length: HOLES_MAX as u64 };
    let content = Content::Chunks(vec![chunk]);
    let kind = EntryKind::File { size: 2 * HOLES_MAX as u64, content, holes };
    Entry { kind, ..named(number) }
}

fn list_page(refs: usize) -> Vec<u8> {
    let mut page = vec![0x84, 0x01, 0x01, 0x5a];
    page.extend((refs as u32 * 32).to_be_bytes());
    ids(refs).for_each(|id| page.extend(id));
    page.push(0x99);
    page.extend((refs as u16).to_be_bytes());
    page.resize(page.len() + refs, 0x01);
    page
}

fn with_length(length: u32, plain: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    Compressor::new(1).unwrap().compress(plain, &mut coded).unwrap();
    [&length.to_le_bytes()[..], &coded].concat()
}

const CASES: &[Case] = &[
    Case {
        name: "segment of the most packs",
        is_valid: true,
        make: || sealed(ObjectKind::Segment, &segment_of(1)),
        read: read_segment,
    },
    Case {
        name: "segment of packs without frames",
        is_valid: true,
        make: || sealed(ObjectKind::Segment, &segment_of(0)),
        read: read_segment,
    },
    Case {
        name: "segment of the largest packs",
        is_valid: true,
        make: || sealed(ObjectKind::Segment, &segment_of(PACK_BLOBS_MAX as usize)),
        read: read_segment,
    },
    Case {
        name: "segment of tombstones",
        is_valid: true,
        make: || {
            let count = (SEGMENT_BYTES_MAX as usize - 16) / 32;
            let tombstones = ids(count).map(PackId::from_bytes).collect();
            let segment = Segment { tombstones, ..Segment::default() };
            sealed(ObjectKind::Segment, &segment.encode().unwrap())
        },
        read: read_segment,
    },
    Case {
        name: "segment with a count of 2^32 - 1",
        is_valid: false,
        make: || {
            let mut bytes = vec![0xff; SEGMENT_BYTES_MAX as usize];
            bytes[..4].copy_from_slice(&[1, 0, 0, 0]);
            sealed(ObjectKind::Segment, &bytes)
        },
        read: read_segment,
    },
    Case {
        name: "segment that says it is small and unpacks to 512 MiB",
        is_valid: false,
        make: || sealed_as(ObjectKind::Segment, &vec![0; 512 << 20], 100),
        read: read_segment,
    },
    Case {
        name: "segment that unpacks to 512 MiB and says so",
        is_valid: false,
        make: || sealed(ObjectKind::Segment, &vec![0; 512 << 20]),
        read: read_segment,
    },
    Case {
        name: "header of a pack of the most frames",
        is_valid: true,
        make: || sealed_header(&table(PACK_BLOBS_MAX as usize)),
        read: read_header,
    },
    Case {
        name: "header of a pack of more frames",
        is_valid: false,
        make: || sealed_header(&table(PACK_BLOBS_MAX as usize + 1)),
        read: read_header,
    },
    Case {
        name: "header that unpacks to 512 MiB",
        is_valid: false,
        make: || sealed_header(&vec![0; 512 << 20]),
        read: read_header,
    },
    Case {
        name: "frame of a pack's size for one byte",
        is_valid: false,
        make: || {
            let mut contents = contents(1);
            contents.frames[0].codec = Codec::Zstd;
            contents.frames[0].stored_length = 250 << 20;
            let pack = SegmentPack { contents, ..pack([1; 32], 1) };
            let segment = Segment { packs: vec![pack], ..Segment::default() };
            sealed_header(&segment.encode().unwrap()[16 + 80..])
        },
        read: read_header,
    },
    Case {
        name: "frame of zeros, as large as it may be",
        is_valid: true,
        make: || with_length(FRAME_PLAIN_BYTES_MAX, &vec![0; FRAME_PLAIN_BYTES_MAX as usize]),
        read: read_frame,
    },
    Case {
        name: "frame of 1 GiB that says it has 16 MiB",
        is_valid: false,
        make: || with_length(FRAME_PLAIN_BYTES_MAX, &vec![0; 1 << 30]),
        read: read_frame,
    },
    Case {
        name: "the largest snapshot",
        is_valid: true,
        make: || sealed(ObjectKind::Snapshot, &largest_snapshot()),
        read: read_snapshot,
    },
    Case {
        name: "snapshot with 16 MiB of a newer program",
        is_valid: true,
        make: || {
            let length = SMALL_OBJECT_BYTES_MAX as usize - 200;
            sealed(ObjectKind::Snapshot, &snapshot_with(nulls(length)))
        },
        read: read_snapshot,
    },
    Case {
        name: "snapshot nested 10 million levels deep",
        is_valid: false,
        make: || sealed(ObjectKind::Snapshot, &snapshot_with(vec![0x81; 10_000_000])),
        read: read_snapshot,
    },
    Case {
        name: "snapshot with an array of 2^32 - 1 items",
        is_valid: false,
        make: || {
            let value = [vec![0x9a, 0xff, 0xff, 0xff, 0xff], noise(10_000_000)].concat();
            sealed(ObjectKind::Snapshot, &snapshot_with(value))
        },
        read: read_snapshot,
    },
    Case {
        name: "mark of the most packs",
        is_valid: true,
        make: || {
            let kind = MarkKind::Packs(ids(MARK_PACKS_MAX).map(PackId::from_bytes).collect());
            let writer = WriterId::from_bytes([1; 16]);
            let mark = Mark { writer, time: Timestamp::default(), kind };
            sealed(ObjectKind::Mark, &mark.encode())
        },
        read: read_mark,
    },
    Case {
        name: "forget record of the most snapshots",
        is_valid: true,
        make: || {
            let writer = WriterId::from_bytes([1; 16]);
            let forgotten = ids(MARK_SNAPSHOTS_MAX).map(|id| ForgottenSnapshot {
                snapshot: SnapshotId::from_bytes(id),
                writer,
                sequence: 7,
            });
            let kind = MarkKind::Forget(forgotten.collect());
            let mark = Mark { writer, time: Timestamp::default(), kind };
            sealed(ObjectKind::Mark, &mark.encode())
        },
        read: read_mark,
    },
    Case {
        name: "configuration with 15 MiB of a newer program",
        is_valid: true,
        make: || sealed(ObjectKind::Config, &config().encode()),
        read: read_config,
    },
    Case {
        name: "tree page of the most entries",
        is_valid: true,
        make: || page_of(named),
        read: read_page,
    },
    Case {
        name: "tree page of extended attributes",
        is_valid: true,
        make: || {
            page_of(|number| {
                let xattr = |n: u32| Xattr { name: format!("{n:x}").into_bytes(), value: vec![] };
                let mut xattrs: Vec<Xattr> = (0..4096).map(xattr).collect();
                xattrs.sort_by(|a, b| a.name.cmp(&b.name));
                Entry { xattrs, ..named(number) }
            })
        },
        read: read_page,
    },
    Case {
        name: "tree page of fields of newer programs",
        is_valid: true,
        make: || {
            page_of(|number| Entry {
                unknown: (64..128).map(|key| (key, vec![0xf6])).collect(),
                ..named(number)
            })
        },
        read: read_page,
    },
    Case {
        name: "tree page of holes",
        is_valid: true,
        make: || page_of(entry_of_holes),
        read: read_page,
    },
    Case {
        name: "tree page of directories of the most pages",
        is_valid: true,
        make: || {
            let pages: Vec<_> = ids(20_000).map(BlobId::from_bytes).collect();
            page_of(|number| Entry {
                kind: EntryKind::Directory { pages: pages.clone() },
                ..named(number)
            })
        },
        read: read_page,
    },
    Case {
        name: "tree page that ends with the largest entry",
        is_valid: true,
        make: || {
            let large = |bytes: usize, number| {
                let xattrs = vec![Xattr { name: b"a".to_vec(), value: vec![7; bytes] }];
                Entry { xattrs, ..named(number) }
            };
            let mut entries = Vec::new();
            encode_entry(&large(PAGE_BYTES_TARGET - 100, 1), &mut entries);
            encode_entry(&large(ENTRY_BYTES_MAX - 100, 2), &mut entries);
            page(2, &entries)
        },
        read: read_page,
    },
    Case {
        name: "list page of the most references",
        is_valid: true,
        make: || list_page(LIST_REFS_MAX),
        read: |bytes| decode_list_page(bytes, 1).is_ok(),
    },
    Case {
        name: "list page of more references",
        is_valid: false,
        make: || list_page(65_535),
        read: |bytes| decode_list_page(bytes, 1).is_ok(),
    },
    Case {
        name: "exported key of 16 MiB",
        is_valid: false,
        make: || {
            let key = slot::export(REPOSITORY, &keys());
            let lines: Vec<&str> = key.lines().skip(2).collect();
            let many = lines.join("\n").repeat((16 << 20) / key.len());
            format!("putback key 1\n{many}").into_bytes()
        },
        read: |bytes| slot::import(std::str::from_utf8(bytes).unwrap()).is_ok(),
    },
    Case {
        name: "16 MiB of noise as every object",
        is_valid: false,
        make: || noise(16 << 20),
        read: |bytes| {
            read_segment(bytes)
                || read_snapshot(bytes)
                || read_mark(bytes)
                || read_config(bytes)
                || read_header(bytes)
                || read_page(bytes)
                || slot::Slot::decode(bytes).is_ok()
        },
    },
];

/// A line of `/proc/self/status` in KiB.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|row| row.strip_prefix(line)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// Reads standard input as the case says, and prints KiB, microseconds and whether it was accepted.
fn read_in_this_process(case: &Case) {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).unwrap();
    // What the peak is measured from.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS");
    let started = Instant::now();
    let is_accepted = (case.read)(&bytes);
    let time = started.elapsed();
    let after = memory("VmHWM");
    println!("\nresult {} {} {is_accepted}", after.saturating_sub(before), time.as_micros());
}

#[test]
fn no_object_takes_more_than_64_mib_or_long_to_read() {
    if let Some(name) = std::env::var_os(CASE) {
        let case = CASES.iter().find(|case| case.name == name);
        return read_in_this_process(case.unwrap());
    }
    let (mut worst, mut slowest) = (0, Duration::ZERO);
    let mut bad = Vec::new();
    for case in CASES {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "no_object_takes_more_than_64_mib_or_long_to_read", "--nocapture"])
            .env(CASE, case.name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let bytes = (case.make)();
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}: {output:?}", case.name);
        let text = String::from_utf8(output.stdout).unwrap();
        let result = text.lines().find_map(|line| line.strip_prefix("result ")).unwrap();
        let words: Vec<&str> = result.split(' ').collect();
        let (kibibytes, time): (u64, _) = (words[0].parse().unwrap(), words[1].parse().unwrap());
        let (time, is_accepted) = (Duration::from_micros(time), words[2] == "true");
        eprintln!(
            "{:>9} bytes, {kibibytes:>6} KiB, {:>5} ms, {}: {}",
            bytes.len(),
            time.as_millis(),
            if is_accepted { "accepted" } else { "refused" },
            case.name
        );
        worst = worst.max(kibibytes);
        slowest = slowest.max(time);
        if kibibytes > KIBIBYTES_MAX || time > TIME_MAX || is_accepted != case.is_valid {
            bad.push(case.name);
        }
    }
    eprintln!("at most {worst} KiB and {} ms", slowest.as_millis());
    assert!(bad.is_empty(), "{bad:?}");
}
