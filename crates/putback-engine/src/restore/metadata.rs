//! What an object is to be besides its content, and setting no more of that than differs.

use std::fs::{File, FileTimes};
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use putback_format::tree::{Entry, Timestamp, Xattr};

use crate::platform::{
    self, FLAGS_CLOSING, MetadataProblem, Stat, TargetDirectory, TargetMetadata, Users,
    apply_metadata,
};

/// Set-user-id and set-group-id.
const SET_ID_BITS: u32 = 0o6000;
/// What new files in a directory inherit.
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// Metadata of an entry, with the owner as this system numbers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// None: nobody asked for it.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: u32,
    pub(super) mtime: Timestamp,
    pub(super) flags: u64,
    pub(super) xattrs: Box<[Xattr]>,
}

/// Where an object stands before its metadata is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Made by this restore. It has no extended attributes, unless its directory gives each new file an ACL.
    New { inherits_acl: bool },
    /// It was there.
    Existing,
}

impl Metadata {
    /// What `entry` says.
    pub(super) fn of(entry: &mut Entry, owner: Option<(u32, u32)>) -> Self {
        Self {
            owner,
            mode: entry.mode,
            mtime: entry.mtime,
            flags: entry.flags,
            xattrs: std::mem::take(&mut entry.xattrs).into(),
        }
    }

    /// The permissions that a new file may have from the beginning: all, if it need not change hands and no ACL
    /// says more; else the owner's alone.
    pub(super) fn creation_mode(&self, new_owner: Option<(u32, u32)>) -> u32 {
        let is_final =
            self.owner.is_none_or(|owner| Some(owner) == new_owner) && self.xattrs.is_empty();
        // Whoever writes the file must be able to open it again.
        if is_final { self.mode & 0o777 | 0o600 } else { 0o600 }
    }

    /// Whether everything but extended attributes is as it should be already.
    pub(super) fn is_met_by(&self, stat: &Stat) -> bool {
        stat.mtime == self.mtime && self.is_met_but_for_time(stat)
    }

    /// Whether setting it would change nothing but extended attributes: it is met, or only root could do more.
    pub(super) fn will_stay(&self, stat: &Stat) -> bool {
        if platform::effective_uid() == 0 {
            return self.is_met_by(stat);
        }
        let stat = &self.closed(stat);
        if self.owner.is_none_or(|(uid, _)| uid == stat.uid) {
            return self.is_met_by(stat);
        }
        let mode = if stat.is_directory() { self.mode } else { self.mode & !SET_ID_BITS };
        stat.mtime == self.mtime && stat.mode == mode && stat.flags & self.flags == self.flags
    }

    /// Whether an existing object, of which `before` and `has_same_xattrs` tell what it was, is another one now.
    /// What only root may do is tried each time, and must not count as done.
    fn has_changed(
        before: &Stat,
        has_same_xattrs: bool,
        after: io::Result<Stat>,
        problems: &[MetadataProblem],
    ) -> bool {
        let visible = |stat: &Stat| (stat.uid, stat.gid, stat.mode, stat.mtime, stat.flags);
        !problems.iter().any(|problem| problem.is_for_lack_of_privilege)
            || !has_same_xattrs
            || after.map_or(true, |after| visible(&after) != visible(before))
    }

    fn is_met_but_for_time(&self, stat: &Stat) -> bool {
        self.owner.is_none_or(|owner| owner == (stat.uid, stat.gid))
            && stat.mode == self.mode
            && stat.flags & self.flags == self.flags
    }

    /// What to ask the system for, given what is there.
    fn target(&self, stat: &Stat, before: Before) -> TargetMetadata<'_> {
        // Set-user-id bits are only ever set together with the owner for whom they speak.
        let is_owner_needed =
            |owner: &(u32, u32)| *owner != (stat.uid, stat.gid) || self.mode & SET_ID_BITS != 0;
        let has_xattrs = match before {
            Before::New { inherits_acl } => inherits_acl || !self.xattrs.is_empty(),
            Before::Existing => true,
        };
        TargetMetadata {
            owner: self.owner.filter(is_owner_needed),
            mode: self.mode,
            xattrs: has_xattrs.then_some(&self.xattrs),
            mtime: self.mtime,
            flags: self.flags,
        }
    }

    /// Flags that are set when a file has all its names: it can get no other one, and lose none, after that.
    pub(super) fn closing_flags(&self) -> u64 {
        self.flags & FLAGS_CLOSING
    }

    /// `stat` of a file, had it [`Metadata::closing_flags`].
    fn closed(&self, stat: &Stat) -> Stat {
        Stat { flags: stat.flags | self.closing_flags(), ..*stat }
    }

    /// Sets what differs on an open file, of which `stat` is the state, but for [`Metadata::closing_flags`]. Says
    /// whether anything differed.
    pub(super) fn apply_to_file(
        &self,
        file: &File,
        stat: &Stat,
        before: Before,
    ) -> (bool, Vec<MetadataProblem>) {
        let target =
            TargetMetadata { flags: self.flags & !FLAGS_CLOSING, ..self.target(stat, before) };
        match before {
            Before::New { inherits_acl: false }
                if self.xattrs.is_empty() && self.is_met_but_for_time(stat) =>
            {
                if let Some(mtime) = system_time(self.mtime)
                    && file.set_times(FileTimes::new().set_modified(mtime)).is_ok()
                {
                    return (true, Vec::new());
                }
            }
            Before::New { .. } => {}
            Before::Existing => {
                let has_same_xattrs = platform::file_xattrs(file).list == *self.xattrs;
                if has_same_xattrs && self.is_met_by(&self.closed(stat)) {
                    return (false, Vec::new());
                }
                let problems = apply_metadata(file, &target);
                let after = platform::stat_file(file);
                return (Self::has_changed(stat, has_same_xattrs, after, &problems), problems);
            }
        }
        (true, apply_metadata(file, &target))
    }

    /// Sets what differs on a directory.
    pub(super) fn apply_to_directory(
        &self,
        directory: &TargetDirectory,
        before: Before,
    ) -> io::Result<Vec<MetadataProblem>> {
        let stat = directory.stat_self()?;
        if before == Before::Existing
            && self.is_met_by(&stat)
            && directory.as_directory().xattrs().list == *self.xattrs
        {
            return Ok(Vec::new());
        }
        Ok(directory.apply_metadata_to_self(&self.target(&stat, before)))
    }

    /// Sets what differs on a link, a named pipe or a device. Says whether anything differed.
    pub(super) fn apply_to_name(
        &self,
        directory: &TargetDirectory,
        name: &[u8],
        is_link: bool,
        before: Before,
    ) -> io::Result<(bool, Vec<MetadataProblem>)> {
        let stat = directory.stat(name)?;
        // A link has no permissions of its own.
        let compared = if is_link { Stat { mode: self.mode, ..stat } } else { stat };
        let has_same_xattrs = before == Before::Existing
            && directory.as_directory().entry_xattrs(name).list == *self.xattrs;
        if has_same_xattrs && self.is_met_by(&compared) {
            return Ok((false, Vec::new()));
        }
        let mut target = self.target(&compared, before);
        if is_link {
            target.flags = 0;
        }
        let problems = directory.apply_metadata(name, &target)?;
        let is_changed = before != Before::Existing
            || Self::has_changed(&stat, has_same_xattrs, directory.stat(name), &problems);
        Ok((is_changed, problems))
    }
}

/// Whether files that are made in this directory get an ACL.
pub(super) fn gives_acl(directory: &TargetDirectory) -> bool {
    directory.as_directory().xattrs().list.iter().any(|xattr| xattr.name == DEFAULT_ACL)
}

fn system_time(time: Timestamp) -> Option<SystemTime> {
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = if time.seconds < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    whole?.checked_add(Duration::from_nanos(time.nanoseconds.into()))
}

/// How owners are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerRule {
    /// Left to the system.
    Nobody,
    /// By number.
    Numeric,
    /// By name, and by number where this system does not know the name.
    Named,
}

/// Turns the owners of entries into numbers of this system. Neighbours mostly have the same.
pub(super) struct Owners<'a> {
    users: &'a Users,
    rule: OwnerRule,
    last: Option<(Owner, (u32, u32))>,
}

#[derive(PartialEq, Eq)]
struct Owner {
    uid: u32,
    gid: u32,
    user: Vec<u8>,
    group: Vec<u8>,
}

impl<'a> Owners<'a> {
    pub(super) fn new(users: &'a Users, rule: OwnerRule) -> Self {
        Self { users, rule, last: None }
    }

    /// Owner and group that `entry` is to have.
    pub(super) fn of(&mut self, entry: &Entry) -> Option<(u32, u32)> {
        match self.rule {
            OwnerRule::Nobody => return None,
            OwnerRule::Numeric => return Some((entry.uid, entry.gid)),
            OwnerRule::Named => {}
        }
        if let Some((owner, numbers)) = &self.last
            && (owner.uid, owner.gid) == (entry.uid, entry.gid)
            && (&owner.user, &owner.group) == (&entry.user, &entry.group)
        {
            return Some(*numbers);
        }
        let numbers = (
            self.users.user_id(&entry.user).unwrap_or(entry.uid),
            self.users.group_id(&entry.group).unwrap_or(entry.gid),
        );
        let owner = Owner {
            uid: entry.uid,
            gid: entry.gid,
            user: entry.user.clone(),
            group: entry.group.clone(),
        };
        self.last = Some((owner, numbers));
        Some(numbers)
    }
}

#[cfg(test)]
mod tests {
    use putback_format::tree::EntryKind;

    use super::*;

    fn entry(user: &str, uid: u32) -> Entry {
        let mut entry = Entry::new("a", EntryKind::Fifo);
        (entry.user, entry.uid, entry.gid) = (user.into(), uid, 4_000_000_001);
        entry
    }

    #[test]
    fn owners_go_by_name_and_fall_back_to_the_number() {
        let users = Users::new();
        let check = |rule, user: &str, uid: u32, expected: Option<(u32, u32)>| {
            assert_eq!(Owners::new(&users, rule).of(&entry(user, uid)), expected, "{user} {uid}");
        };
        check(OwnerRule::Named, "root", 4_000_000_000, Some((0, 4_000_000_001)));
        check(OwnerRule::Named, "", 4_000_000_000, Some((4_000_000_000, 4_000_000_001)));
        check(OwnerRule::Named, "no such user", 7, Some((7, 4_000_000_001)));
        check(OwnerRule::Numeric, "root", 7, Some((7, 4_000_000_001)));
        check(OwnerRule::Nobody, "root", 7, None);
    }

    #[test]
    fn the_last_owner_is_remembered_only_for_the_same_owner() {
        let users = Users::new();
        let mut owners = Owners::new(&users, OwnerRule::Named);
        assert_eq!(owners.of(&entry("root", 5)), Some((0, 4_000_000_001)));
        assert_eq!(owners.of(&entry("root", 5)), Some((0, 4_000_000_001)));
        assert_eq!(owners.of(&entry("", 5)), Some((5, 4_000_000_001)));
    }

    #[test]
    fn a_file_that_changes_hands_is_private_until_then() {
        let metadata = |owner, xattrs: &[Xattr]| Metadata {
            owner,
            mode: 0o4755,
            mtime: Timestamp::default(),
            flags: 0,
            xattrs: xattrs.into(),
        };
        let acl = [Xattr { name: b"system.posix_acl_access".to_vec(), value: Vec::new() }];
        assert_eq!(metadata(Some((1, 2)), &[]).creation_mode(Some((1, 2))), 0o755);
        assert_eq!(metadata(None, &[]).creation_mode(Some((1, 2))), 0o755);
        assert_eq!(metadata(Some((1, 3)), &[]).creation_mode(Some((1, 2))), 0o600);
        assert_eq!(metadata(Some((1, 2)), &[]).creation_mode(None), 0o600);
        assert_eq!(metadata(Some((1, 2)), &acl).creation_mode(Some((1, 2))), 0o600);
    }

    #[test]
    fn times_before_1970_and_beyond_the_clock_are_known_or_refused() {
        let check = |seconds, nanoseconds| {
            let time = Timestamp { seconds, nanoseconds };
            let system = system_time(time).expect("representable");
            assert_eq!(Timestamp::from_system_time(system), Some(time));
        };
        check(0, 0);
        check(-1, 500_000_000);
        check(-14_182_940_000, 1);
        check(1 << 40, 999_999_999);
    }
}
