//! Planning: the walk through the snapshot, and what each of its files needs.
//!
//! `decide.rs` says what becomes of an entry. [`Planner`] walks the snapshot, makes directories, looks at what is
//! there, and gathers a *window*: items, the places of their chunks, links. A full window is sorted, cut into
//! tasks and handed to the workers; then the next one is planned.
//!
//! Existing files are compared before their chunks are planned, by the workers too: what already holds the right
//! bytes is not fetched.
//!
//! A dry run goes the same way and hands over nothing but comparisons.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry as MapEntry;
use putback_format::tree::{ChunkRef, Content, Entry, EntryKind};
use putback_repo::{Action, Amount, Event, Phase};

use crate::Error;
use crate::memo::{fingerprint, is_hard_linked};
use crate::platform::{self, FileKind, Names, Stat, TargetDirectory};
use crate::restore::chunks::ChunkRefs;
use crate::restore::decide::{Decision, choose_method, decide, kind_of};
use crate::restore::delete::{Deleted, Deleting, delete, stat_if_there};
use crate::restore::folder::Folder;
use crate::restore::item::{
    Body, Candidate, FileBody, IN_PLACE_BYTES_MIN, Item, Leader, Link, Method, Piece, Place,
};
use crate::restore::metadata::{Metadata, OwnerRule, Owners, gives_acl};
use crate::restore::select::Wanted;
use crate::restore::walk::{Step, Walk};
use crate::restore::write::Worker;
use crate::restore::{Base, Overwrite, Run, add};

/// A window that is being gathered.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) items: Vec<Arc<Item>>,
    pub(super) plain: Vec<Arc<Item>>,
    pub(super) pieces: Vec<Piece>,
    pub(super) links: Vec<Link>,
    pub(super) candidates: Vec<Candidate>,
    /// Compared items, by number, all of whose candidates are known with the end of this window;
    /// ascending.
    pub(super) planned: Vec<u32>,
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

/// Names of one file, of which some have not come up yet.
struct Group {
    leader: Arc<Leader>,
    /// Identity of the leader in the target, if that existed; for a dry run.
    existing: Option<platform::Identity>,
    fingerprint: u64,
    names_left: u64,
}

/// A directory on the open path.
pub(super) struct Level {
    pub(super) folder: LevelFolder,
    pub(super) wanted: Wanted,
    /// What the target has in it.
    pub(super) names: Names,
    /// The first of `names` that the walk has not passed.
    pub(super) next_name: usize,
    /// Names that the snapshot has not.
    pub(super) extra: Vec<Box<[u8]>>,
    pub(super) deleting: Deleting,
    /// The device that it was on when it was backed up, 0 if unknown.
    pub(super) device: u64,
}

#[derive(Clone)]
pub(super) enum LevelFolder {
    Ready(Arc<Folder>),
    /// A passage that nothing has been found in yet: it is made when something is.
    Pending {
        entry: Box<Entry>,
        path: Vec<u8>,
        /// The target has its name: as that of a link, since it was not entered.
        exists: bool,
    },
    /// It could not be made, which was told.
    Blocked,
}

impl Level {
    pub(super) fn new(folder: LevelFolder, wanted: Wanted) -> Self {
        Self {
            folder,
            wanted,
            names: Names::default(),
            next_name: 0,
            extra: Vec::new(),
            deleting: Deleting::No,
            device: 0,
        }
    }

    pub(super) fn may_delete(&self) -> bool {
        matches!(self.deleting, Deleting::On(_))
    }

    /// Whether the target has `name`. Must be called with ascending names; those passed over are extra.
    pub(super) fn pass(&mut self, name: &[u8]) -> bool {
        while self.next_name < self.names.len() {
            let (found, _) = self.names.get(self.next_name);
            match found.cmp(name) {
                std::cmp::Ordering::Less => {
                    if self.may_delete() {
                        self.extra.push(found.into());
                    }
                    self.next_name += 1;
                }
                std::cmp::Ordering::Equal => {
                    self.next_name += 1;
                    return true;
                }
                std::cmp::Ordering::Greater => break,
            }
        }
        false
    }

    /// Takes the names that the snapshot has not; all others were passed.
    pub(super) fn take_extra(&mut self) -> Vec<Box<[u8]>> {
        let rest = (self.next_name..self.names.len()).map(|number| self.names.get(number).0.into());
        let mut extra = std::mem::take(&mut self.extra);
        extra.extend(rest);
        self.next_name = self.names.len();
        extra
    }
}

/// Walks the snapshot and plans.
pub(super) struct Planner<'r> {
    pub(super) run: &'r Run<'r>,
    /// Carries out what falls to the planner itself.
    pub(super) hand: Worker<'r>,
    pub(super) walk: Walk<'r>,
    pub(super) levels: Vec<Level>,
    pub(super) owners: Owners<'r>,
    groups: HashMap<(u64, u64), Group>,
    pub(super) draft: Draft,
    pub(super) draft_entries_max: usize,
}

impl<'r> Planner<'r> {
    /// A planner at the beginning; `is_made` says whether the target was made just now.
    pub(super) fn new(
        run: &'r Run<'r>,
        hand: Worker<'r>,
        base: &Base,
        is_made: bool,
    ) -> Result<Self, Error> {
        let options = run.options;
        let rule = match (options.no_owner, options.numeric_owner) {
            (true, _) => OwnerRule::Nobody,
            (false, true) => OwnerRule::Numeric,
            (false, false) => OwnerRule::Named,
        };
        let mut owners = Owners::new(&run.users, rule);
        // `/` has no metadata to give: the target only stands in for it.
        let is_described = is_made && base.entry.is_directory() && !base.path.is_empty();
        let metadata = is_described.then(|| {
            let owner = owners.of(&base.entry);
            Metadata::of(&mut base.entry.clone(), owner)
        });
        let root = run.target.root();
        let gives_acl = root.is_some_and(|root| gives_acl(root));
        let is_empty = root.is_none() || (is_made && !options.dry_run);
        let folder = Folder::new(base.path.clone(), None, metadata, is_empty, gives_acl);
        let walk = base.walk(run)?;
        let mut level = Level::new(LevelFolder::Ready(folder), walk.wanted());
        if let Some(root) = root
            && !is_empty
        {
            let failed =
                |source| Error::Target { path: options.target.display().to_string(), source };
            root.read_names(&mut level.names).map_err(failed)?;
            if options.delete && base.entry.is_directory() {
                run.tell_more_unread();
                let here = root.stat_self().map_err(failed)?;
                level.device = base.entry.device;
                level.deleting = run.deleting_in(Deleting::No, &base.path, base.is_shell, &here);
            }
        }
        Ok(Self {
            run,
            hand,
            walk,
            levels: vec![level],
            owners,
            groups: HashMap::new(),
            draft: Draft::default(),
            draft_entries_max: run.limits.entries_first,
        })
    }

    /// Plans everything, and returns when it has been carried out.
    pub(super) fn plan(mut self) -> Result<(), Error> {
        while !self.run.is_stopped()
            && let Some(step) = self.walk.next_step()
        {
            match step {
                Step::Enter(entry, wanted) => self.enter(*entry, wanted),
                Step::Leave { is_complete } => self.leave(is_complete),
                Step::Entry(entry) => self.plan_entry(*entry)?,
                Step::Unwanted(entry) => drop(self.pass(&entry.name)),
                Step::Unreadable(error) => {
                    let failure = crate::restore::content_failure(&error);
                    self.run.problem(self.walk.path(), &failure);
                }
            }
            if self.is_window_full() {
                self.close_window()?;
            }
        }
        self.close_window()?;
        let counts = &self.run.counts;
        let total = Amount {
            items: counts.files_total.load(Ordering::Relaxed),
            bytes: counts.bytes_total.load(Ordering::Relaxed),
        };
        self.run.observer.event(Event::Total { phase: Phase::Restore, total });
        self.run.queue.wait_until_idle();
        self.hand.make_deferred_links();
        self.hand.close_files();
        self.hand.flush(Phase::Restore);
        Ok(())
    }

    fn plan_entry(&mut self, entry: Entry) -> Result<(), Error> {
        let exists = self.pass(&entry.name);
        if entry.kind == EntryKind::Socket {
            // It counts as nothing that was kept or is missing: the program that needs one makes it.
            let (path, action) = (self.walk.path(), Action::Excluded);
            self.run.observer.event(Event::Entry { path, action, bytes: 0 });
            return Ok(());
        }
        let data_bytes = data_bytes(&entry.kind);
        add(&self.run.counts.files_total, 1);
        add(&self.run.counts.others_total, u64::from(!entry.is_file()));
        add(&self.run.counts.bytes_total, data_bytes);
        if !platform::is_plain_name(&entry.name) {
            self.refuse_name();
            self.hand.advance(1, data_bytes);
            return Ok(());
        }
        let Some(folder) = self.ready_folder(self.levels.len() - 1) else {
            self.hand.advance(1, data_bytes);
            return Ok(());
        };
        match self.find_place(&folder, &entry, exists) {
            Ok(Some(place)) => self.plan_item(&folder, entry, place),
            Ok(None) => {
                self.tell_kept(Action::Skipped, &entry);
                Ok(())
            }
            Err(error) => {
                let path = self.walk.path();
                let failure =
                    self.run.target_failure(path, "take the place of what is there", error);
                self.run.problem(path, &failure);
                self.hand.advance(1, data_bytes);
                Ok(())
            }
        }
    }

    /// Nothing is done about an entry.
    fn tell_kept(&mut self, action: Action, entry: &Entry) {
        self.hand.advance(1, data_bytes(&entry.kind));
        self.run.tell_entry(self.walk.path(), action, entry.kind.file_size().unwrap_or(0));
    }

    /// What has the entry's name in the target, made free if it must be; none if it stays.
    fn find_place(
        &mut self,
        folder: &Arc<Folder>,
        entry: &Entry,
        exists: bool,
    ) -> io::Result<Option<Place>> {
        if !exists {
            return Ok(Some(Place::Free));
        }
        let directory = self.run.target.open(folder)?;
        let existing = stat_if_there(&directory, &entry.name)?;
        let decision = decide(self.run.options.overwrite, entry, existing.as_ref());
        Ok(match (decision, existing) {
            (Decision::Skip, _) => None,
            (Decision::Compare, Some(stat)) => Some(Place::Compared(stat)),
            (Decision::Trust, Some(stat)) => Some(Place::Trusted(stat)),
            (Decision::Replace, _) => Some(Place::Replaced),
            (Decision::ReplaceDirectory, _) => {
                self.clear_directory(&directory, &entry.name)?;
                Some(Place::Free)
            }
            (Decision::Create | Decision::Compare | Decision::Trust, _) => Some(Place::Free),
        })
    }

    /// Removes a directory that is in the way, if it is empty or may be emptied.
    fn clear_directory(&mut self, directory: &TargetDirectory, name: &[u8]) -> io::Result<()> {
        let may_delete = self.levels.last().is_some_and(Level::may_delete);
        let refused =
            || io::Error::other("a folder that is not empty is there, and nothing may be deleted");
        if may_delete {
            let inside = self.walk.wanted();
            let mut path = self.walk.path().to_vec();
            return match delete(self.run, directory, name, &mut path, inside) {
                Deleted::All => Ok(()),
                Deleted::NotAll => {
                    Err(io::Error::other("what is in the folder there cannot all be deleted"))
                }
            };
        }
        if self.run.options.dry_run {
            let mut names = Names::default();
            directory.open_child(name)?.read_names(&mut names)?;
            return if names.is_empty() { Ok(()) } else { Err(refused()) };
        }
        match directory.remove_directory(name) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Err(refused()),
            result => result,
        }
    }

    fn plan_item(
        &mut self,
        folder: &Arc<Folder>,
        mut entry: Entry,
        place: Place,
    ) -> Result<(), Error> {
        folder.touch();
        let owner = self.owners.of(&entry);
        let metadata = Metadata::of(&mut entry, owner);
        let place = match place {
            // Its content counts as right, but other names of it would get this metadata too.
            Place::Trusted(stat) if stat.links > 1 && !metadata.will_stay(&stat) => Place::Replaced,
            place => place,
        };
        let leader = match self.find_group(folder, &entry, place) {
            Membership::Alone => None,
            Membership::First(leader) => Some(leader),
            Membership::Further(leader, is_linked) => {
                self.plan_link(folder, entry, metadata, place, leader, is_linked);
                return Ok(());
            }
        };
        if let Place::Trusted(stat) = place
            && metadata.is_met_by(&stat)
        {
            // The usual case of a second restore: nothing was opened, nothing is to be done.
            if let Some(leader) = leader {
                leader.settle(true);
            }
            add(&self.run.counts.bytes_reused, data_bytes(&entry.kind));
            self.run.verified.note(self.walk.ordinal());
            self.tell_kept(Action::Unchanged, &entry);
            return Ok(());
        }
        if self.run.options.dry_run && !matches!(place, Place::Compared(_) if entry.is_file()) {
            self.plan_dry(folder, &entry, &metadata, place);
            return Ok(());
        }
        self.draft.entries += 1;
        self.draft.bytes += weight(&entry, &metadata);
        let mut content = None;
        let body = match entry.kind {
            EntryKind::File { size, content: of_file, holes } => {
                let inline = match of_file {
                    Content::Inline(bytes) => Some(bytes),
                    other => {
                        content = Some(other);
                        None
                    }
                };
                let method = match place {
                    Place::Compared(_) => Method::Undecided,
                    Place::Trusted(_) => Method::InPlace,
                    Place::Replaced => Method::Temporary,
                    Place::Free => self.run.method_for_new(content.as_ref()),
                };
                Body::File(FileBody::new(size, holes, inline, method))
            }
            EntryKind::Symlink { target } => Body::Symlink(target.into()),
            EntryKind::CharacterDevice { major, minor } => {
                Body::Special { kind: FileKind::CharacterDevice, major, minor }
            }
            EntryKind::BlockDevice { major, minor } => {
                Body::Special { kind: FileKind::BlockDevice, major, minor }
            }
            _ => Body::Special { kind: FileKind::Fifo, major: 0, minor: 0 },
        };
        folder.hold();
        let item = Arc::new(Item {
            folder: Arc::clone(folder),
            name: entry.name.into(),
            metadata,
            ordinal: self.walk.ordinal(),
            place,
            body,
            leader,
        });
        match (item.file(), place) {
            (Some(file), Place::Trusted(_)) => {
                add(&self.run.counts.bytes_reused, file.data_bytes());
                self.hand.advance(0, file.data_bytes());
                self.draft.plain.push(item);
            }
            (Some(file), Place::Compared(_)) => self.plan_comparison(&item, file, content)?,
            (Some(file), _) => match content {
                Some(content) => self.plan_chunks(&item, file, &content)?,
                None => self.draft.plain.push(item),
            },
            (None, _) => self.draft.plain.push(item),
        }
        Ok(())
    }

    /// Tells what would happen to an entry whose content need not be looked at.
    fn plan_dry(&mut self, folder: &Arc<Folder>, entry: &Entry, metadata: &Metadata, place: Place) {
        let action = match place {
            Place::Free => Action::Restored,
            Place::Compared(stat) if self.is_other_right(folder, entry, metadata, &stat) => {
                Action::Unchanged
            }
            _ => Action::Updated,
        };
        let data_bytes = data_bytes(&entry.kind);
        match place {
            Place::Trusted(_) => add(&self.run.counts.bytes_reused, data_bytes),
            _ => add(&self.run.counts.bytes_written, data_bytes),
        }
        self.tell_kept(action, entry);
    }

    /// Whether a link or special file is right already.
    fn is_other_right(
        &self,
        folder: &Arc<Folder>,
        entry: &Entry,
        metadata: &Metadata,
        stat: &Stat,
    ) -> bool {
        let is_same = match &entry.kind {
            EntryKind::Symlink { target } => {
                let found =
                    self.run.target.open(folder).and_then(|folder| folder.read_link(&entry.name));
                return found.is_ok_and(|found| found == *target)
                    && metadata.will_stay(&Stat { mode: entry.mode, ..*stat });
            }
            EntryKind::CharacterDevice { major, minor }
            | EntryKind::BlockDevice { major, minor } => {
                (*major, *minor) == (stat.rdev_major, stat.rdev_minor)
            }
            _ => true,
        };
        is_same && metadata.will_stay(stat)
    }

    fn find_group(&mut self, folder: &Arc<Folder>, entry: &Entry, place: Place) -> Membership {
        if !is_hard_linked(entry) {
            return Membership::Alone;
        }
        let existing = match place {
            Place::Compared(stat) | Place::Trusted(stat) => Some(stat.identity()),
            Place::Free | Place::Replaced => None,
        };
        let fingerprint = fingerprint(entry);
        match self.groups.entry((entry.device, entry.inode)) {
            MapEntry::Vacant(vacant) => {
                let leader = Leader::new(folder, &entry.name);
                let group = Group {
                    leader: Arc::clone(&leader),
                    existing,
                    fingerprint,
                    names_left: entry.links - 1,
                };
                vacant.insert(group);
                Membership::First(leader)
            }
            // The number was given to another file while the backup ran.
            MapEntry::Occupied(occupied) if occupied.get().fingerprint != fingerprint => {
                Membership::Alone
            }
            MapEntry::Occupied(mut occupied) => {
                let group = occupied.get_mut();
                group.names_left -= 1;
                let leader = Arc::clone(&group.leader);
                let is_linked = existing.is_some() && existing == group.existing;
                if group.names_left == 0 {
                    occupied.remove();
                }
                Membership::Further(leader, is_linked)
            }
        }
    }

    fn plan_link(
        &mut self,
        folder: &Arc<Folder>,
        entry: Entry,
        metadata: Metadata,
        place: Place,
        leader: Arc<Leader>,
        is_linked: bool,
    ) {
        if self.run.options.dry_run {
            let action = match place {
                Place::Free => Action::Restored,
                _ if is_linked => Action::Unchanged,
                _ => Action::Updated,
            };
            self.tell_kept(action, &entry);
            return;
        }
        self.draft.entries += 1;
        self.draft.bytes += weight(&entry, &metadata);
        let body = match entry.kind {
            EntryKind::File { size, holes, .. } => {
                Body::File(FileBody::new(size, holes, None, Method::Temporary))
            }
            EntryKind::Symlink { target } => Body::Symlink(target.into()),
            kind => {
                let (major, minor) = match kind {
                    EntryKind::CharacterDevice { major, minor }
                    | EntryKind::BlockDevice { major, minor } => (major, minor),
                    _ => (0, 0),
                };
                Body::Special { kind: kind_of(&kind), major, minor }
            }
        };
        folder.hold();
        let item = Arc::new(Item {
            folder: Arc::clone(folder),
            name: entry.name.into(),
            metadata,
            ordinal: self.walk.ordinal(),
            place,
            body,
            leader: None,
        });
        self.draft.links.push(Link { leader, item });
    }

    /// Plans to compare an existing file. One that does not fit into a window is judged by its first part if it may be
    /// changed in place, else by all of it, one window after the other.
    fn plan_comparison(
        &mut self,
        item: &Arc<Item>,
        file: &FileBody,
        content: Option<Content>,
    ) -> Result<(), Error> {
        if self.is_running(item, file) {
            file.set_running();
        }
        let mut number = self.draft.push_item(item);
        match content {
            None => {
                let length = file.inline.as_ref().map_or(0, |bytes| bytes.len() as u32);
                self.draft.candidates.push(Candidate {
                    item: number,
                    length,
                    position: 0,
                    id: None,
                });
            }
            Some(content) => {
                let repository = self.run.repository;
                let is_judged_as_a_whole = !item.is_kept_if_part_is_right();
                let mut is_in_parts = false;
                let mut position = 0;
                for chunk in ChunkRefs::new(repository, &content) {
                    let chunk = match chunk {
                        Ok(chunk) => chunk,
                        Err(error) => {
                            self.hand.fail_content(file, &error);
                            break;
                        }
                    };
                    if file.method() == Method::Temporary && !self.run.options.dry_run {
                        // An earlier window has shown that nothing of it can stay.
                        self.plan_piece(file, number, &chunk, position)?;
                    } else {
                        self.draft.candidates.push(Candidate {
                            item: number,
                            length: chunk.length as u32,
                            position,
                            id: Some(chunk.id),
                        });
                    }
                    position += chunk.length;
                    if self.is_window_full() {
                        self.close_window()?;
                        if self.run.is_stopped() {
                            return Ok(());
                        }
                        number = self.draft.push_item(item);
                        is_in_parts = true;
                        if is_judged_as_a_whole && file.method() != Method::Undecided {
                            // Part of it is wrong: the rest need not be looked at.
                            break;
                        }
                    }
                }
                if is_in_parts && is_judged_as_a_whole && !file.has_failed() {
                    return self.end_parts(item, file, &content);
                }
            }
        }
        self.draft.planned.push(number);
        Ok(())
    }

    /// Whether an existing file that might be changed in place is a program that runs.
    fn is_running(&self, item: &Item, file: &FileBody) -> bool {
        let Place::Compared(stat) = item.place else { return false };
        let may_be_changed = file.size > IN_PLACE_BYTES_MIN || file.size != stat.size;
        let is_program = stat.mode & 0o111 != 0;
        stat.links == 1 && may_be_changed && is_program && {
            let opened = self.run.target.open(&item.folder);
            opened
                .and_then(|directory| directory.open_file_for_writing(&item.name))
                .is_err_and(|error| error.kind() == io::ErrorKind::ExecutableFileBusy)
        }
    }

    /// Decides about an existing file that was compared in parts and is kept only if all of it is right.
    fn end_parts(
        &mut self,
        item: &Arc<Item>,
        file: &FileBody,
        content: &Content,
    ) -> Result<(), Error> {
        if !self.draft.candidates.is_empty() {
            self.close_window()?;
            if self.run.is_stopped() {
                return Ok(());
            }
        }
        if file.method() == Method::Undecided {
            // Every part of it was right.
            file.set_method(choose_method(item, file, 1, 1));
        }
        let data_bytes = file.data_bytes();
        if file.method() == Method::InPlace {
            add(&self.run.counts.bytes_reused, data_bytes);
        } else if self.run.options.dry_run {
            file.set_changed();
            add(&self.run.counts.bytes_written, data_bytes);
        } else {
            return self.plan_chunks(item, file, content);
        }
        self.hand.advance(0, data_bytes);
        let number = self.draft.push_item(item);
        self.draft.planned.push(number);
        Ok(())
    }

    /// Plans to fetch all chunks of a file.
    fn plan_chunks(
        &mut self,
        item: &Arc<Item>,
        file: &FileBody,
        content: &Content,
    ) -> Result<(), Error> {
        if let Content::Chunks(chunks) = content
            && chunks.len() == 1
        {
            file.set_single();
        }
        let mut number = self.draft.push_item(item);
        let mut position = 0;
        for chunk in ChunkRefs::new(self.run.repository, content) {
            match chunk {
                Ok(chunk) => {
                    if !self.plan_piece(file, number, &chunk, position)? {
                        break;
                    }
                    position += chunk.length;
                }
                Err(error) => {
                    self.hand.fail_content(file, &error);
                    break;
                }
            }
            if self.is_window_full() {
                self.close_window()?;
                if self.run.is_stopped() {
                    return Ok(());
                }
                number = self.draft.push_item(item);
            }
        }
        // A single piece settles its file itself, if there is one to come.
        if (!file.is_single() || file.has_failed()) && file.let_go(1) {
            self.hand.finish(item, file);
        }
        Ok(())
    }

    /// Plans to fetch one chunk; false if it cannot be had, which makes the file fail.
    pub(super) fn plan_piece(
        &mut self,
        file: &FileBody,
        number: u32,
        chunk: &ChunkRef,
        position: u64,
    ) -> Result<bool, Error> {
        let found = self.run.repository.index().find(&chunk.id)?;
        let Some(location) = found.filter(|found| u64::from(found.length) == chunk.length) else {
            self.hand.fail_content(file, &putback_repo::Error::BlobUnknown { blob: chunk.id });
            return Ok(false);
        };
        if !file.is_single() {
            file.hold();
        }
        self.draft.pieces.push(Piece {
            pack: location.pack,
            frame: location.frame,
            offset: location.offset,
            length: location.length,
            item: number,
            position,
            id: chunk.id,
        });
        Ok(true)
    }
}

/// Whether an entry is one of several names of a file.
enum Membership {
    Alone,
    First(Arc<Leader>),
    /// A further name, and whether it is one already in the target.
    Further(Arc<Leader>, bool),
}

impl Draft {
    fn push_item(&mut self, item: &Arc<Item>) -> u32 {
        self.items.push(Arc::clone(item));
        (self.items.len() - 1) as u32
    }
}

impl Run<'_> {
    /// How a file is written where nothing has its name. Where a later restore would not look at its content, a
    /// file that takes time to write gets its name last.
    fn method_for_new(&self, content: Option<&Content>) -> Method {
        let is_quick = match content {
            None => true,
            Some(Content::Chunks(chunks)) => chunks.len() == 1,
            Some(_) => false,
        };
        match self.options.overwrite {
            Overwrite::Always | Overwrite::IfChanged => Method::Create,
            Overwrite::IfNewer | Overwrite::Never if is_quick => Method::Create,
            Overwrite::IfNewer | Overwrite::Never => Method::Temporary,
        }
    }
}

/// Bytes of a file outside holes.
fn data_bytes(kind: &EntryKind) -> u64 {
    match kind {
        EntryKind::File { size, holes, .. } => {
            size - holes.iter().map(|hole| hole.length).sum::<u64>()
        }
        _ => 0,
    }
}

/// What an entry adds to the bytes of a window.
fn weight(entry: &Entry, metadata: &Metadata) -> usize {
    let xattrs = metadata.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len());
    let own = match &entry.kind {
        EntryKind::File { content: Content::Inline(bytes), holes, .. } => {
            bytes.len() + holes.len() * 32
        }
        EntryKind::File { holes, .. } => holes.len() * 32,
        EntryKind::Symlink { target } => target.len(),
        _ => 0,
    };
    entry.name.len() + own + xattrs.sum::<usize>()
}
