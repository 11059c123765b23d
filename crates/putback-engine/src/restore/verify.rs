//! Reading restored files again.
//!
//! The snapshot is walked once more. Which entries were restored is known by their place in the walk, one bit
//! each; nothing else is remembered from the restore.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use putback_format::snapshot::IncidentKind;
use putback_format::tree::{Content, Entry, EntryKind};
use putback_repo::{Amount, Event, Phase};

use crate::Error;
use crate::restore::chunks::ChunkRefs;
use crate::restore::cut::cut_comparison;
use crate::restore::folder::{Folder, guard};
use crate::restore::item::{Body, Candidate, Failure, FileBody, Item, Method, Place};
use crate::restore::metadata::Metadata;
use crate::restore::queue::Comparison;
use crate::restore::walk::Step;
use crate::restore::write::Worker;
use crate::restore::{Base, Run};

/// Which entries were restored: a bit for each place in the walk.
pub(super) struct Verified {
    bits: Option<Mutex<Vec<u64>>>,
}

impl Verified {
    /// Remembers nothing unless it `is_wanted`.
    pub(super) fn new(is_wanted: bool) -> Self {
        Self { bits: is_wanted.then(Mutex::default) }
    }

    pub(super) fn note(&self, ordinal: u64) {
        let Some(bits) = &self.bits else { return };
        let mut bits = guard(bits);
        let word = (ordinal / 64) as usize;
        if bits.len() <= word {
            bits.resize(word + 1, 0);
        }
        bits[word] |= 1 << (ordinal % 64);
    }

    fn contains(&self, ordinal: u64) -> bool {
        let Some(bits) = &self.bits else { return false };
        guard(bits).get((ordinal / 64) as usize).is_some_and(|word| word >> (ordinal % 64) & 1 == 1)
    }
}

/// Compares every file that was restored with the snapshot.
pub(super) fn verify(run: &Run<'_>, worker: Worker<'_>, base: &Base) -> Result<(), Error> {
    let restored = run.report(std::time::Duration::ZERO);
    let items = restored.files_restored + restored.files_updated + restored.files_unchanged;
    let total = Some(Amount { items, bytes: restored.bytes_written + restored.bytes_reused });
    run.observer.event(Event::PhaseStarted { phase: Phase::Verify, total });
    let mut verifier = Verifier { run, worker, items: Vec::new(), candidates: Vec::new() };
    let mut walk = base.walk(run)?;
    let root = Folder::new(base.path.clone(), None, None, false, false);
    let mut folders = vec![root];
    while let Some(step) = walk.next_step() {
        if run.is_stopped() {
            return Ok(());
        }
        match step {
            Step::Enter(..) => {
                if run.verified.contains(walk.ordinal()) {
                    let path = walk.path().to_vec();
                    folders.push(Folder::new(path, folders.last(), None, false, false));
                } else {
                    walk.skip();
                }
            }
            Step::Leave { .. } => drop(folders.pop()),
            Step::Entry(entry) => {
                if let Some(folder) = folders.last()
                    && run.verified.contains(walk.ordinal())
                {
                    verifier.add(folder, *entry)?;
                }
            }
            // Told by the restore.
            Step::Unwanted(_) | Step::Unreadable(_) => {}
        }
    }
    verifier.compare()
}

struct Verifier<'r> {
    run: &'r Run<'r>,
    worker: Worker<'r>,
    items: Vec<Arc<Item>>,
    candidates: Vec<Candidate>,
}

impl Verifier<'_> {
    fn add(&mut self, folder: &Arc<Folder>, mut entry: Entry) -> Result<(), Error> {
        let metadata = Metadata::of(&mut entry, None);
        let EntryKind::File { size, content, holes } = entry.kind else {
            self.worker.advance(1, 0);
            return Ok(());
        };
        let (inline, content) = match content {
            Content::Inline(bytes) => (Some(bytes), None),
            content => (None, Some(content)),
        };
        let inline_bytes = inline.as_ref().map(|bytes| bytes.len() as u32);
        let item = Arc::new(Item {
            folder: Arc::clone(folder),
            name: entry.name.into(),
            metadata,
            ordinal: 0,
            place: Place::Free,
            body: Body::File(FileBody::new(size, holes, inline, Method::InPlace)),
            leader: None,
        });
        let mut number = self.push_item(&item);
        if let Some(length) = inline_bytes {
            self.candidates.push(Candidate { item: number, length, position: 0, id: None });
        }
        let mut position = 0;
        for chunk in content.iter().flat_map(|content| ChunkRefs::new(self.run.repository, content))
        {
            // The restore met the same error, and told it.
            let Ok(chunk) = chunk else { break };
            let candidate = Candidate {
                item: number,
                length: chunk.length as u32,
                position,
                id: Some(chunk.id),
            };
            self.candidates.push(candidate);
            position += chunk.length;
            if self.is_full() {
                self.compare()?;
                if self.run.is_stopped() {
                    return Ok(());
                }
                number = self.push_item(&item);
            }
        }
        if self.is_full() { self.compare() } else { Ok(()) }
    }

    fn push_item(&mut self, item: &Arc<Item>) -> u32 {
        self.items.push(Arc::clone(item));
        (self.items.len() - 1) as u32
    }

    fn is_full(&self) -> bool {
        self.items.len() >= self.run.limits.entries_max
            || self.candidates.len() >= self.run.limits.pieces_max
    }

    fn compare(&mut self) -> Result<(), Error> {
        let (items, candidates) =
            (std::mem::take(&mut self.items), std::mem::take(&mut self.candidates));
        let comparison = Comparison::new(Phase::Verify, items, candidates);
        self.run.queue.push_when_empty(cut_comparison(&comparison));
        if !comparison.wait(self.run) {
            return Ok(());
        }
        let mut numbers = 0..;
        for candidates in comparison.candidates.chunk_by(|a, b| a.item == b.item) {
            let item = &comparison.items[candidates[0].item as usize];
            let wrong = candidates
                .iter()
                .zip(numbers.by_ref())
                .map(|(candidate, number)| (candidate, &comparison.matched[number]))
                .filter(|(_, matched)| !matched.load(Ordering::Relaxed))
                .map(|(candidate, _)| candidate.position)
                .min();
            let is_frame_wrong = item.file().is_some_and(FileBody::is_frame_wrong);
            let message = match wrong {
                Some(position) => {
                    format!("it reads back wrongly from byte {position} of its data on")
                }
                None if is_frame_wrong => "its size or its holes read back wrongly".to_owned(),
                None => continue,
            };
            let mut path = Vec::new();
            item.folder.write_path(&item.name, &mut path);
            self.run.problem(&path, &Failure { kind: IncidentKind::Unreadable, message });
        }
        self.worker.flush(Phase::Verify);
        Ok(())
    }
}
