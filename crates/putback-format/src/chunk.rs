//! Where to cut: content-defined chunks.
//!
//! FastCDC 2020 (Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication
//! Based Storage Systems", IEEE TPDS 2020) with normalisation level 1 and a gear table of our own,
//! derived from the dedup secret. Reading the file is the caller's work.
//!
//! Layout: `docs/format.md`, "Chunks". Cut points are part of the format: golden vectors guard them.

use fastcdc::v2020::{Normalization, cut_gear, select_masks};

use crate::config::ChunkerParams;
use crate::key::GearTable;

/// Cuts buffers into chunks. Cheap to clone, shared by all workers.
#[derive(Clone)]
pub struct Chunker {
    params: ChunkerParams,
    mask_small: u64,
    mask_large: u64,
    gear: GearTable,
    gear_shifted: GearTable,
}

impl Chunker {
    /// A chunker for checked parameters (see [`crate::config::Config::decode`]).
    #[must_use]
    pub fn new(params: ChunkerParams, gear: &GearTable) -> Self {
        let (mask_small, mask_large) =
            select_masks(params.bytes_average as usize, Normalization::Level1);
        let mut gear_shifted = gear.clone();
        gear_shifted.shift_left();
        Self { params, mask_small, mask_large, gear: gear.clone(), gear_shifted }
    }

    /// The parameters.
    #[must_use]
    pub fn params(&self) -> ChunkerParams {
        self.params
    }

    /// Length of the chunk at the front of `buffer`.
    ///
    /// The buffer must hold at least `bytes_max` bytes, or all that is left of the file; it must not
    /// be empty. What is not longer than `bytes_min` is one chunk.
    #[must_use]
    pub fn cut(&self, buffer: &[u8]) -> usize {
        let (_, length) = cut_gear(
            buffer,
            self.params.bytes_min as usize,
            self.params.bytes_average as usize,
            self.params.bytes_max as usize,
            self.mask_small,
            self.mask_large,
            self.mask_small << 1,
            self.mask_large << 1,
            self.gear.as_slice(),
            self.gear_shifted.as_slice(),
        );
        length
    }
}
