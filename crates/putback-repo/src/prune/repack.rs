//! What is needed of packs that will go is stored anew: step 2.

use std::collections::BTreeMap;

use super::Run;
use super::plan::Plan;
use crate::commit::Backup;
use crate::error::Result;
use crate::index::PackNumber;
use crate::index_table::PackRecord;
use crate::observe::{Amount, Event, Phase};
use crate::reader::FrameReader;

/// Blobs whose places are in memory at once: 56 bytes each.
const REPACKED_BLOBS: u64 = 1 << 20;

impl Run<'_> {
    /// Step 2. False if it was stopped.
    pub(super) fn repack(&self, backup: &Backup, plan: &Plan) -> Result<bool> {
        let repository = self.repository;
        let bytes = plan.repacked.iter().map(|pack| pack.record.size).sum();
        let total = Amount { items: plan.repacked.len() as u64, bytes };
        self.observer.event(Event::PhaseStarted { phase: Phase::Repack, total: Some(total) });
        let mut rest = plan.repacked.as_slice();
        while !rest.is_empty() {
            let mut blobs = 0;
            let count = rest.iter().take_while(|pack| {
                let fits = blobs == 0 || blobs + pack.used.blobs <= REPACKED_BLOBS;
                blobs += pack.used.blobs;
                fits
            });
            let (these, others) = rest.split_at(count.count());
            rest = others;
            let numbers = these.iter().map(|pack| pack.number).collect();
            let live = repository.index().live_blobs(&plan.live, &numbers)?;
            let records: BTreeMap<PackNumber, &PackRecord> =
                these.iter().map(|pack| (pack.number, &pack.record)).collect();
            for blobs in live.chunk_by(|a, b| a.1.pack == b.1.pack) {
                if self.options.cancel.is_cancelled() {
                    return Ok(false);
                }
                let Some(record) = blobs.first().and_then(|(_, at)| records.get(&at.pack)) else {
                    continue;
                };
                let mut writer = backup.frame_writer(record.kind);
                let mut frames: Vec<u32> = blobs.iter().map(|(_, at)| at.frame).collect();
                frames.dedup();
                let mut rest = blobs;
                FrameReader::new(repository)?.read_frames(record, &frames, |wanted| {
                    let count = rest.iter().take_while(|(_, at)| at.frame == wanted.frame).count();
                    let (these, others) = rest.split_at(count);
                    rest = others;
                    let plain = wanted.plain?;
                    for (id, at) in these {
                        let blob =
                            repository.verify_blob(record.kind, id, &record.id, plain, at)?;
                        writer.push(*id, blob)?;
                    }
                    Ok(())
                })?;
                writer.flush()?;
                let by = Amount { items: 1, bytes: record.size };
                self.observer.event(Event::Advanced { phase: Phase::Repack, by });
            }
        }
        backup.flush()?;
        Ok(true)
    }
}
