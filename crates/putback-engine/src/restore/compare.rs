//! Comparing existing files with what they should hold.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;

use putback_format::key::BlobKind;
use putback_format::tree::Extent;
use putback_repo::Phase;

use crate::platform;
use crate::restore::item::{Candidate, FileBody, Item, Place};
use crate::restore::queue::Comparison;
use crate::restore::write::{COPY_BYTES, Worker};

impl Worker<'_> {
    pub(super) fn compare(&mut self, comparison: &Comparison, range: Range<usize>) {
        let count = range.len();
        let mut open: Option<(u32, Option<File>)> = None;
        for number in range {
            if self.run.is_stopped() {
                break;
            }
            let candidate = &comparison.candidates[number];
            let item = &comparison.items[candidate.item as usize];
            let Some(body) = item.file() else { continue };
            if open.as_ref().is_none_or(|(of, _)| *of != candidate.item) {
                // What cannot be read is written anew.
                open = Some((candidate.item, self.open_for_comparing(item).ok()));
            }
            let file = open.as_ref().and_then(|(_, file)| file.as_ref());
            if candidate.position == 0 {
                let is_right = file.map(|file| self.is_frame_right(file, body));
                let is_other_hurt = file.is_some_and(|file| would_change_other_names(item, file));
                if !matches!(is_right, Some(Ok(true))) || is_other_hurt {
                    body.set_frame_wrong();
                }
                if comparison.phase == Phase::Verify {
                    self.amount.items += 1;
                }
            }
            let is_match =
                file.is_some_and(|file| self.holds(file, body, candidate).unwrap_or(false));
            comparison.matched[number].store(is_match, Ordering::Relaxed);
            if comparison.phase == Phase::Verify || (is_match && item.is_kept_if_part_is_right()) {
                self.amount.bytes += u64::from(candidate.length);
            }
            if self.amount.bytes >= 1 << 20 {
                self.flush(comparison.phase);
            }
        }
        self.flush(comparison.phase);
        comparison.note_done(count);
    }

    fn open_for_comparing(&mut self, item: &Item) -> io::Result<File> {
        let file = self.open(&item.folder)?.open_file(&item.name)?;
        if let Place::Compared(stat) = item.place
            && platform::stat_file(&file)?.identity() != stat.identity()
        {
            return Err(io::Error::other("the file was replaced while it was compared"));
        }
        Ok(file)
    }

    /// Whether size and holes are right.
    fn is_frame_right(&mut self, file: &File, body: &FileBody) -> io::Result<bool> {
        let is_size_right = platform::stat_file(file)?.size == body.size;
        Ok(is_size_right && self.dirty_holes(file, body)?.is_empty())
    }

    /// Holes that do not read as zeros. What the file has as holes itself is not read.
    pub(super) fn dirty_holes(&mut self, file: &File, body: &FileBody) -> io::Result<Vec<Extent>> {
        let mut dirty = Vec::new();
        if body.holes.is_empty() {
            return Ok(dirty);
        }
        let data = platform::data_extents(file, body.size)?;
        let mut next = 0;
        for hole in &body.holes {
            let hole_end = hole.offset + hole.length;
            while data.get(next).is_some_and(|run| run.offset + run.length <= hole.offset) {
                next += 1;
            }
            for run in data[next..].iter().take_while(|run| run.offset < hole_end) {
                let start = run.offset.max(hole.offset);
                let end = hole_end.min(run.offset + run.length);
                if !self.is_zero(file, start..end)? {
                    dirty.push(*hole);
                    break;
                }
            }
        }
        Ok(dirty)
    }

    fn is_zero(&mut self, file: &File, range: Range<u64>) -> io::Result<bool> {
        let mut offset = range.start;
        while offset < range.end {
            let count = (range.end - offset).min(COPY_BYTES as u64) as usize;
            self.buffer.resize(count, 0);
            platform::read_exact_at(file, &mut self.buffer, offset)?;
            if self.buffer.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            offset += count as u64;
        }
        Ok(true)
    }

    /// Whether a file holds the right bytes in one place.
    fn holds(&mut self, file: &File, body: &FileBody, candidate: &Candidate) -> io::Result<bool> {
        let length = candidate.length as usize;
        self.buffer.resize(length, 0);
        let buffer = &mut self.buffer;
        body.layout.for_each(candidate.position, length, |offset, part| {
            platform::read_exact_at(file, &mut buffer[part], offset)
        })?;
        Ok(match &candidate.id {
            Some(id) => self.run.repository.id_keys().blob_id(BlobKind::Data, &self.buffer) == *id,
            None => body.inline.as_deref().unwrap_or_default() == self.buffer.as_slice(),
        })
    }
}

/// Whether to give an existing file its metadata would change what has other names of it.
fn would_change_other_names(item: &Item, file: &File) -> bool {
    let Place::Compared(stat) = item.place else { return false };
    let is_left = || {
        // What attributes only root may set, others try in vain.
        let has_same_xattrs = || platform::file_xattrs(file).list == *item.metadata.xattrs;
        item.metadata.will_stay(&stat) && (platform::effective_uid() != 0 || has_same_xattrs())
    };
    stat.links > 1 && !is_left()
}
