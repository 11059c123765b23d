//! Snapshots: a root entry plus when, where and by whom it was taken.
//!
//! Which snapshots exist, which are forgotten and which checkpoints are void is for the repository
//! to say; a snapshot does not contain its own id.
//!
//! Layout and limits: `docs/format.md`, "Snapshots".
//!
//! Invariant: whatever [`Snapshot::decode`] returns satisfies [`Snapshot::validate`]: its root is a
//! directory, and what is said to be sorted is.

use crate::cbor::{
    MapWriter, Reader, put_array, put_bool, put_bytes, put_int, put_text, put_uint,
    require_at_most, validate_unknown,
};
use crate::error::Error;
use crate::id::{RepositoryId, SnapshotId, WriterId};
use crate::limits::{
    INCIDENTS_BYTES_MAX, INCIDENTS_MAX, PATH_BYTES_MAX, PATHS_MAX, SMALL_OBJECT_BYTES_MAX,
    TAGS_MAX, TEXT_BYTES_MAX, WRITERS_MAX,
};
use crate::tree::{
    Entry, EntryKind, Timestamp, encode_entry, put_timestamp, read_entry, read_timestamp,
    validate_timestamp,
};

/// What the errors of this module are about.
const WHAT: &str = "snapshot";
/// The version of snapshots that this program reads and writes.
const VERSION: u32 = 1;

/// Keys of the map that is a snapshot.
mod key {
    pub(super) const VERSION: u32 = 0;
    pub(super) const ROOT: u32 = 1;
    pub(super) const TIME: u32 = 2;
    pub(super) const UTC_OFFSET: u32 = 3;
    pub(super) const HOST: u32 = 4;
    pub(super) const USER: u32 = 5;
    pub(super) const PATHS: u32 = 6;
    pub(super) const TAGS: u32 = 7;
    pub(super) const DESCRIPTION: u32 = 8;
    pub(super) const PROGRAM: u32 = 9;
    pub(super) const PARENT: u32 = 10;
    pub(super) const COMPLETE: u32 = 11;
    pub(super) const STATISTICS: u32 = 12;
    pub(super) const INCIDENTS: u32 = 13;
    pub(super) const CONFIG_GENERATION: u32 = 14;
    pub(super) const WRITER: u32 = 15;
    pub(super) const SEQUENCE: u32 = 16;
    pub(super) const SEEN: u32 = 17;
    /// Above 63, so that programs which do not know it keep it.
    pub(super) const ORIGINAL: u32 = 65;
    /// As above.
    pub(super) const MADE: u32 = 66;
}
/// Number of the fields above but for [`key::PARENT`], the only one that may be missing.
const FIELDS_REQUIRED: usize = 17;

/// An incident is an array of its path, its kind and its message.
const INCIDENT_ITEMS: usize = 3;

// Quantities, as errors name them.
const TEXT_LENGTH: &str = "length of a text";
const PATH_LENGTH: &str = "length of a path";
const PATHS: &str = "number of paths of a snapshot";
const TAGS: &str = "number of tags of a snapshot";
const INCIDENTS: &str = "number of incidents of a snapshot";
const INCIDENTS_LENGTH: &str = "length of the incidents of a snapshot";
const WRITERS: &str = "number of writers of a snapshot";

/// What became of one path that was not backed up as it should have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Absolute path, raw bytes.
    pub path: Vec<u8>,
    /// What happened.
    pub kind: IncidentKind,
    /// The system's message, for a person.
    pub message: String,
}

/// The ways in which a path can fail to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum IncidentKind {
    /// It could not be read at all; it is not in the snapshot.
    Unreadable = 0,
    /// It changed while it was read; what was read is in the snapshot.
    ChangedWhileRead = 1,
    /// It vanished between listing and reading; it is not in the snapshot.
    Vanished = 2,
    /// It is in the snapshot, but some of its metadata could not be read.
    MetadataIncomplete = 3,
    /// Its content was lost from the repository and could not be read again.
    Lost = 4,
}

/// Counts of one backup run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Files not in the parent.
    pub files_new: u64,
    /// Files that differ from the parent's.
    pub files_changed: u64,
    /// Files taken over from the parent without reading.
    pub files_unchanged: u64,
    /// Directories seen.
    pub directories: u64,
    /// Links, devices, FIFOs and sockets seen.
    pub others: u64,
    /// Bytes of all files in the snapshot, holes not counted.
    pub bytes_total: u64,
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Plain bytes of blobs that were new to the repository.
    pub bytes_added: u64,
    /// Bytes that were added to the store.
    pub bytes_stored: u64,
    /// Number of blobs new to the repository.
    pub blobs_added: u64,
    /// Paths that failed, each with an [`Incident`].
    pub incidents: u64,
    /// Start of the run to its commit, in milliseconds.
    pub duration_ms: u64,
}

/// A snapshot, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The directory `/`; its name is empty.
    pub root: Entry,
    /// When the backup began, or what `--time` said.
    pub time: Timestamp,
    /// Offset of local time from UTC in seconds, for display.
    pub utc_offset: i32,
    /// Host name.
    pub host: String,
    /// User name.
    pub user: String,
    /// Absolute paths that were asked for, sorted.
    pub paths: Vec<Vec<u8>>,
    /// Tags, sorted.
    pub tags: Vec<String>,
    /// Free text, may be empty.
    pub description: String,
    /// Program and version that wrote it.
    pub program: String,
    /// The snapshot that served as parent.
    pub parent: Option<SnapshotId>,
    /// False for a checkpoint of an unfinished backup.
    pub complete: bool,
    /// Counts.
    pub statistics: Statistics,
    /// The first [`crate::limits::INCIDENTS_MAX`] paths that failed.
    pub incidents: Vec<Incident>,
    /// Generation of the configuration that the writer saw.
    pub config_generation: u64,
    /// Who wrote it.
    pub writer: WriterId,
    /// The writer's own number of this snapshot, counting from 1.
    pub sequence: u64,
    /// The highest sequence number seen of every other writer, sorted by writer.
    pub seen: Vec<(WriterId, u64)>,
    /// Fields of newer programs (CBOR keys from 64), as raw CBOR, kept and written back; sorted by key.
    pub unknown: Vec<(u32, Vec<u8>)>,
}

/// The snapshot of another repository that one was copied from, or the first of several such.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Original {
    /// The repository.
    pub repository: RepositoryId,
    /// The snapshot in it.
    pub snapshot: SnapshotId,
}

impl Original {
    /// Puts this among the fields from 64 on of a snapshot, in place of another one.
    pub fn put_into(&self, fields: &mut Vec<(u32, Vec<u8>)>) {
        let mut value = Vec::new();
        put_bytes(
            &mut value,
            &[&self.repository.as_bytes()[..], self.snapshot.as_bytes()].concat(),
        );
        put_field(fields, key::ORIGINAL, value);
    }

    /// Takes it out of the fields from 64 on of a snapshot that is not to count as a copy.
    pub fn take_out_of(fields: &mut Vec<(u32, Vec<u8>)>) {
        fields.retain(|(key, _)| *key != key::ORIGINAL);
    }
}

/// Which run made what a snapshot holds: its own, or that of the snapshot that it stands for. Among snapshots of one
/// writer the order of these is that in which they were made, whatever its clock said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Made {
    /// Who made it.
    pub writer: WriterId,
    /// The writer's number for it.
    pub sequence: u64,
    /// How often it was written again since.
    pub rewrites: u32,
}

impl Made {
    const LENGTH: usize = WriterId::LENGTH + size_of::<u64>() + size_of::<u32>();

    /// Puts this among the fields from 64 on of a snapshot, in place of another one.
    pub fn put_into(self, fields: &mut Vec<(u32, Vec<u8>)>) {
        let (sequence, rewrites) = (self.sequence.to_le_bytes(), self.rewrites.to_le_bytes());
        let mut value = Vec::new();
        put_bytes(&mut value, &[&self.writer.as_bytes()[..], &sequence, &rewrites].concat());
        put_field(fields, key::MADE, value);
    }
}

/// Puts a field among those from 64 on of a snapshot, in place of another one of this key.
fn put_field(fields: &mut Vec<(u32, Vec<u8>)>, key: u32, value: Vec<u8>) {
    fields.retain(|(known, _)| *known != key);
    let at = fields.partition_point(|(known, _)| *known < key);
    fields.insert(at, (key, value));
}

impl IncidentKind {
    /// The kind with this number in the format.
    const fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            0 => Self::Unreadable,
            1 => Self::ChangedWhileRead,
            2 => Self::Vanished,
            3 => Self::MetadataIncomplete,
            4 => Self::Lost,
            _ => return None,
        })
    }
}

impl Statistics {
    /// The counts in the order of their keys, which begin at 0.
    const fn fields(&self) -> [u64; 12] {
        [
            self.files_new,
            self.files_changed,
            self.files_unchanged,
            self.directories,
            self.others,
            self.bytes_total,
            self.bytes_read,
            self.bytes_added,
            self.bytes_stored,
            self.blobs_added,
            self.incidents,
            self.duration_ms,
        ]
    }

    /// The count with this key.
    const fn field_mut(&mut self, key: u32) -> Option<&mut u64> {
        Some(match key {
            0 => &mut self.files_new,
            1 => &mut self.files_changed,
            2 => &mut self.files_unchanged,
            3 => &mut self.directories,
            4 => &mut self.others,
            5 => &mut self.bytes_total,
            6 => &mut self.bytes_read,
            7 => &mut self.bytes_added,
            8 => &mut self.bytes_stored,
            9 => &mut self.blobs_added,
            10 => &mut self.incidents,
            11 => &mut self.duration_ms,
            _ => return None,
        })
    }
}

impl Snapshot {
    /// Drops the incidents and the ends of messages that the limits of the format leave no room for;
    /// [`Statistics::incidents`] goes on counting all. For whoever makes a snapshot.
    pub fn trim_incidents(&mut self) {
        self.incidents.retain(|incident| incident.path.len() <= PATH_BYTES_MAX);
        self.incidents.truncate(INCIDENTS_MAX);
        let mut bytes_left = INCIDENTS_BYTES_MAX;
        let mut fitting = 0;
        for incident in &mut self.incidents {
            incident.message.truncate(incident.message.floor_char_boundary(TEXT_BYTES_MAX));
            let Some(rest) = bytes_left.checked_sub(incident.bytes()) else { break };
            bytes_left = rest;
            fitting += 1;
        }
        self.incidents.truncate(fitting);
    }

    /// What it was copied from, if it came from another repository. A field that does not say this is none.
    #[must_use]
    pub fn original(&self) -> Option<Original> {
        let (_, value) = self.unknown.iter().find(|(key, _)| *key == key::ORIGINAL)?;
        let mut reader = Reader::new(WHAT, value);
        let bytes: [u8; RepositoryId::LENGTH + SnapshotId::LENGTH] = reader.byte_array().ok()?;
        let (repository, snapshot) = bytes.split_first_chunk()?;
        Some(Original {
            repository: RepositoryId::from_bytes(*repository),
            snapshot: SnapshotId::from_bytes(*snapshot.first_chunk()?),
        })
    }

    /// Which run made what it holds. A field that does not say this is none.
    #[must_use]
    pub fn made(&self) -> Made {
        let own = Made { writer: self.writer, sequence: self.sequence, rewrites: 0 };
        self.made_before().unwrap_or(own)
    }

    fn made_before(&self) -> Option<Made> {
        let (_, value) = self.unknown.iter().find(|(key, _)| *key == key::MADE)?;
        let bytes: [u8; Made::LENGTH] = Reader::new(WHAT, value).byte_array().ok()?;
        let (writer, numbers) = bytes.split_first_chunk()?;
        let (sequence, rewrites) = numbers.split_first_chunk()?;
        Some(Made {
            writer: WriterId::from_bytes(*writer),
            sequence: u64::from_le_bytes(*sequence),
            rewrites: u32::from_le_bytes(*rewrites.first_chunk()?),
        })
    }

    /// The fields from 64 on of a snapshot that is to stand for this one.
    #[must_use]
    pub fn successor_fields(&self) -> Vec<(u32, Vec<u8>)> {
        let mut fields = self.unknown.clone();
        let made = self.made();
        Made { rewrites: made.rewrites.saturating_add(1), ..made }.put_into(&mut fields);
        fields
    }

    /// Checks every rule of the format but the encoded length.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`], with the first rule that is broken.
    pub fn validate(&self) -> Result<(), Error> {
        self.root.validate()?;
        self.validate_known()?;
        validate_unknown(WHAT, &self.unknown)
    }

    /// As [`Self::validate`], without what the reader has checked: the root entry and the fields of
    /// newer programs.
    fn validate_known(&self) -> Result<(), Error> {
        if !self.root.is_directory() || !self.root.name.is_empty() {
            return Err(invalid("its root is not a directory without a name"));
        }
        validate_timestamp(WHAT, self.time)?;
        for text in [&self.host, &self.user, &self.description, &self.program] {
            require_at_most(TEXT_LENGTH, text.len(), TEXT_BYTES_MAX)?;
        }
        self.validate_paths_and_tags()?;
        require_at_most(INCIDENTS, self.incidents.len(), INCIDENTS_MAX)?;
        for incident in &self.incidents {
            require_at_most(PATH_LENGTH, incident.path.len(), PATH_BYTES_MAX)?;
            require_at_most(TEXT_LENGTH, incident.message.len(), TEXT_BYTES_MAX)?;
        }
        let incidents_bytes = self.incidents.iter().map(Incident::bytes).sum();
        require_at_most(INCIDENTS_LENGTH, incidents_bytes, INCIDENTS_BYTES_MAX)?;
        if self.config_generation == 0 {
            return Err(invalid("its configuration has generation 0"));
        }
        if self.sequence == 0 {
            return Err(invalid("its sequence number is 0"));
        }
        require_at_most(WRITERS, self.seen.len(), WRITERS_MAX)?;
        if !self.seen.is_sorted_by(|(writer, _), (next, _)| writer < next) {
            return Err(invalid("the writers it has seen are not in ascending order"));
        }
        Ok(())
    }

    fn validate_paths_and_tags(&self) -> Result<(), Error> {
        require_at_most(PATHS, self.paths.len(), PATHS_MAX)?;
        for path in &self.paths {
            require_at_most(PATH_LENGTH, path.len(), PATH_BYTES_MAX)?;
            if path.is_empty() || path.contains(&0) {
                return Err(invalid("one of its paths is empty or contains a NUL"));
            }
        }
        if !self.paths.is_sorted_by(|path, next| path < next) {
            return Err(invalid("its paths are not in ascending order"));
        }
        require_at_most(TAGS, self.tags.len(), TAGS_MAX)?;
        for tag in &self.tags {
            require_at_most(TEXT_LENGTH, tag.len(), TEXT_BYTES_MAX)?;
            if tag.is_empty() {
                return Err(invalid("one of its tags is empty"));
            }
        }
        if !self.tags.is_sorted_by(|tag, next| tag < next) {
            return Err(invalid("its tags are not in ascending order"));
        }
        Ok(())
    }

    /// The bytes to seal. Those of a snapshot that is not valid are refused by every reader.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut map = MapWriter::begin(&mut out);
        put_uint(map.key(key::VERSION), u64::from(VERSION));
        encode_entry(&self.root, map.key(key::ROOT));
        put_timestamp(map.key(key::TIME), self.time);
        put_int(map.key(key::UTC_OFFSET), i64::from(self.utc_offset));
        put_text(map.key(key::HOST), &self.host);
        put_text(map.key(key::USER), &self.user);
        let out_paths = map.key(key::PATHS);
        put_array(out_paths, self.paths.len());
        for path in &self.paths {
            put_bytes(out_paths, path);
        }
        let out_tags = map.key(key::TAGS);
        put_array(out_tags, self.tags.len());
        for tag in &self.tags {
            put_text(out_tags, tag);
        }
        put_text(map.key(key::DESCRIPTION), &self.description);
        put_text(map.key(key::PROGRAM), &self.program);
        if let Some(parent) = &self.parent {
            put_bytes(map.key(key::PARENT), parent.as_bytes());
        }
        put_bool(map.key(key::COMPLETE), self.complete);
        put_statistics(map.key(key::STATISTICS), &self.statistics);
        let out_incidents = map.key(key::INCIDENTS);
        put_array(out_incidents, self.incidents.len());
        for incident in &self.incidents {
            put_array(out_incidents, INCIDENT_ITEMS);
            put_bytes(out_incidents, &incident.path);
            put_uint(out_incidents, incident.kind as u64);
            put_text(out_incidents, &incident.message);
        }
        put_uint(map.key(key::CONFIG_GENERATION), self.config_generation);
        put_bytes(map.key(key::WRITER), self.writer.as_bytes());
        put_uint(map.key(key::SEQUENCE), self.sequence);
        let out_seen = map.key(key::SEEN);
        put_array(out_seen, 2 * self.seen.len());
        for (writer, sequence) in &self.seen {
            put_bytes(out_seen, writer.as_bytes());
            put_uint(out_seen, *sequence);
        }
        map.put_unknown(&self.unknown);
        map.finish();
        out
    }

    /// Decodes the unsealed bytes of a snapshot.
    ///
    /// # Errors
    /// [`Error::UnknownVersion`] if a newer program wrote it; others if it is not valid.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        require_at_most("length of a snapshot", bytes.len(), SMALL_OBJECT_BYTES_MAX as usize)?;
        let mut reader = Reader::new(WHAT, bytes);
        let mut map = reader.map()?;
        reader.version_field(&mut map, VERSION)?;
        let mut snapshot = Self::empty();
        // Keys ascend without repeating, so their number tells whether all were there.
        let mut fields = 1;
        while let Some(key) = reader.next_key(&mut map)? {
            match key {
                key::ROOT => snapshot.root = read_entry(&mut reader)?,
                key::TIME => snapshot.time = read_timestamp(&mut reader)?,
                key::UTC_OFFSET => {
                    snapshot.utc_offset = i32::try_from(reader.int()?)
                        .map_err(|_| invalid("its offset from UTC does not fit 32 bits"))?;
                }
                key::HOST => snapshot.host = read_text(&mut reader)?,
                key::USER => snapshot.user = read_text(&mut reader)?,
                key::PATHS => {
                    snapshot.paths = read_array(&mut reader, PATHS, PATHS_MAX, read_path)?;
                }
                key::TAGS => snapshot.tags = read_array(&mut reader, TAGS, TAGS_MAX, read_text)?,
                key::DESCRIPTION => snapshot.description = read_text(&mut reader)?,
                key::PROGRAM => snapshot.program = read_text(&mut reader)?,
                key::PARENT => {
                    snapshot.parent = Some(SnapshotId::from_bytes(reader.byte_array()?));
                    continue;
                }
                key::COMPLETE => snapshot.complete = reader.bool()?,
                key::STATISTICS => snapshot.statistics = read_statistics(&mut reader)?,
                key::INCIDENTS => {
                    snapshot.incidents =
                        read_array(&mut reader, INCIDENTS, INCIDENTS_MAX, read_incident)?;
                }
                key::CONFIG_GENERATION => snapshot.config_generation = reader.uint()?,
                key::WRITER => snapshot.writer = WriterId::from_bytes(reader.byte_array()?),
                key::SEQUENCE => snapshot.sequence = reader.uint()?,
                key::SEEN => snapshot.seen = read_seen(&mut reader)?,
                key => {
                    reader.keep_unknown(key, &mut snapshot.unknown)?;
                    continue;
                }
            }
            fields += 1;
        }
        reader.finish()?;
        if fields != FIELDS_REQUIRED {
            return Err(invalid("a field is missing"));
        }
        snapshot.validate_known()?;
        Ok(snapshot)
    }

    /// What the fields are read into.
    fn empty() -> Self {
        Self {
            root: Entry::new(Vec::new(), EntryKind::Directory { pages: Vec::new() }),
            time: Timestamp::default(),
            utc_offset: 0,
            host: String::new(),
            user: String::new(),
            paths: Vec::new(),
            tags: Vec::new(),
            description: String::new(),
            program: String::new(),
            parent: None,
            complete: false,
            statistics: Statistics::default(),
            incidents: Vec::new(),
            config_generation: 0,
            writer: WriterId::from_bytes([0; WriterId::LENGTH]),
            sequence: 0,
            seen: Vec::new(),
            unknown: Vec::new(),
        }
    }
}

impl Incident {
    /// What counts against [`INCIDENTS_BYTES_MAX`].
    fn bytes(&self) -> usize {
        self.path.len() + self.message.len()
    }
}

/// Counts of zero are left out.
fn put_statistics(out: &mut Vec<u8>, statistics: &Statistics) {
    let mut map = MapWriter::begin(out);
    for (key, value) in (0..).zip(statistics.fields()) {
        if value != 0 {
            put_uint(map.key(key), value);
        }
    }
    map.finish();
}

/// Has no room for fields of newer programs: they go into the snapshot.
fn read_statistics(reader: &mut Reader<'_>) -> Result<Statistics, Error> {
    let mut statistics = Statistics::default();
    let mut map = reader.map()?;
    while let Some(key) = reader.next_key(&mut map)? {
        let field = statistics.field_mut(key);
        let field =
            field.ok_or_else(|| invalid("its statistics have a field that is not known"))?;
        *field = reader.uint()?;
        if *field == 0 {
            return Err(invalid("its statistics have a field of zero, which is never stored"));
        }
    }
    Ok(statistics)
}

fn read_array<'b, T>(
    reader: &mut Reader<'b>,
    number_of: &'static str,
    items_max: usize,
    read_item: impl Fn(&mut Reader<'b>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let count = reader.array(number_of, items_max)?;
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        items.push(read_item(reader)?);
    }
    Ok(items)
}

fn read_text(reader: &mut Reader<'_>) -> Result<String, Error> {
    Ok(reader.text(TEXT_LENGTH, TEXT_BYTES_MAX)?.to_owned())
}

fn read_path(reader: &mut Reader<'_>) -> Result<Vec<u8>, Error> {
    Ok(reader.bytes(PATH_LENGTH, PATH_BYTES_MAX)?.to_vec())
}

fn read_incident(reader: &mut Reader<'_>) -> Result<Incident, Error> {
    if reader.array("number of items of an incident", INCIDENT_ITEMS)? != INCIDENT_ITEMS {
        return Err(invalid("an incident is not a path, a kind and a message"));
    }
    let path = read_path(reader)?;
    let kind = IncidentKind::from_number(reader.uint()?)
        .ok_or_else(|| invalid("an incident is of a kind that this program does not know"))?;
    let message = read_text(reader)?;
    Ok(Incident { path, kind, message })
}

fn read_seen(reader: &mut Reader<'_>) -> Result<Vec<(WriterId, u64)>, Error> {
    let pairs =
        reader.pairs(WRITERS, WRITERS_MAX, "a writer it has seen has no sequence number")?;
    let mut seen = Vec::with_capacity(pairs);
    for _ in 0..pairs {
        seen.push((WriterId::from_bytes(reader.byte_array()?), reader.uint()?));
    }
    Ok(seen)
}

fn invalid(why: &'static str) -> Error {
    Error::Invalid { what: WHAT, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot { config_generation: 1, sequence: 1, ..Snapshot::empty() }
    }

    fn check_refused(change: impl Fn(&mut Snapshot), expected: &str) {
        let mut snapshot = snapshot();
        change(&mut snapshot);
        let error = snapshot.validate().unwrap_err().to_string();
        assert!(error.contains(expected), "'{error}' instead of '{expected}'");
        assert_eq!(Snapshot::decode(&snapshot.encode()).unwrap_err().to_string(), error);
    }

    fn incident(path_bytes: usize, message: &str) -> Incident {
        let kind = IncidentKind::Unreadable;
        Incident { path: vec![b'a'; path_bytes], kind, message: message.to_owned() }
    }

    #[test]
    fn every_kind_of_incident_survives() {
        use IncidentKind::*;
        let mut snapshot = snapshot();
        snapshot.incidents = [Unreadable, ChangedWhileRead, Vanished, MetadataIncomplete, Lost]
            .map(|kind| Incident { kind, ..incident(3, "no") })
            .to_vec();
        assert_eq!(Snapshot::decode(&snapshot.encode()).unwrap(), snapshot);
    }

    #[test]
    fn an_original_is_kept_among_the_fields_that_others_do_not_know() {
        let original = Original {
            repository: RepositoryId::from_bytes([1; 16]),
            snapshot: SnapshotId::from_bytes([2; 32]),
        };
        let mut snapshot = snapshot();
        assert_eq!(snapshot.original(), None);
        snapshot.unknown = vec![(64, vec![0]), (65, vec![0]), (66, vec![0])];
        assert_eq!(snapshot.original(), None, "another value is no original");
        original.put_into(&mut snapshot.unknown);
        let decoded = Snapshot::decode(&snapshot.encode()).unwrap();
        assert_eq!(decoded.original(), Some(original));
        let others = decoded.unknown.len() - 1;
        Original::take_out_of(&mut snapshot.unknown);
        assert_eq!((snapshot.original(), snapshot.unknown.len()), (None, others));
        assert_eq!(decoded.unknown.len(), 3);
    }

    #[test]
    fn what_stands_for_another_one_says_who_made_that() {
        let mut first = snapshot();
        (first.writer, first.sequence) = (WriterId::from_bytes([1; 16]), 7);
        let made = Made { writer: first.writer, sequence: 7, rewrites: 0 };
        assert_eq!(first.made(), made);
        first.unknown = vec![(64, vec![0]), (66, vec![0]), (70, vec![0])];
        assert_eq!(first.made(), made, "another value says nothing");
        for rewrites in 1..=2 {
            let unknown = first.successor_fields();
            assert_eq!(unknown.len(), 3);
            first =
                Snapshot { writer: WriterId::from_bytes([2; 16]), sequence: 1, unknown, ..first };
            first = Snapshot::decode(&first.encode()).unwrap();
            assert_eq!(first.made(), Made { rewrites, ..made });
        }
    }

    #[test]
    fn every_count_has_a_key_of_its_own() {
        let mut snapshot = snapshot();
        for key in 0..12 {
            *snapshot.statistics.field_mut(key).unwrap() = u64::from(key) + 1;
        }
        assert_eq!(snapshot.statistics.field_mut(12), None);
        assert_eq!(snapshot.statistics.fields(), std::array::from_fn(|key| key as u64 + 1));
        assert_eq!(Snapshot::decode(&snapshot.encode()).unwrap(), snapshot);
    }

    #[test]
    fn a_snapshot_that_breaks_a_rule_is_refused() {
        let two = |first: &str, second: &str| vec![first.to_owned(), second.to_owned()];
        let paths = |first: &str, second: &str| vec![first.into(), second.into()];
        let writer = |byte| WriterId::from_bytes([byte; 16]);
        let root = "its root is not a directory without a name";
        check_refused(|s| s.root.name = b"a".to_vec(), root);
        check_refused(|s| s.root.kind = EntryKind::Fifo, root);
        check_refused(|s| s.root.mode = 0o10000, "its mode has bits above");
        check_refused(|s| s.config_generation = 0, "its configuration has generation 0");
        check_refused(|s| s.sequence = 0, "its sequence number is 0");
        check_refused(|s| s.host = "a".repeat((64 << 10) + 1), "length of a text is 65537");
        check_refused(|s| s.paths = paths("/b", "/a"), "its paths are not in ascending order");
        check_refused(|s| s.paths = paths("/a", "/a"), "its paths are not in ascending order");
        check_refused(|s| s.paths = paths("", "/a"), "one of its paths is empty");
        check_refused(|s| s.tags = two("b", "a"), "its tags are not in ascending order");
        check_refused(|s| s.tags = two("a", "a"), "its tags are not in ascending order");
        check_refused(|s| s.tags = two("", "a"), "one of its tags is empty");
        check_refused(
            |s| s.seen = vec![(writer(2), 1), (writer(1), 1)],
            "the writers it has seen are not in ascending order",
        );
        check_refused(
            |s| s.incidents = vec![incident(1, ""); 10_001],
            "number of incidents of a snapshot is 10001",
        );
        check_refused(
            |s| s.incidents = vec![incident(64 << 10, ""); 65],
            "length of the incidents of a snapshot is 4259840",
        );
    }

    #[test]
    fn trimmed_incidents_are_within_the_limits() {
        let check = |incidents: Vec<Incident>, kept: usize| {
            let mut snapshot = snapshot();
            snapshot.incidents = incidents;
            snapshot.trim_incidents();
            assert_eq!(snapshot.incidents.len(), kept);
            assert_eq!(Snapshot::decode(&snapshot.encode()).unwrap(), snapshot);
        };
        check(vec![incident(1, "no"); 3], 3);
        check(vec![incident(1, "no"); 10_001], 10_000);
        check(vec![incident((64 << 10) + 1, "no"), incident(1, "no")], 1);
        check(vec![incident(64 << 10, ""); 65], 64);
        check(vec![incident(1, &"ä".repeat(40_000))], 1);
    }
}
