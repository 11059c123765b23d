//! The course of an upload: by table for each known turn, and at random against a model of a
//! service that fails in every way.

use proptest::prelude::*;

use super::*;

const CRC: u32 = 0xc0ff_ee00;
const ROW: FileId = FileId(77);

fn offset(offset: u64) -> Event {
    Event::Offset { offset: Some(offset), length: None, receipt: Receipt::default() }
}

fn completed(offset: u64, crc32: Option<u32>) -> Event {
    let receipt = Receipt { id: Some(ROW), crc32 };
    Event::Offset { offset: Some(offset), length: None, receipt }
}

fn row(crc32: Option<u32>, size: u64) -> Option<Row> {
    Some(Row { id: ROW, size, crc32, is_ours: true })
}

const fn created() -> Event {
    Event::Created(Receipt { id: None, crc32: None })
}

const fn send(offset: u64, length: u64) -> Step {
    Step::Send { offset, length }
}

const FINISHED: Step = Step::Finished { id: ROW, crc32: CRC };

/// Each pair is the step the machine must ask for, and what comes of it; then the last step.
fn check(mut machine: Machine, course: &[(Step, Event)], last: Step) {
    for (number, (step, event)) in course.iter().enumerate() {
        assert_eq!(machine.step(), *step, "step {number} of {course:?}");
        machine.on(*event);
    }
    assert_eq!(machine.step(), last, "after {course:?}");
}

fn fresh() -> Machine {
    Machine::new(10, 4, false)
}

fn resumed() -> Machine {
    Machine::new(10, 4, true)
}

#[test]
fn slices_follow_each_other_to_the_end() {
    check(
        fresh(),
        &[
            (Step::Create, created()),
            (send(0, 4), offset(4)),
            (send(4, 4), offset(8)),
            (send(8, 2), completed(10, Some(CRC))),
            (Step::Hash, Event::Hashed(CRC)),
        ],
        FINISHED,
    );
}

#[test]
fn a_whole_file_is_one_slice() {
    let course = [
        (Step::Create, created()),
        (send(0, 10), completed(10, Some(CRC))),
        (Step::Hash, Event::Hashed(CRC)),
    ];
    check(Machine::new(10, u64::MAX, false), &course, FINISHED);
}

#[test]
fn an_empty_file_has_an_empty_slice() {
    let machine = || Machine::new(0, 4, false);
    let hashed = (Step::Hash, Event::Hashed(CRC));
    check(
        machine(),
        &[(Step::Create, created()), (send(0, 0), completed(0, Some(CRC))), hashed],
        FINISHED,
    );
    // A service that finishes it when it is begun, and does not know the session any more.
    let receipt = Receipt { id: Some(ROW), crc32: Some(CRC) };
    check(
        machine(),
        &[(Step::Create, Event::Created(receipt)), (send(0, 0), Event::Gone), hashed],
        FINISHED,
    );
    check(
        machine(),
        &[
            (Step::Create, created()),
            (send(0, 0), Event::Lost),
            (Step::AskOffset, offset(0)),
            hashed,
            (Step::Find { is_thorough: false }, Event::Found(None)),
            (send(0, 0), completed(0, Some(CRC))),
        ],
        FINISHED,
    );
}

#[test]
fn a_part_that_arrived_is_not_sent_again() {
    check(
        fresh(),
        &[
            (Step::Create, created()),
            (send(0, 4), Event::Lost),
            (Step::AskOffset, offset(3)),
            (send(3, 4), offset(5)),
            (send(5, 4), Event::Conflict { offset: Some(6) }),
            (send(6, 4), completed(10, Some(CRC))),
            (Step::Hash, Event::Hashed(CRC)),
        ],
        FINISHED,
    );
}

#[test]
fn an_offset_that_goes_backwards_is_followed() {
    check(
        fresh(),
        &[
            (Step::Create, created()),
            (send(0, 4), offset(4)),
            (send(4, 4), Event::Conflict { offset: None }),
            (Step::AskOffset, offset(1)),
            (send(1, 4), offset(5)),
        ],
        send(5, 4),
    );
}

#[test]
fn a_service_that_fails_once_gets_the_slice_again_and_is_asked_after_the_second_time() {
    check(
        fresh(),
        &[
            (Step::Create, created()),
            (send(0, 4), Event::Failed),
            (send(0, 4), Event::Failed),
            (Step::AskOffset, Event::Failed),
            (Step::AskOffset, offset(0)),
        ],
        send(0, 4),
    );
}

#[test]
fn a_request_that_was_refused_changes_nothing() {
    check(
        fresh(),
        &[
            (Step::Create, Event::Refused),
            (Step::Create, created()),
            (send(0, 4), Event::Refused),
            (send(0, 4), offset(4)),
        ],
        send(4, 4),
    );
}

#[test]
fn a_lost_session_is_begun_again_a_few_times() {
    let mut machine = fresh();
    for _ in 0..=RESTARTS_MAX {
        assert_eq!(machine.step(), Step::Create);
        machine.on(created());
        machine.on(offset(4));
        machine.on(Event::Gone);
    }
    assert_eq!(machine.step(), Step::Failed(Reason::SessionsLost));
}

#[test]
fn sessions_that_contradict_are_left() {
    let start = [(Step::Create, created()), (send(0, 4), offset(4))];
    for wrong in [
        offset(9),
        offset(11),
        Event::Offset { offset: Some(4), length: Some(11), receipt: Receipt::default() },
    ] {
        check(fresh(), &[&start[..], &[(send(4, 4), wrong)]].concat(), Step::Create);
    }
    let foreign = Event::Offset { offset: Some(4), length: Some(11), receipt: Receipt::default() };
    check(resumed(), &[(Step::AskOffset, foreign)], Step::Create);
}

#[test]
fn a_session_of_another_process_goes_on_where_it_stopped() {
    check(
        resumed(),
        &[
            (Step::AskOffset, offset(7)),
            (send(7, 3), completed(10, Some(CRC))),
            (Step::Hash, Event::Hashed(CRC)),
        ],
        FINISHED,
    );
}

#[test]
fn a_session_of_another_process_that_is_gone_may_have_been_finished() {
    let start = [(Step::AskOffset, Event::Gone), (Step::Hash, Event::Hashed(CRC))];
    let find = Step::Find { is_thorough: false };
    let found = (find, Event::Found(row(Some(CRC), 10)));
    check(resumed(), &[&start[..], &[found]].concat(), FINISHED);
    for other in [None, row(Some(CRC), 9), row(Some(1), 10), row(None, 10)] {
        check(resumed(), &[&start[..], &[(find, Event::Found(other))]].concat(), Step::Create);
    }
}

#[test]
fn a_finished_upload_whose_answer_was_lost_is_found() {
    let start = [
        (Step::Create, created()),
        (send(0, 4), offset(4)),
        (send(4, 4), offset(8)),
        (send(8, 2), Event::Lost),
        (Step::AskOffset, offset(10)),
        (Step::Hash, Event::Hashed(CRC)),
    ];
    let lookup = Step::Find { is_thorough: false };
    let search = Step::Find { is_thorough: true };
    let found = Event::Found(row(Some(CRC), 10));
    check(fresh(), &[&start[..], &[(lookup, found)]].concat(), FINISHED);
    let again = [(lookup, Event::Found(None)), (send(10, 0), completed(10, Some(CRC)))];
    check(fresh(), &[&start[..], &again].concat(), FINISHED);
    let mute = [(lookup, Event::Found(None)), (send(10, 0), offset(10)), (search, found)];
    check(fresh(), &[&start[..], &mute].concat(), FINISHED);
    let refused = [(lookup, Event::Found(None)), (send(10, 0), Event::Gone)];
    check(fresh(), &[&start[..], &refused, &[(search, found)]].concat(), FINISHED);
    let nothing = [(search, Event::Found(None))];
    check(fresh(), &[&start[..], &refused, &nothing].concat(), Step::Create);
}

#[test]
fn a_finished_upload_that_the_service_forgot_is_searched_for() {
    let start = [
        (Step::Create, created()),
        (send(0, 4), offset(4)),
        (send(4, 4), offset(8)),
        (send(8, 2), Event::Lost),
        (Step::AskOffset, Event::Gone),
        (Step::Hash, Event::Hashed(CRC)),
    ];
    let search = Step::Find { is_thorough: true };
    let found = (search, Event::Found(row(Some(CRC), 10)));
    check(fresh(), &[&start[..], &[found]].concat(), FINISHED);
    check(fresh(), &[&start[..], &[(search, Event::Found(None))]].concat(), Step::Create);
}

#[test]
fn a_missing_checksum_is_asked_for() {
    let start = [
        (Step::Create, created()),
        (send(0, 4), offset(4)),
        (send(4, 4), offset(8)),
        (send(8, 2), completed(10, None)),
        (Step::Hash, Event::Hashed(CRC)),
    ];
    let fetch = Step::Fetch { id: ROW };
    let end = [
        (fetch, Event::Fetched(None)),
        (fetch, Event::Fetched(row(None, 10))),
        (fetch, Event::Fetched(row(Some(CRC), 10))),
    ];
    check(fresh(), &[&start[..], &end].concat(), FINISHED);
}

#[test]
fn a_row_of_this_process_that_is_late_is_waited_for() {
    let hashed = (Step::Hash, Event::Hashed(CRC));
    let fetch = Step::Fetch { id: ROW };
    let late = [(fetch, Event::Fetched(None)); 20];
    let there = [(fetch, Event::Fetched(row(Some(CRC), 10)))];
    let start = [(Step::Create, created()), (send(0, 10), completed(10, None)), hashed];
    check(Machine::new(10, 10, false), &[&start[..], &late, &there].concat(), FINISHED);
    // Begun by another process, but completed by this one.
    let start = [(Step::AskOffset, offset(7)), (send(7, 3), completed(10, None)), hashed];
    check(resumed(), &[&start[..], &late, &there].concat(), FINISHED);
}

#[test]
fn a_session_whose_row_is_gone_is_left() {
    let start = [(Step::AskOffset, completed(10, None)), (Step::Hash, Event::Hashed(CRC))];
    let missing = [(Step::Fetch { id: ROW }, Event::Fetched(None)); 4];
    let search = Step::Find { is_thorough: true };
    let end = [
        (search, Event::Found(None)),
        (Step::Create, created()),
        (send(0, 4), offset(4)),
        (send(4, 4), offset(8)),
        (send(8, 2), completed(10, Some(CRC))),
    ];
    check(resumed(), &[&start[..], &missing, &end].concat(), FINISHED);
    // A row that came late, or under another number.
    let found = [(search, Event::Found(row(Some(CRC), 10)))];
    check(resumed(), &[&start[..], &missing, &found].concat(), FINISHED);
}

#[test]
fn a_session_of_another_process_that_only_fails_is_left() {
    let hash = (Step::Hash, Event::Hashed(CRC));
    let find = Step::Find { is_thorough: false };
    let ask = (Step::AskOffset, Event::Failed);
    let nothing = [hash, (find, Event::Found(None))];
    check(resumed(), &[&[ask; 5][..], &nothing].concat(), Step::Create);
    // It may have been completed.
    let found = [hash, (find, Event::Found(row(Some(CRC), 10)))];
    check(resumed(), &[&[ask; 5][..], &found].concat(), FINISHED);
    // It tells its end but takes nothing.
    let told = (Step::AskOffset, offset(7));
    let refused = (send(7, 3), Event::Failed);
    let course = [told, refused, refused, told, refused, refused, told, refused];
    check(resumed(), &[&course[..], &nothing].concat(), Step::Create);
    // It has all bytes, and nobody knows where.
    let all = [(Step::AskOffset, offset(10)), hash, (find, Event::Found(None))];
    let mute = [
        (send(10, 0), Event::Failed),
        (send(10, 0), Event::Failed),
        ask,
        ask,
        ask,
        (Step::Find { is_thorough: true }, Event::Found(None)),
    ];
    check(resumed(), &[&all[..], &mute].concat(), Step::Create);
}

#[test]
fn failures_leave_a_session_that_takes_bytes_or_is_new_as_it_is() {
    let failures = [(send(7, 1), Event::Failed), (send(7, 1), Event::Failed)];
    let some = [
        (Step::AskOffset, Event::Failed),
        (Step::AskOffset, Event::Failed),
        (Step::AskOffset, Event::Failed),
        (Step::AskOffset, offset(7)),
    ];
    let end = [(Step::AskOffset, Event::Failed), (Step::AskOffset, Event::Lost)];
    let machine = Machine::new(10, 1, true);
    check(machine, &[&some[..], &failures, &end].concat(), Step::AskOffset);
    let start =
        [(Step::Create, created()), (send(0, 4), Event::Failed), (send(0, 4), Event::Failed)];
    let asked = [(Step::AskOffset, Event::Failed); 20];
    check(fresh(), &[&start[..], &asked].concat(), Step::AskOffset);
}

#[test]
fn a_damaged_row_is_deleted_and_the_upload_repeated_twice() {
    let mut machine = fresh();
    for attempt in 0..=CORRUPTIONS_MAX {
        assert_eq!(machine.step(), Step::Create, "attempt {attempt}");
        machine.on(created());
        machine.on(offset(4));
        machine.on(offset(8));
        machine.on(completed(10, Some(1)));
        assert_eq!(machine.step(), Step::Hash, "the content is hashed anew");
        machine.on(Event::Hashed(CRC));
        assert_eq!(machine.step(), Step::Fetch { id: ROW });
        machine.on(Event::Fetched(row(Some(1), 10)));
        assert_eq!(machine.step(), Step::Delete { id: ROW });
        machine.on(Event::Deleted);
    }
    let reason = Reason::Corrupt { expected: CRC, found: Some(1) };
    assert_eq!(machine.step(), Step::Failed(reason));
}

#[test]
fn a_row_that_is_not_of_this_upload_is_never_deleted() {
    let mut machine = fresh();
    for _ in 0..=CORRUPTIONS_MAX {
        machine.on(created());
        machine.on(offset(4));
        machine.on(offset(8));
        machine.on(completed(10, Some(1)));
        machine.on(Event::Hashed(CRC));
        assert_eq!(machine.step(), Step::Fetch { id: ROW });
        let foreign = Row { id: ROW, size: 10, crc32: Some(1), is_ours: false };
        machine.on(Event::Fetched(Some(foreign)));
        assert!(!matches!(machine.step(), Step::Delete { .. }));
    }
    let reason = Reason::Corrupt { expected: CRC, found: Some(1) };
    assert_eq!(machine.step(), Step::Failed(reason));
}

#[test]
fn conflicts_without_an_end_come_to_an_end() {
    let mut machine = fresh();
    machine.on(created());
    for _ in 0..=STALLS_MAX {
        machine.on(Event::Conflict { offset: Some(0) });
    }
    assert_eq!(machine.step(), Step::Failed(Reason::Stalled));
}

/// What the service does with one request.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Well,
    Refused,
    FailedBefore,
    LostBefore,
    /// A slice arrives in part, and the connection breaks.
    LostAfter(u8),
    Forgets,
    Backwards(u8),
    Damages,
    Mute,
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![
        12 => Just(Mood::Well),
        1 => Just(Mood::Refused),
        1 => Just(Mood::FailedBefore),
        1 => Just(Mood::LostBefore),
        2 => any::<u8>().prop_map(Mood::LostAfter),
        1 => Just(Mood::Forgets),
        1 => any::<u8>().prop_map(Mood::Backwards),
        1 => Just(Mood::Damages),
        1 => Just(Mood::Mute),
    ]
}

/// A service with one session and its rows.
#[derive(Debug, Default)]
struct Service {
    length: u64,
    session: Option<u64>,
    is_damaged: bool,
    rows: Vec<(FileId, u32)>,
    receipt: Receipt,
    next_id: i64,
    forgets_when_done: bool,
}

impl Service {
    fn finish(&mut self) {
        self.next_id += 1;
        let id = FileId(self.next_id);
        let crc32 = if self.is_damaged { 1 } else { CRC };
        self.rows.push((id, crc32));
        self.receipt = Receipt { id: Some(id), crc32: Some(crc32) };
    }

    fn answer(&mut self, step: Step, mood: Mood) -> Event {
        match (step, mood) {
            (Step::Create | Step::AskOffset | Step::Send { .. }, Mood::Refused) => Event::Refused,
            (Step::Create | Step::AskOffset | Step::Send { .. }, Mood::LostBefore) => Event::Lost,
            (Step::Create | Step::AskOffset | Step::Send { .. }, Mood::FailedBefore) => {
                Event::Failed
            }
            (Step::Create, mood) => {
                self.session = Some(0);
                self.is_damaged = false;
                self.receipt = Receipt::default();
                if matches!(mood, Mood::LostAfter(_)) { Event::Lost } else { created() }
            }
            (Step::AskOffset, Mood::Forgets) => {
                self.session = None;
                Event::Gone
            }
            (Step::AskOffset, mood) => match self.session {
                None => Event::Gone,
                Some(_) if matches!(mood, Mood::LostAfter(_)) => Event::Lost,
                Some(offset) => Event::Offset {
                    offset: Some(offset),
                    length: Some(self.length),
                    receipt: Receipt::default(),
                },
            },
            (Step::Send { offset, length }, mood) => self.take(offset, length, mood),
            (Step::Hash, _) => Event::Hashed(CRC),
            (Step::Find { .. }, _) => {
                let found = self.rows.iter().rev().find(|(_, crc32)| *crc32 == CRC);
                Event::Found(found.map(|(id, crc32)| self.row(*id, *crc32)))
            }
            (Step::Fetch { id }, mood) => {
                let found = self.rows.iter().find(|(row, _)| *row == id);
                Event::Fetched(found.map(|(id, crc32)| {
                    let row = self.row(*id, *crc32);
                    if matches!(mood, Mood::Mute) { Row { crc32: None, ..row } } else { row }
                }))
            }
            (Step::Delete { id }, _) => {
                self.rows.retain(|(row, _)| *row != id);
                Event::Deleted
            }
            (Step::Finished { .. } | Step::Failed(_), _) => Event::Lost,
        }
    }

    fn take(&mut self, offset: u64, length: u64, mood: Mood) -> Event {
        let Some(current) = self.session else { return Event::Gone };
        if let Mood::Backwards(by) = mood
            && self.receipt.id.is_none()
        {
            let back = current.saturating_sub(u64::from(by) % 8);
            self.session = Some(back);
            return Event::Conflict { offset: (by & 1 == 0).then_some(back) };
        }
        if offset != current {
            return Event::Conflict { offset: Some(current) };
        }
        self.is_damaged |= matches!(mood, Mood::Damages) && length > 0;
        let stored = match mood {
            Mood::LostAfter(part) => u64::from(part).min(length),
            _ => length,
        };
        let end = offset + stored;
        self.session = Some(end);
        let is_done = end == self.length;
        if is_done && self.receipt.id.is_none() {
            self.finish();
            if self.forgets_when_done {
                self.session = None;
            }
        }
        if matches!(mood, Mood::LostAfter(_)) {
            return Event::Lost;
        }
        let receipt = if is_done { self.receipt } else { Receipt::default() };
        let receipt = if matches!(mood, Mood::Mute) { Receipt::default() } else { receipt };
        Event::Offset { offset: Some(end), length: None, receipt }
    }

    const fn row(&self, id: FileId, crc32: u32) -> Row {
        Row { id, size: self.length, crc32: Some(crc32), is_ours: true }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever the service does for a while, the upload ends with a whole row, or says why not.
    #[test]
    fn every_course_ends_with_a_whole_row_or_a_reason(
        length in 0u64..40,
        slice in 1u64..50,
        forgets_when_done: bool,
        arrived in proptest::option::of(0u64..40),
        moods in proptest::collection::vec(mood(), 0..120),
    ) {
        let mut service = Service { length, forgets_when_done, ..Service::default() };
        if let Some(arrived) = arrived {
            service.session = Some(arrived.min(length));
            if arrived >= length {
                service.finish();
            }
        }
        let mut machine = Machine::new(length, slice, arrived.is_some());
        let mut moods = moods.into_iter();
        let mut steps = 0;
        let last = loop {
            match machine.step() {
                last @ (Step::Finished { .. } | Step::Failed(_)) => break last,
                step => {
                    if let Step::Send { offset, length: bytes } = step {
                        prop_assert!(offset + bytes <= length && bytes <= slice);
                    }
                    let mood = moods.next().unwrap_or(Mood::Well);
                    machine.on(service.answer(step, mood));
                }
            }
            steps += 1;
            prop_assert!(steps < 2000, "no end: {machine:?} {service:?}");
        };
        match last {
            Step::Finished { id, crc32 } => {
                prop_assert_eq!(crc32, CRC);
                prop_assert!(service.rows.contains(&(id, CRC)));
            }
            Step::Failed(reason) => {
                let is_known = matches!(
                    reason,
                    Reason::SessionsLost | Reason::Corrupt { expected: CRC, .. }
                );
                prop_assert!(is_known, "{:?}", reason);
            }
            step => prop_assert!(false, "{:?} is no end", step),
        }
    }

    /// A service that answers at random, in contradiction to itself, does not keep it busy for ever,
    /// and no row is deleted that was not seen to be a damaged one of this upload.
    #[test]
    fn nonsense_comes_to_an_end(
        length in 0u64..40,
        is_resumed: bool,
        seed in proptest::collection::vec(any::<(u8, u64, bool, u8)>(), 1..50),
    ) {
        let mut machine = Machine::new(length, 7, is_resumed);
        let mut deletable = false;
        for (kind, number, flag, crc32) in seed.iter().cycle().take(20_000) {
            let step = machine.step();
            if matches!(step, Step::Finished { .. } | Step::Failed(_)) {
                return Ok(());
            }
            if matches!(step, Step::Delete { .. }) {
                prop_assert!(deletable);
            }
            let number = number % (length + 3);
            let crc32 = [None, Some(1), Some(CRC)][usize::from(crc32 % 3)];
            let receipt = Receipt { id: flag.then_some(FileId(5)), crc32 };
            let row = Row { id: FileId(5), size: number, crc32, is_ours: *flag };
            let event = match kind % 11 {
                0 => Event::Created(receipt),
                1 | 2 => Event::Offset { offset: Some(number), length: None, receipt },
                3 => Event::Offset { offset: None, length: Some(number), receipt },
                4 => Event::Conflict { offset: flag.then_some(number) },
                5 => Event::Gone,
                6 => Event::Failed,
                7 => Event::Lost,
                8 => Event::Hashed(CRC),
                9 => Event::Found(flag.then_some(row)),
                _ if matches!(step, Step::Delete { .. }) => Event::Deleted,
                _ => Event::Fetched(Some(row)),
            };
            if let (Step::Fetch { .. }, Event::Fetched(Some(row))) = (step, event) {
                deletable = row.is_ours && (row.crc32 != Some(CRC) || row.size != length);
            }
            machine.on(event);
        }
        prop_assert!(false, "no end: {:?}", machine);
    }
}
