//! A backup whose only file comes as a stream: standard input, or the output of a command.

use std::io::Read;
use std::sync::atomic::Ordering;

use putback_format::key::BlobKind;
use putback_format::page::PageBuilder;
use putback_format::tree::{Entry, EntryKind, Timestamp};
use putback_repo::{Action, Amount, Event, Phase, clock};

use super::Run;
use super::assembly::Assembly;
use super::contents::{ChunkReader, Failure};
use super::pipeline::Outcome;
use crate::Error;
use crate::platform::{self, Users};

/// Stores the stream and a tree that leads to it. No directory of this machine is looked at.
pub(crate) fn store_stream(
    run: &Run<'_>,
    mut reader: Box<dyn Read + Send>,
    finish: Box<dyn FnOnce() -> Result<(), String> + Send>,
) -> Result<Outcome, Error> {
    run.observer.event(Event::PhaseStarted { phase: Phase::Backup, total: None });
    let path = run.paths.first().cloned().unwrap_or_default();
    run.observer.event(Event::FileStarted { path: &path });
    let assembly = Assembly::new(run.backup.frame_writer(BlobKind::Tree), &run.incidents);
    let mut frame = run.backup.frame_writer(BlobKind::Data);
    let advanced = |bytes| {
        run.counters.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        let by = Amount { items: 0, bytes };
        run.observer.event(Event::Advanced { phase: Phase::Backup, by });
    };
    let read = ChunkReader::new(run.repository, &run.options.cancel).read_all(
        &mut reader,
        &mut frame,
        &assembly,
        &advanced,
    );
    let (content, size) = match read {
        Ok(read) => read,
        // Half a stream is no backup: it cannot be resumed either.
        Err(Failure::Cancelled) => return Ok(Outcome::Interrupted { checkpoint: None }),
        Err(Failure::Read(source)) => {
            return Err(Error::Source { path: "the stream".to_owned(), source });
        }
        Err(Failure::Fatal(error)) => return Err(error),
    };
    drop(reader);
    finish().map_err(|message| Error::Refused { message })?;
    run.counters.file(run, &path, Action::New, size);

    let now = run.time;
    let names: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
    let file = EntryKind::File { size, content, holes: Vec::new() };
    let mut entry = made_entry(names.last().copied().unwrap_or(b"stdin"), file, 0o600, now);
    for name in names.iter().rev().skip(1).copied().chain([b"".as_slice()]) {
        let mut builder = PageBuilder::new();
        let refused = |source| putback_repo::Error::Encode { object: "a tree page", source };
        let mut pages = Vec::new();
        for page in [builder.push(&entry).map_err(refused)?, builder.finish()].into_iter().flatten()
        {
            pages.push(assembly.put(&page)?);
        }
        entry = made_entry(name, EntryKind::Directory { pages }, 0o755, now);
    }
    frame.flush()?;
    assembly.flush()?;
    if run.options.cancel.is_cancelled() {
        return Ok(Outcome::Interrupted { checkpoint: None });
    }
    Ok(Outcome::Complete { root: Box::new(entry) })
}

/// An entry that stands for nothing on this machine but belongs to whoever runs the backup.
fn made_entry(name: &[u8], kind: EntryKind, mode: u32, now: Timestamp) -> Entry {
    let users = Users::new();
    let uid = platform::effective_uid();
    let user = users.user_name(uid);
    Entry { mode, uid, user, mtime: now, ctime: clock::now(), ..Entry::new(name, kind) }
}
