//! zstd, with a declared and enforced plain size.

use std::cell::Cell;

use crate::error::Error;

/// How bytes were coded before they were sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    Raw = 0,
    /// One zstd frame (RFC 8878) without dictionary.
    Zstd = 1,
}

impl Codec {
    /// Decodes the stored byte.
    ///
    /// # Errors
    /// [`Error::Invalid`] for any other byte than those of the variants.
    pub fn from_byte(byte: u8) -> Result<Self, Error> {
        match byte {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            _ => Err(Error::Invalid { what: "a codec", why: "unknown number" }),
        }
    }
}

/// Compresses; one per worker, reused.
pub struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
}

impl Compressor {
    /// A compressor of this zstd level, -7 to 22.
    ///
    /// # Errors
    /// [`Error::SelfCheck`] if zstd refuses, for want of memory.
    pub fn new(level: i32) -> Result<Self, Error> {
        let zstd = zstd::bulk::Compressor::new(level)
            .map_err(|_| Error::SelfCheck { what: "a compressor", why: "zstd refused" })?;
        Ok(Self { zstd })
    }

    /// Codes `plain` into `coded`, which is overwritten. Bytes that would shrink by less than 3 % stay
    /// raw: reading them back is then free.
    ///
    /// # Errors
    /// [`Error::SelfCheck`] if zstd fails.
    pub fn compress(&mut self, plain: &[u8], coded: &mut Vec<u8>) -> Result<Codec, Error> {
        coded.clear();
        coded.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        self.zstd
            .compress_to_buffer(plain, coded)
            .map_err(|_| Error::SelfCheck { what: "a frame", why: "zstd failed to compress" })?;
        if coded.len() <= plain.len() - plain.len() * 3 / 100 && coded.len() < plain.len() {
            return Ok(Codec::Zstd);
        }
        coded.clear();
        coded.extend_from_slice(plain);
        Ok(Codec::Raw)
    }
}

thread_local! {
    /// The context of a decompressor that was dropped. To make one asks the processor what it can do, which takes
    /// longer than to open a small object, and on virtual machines much longer.
    static SPARE: Cell<Option<zstd::bulk::Decompressor<'static>>> = const { Cell::new(None) };
}

/// Decompresses; one per worker, reused. A thread that makes and drops many of them has one context for all.
pub struct Decompressor {
    /// There until it is dropped.
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Drop for Decompressor {
    fn drop(&mut self) {
        let zstd = self.zstd.take();
        // At the end of a thread there is nobody to keep it for.
        let _ = SPARE.try_with(|spare| spare.set(zstd));
    }
}

impl Decompressor {
    /// A decompressor.
    ///
    /// # Errors
    /// [`Error::SelfCheck`] if zstd refuses, for want of memory.
    pub fn new() -> Result<Self, Error> {
        let refused = Error::SelfCheck { what: "a decompressor", why: "zstd refused" };
        let zstd = match SPARE.try_with(Cell::take) {
            Ok(Some(spare)) => spare,
            _ => zstd::bulk::Decompressor::new().map_err(|_| refused)?,
        };
        Ok(Self { zstd: Some(zstd) })
    }

    /// Decodes `coded` into `plain`, which is overwritten and ends with exactly `plain_length` bytes.
    /// The caller has checked `plain_length` against its limit.
    ///
    /// # Errors
    /// [`Error::Decompress`] if the bytes are no zstd frame or yield another length.
    pub fn decompress(
        &mut self,
        codec: Codec,
        coded: &[u8],
        plain_length: usize,
        plain: &mut Vec<u8>,
    ) -> Result<(), Error> {
        plain.clear();
        match codec {
            Codec::Raw => plain.extend_from_slice(coded),
            Codec::Zstd => {
                plain.reserve(plain_length);
                let damaged = Error::Decompress { what: "a frame" };
                match &mut self.zstd {
                    Some(zstd) => zstd.decompress_to_buffer(coded, plain).map_err(|_| damaged)?,
                    None => return Err(damaged),
                };
            }
        }
        if plain.len() == plain_length {
            Ok(())
        } else {
            Err(Error::Decompress { what: "a frame" })
        }
    }
}
