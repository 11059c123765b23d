//! Planning: what becomes of each entry, given what the target has.
//!
//! [`decide`] and [`decide_directory`] are pure. [`Planner`] walks the snapshot, makes directories, looks at what is
//! there, and gathers a *window*: items, the places of their chunks, links. A full window is sorted, cut into
//! tasks and handed to the workers; then the next one is planned.
//!
//! Existing files are compared before their chunks are planned, by the workers too: what already holds the right
//! bytes is not fetched.
//!
//! A dry run goes the same way and hands over nothing but comparisons.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry as MapEntry;
use putback_format::snapshot::IncidentKind;
use putback_format::tree::{ChunkRef, Content, Entry, EntryKind};
use putback_repo::{Action, Amount, Event, Phase, Repository};

use crate::Error;
use crate::platform::{self, FileKind, Names, Stat, TargetDirectory, TargetMetadata};
use crate::restore::folder::Folder;
use crate::restore::item::{
    Body, Candidate, Failure, FileBody, Item, Leader, Link, Method, Piece, Place,
};
use crate::restore::metadata::{Metadata, OwnerRule, Owners, gives_acl};
use crate::restore::select::Wanted;
use crate::restore::walk::{Step, Walk};
use crate::restore::write::{Comparison, Task, Window, Worker, link_tasks};
use crate::restore::{Base, Overwrite, Run, add};

/// Plain frames that one task reads.
const FRAMES_PER_TASK: usize = 8;
/// Items without chunks that one task makes, unless a folder ends near.
const ITEMS_PER_TASK: Range<usize> = 64..256;
/// Bytes of existing files that one task compares.
const COMPARED_BYTES_PER_TASK: u64 = 16 << 20;
/// Candidates that one task compares.
const COMPARED_PER_TASK: usize = 256;

/// What becomes of an entry that is no directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing has its name.
    Create,
    /// An object of its kind is there: kept as far as it is right.
    Compare,
    /// A file of its size and time is there, which counts as right.
    Trust,
    /// Something else is there and goes.
    Replace,
    /// A directory is there, and goes if it may.
    ReplaceDirectory,
    /// What is there stays.
    Skip,
}

/// Decides about an entry that is no directory.
pub(super) fn decide(policy: Overwrite, entry: &Entry, existing: Option<&Stat>) -> Decision {
    let Some(existing) = existing else { return Decision::Create };
    if !may_change(policy, entry, existing) {
        return Decision::Skip;
    }
    if existing.is_directory() {
        return Decision::ReplaceDirectory;
    }
    if kind_of(&entry.kind) != existing.kind {
        return Decision::Replace;
    }
    let is_trusted = policy == Overwrite::IfChanged
        && entry.kind.file_size() == Some(existing.size)
        && entry.mtime == existing.mtime;
    if is_trusted { Decision::Trust } else { Decision::Compare }
}

/// What becomes of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DirectoryDecision {
    /// Nothing has its name.
    Create,
    /// It is there.
    Enter,
    /// Something else is there and goes; a link too, which is never followed.
    Replace,
    /// What is there stays, and what would come into the directory is left out.
    Skip,
}

/// Decides about a directory.
pub(super) fn decide_directory(
    policy: Overwrite,
    entry: &Entry,
    existing: Option<&Stat>,
) -> DirectoryDecision {
    match existing {
        None => DirectoryDecision::Create,
        Some(existing) if existing.is_directory() => DirectoryDecision::Enter,
        Some(existing) if may_change(policy, entry, existing) => DirectoryDecision::Replace,
        Some(_) => DirectoryDecision::Skip,
    }
}

fn may_change(policy: Overwrite, entry: &Entry, existing: &Stat) -> bool {
    match policy {
        Overwrite::Always | Overwrite::IfChanged => true,
        Overwrite::IfNewer => entry.mtime > existing.mtime,
        Overwrite::Never => false,
    }
}

fn kind_of(kind: &EntryKind) -> FileKind {
    match kind {
        EntryKind::File { .. } => FileKind::File,
        EntryKind::Directory { .. } => FileKind::Directory,
        EntryKind::Symlink { .. } => FileKind::Symlink,
        EntryKind::Fifo => FileKind::Fifo,
        EntryKind::Socket => FileKind::Socket,
        EntryKind::CharacterDevice { .. } => FileKind::CharacterDevice,
        EntryKind::BlockDevice { .. } => FileKind::BlockDevice,
    }
}

/// How an existing file is brought up to date, once it was compared: `matched` of `compared` runs of bytes are
/// right.
fn choose_method(item: &Item, file: &FileBody, matched: usize, compared: usize) -> Method {
    let is_content_right = matched == compared;
    let has_other_names = matches!(item.place, Place::Compared(stat) if stat.links > 1);
    let is_kept = if is_content_right {
        // To cut it off or to make its holes is quickly done; but other names would change with it.
        !file.is_frame_wrong() || !has_other_names
    } else {
        matched > 0 && item.is_kept_if_part_is_right()
    };
    if is_kept { Method::InPlace } else { Method::Temporary }
}

/// Cuts sorted pieces into runs of a few frames of one pack.
pub(super) fn cut_frames(pieces: &[Piece]) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let (mut start, mut frames) = (0, 1);
    for (number, pair) in pieces.windows(2).enumerate() {
        let [piece, next] = pair else { continue };
        if piece.pack == next.pack && piece.frame == next.frame {
            continue;
        }
        if piece.pack != next.pack || frames == FRAMES_PER_TASK {
            runs.push(start..number + 1);
            (start, frames) = (number + 1, 0);
        }
        frames += 1;
    }
    if start < pieces.len() {
        runs.push(start..pieces.len());
    }
    runs
}

/// Cuts items into batches, between two folders where one ends near: workers in the same folder wait for each
/// other.
fn cut_plain(items: &[Arc<Item>]) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let mut start = 0;
    for (number, pair) in items.windows(2).enumerate() {
        let [item, next] = pair else { continue };
        let count = number + 1 - start;
        let ends_folder = !Arc::ptr_eq(&item.folder, &next.folder);
        if count >= ITEMS_PER_TASK.end || (count >= ITEMS_PER_TASK.start && ends_folder) {
            batches.push(start..number + 1);
            start = number + 1;
        }
    }
    if start < items.len() {
        batches.push(start..items.len());
    }
    batches
}

/// Cuts a comparison into tasks; a large file is spread over several.
pub(super) fn cut_comparison(comparison: &Arc<Comparison>) -> Vec<Task> {
    let candidates = &comparison.candidates;
    let mut tasks = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (number, candidate) in candidates.iter().enumerate() {
        bytes += u64::from(candidate.length);
        let count = number + 1 - start;
        if bytes >= COMPARED_BYTES_PER_TASK || count == COMPARED_PER_TASK {
            tasks.push(Task::Compare(Arc::clone(comparison), start..number + 1));
            (start, bytes) = (number + 1, 0);
        }
    }
    if start < candidates.len() {
        tasks.push(Task::Compare(Arc::clone(comparison), start..candidates.len()));
    }
    tasks
}

/// The chunks of a file in order; list pages are read one at a time.
pub(super) struct ChunkRefs<'a> {
    repository: &'a Repository,
    /// References that are left on each level: 0 are chunks, others list pages of that level.
    levels: Vec<(u8, std::vec::IntoIter<ChunkRef>)>,
}

impl<'a> ChunkRefs<'a> {
    pub(super) fn new(repository: &'a Repository, content: &Content) -> Self {
        let levels = match content {
            Content::Inline(_) => Vec::new(),
            Content::Chunks(chunks) => vec![(0, chunks.clone().into_iter())],
            Content::Lists { depth, pages } => vec![(*depth, pages.clone().into_iter())],
        };
        Self { repository, levels }
    }
}

impl Iterator for ChunkRefs<'_> {
    type Item = putback_repo::Result<ChunkRef>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (level, refs) = self.levels.last_mut()?;
            let level = *level;
            match refs.next() {
                None => drop(self.levels.pop()),
                Some(chunk) if level == 0 => return Some(Ok(chunk)),
                Some(page) => match self.repository.read_list_page(&page, level) {
                    Ok(refs) => self.levels.push((level - 1, refs.into_iter())),
                    Err(error) => {
                        self.levels.clear();
                        return Some(Err(error));
                    }
                },
            }
        }
    }
}

/// A window that is being gathered.
#[derive(Default)]
struct Draft {
    items: Vec<Arc<Item>>,
    plain: Vec<Arc<Item>>,
    pieces: Vec<Piece>,
    links: Vec<Link>,
    candidates: Vec<Candidate>,
    /// Compared items, by number, all of whose candidates are known with the end of this window;
    /// ascending.
    planned: Vec<u32>,
    entries: usize,
    bytes: usize,
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
struct Level {
    folder: LevelFolder,
    wanted: Wanted,
    /// What the target has in it.
    names: Names,
    /// The first of `names` that the walk has not passed.
    next_name: usize,
    /// Names that the snapshot has not.
    extra: Vec<Box<[u8]>>,
    may_delete: bool,
}

#[derive(Clone)]
enum LevelFolder {
    Ready(Arc<Folder>),
    /// A passage that nothing has been found in yet: it is made when something is.
    Pending(Box<Entry>, Vec<u8>),
    /// It could not be made, which was told.
    Blocked,
}

impl Level {
    fn new(folder: LevelFolder, wanted: Wanted) -> Self {
        Self {
            folder,
            wanted,
            names: Names::default(),
            next_name: 0,
            extra: Vec::new(),
            may_delete: false,
        }
    }

    /// Whether the target has `name`. Must be called with ascending names; those passed over are extra.
    fn pass(&mut self, name: &[u8]) -> bool {
        while self.next_name < self.names.len() {
            let (found, _) = self.names.get(self.next_name);
            match found.cmp(name) {
                std::cmp::Ordering::Less => {
                    if self.may_delete {
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
    fn take_extra(&mut self) -> Vec<Box<[u8]>> {
        let rest = (self.next_name..self.names.len()).map(|number| self.names.get(number).0.into());
        let mut extra = std::mem::take(&mut self.extra);
        extra.extend(rest);
        self.next_name = self.names.len();
        extra
    }
}

/// Walks the snapshot and plans.
pub(super) struct Planner<'r> {
    run: &'r Run<'r>,
    /// Carries out what falls to the planner itself.
    hand: Worker<'r>,
    walk: Walk<'r>,
    levels: Vec<Level>,
    owners: Owners<'r>,
    groups: HashMap<(u64, u64), Group>,
    draft: Draft,
    draft_entries_max: usize,
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
            level.may_delete = base.entry.is_directory() && run.may_delete_in(&base.path);
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
                Step::Unwanted(entry) => {
                    if let Some(level) = self.levels.last_mut() {
                        level.pass(&entry.name);
                    }
                }
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
        self.hand.flush(Phase::Restore);
        Ok(())
    }

    // Directories.

    fn enter(&mut self, entry: Entry, wanted: Wanted) {
        let Some(parent) = self.levels.last_mut() else { return };
        let exists = parent.pass(&entry.name);
        if !platform::is_plain_name(&entry.name) {
            self.refuse_name();
            self.walk.skip();
            return;
        }
        let is_parent_ready = matches!(parent.folder, LevelFolder::Ready(_));
        let level = if wanted == Wanted::Passage && !(is_parent_ready && exists) {
            let path = self.walk.path().to_vec();
            Some(Level::new(LevelFolder::Pending(Box::new(entry), path), wanted))
        } else {
            let path = self.walk.path().to_vec();
            self.ready_folder(self.levels.len() - 1)
                .and_then(|parent| self.enter_folder(&parent, exists, entry, wanted, path))
        };
        match level {
            Some(level) => {
                self.run.verified.note(self.walk.ordinal());
                self.levels.push(level);
            }
            None => self.walk.skip(),
        }
    }

    /// The folder of a level, made now if it is pending; none if it cannot be, which was told.
    fn ready_folder(&mut self, number: usize) -> Option<Arc<Folder>> {
        // From the outermost pending one inwards.
        let first = (0..=number)
            .rev()
            .take_while(|number| matches!(self.levels[*number].folder, LevelFolder::Pending(..)));
        let first = first.last().unwrap_or(number + 1);
        for pending in first..=number {
            let parent = match &self.levels[pending - 1].folder {
                LevelFolder::Ready(parent) => Some(Arc::clone(parent)),
                _ => None,
            };
            let LevelFolder::Pending(entry, path) =
                std::mem::replace(&mut self.levels[pending].folder, LevelFolder::Blocked)
            else {
                continue;
            };
            // It did not exist when its parent was looked at, or its parent did not.
            let wanted = self.levels[pending].wanted;
            if let Some(parent) = parent
                && let Some(level) = self.enter_folder(&parent, false, *entry, wanted, path)
            {
                self.levels[pending].folder = level.folder;
            }
        }
        match &self.levels[number].folder {
            LevelFolder::Ready(folder) => Some(Arc::clone(folder)),
            _ => None,
        }
    }

    fn enter_folder(
        &mut self,
        parent: &Arc<Folder>,
        exists: bool,
        mut entry: Entry,
        wanted: Wanted,
        path: Vec<u8>,
    ) -> Option<Level> {
        let owner = self.owners.of(&entry);
        let metadata = Metadata::of(&mut entry, owner);
        match self.try_enter_folder(parent, exists, &entry, metadata, wanted, &path) {
            Ok(level) => level,
            Err((what, error)) => {
                let failure = self.run.target_failure(&path, what, error);
                self.run.problem(&path, &failure);
                None
            }
        }
    }

    fn try_enter_folder(
        &mut self,
        parent: &Arc<Folder>,
        exists: bool,
        entry: &Entry,
        metadata: Metadata,
        wanted: Wanted,
        path: &[u8],
    ) -> Result<Option<Level>, (&'static str, io::Error)> {
        let run = self.run;
        let name = entry.name.as_slice();
        // In a dry run, a new folder is nowhere.
        let parent_directory = if run.options.dry_run && parent.is_new {
            None
        } else {
            Some(run.target.open(parent).map_err(|error| ("open the folder around it", error))?)
        };
        let existing = match &parent_directory {
            Some(directory) if exists => {
                stat_if_there(directory, name).map_err(|error| ("look at what is there", error))?
            }
            _ => None,
        };
        let decision = decide_directory(run.options.overwrite, entry, existing.as_ref());
        match (decision, &parent_directory) {
            (DirectoryDecision::Skip, _) => {
                run.tell_entry(path, Action::Skipped, 0);
                return Ok(None);
            }
            (DirectoryDecision::Enter, Some(directory)) => {
                return enter_existing(
                    run, parent, directory, entry, existing, metadata, wanted, path,
                )
                .map(Some)
                .map_err(|error| ("open the folder that is there", error));
            }
            (DirectoryDecision::Replace, Some(directory)) if !run.options.dry_run => {
                directory
                    .remove_file(name)
                    .map_err(|error| ("remove what is in the way", error))?;
            }
            _ => {}
        }
        let made = match &parent_directory {
            Some(directory) if !run.options.dry_run => {
                Some(directory.create_child(name).map_err(|error| ("make the folder", error))?)
            }
            _ => None,
        };
        let gives_acl = parent.gives_acl;
        let folder = Folder::new(path.to_vec(), Some(parent), Some(metadata), true, gives_acl);
        if let Some(made) = made {
            run.target.keep(&folder, made);
        }
        run.observer.event(Event::Entry { path, action: Action::Restored, bytes: 0 });
        Ok(Some(Level::new(LevelFolder::Ready(folder), wanted)))
    }

    fn leave(&mut self, is_complete: bool) {
        let Some(mut level) = self.levels.pop() else { return };
        let LevelFolder::Ready(folder) = &level.folder else { return };
        let folder = Arc::clone(folder);
        // If part of the directory cannot be read, nobody knows what belongs there.
        if level.may_delete && is_complete {
            self.delete_extra(&folder, level.wanted, level.take_extra());
        }
        self.run.let_go(&folder);
    }

    fn delete_extra(&mut self, folder: &Arc<Folder>, wanted: Wanted, names: Vec<Box<[u8]>>) {
        if names.is_empty() {
            return;
        }
        match self.run.target.open(folder) {
            Ok(directory) => {
                let mut path = Vec::new();
                for name in names {
                    folder.write_path(&name, &mut path);
                    if delete(self.run, &directory, &name, &mut path, wanted) == Deleted::All {
                        folder.touch();
                    }
                }
            }
            Err(error) => {
                let failure = self.run.target_failure(&folder.path, "remove what is in it", error);
                self.run.problem(&folder.path, &failure);
            }
        }
    }

    fn refuse_name(&mut self) {
        let message = "its name is not the name of a file here; it is left out".to_owned();
        let failure = Failure { kind: IncidentKind::Unreadable, message };
        self.run.problem(self.walk.path(), &failure);
    }

    // Everything else.

    fn plan_entry(&mut self, entry: Entry) -> Result<(), Error> {
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        let exists = level.pass(&entry.name);
        if entry.kind == EntryKind::Socket {
            // It counts as nothing that was kept or is missing: the program that needs one makes it.
            let (path, action) = (self.walk.path(), Action::Excluded);
            self.run.observer.event(Event::Entry { path, action, bytes: 0 });
            return Ok(());
        }
        let data_bytes = data_bytes(&entry.kind);
        add(&self.run.counts.files_total, 1);
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
        let may_delete = self.levels.last().is_some_and(|level| level.may_delete);
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
        if entry.links < 2 || entry.inode == 0 {
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

    /// Plans to compare an existing file.
    fn plan_comparison(
        &mut self,
        item: &Arc<Item>,
        file: &FileBody,
        content: Option<Content>,
    ) -> Result<(), Error> {
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
                    }
                }
            }
        }
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
    fn plan_piece(
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

    // Windows.

    fn is_window_full(&self) -> bool {
        let (draft, limits) = (&self.draft, &self.run.limits);
        draft.entries >= self.draft_entries_max
            || draft.pieces.len() + draft.candidates.len() >= limits.pieces_max
            || draft.bytes >= limits.bytes_max
    }

    /// Hands what was gathered to the workers.
    fn close_window(&mut self) -> Result<(), Error> {
        self.hand.flush(Phase::Restore);
        self.draft_entries_max = (self.draft_entries_max * 2).min(self.run.limits.entries_max);
        if !self.draft.candidates.is_empty() || !self.draft.planned.is_empty() {
            self.compare()?;
        }
        let draft = std::mem::take(&mut self.draft);
        if self.run.is_stopped() || self.run.options.dry_run {
            return Ok(());
        }
        let mut pieces = draft.pieces;
        pieces.sort_unstable_by_key(|piece| (piece.pack, piece.frame, piece.offset, piece.item));
        let plain = cut_plain(&draft.plain);
        let frames = cut_frames(&pieces);
        let window = Arc::new(Window {
            items: draft.items,
            plain: draft.plain,
            pieces,
            links: draft.links,
            tasks_left: (plain.len() + frames.len()).into(),
        });
        let mut tasks = Vec::with_capacity(plain.len() + frames.len());
        tasks.extend(plain.into_iter().map(|range| Task::Plain(Arc::clone(&window), range)));
        tasks.extend(frames.into_iter().map(|range| Task::Frames(Arc::clone(&window), range)));
        if tasks.is_empty() {
            tasks = link_tasks(&window);
        }
        if !tasks.is_empty() {
            self.run.queue.push_when_empty(tasks);
        }
        Ok(())
    }

    /// Compares existing files, then plans what has to be fetched.
    fn compare(&mut self) -> Result<(), Error> {
        let items = self.draft.items.clone();
        let candidates = std::mem::take(&mut self.draft.candidates);
        let planned = std::mem::take(&mut self.draft.planned);
        let comparison = Comparison::new(Phase::Restore, items, candidates);
        if !comparison.candidates.is_empty() {
            self.run.queue.push_when_empty(cut_comparison(&comparison));
            if !comparison.wait(self.run) {
                return Ok(());
            }
        }
        let mut matched = comparison.matched.iter().map(|matched| matched.load(Ordering::Relaxed));
        for candidates in comparison.candidates.chunk_by(|a, b| a.item == b.item) {
            let item = &comparison.items[candidates[0].item as usize];
            let matched: Vec<bool> = matched.by_ref().take(candidates.len()).collect();
            if let Some(file) = item.file() {
                let is_planned = planned.binary_search(&candidates[0].item).is_ok();
                self.plan_compared(item, file, candidates, &matched, is_planned)?;
            }
        }
        for number in planned {
            let item = Arc::clone(&comparison.items[number as usize]);
            if let Some(file) = item.file() {
                self.end_compared(&item, file);
            }
        }
        Ok(())
    }

    /// Plans what an existing file lacks.
    fn plan_compared(
        &mut self,
        item: &Arc<Item>,
        file: &FileBody,
        candidates: &[Candidate],
        matched: &[bool],
        is_planned: bool,
    ) -> Result<(), Error> {
        if file.has_failed() {
            return Ok(());
        }
        let count = matched.iter().filter(|matched| **matched).count();
        if file.method() == Method::Undecided {
            let compared = candidates.len();
            file.set_method(choose_method(item, file, count, compared));
            let is_single = is_planned && compared == 1 && candidates[0].position == 0;
            if file.method() == Method::Temporary && is_single && file.inline.is_none() {
                file.set_single();
            }
        }
        let is_kept = file.method() == Method::InPlace;
        for (candidate, matched) in candidates.iter().zip(matched) {
            let length = u64::from(candidate.length);
            if is_kept && *matched {
                add(&self.run.counts.bytes_reused, length);
                if !item.is_kept_if_part_is_right() {
                    // Else it was told when it was compared.
                    self.hand.advance(0, length);
                }
                continue;
            }
            if self.run.options.dry_run {
                file.set_changed();
                add(&self.run.counts.bytes_written, length);
                self.hand.advance(0, length);
            } else if let Some(id) = candidate.id
                && !self.plan_piece(
                    file,
                    candidate.item,
                    &ChunkRef { id, length },
                    candidate.position,
                )?
            {
                break;
            }
        }
        Ok(())
    }

    /// Everything of a compared file is planned now.
    fn end_compared(&mut self, item: &Arc<Item>, file: &FileBody) {
        if self.run.options.dry_run {
            let is_met =
                matches!(item.place, Place::Compared(stat) if item.metadata.will_stay(&stat));
            let is_changed = file.is_changed() || file.is_frame_wrong() || !is_met;
            let action = if is_changed { Action::Updated } else { Action::Unchanged };
            self.hand.advance(1, 0);
            let mut path = Vec::new();
            item.folder.write_path(&item.name, &mut path);
            self.run.tell_entry(&path, action, file.size);
            self.run.let_go(&item.folder);
            return;
        }
        let is_all_done = !file.has_failed()
            && (file.inline.is_some() || (file.method() == Method::InPlace && file.is_idle()));
        if is_all_done {
            // A worker opens it, sets its metadata, and in the case of inline data writes it.
            self.draft.plain.push(Arc::clone(item));
        } else if (!file.is_single() || file.has_failed()) && file.let_go(1) {
            self.hand.finish(item, file);
        }
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
    /// Whether `delete` holds in the directory `path`. Above what was backed up, a snapshot knows only the way.
    fn may_delete_in(&self, path: &[u8]) -> bool {
        self.options.delete
            && self.snapshot.paths.iter().any(|root| {
                let root = root.strip_suffix(b"/").unwrap_or(root);
                path.strip_prefix(root)
                    .is_some_and(|below| below.is_empty() || below.starts_with(b"/"))
            })
    }

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

#[expect(
    clippy::too_many_arguments,
    reason = "the tail of one function, which has them all at hand"
)]
fn enter_existing(
    run: &Run<'_>,
    parent: &Arc<Folder>,
    parent_directory: &TargetDirectory,
    entry: &Entry,
    existing: Option<Stat>,
    metadata: Metadata,
    wanted: Wanted,
    path: &[u8],
) -> io::Result<Level> {
    let name = entry.name.as_slice();
    let mut is_opened_up = false;
    if let Some(stat) = existing
        && !run.options.dry_run
        && platform::effective_uid() != 0
        && stat.uid == platform::effective_uid()
        && stat.mode & 0o700 != 0o700
    {
        // An earlier restore has closed it already. It gets its own permissions at the end.
        let opened_up = TargetMetadata {
            owner: None,
            mode: stat.mode | 0o700,
            xattrs: None,
            mtime: stat.mtime,
            flags: 0,
        };
        is_opened_up = parent_directory.apply_metadata(name, &opened_up)?.is_empty();
    }
    let directory = parent_directory.open_child(name)?;
    let mut names = Names::default();
    directory.read_names(&mut names)?;
    let gives_acl = gives_acl(&directory);
    let folder = Folder::new(path.to_vec(), Some(parent), Some(metadata), false, gives_acl);
    run.target.keep(&folder, directory);
    if wanted == Wanted::Yes || is_opened_up {
        folder.touch();
    }
    let may_delete = run.may_delete_in(path);
    Ok(Level { names, may_delete, ..Level::new(LevelFolder::Ready(folder), wanted) })
}

fn stat_if_there(directory: &TargetDirectory, name: &[u8]) -> io::Result<Option<Stat>> {
    match directory.stat(name) {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What became of something that was to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deleted {
    All,
    /// Some of it is not wanted, and stays; or it could not be deleted, which was told.
    NotAll,
}

/// Deletes `name` with everything in it, as far as the selection goes. `path` is its path in the snapshot, had it
/// one. No link is followed, and no other file system is entered.
fn delete(
    run: &Run<'_>,
    directory: &TargetDirectory,
    name: &[u8],
    path: &mut Vec<u8>,
    inside: Wanted,
) -> Deleted {
    if run.is_stopped() {
        return Deleted::NotAll;
    }
    match try_delete(run, directory, name, path, inside) {
        Ok(deleted) => deleted,
        Err(error) => {
            let failure = run.target_failure(path, "delete it", error);
            run.problem(path, &failure);
            Deleted::NotAll
        }
    }
}

fn try_delete(
    run: &Run<'_>,
    directory: &TargetDirectory,
    name: &[u8],
    path: &mut Vec<u8>,
    inside: Wanted,
) -> io::Result<Deleted> {
    let Some(stat) = stat_if_there(directory, name)? else { return Ok(Deleted::All) };
    let wanted = run.selection.decide(inside, path, stat.is_directory());
    if wanted == Wanted::No {
        return Ok(Deleted::NotAll);
    }
    let is_dry = run.options.dry_run;
    if !stat.is_directory() {
        if !is_dry {
            directory.remove_file(name)?;
        }
        run.tell_entry(path, Action::Deleted, stat.size);
        return Ok(Deleted::All);
    }
    if stat.device != directory.stat_self()?.device {
        return Err(io::Error::other("another file system is mounted there"));
    }
    let child = directory.open_child(name)?;
    let mut names = Names::default();
    child.read_names(&mut names)?;
    let mut deleted = Deleted::All;
    for number in 0..names.len() {
        let (name, _) = names.get(number);
        let length = path.len();
        path.push(b'/');
        path.extend_from_slice(name);
        if delete(run, &child, name, path, wanted) == Deleted::NotAll {
            deleted = Deleted::NotAll;
        }
        path.truncate(length);
    }
    if wanted == Wanted::Passage || deleted == Deleted::NotAll {
        return Ok(Deleted::NotAll);
    }
    if !is_dry {
        directory.remove_directory(name)?;
    }
    run.tell_entry(path, Action::Deleted, 0);
    Ok(Deleted::All)
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

/// What two names of one file have in common.
fn fingerprint(entry: &Entry) -> u64 {
    let mut hasher = DefaultHasher::new();
    entry.mtime.hash(&mut hasher);
    kind_of(&entry.kind).hash(&mut hasher);
    match &entry.kind {
        EntryKind::File { size, content, .. } => {
            size.hash(&mut hasher);
            match content {
                Content::Inline(bytes) => bytes.hash(&mut hasher),
                Content::Chunks(chunks) | Content::Lists { pages: chunks, .. } => {
                    chunks.hash(&mut hasher);
                }
            }
        }
        EntryKind::Symlink { target } => target.hash(&mut hasher),
        _ => {}
    }
    hasher.finish()
}
