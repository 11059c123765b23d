//! Snapshots without what is lost.
//!
//! A file of which a chunk is lost is left out, and so are the entries of a directory page that is lost; each is an
//! incident of the new snapshot, which has the tag [`REPAIRED`]. Everything else stays bit for bit: directories in
//! which nothing is missing keep their pages. The original stays too, unless it is to be forgotten.

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::vec::IntoIter;

use putback_format::id::{BlobId, PackId, SnapshotId};
use putback_format::key::BlobKind;
use putback_format::mark::ForgottenSnapshot;
use putback_format::page::PageBuilder;
use putback_format::snapshot::{Incident, IncidentKind, Original, Snapshot};
use putback_format::tree::{ChunkRef, Content, Entry, EntryKind};

use super::{Reading, RepairOptions, RepairPlan, RepairReport, read_twice};
use crate::check::Survey;
use crate::error::{Error, Result};
use crate::forget::Retained;
use crate::id_set::IdSet;
use crate::lost::{Inspector, look_for_lost, shown};
use crate::observe::{Amount, Cancel, Event, Observer, Phase};
use crate::{Repository, SnapshotDraft, SnapshotFilter, StoredSnapshot, layout};

/// The tag of snapshots that were written without what is lost.
pub const REPAIRED: &str = "repaired";
/// Lost paths that are in memory at once, as far as those of one snapshot are not more.
const PATHS_MAX: usize = 100_000;
/// Files of a snapshot that are listed.
const HURTS_MAX: usize = 100;

/// What will be done about snapshots.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// Snapshots to write without something, each with [`Lost::digest`] of that.
    hurt: Vec<(StoredSnapshot, u64)>,
    /// Packs that the new snapshots must not rely on.
    broken: BTreeSet<PackId>,
    /// Originals that are to be forgotten and already have a successor.
    replaced: Vec<StoredSnapshot>,
    /// Snapshots that cannot be read and are to be forgotten, with the numbers that they are taken to have had.
    pub(super) unreadable: Vec<ForgottenSnapshot>,
}

impl Steps {
    pub(super) fn is_empty(&self) -> bool {
        self.hurt.is_empty() && self.replaced.is_empty() && self.unreadable.is_empty()
    }
}

/// What is lost of a snapshot.
#[derive(Debug, Default)]
struct Lost {
    /// Paths of files, with the bytes of their data, and of directories that lost a page.
    paths: BTreeMap<Vec<u8>, Option<u64>>,
}

impl Lost {
    /// Whether something is lost in this directory, or below it.
    fn is_hurt(&self, directory: &[u8]) -> bool {
        let inside = [directory, b"/"].concat();
        self.paths.contains_key(directory)
            || self
                .paths
                .range(inside.clone()..)
                .next()
                .is_some_and(|(path, _)| path.starts_with(&inside))
    }

    /// Tells it from anything else that might be lost.
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.paths.hash(&mut hasher);
        hasher.finish()
    }

    fn incidents(&self) -> Vec<Incident> {
        let incident = |(path, bytes): (&Vec<u8>, &Option<u64>)| Incident {
            path: shown(path),
            kind: IncidentKind::Lost,
            message: match bytes {
                Some(_) => "part of its content is lost; it was left out by a repair",
                None => "a part of this directory is lost; what was in it is not known",
            }
            .to_owned(),
        };
        self.paths.iter().map(incident).collect()
    }
}

/// A directory that is being written again.
struct Rewritten {
    entry: Entry,
    path_length: usize,
    pages: IntoIter<BlobId>,
    entries: IntoIter<Entry>,
    builder: PageBuilder,
    done: Vec<BlobId>,
}

impl Rewritten {
    fn new(entry: Entry, path_length: usize) -> Self {
        let pages = match &entry.kind {
            EntryKind::Directory { pages } => pages.clone(),
            _ => Vec::new(),
        };
        Self {
            entry,
            path_length,
            pages: pages.into_iter(),
            entries: Vec::new().into_iter(),
            builder: PageBuilder::new(),
            done: Vec::new(),
        }
    }
}

/// Looks for what is lost.
struct Search<'a> {
    repository: &'a Repository,
    broken: &'a BTreeSet<PackId>,
    cancel: &'a Cancel,
    /// Pages below which nothing is lost.
    whole: IdSet<BlobId>,
    /// What was read because no pack that will stay has it, and whether that went well.
    tried: BTreeMap<BlobId, bool>,
    /// Packs that are not there.
    gone: RefCell<BTreeSet<PackId>>,
    /// What the snapshot in hand lost.
    lost: Lost,
}

impl<'a> Search<'a> {
    fn new(
        repository: &'a Repository,
        broken: &'a BTreeSet<PackId>,
        options: &'a RepairOptions,
    ) -> Self {
        Self {
            repository,
            broken,
            cancel: &options.cancel,
            whole: IdSet::default(),
            tried: BTreeMap::new(),
            gone: RefCell::default(),
            lost: Lost::default(),
        }
    }

    /// Reads what is in a pack. That it is lost holds only if its pack is not there either.
    fn read<T>(&self, read: impl Fn(&Repository) -> Result<T>) -> Result<Reading<T>> {
        read_twice(|| {
            let result = read(self.repository);
            if let Err(Error::BlobLost { pack, .. }) = &result
                && !self.gone.borrow().contains(pack)
            {
                self.repository.check_gone(pack)?;
                self.gone.borrow_mut().insert(*pack);
            }
            result
        })
    }

    /// Whether a chunk can be read. Those in packs that will stay are not read for that.
    fn is_there(&mut self, chunk: &ChunkRef) -> Result<bool> {
        let index = self.repository.index();
        let mut is_known = false;
        for location in index.find_all(&chunk.id)? {
            let Some(id) = index.pack_id(location.pack) else { continue };
            is_known = true;
            if !self.broken.contains(&id) && !index.is_avoided(&id) {
                return Ok(u64::from(location.length) == chunk.length);
            }
        }
        if !is_known {
            return Ok(false);
        }
        if let Some(known) = self.tried.get(&chunk.id) {
            return Ok(*known);
        }
        let read = self.read(|repository| repository.read_blob(BlobKind::Data, &chunk.id))?;
        let is_there = matches!(read, Reading::Good(plain) if plain.len() as u64 == chunk.length);
        self.tried.insert(chunk.id, is_there);
        Ok(is_there)
    }

    fn is_content_there(&mut self, content: &Content) -> Result<bool> {
        let (refs, level) = match content {
            Content::Inline(_) => return Ok(true),
            Content::Chunks(chunks) => (chunks, 0),
            Content::Lists { depth, pages } => (pages, *depth),
        };
        self.are_there(refs, level)
    }

    fn are_there(&mut self, refs: &[ChunkRef], level: u8) -> Result<bool> {
        for one in refs {
            let is_there = match level {
                0 => self.is_there(one)?,
                _ if self.whole.contains(&one.id) => true,
                _ => match self.read(|repository| repository.read_list_page(one, level))? {
                    Reading::Good(refs) => self.are_there(&refs, level - 1)?,
                    Reading::Missing | Reading::Damaged(_) => false,
                },
            };
            if !is_there {
                return Ok(false);
            }
            if level > 0 {
                self.whole.insert(one.id);
            }
        }
        Ok(true)
    }

    /// Everything below a root that is lost.
    fn find_lost(&mut self, root: &Entry) -> Result<Lost> {
        self.lost = Lost::default();
        let cancel = self.cancel;
        look_for_lost(root, self, cancel)?;
        Ok(std::mem::take(&mut self.lost))
    }
}

impl Inspector for Search<'_> {
    fn whole(&mut self) -> &mut IdSet<BlobId> {
        &mut self.whole
    }

    fn page(&mut self, page: &BlobId, path: &[u8]) -> Result<Option<Vec<Entry>>> {
        match self.read(|repository| repository.read_page(page))? {
            Reading::Good(entries) => Ok(Some(entries)),
            Reading::Missing | Reading::Damaged(_) => {
                self.lost.paths.insert(path.to_vec(), None);
                Ok(None)
            }
        }
    }

    fn is_file_there(&mut self, file: &Entry, path: &[u8]) -> Result<bool> {
        let EntryKind::File { size, content, holes } = &file.kind else { return Ok(true) };
        let is_there = self.is_content_there(content)?;
        if !is_there {
            let holes: u64 = holes.iter().map(|hole| hole.length).sum();
            self.lost.paths.insert(path.to_vec(), Some(size.saturating_sub(holes)));
        }
        Ok(is_there)
    }
}

impl Repository {
    pub(super) fn plan_snapshots(
        &self,
        options: &RepairOptions,
        observer: &dyn Observer,
        plan: &mut RepairPlan,
    ) -> Result<()> {
        let Survey { report, broken, repository } = self.survey_for_repair(options, observer)?;
        // From here, since the list of damages ends somewhere.
        let suspects: Vec<SnapshotId> = report
            .hurt_snapshots
            .iter()
            .filter(|hurt| hurt.is_unreadable)
            .map(|hurt| hurt.id)
            .chain(report.newer_snapshots)
            .collect();
        // Before the listing, as for every look at what is missing.
        let seen = self.state().seen()?;
        repository.plan_unreadable(&suspects, &seen, options, plan)?;
        let filter = SnapshotFilter { include_checkpoints: true, ..SnapshotFilter::default() };
        let all = repository.snapshots(&filter)?;
        let total = Amount { items: all.len() as u64, bytes: 0 };
        observer.event(Event::PhaseStarted { phase: Phase::Plan, total: Some(total) });
        let broken: BTreeSet<PackId> = broken.into_keys().collect();
        let mut search = Search::new(&repository, &broken, options);
        for original in &all {
            let lost = search.find_lost(&original.snapshot.root)?;
            let by = Amount { items: 1, bytes: 0 };
            observer.event(Event::Advanced { phase: Phase::Plan, by });
            if lost.paths.is_empty() {
                continue;
            }
            let root = repository.without(&original.snapshot.root, &lost, &mut |page| {
                Ok(self.id_keys().blob_id(BlobKind::Tree, page))
            })?;
            let successor = all.iter().find(|other| is_repair_of(&other.snapshot, original, &root));
            let files = lost.paths.values().flatten().count();
            let directories = lost.paths.len() - files;
            let mut message = match files {
                1 => "1 of its files is lost".to_owned(),
                files => format!("{files} of its files are lost"),
            };
            if directories > 0 {
                let one_or_more = if directories == 1 { "directory" } else { "directories" };
                message.push_str(&format!(", and parts of {directories} {one_or_more}"));
            }
            let remedy = match (successor, options.forget) {
                (None, false) => "write it without them".to_owned(),
                (None, true) => "write it without them, then forget it".to_owned(),
                (Some(other), true) => format!("forget it: {} is without them", other.id.short()),
                (Some(other), false) => {
                    format!("none needed: snapshot {} is without them", other.id.short())
                }
            };
            let hurts =
                lost.paths.keys().take(HURTS_MAX).map(|path| (original.id, shown(path))).collect();
            let total = (lost.paths.len() as u64, false);
            let object = layout::snapshot(&original.id);
            plan.find_hurting(object, message, Some(remedy), hurts, total);
            match successor {
                None => plan.snapshots.hurt.push((original.clone(), lost.digest())),
                Some(_) if options.forget => plan.snapshots.replaced.push(original.clone()),
                Some(_) => {}
            }
        }
        plan.snapshots.broken = broken;
        Ok(())
    }

    /// The directory without what is lost. `put` takes the pages that differ.
    fn without(
        &self,
        root: &Entry,
        lost: &Lost,
        put: &mut dyn FnMut(&[u8]) -> Result<BlobId>,
    ) -> Result<Entry> {
        let mut path = Vec::new();
        let mut open = vec![Rewritten::new(root.clone(), 0)];
        let mut finished: Option<Entry> = None;
        while let Some(directory) = open.last_mut() {
            path.truncate(directory.path_length);
            let (entry, is_finished) = match finished.take() {
                Some(entry) => (Some(entry), true),
                None => (directory.entries.next(), false),
            };
            if let Some(entry) = entry {
                path.push(b'/');
                path.extend_from_slice(&entry.name);
                if !is_finished && entry.is_directory() && lost.is_hurt(&path) {
                    open.push(Rewritten::new(entry, path.len()));
                    continue;
                }
                if entry.is_file() && lost.paths.contains_key(&path) {
                    continue;
                }
                let page = directory.builder.push(&entry).map_err(Error::encode("a tree page"))?;
                if let Some(page) = page {
                    directory.done.push(put(&page)?);
                }
                continue;
            }
            if let Some(page) = directory.pages.next() {
                match read_twice(|| self.read_page(&page))? {
                    Reading::Good(entries) => directory.entries = entries.into_iter(),
                    Reading::Missing | Reading::Damaged(_) if lost.paths.contains_key(&path) => {}
                    // It could be read when what is lost was looked for.
                    Reading::Missing | Reading::Damaged(_) => {
                        directory.entries = self.read_page(&page)?.into_iter();
                    }
                }
                continue;
            }
            let Some(Rewritten { entry, builder, mut done, .. }) = open.pop() else { break };
            if let Some(page) = builder.finish() {
                done.push(put(&page)?);
            }
            finished = Some(Entry { kind: EntryKind::Directory { pages: done }, ..entry });
        }
        Ok(finished.unwrap_or_else(|| root.clone()))
    }

    pub(super) fn repair_snapshots(
        &self,
        steps: &Steps,
        options: &RepairOptions,
        report: &mut RepairReport,
    ) -> Result<()> {
        let mut replaced = steps.replaced.clone();
        let result = match steps.hurt.is_empty() {
            true => Ok(()),
            false => self.write_without(steps, options, report, &mut replaced),
        };
        if options.forget {
            // Also after a failure: what has a successor should not be there twice.
            self.forget(&replaced)?;
            report.snapshots_forgotten += replaced.len() as u64;
        }
        result?;
        self.forget_unreadable(&steps.unreadable, report)
    }

    fn write_without(
        &self,
        steps: &Steps,
        options: &RepairOptions,
        report: &mut RepairReport,
        replaced: &mut Vec<StoredSnapshot>,
    ) -> Result<()> {
        // What only this machine still has, in a cache, is as lost as the plan says.
        let fresh = self.with_fresh_index(false);
        fresh.load_index()?;
        let mut search = Search::new(&fresh, &steps.broken, options);
        let backup = self.begin_upkeep(options.workers)?;
        self.index().distrust(&steps.broken.iter().copied().collect::<Vec<_>>());
        let mut trees = backup.frame_writer(BlobKind::Tree);
        let mut retained = Retained::default();
        let (mut waiting, mut paths) = (Vec::new(), 0);
        for (number, (original, planned)) in (1..).zip(&steps.hurt) {
            let lost = search.find_lost(&original.snapshot.root)?;
            if !lost.paths.is_empty() {
                if lost.digest() != *planned {
                    // Nobody has agreed to that.
                    return Err(Error::LostChanged { snapshot: original.id });
                }
                let root = &original.snapshot.root;
                let root = fresh.without(root, &lost, &mut |page| trees.put(page))?;
                waiting.push((original, draft_without(&original.snapshot, &lost, root)));
                paths += lost.paths.len();
            }
            if paths < PATHS_MAX && number < steps.hurt.len() {
                continue;
            }
            // Many snapshots share a pack and a segment for their pages.
            trees.flush()?;
            backup.flush()?;
            paths = 0;
            for (original, draft) in waiting.drain(..) {
                backup.retain(&draft.root, &mut retained, &options.cancel)?;
                let new = backup.commit_again(draft)?;
                report.snapshots_written.push((original.id, new.id));
                replaced.push(original.clone());
            }
        }
        backup.finish()?;
        Ok(())
    }
}

/// Whether a snapshot is what a repair would make of another.
fn is_repair_of(other: &Snapshot, original: &StoredSnapshot, root: &Entry) -> bool {
    let Snapshot { time, host, paths, complete, .. } = &original.snapshot;
    other.root == *root
        && (other.time, &other.host, &other.paths) == (*time, host, paths)
        && other.complete == *complete
        && other.tags.iter().any(|tag| tag == REPAIRED)
}

/// What a snapshot without something says: the same as before, what is lost, and that it was repaired; not what it was
/// a copy of.
fn draft_without(snapshot: &Snapshot, lost: &Lost, root: Entry) -> SnapshotDraft {
    let mut draft = SnapshotDraft { root, ..SnapshotDraft::from(snapshot) };
    draft.tags.push(REPAIRED.to_owned());
    // No copy any more of what it was a copy of: a replication may bring what is lost.
    Original::take_out_of(&mut draft.unknown);
    let mut incidents = lost.incidents();
    draft.statistics.incidents += incidents.len() as u64;
    // Those of the repair first: a snapshot lists no more than its format allows.
    incidents.append(&mut draft.incidents);
    draft.incidents = incidents;
    let statistics = &mut draft.statistics;
    let bytes: u64 = lost.paths.values().flatten().sum();
    statistics.bytes_total = statistics.bytes_total.saturating_sub(bytes);
    let mut files = lost.paths.values().flatten().count() as u64;
    for count in
        [&mut statistics.files_unchanged, &mut statistics.files_changed, &mut statistics.files_new]
    {
        let taken = files.min(*count);
        *count -= taken;
        files -= taken;
    }
    draft
}
