//! Restore: part of a snapshot back onto a disk.
//!
//! One thread walks the snapshot and plans, in *windows*; workers carry the windows out while the next one is
//! planned. Directories are made while walking. Files become items; the chunks of all items of a window are
//! sorted by where they are stored, so that each frame is read once in a window and its chunks go to every place
//! that needs them. A directory gets its metadata when the last thing in it is done.
//!
//! | to find out … | read |
//! |---|---|
//! | which entries are wanted | `select.rs` |
//! | what happens to an entry, given what is in the target | `decide.rs` |
//! | in which order things are done | `plan.rs`, `directories.rs`, `window.rs`, `cut.rs`, `queue.rs` |
//! | what is there already | `compare.rs` |
//! | how bytes reach a file | `write.rs`, `links.rs` |
//! | what is deleted, and what is not | `delete.rs`, `unread.rs` |
//! | when a directory is done | `folder.rs` |
//! | what `verify` compares | `verify.rs` |
//!
//! Rules that hold throughout:
//!
//! * Nothing outside the target is touched: everything goes through handles of directories below it, no link is
//!   followed, names that are not plain names are refused.
//! * A symbolic link where the snapshot has a folder is replaced by it, unless that folder is only on the way to what is
//!   wanted or was backed up: that link stays, and what would come below it is told as a problem.
//! * A file that cannot be completed is not left behind under its name. Only a large existing file that is being
//!   brought up to date in place can be left between two states; it is then told as a problem.
//! * Where nothing has a file's name, nothing is replaced that gets it meanwhile, or that the file system takes for the
//!   same name. Nor is then anything deleted in its folder: what has no entry there may have one in other letters.
//! * New files are made under their own name; an existing one is replaced by renaming, or kept and changed where
//!   it differs if it is larger than [`item::IN_PLACE_BYTES_MIN`], has no other names and is not a program that runs.
//! * What is deleted is what a complete snapshot has not, be it that the backup was told to leave it out: of patterns,
//!   ignore files and the like a snapshot says nothing. But nothing is deleted above the paths that were backed up, on
//!   another file system than the one that each of them is on, in any other folder that is mounted there, in a folder
//!   that the backup kept empty because another file system was mounted there, or of what it could not read. Neither is
//!   anything of a repository, which a backup leaves out where it is its own, and whose copies need not be in one.
//! * What other names of an existing file show, outside of what is restored too, stays as it is, metadata included.
//! * That a file is immutable or append-only is set when it has all its names.
//! * After an interruption, restoring again goes on where it stopped: what is there is compared, and kept.
//!
//! Memory: at most three windows are alive (one planned, one waiting, the end of one being carried out), each of
//! at most `pieces_max` chunks of 64 bytes, `entries_max` entries of about 600 bytes and `bytes_max` bytes of names,
//! attributes and inline content (`Limits`): some 65 MiB if all were full at once, 30 MiB for usual trees, and twice
//! as much where requests cost a round trip. To that come, for each worker, a request of stored frames (5 MiB) and one frame, and
//! for each directory on the open path one page of its tree. Files with several names whose other names have not
//! come up yet cost about 200 bytes each, and those that are immutable or append-only as much until the end.

mod chunks;
mod compare;
mod cut;
mod decide;
mod delete;
mod directories;
mod folder;
mod item;
mod links;
mod metadata;
mod plan;
mod queue;
mod select;
#[cfg(test)]
mod tests;
mod unread;
mod verify;
mod walk;
mod window;
mod write;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use putback_format::snapshot::{IncidentKind, Snapshot};
use putback_format::tree::{Entry, EntryKind};
use putback_repo::{Action, Amount, Cancel, Event, Observer, Phase, Repository};

use crate::Error;
use crate::platform::{self, TargetDirectory, Users};
use crate::restore::folder::{Folder, OpenHandles, Target, guard};
use crate::restore::item::{Failure, Item, Link, Method, Unclosed};
use crate::restore::plan::Planner;
use crate::restore::queue::{Queue, Task};
use crate::restore::select::Selection;
use crate::restore::unread::{Unread, is_in, without_slash};
use crate::restore::verify::Verified;
use crate::restore::write::Worker;
use crate::source::display_path;
use crate::source::roots::RepositoryFolder;

/// What bounds memory and open files.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Most chunks of a window.
    pieces_max: usize,
    /// Most entries of a window.
    entries_max: usize,
    /// Entries of the first window; each further one has twice as many, so that workers begin at once.
    entries_first: usize,
    /// Most bytes of names, attributes, link targets, holes and inline content of a window.
    bytes_max: usize,
    /// Files that are open at the same time because only part of their content has come.
    files_open_max: usize,
    /// Directories that are open at the same time, besides one for each worker.
    folders_open_max: usize,
    /// Most frames of a pack that one worker reads in one go.
    frames_per_task: usize,
}

impl Limits {
    const DEFAULT: Self = Self {
        pieces_max: 80_000,
        entries_max: 16_000,
        entries_first: 1_000,
        bytes_max: 8 << 20,
        files_open_max: 256,
        folders_open_max: 256,
        frames_per_task: 8,
    };
    /// Where each request costs a round trip: a pack that belongs to two windows, or two tasks, is asked for twice.
    const REMOTE: Self = Self {
        pieces_max: 160_000,
        entries_max: 32_000,
        entries_first: 32_000,
        bytes_max: 16 << 20,
        frames_per_task: usize::MAX,
        ..Self::DEFAULT
    };
}

/// What happens where the target has something of the same name. Directories are always merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// Its content is made right, whatever is there. What is right already is not written.
    Always,
    /// A file of the same size and time counts as right; anything else as with `Always`.
    IfChanged,
    /// As `Always`, if the snapshot has a later time.
    IfNewer,
    /// It stays.
    Never,
}

/// What to restore, and how.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Where to. Made if it does not exist.
    pub target: PathBuf,
    /// Patterns of what to restore, of absolute paths in the snapshot; everything if there are none.
    pub include: Vec<String>,
    /// Patterns of what to leave out.
    pub exclude: Vec<String>,
    /// As `include`, ignoring case.
    pub iinclude: Vec<String>,
    /// As `exclude`, ignoring case.
    pub iexclude: Vec<String>,
    /// What happens to what is there.
    pub overwrite: Overwrite,
    /// Removes from restored directories what the snapshot has not, also what the backup excluded. Never above the paths
    /// that were backed up, nor where the snapshot does not know what belongs there: in what is mounted there, and where
    /// the backup could not read; and no repository.
    pub delete: bool,
    /// Makes holes of zeros in new files. Holes that the snapshot knows are made anyway.
    pub sparse: bool,
    /// Reads everything again afterwards.
    pub verify: bool,
    /// Owners by number rather than by name.
    pub numeric_owner: bool,
    /// Owners are left to the system.
    pub no_owner: bool,
    /// Changes nothing and tells what would happen.
    pub dry_run: bool,
    /// How many cores to use.
    pub workers: usize,
    /// Folder of the repository, if it is on this machine: `delete` leaves it alone.
    pub repository_folder: Option<PathBuf>,
    /// Stops between two frames.
    pub cancel: Cancel,
}

/// What a restore did, or would do. Counts of files are of everything but directories.
#[derive(Debug, Default)]
pub struct RestoreReport {
    /// Files that were asked for; without sockets, which only a program can make.
    pub files_total: u64,
    /// Links, devices and FIFOs among them.
    pub others_total: u64,
    /// Bytes in them, holes not counted.
    pub bytes_total: u64,
    /// New ones.
    pub files_restored: u64,
    /// Existing ones that were changed.
    pub files_updated: u64,
    /// Existing ones that were right.
    pub files_unchanged: u64,
    /// Left alone by the overwrite policy.
    pub files_skipped: u64,
    /// Removed, directories too.
    pub files_deleted: u64,
    /// Bytes written to files.
    pub bytes_written: u64,
    /// Bytes that existing files held already.
    pub bytes_reused: u64,
    /// What could not be done, each with an [`Event::Problem`].
    pub problems: u64,
    /// Those of them that are of content which the repository does not have any more.
    pub problems_lost: u64,
    /// It was cancelled.
    pub is_interrupted: bool,
    /// What ended it before its time, such as a full disk. What is counted here was restored all the same.
    pub failure: Option<Error>,
    /// How long it took.
    pub duration: Duration,
}

/// Restores a folder or file of a snapshot into the target.
///
/// `path` is where in the snapshot: the contents of that folder, or that file, go into the target; `/` (or
/// nothing) is all of it. A target that is made for a folder gets that folder's metadata, one that exists keeps
/// its own.
///
/// What goes wrong with a single entry is an [`Event::Problem`] and does not end the restore.
///
/// What ends it on its way is in [`RestoreReport::failure`]: [`Error::Target`] if the target is full or cannot be
/// written at all, [`Error::Repository`] if the repository cannot be read any more.
///
/// # Errors
/// Nothing was restored:
/// - [`Error::DeleteByCheckpoint`]: `delete` and a snapshot that is not complete.
/// - [`Error::Pattern`]: a pattern cannot be understood.
/// - [`Error::Target`]: the target cannot be made or opened.
/// - [`Error::Repository`]: the path is not in the snapshot, or the index cannot be read.
pub fn restore(
    repository: &Repository,
    snapshot: &Snapshot,
    path: &[u8],
    options: &RestoreOptions,
    observer: &dyn Observer,
) -> Result<RestoreReport, Error> {
    let is_remote = repository.store().capabilities().is_remote;
    let limits = if is_remote { Limits::REMOTE } else { Limits::DEFAULT };
    restore_within(limits, repository, snapshot, path, options, observer)
}

fn restore_within(
    limits: Limits,
    repository: &Repository,
    snapshot: &Snapshot,
    path: &[u8],
    options: &RestoreOptions,
    observer: &dyn Observer,
) -> Result<RestoreReport, Error> {
    let started = Instant::now();
    if options.delete && !snapshot.complete {
        return Err(Error::DeleteByCheckpoint);
    }
    platform::raise_open_files_limit();
    let selection = Selection::new(options)?;
    repository.load_index()?;
    let base = Base::find(repository, snapshot, path)?;
    let (root, is_made) = open_target(options)?;
    let run = Run {
        repository,
        snapshot,
        unread: Unread::of(snapshot),
        repository_folder: find_repository(options),
        selection: &selection,
        options,
        observer,
        limits,
        target: Target::new(root, base.path.len(), limits.folders_open_max),
        users: Users::new(),
        queue: Queue::new(),
        open_files: OpenHandles::new(limits.files_open_max),
        begun: Mutex::default(),
        deferred_links: Mutex::default(),
        unclosed: Mutex::default(),
        verified: Verified::new(options.verify && !options.dry_run),
        counts: Counts::default(),
        failure: Mutex::default(),
        has_failed: false.into(),
        has_warned_of_owners: false.into(),
    };
    observer.event(Event::PhaseStarted { phase: Phase::Restore, total: run.expected_total(&base) });
    let restored = run.execute(|worker| Planner::new(&run, worker, &base, is_made)?.plan());
    let outcome = restored.and_then(|()| {
        run.clean_up();
        if options.verify && !options.dry_run && !run.is_stopped() {
            run.execute(|worker| verify::verify(&run, worker, &base))?;
        }
        Ok(())
    });
    Ok(RestoreReport { failure: outcome.err(), ..run.report(started.elapsed()) })
}

/// What the path that was asked for stands for.
pub(super) struct Base {
    /// Absolute path of the folder whose contents go into the target; empty for `/`.
    path: Vec<u8>,
    /// That folder, or the one thing in it that is wanted.
    entry: Entry,
    /// [`is_shell`] of it.
    is_shell: bool,
}

impl Base {
    fn find(repository: &Repository, snapshot: &Snapshot, path: &[u8]) -> Result<Self, Error> {
        let entry = repository.entry_at(snapshot, path)?;
        let names: Vec<&[u8]> = path
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty() && *name != b".")
            .collect();
        let folder =
            if entry.is_directory() { names.as_slice() } else { &names[..names.len() - 1] };
        let is_shell = match names.split_last() {
            Some((_, around)) if entry.is_directory() => {
                is_shell(&entry, repository.entry_at(snapshot, &around.join(&b'/'))?.device)
            }
            _ => false,
        };
        let path = folder.iter().flat_map(|name| [b"/", *name]).flatten().copied().collect();
        Ok(Self { path, entry, is_shell })
    }

    fn walk<'a>(&self, run: &'a Run<'_>) -> Result<walk::Walk<'a>, Error> {
        let entries: Box<dyn Iterator<Item = putback_repo::Result<Entry>>> =
            if self.entry.is_directory() {
                Box::new(run.repository.read_directory(&self.entry)?)
            } else {
                Box::new(std::iter::once(Ok(self.entry.clone())))
            };
        Ok(walk::Walk::new(run.repository, run.selection, self.path.clone(), entries))
    }
}

/// Whether of a folder on another file system than the one around it nothing was kept: what was mounted there stayed
/// out of the backup. `outer_device` is that of the folder around it in the snapshot, 0 if that does not say.
fn is_shell(entry: &Entry, outer_device: u64) -> bool {
    let is_empty = matches!(&entry.kind, EntryKind::Directory { pages } if pages.is_empty());
    is_empty && outer_device != 0 && entry.device != outer_device
}

/// Opens the target, making it if need be; says whether it was made.
fn open_target(options: &RestoreOptions) -> Result<(Option<TargetDirectory>, bool), Error> {
    let failed = |source| Error::Target { path: options.target.display().to_string(), source };
    match TargetDirectory::open(&options.target) {
        Ok(root) => Ok((Some(root), false)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if options.dry_run {
                return Ok((None, true));
            }
            let root = TargetDirectory::create_all(&options.target).map_err(failed)?;
            Ok((Some(root), true))
        }
        Err(error) => Err(failed(error)),
    }
}

/// The folder of the repository, if `delete` could meet it. One that cannot be listed cannot be emptied either.
fn find_repository(options: &RestoreOptions) -> RepositoryFolder {
    let folder = options.repository_folder.as_ref().filter(|_| options.delete);
    folder.and_then(|folder| RepositoryFolder::find(folder).ok()).unwrap_or_default()
}

/// What all threads of a restore share.
pub(super) struct Run<'a> {
    repository: &'a Repository,
    snapshot: &'a Snapshot,
    unread: Unread<'a>,
    /// What nothing is deleted of.
    repository_folder: RepositoryFolder,
    selection: &'a Selection,
    options: &'a RestoreOptions,
    observer: &'a dyn Observer,
    limits: Limits,
    target: Target,
    users: Users,
    queue: Queue<Task>,
    open_files: OpenHandles<Item>,
    /// Files of which part was written, by ordinal.
    begun: Mutex<HashMap<u64, Arc<Item>>>,
    /// Links whose file was not complete when their turn came.
    deferred_links: Mutex<Vec<Link>>,
    /// Files that get flags when all links are made.
    unclosed: Mutex<Vec<Unclosed>>,
    verified: Verified,
    counts: Counts,
    failure: Mutex<Option<Error>>,
    has_failed: AtomicBool,
    has_warned_of_owners: AtomicBool,
}

#[derive(Default)]
struct Counts {
    files_total: AtomicU64,
    others_total: AtomicU64,
    bytes_total: AtomicU64,
    files_restored: AtomicU64,
    files_updated: AtomicU64,
    files_unchanged: AtomicU64,
    files_skipped: AtomicU64,
    files_deleted: AtomicU64,
    bytes_written: AtomicU64,
    bytes_reused: AtomicU64,
    problems: AtomicU64,
    problems_lost: AtomicU64,
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

impl Run<'_> {
    /// Runs `lead` on this thread and workers beside it, until all work is done. Fails with the first failure
    /// that concerns more than one entry.
    fn execute(&self, lead: impl FnOnce(Worker<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let result = std::thread::scope(|scope| {
            let closing = self.queue.close_on_drop();
            for _ in 0..self.workers() {
                scope.spawn(|| match Worker::new(self) {
                    Ok(worker) => worker.work(),
                    Err(error) => self.fail(error.into()),
                });
            }
            let result = Worker::new(self).map_err(Error::from).and_then(lead);
            if result.is_err() {
                self.queue.abandon();
            }
            drop(closing);
            result
        });
        match guard(&self.failure).take() {
            Some(failure) => {
                self.clean_up();
                Err(failure)
            }
            None => result.inspect_err(|_| self.clean_up()),
        }
    }

    /// Threads beside the one that plans: where a request takes its time, as many as requests are useful.
    fn workers(&self) -> usize {
        let capabilities = self.repository.store().capabilities();
        let requests = if capabilities.is_remote { capabilities.connections } else { 1 };
        self.options.workers.max(requests)
    }

    /// Whether to stop as soon as possible.
    fn is_stopped(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed) || self.options.cancel.is_cancelled()
    }

    /// Ends the restore with an error; the first one counts.
    fn fail(&self, error: Error) {
        guard(&self.failure).get_or_insert(error);
        self.has_failed.store(true, Ordering::Relaxed);
        self.queue.abandon();
    }

    /// Tells what could not be done.
    fn problem(&self, path: &[u8], failure: &Failure) {
        add(&self.counts.problems, 1);
        add(&self.counts.problems_lost, u64::from(failure.kind == IncidentKind::Lost));
        let path = if path.is_empty() { b"/" } else { path };
        self.observer.event(Event::Problem { path, kind: failure.kind, message: &failure.message });
    }

    /// The paths that were backed up; `/` is empty.
    fn roots(&self) -> impl Iterator<Item = &[u8]> {
        self.snapshot.paths.iter().map(|root| without_slash(root))
    }

    /// Whether `path` is in none of the paths that were backed up: of such a folder, a snapshot knows only the way.
    fn is_above_roots(&self, path: &[u8]) -> bool {
        !self.roots().any(|root| is_in(path, root))
    }

    /// Tells that something stays which `delete` would otherwise remove.
    fn tell_not_deleted(&self, path: &[u8], why: &str) {
        let path = if path.is_empty() { b"/" } else { path };
        let message = format!("nothing of {} is deleted: {why}", display_path(path));
        self.observer.event(Event::Warning { message: &message });
    }

    /// What the system refused, as the failure of one entry; where nothing else would fare better, of all.
    fn target_failure(&self, path: &[u8], what: &str, error: std::io::Error) -> Failure {
        use std::io::ErrorKind;
        let message = format!("cannot {what}: {error}");
        let is_hopeless = matches!(
            error.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem
        );
        if is_hopeless && !self.options.dry_run {
            let below = path.get(self.target_prefix()..).unwrap_or_default();
            let below = platform::path_of_bytes(below.strip_prefix(b"/").unwrap_or(below));
            let path = self.options.target.join(below).display().to_string();
            self.fail(Error::Target { path, source: error });
        }
        Failure { kind: IncidentKind::Unreadable, message }
    }

    fn target_prefix(&self) -> usize {
        self.target.base_length()
    }

    /// Counts one thing in the folder as done, and finishes it if that was the last.
    fn let_go(&self, folder: &Arc<Folder>) {
        if self.options.dry_run {
            return;
        }
        self.target.let_go(folder, |folder, directory, metadata, before| {
            let result =
                directory.and_then(|directory| metadata.apply_to_directory(&directory, before));
            match result {
                Ok(problems) => self.tell_metadata(&folder.path, problems),
                Err(error) => {
                    let mut failure = self.target_failure(&folder.path, "set its metadata", error);
                    failure.kind = IncidentKind::MetadataIncomplete;
                    self.problem(&folder.path, &failure);
                }
            }
        });
    }

    /// Tells which metadata could not be set. That only root may give files away is said once.
    fn tell_metadata(&self, path: &[u8], problems: Vec<platform::MetadataProblem>) {
        use platform::MetadataStep;
        for problem in problems {
            let concerns_owner = matches!(problem.step, MetadataStep::Owner | MetadataStep::Mode);
            if problem.is_for_lack_of_privilege && concerns_owner {
                if !self.has_warned_of_owners.swap(true, Ordering::Relaxed) {
                    let message = "owners, and set-user-id bits with them, are not restored: only root may give files away";
                    self.observer.event(Event::Warning { message });
                }
                continue;
            }
            let kind = IncidentKind::MetadataIncomplete;
            self.problem(path, &Failure { kind, message: problem.message });
        }
    }

    /// What progress will add up to, if that is known beforehand.
    fn expected_total(&self, base: &Base) -> Option<Amount> {
        let is_all =
            base.path.is_empty() && base.entry.is_directory() && self.selection.is_everything();
        let statistics = &self.snapshot.statistics;
        is_all.then(|| Amount {
            items: statistics.files_new
                + statistics.files_changed
                + statistics.files_unchanged
                + statistics.others,
            bytes: statistics.bytes_total,
        })
    }

    /// Closes everything, and removes what was begun and will not be completed.
    ///
    /// A file under its own name stays if restoring again can go on with it.
    fn clean_up(&self) {
        self.open_files.clear();
        let begun = std::mem::take(&mut *guard(&self.begun));
        for item in begun.into_values() {
            let Some(file) = item.file() else { continue };
            let mut state = file.state();
            state.file = None;
            let name = match state.temporary.take() {
                Some(temporary) => temporary,
                None if file.method() == Method::Create && state.failure.is_some() => {
                    item.name.to_vec()
                }
                None => continue,
            };
            if let Ok(directory) = self.target.open(&item.folder) {
                // What led here is told; nothing more can be done about a file that cannot be removed.
                let _ = directory.remove_file(&name);
            }
        }
        self.target.close_all();
    }

    fn report(&self, duration: Duration) -> RestoreReport {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        RestoreReport {
            files_total: get(&counts.files_total),
            others_total: get(&counts.others_total),
            bytes_total: get(&counts.bytes_total),
            files_restored: get(&counts.files_restored),
            files_updated: get(&counts.files_updated),
            files_unchanged: get(&counts.files_unchanged),
            files_skipped: get(&counts.files_skipped),
            files_deleted: get(&counts.files_deleted),
            bytes_written: get(&counts.bytes_written),
            bytes_reused: get(&counts.bytes_reused),
            problems: get(&counts.problems),
            problems_lost: get(&counts.problems_lost),
            is_interrupted: self.options.cancel.is_cancelled(),
            failure: None,
            duration,
        }
    }

    /// Counts what happened to an entry that is no directory, and tells it.
    fn tell_entry(&self, path: &[u8], action: Action, bytes: u64) {
        let counts = &self.counts;
        match action {
            Action::Restored => add(&counts.files_restored, 1),
            Action::Updated => add(&counts.files_updated, 1),
            Action::Unchanged => add(&counts.files_unchanged, 1),
            Action::Skipped => add(&counts.files_skipped, 1),
            Action::Deleted => add(&counts.files_deleted, 1),
            _ => {}
        }
        self.observer.event(Event::Entry { path, action, bytes });
    }
}

/// An error with its causes, on one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A failure of content, as opposed to one of the target.
fn content_failure(error: &dyn std::error::Error) -> Failure {
    Failure { kind: IncidentKind::Lost, message: describe(error) }
}
