//! Backup: the line from the source to a snapshot.
//!
//! ```text
//! walk ─► unchanged since the parent? ─► its chunks are taken over ─┐
//!    └──► read ─► cut ─► put (ids, packs: the repository's) ────────┴─► tree pages ─► snapshot
//! ```
//!
//! [`pipeline`] holds the workers, [`parent`] what an earlier snapshot saves us from reading,
//! [`contents`] how one file is read, [`links`] what is known of it under its other names, [`assembly`] how
//! directories become pages.

pub(crate) mod assembly;
pub(crate) mod contents;
mod links;
pub(crate) mod parent;
mod pipeline;
mod stream;

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use putback_format::id::SnapshotId;
use putback_format::snapshot::{Incident, IncidentKind, Statistics};
use putback_format::tree::{Entry, EntryKind, Timestamp};
use putback_repo::{Backup, Cancel, Event, Observer, Repository, SnapshotDraft, StoredSnapshot};

use crate::Error;
use crate::source::roots::{Roots, absolute_path};
use pipeline::Outcome;

/// How often a backup is done in all when packs that it relies on go away meanwhile.
const ATTEMPTS: usize = 3;

/// What stays out of a backup.
#[derive(Clone, Debug, Default)]
pub struct FilterOptions {
    /// Patterns; `!` negates, the last match wins. See [`crate::pattern`].
    pub exclude: Vec<String>,
    /// The same, upper and lower case being equal.
    pub iexclude: Vec<String>,
    /// Files with a pattern in each line.
    pub exclude_files: Vec<PathBuf>,
    /// The same, upper and lower case being equal.
    pub iexclude_files: Vec<PathBuf>,
    /// A directory that holds a file of this name, beginning with these bytes, is left out but for that file.
    pub exclude_if_present: Vec<(OsString, Option<Vec<u8>>)>,
    /// Leaves out what a valid `CACHEDIR.TAG` marks.
    pub exclude_caches: bool,
    /// Leaves out files of more bytes.
    pub exclude_larger_than: Option<u64>,
    /// Names of files in the manner of `.gitignore`, read in each directory.
    pub ignore_files: Vec<OsString>,
    /// Leaves out what is mounted below a root.
    pub one_file_system: bool,
}

/// What to back up.
pub enum Source {
    /// Files and directories.
    Paths(Vec<PathBuf>),
    /// One file whose bytes come from elsewhere.
    Stream {
        /// Its path in the snapshot.
        name: Vec<u8>,
        /// Its bytes.
        reader: Box<dyn Read + Send>,
        /// Called after the last byte; if it fails there is no snapshot.
        finish: Box<dyn FnOnce() -> Result<(), String> + Send>,
    },
}

/// Which earlier snapshot to compare with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParentChoice {
    /// The newest of the same host and paths, and a newer checkpoint of these.
    Automatic,
    /// This one, by a selector.
    Snapshot(String),
    /// None: everything is read.
    None,
}

/// How to back up.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// What stays out.
    pub filter: FilterOptions,
    /// Host name for the snapshot.
    pub host: String,
    /// User name for the snapshot.
    pub user: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Free text.
    pub description: String,
    /// Time of the snapshot, if not now.
    pub time: Option<Timestamp>,
    /// Offset of local time from UTC in seconds.
    pub utc_offset: i32,
    /// Program and version.
    pub program: String,
    /// What to compare with.
    pub parent: ParentChoice,
    /// Inode numbers do not tell changes.
    pub ignore_inode: bool,
    /// ctime does not tell changes.
    pub ignore_ctime: bool,
    /// Reads everything and stores nothing.
    pub dry_run: bool,
    /// No snapshot if it would equal its parent.
    pub skip_if_unchanged: bool,
    /// Time between checkpoints.
    pub checkpoint_interval: Duration,
    /// Cores to use.
    pub workers: usize,
    /// zstd level, if not the repository's.
    pub compression_level: Option<i32>,
    /// Counts the source beside the backup, so that progress has a total.
    pub estimate_total: bool,
    /// Folder of the repository, if it is on this machine.
    pub repository_folder: Option<PathBuf>,
    /// Stops the backup with a checkpoint.
    pub cancel: Cancel,
}

/// What became of a backup.
#[derive(Clone, Debug)]
pub struct BackupReport {
    /// The snapshot, or the checkpoint if it was interrupted. None for a dry run, when nothing
    /// changed and that was to be skipped, and when it was interrupted before anything was kept.
    pub snapshot: Option<SnapshotId>,
    /// What it was compared with.
    pub parent: Option<SnapshotId>,
    /// Counts.
    pub statistics: Statistics,
    /// Paths that failed, as far as they are listed.
    pub incidents: Vec<Incident>,
    /// It was stopped before its end.
    pub is_interrupted: bool,
    /// There is no snapshot because it would have equalled its parent.
    pub is_unchanged: bool,
}

/// Paths that failed: counted, told to the observer, and listed in the snapshot as far as it lists them.
pub(crate) struct Incidents<'a> {
    observer: &'a dyn Observer,
    list: Mutex<(u64, Vec<Incident>)>,
}

impl<'a> Incidents<'a> {
    pub(crate) fn new(observer: &'a dyn Observer) -> Self {
        Self { observer, list: Mutex::default() }
    }

    /// Notes one.
    pub(crate) fn add(&self, path: &[u8], kind: IncidentKind, message: &str) {
        self.observer.event(Event::Problem { path, kind, message });
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.0 += 1;
        if list.1.len() < putback_format::limits::INCIDENTS_MAX {
            list.1.push(Incident { path: path.to_vec(), kind, message: message.to_owned() });
        }
    }

    pub(crate) fn so_far(&self) -> (u64, Vec<Incident>) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What all parts of one backup share.
pub(crate) struct Run<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) backup: &'a Backup,
    pub(crate) options: &'a BackupOptions,
    pub(crate) observer: &'a dyn Observer,
    pub(crate) incidents: Incidents<'a>,
    pub(crate) counters: pipeline::Counters,
    paths: Vec<Vec<u8>>,
    parent: Option<SnapshotId>,
    time: Timestamp,
    started: Instant,
}

impl Run<'_> {
    /// Counts so far.
    fn statistics(&self) -> Statistics {
        let written = self.backup.written();
        let duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Statistics {
            bytes_added: written.plain_bytes,
            bytes_stored: written.stored_bytes,
            blobs_added: written.blobs,
            incidents: self.incidents.so_far().0,
            duration_ms,
            ..self.counters.statistics()
        }
    }

    /// Writes a snapshot of this tree.
    pub(crate) fn commit(&self, root: Entry, complete: bool) -> Result<StoredSnapshot, Error> {
        let options = self.options;
        Ok(self.backup.commit(SnapshotDraft {
            root,
            time: self.time,
            utc_offset: options.utc_offset,
            host: options.host.clone(),
            user: options.user.clone(),
            paths: self.paths.clone(),
            tags: options.tags.clone(),
            description: options.description.clone(),
            program: options.program.clone(),
            parent: self.parent,
            complete,
            statistics: self.statistics(),
            incidents: self.incidents.so_far().1,
            unknown: Vec::new(),
        })?)
    }
}

/// Backs up `source` into `repository`.
///
/// Paths that cannot be read are in the report and stop nothing.
///
/// # Errors
/// - [`Error::Refused`]: there is nothing to back up, or the source lies in the repository.
/// - [`Error::Pattern`], [`Error::Source`]: the filter cannot be built; the machine is exhausted.
/// - [`Error::Repository`]: the store failed. What was stored is taken over by the next run.
/// - [`Error::StorageFull`]: it was stopped, with a checkpoint, before the storage was full.
pub fn backup(
    repository: &Repository,
    source: Source,
    options: &BackupOptions,
    observer: &dyn Observer,
) -> Result<BackupReport, Error> {
    crate::platform::raise_open_files_limit();
    let started = Instant::now();
    let (paths, roots) = match &source {
        Source::Paths(paths) => {
            let current = std::env::current_dir()
                .map_err(|source| Error::Source { path: ".".to_owned(), source })?;
            let roots = Roots::resolve(paths, &current);
            if roots.paths.is_empty() {
                return Err(roots.missing_error().unwrap_or_else(|| Error::Refused {
                    message: "there is nothing to back up: no path was given".to_owned(),
                }));
            }
            (roots.paths.clone(), Some(roots))
        }
        Source::Stream { name, .. } => {
            let path = PathBuf::from(crate::platform::path_of_bytes(name).as_os_str());
            (vec![absolute_path(&path, std::path::Path::new("/"))], None)
        }
    };
    let parents = parent::choose(repository, options, &paths)?;
    let backup = if options.dry_run {
        repository.begin_dry_run(options.compression_level, options.workers)?
    } else {
        repository.begin_backup(options.compression_level, options.workers)?
    };
    backup.stop_when_full(options.cancel.clone());
    if backup.adopted_packs() > 0 || parents.checkpoint.is_some() {
        let checkpoint = parents.checkpoint.as_ref().map(|stored| stored.id);
        observer.event(Event::Resumed { checkpoint, packs: backup.adopted_packs() });
    }
    let time = options.time.unwrap_or_else(|| repository.now());
    let begin = || Run {
        repository,
        backup: &backup,
        options,
        observer,
        incidents: Incidents::new(observer),
        counters: pipeline::Counters::default(),
        paths: paths.clone(),
        parent: parents.complete.as_ref().or(parents.checkpoint.as_ref()).map(|stored| stored.id),
        time,
        started,
    };
    let report = match (source, roots) {
        (Source::Paths(_), Some(roots)) => {
            let mut attempt = 1;
            loop {
                let run = begin();
                let result = pipeline::store_paths(&run, &roots, &parents)
                    .and_then(|outcome| conclude(&run, outcome, &parents));
                match result {
                    // What they held is unknown now: entries that were taken over are read from their source.
                    Err(Error::Repository(error @ putback_repo::Error::PacksLost { .. }))
                        if attempt < ATTEMPTS =>
                    {
                        let message = format!("{error}: what was in them is read again");
                        observer.event(Event::Warning { message: &message });
                        attempt += 1;
                    }
                    result => break result?,
                }
            }
        }
        (Source::Stream { reader, finish, .. }, _) => {
            let run = begin();
            let outcome = stream::store_stream(&run, reader, finish)?;
            conclude(&run, outcome, &parents)?
        }
        (Source::Paths(_), None) => unreachable!("roots are resolved for paths"),
    };
    if options.dry_run {
        return Ok(report);
    }
    backup.finish()?;
    Ok(report)
}

/// Writes the snapshot, unless there is a reason not to.
fn conclude(
    run: &Run<'_>,
    outcome: Outcome,
    parents: &parent::Parents,
) -> Result<BackupReport, Error> {
    let mut report = BackupReport {
        snapshot: None,
        parent: run.parent,
        statistics: Statistics::default(),
        incidents: Vec::new(),
        is_interrupted: false,
        is_unchanged: false,
    };
    match outcome {
        Outcome::Complete { root } => {
            let is_same = |stored: &StoredSnapshot| is_same_tree(&stored.snapshot.root, &root);
            report.is_unchanged =
                run.options.skip_if_unchanged && parents.complete.as_ref().is_some_and(is_same);
            if run.options.dry_run {
                run.backup.flush()?;
            } else if !report.is_unchanged {
                report.snapshot = Some(run.commit(*root, true)?.id);
            }
        }
        Outcome::Interrupted { checkpoint } => {
            if let Some(space) = run.backup.nearly_full() {
                return Err(Error::StorageFull { available: space.available, checkpoint });
            }
            report.is_interrupted = true;
            report.snapshot = checkpoint;
        }
    }
    report.statistics = run.statistics();
    report.incidents = run.incidents.so_far().1;
    Ok(report)
}

/// Whether two roots hold the same pages: everything below is then the same.
fn is_same_tree(first: &Entry, second: &Entry) -> bool {
    match (&first.kind, &second.kind) {
        (EntryKind::Directory { pages: first }, EntryKind::Directory { pages: second }) => {
            first == second
        }
        _ => false,
    }
}
