//! Speed of each stage between a file and a pack: `cargo bench -p putback-format`.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot run has nothing better to do")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use putback_format::chunk::Chunker;
use putback_format::compress::{Codec, Compressor, Decompressor};
use putback_format::config::ChunkerParams;
use putback_format::id::RepositoryId;
use putback_format::key::{BlobKind, DedupSecret, MasterKey};
use putback_format::pack::{FrameHead, PackKey};
use putback_format::page::{PageBuilder, TreePage};
use putback_format::tree::{ChunkRef, Content, Entry, EntryKind};

const MIB: usize = 1 << 20;

/// Bytes that do not compress.
fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(b"random").finalize_xof().fill(&mut bytes);
    bytes
}

/// Bytes that compress as program text does.
fn text(length: usize) -> Vec<u8> {
    let words: Vec<String> =
        random(4096).chunks(8).map(|w| format!("word_{:02x}{:02x}", w[0], w[1])).collect();
    let mut text = Vec::with_capacity(length + 64);
    for (index, byte) in random(length / 4).into_iter().enumerate() {
        text.extend_from_slice(words[usize::from(byte) + (index & 1) * 256].as_bytes());
        text.push(if byte < 32 { b'\n' } else { b' ' });
    }
    text.truncate(length);
    text
}

fn cutting(c: &mut Criterion) {
    let mut group = c.benchmark_group("cut");
    let data = random(64 * MIB);
    group.throughput(Throughput::Bytes(data.len() as u64)).sample_size(20);
    for average in [64u32 << 10, 128 << 10, 1 << 20] {
        let params = ChunkerParams {
            bytes_min: average / 4,
            bytes_average: average,
            bytes_max: average * 8,
        };
        let chunker = Chunker::new(params, &DedupSecret::from_bytes([1; 32]).gear_table());
        group.bench_function(BenchmarkId::from_parameter(average), |b| {
            b.iter(|| {
                let (mut rest, mut chunks) = (data.as_slice(), 0);
                while !rest.is_empty() {
                    rest = &rest[chunker.cut(rest)..];
                    chunks += 1;
                }
                black_box(chunks)
            });
        });
    }
}

fn hashing(c: &mut Criterion) {
    let mut group = c.benchmark_group("blob id");
    let ids = DedupSecret::from_bytes([1; 32]).id_keys();
    for length in [1 << 10, 16 << 10, 128 << 10, MIB] {
        let data = random(length);
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(BenchmarkId::from_parameter(length), |b| {
            b.iter(|| ids.blob_id(BlobKind::Data, black_box(&data)));
        });
    }
}

fn frames(c: &mut Criterion) {
    for (name, plain) in [("text", text(MIB)), ("random", random(MIB))] {
        let mut group = c.benchmark_group(format!("frame of {name}"));
        group.throughput(Throughput::Bytes(plain.len() as u64)).sample_size(30);
        for level in [1, 2, 3, 6, 9] {
            let mut compressor = Compressor::new(level).unwrap();
            let mut coded = Vec::new();
            group.bench_function(format!("zstd {level}"), |b| {
                b.iter(|| compressor.compress(black_box(&plain), &mut coded).unwrap());
            });
        }
        let (mut coded, mut opened) = (Vec::new(), Vec::new());
        let codec = Compressor::new(3).unwrap().compress(&plain, &mut coded).unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        group.bench_function("decompress", |b| {
            b.iter(|| decompressor.decompress(codec, black_box(&coded), MIB, &mut opened).unwrap());
        });
    }
}

fn sealing(c: &mut Criterion) {
    let mut group = c.benchmark_group("seal");
    let key = PackKey::new(
        &MasterKey::from_bytes([1; 32]),
        RepositoryId::from_bytes([2; 16]),
        1,
        [3; 32],
    );
    for length in [64 << 10, MIB] {
        let plain = random(length);
        let head = FrameHead {
            kind: BlobKind::Data,
            ordinal: 0,
            codec: Codec::Raw,
            plain_length: length as u32,
        };
        group.throughput(Throughput::Bytes(length as u64));
        let mut sealed = Vec::new();
        group.bench_function(BenchmarkId::new("seal", length), |b| {
            b.iter(|| {
                sealed.clear();
                key.seal_frame(head, black_box(&plain), &mut sealed).unwrap();
            });
        });
        let mut opened = Vec::new();
        group.bench_function(BenchmarkId::new("unseal", length), |b| {
            b.iter(|| key.unseal_frame(head, black_box(&sealed), &mut opened).unwrap());
        });
    }
}

fn trees(c: &mut Criterion) {
    let ids = DedupSecret::from_bytes([1; 32]).id_keys();
    let entries: Vec<Entry> = (0..1000u32)
        .map(|number| {
            let chunk =
                ChunkRef { id: ids.blob_id(BlobKind::Data, &number.to_le_bytes()), length: 1300 };
            let content = Content::Chunks(vec![chunk]);
            let kind = EntryKind::File { size: 1300, content, holes: Vec::new() };
            Entry {
                inode: 1000 + u64::from(number),
                mode: 0o644,
                ..Entry::new(format!("file_{number:05}.txt"), kind)
            }
        })
        .collect();
    let encode = || {
        let mut builder = PageBuilder::new();
        let mut pages: Vec<Vec<u8>> =
            entries.iter().filter_map(|entry| builder.push(entry).unwrap()).collect();
        pages.extend(builder.finish());
        pages
    };
    let mut group = c.benchmark_group("tree of 1,000 entries");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("encode", |b| b.iter(encode));
    let pages = encode();
    group.bench_function("decode", |b| {
        b.iter(|| {
            pages.iter().map(|page| TreePage::decode(black_box(page)).unwrap().len()).sum::<usize>()
        });
    });
}

criterion_group!(benches, cutting, hashing, frames, sealing, trees);
criterion_main!(benches);
