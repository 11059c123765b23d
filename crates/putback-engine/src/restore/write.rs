//! Carrying out what was planned: frames to files.
//!
//! Workers take [`Task`]s from one queue. A task is a run of frames of one pack, a batch of items without chunks,
//! a batch of files to compare, or a batch of links. Each worker reads frames with a reader of its own, verifies
//! every blob once for each frame, and writes it to every place that needs it.
//!
//! A file of one chunk is made, written, given its metadata and closed at one go. Others stay open until their
//! last chunk is written, at most [`super::Limits::files_open_max`] of them; who writes the last chunk finishes the file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use putback_format::id::BlobId;
use putback_format::key::BlobKind;
use putback_format::snapshot::IncidentKind;
use putback_repo::{Action, Amount, Event, FrameReader, Phase};

use crate::platform::{self, FileKind, MetadataProblem, Stat, TargetDirectory};
use crate::restore::folder::{Folder, guard};
use crate::restore::item::{
    Body, Failure, FileBody, FileState, Item, Method, Piece, Place, Unclosed,
};
use crate::restore::links::link_tasks;
use crate::restore::metadata::Before;
use crate::restore::queue::{Task, Window};
use crate::restore::{Run, add, content_failure, describe};

/// Zeros are looked for in blocks of this size, at multiples of it.
const SPARSE_BLOCK_BYTES: usize = 4 << 10;
/// Buffer for reading what is there.
pub(super) const COPY_BYTES: usize = 256 << 10;

/// What one thread needs to carry out tasks.
pub(super) struct Worker<'r> {
    pub(super) run: &'r Run<'r>,
    /// None while it is in use.
    reader: Option<FrameReader>,
    /// Progress that was not told yet.
    pub(super) amount: Amount,
    pub(super) path: Vec<u8>,
    pub(super) buffer: Vec<u8>,
    /// The folder that was used last: neighbours share it.
    folder: Option<(Arc<Folder>, Arc<TargetDirectory>)>,
    /// Which pieces of a frame are whole.
    whole: Vec<bool>,
}

impl<'r> Worker<'r> {
    pub(super) fn new(run: &'r Run<'r>) -> putback_repo::Result<Self> {
        Ok(Self {
            run,
            reader: Some(FrameReader::new(run.repository)?),
            amount: Amount::default(),
            path: Vec::new(),
            buffer: Vec::new(),
            folder: None,
            whole: Vec::new(),
        })
    }

    /// Takes tasks until no more come.
    pub(super) fn work(mut self) {
        while let Some((task, running)) = self.run.queue.next() {
            match task {
                Task::Plain(window, range) => {
                    self.restore_plain(&window.plain[range]);
                    self.end_task(&window);
                }
                Task::Frames(window, range) => {
                    self.restore_frames(&window, &window.pieces[range]);
                    self.end_task(&window);
                }
                Task::Links(window, range) => self.make_links(&window.links[range]),
                Task::Compare(comparison, range) => self.compare(&comparison, range),
            }
            self.flush(Phase::Restore);
            // An open folder that nobody asks for again must not keep its place busy.
            self.folder = None;
            drop(running);
        }
    }

    /// The last task of a window brings its links into the queue: their files are complete now.
    fn end_task(&self, window: &Arc<Window>) {
        if window.tasks_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.run.queue.push_first(link_tasks(window));
        }
    }

    /// Tells progress.
    pub(super) fn flush(&mut self, phase: Phase) {
        if self.amount != Amount::default() {
            let by = std::mem::take(&mut self.amount);
            self.run.observer.event(Event::Advanced { phase, by });
        }
    }

    /// Counts progress, to be told later.
    pub(super) fn advance(&mut self, items: u64, bytes: u64) {
        self.amount.items += items;
        self.amount.bytes += bytes;
    }

    pub(super) fn open(&mut self, folder: &Arc<Folder>) -> io::Result<Arc<TargetDirectory>> {
        if let Some((last, directory)) = &self.folder
            && Arc::ptr_eq(last, folder)
        {
            return Ok(Arc::clone(directory));
        }
        let directory = self.run.target.open(folder)?;
        self.folder = Some((Arc::clone(folder), Arc::clone(&directory)));
        Ok(directory)
    }

    // What becomes of an item.

    /// An item is as it should be.
    pub(super) fn complete(&mut self, item: &Item, action: Action, problems: Vec<MetadataProblem>) {
        item.folder.write_path(&item.name, &mut self.path);
        if !problems.is_empty() {
            self.run.tell_metadata(&self.path, problems);
        }
        self.run.verified.note(item.ordinal);
        self.run.tell_entry(&self.path, action, item.bytes());
        self.settle(item, true);
    }

    /// An item could not be restored.
    pub(super) fn abandon(&mut self, item: &Item, failure: &Failure) {
        item.folder.write_path(&item.name, &mut self.path);
        self.run.problem(&self.path, failure);
        self.settle(item, false);
    }

    pub(super) fn abandon_for(&mut self, item: &Item, what: &str, error: io::Error) {
        item.folder.write_path(&item.name, &mut self.path);
        let failure = self.run.target_failure(&self.path, what, error);
        self.abandon(item, &failure);
    }

    fn settle(&mut self, item: &Item, is_complete: bool) {
        self.amount.items += 1;
        if let Some(leader) = &item.leader {
            leader.settle(is_complete);
        }
        self.run.let_go(&item.folder);
    }

    // Items without chunks.

    fn restore_plain(&mut self, items: &[Arc<Item>]) {
        for item in items {
            if self.run.is_stopped() {
                return;
            }
            match &item.body {
                Body::File(file) if file.method() == Method::InPlace => {
                    if file.let_go(1) {
                        self.finish(item, file);
                    }
                }
                Body::File(file) => {
                    self.amount.bytes += file.data_bytes();
                    self.restore_whole(item, file, file.inline.as_deref().unwrap_or_default());
                }
                Body::Symlink(_) | Body::Special { .. } => self.restore_other(item),
            }
        }
    }

    /// Makes a file of which all data is at hand.
    fn restore_whole(&mut self, item: &Arc<Item>, file: &FileBody, data: &[u8]) {
        match self.try_restore_whole(item, file, data) {
            Ok(problems) => {
                add(&self.run.counts.bytes_written, data.len() as u64);
                self.complete(item, made_action(item), problems);
            }
            Err(error) => self.abandon_for(item, "write the file", error),
        }
    }

    fn try_restore_whole(
        &mut self,
        item: &Item,
        body: &FileBody,
        data: &[u8],
    ) -> io::Result<Vec<MetadataProblem>> {
        let directory = self.open(&item.folder)?;
        let (file, temporary) = if body.method() == Method::Temporary {
            let (name, file) = directory.create_temporary_file()?;
            (file, Some(name))
        } else {
            let mode = item.metadata.creation_mode(item.folder.new_owner());
            (directory.create_file_with_mode(&item.name, mode)?, None)
        };
        let result = self.fill_whole(item, body, &file, data).and_then(|problems| {
            if let Some(temporary) = &temporary {
                rename_to_item(&directory, temporary, item)?;
            }
            Ok(problems)
        });
        if result.is_err() {
            // The file was made here. If it cannot be removed either, the failure that is told says enough.
            let _ = directory.remove_file(temporary.as_deref().unwrap_or(&item.name));
        }
        let mut problems = result?;
        self.close(item, &file, &mut problems);
        Ok(problems)
    }

    fn fill_whole(
        &self,
        item: &Item,
        body: &FileBody,
        file: &File,
        data: &[u8],
    ) -> io::Result<Vec<MetadataProblem>> {
        self.set_size_if_sparse(body, file)?;
        self.write_data(body, file, 0, data)?;
        let stat = platform::stat_file(file)?;
        if item.folder.new_owner() != Some((stat.uid, stat.gid)) {
            item.folder.set_new_owner(stat.uid, stat.gid);
        }
        Ok(item.metadata.apply_to_file(file, &stat, item.before_as_new()).1)
    }

    /// What is not written into a new file must read as zeros, also at its end.
    fn set_size_if_sparse(&self, body: &FileBody, file: &File) -> io::Result<()> {
        if body.holes.is_empty() && !self.run.options.sparse {
            return Ok(());
        }
        file.set_len(body.size)
    }

    /// Writes data to where it belongs, around holes.
    fn write_data(
        &self,
        body: &FileBody,
        file: &File,
        position: u64,
        data: &[u8],
    ) -> io::Result<()> {
        let skips_zeros = self.run.options.sparse && body.method() != Method::InPlace;
        body.layout.for_each(position, data.len(), |offset, part| {
            let bytes = &data[part];
            if !skips_zeros {
                return platform::write_all_at(file, bytes, offset);
            }
            for range in data_ranges(bytes, offset) {
                platform::write_all_at(file, &bytes[range.clone()], offset + range.start as u64)?;
            }
            Ok(())
        })
    }

    fn restore_other(&mut self, item: &Arc<Item>) {
        match self.try_restore_other(item) {
            Ok((action, problems)) => self.complete(item, action, problems),
            Err(error) => {
                let what = match &item.body {
                    Body::Symlink(_) => "make the link",
                    _ => "make the special file",
                };
                self.abandon_for(item, what, error);
            }
        }
    }

    pub(super) fn try_restore_other(
        &mut self,
        item: &Item,
    ) -> io::Result<(Action, Vec<MetadataProblem>)> {
        let directory = self.open(&item.folder)?;
        let is_link = matches!(item.body, Body::Symlink(_));
        let metadata = &item.metadata;
        match item.place {
            Place::Free => {
                make_other(&directory, &item.body, &item.name)?;
                let before = item.before_as_new();
                let (_, problems) =
                    metadata.apply_to_name(&directory, &item.name, is_link, before)?;
                Ok((Action::Restored, problems))
            }
            Place::Compared(stat)
                if is_same_other(&directory, item, &stat) && may_be_changed(item, &stat) =>
            {
                let before = Before::Existing;
                let (is_changed, problems) =
                    metadata.apply_to_name(&directory, &item.name, is_link, before)?;
                Ok((if is_changed { Action::Updated } else { Action::Unchanged }, problems))
            }
            Place::Compared(_) | Place::Replaced | Place::Trusted(_) => {
                let temporary = make_temporary(|name| make_other(&directory, &item.body, name))?;
                let before = item.before_as_new();
                let result = metadata
                    .apply_to_name(&directory, &temporary, is_link, before)
                    .and_then(|applied| directory.rename(&temporary, &item.name).map(|()| applied));
                if result.is_err() {
                    // It was made here; the failure that is told says enough.
                    let _ = directory.remove_file(&temporary);
                }
                Ok((Action::Updated, result?.1))
            }
        }
    }

    // Files of several chunks.

    fn restore_frames(&mut self, window: &Window, pieces: &[Piece]) {
        let Some(first) = pieces.first() else { return };
        let frames: Vec<u32> =
            pieces.chunk_by(|a, b| a.frame == b.frame).map(|pieces| pieces[0].frame).collect();
        let mut rest = pieces;
        let reader = self.reader.take();
        if let Some(mut reader) = reader {
            let read = self.run.repository.pack(first.pack).and_then(|pack| {
                reader.read_frames(&pack, &frames, |wanted| {
                    if self.run.is_stopped() {
                        return Err(putback_repo::Error::Cancelled);
                    }
                    let count = rest.iter().take_while(|piece| piece.frame == wanted.frame).count();
                    let (these, others) = rest.split_at(count);
                    rest = others;
                    match wanted.plain {
                        Ok(plain) => self.restore_frame(window, these, &pack.id, plain),
                        Err(error) => self.restore_damaged(window, these, &error),
                    }
                    self.flush(Phase::Restore);
                    Ok(())
                })
            });
            self.reader = Some(reader);
            if self.run.is_stopped() {
                return;
            }
            match read {
                Ok(()) => {}
                // The storage cannot be reached any more: no other pack can be read either.
                Err(putback_repo::Error::Store(error)) if !error.is_about_object() => {
                    self.run.fail(putback_repo::Error::Store(error).into());
                }
                // The pack as a whole cannot be read; there may be copies elsewhere.
                Err(error) => self.restore_damaged(window, rest, &error),
            }
        }
    }

    fn restore_frame(
        &mut self,
        window: &Window,
        pieces: &[Piece],
        pack: &putback_format::id::PackId,
        plain: &[u8],
    ) {
        let mut whole = std::mem::take(&mut self.whole);
        whole.clear();
        for (number, piece) in pieces.iter().enumerate() {
            let is_as_before = number > 0 && is_same_blob(&pieces[number - 1], piece);
            let is_whole = if is_as_before {
                whole[number - 1]
            } else {
                let location = putback_repo::BlobLocation {
                    pack: piece.pack,
                    frame: piece.frame,
                    offset: piece.offset,
                    length: piece.length,
                };
                let repository = self.run.repository;
                repository.verify_blob(BlobKind::Data, &piece.id, pack, plain, &location).is_ok()
            };
            whole.push(is_whole);
        }
        let mut rest = 0..pieces.len();
        while !rest.is_empty() {
            let first = rest.start;
            if whole[first] {
                let count = run_length(&pieces[rest.clone()], &whole[rest.clone()]);
                let start = pieces[first].offset as usize;
                let last = &pieces[first + count - 1];
                let end = last.offset as usize + last.length as usize;
                let item = &window.items[pieces[first].item as usize];
                self.write_pieces(item, pieces[first].position, &plain[start..end], count as u64);
                rest.start += count;
            } else {
                let is_whole = whole[rest.clone()].iter().position(|is_whole| *is_whole);
                let count = is_whole.unwrap_or(rest.len());
                let error = putback_repo::Error::BlobDamaged {
                    blob: pieces[first].id,
                    pack: *pack,
                    source: None,
                };
                self.restore_damaged(window, &pieces[first..first + count], &error);
                rest.start += count;
            }
        }
        self.whole = whole;
    }

    /// Looks for other copies of what could not be read where it was expected.
    fn restore_damaged(&mut self, window: &Window, pieces: &[Piece], cause: &putback_repo::Error) {
        let mut last: Option<(BlobId, Option<Vec<u8>>)> = None;
        for piece in pieces {
            if self.run.is_stopped() {
                return;
            }
            let item = &window.items[piece.item as usize];
            if last.as_ref().is_none_or(|(id, _)| *id != piece.id) {
                last = Some((piece.id, self.read_elsewhere(piece)));
            }
            match &last {
                Some((_, Some(plain))) => self.write_pieces(item, piece.position, plain, 1),
                _ => self.fail_piece(item, piece, cause),
            }
        }
    }

    fn read_elsewhere(&self, piece: &Piece) -> Option<Vec<u8>> {
        let plain = self.run.repository.read_blob(BlobKind::Data, &piece.id).ok()?;
        (plain.len() == piece.length as usize).then_some(plain)
    }

    fn fail_piece(&mut self, item: &Arc<Item>, piece: &Piece, cause: &putback_repo::Error) {
        self.amount.bytes += u64::from(piece.length);
        let Some(file) = item.file() else { return };
        let pack = self.run.repository.pack(piece.pack).map(|pack| pack.id.short());
        let message = match (cause, pack) {
            // Many files may have lost the same: no more words than needed.
            (putback_repo::Error::Store(error), Ok(pack)) if error.is_not_found() => {
                format!("pack {pack} is missing")
            }
            _ => format!("chunk {} cannot be read: {}", piece.id.short(), describe(cause)),
        };
        let failure = Failure { kind: IncidentKind::Lost, message };
        if file.is_single() {
            self.abandon(item, &failure);
            return;
        }
        file.fail(failure);
        if file.let_go(1) {
            self.finish(item, file);
        }
    }

    /// Writes the bytes of `count` neighbouring pieces.
    fn write_pieces(&mut self, item: &Arc<Item>, position: u64, data: &[u8], count: u64) {
        self.amount.bytes += data.len() as u64;
        let Some(file) = item.file() else { return };
        if file.is_single() {
            self.restore_whole(item, file, data);
            return;
        }
        if !file.has_failed() {
            let result = self
                .open_for_writing(item, file)
                .and_then(|open| self.write_data(file, &open, position, data));
            match result {
                Ok(()) => add(&self.run.counts.bytes_written, data.len() as u64),
                Err(error) => {
                    item.folder.write_path(&item.name, &mut self.path);
                    file.fail(self.run.target_failure(&self.path, "write the file", error));
                }
            }
        }
        if file.let_go(count) {
            self.finish(item, file);
        }
    }

    /// The open file, made or opened if it is not. What was opened before must still be the same file.
    fn open_for_writing(&mut self, item: &Arc<Item>, body: &FileBody) -> io::Result<Arc<File>> {
        let mut state = body.state();
        if let Some(file) = &state.file {
            return Ok(Arc::clone(file));
        }
        let directory = self.open(&item.folder)?;
        let is_first = state.identity.is_none();
        let file = match (body.method(), &state.temporary) {
            (Method::Create, _) if is_first => directory.create_file(&item.name)?,
            (Method::Temporary, None) => {
                let (name, file) = directory.create_temporary_file()?;
                state.temporary = Some(name);
                file
            }
            (_, temporary) => {
                directory.open_file_for_writing(temporary.as_deref().unwrap_or(&item.name))?
            }
        };
        let identity = platform::stat_file(&file)?.identity();
        let expected = match (state.identity, item.place) {
            (Some(identity), _) => Some(identity),
            (None, Place::Compared(stat)) if body.method() == Method::InPlace => {
                Some(stat.identity())
            }
            (None, _) => None,
        };
        if expected.is_some_and(|expected| expected != identity) {
            return Err(io::Error::other("the file was replaced while it was restored"));
        }
        state.identity = Some(identity);
        if body.method() == Method::InPlace {
            body.set_changed();
        } else if is_first {
            self.set_size_if_sparse(body, &file)?;
        }
        let file = Arc::new(file);
        state.file = Some(Arc::clone(&file));
        drop(state);
        if is_first {
            guard(&self.run.begun).insert(item.ordinal, Arc::clone(item));
            item.folder.write_path(&item.name, &mut self.path);
            self.run.observer.event(Event::FileStarted { path: &self.path });
        }
        self.run.open_files.note(item);
        Ok(file)
    }

    /// Ends a file of which every piece has been dealt with.
    pub(super) fn finish(&mut self, item: &Arc<Item>, body: &FileBody) {
        let mut state = std::mem::take(&mut *body.state());
        if state.identity.is_some() {
            guard(&self.run.begun).remove(&item.ordinal);
        }
        let result = match state.failure.take() {
            Some(failure) => Err(failure),
            None => self.try_finish(item, body, &mut state).map_err(|error| {
                item.folder.write_path(&item.name, &mut self.path);
                self.run.target_failure(&self.path, "write the file", error)
            }),
        };
        match result {
            Ok((action, problems)) => self.complete(item, action, problems),
            Err(mut failure) => {
                self.discard(item, body, &state);
                if body.method() == Method::InPlace && body.is_changed() {
                    failure.message.push_str("; the existing file is only partly up to date");
                }
                self.abandon(item, &failure);
            }
        }
    }

    fn try_finish(
        &mut self,
        item: &Arc<Item>,
        body: &FileBody,
        state: &mut FileState,
    ) -> io::Result<(Action, Vec<MetadataProblem>)> {
        let directory = self.open(&item.folder)?;
        let is_in_place = body.method() == Method::InPlace;
        let must_write = !is_in_place || body.is_changed() || body.is_frame_wrong();
        let file = match state.file.take() {
            Some(file) => file,
            None if must_write => {
                let name = state.temporary.as_deref().unwrap_or(&item.name);
                Arc::new(directory.open_file_for_writing(name)?)
            }
            None => Arc::new(directory.open_file(&item.name)?),
        };
        let mut stat = platform::stat_file(&file)?;
        let expected = match item.place {
            Place::Compared(stat) | Place::Trusted(stat) if is_in_place => Some(stat.identity()),
            _ => state.identity,
        };
        if expected.is_some_and(|expected| expected != stat.identity()) {
            return Err(io::Error::other("the file was replaced while it was restored"));
        }
        if is_in_place && body.is_frame_wrong() {
            self.correct_frame(body, &file, &stat)?;
            body.set_changed();
        }
        if is_in_place && body.is_changed() {
            stat = platform::stat_file(&file)?;
        }
        let before = if is_in_place { Before::Existing } else { item.before_as_new() };
        let (mut is_changed, mut problems) = item.metadata.apply_to_file(&file, &stat, before);
        if let Some(temporary) = &state.temporary {
            rename_to_item(&directory, temporary, item)?;
            state.temporary = None;
        }
        is_changed |= self.close(item, &file, &mut problems);
        let action = match body.method() {
            Method::InPlace if !is_changed && !body.is_changed() => Action::Unchanged,
            Method::InPlace => Action::Updated,
            _ => made_action(item),
        };
        Ok((action, problems))
    }

    /// Gives an existing file the right size, and zeros where it has holes.
    fn correct_frame(&mut self, body: &FileBody, file: &File, stat: &Stat) -> io::Result<()> {
        if stat.size != body.size {
            file.set_len(body.size)?;
        }
        let zeros = vec![0; COPY_BYTES];
        for hole in self.dirty_holes(file, body)? {
            if platform::punch_hole(file, hole).is_ok() {
                continue;
            }
            let end = hole.offset + hole.length;
            let mut offset = hole.offset;
            while offset < end {
                let count = (end - offset).min(COPY_BYTES as u64);
                platform::write_all_at(file, &zeros[..count as usize], offset)?;
                offset += count;
            }
        }
        Ok(())
    }

    /// Sets the flags that come last, if they are not set: now, or at the end if other names of the file have to be
    /// made before. Says whether that makes the file another one.
    pub(super) fn close(
        &self,
        item: &Item,
        file: &File,
        problems: &mut Vec<MetadataProblem>,
    ) -> bool {
        let flags = item.metadata.closing_flags();
        let stat = platform::stat_file(file).ok();
        if flags == 0 || stat.is_some_and(|stat| stat.flags & flags == flags) {
            return false;
        }
        // Where it is bound to fail, it is told with the file.
        if let Some(stat) = stat
            && item.leader.is_some()
            && platform::effective_uid() == 0
        {
            guard(&self.run.unclosed).push(Unclosed {
                folder: Arc::clone(&item.folder),
                name: item.name.clone(),
                identity: stat.identity(),
                flags,
            });
            return true;
        }
        let failed = platform::add_flags(file, flags);
        let is_closed = failed.is_empty();
        problems.extend(failed);
        is_closed
    }

    /// Removes what was made for a file that cannot be completed.
    fn discard(&mut self, item: &Item, body: &FileBody, state: &FileState) {
        let name = match (&state.temporary, body.method()) {
            (Some(temporary), _) => temporary.as_slice(),
            (None, Method::Create) if state.identity.is_some() => &item.name,
            _ => return,
        };
        // The failure that led here is told anyway; a file that cannot be removed has the same cause.
        let _ = self.open(&item.folder).and_then(|directory| directory.remove_file(name));
    }

    /// Notes that a file cannot be completed because of the repository.
    pub(super) fn fail_content(&self, file: &FileBody, error: &putback_repo::Error) {
        file.fail(content_failure(error));
    }
}

pub(super) fn made_action(item: &Item) -> Action {
    match item.place {
        Place::Free => Action::Restored,
        _ => Action::Updated,
    }
}

/// Gives a complete file its name: in place of what has it, or, if nothing had it, only if that is still so.
pub(super) fn rename_to_item(
    directory: &TargetDirectory,
    temporary: &[u8],
    item: &Item,
) -> io::Result<()> {
    match item.place {
        Place::Free => directory.rename_new(temporary, &item.name),
        _ => directory.rename(temporary, &item.name),
    }
}

fn is_same_blob(a: &Piece, b: &Piece) -> bool {
    (a.offset, a.length, a.id) == (b.offset, b.length, b.id)
}

/// How many of the pieces, from the first on, are neighbours both in the frame and in one file.
fn run_length(pieces: &[Piece], whole: &[bool]) -> usize {
    let is_neighbour = |pair: &[Piece]| {
        let [a, b] = pair else { return false };
        a.item == b.item
            && a.offset + a.length == b.offset
            && a.position + u64::from(a.length) == b.position
    };
    let neighbours = pieces.windows(2).zip(&whole[1..]);
    1 + neighbours.take_while(|(pair, is_whole)| **is_whole && is_neighbour(pair)).count()
}

/// The parts of `bytes`, which belong at `offset` of a new file, that are not zeros, in blocks of the file. Of a block
/// of which `bytes` has a part, the part counts: the rest may come in another chunk, and be zeros too.
fn data_ranges(bytes: &[u8], offset: u64) -> Vec<Range<usize>> {
    let is_zero = |block: &[u8]| block[0] == 0 && block.iter().all(|byte| *byte == 0);
    let to_boundary = (offset.next_multiple_of(SPARSE_BLOCK_BYTES as u64) - offset) as usize;
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let length = if start == 0 && to_boundary > 0 { to_boundary } else { SPARSE_BLOCK_BYTES };
        let end = bytes.len().min(start + length);
        if !is_zero(&bytes[start..end]) {
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        start = end;
    }
    ranges
}

fn make_other(directory: &TargetDirectory, body: &Body, name: &[u8]) -> io::Result<()> {
    match body {
        Body::Symlink(target) => directory.create_symlink(target, name),
        Body::Special { kind, major, minor } => {
            directory.create_special(name, *kind, *major, *minor)
        }
        Body::File(_) => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Makes something under a name that nothing has.
pub(super) fn make_temporary(make: impl Fn(&[u8]) -> io::Result<()>) -> io::Result<Vec<u8>> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!(".putback-{:x}-l{number:x}.tmp", std::process::id()).into_bytes();
        match make(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map(|()| name),
        }
    }
}

/// Whether a link or special file is what it should be, apart from metadata.
fn is_same_other(directory: &TargetDirectory, item: &Item, stat: &Stat) -> bool {
    match &item.body {
        Body::Symlink(target) => {
            directory.read_link(&item.name).is_ok_and(|found| found == **target)
        }
        Body::Special { kind: FileKind::Fifo, .. } => stat.kind == FileKind::Fifo,
        Body::Special { kind, major, minor } => {
            (stat.kind, stat.rdev_major, stat.rdev_minor) == (*kind, *major, *minor)
        }
        Body::File(_) => false,
    }
}

/// Whether an existing link or special file may get its metadata: no other name of it would change too.
fn may_be_changed(item: &Item, stat: &Stat) -> bool {
    // A link has no permissions of its own.
    let is_link = matches!(item.body, Body::Symlink(_));
    let mode = if is_link { item.metadata.mode } else { stat.mode };
    stat.links == 1 || item.metadata.will_stay(&Stat { mode, ..*stat })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_zeros_and_parts_of_them_are_left_out() {
        const BLOCK: usize = SPARSE_BLOCK_BYTES;
        let check = |bytes: &[u8], offset: u64, expected: &[Range<usize>]| {
            assert_eq!(data_ranges(bytes, offset), expected, "{} at {offset}", bytes.len());
        };
        let mut bytes = vec![0; 4 * BLOCK];
        check(&bytes, 0, &[]);
        check(&bytes, BLOCK as u64, &[]);
        check(&bytes[..BLOCK - 1], 0, &[]);
        check(&bytes[..100], 7, &[]);
        bytes[BLOCK] = 1;
        check(&bytes, 0, std::slice::from_ref(&(BLOCK..2 * BLOCK)));
        bytes[2 * BLOCK] = 1;
        check(&bytes, 0, std::slice::from_ref(&(BLOCK..3 * BLOCK)));
        // Blocks are those of the file: here the first ends after 96 bytes.
        check(&bytes, BLOCK as u64 - 96, std::slice::from_ref(&(96..96 + 2 * BLOCK)));
        check(&[], 5, &[]);
    }
}
