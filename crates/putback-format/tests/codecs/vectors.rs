//! Fixed bytes under `testdata/`: valid objects, and damaged ones with the error that each yields.
//!
//! A file holds hex digits; `#` begins a comment. The first comment of a damaged object is its error.
//! The valid objects are decoded, encoded to the same bytes, and damaged further; what their fields
//! mean is stated below for each.

use std::fs;
use std::path::{Path, PathBuf};

use putback_format::Error;
use putback_format::config::{ChunkerParams, Config};
use putback_format::id::{BlobId, PackId, RepositoryId, SnapshotId, WriterId};
use putback_format::list::decode_list_page;
use putback_format::mark::{ForgottenSnapshot, Mark, MarkKind};
use putback_format::page::{PageBuilder, TreePage};
use putback_format::snapshot::{Incident, IncidentKind, Snapshot, Statistics};
use putback_format::tree::{
    ChunkRef, Content, Entry, EntryKind, Extent, Timestamp, WindowsMetadata, Xattr, decode_entry,
    encode_entry,
};

struct Vector {
    name: String,
    /// The first comment.
    comment: String,
    bytes: Vec<u8>,
}

/// Decodes an object and, if it is valid, encodes it.
type Recode = fn(&[u8]) -> Result<Vec<u8>, Error>;

const KINDS: [(&str, Recode); 6] = [
    ("entry", recode_entry),
    ("tree-page", recode_tree_page),
    ("list-page", recode_list_page),
    ("snapshot", |bytes| Snapshot::decode(bytes).map(|snapshot| snapshot.encode())),
    ("configuration", |bytes| Config::decode(bytes).map(|config| config.encode())),
    ("mark", |bytes| Mark::decode(bytes).map(|mark| mark.encode())),
];

fn recode_entry(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    encode_entry(&decode_entry(bytes)?, &mut out);
    Ok(out)
}

fn recode_tree_page(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut builder = PageBuilder::new();
    for entry in TreePage::decode(bytes)? {
        assert_eq!(builder.push(&entry)?, None, "a vector is shorter than a page that is cut");
    }
    Ok(builder.finish().unwrap_or_default())
}

/// Only files of more than a thousand chunks have list pages, so no builder makes one this short.
fn recode_list_page(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    decode_list_page(bytes, 1).map(|_| bytes.to_vec())
}

fn vectors(folder: &str) -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(folder);
    let files = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|e| e == "hex"));
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    assert!(!files.is_empty(), "{}", folder.display());
    files.iter().map(|path| read_vector(path)).collect()
}

fn read_vector(path: &Path) -> Vector {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).unwrap();
    let comment = text.lines().next().and_then(|line| line.strip_prefix("# "));
    let comment = comment.unwrap_or_else(|| panic!("{name} has no comment")).to_owned();
    let digits: Vec<_> = text
        .lines()
        .flat_map(|line| line.split('#').next().unwrap_or_default().chars())
        .filter_map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect();
    let bytes = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    Vector { name, comment, bytes }
}

fn vector(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    read_vector(&path.with_extension("hex")).bytes
}

#[test]
fn valid_objects_are_encoded_to_the_bytes_they_were_decoded_from() {
    for (kind, recode) in KINDS {
        for Vector { name, bytes, .. } in vectors(kind) {
            assert_eq!(recode(&bytes).as_deref(), Ok(&bytes[..]), "{name}");
        }
    }
}

#[test]
fn damaged_objects_yield_the_error_they_are_named_for() {
    for (kind, recode) in KINDS {
        for Vector { name, comment, bytes } in vectors(&format!("{kind}/damaged")) {
            let error = recode(&bytes).expect_err(&name);
            assert_eq!(error.to_string(), comment, "{name}");
        }
    }
}

#[test]
fn objects_cut_anywhere_are_cut_short() {
    for (kind, recode) in KINDS {
        for Vector { name, bytes, .. } in vectors(kind) {
            for length in 0..bytes.len() {
                let error = recode(&bytes[..length]).expect_err(&name);
                let is_truncated = matches!(error, Error::Truncated { .. });
                assert!(is_truncated, "{name} at {length}: {error}");
            }
        }
    }
}

#[test]
fn objects_with_another_byte_behind_them_are_refused() {
    for (kind, recode) in KINDS {
        for Vector { name, mut bytes, .. } in vectors(kind) {
            for byte in [0x00, 0xa0, 0xff] {
                bytes.push(byte);
                let error = recode(&bytes).expect_err(&name);
                assert!(matches!(error, Error::TrailingBytes { .. }), "{name}: {error}");
                bytes.pop();
            }
        }
    }
}

#[test]
fn objects_with_a_changed_byte_are_refused_or_mean_something_else() {
    for (kind, recode) in KINDS {
        for Vector { name, bytes, .. } in vectors(kind) {
            for position in 0..bytes.len() {
                for value in 0..=255 {
                    let mut damaged = bytes.clone();
                    damaged[position] = value;
                    // Whatever is accepted has one encoding, so no damage goes unseen.
                    if let Ok(recoded) = recode(&damaged) {
                        let keeps_unknown = kind != "mark" || recoded.len() == damaged.len();
                        assert!(!keeps_unknown || recoded == damaged, "{name} at {position}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_fields_of_a_file_are_where_they_should_be() {
    let mut file = Entry::new(
        "hello.txt",
        EntryKind::File { size: 5, content: Content::Inline(b"hello".to_vec()), holes: vec![] },
    );
    file.mode = 0o644;
    file.uid = 1000;
    file.gid = 1000;
    file.user = b"ann".to_vec();
    file.group = b"staff".to_vec();
    file.mtime = Timestamp::new(1_750_000_000, 123_456_789).unwrap();
    file.ctime = Timestamp::from_seconds(1_750_000_001);
    file.btime = Timestamp::new(-1, 999_999_999);
    file.device = 8 << 32 | 1;
    file.inode = 4711;
    assert_eq!(decode_entry(&vector("entry/file-inline")), Ok(file));

    let chunk = |byte, length| ChunkRef { id: BlobId::from_bytes([byte; 32]), length };
    let content = Content::Chunks(vec![chunk(0x11, 3000)]);
    let mut file = Entry::new("one", EntryKind::File { size: 3000, content, holes: vec![] });
    file.mode = 0o4755;
    file.mtime = Timestamp::from_seconds(1_750_000_000);
    file.ctime = file.mtime;
    file.links = 2;
    file.volatile = true;
    assert_eq!(decode_entry(&vector("entry/file-one-chunk")), Ok(file));

    let chunks = vec![chunk(0x11, 10_000), chunk(0x22, 20_000), chunk(0x33, 368)];
    let kind = EntryKind::File {
        size: 100_000,
        content: Content::Chunks(chunks),
        holes: vec![Extent { offset: 0, length: 4096 }, Extent { offset: 8192, length: 65_536 }],
    };
    let sparse = Entry::new("sparse", kind);
    assert_eq!(decode_entry(&vector("entry/file-chunks-and-holes")), Ok(sparse));

    let pages = vec![chunk(0x11, 1 << 39), chunk(0x22, 1 << 39)];
    let content = Content::Lists { depth: 2, pages };
    let long = Entry::new("long", EntryKind::File { size: 1 << 40, content, holes: vec![] });
    assert_eq!(decode_entry(&vector("entry/file-lists")), Ok(long));
}

#[test]
fn the_fields_of_other_kinds_are_where_they_should_be() {
    let pages = [0x44, 0x55].map(|byte| BlobId::from_bytes([byte; 32])).to_vec();
    let mut directory = Entry::new("src", EntryKind::Directory { pages });
    directory.mode = 0o755;
    directory.links = 3;
    assert_eq!(decode_entry(&vector("entry/directory")), Ok(directory));

    let mut symlink = Entry::new("link", EntryKind::Symlink { target: b"../there".to_vec() });
    symlink.mode = 0o777;
    assert_eq!(decode_entry(&vector("entry/symlink")), Ok(symlink));

    let mut null = Entry::new("null", EntryKind::CharacterDevice { major: 1, minor: 3 });
    null.mode = 0o666;
    assert_eq!(decode_entry(&vector("entry/character-device")), Ok(null));
    let sda = Entry::new("sda", EntryKind::BlockDevice { major: 8, minor: 0 });
    assert_eq!(decode_entry(&vector("entry/block-device")), Ok(sda));
    assert_eq!(decode_entry(&vector("entry/fifo")), Ok(Entry::new(b"\xff\xfe", EntryKind::Fifo)));
    assert_eq!(decode_entry(&vector("entry/socket")), Ok(Entry::new("s", EntryKind::Socket)));

    let content = Content::Inline(Vec::new());
    let mut other = Entry::new("x", EntryKind::File { size: 0, content, holes: vec![] });
    other.flags = 0x30;
    other.xattrs = vec![
        Xattr { name: b"security.capability".to_vec(), value: vec![1, 2] },
        Xattr { name: b"user.comment".to_vec(), value: Vec::new() },
    ];
    other.windows = Some(Box::new(WindowsMetadata {
        attributes: Some(0x21),
        security_descriptor: Some(vec![1, 0]),
    }));
    let list = [0x87, 0x01, 0x20, 0x41, 0x00, 0x61, b'a', 0xf5, 0xf6, 0xa1, 0x01, 0x02];
    other.unknown = vec![(64, list.to_vec()), (1000, vec![0])];
    assert_eq!(decode_entry(&vector("entry/everything-else")), Ok(other));
}

#[test]
fn the_fields_of_a_list_page_are_where_they_should_be() {
    let chunk = |byte, length| ChunkRef { id: BlobId::from_bytes([byte; 32]), length };
    let expected = vec![chunk(0x11, 131_072), chunk(0x22, 1)];
    assert_eq!(decode_list_page(&vector("list-page/chunks"), 1), Ok(expected));
}

#[test]
fn the_fields_of_a_snapshot_are_where_they_should_be() {
    let pages = vec![BlobId::from_bytes([0x44; 32])];
    let mut root = Entry::new("", EntryKind::Directory { pages });
    root.mode = 0o755;
    let incident = |path: &str, kind, message: &str| Incident {
        path: path.into(),
        kind,
        message: message.into(),
    };
    let complete = Snapshot {
        root: root.clone(),
        time: Timestamp::new(1_750_000_000, 5).unwrap(),
        utc_offset: 7200,
        host: "host".into(),
        user: "ann".into(),
        paths: vec![b"/etc".to_vec(), b"/home/ann".to_vec()],
        tags: vec!["daily".into(), "home".into()],
        description: "before the move".into(),
        program: "putback 0.1.0".into(),
        parent: Some(SnapshotId::from_bytes([0x66; 32])),
        complete: true,
        statistics: Statistics {
            files_new: 1,
            bytes_total: 1000,
            duration_ms: 2500,
            ..Statistics::default()
        },
        incidents: vec![
            incident("/etc/shadow", IncidentKind::Unreadable, "Permission denied"),
            incident("/home/ann/log", IncidentKind::ChangedWhileRead, ""),
        ],
        config_generation: 3,
        writer: WriterId::from_bytes([0x77; 16]),
        sequence: 12,
        seen: vec![(WriterId::from_bytes([0x01; 16]), 4), (WriterId::from_bytes([0x02; 16]), 9)],
        unknown: vec![(64, b"\x64kept".to_vec())],
    };
    assert_eq!(Snapshot::decode(&vector("snapshot/complete")).as_ref(), Ok(&complete));

    let checkpoint = Snapshot {
        utc_offset: -3600,
        paths: vec![],
        tags: vec![],
        description: String::new(),
        parent: None,
        complete: false,
        statistics: Statistics::default(),
        incidents: vec![],
        config_generation: 1,
        sequence: 1,
        seen: vec![],
        unknown: vec![],
        ..complete
    };
    assert_eq!(Snapshot::decode(&vector("snapshot/checkpoint")), Ok(checkpoint));
}

#[test]
fn the_fields_of_a_configuration_are_where_they_should_be() {
    let default = Config {
        repository: RepositoryId::from_bytes([0x33; 16]),
        generation: 1,
        created: Timestamp::from_seconds(1_750_000_000),
        chunker: ChunkerParams {
            bytes_min: 32 << 10,
            bytes_average: 128 << 10,
            bytes_max: 1 << 20,
        },
        pack_bytes: 32 << 20,
        frame_bytes: 1 << 20,
        compression_level: 3,
        epoch: 1,
        unknown: vec![],
    };
    assert_eq!(Config::decode(&vector("configuration/default")).as_ref(), Ok(&default));
    let changed = Config {
        generation: 2,
        compression_level: -7,
        epoch: 2,
        unknown: vec![(64, vec![0xa1, 0x01, 0x02])],
        ..default
    };
    assert_eq!(Config::decode(&vector("configuration/changed")), Ok(changed));
}

#[test]
fn the_fields_of_a_mark_are_where_they_should_be() {
    let mark = |kind| Mark {
        writer: WriterId::from_bytes([0x77; 16]),
        time: Timestamp::from_seconds(1_750_000_000),
        kind,
    };
    let packs = [1, 2].map(|byte| PackId::from_bytes([byte; 32])).to_vec();
    assert_eq!(Mark::decode(&vector("mark/packs")), Ok(mark(MarkKind::Packs(packs))));
    let forgotten = ForgottenSnapshot {
        snapshot: SnapshotId::from_bytes([5; 32]),
        writer: WriterId::from_bytes([6; 16]),
        sequence: 7,
    };
    assert_eq!(Mark::decode(&vector("mark/forget")), Ok(mark(MarkKind::Forget(vec![forgotten]))));
}
