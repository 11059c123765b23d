//! Measures what average chunk, frame size and compression level cost and save on the folders or files given.
//!
//! ```text
//! cargo run --release -p putback-format --example parameters -- FOLDER...
//! ```
//!
//! Several folders are stored one after another, as successive snapshots would be. One thread reads, cuts,
//! hashes, deduplicates, gathers frames and compresses; nothing is sealed or written. The table at the end of
//! `docs/format.md` was made with this.

#![expect(clippy::print_stdout, reason = "a table is what it is for")]

use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use putback_format::chunk::Chunker;
use putback_format::compress::Compressor;
use putback_format::config::ChunkerParams;
use putback_format::key::{BlobKind, DedupSecret};

/// Average chunk in KiB, frame in KiB, zstd level.
const SETTINGS: [(u32, usize, i32); 17] = [
    (16, 1024, 3),
    (32, 1024, 3),
    (64, 1024, 3),
    (128, 1024, 3),
    (256, 1024, 3),
    (512, 1024, 3),
    (1024, 1024, 3),
    (128, 256, 3),
    (128, 512, 3),
    (128, 2048, 3),
    (128, 4096, 3),
    (128, 1024, 1),
    (128, 1024, 2),
    (128, 1024, 4),
    (128, 1024, 6),
    (128, 1024, 9),
    (128, 2048, 2),
];

fn files(path: &Path, all: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_file() {
        all.push(path.to_owned());
    } else if kind.is_dir() {
        let mut names = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()?;
        names.sort();
        names.iter().try_for_each(|name| files(name, all))?;
    }
    Ok(())
}

/// Plain bytes, stored bytes, chunks stored.
fn store(
    paths: &[PathBuf],
    average: u32,
    frame_bytes: usize,
    level: i32,
) -> Result<(u64, u64, u64), Box<dyn Error>> {
    let secret = DedupSecret::from_bytes([7; 32]);
    let bytes_max = (average * 8).min(4 << 20);
    let params = ChunkerParams { bytes_min: average / 4, bytes_average: average, bytes_max };
    let chunker = Chunker::new(params, &secret.gear_table());
    let (ids, mut compressor) = (secret.id_keys(), Compressor::new(level)?);
    let (mut known, mut frame, mut coded) = (HashSet::new(), Vec::new(), Vec::new());
    let (mut plain_bytes, mut stored_bytes) = (0, 0);
    for path in paths {
        let bytes = fs::read(path)?;
        plain_bytes += bytes.len() as u64;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (chunk, others) = rest.split_at(chunker.cut(rest));
            rest = others;
            if !known.insert(ids.blob_id(BlobKind::Data, chunk)) {
                continue;
            }
            if !frame.is_empty() && frame.len() + chunk.len() > frame_bytes {
                compressor.compress(&frame, &mut coded)?;
                stored_bytes += coded.len() as u64;
                frame.clear();
            }
            frame.extend_from_slice(chunk);
        }
    }
    compressor.compress(&frame, &mut coded)?;
    stored_bytes += coded.len() as u64;
    Ok((plain_bytes, stored_bytes, known.len() as u64))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut paths = Vec::new();
    for folder in std::env::args_os().skip(1) {
        files(Path::new(&folder), &mut paths)?;
    }
    println!(
        "| average chunk | frame | zstd | seconds | plain MiB | stored MiB | with 100 B a chunk | chunks |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (average, frame, level) in SETTINGS {
        let started = Instant::now();
        let (plain, stored, chunks) = store(&paths, average << 10, frame << 10, level)?;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "| {average} KiB | {frame} KiB | {level} | {:.2} | {:.1} | {:.1} | {:.1} | {chunks} |",
            started.elapsed().as_secs_f64(),
            mib(plain),
            mib(stored),
            // Index, pack header and tree each hold an id and a length.
            mib(stored + chunks * 100),
        );
    }
    Ok(())
}
