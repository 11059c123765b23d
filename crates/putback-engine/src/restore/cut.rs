//! Cutting a window into tasks: large enough that workers seldom wait for each other, small enough that all have some.

use std::ops::Range;
use std::sync::Arc;

use crate::restore::item::{Item, Piece};
use crate::restore::queue::{Comparison, Task};

/// Items without chunks that one task makes, unless a folder ends near.
const ITEMS_PER_TASK: Range<usize> = 64..256;
/// Bytes of existing files that one task compares.
const COMPARED_BYTES_PER_TASK: u64 = 16 << 20;
/// Candidates that one task compares.
const COMPARED_PER_TASK: usize = 256;

/// Cuts sorted pieces into runs of at most `frames_max` frames of one pack.
pub(super) fn cut_frames(pieces: &[Piece], frames_max: usize) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let (mut start, mut frames) = (0, 1);
    for (number, pair) in pieces.windows(2).enumerate() {
        let [piece, next] = pair else { continue };
        if piece.pack == next.pack && piece.frame == next.frame {
            continue;
        }
        if piece.pack != next.pack || frames == frames_max {
            runs.push(start..number + 1);
            (start, frames) = (number + 1, 0);
        }
        frames += 1;
    }
    if start < pieces.len() {
        runs.push(start..pieces.len());
    }
    runs
}

/// Cuts items into batches, between two folders where one ends near: workers in the same folder wait for each
/// other.
pub(super) fn cut_plain(items: &[Arc<Item>]) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let mut start = 0;
    for (number, pair) in items.windows(2).enumerate() {
        let [item, next] = pair else { continue };
        let count = number + 1 - start;
        let ends_folder = !Arc::ptr_eq(&item.folder, &next.folder);
        if count >= ITEMS_PER_TASK.end || (count >= ITEMS_PER_TASK.start && ends_folder) {
            batches.push(start..number + 1);
            start = number + 1;
        }
    }
    if start < items.len() {
        batches.push(start..items.len());
    }
    batches
}

/// Cuts a comparison into tasks; a large file is spread over several.
pub(super) fn cut_comparison(comparison: &Arc<Comparison>) -> Vec<Task> {
    let candidates = &comparison.candidates;
    let mut tasks = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (number, candidate) in candidates.iter().enumerate() {
        bytes += u64::from(candidate.length);
        let count = number + 1 - start;
        if bytes >= COMPARED_BYTES_PER_TASK || count == COMPARED_PER_TASK {
            tasks.push(Task::Compare(Arc::clone(comparison), start..number + 1));
            (start, bytes) = (number + 1, 0);
        }
    }
    if start < candidates.len() {
        tasks.push(Task::Compare(Arc::clone(comparison), start..candidates.len()));
    }
    tasks
}
