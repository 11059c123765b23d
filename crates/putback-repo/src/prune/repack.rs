//! What is needed of packs that will go is stored anew: step 2.
//!
//! A frame of which most is needed keeps its coded bytes: it is opened, all its blobs are compared with their ids,
//! and it is sealed again under its new pack, to which seals are bound. What is not needed of it comes along. Of
//! other frames the needed blobs are cut into new frames.
//!
//! Memory: the places of [`REPACKED_BLOBS`] blobs, and for each worker a frame as stored, coded and plain.

use std::collections::BTreeSet;

use putback_format::id::BlobId;
use putback_format::key::BlobKind;
use putback_format::pack::FrameEntry;

use super::Run;
use super::plan::{Candidate, Plan};
use crate::Repository;
use crate::commit::Backup;
use crate::error::{Error, Result};
use crate::index::PackedBlob;
use crate::index_table::PackRecord;
use crate::observe::{Amount, Event, Phase};
use crate::pack_writer::FrameWriter;
use crate::reader::FrameReader;
use crate::workers::share_out;

/// Blobs whose places are in memory at once: 64 bytes each.
const REPACKED_BLOBS: u64 = 1 << 20;
/// Percent of its plain bytes that are needed of a frame which is copied as it is.
const COPIED_PERCENT_LEAST: u64 = 75;

/// Whether a frame of which so many plain bytes are needed is copied as it is. Short ones are not: joined with
/// others they are compressed better.
pub(super) fn is_copied(frame: &FrameEntry, live_bytes: u32, frame_bytes: u32) -> bool {
    frame.plain_length >= frame_bytes / 2
        && u64::from(live_bytes) * 100 >= u64::from(frame.plain_length) * COPIED_PERCENT_LEAST
}

impl Run<'_> {
    /// Step 2. False if it was stopped.
    pub(super) fn repack(&self, backup: &Backup, plan: &Plan) -> Result<bool> {
        let index = self.repository.index();
        let bytes = plan.repacked.iter().map(|pack| pack.size).sum();
        let total = Amount { items: plan.repacked.len() as u64, bytes };
        self.observer.event(Event::PhaseStarted { phase: Phase::Repack, total: Some(total) });
        // In the order in which they were written: what lies together stays together.
        let mut packs: Vec<&Candidate> = plan.repacked.iter().collect();
        packs.sort_by_key(|pack| pack.number);
        let mut rest = packs.as_slice();
        while !rest.is_empty() {
            let mut blobs = 0;
            let fitting = rest.iter().take_while(|pack| {
                let fits = blobs == 0 || blobs + pack.used.blobs_all <= REPACKED_BLOBS;
                blobs += pack.used.blobs_all;
                fits
            });
            let (these, others) = rest.split_at(fitting.count());
            rest = others;
            let numbers: BTreeSet<_> = these.iter().map(|pack| pack.number).collect();
            let count: u64 = these.iter().map(|pack| pack.used.blobs_all).sum();
            let blobs = index.blobs_of(&plan.live, &numbers, count as usize)?;
            let packs: Vec<&[PackedBlob]> = blobs.chunk_by(|a, b| a.at.pack == b.at.pack).collect();
            self.repack_all(backup, &packs)?;
            if self.options.cancel.is_cancelled() {
                return Ok(false);
            }
        }
        backup.flush()?;
        Ok(true)
    }

    /// Shares the packs out to the workers.
    fn repack_all(&self, backup: &Backup, packs: &[&[PackedBlob]]) -> Result<()> {
        let capabilities = self.repository.store().capabilities();
        let useful = if capabilities.is_remote { capabilities.connections } else { packs.len() };
        let workers = self.options.workers.min(useful);
        share_out(packs, workers, &self.options.cancel, |packs| {
            let mut repacker = Repacker::new(self, backup)?;
            for blobs in packs {
                let size = repacker.repack(blobs)?;
                let by = Amount { items: 1, bytes: size };
                self.observer.event(Event::Advanced { phase: Phase::Repack, by });
            }
            repacker.finish()
        })
    }
}

/// What one worker needs.
struct Repacker<'a> {
    repository: &'a Repository,
    purges: bool,
    reader: FrameReader,
    data: FrameWriter,
    trees: FrameWriter,
}

impl<'a> Repacker<'a> {
    fn new(run: &Run<'a>, backup: &Backup) -> Result<Self> {
        Ok(Self {
            repository: run.repository,
            purges: run.options.purge,
            reader: FrameReader::new(run.repository)?,
            data: backup.frame_writer(BlobKind::Data),
            trees: backup.frame_writer(BlobKind::Tree),
        })
    }

    /// Stores anew what is needed of one pack, all of whose blobs these are. Yields the pack's size.
    fn repack(&mut self, blobs: &[PackedBlob]) -> Result<u64> {
        let Self { repository, purges, reader, data, trees } = self;
        let Some(first) = blobs.first() else { return Ok(0) };
        let record = repository.pack(first.at.pack)?;
        let writer = match record.kind {
            BlobKind::Data => data,
            BlobKind::Tree => trees,
        };
        let is_needed = |blobs: &&[PackedBlob]| blobs.iter().any(|blob| blob.is_live);
        let wanted: Vec<&[PackedBlob]> =
            blobs.chunk_by(|a, b| a.at.frame == b.at.frame).filter(is_needed).collect();
        let frames: Vec<u32> = wanted.iter().map(|blobs| blobs[0].at.frame).collect();
        let mut wanted = wanted.into_iter();
        reader.read_frames(&record, &frames, |frame| {
            // Frames come back in the order in which they were asked for.
            let Some(blobs) = wanted.next() else { return Ok(()) };
            let live = || blobs.iter().filter(|blob| blob.is_live);
            let plain = match frame.plain {
                Ok(plain) => plain,
                Err(error) => {
                    return copy_from_elsewhere(repository, &record, live(), writer, error);
                }
            };
            for blob in live() {
                repository.verify_blob(record.kind, &blob.id, &record.id, plain, &blob.at)?;
            }
            if !*purges
                && let Some(entry) = record.frames.get(frame.frame as usize)
                && let Some(listed) = worth_copying(repository, &record, entry, blobs, plain)
                && writer.push_coded(entry.codec, frame.coded, listed)?
            {
                return Ok(());
            }
            for blob in live() {
                let start = blob.at.offset as usize;
                writer.push(blob.id, &plain[start..start + blob.at.length as usize])?;
            }
            Ok(())
        })?;
        Ok(record.size)
    }

    fn finish(mut self) -> Result<()> {
        self.data.flush()?;
        self.trees.flush()
    }
}

/// A frame that does not open takes nothing with it of which there is another copy.
fn copy_from_elsewhere<'a>(
    repository: &Repository,
    record: &PackRecord,
    blobs: impl Iterator<Item = &'a PackedBlob>,
    writer: &mut FrameWriter,
    error: Error,
) -> Result<()> {
    for blob in blobs {
        match repository.read_blob(record.kind, &blob.id) {
            Ok(plain) => writer.push(blob.id, &plain)?,
            Err(_) => return Err(error),
        }
    }
    Ok(())
}

/// The blobs of a frame that is to be copied as it is; the needed ones have been verified. None if it is to be cut
/// anew.
fn worth_copying(
    repository: &Repository,
    record: &PackRecord,
    entry: &FrameEntry,
    blobs: &[PackedBlob],
    plain: &[u8],
) -> Option<Vec<(BlobId, u32)>> {
    // At most the plain length of the frame, which is a u32, unless the index lies: then it does not fit below.
    let live_bytes = blobs.iter().filter(|blob| blob.is_live).map(|blob| u64::from(blob.at.length));
    let live_bytes = u32::try_from(live_bytes.sum::<u64>()).ok()?;
    if !is_copied(entry, live_bytes, repository.config().frame_bytes) {
        return None;
    }
    let mut listed = Vec::with_capacity(blobs.len());
    let mut end = 0;
    for blob in blobs {
        // A new index entry vouches for the unneeded ones too.
        let is_next = blob.at.offset == end;
        let is_whole = blob.is_live
            || repository.verify_blob(record.kind, &blob.id, &record.id, plain, &blob.at).is_ok();
        if !is_next || !is_whole {
            return None;
        }
        end = end.checked_add(blob.at.length)?;
        listed.push((blob.id, blob.at.length));
    }
    (end == entry.plain_length).then_some(listed)
}
