//! What this machine must remember between runs: who it is as a writer, and what it has stored that no
//! segment names yet.
//!
//! Losing the state directory makes a new writer and wastes the packs in the journal; it never makes
//! a false alarm or loses a backup. Without a directory everything lasts for one run.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use putback_format::id::{PackId, RepositoryId, SlotId, SnapshotId, WriterId};

use crate::error::{Error, Result};
use crate::local::create_private_directories;
use crate::machine::Random;

const WRITER: &str = "writer";
const SEEN: &str = "seen";
const ACCEPTED: &str = "accepted";
const JOURNAL: &str = "journal";
const PENDING: &str = "pending";
const SLOT: &str = "slot";
const LOCK: &str = "lock";

/// The state directory of one repository.
pub(crate) struct State {
    directory: Option<PathBuf>,
    random: Arc<dyn Random>,
    /// The writer id of this run, where none could be read.
    drawn: OnceLock<WriterId>,
    /// What the files would hold where there is no directory.
    memory: Mutex<BTreeMap<String, String>>,
    journal: Mutex<Option<fs_err::File>>,
}

/// What was seen of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Highest generation of the configuration.
    pub(crate) generation: u64,
    /// Highest sequence number of each writer.
    pub(crate) sequences: BTreeMap<WriterId, u64>,
    /// First and last of missing numbers that a person knows of.
    pub(crate) accepted: BTreeMap<WriterId, Vec<(u64, u64)>>,
}

impl Seen {
    /// Whether `other` has seen more.
    pub(crate) fn lacks(&self, other: &Self) -> bool {
        let known = |writer| self.sequences.get(writer).copied().unwrap_or_default();
        other.generation > self.generation
            || other.sequences.iter().any(|(writer, sequence)| *sequence > known(writer))
    }
}

impl State {
    /// The state of a repository below `parent`, if that is given.
    pub(crate) fn new(
        parent: Option<&Path>,
        repository: RepositoryId,
        random: Arc<dyn Random>,
    ) -> Self {
        let directory = parent.map(|parent| parent.join(repository.to_string()));
        Self {
            directory,
            random,
            memory: Mutex::default(),
            drawn: OnceLock::new(),
            journal: Mutex::new(None),
        }
    }

    fn memory(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        // Each change is one insertion.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text of a file, empty if there is none. One that is there and cannot be read is an error: who took it for
    /// empty would write it anew without what it says.
    fn read(&self, name: &str) -> Result<String> {
        let Some(directory) = &self.directory else {
            return Ok(self.memory().get(name).cloned().unwrap_or_default());
        };
        let path = directory.join(name);
        match fs_err::read(&path) {
            // A line that is no text says nothing, like any other that is torn.
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(Error::local(&path)(error)),
        }
    }

    /// Keeps other programs that use this directory away until it is dropped. Held for moments, but for a commit: that
    /// holds it from the number of its snapshot until that is written, with all retries, read back and looked after.
    /// Never held while a lock of the store is waited for.
    pub(crate) fn lock(&self) -> Result<Option<std::fs::File>> {
        let Some(directory) = &self.directory else { return Ok(None) };
        let path = directory.join(LOCK);
        let lock = || {
            create_private_directories(directory)?;
            let file =
                std::fs::File::options().create(true).truncate(false).write(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        lock().map(Some).map_err(Error::local(&path))
    }

    /// Replaces a file so that a crash leaves the old or the new one.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let Some(directory) = &self.directory else {
            self.memory().insert(name.to_owned(), text.to_owned());
            return Ok(());
        };
        let path = directory.join(name);
        let write = || {
            create_private_directories(directory)?;
            // A name of its own: other threads may write the same file.
            let mut file = tempfile::NamedTempFile::with_prefix_in(format!("{name}."), directory)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(Error::local(&path))
    }

    /// This machine's writer id; a new one is drawn where there is none.
    /// Call it with the lock held, or two programs would draw two.
    pub(crate) fn writer(&self) -> Result<WriterId> {
        if let Ok(id) = self.read(WRITER)?.trim().parse() {
            return Ok(id);
        }
        if let Some(id) = self.drawn.get() {
            return Ok(*id);
        }
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes)?;
        let id = *self.drawn.get_or_init(|| WriterId::from_bytes(bytes));
        // Where nothing can be kept, each run is a writer of its own.
        let _ = self.write(WRITER, &format!("{id}\n"));
        Ok(id)
    }

    /// What earlier runs saw.
    ///
    /// # Errors
    /// [`Error::Local`] if what they noted cannot be read.
    pub(crate) fn seen(&self) -> Result<Seen> {
        let mut seen = Seen::default();
        for line in self.read(SEEN)?.lines() {
            match line.split_once(' ').map(|(key, value)| (key, value.parse::<u64>())) {
                Some(("generation", Ok(number))) => seen.generation = number,
                Some((writer, Ok(number))) => {
                    if let Ok(writer) = writer.parse() {
                        seen.sequences.insert(writer, number);
                    }
                }
                // A line that a newer program or a torn write left tells nothing.
                _ => {}
            }
        }
        for line in self.read(ACCEPTED)?.lines() {
            let mut words = line.split(' ');
            let writer = words.next().and_then(|word| word.parse().ok());
            let mut number = || words.next().and_then(|word| word.parse().ok());
            if let (Some(writer), Some(first), Some(last)) = (writer, number(), number()) {
                seen.accepted.entry(writer).or_default().push((first, last));
            }
        }
        Ok(seen)
    }

    /// A person knows of these missing numbers, and that the configuration has this generation. Call it with the
    /// lock held.
    pub(crate) fn accept(&self, generation: u64, missing: &[(WriterId, u64, u64)]) -> Result<()> {
        let seen = self.seen()?;
        self.write(SEEN, &seen_text(generation, &seen))?;
        let mut text = self.read(ACCEPTED)?;
        for (writer, first, last) in missing {
            text.push_str(&format!("{writer} {first} {last}\n"));
        }
        self.write(ACCEPTED, &text)
    }

    /// Notes what this run saw, beside what others have noted meanwhile. Call it with the lock held.
    pub(crate) fn note_seen(&self, news: &Seen) -> Result<()> {
        let before = self.seen()?;
        let mut seen = before.clone();
        seen.generation = seen.generation.max(news.generation);
        for (writer, sequence) in &news.sequences {
            let highest = seen.sequences.entry(*writer).or_default();
            *highest = (*highest).max(*sequence);
        }
        if seen == before {
            return Ok(());
        }
        self.write(SEEN, &seen_text(seen.generation, &seen))
    }

    /// The slot that opened last time: trying it first saves the cost of the others.
    pub(crate) fn last_slot(&self) -> Option<SlotId> {
        self.read(SLOT).ok()?.trim().parse().ok()
    }

    /// Notes the slot that opened.
    pub(crate) fn set_last_slot(&self, slot: &SlotId) {
        if self.last_slot() != Some(*slot) {
            // Only a hint: the next run tries all slots without it.
            let _ = self.write(SLOT, &format!("{slot}\n"));
        }
    }

    /// Snapshots that runs were about to write, and did not live to see whether they came in time.
    ///
    /// # Errors
    /// [`Error::Local`] if what they noted cannot be read.
    pub(crate) fn pending(&self) -> Result<Vec<SnapshotId>> {
        Ok(self.read(PENDING)?.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Notes a snapshot that is about to be written. Call it with the lock held.
    pub(crate) fn add_pending(&self, id: &SnapshotId) -> Result<()> {
        let text = self.read(PENDING)?;
        self.write(PENDING, &format!("{text}{id}\n"))
    }

    /// It is known what became of a snapshot. Call it with the lock held.
    pub(crate) fn remove_pending(&self, id: &SnapshotId) -> Result<()> {
        let others = self.pending()?.into_iter().filter(|other| other != id);
        let text: String = others.map(|other| format!("{other}\n")).collect();
        let Some(directory) = self.directory.as_ref().filter(|_| text.is_empty()) else {
            return self.write(PENDING, &text);
        };
        // Not synced: if it comes back, a look at the snapshot is all that it costs.
        let path = directory.join(PENDING);
        match fs_err::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::local(&path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Packs that a run stored durably and that no segment of that run named.
    pub(crate) fn journal(&self) -> Vec<PackId> {
        // One that cannot be read costs only storing its blobs again.
        let text = self.read(JOURNAL).unwrap_or_default();
        // A torn last line is no id: that pack is found missing from the index and nothing is lost.
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Adds a pack that is durable. Not synced: a lost line costs only storing its blobs again.
    pub(crate) fn journal_pack(&self, pack: &PackId) -> Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let path = directory.join(JOURNAL);
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if journal.is_none() {
            create_private_directories(directory).map_err(Error::local(directory))?;
            let file = fs_err::OpenOptions::new().create(true).append(true).open(&path);
            *journal = Some(file.map_err(Error::local(&path))?);
        }
        let Some(file) = journal.as_mut() else { return Ok(()) };
        file.write_all(format!("{pack}\n").as_bytes()).map_err(Error::local(&path))
    }

    /// Empties the journal: a durable segment names all of its packs.
    pub(crate) fn clear_journal(&self) -> Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let path = directory.join(JOURNAL);
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        *journal = None;
        match fs_err::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::local(&path)(error))
            }
            _ => Ok(()),
        }
    }
}

/// The file of what was seen.
fn seen_text(generation: u64, seen: &Seen) -> String {
    let mut text = format!("generation {generation}\n");
    for (writer, sequence) in &seen.sequences {
        text.push_str(&format!("{writer} {sequence}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::SystemRandom;

    #[test]
    fn what_one_run_notes_the_next_one_reads() {
        let folder = tempfile::tempdir().unwrap();
        let state = || {
            State::new(
                Some(folder.path()),
                RepositoryId::from_bytes([1; 16]),
                Arc::new(SystemRandom),
            )
        };
        let writer = state().writer().unwrap();
        assert_eq!(state().writer().unwrap(), writer);
        let sequences = BTreeMap::from([(writer, 17)]);
        let seen = Seen { generation: 3, sequences, ..Seen::default() };
        state().note_seen(&seen).unwrap();
        assert_eq!(state().seen().unwrap(), seen);
        state().note_seen(&Seen { generation: 2, ..Seen::default() }).unwrap();
        assert_eq!(state().seen().unwrap(), seen, "what was seen is not unseen");
        state().accept(2, &[(writer, 4, 9)]).unwrap();
        state().accept(2, &[(writer, 11, 11)]).unwrap();
        let accepted = BTreeMap::from([(writer, vec![(4, 9), (11, 11)])]);
        assert_eq!(state().seen().unwrap(), Seen { generation: 2, accepted, ..seen });
        let packs = [PackId::from_bytes([2; 32]), PackId::from_bytes([3; 32])];
        let journal = state();
        packs.iter().for_each(|pack| journal.journal_pack(pack).unwrap());
        assert_eq!(state().journal(), packs);
        state().clear_journal().unwrap();
        assert_eq!(state().journal(), []);
        let snapshots = [SnapshotId::from_bytes([4; 32]), SnapshotId::from_bytes([5; 32])];
        snapshots.iter().for_each(|snapshot| state().add_pending(snapshot).unwrap());
        assert_eq!(state().pending().unwrap(), snapshots);
        snapshots.iter().for_each(|snapshot| state().remove_pending(snapshot).unwrap());
        assert_eq!(state().pending().unwrap(), []);
        state().remove_pending(&snapshots[0]).unwrap();
    }

    #[test]
    fn without_a_directory_everything_lasts_for_one_run() {
        let state = || State::new(None, RepositoryId::from_bytes([1; 16]), Arc::new(SystemRandom));
        let run = state();
        let writer = run.writer().unwrap();
        assert_eq!(run.writer().unwrap(), writer);
        assert_ne!(state().writer().unwrap(), writer);
        let sequences = BTreeMap::from([(writer, 17)]);
        let seen = Seen { generation: 3, sequences, ..Seen::default() };
        run.note_seen(&seen).unwrap();
        assert_eq!((run.seen().unwrap(), state().seen().unwrap()), (seen, Seen::default()));
        run.journal_pack(&PackId::from_bytes([2; 32])).unwrap();
        assert!(run.journal().is_empty());
    }
}
