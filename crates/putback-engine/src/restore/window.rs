//! Windows: what the planner has gathered is compared, sorted, cut into tasks and handed over.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use putback_format::tree::ChunkRef;
use putback_repo::{Action, Phase};

use crate::Error;
use crate::restore::add;
use crate::restore::cut::{cut_comparison, cut_frames, cut_plain};
use crate::restore::decide::choose_method;
use crate::restore::item::{Candidate, FileBody, Item, Method, Place};
use crate::restore::links::link_tasks;
use crate::restore::plan::Planner;
use crate::restore::queue::{Comparison, Task, Window};

impl Planner<'_> {
    pub(super) fn is_window_full(&self) -> bool {
        let (draft, limits) = (&self.draft, &self.run.limits);
        draft.entries >= self.draft_entries_max
            || draft.pieces.len() + draft.candidates.len() >= limits.pieces_max
            || draft.bytes >= limits.bytes_max
    }

    /// Hands what was gathered to the workers.
    pub(super) fn close_window(&mut self) -> Result<(), Error> {
        self.hand.flush(Phase::Restore);
        self.draft_entries_max = (self.draft_entries_max * 2).min(self.run.limits.entries_max);
        if !self.draft.candidates.is_empty() || !self.draft.planned.is_empty() {
            self.compare()?;
        }
        let draft = std::mem::take(&mut self.draft);
        if self.run.is_stopped() || self.run.options.dry_run {
            return Ok(());
        }
        let mut pieces = draft.pieces;
        pieces.sort_unstable_by_key(|piece| (piece.pack, piece.frame, piece.offset, piece.item));
        let plain = cut_plain(&draft.plain);
        let frames = cut_frames(&pieces, self.run.limits.frames_per_task);
        let window = Arc::new(Window {
            items: draft.items,
            plain: draft.plain,
            pieces,
            links: draft.links,
            tasks_left: (plain.len() + frames.len()).into(),
        });
        let mut tasks = Vec::with_capacity(plain.len() + frames.len());
        tasks.extend(plain.into_iter().map(|range| Task::Plain(Arc::clone(&window), range)));
        tasks.extend(frames.into_iter().map(|range| Task::Frames(Arc::clone(&window), range)));
        if tasks.is_empty() {
            tasks = link_tasks(&window);
        }
        if !tasks.is_empty() {
            self.run.queue.push_when_empty(tasks);
        }
        Ok(())
    }

    /// Compares existing files, then plans what has to be fetched.
    fn compare(&mut self) -> Result<(), Error> {
        let items = self.draft.items.clone();
        let candidates = std::mem::take(&mut self.draft.candidates);
        let planned = std::mem::take(&mut self.draft.planned);
        let comparison = Comparison::new(Phase::Restore, items, candidates);
        if !comparison.candidates.is_empty() {
            self.run.queue.push_when_empty(cut_comparison(&comparison));
            if !comparison.wait(self.run) {
                return Ok(());
            }
        }
        let mut matched = comparison.matched.iter().map(|matched| matched.load(Ordering::Relaxed));
        for candidates in comparison.candidates.chunk_by(|a, b| a.item == b.item) {
            let item = &comparison.items[candidates[0].item as usize];
            let matched: Vec<bool> = matched.by_ref().take(candidates.len()).collect();
            if let Some(file) = item.file() {
                let is_planned = planned.binary_search(&candidates[0].item).is_ok();
                self.plan_compared(item, file, candidates, &matched, is_planned)?;
            }
        }
        for number in planned {
            let item = Arc::clone(&comparison.items[number as usize]);
            if let Some(file) = item.file() {
                self.end_compared(&item, file);
            }
        }
        Ok(())
    }

    /// Plans what an existing file lacks.
    fn plan_compared(
        &mut self,
        item: &Arc<Item>,
        file: &FileBody,
        candidates: &[Candidate],
        matched: &[bool],
        is_planned: bool,
    ) -> Result<(), Error> {
        if file.has_failed() {
            return Ok(());
        }
        let count = matched.iter().filter(|matched| **matched).count();
        if !is_planned && !item.is_kept_if_part_is_right() {
            // What becomes of it is decided when all of it was compared, and nothing is planned before.
            if count < candidates.len() {
                file.set_method(Method::Temporary);
            }
            return Ok(());
        }
        if file.method() == Method::Undecided {
            let compared = candidates.len();
            file.set_method(choose_method(item, file, count, compared));
            let is_single = is_planned && compared == 1 && candidates[0].position == 0;
            if file.method() == Method::Temporary && is_single && file.inline.is_none() {
                file.set_single();
            }
        }
        let is_kept = file.method() == Method::InPlace;
        for (candidate, matched) in candidates.iter().zip(matched) {
            let length = u64::from(candidate.length);
            if is_kept && *matched {
                add(&self.run.counts.bytes_reused, length);
                if !item.is_kept_if_part_is_right() {
                    // Else it was told when it was compared.
                    self.hand.advance(0, length);
                }
                continue;
            }
            if self.run.options.dry_run {
                file.set_changed();
                add(&self.run.counts.bytes_written, length);
                self.hand.advance(0, length);
            } else if let Some(id) = candidate.id
                && !self.plan_piece(
                    file,
                    candidate.item,
                    &ChunkRef { id, length },
                    candidate.position,
                )?
            {
                break;
            }
        }
        Ok(())
    }

    /// Everything of a compared file is planned now.
    fn end_compared(&mut self, item: &Arc<Item>, file: &FileBody) {
        if self.run.options.dry_run {
            let is_met =
                matches!(item.place, Place::Compared(stat) if item.metadata.will_stay(&stat));
            let is_changed = file.is_changed() || file.is_frame_wrong() || !is_met;
            let action = if is_changed { Action::Updated } else { Action::Unchanged };
            self.hand.advance(1, 0);
            let mut path = Vec::new();
            item.folder.write_path(&item.name, &mut path);
            self.run.tell_entry(&path, action, file.size);
            self.run.let_go(&item.folder);
            return;
        }
        let is_all_done = !file.has_failed()
            && (file.inline.is_some() || (file.method() == Method::InPlace && file.is_idle()));
        if is_all_done {
            // A worker opens it, sets its metadata, and in the case of inline data writes it.
            self.draft.plain.push(Arc::clone(item));
        } else if (!file.is_single() || file.has_failed()) && file.let_go(1) {
            self.hand.finish(item, file);
        }
    }
}
