//! The workers of a backup.
//!
//! The caller's thread walks and decides; what must be read goes in batches of neighbouring files through a
//! bounded channel to workers, each with a frame of its own, so that neighbours are stored together.
//! Sealing and writing happen behind the repository's own channel.
//!
//! Memory: `workers × (4 × chunk_bytes_max + frame_bytes)`, the jobs of `3 × workers` batches, and what
//! [`super::assembly`], [`super::links`] and the repository's writer say of theirs.
//!
//! Open files: a job keeps its directory open. A batch takes jobs from so many directories that those of all batches
//! have no more than half of what this process may open; the rest is for the walk, what is read, and the storage.
//!
//! One of the few files that start threads; they end with the call.

use std::io::{Seek, SeekFrom};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use putback_format::id::SnapshotId;
use putback_format::key::BlobKind;
use putback_format::snapshot::{IncidentKind, Statistics};
use putback_format::tree::{ChunkRef, Content, Entry, EntryKind};
use putback_repo::{Action, Amount, Event, FrameWriter, Phase, clock};

use super::Run;
use super::assembly::{Assembly, Node, Place};
use super::contents::{ChunkReader, Failure, FileContent};
use super::links::{LINKS_BYTES_MAX, Linked, Links};
use super::parent::{ParentDirectory, Parents};
use crate::Error;
use crate::platform::{self, FileKind, Users};
use crate::source::filter::Filter;
use crate::source::metadata::{
    ChangeRules, build_entry, is_changed_between, is_unchanged, is_volatile, kind_without_content,
    refresh_entry,
};
use crate::source::roots::{RepositoryFolder, Roots};
use crate::source::walk::{Found, Step, Walker};

/// A batch of files is handed over when they have this many bytes together.
const BATCH_BYTES: u64 = 1 << 20;
/// Or when they are this many.
const BATCH_FILES: usize = 256;
/// A file that changed while it was read is read once more up to this size.
const READ_AGAIN_BYTES_MAX: u64 = 64 << 20;

/// How the walk ended.
pub(crate) enum Outcome {
    /// All of it.
    Complete {
        /// The directory `/`.
        root: Box<Entry>,
    },
    /// Somebody asked to stop.
    Interrupted {
        /// What is safe, if anything is.
        checkpoint: Option<SnapshotId>,
    },
}

/// Counts that many workers add to.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    files_new: AtomicU64,
    files_changed: AtomicU64,
    files_unchanged: AtomicU64,
    directories: AtomicU64,
    others: AtomicU64,
    bytes_total: AtomicU64,
    pub(crate) bytes_read: AtomicU64,
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Counters {
    /// What this side counts; the repository counts what it stores.
    pub(crate) fn statistics(&self) -> Statistics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            files_new: get(&self.files_new),
            files_changed: get(&self.files_changed),
            files_unchanged: get(&self.files_unchanged),
            directories: get(&self.directories),
            others: get(&self.others),
            bytes_total: get(&self.bytes_total),
            bytes_read: get(&self.bytes_read),
            ..Statistics::default()
        }
    }

    /// Counts a file and tells the observer.
    pub(crate) fn file(&self, run: &Run<'_>, path: &[u8], action: Action, bytes: u64) {
        add(
            match action {
                Action::New => &self.files_new,
                Action::Modified => &self.files_changed,
                _ => &self.files_unchanged,
            },
            1,
        );
        add(&self.bytes_total, bytes);
        run.observer.event(Event::Entry { path, action, bytes });
        run.observer
            .event(Event::Advanced { phase: Phase::Backup, by: Amount { items: 1, bytes: 0 } });
    }
}

/// A file to read.
struct Job {
    place: Place,
    found: Found,
    previous: Option<Box<Entry>>,
}

/// How many batches are under way, and whether something failed.
#[derive(Default)]
struct Progress {
    batches: Mutex<usize>,
    done: Condvar,
    has_failed: AtomicBool,
    failure: Mutex<Option<Error>>,
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked took the backup down with it; counts and errors are whole at any moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Progress {
    fn fail(&self, error: Error) {
        guard(&self.failure).get_or_insert(error);
        self.has_failed.store(true, Ordering::Release);
    }

    fn check(&self) -> Result<(), Error> {
        if !self.has_failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let failure = guard(&self.failure).take();
        Err(failure.unwrap_or_else(|| putback_repo::Error::WorkerFailed.into()))
    }

    fn wait(&self) -> Result<(), Error> {
        let mut batches = guard(&self.batches);
        while *batches > 0 {
            batches = self.done.wait(batches).unwrap_or_else(PoisonError::into_inner);
        }
        self.check()
    }
}

/// A batch that a worker has taken. The walk waits for all of them, also for one whose worker panics.
struct Batch<'a> {
    progress: &'a Progress,
    is_finished: bool,
}

impl Batch<'_> {
    fn finish(mut self) {
        self.is_finished = true;
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            self.progress.fail(putback_repo::Error::WorkerFailed.into());
        }
        *guard(&self.progress.batches) -= 1;
        self.progress.done.notify_all();
    }
}

/// What the workers share.
struct Workshop<'a> {
    run: &'a Run<'a>,
    assembly: &'a Assembly<'a>,
    users: &'a Users,
    progress: Progress,
    links: Links,
    /// Each worker's frame; the walk flushes them at a checkpoint, when no worker uses its own.
    frames: Vec<Mutex<FrameWriter>>,
}

/// Walks the roots, stores what is new, and assembles the tree.
pub(crate) fn store_paths(
    run: &Run<'_>,
    roots: &Roots,
    parents: &Parents,
) -> Result<Outcome, Error> {
    let options = run.options;
    let mut filter = Filter::new(&options.filter)?;
    if let Some(folder) = &options.repository_folder
        && let Ok(folder) = RepositoryFolder::find(folder)
    {
        roots.check_outside(&folder)?;
        filter = filter.without_repository(folder);
    }
    for missing in &roots.missing {
        let path = platform::bytes_of_path(&missing.path);
        run.incidents.add(&path, IncidentKind::Unreadable, &missing.message);
    }
    let (filter, users) = (Arc::new(filter), Arc::new(Users::new()));
    let total = parents.complete.as_ref().map(|stored| {
        let counts = stored.snapshot.statistics;
        Amount {
            items: counts.files_new + counts.files_changed + counts.files_unchanged,
            bytes: counts.bytes_total,
        }
    });
    run.observer.event(Event::PhaseStarted { phase: Phase::Backup, total });

    let workers = options.workers.max(1);
    let trees = run.backup.frame_writer(BlobKind::Tree);
    let assembly = Assembly::new(trees, &run.incidents);
    let workshop = Workshop {
        run,
        assembly: &assembly,
        users: &users,
        progress: Progress::default(),
        links: Links::new(LINKS_BYTES_MAX),
        frames: (0..workers).map(|_| Mutex::new(run.backup.frame_writer(BlobKind::Data))).collect(),
    };
    let (sender, receiver) = crossbeam_channel::bounded(2 * workers);
    let is_done = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..workers {
            let (workshop, receiver) = (&workshop, receiver.clone());
            std::thread::Builder::new()
                .name(format!("read-{number}"))
                .spawn_scoped(scope, move || workshop.work(number, &receiver))
                .map_err(|source| Error::Source { path: "a thread".to_owned(), source })?;
        }
        if options.estimate_total && total.is_none() {
            let walker = Walker::new(roots, Arc::clone(&filter), Arc::clone(&users));
            scope.spawn(move || estimate(run, walker, is_done));
        }
        let walker = Walker::new(roots, filter, Arc::clone(&users));
        let parent = ParentDirectory::of(run.repository, parents);
        let walk = Walk {
            workshop: &workshop,
            sender,
            stack: Vec::new(),
            root_parent: Some(parent),
            batch: Vec::new(),
            batch_bytes: 0,
            batch_directories: 0,
            batch_directories_max: batch_directories_max(platform::open_files_limit(), workers),
            rules: ChangeRules {
                ignore_inode: options.ignore_inode,
                ignore_ctime: options.ignore_ctime,
            },
            checkpointed: Instant::now(),
        };
        let outcome = walk.run(walker);
        is_done.store(true, Ordering::Relaxed);
        outcome
    })
}

/// From how many directories a batch may take files where a process may open `open_files_max`.
fn batch_directories_max(open_files_max: u64, workers: usize) -> usize {
    // Those that wait in the channel, those that workers have, and the one that is gathered or waits for room.
    let batches = 3 * workers as u64 + 1;
    let each = open_files_max / 2 / batches;
    usize::try_from(each).unwrap_or(usize::MAX).clamp(1, BATCH_FILES)
}

/// Counts files and bytes ahead of the backup, for its progress.
fn estimate(run: &Run<'_>, mut walker: Walker, is_done: &AtomicBool) {
    let mut total = Amount::default();
    let mut told = Instant::now();
    let mut tell = |total: Amount, is_last: bool| {
        if is_last || told.elapsed().as_millis() > 250 {
            told = Instant::now();
            run.observer.event(Event::Total { phase: Phase::Backup, total });
        }
    };
    while !is_done.load(Ordering::Relaxed) && !run.options.cancel.is_cancelled() {
        match walker.next_step() {
            Ok(Some(Step::Entry(found))) if found.stat.kind == FileKind::File => {
                total.items += 1;
                total.bytes += found.stat.size.min(found.stat.blocks.saturating_mul(512).max(4096));
                tell(total, false);
            }
            Ok(Some(_)) => {}
            // The backup itself will meet whatever it was, and say so.
            Ok(None) | Err(_) => return tell(total, true),
        }
    }
}

/// The walk: the only side that knows the open path.
struct Walk<'a> {
    workshop: &'a Workshop<'a>,
    sender: Sender<Vec<Job>>,
    stack: Vec<(Arc<Node>, ParentDirectory)>,
    root_parent: Option<ParentDirectory>,
    batch: Vec<Job>,
    batch_bytes: u64,
    /// Directories that `batch` keeps open.
    batch_directories: usize,
    batch_directories_max: usize,
    rules: ChangeRules,
    checkpointed: Instant,
}

impl Walk<'_> {
    fn run(mut self, mut walker: Walker) -> Result<Outcome, Error> {
        let run = self.workshop.run;
        while !run.options.cancel.is_cancelled() {
            self.workshop.progress.check()?;
            let Some(step) = walker.next_step()? else {
                self.send()?;
                self.settle()?;
                if run.options.cancel.is_cancelled() {
                    break;
                }
                let root = self.workshop.assembly.root();
                let root = root.ok_or(Error::Repository(putback_repo::Error::WorkerFailed))?;
                return Ok(Outcome::Complete { root: Box::new(root) });
            };
            self.step(step)?;
            if self.checkpointed.elapsed() >= run.options.checkpoint_interval {
                self.send()?;
                self.settle()?;
                self.checkpoint()?;
                self.checkpointed = Instant::now();
            }
        }
        // What waits is given up; what workers finish is kept.
        for job in std::mem::take(&mut self.batch) {
            self.workshop.assembly.complete(job.place, None)?;
        }
        self.settle()?;
        Ok(Outcome::Interrupted { checkpoint: self.checkpoint()? })
    }

    fn step(&mut self, step: Step) -> Result<(), Error> {
        let run = self.workshop.run;
        match step {
            Step::Enter { path, mut entry, is_wanted } => {
                let (place, parent) = match self.stack.last_mut() {
                    Some((node, parent)) => {
                        let previous = parent.take(&entry.name, run.backup)?;
                        // What other programs do in a folder above the roots is no change of theirs.
                        if !is_wanted
                            && run.options.skip_if_unchanged
                            && let Some(known) = previous.iter().find(|known| known.is_directory())
                        {
                            *entry = known.clone();
                        }
                        (Some(node.reserve()), ParentDirectory::below(run.repository, &previous))
                    }
                    None => (None, self.root_parent.take().unwrap_or_default()),
                };
                add(&run.counters.directories, 1);
                let node = self.workshop.assembly.enter(path, *entry, place);
                self.stack.push((node, parent));
                Ok(())
            }
            Step::Leave => match self.stack.pop() {
                Some((node, _)) => self.workshop.assembly.leave(&node),
                None => Ok(()),
            },
            Step::Entry(found) => self.entry(found),
            Step::Excluded { path, .. } => {
                run.observer.event(Event::Entry {
                    path: &path,
                    action: Action::Excluded,
                    bytes: 0,
                });
                Ok(())
            }
            Step::Problem { path, kind, message } => {
                run.incidents.add(&path, kind, &message);
                Ok(())
            }
        }
    }

    fn entry(&mut self, found: Found) -> Result<(), Error> {
        let Some((node, parent)) = self.stack.last_mut() else { return Ok(()) };
        let place = node.reserve();
        let run = self.workshop.run;
        let previous = parent.take(found.name(), run.backup)?;
        let mut newest = None;
        for entry in previous {
            if is_unchanged(&entry, &found.stat, self.rules) && self.can_take_over(&entry)? {
                let entry = refresh_entry(entry, &found.stat, self.workshop.users);
                match &entry.kind {
                    EntryKind::File { .. } => {
                        let bytes = data_bytes(&entry);
                        run.counters.file(run, &found.path, Action::Unchanged, bytes);
                        let by = Amount { items: 0, bytes };
                        run.observer.event(Event::Advanced { phase: Phase::Backup, by });
                    }
                    _ => add(&run.counters.others, 1),
                }
                return self.workshop.assembly.complete(place, Some(entry));
            }
            newest.get_or_insert_with(|| Box::new(entry));
        }
        if found.stat.kind != FileKind::File {
            let entry = self.workshop.other_entry(&found);
            return self.workshop.assembly.complete(place, entry);
        }
        let is_open = |job: &Job| Arc::ptr_eq(job.found.directory(), found.directory());
        if !self.batch.iter().rev().any(is_open) {
            if self.batch_directories == self.batch_directories_max {
                self.send()?;
            }
            self.batch_directories += 1;
        }
        self.batch_bytes += found.stat.size;
        self.batch.push(Job { place, found, previous: newest });
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= BATCH_FILES {
            self.send()?;
        }
        Ok(())
    }

    /// Whether the repository still has everything that an unchanged entry needs.
    fn can_take_over(&self, entry: &Entry) -> Result<bool, Error> {
        let EntryKind::File { content, .. } = &entry.kind else { return Ok(true) };
        match content {
            Content::Inline(_) => Ok(true),
            Content::Chunks(chunks) => self.has_all(chunks),
            Content::Lists { depth, pages } => self.has_lists(pages, *depth),
        }
    }

    fn has_all(&self, refs: &[ChunkRef]) -> Result<bool, Error> {
        for chunk in refs {
            if !self.workshop.run.backup.require(&chunk.id)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn has_lists(&self, pages: &[ChunkRef], level: u8) -> Result<bool, Error> {
        if !self.has_all(pages)? {
            return Ok(false);
        }
        for page in pages {
            // A list page that cannot be read only means that the file is read again, which heals it.
            let refs = match self.workshop.run.repository.read_list_page(page, level) {
                Ok(refs) => refs,
                Err(error) => {
                    self.workshop.run.backup.note_damage(&error)?;
                    return Ok(false);
                }
            };
            let is_complete =
                if level > 1 { self.has_lists(&refs, level - 1)? } else { self.has_all(&refs)? };
            if !is_complete {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Hands the waiting files to the workers.
    fn send(&mut self) -> Result<(), Error> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        (self.batch_bytes, self.batch_directories) = (0, 0);
        *guard(&self.workshop.progress.batches) += 1;
        if self.sender.send(batch).is_err() {
            self.workshop.progress.check()?;
            return Err(putback_repo::Error::WorkerFailed.into());
        }
        Ok(())
    }

    /// Waits until no file is under way, and hands over all frames.
    fn settle(&self) -> Result<(), Error> {
        self.workshop.progress.wait()?;
        for frame in &self.workshop.frames {
            guard(frame).flush()?;
        }
        self.workshop.assembly.flush()
    }

    /// Makes what was backed up so far restorable, and a parent for the next run.
    fn checkpoint(&self) -> Result<Option<SnapshotId>, Error> {
        let run = self.workshop.run;
        let counts = run.counters.statistics();
        if run.options.dry_run
            || counts.files_new + counts.files_changed + counts.files_unchanged == 0
        {
            return Ok(None);
        }
        let open: Vec<Arc<Node>> = self.stack.iter().map(|(node, _)| Arc::clone(node)).collect();
        let root = match open.as_slice() {
            // The walk has come to its end: what is missing are files that were waiting for a worker.
            [] => self.workshop.assembly.root(),
            open => self.workshop.assembly.provisional_root(open)?,
        };
        let Some(root) = root else { return Ok(None) };
        self.workshop.assembly.flush()?;
        let snapshot = run.commit(root, false)?.id;
        run.observer.event(Event::Checkpoint { snapshot });
        Ok(Some(snapshot))
    }
}

impl Workshop<'_> {
    fn work(&self, number: usize, batches: &Receiver<Vec<Job>>) {
        let mut reader = ChunkReader::new(self.run.repository, &self.run.options.cancel);
        for jobs in batches {
            let batch = Batch { progress: &self.progress, is_finished: false };
            let mut frame = guard(&self.frames[number]);
            for job in jobs {
                // After a failure the channel is only emptied, so that the walk does not wait for room.
                if self.progress.has_failed.load(Ordering::Acquire) {
                    break;
                }
                self.read(job, &mut reader, &mut frame)
                    .unwrap_or_else(|error| self.progress.fail(error));
            }
            drop(frame);
            batch.finish();
        }
    }

    fn read(
        &self,
        job: Job,
        reader: &mut ChunkReader<'_>,
        frame: &mut FrameWriter,
    ) -> Result<(), Error> {
        let Job { place, found, previous } = job;
        let run = self.run;
        if run.options.cancel.is_cancelled() {
            return self.assembly.complete(place, None);
        }
        run.observer.event(Event::FileStarted { path: &found.path });
        let linked = (found.stat.links > 1).then(|| self.links.find(found.name(), &found.stat));
        let entry = match linked {
            Some(Linked::Known(entry)) => Ok(*entry),
            // What others wait for is dropped after the reading.
            _linked => self.read_entry(&found, reader, frame),
        };
        match entry {
            Ok(mut entry) => {
                let action = match previous {
                    None => Action::New,
                    // Read only because its times could not vouch for it.
                    Some(previous) if is_same_file(&previous, &entry) => {
                        // With the mark gone the tree would be another, and nothing has changed.
                        entry.volatile |= run.options.skip_if_unchanged && previous.volatile;
                        Action::Unchanged
                    }
                    Some(_) => Action::Modified,
                };
                let bytes = data_bytes(&entry);
                run.counters.file(run, &found.path, action, bytes);
                self.assembly.complete(place, Some(entry))
            }
            Err(Failure::Read(error)) => {
                if platform::is_exhaustion(&error) {
                    let path = crate::source::display_path(&found.path);
                    return Err(Error::Source { path, source: error });
                }
                let kind = match error.kind() {
                    std::io::ErrorKind::NotFound => IncidentKind::Vanished,
                    _ => IncidentKind::Unreadable,
                };
                run.incidents.add(&found.path, kind, &error.to_string());
                self.assembly.complete(place, None)
            }
            Err(Failure::Cancelled) => self.assembly.complete(place, None),
            Err(Failure::Fatal(error)) => Err(error),
        }
    }

    fn read_entry(
        &self,
        found: &Found,
        reader: &mut ChunkReader<'_>,
        frame: &mut FrameWriter,
    ) -> Result<Entry, Failure> {
        let run = self.run;
        let advanced = |bytes| {
            add(&run.counters.bytes_read, bytes);
            let by = Amount { items: 0, bytes };
            run.observer.event(Event::Advanced { phase: Phase::Backup, by });
        };
        let mut file = found.open()?;
        let mut before = found.stat;
        let opened = platform::stat_file(&file)?;
        if opened.kind != FileKind::File {
            // Something else took its name since the walk; a pipe would never end.
            return Err(std::io::Error::from(std::io::ErrorKind::NotFound).into());
        }
        let mut is_second = false;
        let mut began = clock::now();
        let (content, after) = loop {
            let content = reader.read_file(&file, &before, frame, self.assembly, &advanced)?;
            let after = platform::stat_file(&file)?;
            if !is_changed_between(&before, &after) {
                break (content, after);
            }
            if is_second || after.size > READ_AGAIN_BYTES_MAX {
                let message = "it changed while it was read; the snapshot holds what was read";
                run.incidents.add(&found.path, IncidentKind::ChangedWhileRead, message);
                break (content, after);
            }
            // Mostly it changed between the walk and now, and is at rest.
            (before, is_second, began) = (after, true, clock::now());
            file.seek(SeekFrom::Start(0))?;
        };
        let xattrs = platform::file_xattrs(&file);
        if let Some(problem) = &xattrs.problem {
            run.incidents.add(&found.path, IncidentKind::MetadataIncomplete, problem);
        }
        let FileContent { size, content, holes, .. } = content;
        let kind = EntryKind::File { size, content, holes };
        let mut entry = build_entry(found.name(), &after, kind, xattrs.list, self.users);
        // A write in the same tick as the last one that was seen may have come as soon as reading began.
        entry.volatile = is_volatile(&after, began) || is_volatile(&after, clock::now());
        if after.links > 1 {
            self.links.add(after.identity(), &entry);
        }
        Ok(entry)
    }

    /// The entry of anything but a file or directory.
    fn other_entry(&self, found: &Found) -> Option<Entry> {
        let run = self.run;
        let mut kind = kind_without_content(&found.stat);
        if let EntryKind::Symlink { target } = &mut kind {
            match found.read_link() {
                Ok(read) => *target = read,
                Err(error) => {
                    let kind = match error.kind() {
                        std::io::ErrorKind::NotFound => IncidentKind::Vanished,
                        _ => IncidentKind::Unreadable,
                    };
                    run.incidents.add(&found.path, kind, &error.to_string());
                    return None;
                }
            }
        }
        let xattrs = found.xattrs();
        if let Some(problem) = &xattrs.problem {
            run.incidents.add(&found.path, IncidentKind::MetadataIncomplete, problem);
        }
        add(&run.counters.others, 1);
        let mut entry = build_entry(found.name(), &found.stat, kind, xattrs.list, self.users);
        entry.volatile = is_volatile(&found.stat, clock::now());
        Some(entry)
    }
}

/// Whether two entries of one name differ in nothing that a user would call a change.
fn is_same_file(previous: &Entry, entry: &Entry) -> bool {
    let Entry { device, volatile, .. } = *previous;
    Entry { device, volatile, ..entry.clone() } == *previous
}

/// Bytes of a file that are not holes.
fn data_bytes(entry: &Entry) -> u64 {
    match &entry.kind {
        EntryKind::File { size, holes, .. } => {
            size - holes.iter().map(|hole| hole.length).sum::<u64>()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directories_of_all_batches_fit_into_half_of_the_open_files() {
        for limit in [256, 1_024, 4_096, 65_536, 1 << 20, u64::MAX] {
            for workers in [1, 2, 8, 32] {
                let each = batch_directories_max(limit, workers);
                assert!((1..=BATCH_FILES).contains(&each), "{limit} {workers}");
                let all = each as u64 * (3 * workers as u64 + 1);
                assert!(all <= limit / 2, "{limit} {workers}: {all}");
            }
        }
        // Where there is room, it is the number of files that ends a batch; and it always takes one file.
        assert_eq!(batch_directories_max(1 << 20, 16), BATCH_FILES);
        assert_eq!(batch_directories_max(64, 64), 1);
    }
}
