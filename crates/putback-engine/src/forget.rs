//! Which snapshots to keep, and why.
//!
//! A plan is made from the snapshots alone, without reading or writing anything: groups of snapshots, and for each
//! snapshot the reasons to keep it; one without a reason goes. Periods are those of the calendar where the
//! snapshot was made: its own offset from UTC decides what a day is.
//!
//! The last snapshot of every writer in a group stays, whatever the rules say: who can write to the
//! storage can add as many newer snapshots as it takes to crowd the real ones out of "the last seven". The last is the
//! newest by its time, and the one that was made last by the writer's own numbers: a clock may have been ahead once.
//! Only a group in which no rule keeps anything goes as a whole, if that is asked for.
//!
//! A snapshot that is dated in the future has no place among hours and days. Rules that go by time keep it and do not
//! count it; and where the clock of this machine is behind, so that everything is in the future, everything stays.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Span;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use putback_format::id::{SnapshotId, WriterId};
use putback_format::snapshot::{Made, Snapshot};
use putback_format::tree::Timestamp;
use putback_repo::{IN_THE_FUTURE, StoredSnapshot, order};

/// How long a period of a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    /// Every snapshot is one of its own.
    Each,
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week by ISO 8601, which begins on Monday.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

impl Period {
    /// All, the shortest first.
    pub const ALL: [Self; 6] =
        [Self::Each, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// A name for what is kept of it.
    const fn adjective(self) -> &'static str {
        match self {
            Self::Each => "last",
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }

    /// Equal for two times of one period.
    fn key(self, time: DateTime, number: usize) -> (i64, i64, i64) {
        let date = time.date();
        let (year, month, day) = (date.year().into(), date.month().into(), date.day().into());
        match self {
            Self::Each => (0, 0, i64::try_from(number).unwrap_or(i64::MAX)),
            Self::Hour => (year, month * 100 + day, time.hour().into()),
            Self::Day => (year, month, day),
            Self::Week => {
                let week = date.iso_week_date();
                (week.year().into(), week.week().into(), 0)
            }
            Self::Month => (year, month, 0),
            Self::Year => (year, 0, 0),
        }
    }
}

/// A time back by the calendar: a month before March 31 is the last day of February.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Age {
    /// Months; a year has twelve.
    pub months: u32,
    /// Hours; a day has 24.
    pub hours: u64,
}

impl Age {
    /// The seconds since 1970 of the moment that lies so far back; the earliest there is if no calendar has it.
    fn before(self, time: Timestamp, utc_offset: i32) -> i64 {
        let span = Span::new().try_months(i64::from(self.months));
        let hours = i64::try_from(self.hours).unwrap_or(i64::MAX).saturating_mul(3600);
        let offset = Offset::from_seconds(utc_offset).unwrap_or(Offset::UTC);
        span.and_then(|span| local_time(time, utc_offset).checked_sub(span))
            .and_then(|local| offset.to_timestamp(local))
            .map_or(i64::MIN, |time| time.as_second().saturating_sub(hours))
    }
}

/// How many periods a rule covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// So many that have a snapshot, counted from the newest.
    Count(u32),
    /// All that have one.
    All,
    /// Those of snapshots that are at most so much older than the newest of the group.
    Within(Age),
}

/// Keeps the newest snapshot of each of some periods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The periods.
    pub period: Period,
    /// How many.
    pub reach: Reach,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.period.adjective())?;
        match self.reach {
            Reach::Count(_) | Reach::All => Ok(()),
            Reach::Within(_) => f.write_str(" within"),
        }
    }
}

/// What the snapshots of a group have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupBy {
    /// The host.
    pub host: bool,
    /// The paths.
    pub paths: bool,
    /// The tags.
    pub tags: bool,
}

/// Which snapshots are to stay.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Any one of these is a reason.
    pub rules: Vec<Rule>,
    /// Lists of tags: a snapshot that has all tags of one of them stays.
    pub tags: Vec<Vec<String>>,
    /// What makes a group; each is judged by itself.
    pub group_by: GroupBy,
    /// A group in which no rule keeps anything may go as a whole.
    pub may_empty_groups: bool,
}

impl Policy {
    /// Whether there is no rule, so that everything would go.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.tags.is_empty()
    }
}

/// Key of a group; what it is not grouped by is none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKey {
    /// Host.
    pub host: Option<String>,
    /// Paths.
    pub paths: Option<Vec<Vec<u8>>>,
    /// Tags.
    pub tags: Option<Vec<String>>,
}

/// What becomes of one snapshot.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The snapshot.
    pub stored: StoredSnapshot,
    /// Why it stays; it goes if there is none.
    pub reasons: Vec<String>,
}

/// A group and what becomes of its snapshots, the newest first.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they have in common.
    pub key: GroupKey,
    /// The snapshots.
    pub decisions: Vec<Decision>,
}

impl Group {
    /// The snapshots that go.
    pub fn forgotten(&self) -> impl Iterator<Item = &StoredSnapshot> {
        self.decisions
            .iter()
            .filter(|decision| decision.reasons.is_empty())
            .map(|decision| &decision.stored)
    }
}

/// Decides which of these snapshots stay.
#[must_use]
pub fn plan(snapshots: &[StoredSnapshot], policy: &Policy, now: Timestamp) -> Vec<Group> {
    let mut sorted = snapshots.to_vec();
    order::sort(&mut sorted, now);
    let mut groups: BTreeMap<GroupKey, Vec<&StoredSnapshot>> = BTreeMap::new();
    for stored in sorted.iter().rev() {
        groups.entry(key_of(&stored.snapshot, policy.group_by)).or_default().push(stored);
    }
    groups
        .into_iter()
        .map(|(key, members)| Group { key, decisions: decide(&members, policy, now) })
        .collect()
}

fn key_of(snapshot: &Snapshot, by: GroupBy) -> GroupKey {
    GroupKey {
        host: by.host.then(|| snapshot.host.clone()),
        paths: by.paths.then(|| snapshot.paths.clone()),
        tags: by.tags.then(|| snapshot.tags.clone()),
    }
}

/// `members`: the newest first.
fn decide(members: &[&StoredSnapshot], policy: &Policy, now: Timestamp) -> Vec<Decision> {
    let mut reasons: BTreeMap<SnapshotId, Vec<String>> = BTreeMap::new();
    let (future, past): (Vec<&StoredSnapshot>, Vec<&StoredSnapshot>) =
        members.iter().partition(|stored| order::is_in_future(stored.snapshot.time, now));
    for rule in &policy.rules {
        keep_by_rule(&past, *rule, &mut reasons);
    }
    if !policy.rules.is_empty() {
        for stored in future {
            reasons.entry(stored.id).or_default().push(IN_THE_FUTURE.to_owned());
        }
    }
    for stored in members {
        let snapshot = &stored.snapshot;
        for tags in &policy.tags {
            if !tags.is_empty() && tags.iter().all(|tag| snapshot.tags.contains(tag)) {
                let reason = format!("tag {}", tags.join(","));
                reasons.entry(stored.id).or_default().push(reason);
            }
        }
    }
    if !(policy.may_empty_groups && reasons.is_empty()) {
        keep_last_of_writers(members, &mut reasons);
    }
    members
        .iter()
        .map(|stored| Decision {
            stored: (*stored).clone(),
            reasons: reasons.remove(&stored.id).unwrap_or_default(),
        })
        .collect()
}

/// Of each writer, what is the newest by its time and what was made last. Whoever wrote a snapshot again, with other
/// words, did not make it.
fn keep_last_of_writers(
    members: &[&StoredSnapshot],
    reasons: &mut BTreeMap<SnapshotId, Vec<String>>,
) {
    let mut newest: BTreeMap<WriterId, (Timestamp, Made, SnapshotId)> = BTreeMap::new();
    let mut last: BTreeMap<WriterId, (Made, SnapshotId)> = BTreeMap::new();
    for stored in members.iter().filter(|stored| stored.snapshot.complete) {
        let made = stored.snapshot.made();
        let by_time = (stored.snapshot.time, made, stored.id);
        let known = newest.entry(made.writer).or_insert(by_time);
        *known = by_time.max(*known);
        let by_number = (made, stored.id);
        let known = last.entry(made.writer).or_insert(by_number);
        *known = by_number.max(*known);
    }
    let newest = newest.into_values().map(|(.., id)| (id, "last of its machine"));
    let last = last.into_values().map(|(_, id)| (id, "made last by its machine"));
    for (id, reason) in newest.chain(last) {
        let kept = reasons.entry(id).or_default();
        if kept.is_empty() {
            kept.push(reason.to_owned());
        }
    }
}

fn keep_by_rule(
    members: &[&StoredSnapshot],
    rule: Rule,
    reasons: &mut BTreeMap<SnapshotId, Vec<String>>,
) {
    let Some(newest) = members.first().map(|stored| &stored.snapshot) else { return };
    let oldest_within = match rule.reach {
        Reach::Within(age) => age.before(newest.time, newest.utc_offset),
        Reach::Count(_) | Reach::All => i64::MIN,
    };
    let mut last_key = None;
    let mut kept = 0_u32;
    for (number, stored) in members.iter().enumerate() {
        let snapshot = &stored.snapshot;
        match rule.reach {
            Reach::Count(count) if kept >= count => return,
            _ if snapshot.time.seconds < oldest_within => return,
            _ => {}
        }
        let key = rule.period.key(local_time(snapshot.time, snapshot.utc_offset), number);
        if last_key.replace(key) == Some(key) {
            continue;
        }
        kept += 1;
        reasons.entry(stored.id).or_default().push(rule.to_string());
    }
    // Fewer periods than the rule has room for: the oldest snapshot of all stands for the next one to come.
    let is_short = matches!(rule.reach, Reach::Count(count) if kept < count);
    if let (true, Some(oldest)) = (is_short && rule.period != Period::Each, members.last()) {
        let reasons = reasons.entry(oldest.id).or_default();
        let reason = rule.to_string();
        if !reasons.contains(&reason) {
            reasons.push(format!("oldest, for {reason}"));
        }
    }
}

/// The wall clock where the snapshot was made. Times beyond the calendar are its ends.
fn local_time(time: Timestamp, utc_offset: i32) -> DateTime {
    let seconds =
        time.seconds.clamp(jiff::Timestamp::MIN.as_second(), jiff::Timestamp::MAX.as_second());
    let offset = Offset::from_seconds(utc_offset).unwrap_or(Offset::UTC);
    let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    offset.to_datetime(time)
}

#[cfg(test)]
mod tests {
    use putback_format::snapshot::Statistics;
    use putback_format::tree::{Entry, EntryKind};

    use super::*;

    /// A snapshot of `host` taken at `time`, written as `2026-03-01 14:00`, UTC.
    fn snapshot(number: u8, host: &str, time: &str) -> StoredSnapshot {
        let time: DateTime = time.replace(' ', "T").parse().unwrap();
        let seconds = Offset::UTC.to_timestamp(time).unwrap().as_second();
        StoredSnapshot {
            id: SnapshotId::from_bytes([number; 32]),
            snapshot: Snapshot {
                root: Entry::new("", EntryKind::Directory { pages: Vec::new() }),
                time: Timestamp { seconds, nanoseconds: 0 },
                utc_offset: 0,
                host: host.to_owned(),
                user: String::new(),
                paths: vec![b"/home".to_vec()],
                tags: Vec::new(),
                description: String::new(),
                program: String::new(),
                parent: None,
                complete: true,
                statistics: Statistics::default(),
                incidents: Vec::new(),
                config_generation: 1,
                writer: WriterId::from_bytes([1; 16]),
                sequence: number.into(),
                seen: Vec::new(),
                unknown: Vec::new(),
            },
        }
    }

    /// Later than all of them.
    fn now() -> Timestamp {
        snapshot(1, "", "2026-01-01 00:00").snapshot.time
    }

    fn count(period: Period, count: u32) -> Rule {
        Rule { period, reach: Reach::Count(count) }
    }

    /// Numbers of the snapshots that stay, the newest first, with their reasons.
    fn kept(snapshots: &[StoredSnapshot], rules: &[Rule]) -> Vec<(u8, String)> {
        let policy = Policy { rules: rules.to_vec(), ..Policy::default() };
        let groups = plan(snapshots, &policy, now());
        assert_eq!(groups.len(), 1);
        let decisions = groups[0].decisions.iter();
        decisions
            .filter(|decision| !decision.reasons.is_empty())
            .map(|decision| (decision.stored.id.as_bytes()[0], decision.reasons.join("; ")))
            .collect()
    }

    fn year() -> Vec<StoredSnapshot> {
        [
            "2024-06-01 10:00",
            "2024-12-31 23:00",
            "2025-01-01 01:00",
            "2025-02-10 12:00",
            "2025-02-11 12:00",
            "2025-02-11 12:30",
            "2025-02-11 18:00",
        ]
        .iter()
        .zip(1..)
        .map(|(time, number)| snapshot(number, "host", time))
        .collect()
    }

    #[track_caller]
    fn check(rules: &[Rule], expected: &[(u8, &str)]) {
        let expected: Vec<_> =
            expected.iter().map(|(number, reasons)| (*number, (*reasons).to_owned())).collect();
        assert_eq!(kept(&year(), rules), expected);
    }

    #[test]
    fn each_rule_keeps_the_newest_of_its_periods() {
        use Period::{Day, Each, Hour, Month, Week, Year};
        check(&[count(Each, 2)], &[(7, "last"), (6, "last")]);
        check(&[count(Hour, 3)], &[(7, "hourly"), (6, "hourly"), (4, "hourly")]);
        check(&[count(Day, 2)], &[(7, "daily"), (4, "daily")]);
        // 2024-12-31 and 2025-01-01 lie in one ISO week.
        check(&[count(Week, 3)], &[(7, "weekly"), (3, "weekly"), (1, "weekly")]);
        check(&[count(Month, 2)], &[(7, "monthly"), (3, "monthly")]);
        check(&[count(Year, 2)], &[(7, "yearly"), (2, "yearly")]);
        check(&[count(Each, 1), count(Month, 2)], &[(7, "last; monthly"), (3, "monthly")]);
    }

    #[test]
    fn a_rule_with_room_left_keeps_the_oldest_too() {
        check(
            &[count(Period::Year, 5)],
            &[(7, "yearly"), (2, "yearly"), (1, "oldest, for yearly")],
        );
    }

    #[test]
    fn rules_may_reach_back_from_the_newest() {
        let within = |period, days: u64| Rule {
            period,
            reach: Reach::Within(Age { months: 0, hours: days * 24 }),
        };
        check(
            &[within(Period::Each, 1)],
            &[(7, "last within"), (6, "last within"), (5, "last within")],
        );
        check(&[within(Period::Day, 2)], &[(7, "daily within"), (4, "daily within")]);
        let all = Rule { period: Period::Year, reach: Reach::All };
        check(&[all], &[(7, "yearly"), (2, "yearly")]);
    }

    #[test]
    fn the_last_snapshot_of_every_writer_stays() {
        let mut snapshots = year();
        snapshots[2].snapshot.writer = WriterId::from_bytes([2; 16]);
        let expected = [(7, "last".to_owned()), (3, "last of its machine".to_owned())];
        assert_eq!(kept(&snapshots, &[count(Period::Each, 1)]), expected);
        // Without any rule everything but these goes.
        let expected = [7, 3].map(|number| (number, "last of its machine".to_owned()));
        assert_eq!(kept(&snapshots, &[]), expected);
    }

    #[test]
    fn what_a_machine_made_last_stays_whatever_its_clock_said_before() {
        // Number 3 was dated later than it was made, and time has passed since.
        let mut snapshots = year();
        snapshots[2].snapshot.time = now();
        let last = "made last by its machine";
        let expected = [(3, "last".to_owned()), (7, last.to_owned())];
        assert_eq!(kept(&snapshots, &[count(Period::Each, 1)]), expected);
        // While it is in the future, it takes no other's place and stays.
        snapshots[2].snapshot.time.seconds += 86_400;
        let expected = [(7, "last"), (6, "last"), (3, IN_THE_FUTURE)];
        let expected = expected.map(|(number, reason)| (number, reason.to_owned()));
        assert_eq!(kept(&snapshots, &[count(Period::Each, 2)]), expected);
        // It was written again later: that is not to have made it.
        let original = snapshots[2].clone();
        snapshots[2].snapshot.unknown = original.snapshot.successor_fields();
        snapshots[2].snapshot.sequence = 8;
        assert_eq!(kept(&snapshots, &[count(Period::Each, 2)]), expected);
        snapshots[2].snapshot.time = original.snapshot.time;
        snapshots[2].snapshot.time.seconds -= 3 * 365 * 86_400;
        assert_eq!(kept(&snapshots, &[count(Period::Each, 1)]), [(7, "last".to_owned())]);
    }

    #[test]
    fn by_a_clock_that_is_behind_nothing_goes_by_time() {
        let plan = |rules: &[Rule], tags: &[&str]| {
            let tags = tags.iter().map(|tag| vec![(*tag).to_owned()]).collect();
            let rules = rules.to_vec();
            let policy = Policy { rules, tags, may_empty_groups: true, ..Policy::default() };
            let groups = plan(&year(), &policy, Timestamp::default());
            groups[0].forgotten().count()
        };
        assert_eq!(plan(&[count(Period::Each, 1)], &[]), 0);
        assert_eq!(plan(&[], &["none has it"]), 7, "no clock is asked for tags");
    }

    #[test]
    fn only_a_group_that_no_rule_keeps_anything_of_may_go_as_a_whole() {
        let mut snapshots = year();
        snapshots[2].snapshot.writer = WriterId::from_bytes([2; 16]);
        let forgotten = |rules: &[Rule]| {
            let policy =
                Policy { rules: rules.to_vec(), may_empty_groups: true, ..Policy::default() };
            plan(&snapshots, &policy, now())[0].forgotten().count()
        };
        assert_eq!(forgotten(&[]), 7);
        assert_eq!(forgotten(&[count(Period::Each, 1)]), 5, "a rule keeps one: the guard holds");
    }

    #[test]
    fn an_age_is_one_of_the_calendar() {
        let before = |time: &str, months, hours| {
            let time = snapshot(1, "h", time).snapshot.time;
            let seconds = Age { months, hours }.before(time, 3600);
            Offset::UTC.to_datetime(jiff::Timestamp::from_second(seconds).unwrap()).to_string()
        };
        assert_eq!(before("2025-03-31 12:00", 1, 0), "2025-02-28T12:00:00");
        assert_eq!(before("2024-02-29 12:00", 12, 0), "2023-02-28T12:00:00");
        assert_eq!(before("2025-01-01 00:00", 0, 25), "2024-12-30T23:00:00");
        // 23:30 UTC of February 28 is March 1 where the snapshot was made.
        assert_eq!(before("2025-02-28 23:30", 1, 0), "2025-01-31T23:30:00");
    }

    #[test]
    fn tags_keep_whatever_the_time() {
        let mut snapshots = year();
        snapshots[0].snapshot.tags = vec!["keep".to_owned(), "tax".to_owned()];
        snapshots[1].snapshot.tags = vec!["tax".to_owned()];
        let policy = Policy {
            rules: vec![count(Period::Each, 1)],
            tags: vec![vec!["keep".to_owned(), "tax".to_owned()]],
            ..Policy::default()
        };
        let groups = plan(&snapshots, &policy, now());
        let forgotten: Vec<_> =
            groups[0].forgotten().map(|stored| stored.id.as_bytes()[0]).collect();
        assert_eq!(forgotten, [6, 5, 4, 3, 2]);
    }

    #[test]
    fn groups_are_judged_by_themselves() {
        let mut snapshots = year();
        snapshots.push(snapshot(8, "other", "2020-01-01 00:00"));
        let by_host = GroupBy { host: true, ..GroupBy::default() };
        let policy =
            Policy { rules: vec![count(Period::Each, 1)], group_by: by_host, ..Policy::default() };
        let groups = plan(&snapshots, &policy, now());
        let hosts: Vec<_> = groups.iter().map(|group| group.key.host.clone().unwrap()).collect();
        assert_eq!(hosts, ["host", "other"]);
        assert_eq!(groups[1].forgotten().count(), 0);
    }

    #[test]
    fn a_day_is_a_day_where_the_snapshot_was_made() {
        let mut snapshots =
            vec![snapshot(1, "h", "2025-03-01 22:30"), snapshot(2, "h", "2025-03-01 23:30")];
        assert_eq!(kept(&snapshots, &[count(Period::Day, 1)]).len(), 1);
        for stored in &mut snapshots {
            stored.snapshot.utc_offset = 3600;
        }
        assert_eq!(kept(&snapshots, &[count(Period::Day, 2)]).len(), 2);
    }

    #[test]
    fn impossible_times_and_offsets_are_no_panic() {
        let mut snapshots = year();
        snapshots[0].snapshot.time.seconds = i64::MIN;
        snapshots[1].snapshot.time.seconds = i64::MAX;
        snapshots[1].snapshot.utc_offset = i32::MAX;
        let rules: Vec<Rule> = Period::ALL.map(|period| count(period, 10)).to_vec();
        assert_eq!(kept(&snapshots, &rules).len(), snapshots.len());
        for (months, hours) in [(u32::MAX, 0), (0, u64::MAX), (u32::MAX, u64::MAX)] {
            let reach = Reach::Within(Age { months, hours });
            let within = [Rule { period: Period::Each, reach }];
            assert!(kept(&snapshots, &within).len() + 1 >= snapshots.len());
        }
    }
}
