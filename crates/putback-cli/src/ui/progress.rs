//! Progress: what an operation tells, made visible.
//!
//! [`watch`] runs an operation with an observer beside a painter. Workers only add to atomic
//! counters (and note the name of the file they begin in a slot of their own thread); the painter
//! looks at them at most ten times a second and draws bars, writes status objects, or lines where
//! there is no terminal. Lines about single entries are gathered and written by the painter too, so
//! that they never meet a bar halfway; with nothing to paint they are written at once.

use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use putback_format::id::SnapshotId;
use putback_format::snapshot::IncidentKind;
use putback_repo::{Action, Amount, Event, Observer, Phase};
use serde::Serialize;

use crate::ui::json::storage::WithTraffic;
use crate::ui::remote::Traffic;
use crate::ui::{Ui, json, text};

/// Files that are shown as being worked on; with the two lines of the whole these are six.
const CURRENT_FILES_MAX: usize = 4;
/// Gathered lines are written by whoever adds beyond this, so that a slow reader bounds memory.
const GATHERED_BYTES_MAX: usize = 64 << 10;
/// Where there is no terminal, how often `--verbose` tells how far an operation is.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Opening, making and closing a file takes about as long as reading or writing this many bytes:
/// 10,000 to 20,000 small files a second beside some 500 MB/s on common disks.
const FILE_BYTES: f64 = 32.0 * 1024.0;

/// Updates per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cadence(f64);

impl Cadence {
    fn interval(self) -> Duration {
        Duration::from_secs_f64(1.0 / self.0)
    }
}

impl Default for Cadence {
    fn default() -> Self {
        Self(10.0)
    }
}

impl std::fmt::Display for Cadence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Cadence {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(value) if (0.01..=10.0).contains(&value) => Ok(Self(value)),
            _ => Err("not a number from 0.01 to 10".to_owned()),
        }
    }
}

/// Which operation is watched; it decides the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Backup,
    Restore,
    Check,
    Dump,
    Diff,
    Prune,
    Replicate,
    Rewrite,
}

/// Which entries get a line of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entries {
    /// None.
    None,
    /// What a dry run would write or delete.
    Changes,
    /// All that are looked at.
    All,
    /// Those left out too.
    Excluded,
}

impl Entries {
    /// As `--verbose` and `--dry-run` ask.
    pub(crate) fn wanted(ui: &Ui, dry_run: bool) -> Self {
        match ui.verbosity() {
            _ if ui.is_quiet() => Self::None,
            0 if dry_run => Self::Changes,
            0 => Self::None,
            1 => Self::All,
            _ => Self::Excluded,
        }
    }

    fn covers(self, action: Action) -> bool {
        let needed = match action {
            Action::New
            | Action::Modified
            | Action::Restored
            | Action::Updated
            | Action::Deleted => Self::Changes,
            Action::Excluded => Self::Excluded,
            _ => Self::All,
        };
        self >= needed
    }
}

/// Runs `operation`, showing what it tells.
pub(crate) fn watch<T>(
    ui: &Ui,
    kind: Kind,
    entries: Entries,
    operation: impl FnOnce(&dyn Observer) -> T,
) -> T {
    let look = Look::of(ui, entries);
    let progress = Progress::new(ui, kind, entries, look != Look::None);
    if look == Look::None {
        return operation(&progress);
    }
    std::thread::scope(|scope| {
        let painter = scope.spawn(|| progress.paint(look));
        ui.inner.is_painting.store(look == Look::Bars, Ordering::Relaxed);
        // Also when the operation panics: the scope waits for the painter.
        let _stop = Stop { progress: &progress, painter: painter.thread().clone() };
        operation(&progress)
    })
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    None,
    Bars,
    Lines,
    Json,
}

impl Look {
    fn of(ui: &Ui, entries: Entries) -> Self {
        if ui.is_quiet() {
            Self::None
        } else if ui.is_json() {
            Self::Json
        } else if io::stderr().is_terminal() {
            Self::Bars
        } else if ui.verbosity() > 0 || entries != Entries::None {
            Self::Lines
        } else {
            Self::None
        }
    }
}

/// Whether somebody will see how much is left.
pub(crate) fn wants_total(ui: &Ui) -> bool {
    matches!(Look::of(ui, Entries::None), Look::Bars | Look::Json)
}

/// Ends the painter when the operation ends.
struct Stop<'a> {
    progress: &'a Progress<'a>,
    painter: Thread,
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.progress.ui.inner.is_painting.store(false, Ordering::Relaxed);
        self.progress.is_finished.store(true, Ordering::Release);
        self.painter.unpark();
    }
}

/// Counters of one phase.
#[derive(Default)]
struct Counters {
    items: AtomicU64,
    bytes: AtomicU64,
    items_total: AtomicU64,
    bytes_total: AtomicU64,
    has_total: AtomicBool,
}

impl Counters {
    fn set_total(&self, total: Amount) {
        self.items_total.store(total.items, Ordering::Relaxed);
        self.bytes_total.store(total.bytes, Ordering::Relaxed);
        self.has_total.store(true, Ordering::Relaxed);
    }

    fn done(&self) -> Amount {
        Amount {
            items: self.items.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    fn total(&self) -> Option<Amount> {
        self.has_total.load(Ordering::Relaxed).then(|| Amount {
            items: self.items_total.load(Ordering::Relaxed),
            bytes: self.bytes_total.load(Ordering::Relaxed),
        })
    }
}

/// Names of phases, for people and for programs; the last stands for those that are not known here.
const PHASES: [(&str, &str); 12] = [
    ("backing up", "backup"),
    ("planning", "plan"),
    ("restoring", "restore"),
    ("verifying", "verify"),
    ("checking snapshots", "check_trees"),
    ("reading packs", "check_packs"),
    ("loading index", "index"),
    ("repacking", "repack"),
    ("waiting", "wait"),
    ("replicating", "replicate"),
    ("rewriting", "rewrite"),
    ("working", "other"),
];

fn phase_index(phase: Phase) -> usize {
    match phase {
        Phase::Backup => 0,
        Phase::Plan => 1,
        Phase::Restore => 2,
        Phase::Verify => 3,
        Phase::CheckTrees => 4,
        Phase::CheckPacks => 5,
        Phase::Index => 6,
        Phase::Repack => 7,
        Phase::Wait => 8,
        Phase::Replicate => 9,
        Phase::Rewrite => 10,
        _ => PHASES.len() - 1,
    }
}

/// The observer, and what the painter looks at.
struct Progress<'a> {
    ui: &'a Ui,
    kind: Kind,
    entries: Entries,
    is_painted: bool,
    started: Instant,
    is_finished: AtomicBool,
    /// Index into `PHASES` of the phase that began last; `PHASES.len()` before any did.
    phase: AtomicUsize,
    counters: [Counters; PHASES.len()],
    restored: Counters,
    skipped: Counters,
    deleted: AtomicU64,
    problems: AtomicU64,
    current: [Mutex<Vec<u8>>; CURRENT_FILES_MAX],
    gathered: Mutex<Gathered>,
}

/// Lines that wait for the painter.
#[derive(Default)]
struct Gathered {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

thread_local! {
    /// Which slot of `Progress::current` this thread uses.
    static SLOT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The slot of this thread. Threads beyond the number of slots share.
fn slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    SLOT.with(|slot| {
        slot.get().unwrap_or_else(|| {
            let index = NEXT.fetch_add(1, Ordering::Relaxed) % CURRENT_FILES_MAX;
            slot.set(Some(index));
            index
        })
    })
}

/// What these locks guard is whole at any moment, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Observer for Progress<'_> {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::PhaseStarted { phase, total } => {
                let index = phase_index(phase);
                if let Some(total) = total {
                    // Prune walks the snapshots more than once.
                    if self.kind == Kind::Prune {
                        self.counters[index].items.store(0, Ordering::Relaxed);
                        self.counters[index].bytes.store(0, Ordering::Relaxed);
                    }
                    self.counters[index].set_total(total);
                }
                self.phase.store(index, Ordering::Relaxed);
            }
            Event::Total { phase, total } => self.counters[phase_index(phase)].set_total(total),
            Event::Advanced { phase, by } => {
                let counters = &self.counters[phase_index(phase)];
                counters.items.fetch_add(by.items, Ordering::Relaxed);
                counters.bytes.fetch_add(by.bytes, Ordering::Relaxed);
            }
            Event::FileStarted { path } if self.is_painted => {
                // Nobody waits for a name that is gone in a moment.
                if let Ok(mut current) = self.current[slot()].try_lock() {
                    current.clear();
                    current.extend_from_slice(path);
                }
            }
            Event::Entry { path, action, bytes } => self.entry(path, action, bytes),
            Event::Problem { path, kind, message } => self.problem(path, kind, message),
            Event::Warning { message } => self.ui.warning(message),
            Event::Resumed { checkpoint, packs } => self.resumed(checkpoint, packs),
            Event::Checkpoint { snapshot } => self.checkpoint(snapshot),
            _ => {}
        }
    }
}

impl<'a> Progress<'a> {
    fn new(ui: &'a Ui, kind: Kind, entries: Entries, is_painted: bool) -> Self {
        Self {
            ui,
            kind,
            entries,
            is_painted,
            started: Instant::now(),
            is_finished: AtomicBool::new(false),
            phase: AtomicUsize::new(PHASES.len()),
            counters: Default::default(),
            restored: Counters::default(),
            skipped: Counters::default(),
            deleted: AtomicU64::new(0),
            problems: AtomicU64::new(0),
            current: Default::default(),
            gathered: Mutex::default(),
        }
    }

    fn entry(&self, path: &[u8], action: Action, bytes: u64) {
        let counters = match action {
            Action::Restored | Action::Updated => Some(&self.restored),
            Action::Skipped | Action::Unchanged => Some(&self.skipped),
            Action::Deleted => {
                self.deleted.fetch_add(1, Ordering::Relaxed);
                None
            }
            _ => None,
        };
        if let (Some(counters), Kind::Restore) = (counters, self.kind) {
            counters.items.fetch_add(1, Ordering::Relaxed);
            counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        if self.is_painted
            && let Ok(mut current) = self.current[slot()].try_lock()
            && *current == path
        {
            current.clear();
        }
        if self.entries.covers(action) {
            let name = action_name(action);
            if self.ui.is_json() {
                let (item, item_base64) = json::name(path);
                let status = json::VerboseStatus {
                    message_type: "verbose_status",
                    action: name,
                    item,
                    item_base64,
                    size: bytes,
                };
                self.stdout(&json::line(&status));
            } else {
                let (path, bytes) = (text::escaped(path), text::bytes(bytes));
                self.stdout(format!("{name:<9} {path}, {bytes}\n").as_bytes());
            }
        }
    }

    fn problem(&self, path: &[u8], kind: IncidentKind, message: &str) {
        self.problems.fetch_add(1, Ordering::Relaxed);
        let during = self.phase_names().1;
        self.stderr(&problem_line(self.ui, self.kind, during, path, kind, message));
    }

    fn resumed(&self, checkpoint: Option<SnapshotId>, packs: u64) {
        if self.ui.is_quiet() {
            return;
        }
        if self.ui.is_json() {
            let checkpoint = checkpoint.map(|id| id.to_string());
            self.stdout(&json::line(&json::Resumed { message_type: "resumed", checkpoint, packs }));
            return;
        }
        let from =
            checkpoint.map_or_else(String::new, |id| format!(" from checkpoint {}", id.short()));
        let packs = match packs {
            0 => String::new(),
            packs => {
                format!("; {} that it had stored are used", text::counted(packs, "pack", "packs"))
            }
        };
        self.stdout(format!("continuing an unfinished backup{from}{packs}\n").as_bytes());
    }

    fn checkpoint(&self, snapshot: SnapshotId) {
        if self.ui.is_quiet() {
            return;
        }
        if self.ui.is_json() {
            let id = snapshot.to_string();
            let checkpoint = json::Checkpoint { message_type: "checkpoint", snapshot_id: &id };
            self.stdout(&json::line(&checkpoint));
        } else if self.ui.verbosity() > 0 {
            self.stdout(format!("safe so far: checkpoint {}\n", snapshot.short()).as_bytes());
        }
    }

    fn stdout(&self, bytes: &[u8]) {
        if !self.is_painted {
            return self.ui.write_stdout(bytes);
        }
        let mut gathered = lock(&self.gathered);
        gathered.stdout.extend_from_slice(bytes);
        if gathered.stdout.len() > GATHERED_BYTES_MAX {
            self.write_gathered(&mut gathered);
        }
    }

    fn stderr(&self, bytes: &[u8]) {
        if !self.is_painted {
            return self.ui.write_stderr(bytes);
        }
        let mut gathered = lock(&self.gathered);
        gathered.stderr.extend_from_slice(bytes);
        if gathered.stderr.len() > GATHERED_BYTES_MAX {
            self.write_gathered(&mut gathered);
        }
    }

    fn write_gathered(&self, gathered: &mut Gathered) {
        if !gathered.stdout.is_empty() {
            self.ui.write_stdout(&gathered.stdout);
            gathered.stdout.clear();
        }
        if !gathered.stderr.is_empty() {
            self.ui.write_stderr(&gathered.stderr);
            gathered.stderr.clear();
        }
    }

    fn phase_names(&self) -> (&'static str, &'static str) {
        let index = self.phase.load(Ordering::Relaxed);
        PHASES.get(index).copied().unwrap_or(("starting", "start"))
    }

    /// The painter's life.
    fn paint(&self, look: Look) {
        let interval = self.ui.inner.cadence.interval();
        let mut bars = (look == Look::Bars).then(|| Bars::new(self.ui));
        let mut pace = Pace::default();
        let mut last_line = Instant::now();
        while !self.is_finished.load(Ordering::Acquire) {
            std::thread::park_timeout(interval);
            let is_finished = self.is_finished.load(Ordering::Acquire);
            let mut gathered = lock(&self.gathered);
            self.write_gathered(&mut gathered);
            drop(gathered);
            if is_finished || self.ui.inner.is_ending.load(Ordering::Acquire) {
                break;
            }
            let view = self.view(&mut pace);
            match look {
                Look::None => {}
                Look::Bars => {
                    if let Some(bars) = &mut bars {
                        bars.draw(&view);
                    }
                }
                Look::Lines => {
                    if self.ui.verbosity() > 0 && last_line.elapsed() >= LINE_INTERVAL {
                        last_line = Instant::now();
                        let (headline, amounts) = (view.headline(), view.amounts());
                        let line = format!("{}: {}, {amounts}\n", view.phase, headline.trim());
                        self.ui.write_stderr(line.as_bytes());
                    }
                }
                Look::Json => self.status(&view),
            }
        }
        // The operation may have ended before this thread began, or since it last looked.
        self.write_gathered(&mut lock(&self.gathered));
        if let Some(bars) = bars {
            bars.remove();
        }
    }

    fn view(&self, pace: &mut Pace) -> View {
        let index = self.phase.load(Ordering::Relaxed).min(PHASES.len() - 1);
        let counters = &self.counters[index];
        let done = counters.done();
        let elapsed = self.started.elapsed();
        pace.add(index, elapsed, done);
        let current = self
            .current
            .iter()
            .map(|slot| lock(slot).clone())
            .filter(|path| !path.is_empty())
            .collect();
        View {
            phase: self.phase_names().0,
            phase_code: self.phase_names().1,
            items: match self.kind {
                _ if self.phase_names().1 == "wait" => "seconds",
                Kind::Backup | Kind::Restore => "files",
                Kind::Replicate | Kind::Rewrite => "snapshots",
                Kind::Check | Kind::Dump | Kind::Diff | Kind::Prune => "objects",
            },
            elapsed,
            done,
            total: counters.total(),
            item_bytes: match self.kind {
                Kind::Backup | Kind::Restore => FILE_BYTES,
                _ => 1.0,
            },
            bytes_per_second: pace.bytes_per_second(),
            items_per_second: pace.items_per_second(),
            problems: self.problems.load(Ordering::Relaxed),
            current,
            traffic: self.ui.remotes().traffic(),
            waiting: self.ui.remotes().waiting(),
        }
    }

    fn status(&self, view: &View) {
        let current: Vec<String> =
            view.current.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        let seconds_elapsed = view.elapsed.as_secs();
        let percent_done = view.fraction().unwrap_or(0.0);
        let seconds_remaining = view.remaining().map(|left| left.as_secs());
        let total = view.total.unwrap_or_default();
        let bytes = match self.kind {
            Kind::Restore => view.line(&json::RestoreStatus {
                message_type: "status",
                phase: view.phase_code,
                seconds_elapsed,
                seconds_remaining,
                percent_done,
                total_files: total.items,
                files_restored: self.restored.items.load(Ordering::Relaxed),
                files_skipped: self.skipped.items.load(Ordering::Relaxed),
                files_deleted: self.deleted.load(Ordering::Relaxed),
                total_bytes: total.bytes,
                bytes_restored: view.done.bytes,
                bytes_skipped: self.skipped.bytes.load(Ordering::Relaxed),
                error_count: view.problems,
                current_files: current,
            }),
            Kind::Backup => view.line(&json::BackupStatus {
                message_type: "status",
                phase: view.phase_code,
                seconds_elapsed,
                seconds_remaining,
                percent_done,
                total_files: total.items,
                files_done: view.done.items,
                total_bytes: total.bytes,
                bytes_done: view.done.bytes,
                error_count: view.problems,
                current_files: current,
            }),
            _ => view.line(&json::Status {
                message_type: "status",
                phase: view.phase_code,
                seconds_elapsed,
                seconds_remaining,
                percent_done,
                total_items: total.items,
                items_done: view.done.items,
                total_bytes: total.bytes,
                bytes_done: view.done.bytes,
                error_count: view.problems,
            }),
        };
        // What these write is not to be mixed with anything.
        if matches!(self.kind, Kind::Dump | Kind::Diff) {
            self.ui.write_stderr(&bytes);
        } else {
            self.ui.write_stdout(&bytes);
        }
    }
}

/// The counters at one moment.
struct View {
    phase: &'static str,
    phase_code: &'static str,
    items: &'static str,
    elapsed: Duration,
    done: Amount,
    total: Option<Amount>,
    /// Bytes that could be handled in the time that an entry takes besides its own.
    item_bytes: f64,
    bytes_per_second: f64,
    items_per_second: f64,
    problems: u64,
    current: Vec<Vec<u8>>,
    /// What storages over a network did so far, if there are any.
    traffic: Option<Traffic>,
    /// What such a storage asks to wait for.
    waiting: Option<String>,
}

impl View {
    /// A `status` object as a line, with what storages over a network did.
    fn line(&self, status: &impl Serialize) -> Vec<u8> {
        json::line(&WithTraffic { object: status, traffic: self.traffic })
    }

    /// How much work that is: bytes, and as many more for each entry as it takes time. Where no
    /// bytes are expected, entries alone count.
    fn work(&self, items: f64, bytes: f64) -> f64 {
        let counts_bytes = self.total.is_some_and(|total| total.bytes > 0);
        items * self.item_bytes + if counts_bytes { bytes } else { 0.0 }
    }

    /// From 0 to 1, of the work.
    fn fraction(&self) -> Option<f64> {
        let total = self.total?;
        let done = self.work(self.done.items as f64, self.done.bytes as f64);
        let total = self.work(total.items as f64, total.bytes as f64);
        (total > 0.0).then(|| (done / total).min(1.0))
    }

    fn remaining(&self) -> Option<Duration> {
        let total = self.total?;
        let items = total.items.saturating_sub(self.done.items);
        let bytes = total.bytes.saturating_sub(self.done.bytes);
        let pace = self.work(self.items_per_second, self.bytes_per_second);
        let seconds = self.work(items as f64, bytes as f64) / pace;
        (seconds.is_finite() && seconds < 1e9).then(|| Duration::from_secs_f64(seconds))
    }

    /// How far, how much longer, how fast.
    fn headline(&self) -> String {
        let mut parts = Vec::new();
        if let Some(fraction) = self.fraction() {
            parts.push(format!("{:3.0} %", (fraction * 100.0).floor()));
        }
        let is_read = self.total.is_some_and(|total| self.done.bytes >= total.bytes);
        match self.remaining() {
            // What is read is not yet sent.
            _ if is_read && self.phase_code == "backup" && self.traffic.is_some() => {
                parts.push("sending the rest".to_owned());
            }
            Some(left) => parts.push(format!("{} left", text::duration(left.as_secs()))),
            None => parts.push(text::duration(self.elapsed.as_secs())),
        }
        if self.bytes_per_second >= 1.0 {
            parts.push(format!("{}/s", text::bytes(self.bytes_per_second as u64)));
        }
        if self.problems > 0 {
            parts.push(text::counted(self.problems, "problem", "problems"));
        }
        parts.join("  ")
    }

    /// How much of how much.
    fn amounts(&self) -> String {
        let total = self.total.unwrap_or_default();
        let of = |total: u64, shown: fn(u64) -> String| match total {
            0 => String::new(),
            total => format!(" of {}", shown(total)),
        };
        let mut out = format!(
            "{}{}, {}{} {}",
            text::bytes(self.done.bytes),
            of(total.bytes, text::bytes),
            text::count(self.done.items),
            of(total.items, text::count),
            self.items,
        );
        let traffic = self.traffic.as_ref().map(Traffic::headline);
        for part in self.waiting.iter().chain(&traffic) {
            out.push_str("; ");
            out.push_str(part);
        }
        out
    }
}

/// Speed, smoothed over a few seconds and started anew with each phase.
#[derive(Default)]
struct Pace {
    phase: usize,
    last: Option<(Duration, Amount)>,
    smoothed: Option<(f64, f64)>,
}

impl Pace {
    fn add(&mut self, phase: usize, now: Duration, done: Amount) {
        if phase != self.phase {
            *self = Self { phase, ..Self::default() };
        }
        let Some((before, amount)) = self.last.replace((now, done)) else { return };
        let seconds = now.saturating_sub(before).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let bytes = done.bytes.saturating_sub(amount.bytes) as f64 / seconds;
        let items = done.items.saturating_sub(amount.items) as f64 / seconds;
        let weight = 1.0 - (-seconds / 5.0).exp();
        self.smoothed = Some(match self.smoothed {
            None => (bytes, items),
            Some((old_bytes, old_items)) => {
                (old_bytes + weight * (bytes - old_bytes), old_items + weight * (items - old_items))
            }
        });
    }

    fn bytes_per_second(&self) -> f64 {
        self.smoothed.map_or(0.0, |(bytes, _)| bytes)
    }

    fn items_per_second(&self) -> f64 {
        self.smoothed.map_or(0.0, |(_, items)| items)
    }
}

/// The lines on the terminal: the whole, and below it the files being worked on.
struct Bars<'a> {
    ui: &'a Ui,
    whole: ProgressBar,
    amounts: ProgressBar,
    files: Vec<ProgressBar>,
    is_measured: bool,
}

impl<'a> Bars<'a> {
    fn new(ui: &'a Ui) -> Self {
        ui.inner.is_drawn.store(true, Ordering::Release);
        ui.inner.bars.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let whole = ui.inner.bars.add(ProgressBar::no_length());
        whole.set_style(style("{prefix}  {wide_msg}"));
        let amounts = ui.inner.bars.add(ProgressBar::no_length());
        amounts.set_style(style("  {wide_msg}"));
        Self { ui, whole, amounts, files: Vec::new(), is_measured: false }
    }

    fn draw(&mut self, view: &View) {
        let fraction = view.fraction();
        if fraction.is_some() != self.is_measured {
            self.is_measured = fraction.is_some();
            let template = if self.is_measured {
                "{prefix}  [{bar:24}] {wide_msg}"
            } else {
                "{prefix}  {wide_msg}"
            };
            self.whole.set_style(style(template));
        }
        if let Some(fraction) = fraction {
            self.whole.set_length(1000);
            self.whole.set_position((fraction * 1000.0) as u64);
        }
        self.whole.set_prefix(view.phase);
        self.whole.set_message(view.headline());
        self.amounts.set_message(view.amounts());
        while self.files.len() > view.current.len() {
            if let Some(bar) = self.files.pop() {
                bar.finish_and_clear();
                self.ui.inner.bars.remove(&bar);
            }
        }
        while self.files.len() < view.current.len() {
            let bar = self.ui.inner.bars.add(ProgressBar::no_length());
            bar.set_style(style("    {wide_msg}"));
            self.files.push(bar);
        }
        for (bar, path) in self.files.iter().zip(&view.current) {
            bar.set_message(text::escaped(path));
        }
    }

    fn remove(self) {
        for bar in &self.files {
            bar.finish_and_clear();
        }
        self.amounts.finish_and_clear();
        self.whole.finish_and_clear();
        drop(self.ui.inner.bars.clear());
        self.ui.inner.bars.set_draw_target(ProgressDrawTarget::hidden());
        self.ui.inner.is_drawn.store(false, Ordering::Release);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("templates are constants").progress_chars("=> ")
}

fn action_name(action: Action) -> &'static str {
    match action {
        Action::New => "new",
        Action::Modified => "modified",
        Action::Unchanged => "unchanged",
        Action::Excluded => "excluded",
        Action::Restored => "restored",
        Action::Updated => "updated",
        Action::Skipped => "skipped",
        Action::Deleted => "deleted",
        _ => "other",
    }
}

/// Tells what an operation that shows no progress could not do.
pub(crate) struct Problems<'a> {
    ui: &'a Ui,
    kind: Kind,
    during: &'static str,
}

impl<'a> Problems<'a> {
    /// Of this operation; `during` is its name for programs.
    pub(crate) fn new(ui: &'a Ui, kind: Kind, during: &'static str) -> Self {
        Self { ui, kind, during }
    }
}

impl Observer for Problems<'_> {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Problem { path, kind, message } => {
                let line = problem_line(self.ui, self.kind, self.during, path, kind, message);
                self.ui.write_stderr(&line);
            }
            Event::Warning { message } => self.ui.warning(message),
            _ => {}
        }
    }
}

/// What an operation could not do, for people or for programs.
fn problem_line(
    ui: &Ui,
    operation: Kind,
    during: &'static str,
    path: &[u8],
    kind: IncidentKind,
    message: &str,
) -> Vec<u8> {
    if !ui.is_json() {
        return format!("error: {}\n", problem_sentence(operation, path, kind, message)).into();
    }
    let (item, item_base64) = json::name(path);
    json::line(&json::Error {
        message_type: "error",
        error: json::ErrorMessage { message: &text::printable(message) },
        during,
        item,
        item_base64,
        kind: incident_code(kind),
    })
}

/// What happened to an entry and why, as a sentence whose subject is its path.
fn problem_sentence(operation: Kind, path: &[u8], kind: IncidentKind, message: &str) -> String {
    let (path, message) = (text::escaped(path), text::printable(message));
    let what = incident_text(operation, kind);
    // A cause may begin by what has just been said.
    match message.strip_prefix("it ").and_then(|message| message.strip_prefix(what)) {
        Some(rest) => format!("{path} {what}{rest}"),
        None => format!("{path} {what}: {message}"),
    }
}

/// What happened to an entry: the predicate of its path.
fn incident_text(operation: Kind, kind: IncidentKind) -> &'static str {
    match (operation, kind) {
        (Kind::Backup | Kind::Check | Kind::Prune, IncidentKind::Unreadable) => "could not be read",
        (Kind::Backup | Kind::Check | Kind::Prune, IncidentKind::ChangedWhileRead) => {
            "changed while it was read"
        }
        (Kind::Backup | Kind::Check | Kind::Prune, IncidentKind::Vanished) => "vanished",
        (Kind::Backup | Kind::Check | Kind::Prune, IncidentKind::MetadataIncomplete) => {
            "has metadata that could not be kept"
        }
        (Kind::Backup | Kind::Check | Kind::Prune, IncidentKind::Lost) => "was lost",
        (Kind::Restore, IncidentKind::MetadataIncomplete) => "was restored without all metadata",
        (Kind::Restore, _) => "could not be restored",
        (Kind::Dump, IncidentKind::MetadataIncomplete) => "is in the archive, but not as it was",
        (Kind::Dump, _) => "is not in the archive",
        (Kind::Diff, _) => "could not be compared",
        (Kind::Replicate, _) => "could not be copied",
        (Kind::Rewrite, _) => "could not be looked at",
    }
}

/// The same for programs.
fn incident_code(kind: IncidentKind) -> &'static str {
    match kind {
        IncidentKind::Unreadable => "unreadable",
        IncidentKind::ChangedWhileRead => "changed_while_read",
        IncidentKind::Vanished => "vanished",
        IncidentKind::MetadataIncomplete => "metadata_incomplete",
        IncidentKind::Lost => "lost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(done: Amount, total: Option<Amount>) -> View {
        View {
            phase: "working",
            phase_code: "other",
            items: "files",
            elapsed: Duration::from_secs(5),
            done,
            total,
            item_bytes: 1.0,
            bytes_per_second: 1024.0,
            items_per_second: 2.0,
            problems: 0,
            current: Vec::new(),
            traffic: None,
            waiting: None,
        }
    }

    #[test]
    fn progress_goes_by_bytes_and_by_items_where_there_are_none() {
        let done = Amount { items: 1, bytes: 1024 };
        let bytes =
            View { items_per_second: 1.0, ..view(done, Some(Amount { items: 4, bytes: 4096 })) };
        assert_eq!(bytes.fraction(), Some(0.25));
        assert_eq!(bytes.remaining(), Some(Duration::from_secs(3)));
        assert_eq!(bytes.headline(), " 25 %  0:03 left  1.0 KiB/s");
        assert_eq!(bytes.amounts(), "1.0 KiB of 4.0 KiB, 1 of 4 files");
        let items = view(done, Some(Amount { items: 5, bytes: 0 }));
        assert_eq!(items.fraction(), Some(0.2));
        assert_eq!(items.remaining(), Some(Duration::from_secs(2)));
        let unknown = view(done, None);
        assert_eq!(unknown.fraction(), None);
        assert_eq!(unknown.headline(), "0:05  1.0 KiB/s");
        assert_eq!(unknown.amounts(), "1.0 KiB, 1 files");
        // More done than was expected: a source that grows.
        assert_eq!(view(Amount { items: 9, bytes: 9000 }, bytes.total).fraction(), Some(1.0));
    }

    #[test]
    fn waits_for_a_storage_and_requests_stand_behind_the_amounts() {
        let remote = View {
            phase_code: "backup",
            traffic: Some(Traffic { requests: 12, bytes_sent: 2048, ..Traffic::default() }),
            waiting: Some("waiting 12 s for put.io's rate limit".to_owned()),
            ..view(Amount { items: 1, bytes: 1024 }, Some(Amount { items: 1, bytes: 1024 }))
        };
        assert_eq!(
            remote.amounts(),
            "1.0 KiB of 1.0 KiB, 1 of 1 files; waiting 12 s for put.io's rate limit; \
             12 requests, 2.0 KiB sent"
        );
        assert_eq!(remote.headline(), "100 %  sending the rest  1.0 KiB/s");
    }

    #[test]
    fn many_small_files_take_their_time_although_they_have_few_bytes() {
        // All large files are done, and with them nearly all bytes; 9,000 small ones are left.
        let view = View {
            item_bytes: FILE_BYTES,
            bytes_per_second: 100_000.0,
            items_per_second: 1_000.0,
            ..view(
                Amount { items: 1_000, bytes: 99_100_000 },
                Some(Amount { items: 10_000, bytes: 100_000_000 }),
            )
        };
        let fraction = view.fraction().unwrap();
        assert!((0.25..0.4).contains(&fraction), "{fraction}");
        let remaining = view.remaining().unwrap().as_secs_f64();
        assert!((8.9..9.1).contains(&remaining), "{remaining}");
    }

    #[test]
    fn each_operation_has_its_own_words_and_none_says_a_thing_twice() {
        use IncidentKind::{ChangedWhileRead, Lost, MetadataIncomplete, Unreadable};
        let check = |operation, kind, message, expected: &str| {
            assert_eq!(problem_sentence(operation, b"/a", kind, message), expected);
        };
        check(Kind::Backup, Unreadable, "denied", "/a could not be read: denied");
        let twice = "it changed while it was read; the snapshot holds what was read";
        let once = "/a changed while it was read; the snapshot holds what was read";
        check(Kind::Backup, ChangedWhileRead, twice, once);
        check(Kind::Restore, Unreadable, "denied", "/a could not be restored: denied");
        check(Kind::Restore, Lost, "damaged", "/a could not be restored: damaged");
        let expected = "/a was restored without all metadata: denied";
        check(Kind::Restore, MetadataIncomplete, "denied", expected);
        check(Kind::Dump, Unreadable, "a socket", "/a is not in the archive: a socket");
        check(Kind::Diff, Unreadable, "denied", "/a could not be compared: denied");
    }

    #[test]
    fn the_pace_of_one_phase_says_nothing_about_the_next() {
        let mut pace = Pace::default();
        pace.add(1, Duration::from_secs(1), Amount::default());
        pace.add(1, Duration::from_secs(2), Amount { items: 10, bytes: 1000 });
        assert!((pace.bytes_per_second() - 1000.0).abs() < 1e-6);
        pace.add(2, Duration::from_secs(3), Amount::default());
        assert!(pace.bytes_per_second().abs() < 1e-6);
    }

    #[test]
    fn a_dry_run_lists_what_would_change_and_only_that() {
        for (entries, action, expected) in [
            (Entries::None, Action::New, false),
            (Entries::Changes, Action::New, true),
            (Entries::Changes, Action::Deleted, true),
            (Entries::Changes, Action::Unchanged, false),
            (Entries::All, Action::Unchanged, true),
            (Entries::All, Action::Excluded, false),
            (Entries::Excluded, Action::Excluded, true),
        ] {
            assert_eq!(entries.covers(action), expected, "{entries:?} {action:?}");
        }
    }
}
