//! What is later than what among snapshots.
//!
//! Time decides, by the clocks of those who made them. A clock that was ahead must not let a snapshot stand above what
//! the same machine made after it: one that is dated in the future goes before the first of those which its writer's
//! own numbers say came later. A snapshot that stands for another one is later than it, whoever wrote it.
//!
//! `docs/format.md`, "Snapshots".

use std::cmp::Reverse;
use std::collections::BTreeMap;

use putback_format::id::WriterId;
use putback_format::tree::Timestamp;

use crate::Repository;
use crate::snapshots::StoredSnapshot;

/// Seconds by which clocks of different machines may differ without a word.
const CLOCKS_DIFFER_SECONDS_MAX: i64 = 3600;

/// Words that every warning of a snapshot has that is dated in the future.
pub const IN_THE_FUTURE: &str = "dated in the future";

/// Whether nothing can have been made at this time yet: it is more than an hour after `now`.
#[must_use]
pub fn is_in_future(time: Timestamp, now: Timestamp) -> bool {
    time.seconds > now.seconds.saturating_add(CLOCKS_DIFFER_SECONDS_MAX)
}

/// Puts snapshots in order, the oldest first.
pub fn sort(snapshots: &mut [StoredSnapshot], now: Timestamp) {
    let mut of_writers: BTreeMap<WriterId, Vec<&StoredSnapshot>> = BTreeMap::new();
    for stored in snapshots.iter() {
        of_writers.entry(stored.snapshot.made().writer).or_default().push(stored);
    }
    let mut moved = BTreeMap::new();
    for mut made in of_writers.into_values() {
        made.sort_by_cached_key(|stored| Reverse(number(stored)));
        let mut earliest: Option<Timestamp> = None;
        for stored in made {
            let mut time = stored.snapshot.time;
            if let Some(earliest) = earliest.filter(|earliest| *earliest < time)
                && is_in_future(time, now)
            {
                time = earliest;
                moved.insert(stored.id, time);
            }
            earliest = Some(earliest.map_or(time, |earliest| earliest.min(time)));
        }
    }
    snapshots.sort_by_cached_key(|stored| {
        let time = moved.get(&stored.id).copied().unwrap_or(stored.snapshot.time);
        (time, number(stored), stored.id)
    });
}

/// The order of a writer's snapshots among themselves.
fn number(stored: &StoredSnapshot) -> (u64, u32, u64) {
    let made = stored.snapshot.made();
    (made.sequence, made.rewrites, stored.snapshot.sequence)
}

impl Repository {
    /// Puts snapshots in order, the oldest first: time decides, but a snapshot that is dated in the future is not later
    /// than what its writer made after it.
    pub fn sort_snapshots(&self, snapshots: &mut [StoredSnapshot]) {
        sort(snapshots, self.now());
    }

    /// Warns if some of these snapshots are dated in the future: they were made by a clock that was ahead, or the
    /// clock of this machine is behind.
    pub fn warn_of_future<'a>(&self, snapshots: impl IntoIterator<Item = &'a StoredSnapshot>) {
        let now = self.now();
        let mut future: Vec<&StoredSnapshot> = snapshots
            .into_iter()
            .filter(|stored| is_in_future(stored.snapshot.time, now))
            .collect();
        future.sort_by_key(|stored| (stored.snapshot.time, stored.id));
        let Some(farthest) = future.pop() else { return };
        let (id, host) = (farthest.id.short(), &farthest.snapshot.host);
        let ahead = farthest.snapshot.time.seconds.saturating_sub(now.seconds);
        let others = match future.len() {
            0 => String::new(),
            1 => ", and one more by less".to_owned(),
            others => format!(", and {others} more by less"),
        };
        self.warn(format!(
            "snapshot {id} of {host} is {IN_THE_FUTURE}, by {}{others}: the clock of the machine that made it was wrong, \
             or the clock of this machine is wrong now",
            rough(ahead)
        ));
    }
}

/// So many seconds, in the largest unit of which they are two.
fn rough(seconds: i64) -> String {
    let units = [("years", 31_557_600), ("days", 86_400), ("hours", 3600)];
    let unit = units.into_iter().find(|(_, unit)| seconds >= 2 * unit);
    let (name, unit) = unit.unwrap_or(("minutes", 60));
    format!("{} {name}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use putback_format::id::SnapshotId;
    use putback_format::snapshot::{Snapshot, Statistics};
    use putback_format::tree::{Entry, EntryKind};

    use super::*;

    const HOUR: i64 = 3600;
    const NOW: i64 = 1_000 * HOUR;

    /// What writer `writer` made as its number `sequence`, so many hours after now by its clock.
    fn made(writer: u8, sequence: u64, hours: i64) -> StoredSnapshot {
        StoredSnapshot {
            id: SnapshotId::from_bytes([16 * writer + sequence as u8; 32]),
            snapshot: Snapshot {
                root: Entry::new("", EntryKind::Directory { pages: Vec::new() }),
                time: Timestamp { seconds: NOW + hours * HOUR, nanoseconds: 0 },
                utc_offset: 0,
                host: String::new(),
                user: String::new(),
                paths: Vec::new(),
                tags: Vec::new(),
                description: String::new(),
                program: String::new(),
                parent: None,
                complete: true,
                statistics: Statistics::default(),
                incidents: Vec::new(),
                config_generation: 1,
                writer: WriterId::from_bytes([writer; 16]),
                sequence,
                seen: Vec::new(),
                unknown: Vec::new(),
            },
        }
    }

    /// The same, written again by another writer.
    fn again(of: &StoredSnapshot, writer: u8, sequence: u64) -> StoredSnapshot {
        let mut stored = made(writer, sequence, 0);
        stored.snapshot.time = of.snapshot.time;
        stored.snapshot.unknown = of.snapshot.successor_fields();
        stored
    }

    #[track_caller]
    fn check(expected: &[&StoredSnapshot]) {
        let mut snapshots: Vec<StoredSnapshot> = expected.iter().copied().cloned().collect();
        for _ in 0..snapshots.len() {
            snapshots.rotate_left(1);
            let mut sorted = snapshots.clone();
            sort(&mut sorted, Timestamp { seconds: NOW, nanoseconds: 0 });
            let ids =
                |all: &[StoredSnapshot]| all.iter().map(|one| one.id.short()).collect::<Vec<_>>();
            let expected: Vec<_> = expected.iter().map(|one| one.id.short()).collect();
            assert_eq!(ids(&sorted), expected);
        }
    }

    #[test]
    fn time_decides_among_snapshots_of_the_past() {
        check(&[&made(1, 3, -9), &made(2, 1, -8), &made(1, 1, -7), &made(1, 2, 0)]);
        // Clocks may differ by an hour.
        check(&[&made(1, 2, 0), &made(1, 1, 1)]);
    }

    #[test]
    fn a_snapshot_from_the_future_hides_nothing_that_its_writer_made_after_it() {
        check(&[&made(1, 1, -9), &made(1, 2, 24), &made(1, 3, -8), &made(2, 1, -7)]);
        check(&[&made(2, 1, -10), &made(1, 1, 24), &made(1, 2, 48), &made(1, 3, -8)]);
        // What is the last of its writer stays where its time says.
        check(&[&made(1, 1, -9), &made(2, 1, -7), &made(1, 2, 24)]);
    }

    #[test]
    fn where_everything_is_in_the_future_numbers_decide_for_each_writer() {
        check(&[&made(1, 1, 20), &made(2, 1, 21), &made(1, 2, 22)]);
        check(&[&made(1, 1, 40), &made(1, 2, 22), &made(2, 1, 23)]);
    }

    #[test]
    fn what_was_written_again_stands_where_the_first_one_stood_and_after_it() {
        let (first, second) = (made(1, 1, -9), made(1, 2, -8));
        let other = again(&first, 1, 3);
        check(&[&first, &other, &second]);
        // A second writer's numbers begin at 1.
        let (old, new) = (made(1, 7, -8), made(1, 8, -8));
        let repaired = again(&old, 2, 1);
        check(&[&old, &repaired, &again(&repaired, 3, 1), &new]);
        // One from the future does not come to the front by new words.
        let future = made(1, 1, 24);
        check(&[&again(&future, 1, 3), &second]);
    }

    #[test]
    fn amounts_of_time_are_rough() {
        for (seconds, expected) in [
            (3660, "61 minutes"),
            (7200, "2 hours"),
            (172_800, "2 days"),
            (i64::MAX, "292271023045 years"),
        ] {
            assert_eq!(rough(seconds), expected);
        }
    }
}
