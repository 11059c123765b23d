//! Deleting what the snapshot has not, as far as the selection goes.

use std::io;

use putback_repo::Action;

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

/// What became of something that was to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deleted {
    All,
    /// Some of it is not wanted, and stays; or it could not be deleted, which was told.
    NotAll,
}

/// Deletes `name` with everything in it, as far as the selection goes. `path` is its path in the snapshot, had it
/// one. No link is followed, and no other file system is entered.
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
