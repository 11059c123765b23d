//! The protocol as states and steps. See the top of `main.rs` for what stands for what.

use std::fmt;

use crate::search::Model;

/// A set of packs, blobs, segments or marks: a bit each.
pub(crate) type Set = u8;

const PACKS: usize = 7;
const SEGMENTS: usize = 8;
const MARKS: usize = 3;
const SNAPSHOTS: usize = 4;

/// A time since something, in ticks, plus one; 0 says that there is no such thing. It stops growing where nothing
/// depends on it any more.
type Age = u8;

/// What the actors obey, and how much they do.
#[derive(Clone)]
pub(crate) struct Rules {
    /// What each writer's source holds. A writer without backups left does nothing.
    pub(crate) needs: [Set; 2],
    /// Backups of each writer.
    pub(crate) backups: [u8; 2],
    /// Runs of both pruners together: each is the first half or the second.
    pub(crate) prunes: u8,
    /// Merges of segments.
    pub(crate) merges: u8,
    /// Snapshots that users may forget.
    pub(crate) forgets: u8,
    /// Blobs of packs that are there at the beginning, named by one segment each.
    pub(crate) packs: Vec<Set>,
    /// Blobs of snapshots that are there at the beginning, and whether they are forgotten.
    pub(crate) snapshots: Vec<(Set, bool)>,
    /// Packs under a mark whose grace period is over at the beginning.
    pub(crate) marked: Set,
    /// How many packs and segments there may ever be. Who wants one more stands still for ever.
    pub(crate) room: (usize, usize),
    /// Ticks that a commit may take.
    pub(crate) window: u8,
    /// Ticks that a listing may lag behind. None: listings show all, and there are locks.
    pub(crate) lag: Option<u8>,
    /// Ticks that a mark stands.
    pub(crate) grace: u8,
    /// What must hold.
    pub(crate) promised: Promised,
    /// What is done wrong.
    pub(crate) broken: Broken,
}

/// Which snapshots must be readable until they are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promised {
    /// Those whose success was reported.
    Reported,
    /// Also those that were written within the window by a writer that died before it could report.
    InTime,
}

/// A change of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Nothing: the protocol as it is.
    Nothing,
    /// Step 1 stands for the first step 4 if it is younger than half the window, which begins with it.
    ShortRun,
    /// The same without the half: at any age that the window allows.
    ShortRunOfAnyAge,
    /// The same, and the window begins with the commit.
    ShortRunWithoutLimit,
    /// No steps 4 and 6.
    NoCheck,
    /// Steps 4 and 6 forget the packs that this run wrote.
    ReusedPacksOnly,
    /// Steps 4 and 6 list the index, then the marks.
    IndexFirst,
    /// Steps 4 and 6 do not look at the index.
    MarksOnly,
    /// A mark is taken back when a pack turns out to be needed.
    MarksWithdrawn,
    /// Prune takes packs out of the index and leaves no tombstones.
    NoTombstones,
    /// What was written after a suspension is not looked at again.
    NoSecondCheck,
    /// Marks go with their packs, before listings must show the tombstones.
    MarksGoAtOnce,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Pack {
    blobs: Set,
    is_there: bool,
    /// Counted until a segment names it.
    age: Age,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Segment {
    names: Set,
    tombstones: Set,
    age: Age,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Mark {
    packs: Set,
    age: Age,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Promise {
    #[default]
    None,
    /// Too late, and its writer does not know yet.
    Late,
    /// In time, and nobody was told yet.
    Written,
    Reported,
    Forgotten,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Snapshot {
    blobs: Set,
    age: Age,
    promise: Promise,
}

/// What a writer does next.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Writing {
    #[default]
    Idle,
    BeginIndex,
    Upload,
    Name,
    Check,
    CheckIndex,
    Write,
    Verify,
    VerifyIndex,
    Retract,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Writer {
    at: Writing,
    left: u8,
    /// What the last listing showed.
    seen: Set,
    /// Packs that the snapshot relies on.
    needed: Set,
    /// Packs of this run; kept only where a rule asks for it.
    own: Set,
    /// Blobs to store.
    pending: Set,
    /// A pack that no segment names yet.
    fresh: Set,
    /// The snapshot, plus one.
    snapshot: u8,
    /// Since step 1, until a commit has used it.
    begun: Age,
    /// Since step 4.
    checked: Age,
}

/// What a pruner does next.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Pruning {
    #[default]
    Idle,
    Look,
    LookMarks,
    LookIndex,
    LookUpload,
    LookName,
    Withdraw,
    Bury,
    Delete,
    Unmark,
    PlanIndex,
    PlanSnapshots,
    PlanUpload,
    PlanName,
    Mark,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Pruner {
    at: Pruning,
    /// Marks that are carried out.
    due: Set,
    /// What an earlier listing showed; what will be marked or buried.
    seen: Set,
    /// Blobs that snapshots need; packs of the index.
    known: Set,
    pending: Set,
    fresh: Set,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Merging {
    #[default]
    Idle,
    Write,
    Delete,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Compactor {
    at: Merging,
    /// Segments that are merged.
    inputs: Set,
    names: Set,
    tombstones: Set,
    /// The merged segment, plus one.
    output: u8,
}

/// All objects, all actors.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    packs: [Pack; PACKS],
    segments: [Segment; SEGMENTS],
    marks: [Mark; MARKS],
    snapshots: [Snapshot; SNAPSHOTS],
    writers: [Writer; 2],
    pruners: [Pruner; 2],
    compactor: Compactor,
    /// How many packs, segments and marks there ever were: names are never used again.
    used: [u8; 3],
    prunes: u8,
    merges: u8,
    forgets: u8,
}

/// Who does something, and what.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    actor: Actor,
    what: What,
    /// What it is done to, or what was seen.
    set: Set,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Actor {
    World,
    Writer(usize),
    Pruner(usize),
    Compactor,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Tick,
    Forget,
    Crash,
    ListMarks,
    ListIndex,
    ListSnapshots,
    GiveUp,
    Upload,
    Name,
    TakeFirstLook,
    Write,
    Retract,
    Report,
    FindDue,
    Withdraw,
    Bury,
    Delete,
    Unmark,
    Mark,
    Merge,
    DeleteInputs,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.actor {
            Actor::World => {}
            Actor::Writer(number) => write!(f, "writer {}: ", number + 1)?,
            Actor::Pruner(number) => write!(f, "pruner {}: ", number + 1)?,
            Actor::Compactor => write!(f, "compactor: ")?,
        }
        let members: Vec<_> = members(self.set).map(|member| member.to_string()).collect();
        let members = if members.is_empty() { "none".to_owned() } else { members.join(", ") };
        match self.what {
            What::Tick => write!(f, "time passes"),
            What::Forget => write!(f, "a user forgets snapshot {members}"),
            What::Crash => write!(f, "dies"),
            What::ListMarks => write!(f, "lists marks; marked packs: {members}"),
            What::ListIndex => write!(f, "lists the index; packs named and not buried: {members}"),
            What::ListSnapshots => write!(f, "lists snapshots; blobs needed: {members}"),
            What::GiveUp => write!(f, "lists the index and gives up; packs there: {members}"),
            What::Upload => write!(f, "stores pack {members}"),
            What::Name => write!(f, "writes a segment that names pack {members}"),
            What::TakeFirstLook => write!(f, "takes its first look for the check"),
            What::Write => write!(f, "writes a snapshot that relies on packs {members}"),
            What::Retract => write!(f, "deletes its snapshot"),
            What::Report => write!(f, "lists the index and reports success"),
            What::FindDue => write!(f, "finds marks whose time has come: {members}"),
            What::Withdraw => write!(f, "takes marks back: {members}"),
            What::Bury => write!(f, "buries packs {members}"),
            What::Delete => write!(f, "deletes packs {members}"),
            What::Unmark => write!(f, "deletes marks {members}"),
            What::Mark => write!(f, "marks packs {members}"),
            What::Merge => write!(f, "writes a segment that replaces segments {members}"),
            What::DeleteInputs => write!(f, "deletes segments {members}"),
        }
    }
}

fn members(set: Set) -> impl Iterator<Item = usize> {
    (0..8).filter(move |number| set >> number & 1 == 1)
}

/// Everything that a listing may show: all objects that it must show, with each choice of those that it need not show
/// yet. Yields sets of slots.
fn listings(ages: impl Iterator<Item = Age>, lag: u8) -> Vec<Set> {
    let mut sets = vec![0];
    for (slot, age) in ages.enumerate() {
        if age == 0 {
            continue;
        }
        let without = if age > lag { Vec::new() } else { sets.clone() };
        sets.iter_mut().for_each(|set| *set |= 1 << slot);
        sets.extend(without);
    }
    sets
}

fn distinct<T: Ord>(mut views: Vec<T>) -> Vec<T> {
    views.sort_unstable();
    views.dedup();
    views
}

impl State {
    /// What a listing of the marks may show: marked packs.
    fn mark_views(&self, lag: u8) -> Vec<Set> {
        let packs = |seen: Set| members(seen).fold(0, |all, mark| all | self.marks[mark].packs);
        let seen = listings(self.marks.iter().map(|mark| mark.age), lag);
        distinct(seen.into_iter().map(packs).collect())
    }

    /// What a listing of the index may show: packs that are named, and those that are buried.
    fn index_views(&self, lag: u8) -> Vec<(Set, Set)> {
        let union = |seen: Set| {
            members(seen)
                .map(|segment| self.segments[segment])
                .fold((0, 0), |all, segment| (all.0 | segment.names, all.1 | segment.tombstones))
        };
        let seen = listings(self.segments.iter().map(|segment| segment.age), lag);
        distinct(seen.into_iter().map(union).collect())
    }

    /// What a listing of the snapshots may show: blobs that are needed.
    fn snapshot_views(&self, lag: u8) -> Vec<Set> {
        let blobs = |seen: Set| {
            members(seen)
                .map(|snapshot| self.snapshots[snapshot])
                .filter(|snapshot| snapshot.promise != Promise::Forgotten)
                .fold(0, |all, snapshot| all | snapshot.blobs)
        };
        let seen = listings(self.snapshots.iter().map(|snapshot| snapshot.age), lag);
        distinct(seen.into_iter().map(blobs).collect())
    }

    fn blobs_of(&self, packs: Set) -> Set {
        members(packs).fold(0, |all, pack| all | self.packs[pack].blobs)
    }

    /// Those of these packs that can be read.
    fn there(&self, packs: Set) -> Set {
        members(packs)
            .filter(|pack| self.packs[*pack].is_there)
            .fold(0, |all, pack| all | 1 << pack)
    }

    /// Everything that any choice of one pack for each blob may come to.
    fn choices(&self, blobs: Set, packs: Set) -> Vec<Set> {
        let mut choices = vec![0];
        for blob in members(blobs) {
            let holders: Vec<usize> =
                members(packs).filter(|pack| self.packs[*pack].blobs >> blob & 1 == 1).collect();
            if !holders.is_empty() {
                choices = holders
                    .iter()
                    .flat_map(|pack| choices.iter().map(move |choice| choice | 1 << pack))
                    .collect();
            }
        }
        distinct(choices)
    }

    /// Blobs that a reader finds.
    fn readable(&self) -> Set {
        let (mut names, mut tombstones) = (0, 0);
        for segment in self.segments.iter().filter(|segment| segment.age > 0) {
            names |= segment.names;
            tombstones |= segment.tombstones;
        }
        self.blobs_of(self.there(names & !tombstones))
    }

    fn add_pack(&mut self, room: (usize, usize), blobs: Set) -> Option<usize> {
        let number = self.take(0, room.0)?;
        self.packs[number] = Pack { blobs, is_there: true, age: 1 };
        Some(number)
    }

    fn add_segment(&mut self, room: (usize, usize), names: Set, tombstones: Set) -> Option<usize> {
        let number = self.take(1, room.1)?;
        self.segments[number] = Segment { names, tombstones, age: 1 };
        for pack in members(names) {
            self.packs[pack].age = 0;
        }
        Some(number)
    }

    fn add_mark(&mut self, packs: Set) -> Option<usize> {
        let number = self.take(2, MARKS)?;
        self.marks[number] = Mark { packs, age: 1 };
        Some(number)
    }

    fn add_snapshot(&mut self, blobs: Set) -> Option<usize> {
        let number = self.snapshots.iter().position(|snapshot| snapshot.age == 0)?;
        self.snapshots[number] = Snapshot { blobs, age: 1, promise: Promise::Written };
        Some(number)
    }

    /// The next name of this kind; none if the model has no room for more: its actor then stands still for ever.
    fn take(&mut self, kind: usize, limit: usize) -> Option<usize> {
        let number = usize::from(self.used[kind]);
        (number < limit).then(|| {
            self.used[kind] += 1;
            number
        })
    }
}

/// A model of the protocol under some rules.
pub(crate) struct Protocol {
    rules: Rules,
    lag: u8,
}

impl Protocol {
    pub(crate) fn new(rules: Rules) -> Self {
        let lag = rules.lag.map_or(0, |lag| lag + 1);
        Self { rules, lag }
    }

    fn has_locks(&self) -> bool {
        self.rules.lag.is_none()
    }

    fn is(&self, broken: Broken) -> bool {
        self.rules.broken == broken
    }

    /// Whether the window of a time since step 4 is open.
    fn is_in_time(&self, age: Age) -> bool {
        age <= self.rules.window + 1
    }

    fn tick(&self, state: &State) -> State {
        let mut next = state.clone();
        let grow = |age: &mut Age, last: u8| {
            if *age > 0 {
                *age = (*age + 1).min(last);
            }
        };
        let settled = self.lag + 1;
        let old = self.rules.grace + 1;
        next.packs.iter_mut().for_each(|pack| grow(&mut pack.age, old));
        let output = usize::from(state.compactor.output);
        for (number, segment) in next.segments.iter_mut().enumerate() {
            let is_awaited = number + 1 == output;
            grow(&mut segment.age, if is_awaited { old.max(settled) } else { settled });
        }
        next.marks.iter_mut().for_each(|mark| grow(&mut mark.age, old.max(settled)));
        next.snapshots.iter_mut().for_each(|snapshot| grow(&mut snapshot.age, settled));
        for writer in &mut next.writers {
            grow(&mut writer.begun, self.rules.window + 2);
            grow(&mut writer.checked, self.rules.window + 2);
        }
        next
    }

    fn writer_steps(&self, state: &State, number: usize, out: &mut impl FnMut(What, Set, State)) {
        let writer = state.writers[number];
        let needs = self.rules.needs[number];
        let with = |writer: Writer| {
            let mut next = state.clone();
            next.writers[number] = writer;
            next
        };
        let ended = Writer { left: writer.left, ..Writer::default() };
        if writer.at != Writing::Idle && (self.has_locks() || writer.left > 0) {
            out(What::Crash, 0, with(ended));
        }
        // After storing what had to be: to the commit.
        let commit = |mut writer: Writer| {
            writer.at = match self.is(Broken::NoCheck) {
                true => Writing::Write,
                false => Writing::Check,
            };
            writer
        };
        let stored_or_not = |mut writer: Writer| match writer.pending {
            0 => commit(writer),
            _ => {
                writer.at = Writing::Upload;
                writer
            }
        };
        // Packs that are not relied on any more, given what can be relied on; None gives the run up.
        let rescue = |endangered: Set, usable: Set| -> Vec<Option<Writer>> {
            let mut writer = writer;
            (writer.seen, writer.checked) = (0, 0);
            writer.needed &= !endangered;
            writer.own &= !endangered;
            let lost = state.blobs_of(endangered) & needs;
            writer.pending = lost & !state.blobs_of(usable);
            if writer.pending & !state.blobs_of(state.there(endangered)) != 0 {
                return vec![None];
            }
            let choices = state.choices(lost & !writer.pending, usable);
            choices
                .into_iter()
                .map(|choice| {
                    let needed = writer.needed | choice;
                    Some(stored_or_not(Writer { needed, ..writer }))
                })
                .collect()
        };
        let checked_packs = match self.is(Broken::ReusedPacksOnly) {
            true => writer.needed & !writer.own,
            false => writer.needed,
        };
        match writer.at {
            Writing::Idle => {
                if writer.left == 0 {
                    return;
                }
                let is_short = matches!(
                    self.rules.broken,
                    Broken::ShortRun | Broken::ShortRunOfAnyAge | Broken::ShortRunWithoutLimit
                );
                for seen in state.mark_views(self.lag) {
                    let begun = Age::from(is_short);
                    let (at, left) = (Writing::BeginIndex, writer.left - 1);
                    out(What::ListMarks, seen, with(Writer { at, left, seen, begun, ..writer }));
                }
            }
            Writing::BeginIndex => {
                for (names, tombstones) in state.index_views(self.lag) {
                    let usable = names & !tombstones & !writer.seen;
                    let pending = needs & !state.blobs_of(usable);
                    for needed in state.choices(needs & !pending, usable) {
                        let after = Writer { seen: 0, needed, pending, ..writer };
                        out(What::ListIndex, names & !tombstones, with(stored_or_not(after)));
                    }
                }
            }
            Writing::Upload => {
                let mut next = state.clone();
                let Some(pack) = next.add_pack(self.rules.room, writer.pending) else { return };
                next.writers[number] =
                    Writer { at: Writing::Name, pending: 0, fresh: 1 << pack, ..writer };
                out(What::Upload, 1 << pack, next);
            }
            Writing::Name => {
                let mut next = state.clone();
                if next.add_segment(self.rules.room, writer.fresh, 0).is_none() {
                    return;
                }
                let needed = writer.needed | writer.fresh;
                let own = match self.is(Broken::ReusedPacksOnly) {
                    true => writer.own | writer.fresh,
                    false => 0,
                };
                next.writers[number] = commit(Writer { needed, own, fresh: 0, ..writer });
                out(What::Name, writer.fresh, next);
            }
            Writing::Check => {
                // The exclusive lock of prune's last steps keeps commits waiting.
                if self.has_locks() && state.pruners.iter().any(|pruner| pruner.is_locked()) {
                    return;
                }
                let age = writer.begun;
                let (stands, checked) = match self.rules.broken {
                    Broken::ShortRun => (age > 0 && (age - 1) * 2 <= self.rules.window, age),
                    Broken::ShortRunOfAnyAge => (self.is_in_time(age) && age > 0, age),
                    Broken::ShortRunWithoutLimit => (age > 0, 1),
                    _ => (false, 0),
                };
                if stands {
                    let after = Writer { at: Writing::Write, begun: 0, checked, ..writer };
                    out(What::TakeFirstLook, 0, with(after));
                    return;
                }
                let after = Writer { at: Writing::CheckIndex, begun: 0, checked: 1, ..writer };
                if self.is(Broken::IndexFirst) {
                    for (names, tombstones) in state.index_views(self.lag) {
                        let named = names & !tombstones;
                        let seen = writer.needed & !named;
                        out(What::ListIndex, named, with(Writer { seen, ..after }));
                    }
                    return;
                }
                for seen in state.mark_views(self.lag) {
                    if self.is(Broken::MarksOnly) {
                        self.decide(state, number, after, writer.needed & seen, 0, &rescue, out);
                    } else {
                        out(What::ListMarks, seen, with(Writer { seen, ..after }));
                    }
                }
            }
            Writing::CheckIndex => {
                if self.is(Broken::IndexFirst) {
                    for marked in state.mark_views(self.lag) {
                        let endangered = writer.seen | (writer.needed & marked);
                        self.decide(state, number, writer, endangered, 0, &rescue, out);
                    }
                    return;
                }
                for (names, tombstones) in state.index_views(self.lag) {
                    let usable = names & !tombstones & !writer.seen;
                    let endangered = checked_packs & !usable;
                    self.decide(state, number, writer, endangered, usable, &rescue, out);
                }
            }
            Writing::Write => {
                let mut next = state.clone();
                let Some(snapshot) = next.add_snapshot(needs) else { return };
                let is_late = !self.is_in_time(writer.checked);
                if is_late {
                    next.snapshots[snapshot].promise = Promise::Late;
                }
                next.writers[number] = match self.rules.broken {
                    Broken::NoCheck | Broken::NoSecondCheck => {
                        next.snapshots[snapshot].promise = Promise::Reported;
                        ended
                    }
                    _ => Writer {
                        at: if is_late { Writing::Retract } else { Writing::Verify },
                        snapshot: snapshot as u8 + 1,
                        checked: 0,
                        ..writer
                    },
                };
                out(What::Write, writer.needed, next);
            }
            Writing::Verify => {
                if self.is(Broken::IndexFirst) {
                    for (names, tombstones) in state.index_views(self.lag) {
                        let seen = writer.needed & !(names & !tombstones);
                        let at = Writing::VerifyIndex;
                        let named = names & !tombstones;
                        out(What::ListIndex, named, with(Writer { at, seen, ..writer }));
                    }
                    return;
                }
                for seen in state.mark_views(self.lag) {
                    if self.is(Broken::MarksOnly) {
                        self.conclude(state, number, writer.needed & seen, out);
                    } else {
                        let at = Writing::VerifyIndex;
                        out(What::ListMarks, seen, with(Writer { at, seen, ..writer }));
                    }
                }
            }
            Writing::VerifyIndex => {
                if self.is(Broken::IndexFirst) {
                    for marked in state.mark_views(self.lag) {
                        let endangered = writer.seen | (writer.needed & marked);
                        self.conclude(state, number, endangered, out);
                    }
                    return;
                }
                for (names, tombstones) in state.index_views(self.lag) {
                    let endangered = checked_packs & !(names & !tombstones & !writer.seen);
                    self.conclude(state, number, endangered, out);
                }
            }
            Writing::Retract => {
                let mut next = state.clone();
                next.snapshots[usize::from(writer.snapshot) - 1] = Snapshot::default();
                next.writers[number] =
                    Writer { at: Writing::Check, snapshot: 0, seen: 0, ..writer };
                out(What::Retract, 0, next);
            }
        }
    }

    /// The end of step 4.
    #[allow(clippy::too_many_arguments, reason = "all that a step is about")]
    fn decide(
        &self,
        state: &State,
        number: usize,
        writer: Writer,
        endangered: Set,
        usable: Set,
        rescue: &impl Fn(Set, Set) -> Vec<Option<Writer>>,
        out: &mut impl FnMut(What, Set, State),
    ) {
        let mut emit = |what, after| {
            let mut next = state.clone();
            next.writers[number] = after;
            out(what, usable, next);
        };
        if endangered == 0 {
            // Step 5 asks for the time; between that and the write it may be suspended.
            let at = if self.is_in_time(writer.checked) { Writing::Write } else { Writing::Check };
            let checked = if at == Writing::Write { writer.checked } else { 0 };
            emit(What::ListIndex, Writer { at, checked, seen: 0, ..writer });
            return;
        }
        for after in rescue(endangered, usable) {
            match after {
                Some(after) => emit(What::ListIndex, Writer { begun: 0, ..after }),
                None => {
                    emit(What::GiveUp, Writer { left: writer.left, ..Writer::default() });
                }
            }
        }
    }

    /// The end of step 6.
    fn conclude(
        &self,
        state: &State,
        number: usize,
        endangered: Set,
        out: &mut impl FnMut(What, Set, State),
    ) {
        let mut next = state.clone();
        let writer = state.writers[number];
        if endangered == 0 {
            let snapshot = usize::from(writer.snapshot) - 1;
            next.snapshots[snapshot].promise = Promise::Reported;
            next.writers[number] = Writer { left: writer.left, ..Writer::default() };
            out(What::Report, 0, next);
        } else {
            next.writers[number] = Writer { at: Writing::Retract, seen: 0, ..writer };
            out(What::ListIndex, !endangered & writer.needed, next);
        }
    }

    fn pruner_steps(&self, state: &State, number: usize, out: &mut impl FnMut(What, Set, State)) {
        let pruner = state.pruners[number];
        let with = |pruner: Pruner| {
            let mut next = state.clone();
            next.pruners[number] = pruner;
            next
        };
        if pruner.at != Pruning::Idle && (self.has_locks() || state.prunes > 0) {
            out(What::Crash, 0, with(Pruner::default()));
        }
        let due_packs = members(pruner.due).fold(0, |all, mark| all | state.marks[mark].packs);
        match pruner.at {
            Pruning::Idle => {
                if state.prunes == 0 {
                    return;
                }
                let mut begin = |what, set, after| {
                    let mut next = with(after);
                    next.prunes -= 1;
                    out(what, set, next);
                };
                for seen in state.mark_views(self.lag) {
                    let at = Pruning::PlanIndex;
                    begin(What::ListMarks, seen, Pruner { at, seen, ..pruner });
                }
                let is_due = |mark: &Mark| mark.age > self.rules.grace;
                let due = (0..MARKS)
                    .filter(|mark| is_due(&state.marks[*mark]))
                    .fold(0, |due, mark| due | 1 << mark);
                if due != 0 {
                    begin(What::FindDue, due, Pruner { at: Pruning::Look, due, ..pruner });
                }
            }
            Pruning::Look => {
                let others = state.pruners.iter().any(|pruner| pruner.is_locked());
                let writers = state.writers.iter().any(|writer| writer.is_locked());
                if self.has_locks() && (others || writers) {
                    return;
                }
                for known in state.snapshot_views(self.lag) {
                    let at = Pruning::LookMarks;
                    out(What::ListSnapshots, known, with(Pruner { at, known, ..pruner }));
                }
            }
            Pruning::LookMarks => {
                for seen in state.mark_views(self.lag) {
                    let at = Pruning::LookIndex;
                    out(What::ListMarks, seen, with(Pruner { at, seen, ..pruner }));
                }
            }
            Pruning::LookIndex => {
                for (names, tombstones) in state.index_views(self.lag) {
                    let usable = names & !tombstones & !pruner.seen;
                    let pending = pruner.known & !state.blobs_of(usable);
                    let readable = state.blobs_of(state.there(names & !tombstones));
                    let seen = due_packs & !tombstones;
                    let after = Pruner { known: 0, seen, pending, ..pruner };
                    let named = names & !tombstones;
                    if pending & !readable != 0 {
                        out(What::GiveUp, named, with(Pruner::default()));
                    } else if pending == 0 {
                        out(What::ListIndex, named, with(Pruner { at: Pruning::Bury, ..after }));
                    } else if self.is(Broken::MarksWithdrawn) {
                        let at = Pruning::Withdraw;
                        out(What::ListIndex, named, with(Pruner { at, ..after }));
                    } else {
                        let at = Pruning::LookUpload;
                        out(What::ListIndex, named, with(Pruner { at, ..after }));
                    }
                }
            }
            Pruning::LookUpload | Pruning::PlanUpload => {
                let mut next = state.clone();
                let Some(pack) = next.add_pack(self.rules.room, pruner.pending) else { return };
                let at = match pruner.at {
                    Pruning::LookUpload => Pruning::LookName,
                    _ => Pruning::PlanName,
                };
                next.pruners[number] = Pruner { at, pending: 0, fresh: 1 << pack, ..pruner };
                out(What::Upload, 1 << pack, next);
            }
            Pruning::LookName | Pruning::PlanName => {
                let mut next = state.clone();
                if next.add_segment(self.rules.room, pruner.fresh, 0).is_none() {
                    return;
                }
                let at = match pruner.at {
                    Pruning::LookName => Pruning::Bury,
                    _ => Pruning::Mark,
                };
                next.pruners[number] = Pruner { at, fresh: 0, ..pruner };
                out(What::Name, pruner.fresh, next);
            }
            Pruning::Withdraw => {
                let mut next = state.clone();
                let holds =
                    |mark: usize| state.blobs_of(state.marks[mark].packs) & pruner.pending != 0;
                let taken = members(pruner.due).filter(|mark| holds(*mark)).fold(0, |all, mark| {
                    next.marks[mark] = Mark::default();
                    all | 1 << mark
                });
                next.pruners[number] = Pruner::default();
                out(What::Withdraw, taken, next);
            }
            Pruning::Bury => {
                let mut next = state.clone();
                let buried = pruner.seen;
                if self.is(Broken::NoTombstones) {
                    // Their names go from the index instead, all at the same moment.
                    next.segments.iter_mut().for_each(|segment| segment.names &= !due_packs);
                } else if buried != 0 && next.add_segment(self.rules.room, 0, buried).is_none() {
                    return;
                }
                next.pruners[number] = Pruner { at: Pruning::Delete, seen: 0, ..pruner };
                out(What::Bury, buried, next);
            }
            Pruning::Delete => {
                let mut next = state.clone();
                for pack in members(due_packs) {
                    next.packs[pack].is_there = false;
                    next.packs[pack].age = 0;
                }
                next.pruners[number] = Pruner { at: Pruning::Unmark, ..pruner };
                out(What::Delete, due_packs, next);
            }
            Pruning::Unmark => {
                let shown = state.segments.iter().filter(|segment| segment.age > self.lag);
                let shown = shown.fold(0, |all, segment| all | segment.tombstones);
                let goes_at_once =
                    matches!(self.rules.broken, Broken::MarksGoAtOnce | Broken::NoTombstones);
                if due_packs & !shown != 0 && !goes_at_once {
                    return;
                }
                let mut next = state.clone();
                members(pruner.due).for_each(|mark| next.marks[mark] = Mark::default());
                next.pruners[number] = Pruner::default();
                out(What::Unmark, pruner.due, next);
            }
            Pruning::PlanIndex => {
                for (names, tombstones) in state.index_views(self.lag) {
                    let usable = names & !tombstones & !pruner.seen;
                    let mut known = names | tombstones | pruner.seen;
                    // What was stored just now is left to whoever stored it.
                    for (pack, info) in state.packs.iter().enumerate() {
                        if !info.is_there || info.age <= self.rules.grace {
                            known |= 1 << pack;
                        }
                    }
                    let unindexed = !known & ((1 << PACKS) - 1);
                    let at = Pruning::PlanSnapshots;
                    let after = Pruner { at, seen: usable, fresh: unindexed, ..pruner };
                    out(What::ListIndex, names & !tombstones, with(after));
                }
            }
            Pruning::PlanSnapshots => {
                let (usable, unindexed) = (pruner.seen, pruner.fresh);
                for needed in state.snapshot_views(self.lag) {
                    for live in state.choices(needed, usable) {
                        let mut marked = (usable & !live) | unindexed;
                        let mut pending = 0;
                        let partly = |pack: &usize| state.packs[*pack].blobs & !needed != 0;
                        if let Some(pack) = members(live).find(partly) {
                            // One is stored anew, without what nothing needs.
                            marked |= 1 << pack;
                            pending = state.packs[pack].blobs
                                & needed
                                & !state.blobs_of(live & !(1 << pack));
                        }
                        let at = match (marked, pending) {
                            (0, _) => Pruning::Idle,
                            (_, 0) => Pruning::Mark,
                            _ => Pruning::PlanUpload,
                        };
                        let after = match at {
                            Pruning::Idle => Pruner::default(),
                            _ => Pruner { at, seen: marked, pending, ..Pruner::default() },
                        };
                        out(What::ListSnapshots, needed, with(after));
                    }
                }
            }
            Pruning::Mark => {
                let mut next = state.clone();
                if next.add_mark(pruner.seen).is_none() {
                    return;
                }
                next.pruners[number] = Pruner::default();
                out(What::Mark, pruner.seen, next);
            }
        }
    }

    fn compactor_steps(&self, state: &State, out: &mut impl FnMut(What, Set, State)) {
        let compactor = state.compactor;
        match compactor.at {
            Merging::Idle => {
                if state.merges == 0 {
                    return;
                }
                let ages = state.segments.iter().map(|segment| segment.age);
                for inputs in listings(ages, self.lag) {
                    if inputs.count_ones() < 2 {
                        continue;
                    }
                    let mut next = state.clone();
                    next.merges -= 1;
                    next.compactor = Compactor { at: Merging::Write, inputs, ..compactor };
                    for segment in members(inputs) {
                        next.compactor.names |= state.segments[segment].names;
                        next.compactor.tombstones |= state.segments[segment].tombstones;
                    }
                    out(What::ListIndex, next.compactor.names & !next.compactor.tombstones, next);
                }
            }
            Merging::Write => {
                let mut next = state.clone();
                let Some(segment) =
                    next.add_segment(self.rules.room, compactor.names, compactor.tombstones)
                else {
                    return;
                };
                let inputs = compactor.inputs;
                next.compactor = Compactor {
                    at: Merging::Delete,
                    inputs,
                    output: segment as u8 + 1,
                    ..Compactor::default()
                };
                out(What::Merge, inputs, next);
            }
            Merging::Delete => {
                let output = state.segments[usize::from(compactor.output) - 1];
                if output.age <= self.rules.grace {
                    return;
                }
                let mut next = state.clone();
                next.segments[usize::from(compactor.output) - 1].age = self.lag + 1;
                members(compactor.inputs)
                    .for_each(|segment| next.segments[segment] = Segment::default());
                next.compactor = Compactor::default();
                out(What::DeleteInputs, compactor.inputs, next);
            }
        }
    }
}

impl Writer {
    fn is_locked(&self) -> bool {
        matches!(
            self.at,
            Writing::CheckIndex
                | Writing::Write
                | Writing::Verify
                | Writing::VerifyIndex
                | Writing::Retract
        )
    }
}

impl Pruner {
    fn is_locked(&self) -> bool {
        matches!(
            self.at,
            Pruning::LookMarks
                | Pruning::LookIndex
                | Pruning::LookUpload
                | Pruning::LookName
                | Pruning::Withdraw
                | Pruning::Bury
                | Pruning::Delete
                | Pruning::Unmark
        )
    }
}

impl Model for Protocol {
    type State = State;
    type Step = Step;

    fn first(&self) -> State {
        let rules = &self.rules;
        let mut state = State {
            prunes: rules.prunes,
            merges: rules.merges,
            forgets: rules.forgets,
            ..State::default()
        };
        for blobs in &rules.packs {
            let pack = state.add_pack(rules.room, *blobs).expect("there is room");
            let segment = state.add_segment(rules.room, 1 << pack, 0).expect("there is room");
            state.segments[segment].age = self.lag + 1;
        }
        for (blobs, is_forgotten) in &rules.snapshots {
            let snapshot = state.add_snapshot(*blobs).expect("there is room");
            state.snapshots[snapshot].age = self.lag + 1;
            state.snapshots[snapshot].promise =
                if *is_forgotten { Promise::Forgotten } else { Promise::Reported };
        }
        if rules.marked != 0 {
            let mark = state.add_mark(rules.marked).expect("there is room");
            state.marks[mark].age = (rules.grace + 1).max(self.lag + 1);
        }
        for (writer, left) in state.writers.iter_mut().zip(rules.backups) {
            writer.left = left;
        }
        state
    }

    fn steps(&self, state: &State, found: &mut Vec<(Step, State)>) {
        let later = self.tick(state);
        if later != *state {
            found.push((Step { actor: Actor::World, what: What::Tick, set: 0 }, later));
        }
        if state.forgets > 0 {
            for (number, snapshot) in state.snapshots.iter().enumerate() {
                if snapshot.promise == Promise::Reported {
                    let mut next = state.clone();
                    next.forgets -= 1;
                    next.snapshots[number].promise = Promise::Forgotten;
                    let step = Step { actor: Actor::World, what: What::Forget, set: 1 << number };
                    found.push((step, next));
                }
            }
        }
        for number in 0..2 {
            let actor = Actor::Writer(number);
            self.writer_steps(state, number, &mut |what, set, next| {
                found.push((Step { actor, what, set }, next));
            });
        }
        for number in 0..2 {
            let actor = Actor::Pruner(number);
            // Two that stand idle are the same: the first one begins.
            if number == 1 && state.pruners.iter().all(|pruner| pruner.at == Pruning::Idle) {
                continue;
            }
            self.pruner_steps(state, number, &mut |what, set, next| {
                found.push((Step { actor, what, set }, next));
            });
        }
        self.compactor_steps(state, &mut |what, set, next| {
            found.push((Step { actor: Actor::Compactor, what, set }, next));
        });
    }

    fn broken_promise(&self, state: &State) -> Option<String> {
        let readable = state.readable();
        let is_promised = |promise: Promise| match self.rules.promised {
            Promised::Reported => promise == Promise::Reported,
            Promised::InTime => matches!(promise, Promise::Reported | Promise::Written),
        };
        let is_lost =
            |snapshot: &Snapshot| is_promised(snapshot.promise) && snapshot.blobs & !readable != 0;
        let number = state.snapshots.iter().position(is_lost)?;
        let lost = members(state.snapshots[number].blobs & !readable)
            .map(|blob| blob.to_string())
            .collect::<Vec<_>>()
            .join(", ");
        Some(match state.snapshots[number].promise {
            Promise::Reported => format!("snapshot {number}, reported as safe, lacks blob {lost}"),
            _ => format!("snapshot {number}, written in time, lacks blob {lost}"),
        })
    }
}
