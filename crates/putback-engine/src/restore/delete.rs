//! Deleting what the snapshot has not, as far as the selection goes and the snapshot could know what belongs there.
//!
//! What the backup was told to exclude is not in the snapshot, nor does that say so: it is deleted as anything else.

use std::io;

use putback_repo::{Action, Event, Repository};

use crate::platform::{Names, Stat, TargetDirectory};
use crate::restore::Run;
use crate::restore::select::Wanted;

pub(super) fn stat_if_there(directory: &TargetDirectory, name: &[u8]) -> io::Result<Option<Stat>> {
    match directory.stat(name) {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether `delete` holds in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deleting {
    /// Nobody asked for it, or this is above what was backed up: of that, a snapshot knows only the way.
    No,
    /// What the snapshot has not goes, on this device alone.
    On(u64),
    /// The snapshot does not know what belongs here and below.
    Never,
}

impl Run<'_> {
    /// Whether `delete`, which was asked for, holds in the directory `path`, given whether it holds in the one around
    /// it. `here` is what it is now; `is_shell` says whether the backup left out what was mounted there.
    pub(super) fn deleting_in(
        &self,
        outer: Deleting,
        path: &[u8],
        is_shell: bool,
        here: &Stat,
    ) -> Deleting {
        let device = here.device;
        if self.is_above_roots(path) {
            return Deleting::No;
        }
        if self.unread.is_more_than_listed() {
            return Deleting::Never;
        }
        let reason = if self.repository_folder.is(here.identity()) {
            Some(REPOSITORY)
        } else {
            self.unread.contains(path).then_some(UNREAD)
        };
        if let Some(reason) = reason {
            if outer != Deleting::Never {
                self.tell_not_deleted(path, reason);
            }
            return Deleting::Never;
        }
        // Each path that was backed up is looked at by itself, whatever it is mounted in.
        if self.roots().any(|root| root == path) {
            return Deleting::On(device);
        }
        match outer {
            _ if is_shell => Deleting::Never,
            Deleting::No => Deleting::On(device),
            Deleting::On(around) if around != device => {
                let why = "another file system is mounted there; restore it by itself to delete there too";
                self.tell_not_deleted(path, why);
                Deleting::Never
            }
            // Also a folder of the same device, of which the snapshot may have another one or nothing.
            Deleting::On(_) if here.is_mount_root => {
                let why = "something is mounted there; restore it by itself to delete there too";
                self.tell_not_deleted(path, why);
                Deleting::Never
            }
            outer => outer,
        }
    }

    /// Tells that nothing is deleted, if the snapshot does not name all that the backup could not read.
    pub(super) fn tell_more_unread(&self) {
        if self.unread.is_more_than_listed() {
            let message = "nothing is deleted: the backup could not read more than the snapshot has room to name";
            self.observer.event(Event::Warning { message });
        }
    }
}

/// Why something is not deleted.
const UNREAD: &str = "the backup could not read all of it";
const REPOSITORY: &str = "the snapshot is in the repository there";
const LIKE_REPOSITORY: &str =
    "it is a repository, as it seems; delete it by hand if nobody needs it";

/// How many of the names of a repository's root make a folder one: a new one has as many, and it could lose some later.
const REPOSITORY_NAMES_LEAST: usize = 4;

/// Whether a folder that holds `names` is a repository, as it seems.
fn is_like_repository(names: &Names) -> bool {
    let names = (0..names.len()).map(|number| std::str::from_utf8(names.get(number).0));
    let known = names.filter(|name| name.is_ok_and(Repository::uses_name));
    known.count() >= REPOSITORY_NAMES_LEAST
}

/// What became of something that was to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deleted {
    All,
    /// Some of it is not wanted or was not read by the backup, and stays; or it could not be deleted, which was told.
    NotAll,
}

/// Deletes `name` with everything in it, as far as the selection goes. `path` is its path in the snapshot, had it
/// one. No link is followed, and nothing is entered that is mounted.
pub(super) fn delete(
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
    if run.unread.contains(path) {
        run.tell_not_deleted(path, UNREAD);
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
    if stat.is_mount_root {
        return Err(io::Error::other("something is mounted there"));
    }
    if run.repository_folder.is(stat.identity()) {
        run.tell_not_deleted(path, REPOSITORY);
        return Ok(Deleted::NotAll);
    }
    let child = directory.open_child(name)?;
    let mut names = Names::default();
    child.read_names(&mut names)?;
    if is_like_repository(&names) {
        run.tell_not_deleted(path, LIKE_REPOSITORY);
        return Ok(Deleted::NotAll);
    }
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
