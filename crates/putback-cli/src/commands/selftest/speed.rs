//! How fast each stage between a file and the disk is, on one core and on one disk.

use std::path::Path;
use std::time::{Duration, Instant};

use putback_format::chunk::Chunker;
use putback_format::compress::{Codec, Compressor, Decompressor};
use putback_format::config::ChunkerParams;
use putback_format::id::RepositoryId;
use putback_format::key::{BlobKind, DedupSecret, KeyRing, MasterKey};
use putback_format::pack::{FrameHead, PackKey};
use putback_format::slot::{self, KdfCost, Slot};
use putback_store::local::LocalStore;
use putback_store::{ObjectPath, Store};

use crate::ui::text;

/// How long a stage is measured, at least once through.
const TIME: Duration = Duration::from_millis(400);
/// How long the disk is measured, at least one pack.
const TIME_OF_DISK: Duration = Duration::from_secs(1);
/// A frame, unless `init` said otherwise.
const FRAME_BYTES: usize = 1 << 20;
/// An average chunk, likewise.
const CHUNK_BYTES: usize = 128 << 10;
/// A full pack, likewise.
const PACK_BYTES: usize = 32 << 20;

/// What a stage took.
pub(super) struct Stage {
    pub(super) name: &'static str,
    /// None where time counts, and not bytes.
    bytes: Option<u64>,
    time: Duration,
    rounds: u32,
}

impl Stage {
    /// Bytes in a second; none if there are no bytes.
    pub(super) fn bytes_per_second(&self) -> Option<u64> {
        let seconds = self.time.as_secs_f64().max(1e-9);
        self.bytes.map(|bytes| (bytes as f64 / seconds) as u64)
    }

    /// How long it takes once; none if bytes count.
    pub(super) fn milliseconds(&self) -> Option<u64> {
        let each = self.time / self.rounds.max(1);
        let milliseconds = u64::try_from(each.as_millis()).unwrap_or(u64::MAX);
        self.bytes.is_none().then_some(milliseconds)
    }

    pub(super) fn shown(&self) -> String {
        match self.bytes_per_second() {
            Some(bytes) => format!("{}/s", text::bytes(bytes)),
            None => format!("{} ms", self.milliseconds().unwrap_or_default()),
        }
    }
}

/// Repeats `round`, which handles so many bytes, until the time is over.
fn stage(
    name: &'static str,
    bytes: Option<usize>,
    limit: Duration,
    mut round: impl FnMut() -> Result<(), String>,
) -> Result<Stage, String> {
    let started = Instant::now();
    let mut rounds = 0;
    loop {
        round().map_err(|error| format!("{name}: {error}"))?;
        rounds += 1;
        let time = started.elapsed();
        if time >= limit {
            let bytes = bytes.map(|bytes| bytes as u64 * u64::from(rounds));
            return Ok(Stage { name, bytes, time, rounds });
        }
    }
}

fn describe(error: impl std::error::Error) -> String {
    error.to_string()
}

/// Text as programs and logs have it: half of its words are repeated.
fn prose(length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 32);
    let mut number = 1_u64;
    while bytes.len() < length {
        number =
            number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = number >> 33;
        let text = if word & 1 == 0 {
            format!("word{:02x} ", (word >> 1) & 0x3f)
        } else {
            format!("{word:x}\n")
        };
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Measures all stages; the disk is that of `folder`.
pub(super) fn measure(folder: &Path) -> Result<Vec<Stage>, String> {
    let dedup = DedupSecret::from_bytes([1; 32]);
    let params = ChunkerParams {
        bytes_min: CHUNK_BYTES as u32 / 4,
        bytes_average: CHUNK_BYTES as u32,
        bytes_max: CHUNK_BYTES as u32 * 8,
    };
    let chunker = Chunker::new(params, &dedup.gear_table());
    let ids = dedup.id_keys();
    let master = MasterKey::from_bytes([2; 32]);
    let repository = RepositoryId::from_bytes([3; 16]);
    let key = PackKey::new(&master, repository, 1, [4; 32]);
    let head = FrameHead {
        ordinal: 0,
        kind: BlobKind::Data,
        codec: Codec::Raw,
        plain_length: FRAME_BYTES as u32,
    };

    let data = prose(8 * FRAME_BYTES);
    let frame = &data[..FRAME_BYTES];
    let mut compressor = Compressor::new(3).map_err(describe)?;
    let mut decompressor = Decompressor::new().map_err(describe)?;
    let (mut coded, mut plain) = (Vec::new(), Vec::new());
    let (mut sealed, mut opened) = (Vec::new(), Vec::new());

    let mut stages = vec![
        stage("cut into chunks", Some(data.len()), TIME, || {
            let mut rest = data.as_slice();
            while !rest.is_empty() {
                rest = &rest[chunker.cut(rest)..];
            }
            Ok(())
        })?,
        stage("hash (BLAKE3)", Some(data.len()), TIME, || {
            let mut last = 0;
            for chunk in data.chunks(CHUNK_BYTES) {
                last ^= ids.blob_id(BlobKind::Data, chunk).as_bytes()[0];
            }
            std::hint::black_box(last);
            Ok(())
        })?,
        stage("compress (zstd, level 3)", Some(FRAME_BYTES), TIME, || {
            compressor.compress(frame, &mut coded).map(drop).map_err(describe)
        })?,
    ];
    stages.push(stage("decompress", Some(FRAME_BYTES), TIME, || {
        decompressor.decompress(Codec::Zstd, &coded, FRAME_BYTES, &mut plain).map_err(describe)
    })?);
    if plain != frame {
        return Err("what was compressed came back as other bytes".to_owned());
    }
    stages.push(stage("seal (XChaCha20-Poly1305)", Some(FRAME_BYTES), TIME, || {
        sealed.clear();
        key.seal_frame(head, frame, &mut sealed).map_err(describe)
    })?);
    stages.push(stage("unseal", Some(FRAME_BYTES), TIME, || {
        key.unseal_frame(head, &sealed, &mut opened).map_err(describe)
    })?);
    if opened != frame {
        return Err("what was sealed came back as other bytes".to_owned());
    }
    stages.push(password(repository, master)?);
    stages.extend(disk(folder)?);
    Ok(stages)
}

/// Opening a repository costs this once; so does each guess of who has stolen it.
fn password(repository: RepositoryId, master: MasterKey) -> Result<Stage, String> {
    let keys = KeyRing::new(DedupSecret::from_bytes([1; 32]), master);
    let salts = [[5; 32], [6; 32]];
    let bytes = slot::seal(b"password", KdfCost::DEFAULT, repository, &keys, b"", salts)
        .map_err(describe)?;
    let slot = Slot::decode(&bytes).map_err(describe)?;
    stage("open a password slot (Argon2id, 64 MiB)", None, TIME, || {
        slot.open(b"password").map(drop).map_err(describe)
    })
}

/// Packs, written as a repository on a local disk writes them: each is on the disk before it has its name.
fn disk(folder: &Path) -> Result<Vec<Stage>, String> {
    let store = LocalStore::new(folder.join("disk"));
    store.create(&["packs"]).map_err(describe)?;
    let pack = prose(PACK_BYTES);
    let path = |number: u32| {
        ObjectPath::new(&format!("packs/{number}")).map_err(|error| format!("a name: {error}"))
    };
    let mut written = 0;
    let write = stage("write packs, with fsync", Some(PACK_BYTES), TIME_OF_DISK, || {
        store.write(&path(written)?, &pack).map_err(describe)?;
        written += 1;
        let old = written.checked_sub(5).map(path).transpose()?;
        // A fast disk is not to be filled.
        if let Some(row) = old.and_then(|old| store.stat(&old).ok()) {
            store.delete(&[row]).map_err(describe)?;
        }
        Ok(())
    })?;
    let last = path(written.saturating_sub(1))?;
    let read = stage("read packs, from memory if they are there", Some(PACK_BYTES), TIME, || {
        let bytes = store.read_all(&last, PACK_BYTES as u64).map_err(describe)?;
        if bytes == pack { Ok(()) } else { Err("a pack came back as other bytes".to_owned()) }
    })?;
    Ok(vec![write, read])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_told_by_its_bytes_or_by_its_time() {
        let time = Duration::from_secs(2);
        let bytes = Stage { name: "it", bytes: Some(4 << 20), time, rounds: 4 };
        assert_eq!((bytes.bytes_per_second(), bytes.milliseconds()), (Some(2 << 20), None));
        let each = Stage { name: "it", bytes: None, time, rounds: 4 };
        assert_eq!((each.bytes_per_second(), each.milliseconds()), (None, Some(500)));
        assert_eq!(each.shown(), "500 ms");
    }
}
