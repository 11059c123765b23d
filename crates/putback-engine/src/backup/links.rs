//! Files with several names: what was read under one of them holds for the others.
//!
//! [`Links::find`] says what is known of a file that has come up under another name, or makes the worker that asks
//! its reader; whoever meets the file meanwhile waits. [`Links::add`] notes what was read.
//!
//! Memory: entries of [`LINKS_BYTES_MAX`], and one beyond that; none any more of a file all of whose names have come
//! up. They are in two generations: when the younger has half of the bytes, it becomes the older, and the one that
//! was the older is forgotten. So names that never come up, because they lie outside of the roots, hold nothing for
//! long. A file that was forgotten is read again under its next name, which finds all of its chunks stored.

use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use putback_format::tree::{Content, Entry, EntryKind, Xattr};

use crate::platform::{Identity, Stat};

/// Bytes of entries that are kept for further names: about 200,000 ordinary files.
pub(crate) const LINKS_BYTES_MAX: usize = 128 << 20;

/// The files that have more names than came up so far.
pub(crate) struct Links {
    state: Mutex<State>,
    /// A worker has finished reading.
    changed: Condvar,
}

struct State {
    /// Files that workers read just now.
    reading: HashSet<Identity>,
    young: HashMap<Identity, Link>,
    old: HashMap<Identity, Link>,
    /// Bytes of `young`.
    young_bytes: usize,
    generation_bytes_max: usize,
}

struct Link {
    /// As it was read, without its name.
    entry: Box<Entry>,
    /// How many other names may still come, at least one.
    names_left: u64,
}

/// What is known of a file with several names.
pub(crate) enum Linked<'a> {
    /// It was read under another name.
    Known(Box<Entry>),
    /// It is to be read; other workers that meet it wait until this is dropped.
    Unknown { _reading: Reading<'a> },
}

/// A file that one worker reads.
pub(crate) struct Reading<'a> {
    links: &'a Links,
    identity: Identity,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        // If it could not be read, the next worker tries under its own name.
        self.links.guard().reading.remove(&self.identity);
        self.links.changed.notify_all();
    }
}

impl Links {
    /// Nothing yet; entries of `bytes_max` are kept.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let state = State {
            reading: HashSet::new(),
            young: HashMap::new(),
            old: HashMap::new(),
            young_bytes: 0,
            generation_bytes_max: bytes_max / 2,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The entry of another name of the same file, if it is still the same. Waits for whoever reads it just now;
    /// that worker waits for nobody, so that this ends.
    pub(crate) fn find(&self, name: &[u8], stat: &Stat) -> Linked<'_> {
        let identity = stat.identity();
        let mut state = self.guard();
        while state.reading.contains(&identity) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match state.take_name(name, stat) {
            Some(entry) => Linked::Known(entry),
            None => {
                state.reading.insert(identity);
                Linked::Unknown { _reading: Reading { links: self, identity } }
            }
        }
    }

    /// Notes a file that was read, which has other names.
    pub(crate) fn add(&self, identity: Identity, entry: &Entry) {
        let names_left = entry.links.saturating_sub(1);
        if names_left > 0 {
            let entry = Box::new(Entry { name: Vec::new(), ..entry.clone() });
            self.guard().insert(identity, Link { entry, names_left });
        }
    }

    fn guard(&self) -> MutexGuard<'_, State> {
        // Whoever panicked took the backup down with it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The entry of a further name, unless the file has changed. Moves the file to the younger generation.
    fn take_name(&mut self, name: &[u8], stat: &Stat) -> Option<Box<Entry>> {
        let mut link = self.remove(&stat.identity())?;
        if link.entry.mtime != stat.mtime || link.entry.ctime != stat.ctime {
            return None;
        }
        let entry = Box::new(Entry { name: name.to_vec(), ..Entry::clone(&link.entry) });
        link.names_left -= 1;
        if link.names_left > 0 {
            self.insert(stat.identity(), link);
        }
        Some(entry)
    }

    fn remove(&mut self, identity: &Identity) -> Option<Link> {
        if let Some(link) = self.young.remove(identity) {
            self.young_bytes -= weight(&link.entry);
            return Some(link);
        }
        self.old.remove(identity)
    }

    fn insert(&mut self, identity: Identity, link: Link) {
        self.remove(&identity);
        self.young_bytes += weight(&link.entry);
        self.young.insert(identity, link);
        if self.young_bytes >= self.generation_bytes_max {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

/// About how many bytes of memory an entry without its name takes.
fn weight(entry: &Entry) -> usize {
    /// Its place in a table that has room to grow, and what the allocator adds.
    const BESIDES: usize = 160;
    let content = match &entry.kind {
        EntryKind::File { content, holes, .. } => {
            size_of_val(holes.as_slice())
                + match content {
                    Content::Inline(bytes) => bytes.len(),
                    Content::Chunks(chunks) | Content::Lists { pages: chunks, .. } => {
                        size_of_val(chunks.as_slice())
                    }
                }
        }
        _ => 0,
    };
    let xattrs = entry.xattrs.iter();
    let xattrs = xattrs.map(|xattr| size_of::<Xattr>() + xattr.name.len() + xattr.value.len());
    let names = entry.user.len() + entry.group.len();
    BESIDES + size_of::<Entry>() + content + xattrs.sum::<usize>() + names
}

#[cfg(test)]
mod tests {
    use putback_format::tree::Timestamp;

    use super::*;
    use crate::platform::FileKind;
    use crate::source::metadata::kind_without_content;

    fn stat(inode: u64, links: u64) -> Stat {
        Stat {
            kind: FileKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            blocks: 0,
            mtime: Timestamp::from_seconds(1),
            ctime: Timestamp::from_seconds(2),
            btime: None,
            device: 1,
            inode,
            links,
            rdev_major: 0,
            rdev_minor: 0,
            flags: 0,
            is_mount_root: false,
        }
    }

    fn entry(stat: &Stat) -> Entry {
        let Stat { mtime, ctime, device, inode, links, .. } = *stat;
        let named = Entry::new("first", kind_without_content(stat));
        Entry { mtime, ctime, device, inode, links, ..named }
    }

    /// Meets a file under one of its names, and reads it if it must. Whether it had to.
    fn meet(links: &Links, stat: &Stat) -> bool {
        match links.find(b"name", stat) {
            Linked::Known(found) => {
                assert_eq!(*found, Entry { name: b"name".to_vec(), ..entry(stat) });
                false
            }
            Linked::Unknown { _reading } => {
                links.add(stat.identity(), &entry(stat));
                true
            }
        }
    }

    fn count(links: &Links) -> (usize, usize) {
        let state = links.guard();
        (state.young.len() + state.old.len(), state.young_bytes)
    }

    #[test]
    fn a_file_is_read_under_its_first_name_and_forgotten_with_its_last() {
        let links = Links::new(LINKS_BYTES_MAX);
        let file = stat(7, 4);
        assert_eq!([(); 4].map(|()| meet(&links, &file)), [true, false, false, false]);
        assert_eq!(count(&links), (0, 0));
        assert!(meet(&links, &file));
    }

    #[test]
    fn a_file_that_has_changed_or_could_not_be_read_is_read_again() {
        let links = Links::new(LINKS_BYTES_MAX);
        let file = stat(7, 3);
        let Linked::Unknown { _reading: reading } = links.find(b"a", &file) else {
            panic!("nobody has read it")
        };
        drop(reading);
        assert!(meet(&links, &file));
        let changed = Stat { ctime: Timestamp::from_seconds(3), ..file };
        assert!(meet(&links, &changed));
        assert!(!meet(&links, &changed));
        assert!(!meet(&links, &changed));
        assert_eq!(count(&links), (0, 0));
    }

    #[test]
    fn files_whose_other_names_never_come_up_take_no_more_than_the_limit() {
        let each = weight(&entry(&stat(1, 2)));
        let links = Links::new(100 * each);
        for inode in 1..=10_000 {
            assert!(meet(&links, &stat(inode, 2)));
            let (files, young_bytes) = count(&links);
            assert!(files <= 100 && young_bytes <= 50 * each, "{files} files, {young_bytes} bytes");
        }
        // Those met last are known, those met first are read again.
        assert!(!meet(&links, &stat(10_000, 2)) && !meet(&links, &stat(9_960, 2)));
        assert!(meet(&links, &stat(1, 2)));
    }

    #[test]
    fn a_file_whose_names_keep_coming_up_is_not_forgotten() {
        let links = Links::new(100 * weight(&entry(&stat(1, 2))));
        let often = stat(1, 1_000);
        assert!(meet(&links, &often));
        for inode in 2..=900 {
            assert!(meet(&links, &stat(inode, 2)));
            assert!(!meet(&links, &often), "after {inode}");
        }
    }

    #[test]
    fn whoever_meets_a_file_that_is_being_read_waits_for_what_is_read() {
        let links = &Links::new(LINKS_BYTES_MAX);
        let file = &stat(7, 3);
        let Linked::Unknown { _reading: reading } = links.find(b"a", file) else {
            panic!("nobody has read it")
        };
        std::thread::scope(|scope| {
            let others = [(); 2].map(|()| scope.spawn(move || meet(links, file)));
            links.add(file.identity(), &entry(file));
            drop(reading);
            assert_eq!(others.map(|other| other.join().unwrap()), [false, false]);
        });
        assert_eq!(count(links), (0, 0));
    }
}
