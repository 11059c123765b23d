//! Valid values of every kind, drawn at random.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use putback_format::config::{ChunkerParams, Config};
use putback_format::id::{BlobId, PackId, RepositoryId, SnapshotId, WriterId};
use putback_format::mark::{ForgottenSnapshot, Mark, MarkKind};
use putback_format::snapshot::{Incident, IncidentKind, Snapshot, Statistics};
use putback_format::tree::{
    ChunkRef, Content, Entry, EntryKind, Extent, Timestamp, WindowsMetadata, Xattr,
};

pub(crate) fn timestamp() -> impl Strategy<Value = Timestamp> {
    let seconds = prop_oneof![Just(0), any::<i64>(), 0..2_000_000_000_i64];
    let nanoseconds = prop_oneof![Just(0), 0..1_000_000_000_u32];
    (seconds, nanoseconds).prop_map(|(seconds, nanoseconds)| Timestamp { seconds, nanoseconds })
}

/// Numbers of every length in CBOR, zero among them.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), (any::<u64>(), 0..64_u32).prop_map(|(n, shift)| n >> shift)]
}

fn number32() -> impl Strategy<Value = u32> {
    number().prop_map(|n| (n >> 32) as u32 ^ n as u32)
}

fn blob_id() -> impl Strategy<Value = BlobId> {
    any::<[u8; 32]>().prop_map(BlobId::from_bytes)
}

fn writer_id() -> impl Strategy<Value = WriterId> {
    any::<[u8; 16]>().prop_map(WriterId::from_bytes)
}

fn snapshot_id() -> impl Strategy<Value = SnapshotId> {
    any::<[u8; 32]>().prop_map(SnapshotId::from_bytes)
}

pub(crate) fn name() -> impl Strategy<Value = Vec<u8>> {
    let allowed = |name: &Vec<u8>| name != b"." && name != b"..";
    let byte = any::<u8>().prop_filter("names contain neither", |b| *b != b'/' && *b != 0);
    vec(byte, 1..40).prop_filter("names are not these", allowed)
}

/// Fields of newer programs.
fn unknown() -> impl Strategy<Value = Vec<(u32, Vec<u8>)>> {
    let leaf = prop_oneof![
        Just(vec![0xf4]),
        Just(vec![0xf6]),
        Just(vec![0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        (0..24_u8).prop_map(|n| vec![n]),
        (24..=255_u8).prop_map(|n| vec![0x38, n]),
        vec(any::<u8>(), 0..20).prop_map(|b| [vec![0x40 + b.len() as u8], b].concat()),
        "[a-zä]{0,8}".prop_map(|t| [vec![0x60 + t.len() as u8], t.into_bytes()].concat()),
    ];
    let value = leaf.prop_recursive(8, 32, 4, |inner| {
        (vec((inner.clone(), inner), 0..4), any::<bool>()).prop_map(|(pairs, is_map)| {
            let count = pairs.len() as u8;
            let head = if is_map { 0xa0 + count } else { 0x80 + 2 * count };
            pairs.into_iter().fold(vec![head], |all, (a, b)| [all, a, b].concat())
        })
    });
    let key = prop_oneof![64..300_u32, 64..=u32::MAX];
    btree_map(key, value, 0..4).prop_map(|fields| fields.into_iter().collect())
}

fn list(length_max: u64) -> impl Strategy<Value = Vec<ChunkRef>> {
    vec((blob_id(), 1..=length_max), 1..6)
        .prop_map(|refs| refs.into_iter().map(|(id, length)| ChunkRef { id, length }).collect())
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        vec(any::<u8>(), 0..=128).prop_map(Content::Inline),
        list(16 << 20).prop_map(Content::Chunks),
        (1..=4_u8, list(1 << 50)).prop_map(|(depth, pages)| Content::Lists { depth, pages }),
    ]
}

fn content_bytes(content: &Content) -> u64 {
    match content {
        Content::Inline(bytes) => bytes.len() as u64,
        Content::Chunks(refs) | Content::Lists { pages: refs, .. } => {
            refs.iter().map(|r| r.length).sum()
        }
    }
}

fn file() -> impl Strategy<Value = EntryKind> {
    let holes = vec((any::<u64>(), 1..1_u64 << 40), 0..5);
    (content(), holes).prop_map(|(content, drawn)| {
        // Between two holes lies at least one byte of data.
        let mut data_left = content_bytes(&content);
        let mut end = 0;
        let mut holes = Vec::new();
        for (random, length) in drawn {
            let distance = match (holes.is_empty(), data_left) {
                (true, _) => random % (data_left + 1),
                (false, 0) => break,
                (false, _) => 1 + random % data_left,
            };
            data_left -= distance;
            holes.push(Extent { offset: end + distance, length });
            end += distance + length;
        }
        EntryKind::File { size: end + data_left, content, holes }
    })
}

fn directory() -> impl Strategy<Value = EntryKind> {
    vec(blob_id(), 0..5).prop_map(|pages| EntryKind::Directory { pages })
}

fn kind() -> impl Strategy<Value = EntryKind> {
    prop_oneof![
        4 => file(),
        2 => directory(),
        1 => vec(1..=255_u8, 0..60).prop_map(|target| EntryKind::Symlink { target }),
        1 => Just(EntryKind::Fifo),
        1 => Just(EntryKind::Socket),
        1 => (number32(), number32())
            .prop_map(|(major, minor)| EntryKind::CharacterDevice { major, minor }),
        1 => (number32(), number32())
            .prop_map(|(major, minor)| EntryKind::BlockDevice { major, minor }),
    ]
}

fn xattrs() -> impl Strategy<Value = Vec<Xattr>> {
    btree_map(vec(1..=255_u8, 1..20), vec(any::<u8>(), 0..50), 0..4)
        .prop_map(|xattrs| xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect())
}

fn windows() -> impl Strategy<Value = Option<Box<WindowsMetadata>>> {
    let some = (option::of(any::<u32>()), option::of(vec(any::<u8>(), 0..40)));
    option::weighted(
        0.2,
        some.prop_map(|(attributes, security_descriptor)| {
            Box::new(WindowsMetadata { attributes, security_descriptor })
        }),
    )
}

pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    entry_of(name(), kind())
}

fn entry_of(
    name: impl Strategy<Value = Vec<u8>>,
    kind: impl Strategy<Value = EntryKind>,
) -> impl Strategy<Value = Entry> {
    let owner = || (number32(), vec(any::<u8>(), 0..12));
    let times = (timestamp(), option::of(timestamp()), option::of(timestamp()));
    let numbers = (number(), number(), number(), number());
    let rest = (xattrs(), any::<bool>(), windows(), unknown());
    (name, kind, 0..=0o7777_u32, owner(), owner(), times, numbers, rest).prop_map(
        |(name, kind, mode, (uid, user), (gid, group), times, numbers, rest)| {
            let (mtime, ctime, btime) = times;
            let (device, inode, links, flags) = numbers;
            let (xattrs, volatile, windows, unknown) = rest;
            Entry {
                name,
                kind,
                mode,
                uid,
                gid,
                user,
                group,
                mtime,
                ctime: ctime.unwrap_or(mtime),
                btime,
                device,
                inode,
                links,
                flags,
                xattrs,
                volatile,
                windows,
                unknown,
            }
        },
    )
}

fn statistics() -> impl Strategy<Value = Statistics> {
    proptest::array::uniform12(number()).prop_map(|counts| {
        let [files_new, files_changed, files_unchanged, directories, others, bytes_total, ..] =
            counts;
        let [.., bytes_read, bytes_added, bytes_stored, blobs_added, incidents, duration_ms] =
            counts;
        Statistics {
            files_new,
            files_changed,
            files_unchanged,
            directories,
            others,
            bytes_total,
            bytes_read,
            bytes_added,
            bytes_stored,
            blobs_added,
            incidents,
            duration_ms,
        }
    })
}

fn incident() -> impl Strategy<Value = Incident> {
    let kind = proptest::sample::select(vec![
        IncidentKind::Unreadable,
        IncidentKind::ChangedWhileRead,
        IncidentKind::Vanished,
        IncidentKind::MetadataIncomplete,
        IncidentKind::Lost,
    ]);
    (vec(any::<u8>(), 0..30), kind, ".{0,20}").prop_map(|(path, kind, message)| Incident {
        path,
        kind,
        message,
    })
}

pub(crate) fn snapshot() -> impl Strategy<Value = Snapshot> {
    let texts = (".{0,20}", ".{0,20}", ".{0,40}", ".{0,20}");
    let paths = btree_set(vec(1..=255_u8, 1..30), 0..4);
    let tags = btree_set(".{1,10}", 0..4);
    let origin = (option::of(snapshot_id()), any::<bool>(), 1..=u64::MAX, writer_id());
    let seen = btree_map(writer_id(), number(), 0..4);
    let counted = (statistics(), vec(incident(), 0..4), 1..=u64::MAX, seen);
    let root = entry_of(Just(Vec::new()), directory());
    (root, timestamp(), any::<i32>(), texts, paths, tags, origin, counted, unknown()).prop_map(
        |(root, time, utc_offset, texts, paths, tags, origin, counted, unknown)| {
            let (host, user, description, program) = texts;
            let (parent, complete, config_generation, writer) = origin;
            let (statistics, incidents, sequence, seen) = counted;
            Snapshot {
                root,
                time,
                utc_offset,
                host,
                user,
                paths: paths.into_iter().collect(),
                tags: tags.into_iter().collect(),
                description,
                program,
                parent,
                complete,
                statistics,
                incidents,
                config_generation,
                writer,
                sequence,
                seen: seen.into_iter().collect(),
                unknown,
            }
        },
    )
}

fn chunker() -> impl Strategy<Value = ChunkerParams> {
    (14..=21_u32, any::<u32>(), any::<u32>()).prop_map(|(log2, below, above)| {
        let bytes_average = 1_u32 << log2;
        // Even, below the average; even, above it and at most eight times it.
        let bytes_min = 2 + 2 * (below % (bytes_average / 2 - 1));
        let bytes_max = bytes_average + 2 + 2 * (above % (7 * bytes_average / 2));
        ChunkerParams { bytes_min, bytes_average, bytes_max }
    })
}

pub(crate) fn config() -> impl Strategy<Value = Config> {
    let repository = any::<[u8; 16]>().prop_map(RepositoryId::from_bytes);
    let sizes = (32_u64 << 20..=256 << 20, 64_u32 << 10..=16 << 20, -7..=22_i32);
    (repository, 1..=u64::MAX, timestamp(), chunker(), sizes, any::<u32>(), unknown()).prop_map(
        |(repository, generation, created, chunker, sizes, epoch, unknown)| {
            let (pack_bytes, frame_bytes, compression_level) = sizes;
            Config {
                repository,
                generation,
                created,
                chunker,
                pack_bytes,
                frame_bytes,
                compression_level,
                epoch,
                unknown,
            }
        },
    )
}

pub(crate) fn mark() -> impl Strategy<Value = Mark> {
    let packs = btree_set(any::<[u8; 32]>(), 0..20);
    let packs = packs.prop_map(|ids| ids.into_iter().map(PackId::from_bytes).collect());
    let forgotten = (snapshot_id(), writer_id(), number())
        .prop_map(|(snapshot, writer, sequence)| ForgottenSnapshot { snapshot, writer, sequence });
    let kind = prop_oneof![
        packs.prop_map(MarkKind::Packs),
        vec(forgotten, 0..10).prop_map(MarkKind::Forget),
    ];
    (writer_id(), timestamp(), kind).prop_map(|(writer, time, kind)| Mark { writer, time, kind })
}
