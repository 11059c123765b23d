//! Writes the inputs that fuzzing begins with: one of each kind of object, and what users and servers write.
//!
//! ```text
//! cargo run -p putback-format --example fuzz_seeds -- FOLDER
//! ```
//!
//! They are the vectors of `testdata/` and what is made here; `scripts/fuzz-corpus.sh` keeps
//! those of them, and of what fuzzing has found, that reach something of their own.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use putback_format::compress::{Codec, Compressor};
use putback_format::envelope::{self, ObjectKind};
use putback_format::id::{BlobId, PackId, RepositoryId, SegmentId};
use putback_format::key::{BlobKind, DedupSecret, KeyRing, MasterKey};
use putback_format::pack::{FrameEntry, PackContents};
use putback_format::segment::{Segment, SegmentPack};
use putback_format::slot::{self, KdfCost};

// Those of `fuzz/src/lib.rs`.
const REPOSITORY: RepositoryId = RepositoryId::from_bytes([2; 16]);
const SALT: [u8; 32] = [4; 32];
const EPOCH: u32 = 1;

fn master() -> MasterKey {
    MasterKey::from_bytes([3; 32])
}

fn keys() -> KeyRing {
    KeyRing::new(DedupSecret::from_bytes([1; 32]), master())
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Writes inputs of one target, numbered.
struct Seeds {
    folder: PathBuf,
}

impl Seeds {
    fn write(&self, target: &str, inputs: impl IntoIterator<Item = Vec<u8>>) -> Result<()> {
        let folder = self.folder.join(target);
        fs::create_dir_all(&folder)?;
        for input in inputs {
            fs::write(folder.join(PackId::of_stored(&input).short()), input)?;
        }
        Ok(())
    }
}

/// The vectors of a folder of the format's test data, damaged ones among them.
fn vectors(folder: &str) -> Result<Vec<Vec<u8>>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut vectors = Vec::new();
    for folder in [root.join(folder), root.join(folder).join("damaged")] {
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            if path.extension().is_none_or(|end| end != "hex") {
                continue;
            }
            let text = fs::read_to_string(path)?;
            let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
            let digits: Vec<u32> =
                lines.flat_map(str::chars).filter_map(|digit| digit.to_digit(16)).collect();
            vectors.push(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect());
        }
    }
    Ok(vectors)
}

fn contents(frames: u8, blobs: u8) -> PackContents {
    let frame = |number: u8| {
        let codec = if number.is_multiple_of(2) { Codec::Raw } else { Codec::Zstd };
        let plain_length = 10 * u32::from(blobs);
        let stored_length = plain_length + 40 - codec as u32;
        FrameEntry { stored_length, plain_length, codec, blobs: blobs.into() }
    };
    let all = usize::from(frames) * usize::from(blobs);
    PackContents {
        kind: BlobKind::Data,
        frames: (0..frames).map(frame).collect(),
        ids: (0..all).map(|number| BlobId::from_bytes([number as u8; 32])).collect(),
        lengths: vec![10; all],
    }
}

fn segment(packs: u8, tombstones: u8) -> Segment {
    let pack = |number: u8| SegmentPack {
        id: PackId::from_bytes([number; 32]),
        salt: SALT,
        epoch: EPOCH,
        crc32: 7,
        size: 100_000,
        contents: contents(number, 2),
    };
    Segment {
        packs: (0..packs).map(pack).collect(),
        tombstones: (0..tombstones).map(|number| PackId::from_bytes([number; 32])).collect(),
        replaces: (0..tombstones).map(|number| SegmentId::from_bytes([number; 32])).collect(),
    }
}

/// Codec, lengths and coded bytes, as they are inside a seal.
fn payload(plain: &[u8], level: i32) -> Result<Vec<u8>> {
    let mut coded = Vec::new();
    let codec = Compressor::new(level)?.compress(plain, &mut coded)?;
    let mut out = vec![codec as u8, 0, 0, 0];
    out.extend((plain.len() as u32).to_le_bytes());
    out.extend((coded.len() as u32).to_le_bytes());
    out.extend(coded);
    out.resize(putback_format::padme(out.len() as u64) as usize, 0);
    Ok(out)
}

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).ok_or("say to which folder")?;
    let seeds = Seeds { folder: folder.into() };
    for (target, folder) in [
        ("config", "configuration"),
        ("entry", "entry"),
        ("tree_page", "tree-page"),
        ("list_page", "list-page"),
        ("snapshot", "snapshot"),
        ("mark", "mark"),
    ] {
        seeds.write(target, vectors(folder)?)?;
    }
    let segments = [segment(0, 0), segment(3, 0), segment(0, 3), segment(2, 1)];
    let segments: Vec<Vec<u8>> =
        segments.iter().map(Segment::encode).collect::<std::result::Result<_, _>>()?;
    seeds.write("segment", segments.clone())?;

    let with_mode = |mode: &[u8], bytes: &[u8]| [mode, bytes].concat();
    // A segment of one pack ends with the pack's table.
    let tables = [contents(0, 0), contents(1, 1), contents(3, 5)].map(|contents| {
        let pack = SegmentPack { contents, ..segment(1, 0).packs.remove(0) };
        Segment { packs: vec![pack], ..Segment::default() }
            .encode()
            .map(|bytes| bytes[16 + 80..].to_vec())
    });
    let mut packs =
        vec![vec![2, 3, 2, 1, 9, 0, 5, 5, 5, 5], vec![2, 1, 0, 0, 0, 0, 1], vec![2, 0, 0, 9, 9, 9]];
    for table in tables {
        let table = table?;
        packs.push(with_mode(&[0, 0, 0, 1, 0], &table));
        packs.push(with_mode(&[1], &payload(&table, 3)?));
    }
    let mut trailer = [0; 72];
    trailer[..8].copy_from_slice(b"PUTBPACK");
    trailer[8] = 1;
    trailer[12] = 1;
    trailer[24..40].copy_from_slice(REPOSITORY.as_bytes());
    packs.push(with_mode(&[3, 200, 0, 0, 0], &trailer));
    seeds.write("pack", packs)?;

    let mut envelopes = Vec::new();
    for (number, kind) in (0..).zip([
        ObjectKind::Config,
        ObjectKind::Segment,
        ObjectKind::Snapshot,
        ObjectKind::Mark,
        ObjectKind::SlotInfo,
    ]) {
        let object = envelope::seal(kind, REPOSITORY, EPOCH, &master(), SALT, &[number; 50])?;
        envelopes.push(with_mode(&[0, number], &object));
        envelopes.push(with_mode(&[1, number], &payload(&[number; 300], 3)?));
        envelopes.push(with_mode(&[2, number, 1, 77, 0], b"a payload"));
    }
    seeds.write("envelope", envelopes)?;

    let info = slot::seal(b"password", KdfCost::LOW, REPOSITORY, &keys(), b"who", [SALT, [5; 32]])?;
    seeds.write("slot", [info[..info.len() - 5].to_vec(), info])?;
    let mut many = keys();
    many.insert(2, MasterKey::from_bytes([9; 32]))?;
    let exported = [slot::export(REPOSITORY, &keys()), slot::export(REPOSITORY, &many)];
    seeds.write("exported_key", exported.iter().map(|text| text.as_bytes().to_vec()))?;

    let mut frames = Vec::new();
    for (level, plain) in
        [(1, vec![1; 1000]), (19, (0..=255).cycle().take(5000).collect()), (3, vec![])]
    {
        let mut coded = Vec::new();
        let codec = Compressor::new(level)?.compress(&plain, &mut coded)?;
        let length = (plain.len() as u32) << 8 | codec as u32;
        frames.push(with_mode(&length.to_le_bytes(), &coded));
    }
    seeds.write("frame", frames)?;
    seeds.write(
        "chunker",
        [b"\0\x10\0\x06\xffabc".to_vec(), [&[0, 4, 2, 3, 200][..], &[0xf7; 60]].concat()],
    )?;
    seeds.write(
        "lists",
        [5_u16, 1024, 1025, 11_000]
            .map(|count| [&count.to_le_bytes()[..], b"\x01\x04\x00\xe9"].concat()),
    )?;

    let patterns: [&[u8]; 8] = [
        b"\x00/home/me/a.txt\n*.txt\n!/home/*/b*\n",
        b"\x03home/me\n# comment\n\nsrc/**/[a-z]?.c\n\\#x\nend\\ \n",
        b"\x01A/\xc3\x84\xff\n[!\xc3\xa4-\xc3\xb6]\n\xc3\xa4*\n",
        b"\x02a/b/c\n/a/**\n**/b/**/c/\ncache/\n",
        b"\x00a]b/-\n[]a]\n[a-]\n[^-x]\n",
        b"\x00x\n[\n",
        b"\x00x\n..\n",
        b"\x01\xcf\x82\n[\xce\x91-\xce\xa9]\n",
    ];
    seeds.write("patterns", patterns.map(<[u8]>::to_vec))?;
    let locations = [
        "putio:backups/laptop",
        "putio:/a//",
        "x:a%46b",
        "p:Gr\u{f6}\u{df}e 50 %/x%4",
        "packs/0123456789abcdef",
        "config/17-ab",
        "putio:..",
        "a\\b:\u{1b}[31m",
    ];
    seeds.write("locations", locations.map(|text| text.as_bytes().to_vec()))?;
    let replies = [
        r#"{"files":[{"id":5,"name":"a","size":12,"content_type":"application/x-directory","crc32":"0000beef","created_at":"2026-11-22T07:00:00","updated_at":"2026-11-22 07:00:00Z"}],"parent":{"id":0},"cursor":"x","trash_size":5,"status":"OK"}"#,
        r#"{"file":{"id":9,"size":"77","file_type":"FOLDER"},"status":"OK"}"#,
        r#"{"errors":[{"id":1,"name":"n","error_type":"NAME_ALREADY_EXIST","status_code":400}],"status":"OK"}"#,
        r#"{"status":"ERROR","error_type":"RATE_LIMIT_ERROR","error_message":"see https://x token=y","status_code":429,"retry_after":1.5,"extra":{"retry_after":"7"}}"#,
        r#"{"info":{"user_id":1,"username":"ada","disk":{"avail":6,"size":10,"used":4},"account_active":true}}"#,
        r#"{"settings":{"trash_enabled":true,"default_download_folder":0}}"#,
        r#"{"result":true,"token_id":3,"token_scope":"default","user_id":1}"#,
        r#"{"url":"https://s1.put.io/x"}"#,
        r#"{"code":"ABCD","qr_code_url":null,"oauth_token":null,"access_token":"x"}"#,
        "<html>502</html>",
    ];
    seeds.write("putio_replies", replies.map(|text| [&[44, 1], text.as_bytes()].concat()))?;
    let headers = [
        "Sun, 22 Nov 2026 07:00:00 GMT\n1795330900\n30\n5\ncaptcha-needed\nbytes 0-9/10\n/next",
        "\n\nSun, 22 Nov 2026 07:01:00 GMT\n0\n\nbytes 5-18446744073709551615/*\nhttp://upload.put.io/x",
        "x\n1e300\n-5\n\n\nBYTES 1-2\nhttps://user:pass@api.put.io/v2?x#y",
    ];
    seeds.write("putio_headers", headers.map(|text| text.as_bytes().to_vec()))?;
    let mut ids = vec![2, 0, 0, 0, 255, 1, 0, 0, 0];
    ids.extend(0_i64.to_le_bytes());
    ids.extend([0; 4]);
    ids.extend(b"\x05packs\x02\0\0\0");
    ids.extend([1_i64, 7].iter().flat_map(|id| id.to_le_bytes()));
    ids.extend(b"\x01\0\0\0\0");
    ids.extend([0xab; 32]);
    ids.extend([8_u64, 1 << 30, 1_700_000_000].iter().flat_map(|number| number.to_le_bytes()));
    ids.extend([1, 1, 2, 3, 4]);
    seeds.write("putio_ids", [ids, vec![0; 4]])
}
