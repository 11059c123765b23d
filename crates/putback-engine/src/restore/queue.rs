//! What the planner hands to the workers, and the queue that it goes through.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use putback_repo::Phase;

use crate::restore::Run;
use crate::restore::folder::guard;
use crate::restore::item::{Candidate, Item, Link, Piece};

/// Part of the plan, shared by the tasks that carry it out.
#[derive(Default)]
pub(super) struct Window {
    pub(super) items: Vec<Arc<Item>>,
    /// Items that need no frame.
    pub(super) plain: Vec<Arc<Item>>,
    /// Sorted by where they are stored.
    pub(super) pieces: Vec<Piece>,
    pub(super) links: Vec<Link>,
    pub(super) tasks_left: AtomicUsize,
}

/// Files to compare with what is in the target.
pub(super) struct Comparison {
    pub(super) phase: Phase,
    pub(super) items: Vec<Arc<Item>>,
    /// Ascending by item and position.
    pub(super) candidates: Vec<Candidate>,
    /// Whether the file holds what the candidate says.
    pub(super) matched: Vec<AtomicBool>,
    /// Candidates that were not looked at yet.
    left: Mutex<usize>,
    done: Condvar,
}

impl Comparison {
    pub(super) fn new(
        phase: Phase,
        items: Vec<Arc<Item>>,
        candidates: Vec<Candidate>,
    ) -> Arc<Self> {
        let matched = candidates.iter().map(|_| false.into()).collect();
        let left = Mutex::new(candidates.len());
        Arc::new(Self { phase, items, candidates, matched, left, done: Condvar::new() })
    }

    /// Waits until all candidates were looked at; false if the restore was stopped before.
    pub(super) fn wait(&self, run: &Run<'_>) -> bool {
        let mut left = guard(&self.left);
        while *left > 0 && !run.is_stopped() && !run.queue.is_abandoned() {
            // Nobody wakes this thread when the restore is cancelled, or a worker panics.
            let patience = std::time::Duration::from_millis(100);
            let waited = self.done.wait_timeout(left, patience);
            left = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *left == 0
    }

    pub(super) fn note_done(&self, count: usize) {
        let mut left = guard(&self.left);
        *left -= count;
        if *left == 0 {
            self.done.notify_all();
        }
    }
}

/// Something for a worker to do.
pub(super) enum Task {
    /// Items that need no frame, by number in `plain`.
    Plain(Arc<Window>, Range<usize>),
    /// Pieces of one pack.
    Frames(Arc<Window>, Range<usize>),
    /// Links of a window whose other tasks are done.
    Links(Arc<Window>, Range<usize>),
    /// Candidates.
    Compare(Arc<Comparison>, Range<usize>),
}

/// Tasks on their way to the workers. At most one window waits in it.
pub(super) struct Queue<T> {
    state: Mutex<QueueState<T>>,
    changed: Condvar,
}

struct QueueState<T> {
    tasks: VecDeque<T>,
    running: usize,
    is_closed: bool,
    /// Nobody will take tasks any more.
    is_abandoned: bool,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        let state = QueueState {
            tasks: VecDeque::new(),
            running: 0,
            is_closed: false,
            is_abandoned: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn wait_while(
        &self,
        condition: impl Fn(&QueueState<T>) -> bool,
    ) -> MutexGuard<'_, QueueState<T>> {
        let mut state = guard(&self.state);
        while !state.is_abandoned && condition(&state) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Waits until every task was taken, then adds these.
    pub(super) fn push_when_empty(&self, tasks: Vec<T>) {
        let mut state = self.wait_while(|state| !state.tasks.is_empty());
        if !state.is_abandoned {
            state.tasks.extend(tasks);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Adds tasks before all others. Only for one who runs a task.
    pub(super) fn push_first(&self, tasks: Vec<T>) {
        let mut state = guard(&self.state);
        if !state.is_abandoned {
            for task in tasks.into_iter().rev() {
                state.tasks.push_front(task);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until every task is done.
    pub(super) fn wait_until_idle(&self) {
        drop(self.wait_while(|state| !state.tasks.is_empty() || state.running > 0));
    }

    /// The next task; none when no more will come.
    pub(super) fn next(&self) -> Option<(T, Running<'_, T>)> {
        let mut state = self.wait_while(|state| state.tasks.is_empty() && !state.is_closed);
        if state.is_abandoned {
            return None;
        }
        let task = state.tasks.pop_front()?;
        state.running += 1;
        drop(state);
        self.changed.notify_all();
        Some((task, Running { queue: self }))
    }

    /// Forgets all tasks, and lets nobody wait any more.
    pub(super) fn abandon(&self) {
        let mut state = guard(&self.state);
        state.tasks.clear();
        state.is_abandoned = true;
        drop(state);
        self.changed.notify_all();
    }

    /// Whether nobody will take tasks any more.
    pub(super) fn is_abandoned(&self) -> bool {
        guard(&self.state).is_abandoned
    }

    /// Ends the queue when the returned value goes: workers leave when it is empty. It can be used again after.
    pub(super) fn close_on_drop(&self) -> Closing<'_, T> {
        guard(&self.state).is_closed = false;
        Closing { queue: self }
    }
}

/// A task that is being carried out.
pub(super) struct Running<'a, T> {
    queue: &'a Queue<T>,
}

impl<T> Drop for Running<'_, T> {
    fn drop(&mut self) {
        guard(&self.queue.state).running -= 1;
        if std::thread::panicking() {
            // The others must not wait for what this one will not do.
            self.queue.abandon();
        }
        self.queue.changed.notify_all();
    }
}

/// Ends a queue on drop.
pub(super) struct Closing<'a, T> {
    queue: &'a Queue<T>,
}

impl<T> Drop for Closing<'_, T> {
    fn drop(&mut self) {
        guard(&self.queue.state).is_closed = true;
        if std::thread::panicking() {
            self.queue.abandon();
        }
        self.queue.changed.notify_all();
    }
}
