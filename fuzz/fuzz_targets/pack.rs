//! Packs: trailers as they come, headers as they are inside their seal, and packs whose parts were changed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use putback_format::compress::Codec;
use putback_format::id::{BlobId, PackId};
use putback_format::key::BlobKind;
use putback_format::pack::{FrameHead, PackBuilder, PackContents, PackKey, TRAILER_BYTES, Trailer};
use putback_format::segment::{Segment, SegmentPack};
use putback_fuzz::{EPOCH, REPOSITORY, SALT, keys, master, take};

/// Reads the header of a stored pack.
fn open(pack: &[u8]) -> Option<(PackKey, PackContents)> {
    let (rest, tail) = pack.split_last_chunk::<TRAILER_BYTES>()?;
    let trailer = Trailer::decode(tail, pack.len() as u64, REPOSITORY).ok()?;
    let body =
        rest.len().checked_sub(trailer.header_length as usize).expect("decode has checked it");
    let key = trailer.key(&keys()).ok()?;
    let contents = key.unseal_header(&rest[body..], body as u64).ok()?;
    assert_consistent(&contents, body as u64);
    Some((key, contents))
}

/// Every offset that follows from the table lies inside the body.
fn assert_consistent(contents: &PackContents, body: u64) {
    assert!(contents.stored_length() <= body);
    let mut blobs = 0;
    for frame in &contents.frames {
        let lengths = &contents.lengths[blobs..blobs + frame.blobs as usize];
        let plain: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
        assert_eq!(plain, frame.plain_length.into());
        blobs += frame.blobs as usize;
    }
    assert_eq!(blobs, contents.ids.len());
}

/// A table on its own; the encoding is that of segments.
fn table(bytes: &[u8]) {
    let Some((body, plain)) = take::<4>(bytes) else { return };
    let body = u64::from(u32::from_le_bytes(body)) % (200 << 20);
    let Ok(contents) = PackContents::decode(plain, body) else { return };
    assert_consistent(&contents, body);
    let id = PackId::from_bytes([9; 32]);
    let size = body + TRAILER_BYTES as u64;
    let pack = SegmentPack { id, salt: SALT, epoch: EPOCH, crc32: 0, size, contents };
    let segment = Segment { packs: vec![pack], ..Segment::default() };
    let encoded = segment.encode().expect("one pack");
    assert!(encoded.ends_with(plain), "two encodings of one table");
    assert_eq!(Segment::decode(&encoded), Ok(segment));
}

/// A header whose padded payload is this: what only a holder of the keys could have written.
fn header(plain: &[u8]) {
    let key = PackKey::new(&master(), REPOSITORY, EPOCH, SALT);
    let sealed_length = plain.len() + putback_format::seal::SEAL_OVERHEAD_BYTES;
    let mut trailer = [0; TRAILER_BYTES];
    trailer[..8].copy_from_slice(b"PUTBPACK");
    trailer[8] = 1;
    trailer[12..16].copy_from_slice(&EPOCH.to_le_bytes());
    trailer[16..20].copy_from_slice(&(sealed_length as u32).to_le_bytes());
    trailer[24..40].copy_from_slice(REPOSITORY.as_bytes());
    trailer[40..].copy_from_slice(&SALT);
    let mut sealed = Vec::new();
    master().pack_key(&SALT).seal(&SALT, &trailer, plain, &mut sealed).expect("short");
    if let Ok(contents) = key.unseal_header(&sealed, 1 << 20) {
        assert_consistent(&contents, 1 << 20);
    }
    sealed.extend_from_slice(&trailer);
    let pack = [vec![0; 100], sealed].concat();
    drop(open(&pack));
}

/// A pack of raw frames, then changed: either it is what it was, or the change is noticed wherever it matters.
fn whole(bytes: &[u8]) {
    let Some(([frames, blobs, edits, at, at_high], content)) = take::<5>(bytes) else { return };
    let key = PackKey::new(&master(), REPOSITORY, EPOCH, SALT);
    let mut builder = PackBuilder::new(BlobKind::Tree, 1 << 20);
    let mut pack = Vec::new();
    let mut plains = Vec::new();
    for number in 0..frames % 5 {
        let plain: Vec<u8> = content.iter().map(|byte| byte ^ number).collect();
        let each = plain.len() / (usize::from(blobs % 7) + 1);
        let mut list =
            vec![(BlobId::from_bytes([number; 32]), each as u32); usize::from(blobs % 7)];
        let rest = plain.len() - each * list.len();
        list.push((BlobId::from_bytes([255; 32]), rest as u32));
        let ordinal =
            builder.push(Codec::Raw, plain.len() as u32, plain.len(), &list).expect("room");
        let head = FrameHead {
            kind: BlobKind::Tree,
            ordinal,
            codec: Codec::Raw,
            plain_length: plain.len() as u32,
        };
        key.seal_frame(head, &plain, &mut pack).expect("short");
        plains.push(plain);
    }
    let frames_length = pack.len();
    let (contents, end) = builder.finish(&key, false).expect("room was left");
    pack.resize(pack.len() + end.padding as usize, 0);
    let padding = frames_length..pack.len();
    pack.extend_from_slice(&end.tail);
    let (_, read) = open(&pack).expect("just written");
    assert_eq!(read, contents);

    let position = usize::from(u16::from_le_bytes([at, at_high])) % pack.len();
    let is_harmless = edits == 0 || padding.contains(&position);
    pack[position] ^= edits;
    let Some((key, read)) = open(&pack) else {
        assert!(position >= padding.end);
        return;
    };
    assert_eq!(read, contents);
    assert!(is_harmless || position < frames_length);
    let mut offset = 0;
    for (ordinal, (frame, plain)) in read.frames.iter().zip(&plains).enumerate() {
        let stored = &pack[offset..offset + frame.stored_length as usize];
        let is_changed = edits != 0 && (offset..offset + stored.len()).contains(&position);
        offset += stored.len();
        let head = FrameHead {
            kind: read.kind,
            ordinal: ordinal as u32,
            codec: frame.codec,
            plain_length: frame.plain_length,
        };
        let mut coded = Vec::new();
        match key.unseal_frame(head, stored, &mut coded) {
            Ok(()) => assert!(!is_changed && coded == *plain),
            Err(_) => assert!(is_changed && coded.is_empty()),
        }
        // A frame of another place is not taken for this one.
        let moved = FrameHead { ordinal: ordinal as u32 + 1, ..head };
        assert!(key.unseal_frame(moved, stored, &mut coded).is_err());
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some(([mode], rest)) = take::<1>(bytes) else { return };
    match mode % 4 {
        0 => table(rest),
        1 => header(rest),
        2 => whole(rest),
        _ => {
            drop(open(rest));
            if let Some((length, rest)) = take::<4>(rest) {
                let length = u64::from(u32::from_le_bytes(length));
                if let Ok(trailer) = Trailer::decode(rest, length, REPOSITORY) {
                    assert!(u64::from(trailer.header_length) + TRAILER_BYTES as u64 <= length);
                }
            }
        }
    }
});
