//! The course of one resumable upload, without doing any of it.
//!
//! [`Machine::step`] says what to do next, and [`Machine::on`] takes what came of it; whoever drives
//! it sends the requests, pauses and gives up when its patience ends. The protocol is TUS 1.0.0 with
//! the service's own headers (`docs/putio-api.md`, "Uploads").
//!
//! Invariants: a [`Step::Finished`] names a row whose size and CRC-32 are those of the content. A row
//! is deleted only if its CRC-32 differs and it has been seen to have the name and folder of this
//! upload. Whatever is answered, the machine comes to an end if each step is answered at last:
//! answers without progress, new beginnings and damaged results are counted and limited.

use crate::model::FileId;

/// Answers in a row that bring the upload no further. Whoever drives the machine is less patient.
const STALLS_MAX: u32 = 100;
/// Sessions begun anew because one was lost or could not be continued.
const RESTARTS_MAX: u32 = 5;
/// Times that the row which a session of another process names was not there, before that session is
/// left. A row of this process may be late; it is waited for as long as patience lasts.
const ROWS_MISSING_MAX: u32 = 3;
/// Failures of the service without a byte of progress, before a session of another process is left: it
/// may be bound to a machine that is broken.
const FAILURES_MAX: u32 = 5;
/// Uploads repeated because the row's CRC-32 was not the content's.
const CORRUPTIONS_MAX: u32 = 2;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Begin a session (`POST`); answered by [`Event::Created`].
    Create,
    /// Ask how much has arrived (`HEAD`); answered by [`Event::Offset`].
    AskOffset,
    /// Send a slice (`PATCH`), an empty one too; answered by [`Event::Offset`] or
    /// [`Event::Conflict`].
    Send {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Calculate the CRC-32 of the whole content; answered by [`Event::Hashed`].
    Hash,
    /// Look in the folder for a row of the upload's name, size and CRC-32, since a row may have come
    /// into being without its number having been told; answered by [`Event::Found`].
    Find {
        /// Go through the whole listing if the look-up by name does not find it.
        is_thorough: bool,
    },
    /// Look at this row; answered by [`Event::Fetched`].
    Fetch {
        /// The row.
        id: FileId,
    },
    /// Delete this row, whose bytes are not the content; answered by [`Event::Deleted`].
    Delete {
        /// The row.
        id: FileId,
    },
    /// Done: the row's bytes are the content.
    Finished {
        /// The row.
        id: FileId,
        /// CRC-32 of the content and of the row.
        crc32: u32,
    },
    /// It cannot be done.
    Failed(Reason),
}

/// Why an upload cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Answers kept coming, but the offset did not move.
    Stalled,
    /// One session after the other was lost.
    SessionsLost,
    /// The row's CRC-32 was not the content's, each time.
    Corrupt {
        /// That of the content.
        expected: u32,
        /// That of the row, if the service told.
        found: Option<u32>,
    },
}

/// What a completed upload's answer says of the row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// `putio-file-id`.
    pub id: Option<FileId>,
    /// `putio-file-crc32`.
    pub crc32: Option<u32>,
}

/// A row as far as uploads care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its number.
    pub id: FileId,
    /// Bytes.
    pub size: u64,
    /// CRC-32, if the service tells.
    pub crc32: Option<u32>,
    /// Whether it has the name and the folder of this upload.
    pub is_ours: bool,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session exists.
    Created(Receipt),
    /// The session has this many bytes.
    Offset {
        /// `Upload-Offset`; an answer without it is no answer.
        offset: Option<u64>,
        /// `Upload-Length`, where it was told.
        length: Option<u64>,
        /// What the answer says of the row.
        receipt: Receipt,
    },
    /// The slice does not begin where the session ends (409).
    Conflict {
        /// Where it ends, if told.
        offset: Option<u64>,
    },
    /// There is no such session (404, 410), or it refuses to go on (any other 4xx).
    Gone,
    /// The service failed (5xx), most likely without having done anything.
    Failed,
    /// No answer arrived; anything may have happened.
    Lost,
    /// The request was one too many and not looked at: it is sent again when the limit allows.
    Refused,
    /// CRC-32 of the content.
    Hashed(u32),
    /// The row found, if any.
    Found(Option<Row>),
    /// The row, if it exists.
    Fetched(Option<Row>),
    /// The row is gone.
    Deleted,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Machine {
    length: u64,
    slice_bytes: u64,
    step: Step,
    session: SessionState,
    content_crc32: Option<u32>,
    stalls: u32,
    restarts: u32,
    corruptions: u32,
}

/// What is known of the current session.
#[derive(Clone, Copy, Debug, Default)]
struct SessionState {
    /// It was begun by another process: anything may have been sent.
    is_inherited: bool,
    /// The offset last told.
    position: u64,
    /// The highest offset told.
    peak: u64,
    /// The end of the furthest slice sent.
    sent_end: u64,
    /// A request that may have completed the file was sent.
    may_be_complete: bool,
    /// The last bytes were sent by this process.
    has_sent_end: bool,
    /// The last request failed on the service's side.
    has_failed: bool,
    /// How often requests failed on the service's side since bytes got through.
    failures: u32,
    /// The row was looked up by its name.
    has_looked: bool,
    /// The whole folder was searched for the row.
    has_looked_thoroughly: bool,
    /// An empty slice at the end was answered.
    has_asked_again: bool,
    /// How often the row that it names was not there.
    rows_missing: u32,
    receipt: Receipt,
}

impl Machine {
    /// An upload of `length` bytes in slices of at most `slice_bytes`; `is_resumed` if a session of
    /// an earlier process exists.
    #[must_use]
    pub fn new(length: u64, slice_bytes: u64, is_resumed: bool) -> Self {
        let session = SessionState {
            is_inherited: is_resumed,
            may_be_complete: is_resumed,
            ..SessionState::default()
        };
        Self {
            length,
            slice_bytes: slice_bytes.max(1),
            step: if is_resumed { Step::AskOffset } else { Step::Create },
            session,
            content_crc32: None,
            stalls: 0,
            restarts: 0,
            corruptions: 0,
        }
    }

    /// What to do next.
    #[must_use]
    pub const fn step(&self) -> Step {
        self.step
    }

    /// Answers in a row that brought nothing: pause before the next step if it is not 0.
    #[must_use]
    pub const fn stalls(&self) -> u32 {
        self.stalls
    }

    /// The highest offset the current session has told.
    #[must_use]
    pub const fn peak(&self) -> u64 {
        self.session.peak
    }

    /// Takes what came of the current step. An event that does not answer it changes nothing but
    /// counts as an answer without progress.
    pub fn on(&mut self, event: Event) {
        if event == Event::Refused {
            return;
        }
        if let Step::Send { offset, length } = self.step {
            let end = offset.saturating_add(length);
            self.session.sent_end = self.session.sent_end.max(end);
            self.session.may_be_complete |= end >= self.length;
            self.session.has_sent_end |= length > 0 && end >= self.length;
            let is_answer = !matches!(event, Event::Lost | Event::Failed);
            self.session.has_asked_again |= length == 0 && is_answer;
        }
        if event != Event::Failed {
            self.session.has_failed = false;
        }
        let is_about_session = matches!(self.step, Step::AskOffset | Step::Send { .. });
        if is_about_session && event == Event::Failed {
            self.session.failures += 1;
        }
        match (self.step, event) {
            (Step::Finished { .. } | Step::Failed(_), _) => {}
            (_, Event::Failed) if is_about_session && self.is_session_broken() => {
                // As if it were gone, and was asked for the last time.
                self.session.has_asked_again = true;
                self.on_gone();
            }
            (Step::Create, Event::Created(receipt)) => {
                self.session = SessionState { receipt, ..SessionState::default() };
                self.send_next();
            }
            // A session whose answer was lost holds nothing; the service forgets it.
            (Step::Create, _) => self.stall(),
            (Step::AskOffset, Event::Offset { offset, length, receipt }) => {
                self.on_offset(offset, length, receipt);
            }
            (Step::Send { .. }, Event::Offset { offset, length, receipt }) => {
                self.on_offset(offset, length, receipt);
            }
            (Step::Send { .. }, Event::Conflict { offset: Some(offset) }) => {
                self.on_offset(Some(offset), None, Receipt::default());
            }
            (Step::Send { .. }, Event::Conflict { offset: None } | Event::Lost) => {
                self.stall();
                self.ask();
            }
            (Step::Send { .. }, Event::Failed) => {
                // Asking costs a request; sending the same slice again costs none if the service did
                // nothing, and if it did, it says where to go on.
                self.stall();
                if self.session.has_failed {
                    self.ask();
                }
                self.session.has_failed = true;
            }
            (Step::AskOffset | Step::Send { .. }, Event::Gone) => self.on_gone(),
            (Step::Hash, Event::Hashed(crc32)) => {
                self.content_crc32 = Some(crc32);
                self.conclude();
            }
            (Step::Find { is_thorough }, Event::Found(row)) => self.on_found(is_thorough, row),
            (Step::Fetch { id }, Event::Fetched(row)) => self.on_fetched(id, row),
            (Step::Delete { .. }, Event::Deleted) => self.begin_again_after_damage(),
            (_, _) => self.stall(),
        }
    }

    fn on_offset(&mut self, offset: Option<u64>, length: Option<u64>, receipt: Receipt) {
        let receipt_before = self.session.receipt;
        self.session.receipt = Receipt {
            id: receipt.id.filter(|id| *id > FileId::ROOT).or(receipt_before.id),
            crc32: receipt.crc32.or(receipt_before.crc32),
        };
        let Some(offset) = offset else {
            self.stall();
            return self.ask();
        };
        let is_foreign = length.is_some_and(|length| length != self.length);
        let is_invented = !self.session.is_inherited && offset > self.session.sent_end;
        if is_foreign || is_invented || offset > self.length {
            return self.begin_again();
        }
        let is_progress = offset > self.session.peak;
        self.session.position = offset;
        if is_progress {
            self.session.peak = offset;
            self.session.failures = 0;
            self.stalls = 0;
        }
        if offset == self.length && self.session.may_be_complete {
            return self.conclude();
        }
        // Going backwards is accepted as often as answers without progress are.
        let is_first_answer = matches!(self.step, Step::AskOffset) && offset == self.session.peak;
        if !is_progress && !is_first_answer {
            self.stall();
        }
        self.send_next();
    }

    /// Whether the service has only failed where it was asked about a session of another process.
    const fn is_session_broken(&self) -> bool {
        self.session.is_inherited && self.session.failures >= FAILURES_MAX
    }

    fn on_gone(&mut self) {
        if self.session.position == self.length && self.session.may_be_complete {
            // It was complete; only asking again was refused.
            self.conclude();
        } else if self.session.may_be_complete {
            self.look_for_row();
        } else {
            self.begin_again();
        }
    }

    /// The session may have been completed and forgotten: the row is there, or all is lost.
    fn look_for_row(&mut self) {
        if self.content_crc32.is_none() {
            self.go(Step::Hash);
        } else if self.session.has_looked {
            self.begin_again();
        } else {
            // Nothing in the folder is named so unless an upload came to its end.
            self.session.has_looked = true;
            self.session.has_looked_thoroughly = true;
            self.session.has_asked_again = true;
            self.go(Step::Find { is_thorough: !self.session.is_inherited });
        }
    }

    /// All bytes have arrived: which row is it, and is it whole?
    fn conclude(&mut self) {
        let Some(content_crc32) = self.content_crc32 else {
            return self.go(Step::Hash);
        };
        let is_complete = self.session.position == self.length;
        match self.session.receipt {
            Receipt { id: Some(id), crc32: Some(crc32) } if crc32 == content_crc32 => {
                self.go(Step::Finished { id, crc32 });
            }
            // A row that differs is looked at before it is deleted.
            Receipt { id: Some(id), .. } => self.go(Step::Fetch { id }),
            Receipt { id: None, .. } if !is_complete => self.look_for_row(),
            Receipt { id: None, .. } => {
                let session = &mut self.session;
                if !session.has_looked {
                    session.has_looked = true;
                    self.go(Step::Find { is_thorough: false });
                } else if !session.has_asked_again {
                    self.go(Step::Send { offset: self.length, length: 0 });
                } else if !session.has_looked_thoroughly {
                    session.has_looked_thoroughly = true;
                    self.go(Step::Find { is_thorough: true });
                } else {
                    self.begin_again();
                }
            }
        }
    }

    fn on_found(&mut self, is_thorough: bool, row: Option<Row>) {
        let row = row.filter(|row| {
            row.is_ours && row.size == self.length && row.crc32 == self.content_crc32
        });
        match (row, self.content_crc32) {
            (Some(row), Some(crc32)) => self.go(Step::Finished { id: row.id, crc32 }),
            _ if is_thorough || self.session.position != self.length => self.begin_again(),
            _ => self.conclude(),
        }
    }

    fn on_fetched(&mut self, id: FileId, row: Option<Row>) {
        let Some(expected) = self.content_crc32 else { return self.go(Step::Hash) };
        match row {
            Some(row) if row.crc32 == Some(expected) && row.size == self.length => {
                self.go(Step::Finished { id, crc32: expected });
            }
            // Not there yet; or deleted since, and then a session of long ago leads nowhere.
            None if self.is_row_gone() => self.go(Step::Find { is_thorough: true }),
            None => {
                self.session.rows_missing += 1;
                self.stall();
            }
            Some(Row { crc32: None, .. }) => self.stall(),
            Some(row) if self.corruptions == CORRUPTIONS_MAX && !row.is_ours => {
                self.step = Step::Failed(Reason::Corrupt { expected, found: row.crc32 });
            }
            Some(row) if !row.is_ours => self.begin_again_after_damage(),
            Some(row) => {
                self.session.receipt.crc32 = row.crc32;
                self.go(Step::Delete { id });
            }
        }
    }

    /// Whether waiting for the row that the session names is of no use.
    const fn is_row_gone(&self) -> bool {
        let session = &self.session;
        session.is_inherited && !session.has_sent_end && session.rows_missing == ROWS_MISSING_MAX
    }

    fn begin_again_after_damage(&mut self) {
        let expected = self.content_crc32.unwrap_or_default();
        if self.corruptions == CORRUPTIONS_MAX {
            let found = self.session.receipt.crc32;
            self.step = Step::Failed(Reason::Corrupt { expected, found });
            return;
        }
        self.corruptions += 1;
        // The content may have been read wrongly, or have changed.
        self.content_crc32 = None;
        self.session = SessionState::default();
        self.stalls = 0;
        self.go(Step::Create);
    }

    fn begin_again(&mut self) {
        if self.restarts == RESTARTS_MAX {
            self.step = Step::Failed(Reason::SessionsLost);
            return;
        }
        self.restarts += 1;
        self.session = SessionState::default();
        self.go(Step::Create);
    }

    /// An empty file has one slice, an empty one.
    fn send_next(&mut self) {
        let offset = self.session.position;
        let length = (self.length - offset).min(self.slice_bytes);
        self.go(Step::Send { offset, length });
    }

    fn ask(&mut self) {
        self.go(Step::AskOffset);
    }

    fn stall(&mut self) {
        self.stalls += 1;
        if self.stalls > STALLS_MAX {
            self.step = Step::Failed(Reason::Stalled);
        }
    }

    fn go(&mut self, step: Step) {
        if !matches!(self.step, Step::Failed(_)) {
            self.step = step;
        }
    }
}

#[cfg(test)]
mod tests;
