//! Virtual time, and whose turn it is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// When which machine goes on. Times are nanoseconds since the world began.
pub(super) struct Schedule {
    now: u64,
    /// Time, order of entering, machine.
    waiting: BinaryHeap<Reverse<(u64, u64, usize)>>,
    entered: u64,
    turn: Option<usize>,
    is_running: bool,
}

impl Schedule {
    pub(super) fn new(now: u64, machines: usize) -> Self {
        let waiting = BinaryHeap::with_capacity(machines);
        Self { now, waiting, entered: 0, turn: None, is_running: false }
    }

    pub(super) const fn now(&self) -> u64 {
        self.now
    }

    /// Who runs.
    pub(super) const fn turn(&self) -> Option<usize> {
        self.turn
    }

    /// Whether machines take turns; else there is only one.
    pub(super) const fn is_running(&self) -> bool {
        self.is_running
    }

    /// Lets time pass for the only machine there is.
    pub(super) const fn pass(&mut self, nanos: u64) {
        self.now = self.now.saturating_add(nanos);
    }

    /// Has a machine go on after so much time.
    pub(super) fn wake_at(&mut self, nanos: u64, machine: usize) {
        self.entered += 1;
        self.waiting.push(Reverse((self.now.saturating_add(nanos), self.entered, machine)));
    }

    /// Gives the turn to whoever waits for the earliest time.
    pub(super) fn next(&mut self) -> Option<usize> {
        let next = self.waiting.pop().map(|Reverse(next)| next);
        if let Some((time, _, _)) = next {
            self.now = self.now.max(time);
        }
        self.turn = next.map(|(_, _, machine)| machine);
        self.turn
    }

    pub(super) fn begin(&mut self) -> Option<usize> {
        self.is_running = true;
        self.next()
    }

    pub(super) fn end(&mut self) {
        self.is_running = false;
        self.turn = None;
    }
}
