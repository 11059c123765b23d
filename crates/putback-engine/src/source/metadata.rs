//! What an entry is, apart from its content, and whether it is still what a snapshot holds.
//!
//! Everything here is a pure function of what the system said; times are arguments.

use putback_format::tree::{Content, Entry, EntryKind, Timestamp, Xattr};

use crate::platform::{FileKind, Stat, Users};

/// A file that was changed this shortly before it was read may change again within the same time stamp.
pub const VOLATILE_SECONDS: i64 = 2;

/// What may differ between an entry and the file that it came from, while the file still counts as unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeRules {
    /// For file systems that give out new inode numbers with each mount.
    pub ignore_inode: bool,
    /// For trees whose metadata other programs touch; a change of content that puts mtime back goes unseen.
    pub ignore_ctime: bool,
}

/// Builds an entry. `kind` comes from [`kind_without_content`] or holds the content already.
#[must_use]
pub fn build_entry(
    name: &[u8],
    stat: &Stat,
    kind: EntryKind,
    xattrs: Vec<Xattr>,
    users: &Users,
) -> Entry {
    Entry {
        name: name.to_vec(),
        kind,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        user: users.user_name(stat.uid),
        group: users.group_name(stat.gid),
        mtime: stat.mtime,
        ctime: stat.ctime,
        btime: stat.btime,
        device: stat.device,
        inode: stat.inode,
        links: stat.links,
        flags: stat.flags,
        xattrs,
        volatile: false,
        windows: None,
        unknown: Vec::new(),
    }
}

/// The kind of an entry as far as its [`Stat`] tells: no content, no pages, no link target.
#[must_use]
pub fn kind_without_content(stat: &Stat) -> EntryKind {
    match stat.kind {
        FileKind::File => EntryKind::File {
            size: stat.size,
            content: Content::Inline(Vec::new()),
            holes: Vec::new(),
        },
        FileKind::Directory => EntryKind::Directory { pages: Vec::new() },
        FileKind::Symlink => EntryKind::Symlink { target: Vec::new() },
        FileKind::Fifo => EntryKind::Fifo,
        FileKind::Socket => EntryKind::Socket,
        FileKind::CharacterDevice => {
            EntryKind::CharacterDevice { major: stat.rdev_major, minor: stat.rdev_minor }
        }
        FileKind::BlockDevice => {
            EntryKind::BlockDevice { major: stat.rdev_major, minor: stat.rdev_minor }
        }
    }
}

/// Whether `previous` still says what `stat` says, so that content, link target and extended attributes need
/// not be read: a change of any of them changes ctime.
///
/// Directories are never unchanged, since their times do not tell what happened below. The device number may
/// differ, as it does after a restart; the inode number may not. With [`ChangeRules::ignore_ctime`] the
/// answer is about content and target alone.
#[must_use]
pub fn is_unchanged(previous: &Entry, stat: &Stat, rules: ChangeRules) -> bool {
    let is_same_kind = match previous.kind {
        EntryKind::File { size, .. } => stat.kind == FileKind::File && size == stat.size,
        EntryKind::Directory { .. } => false,
        EntryKind::Symlink { ref target } => {
            // Some file systems report 0 as the size of a link.
            stat.kind == FileKind::Symlink && (stat.size == 0 || stat.size == target.len() as u64)
        }
        EntryKind::Fifo => stat.kind == FileKind::Fifo,
        EntryKind::Socket => stat.kind == FileKind::Socket,
        EntryKind::CharacterDevice { major, minor } => {
            stat.kind == FileKind::CharacterDevice
                && (major, minor) == (stat.rdev_major, stat.rdev_minor)
        }
        EntryKind::BlockDevice { major, minor } => {
            stat.kind == FileKind::BlockDevice
                && (major, minor) == (stat.rdev_major, stat.rdev_minor)
        }
    };
    is_same_kind
        && !previous.volatile
        && previous.mtime == stat.mtime
        && (rules.ignore_ctime || previous.ctime == stat.ctime)
        && (rules.ignore_inode || previous.inode == stat.inode)
}

/// An unchanged entry with what `stat` knows better: owner, mode, device and the like.
///
/// Content, target and extended attributes are those of `previous`.
#[must_use]
pub fn refresh_entry(previous: Entry, stat: &Stat, users: &Users) -> Entry {
    let refreshed = build_entry(&previous.name, stat, previous.kind, previous.xattrs, users);
    Entry { windows: previous.windows, unknown: previous.unknown, ..refreshed }
}

/// Whether a file that was read at `now` must be read again next time, whatever its times say then.
#[must_use]
pub fn is_volatile(stat: &Stat, now: Timestamp) -> bool {
    is_recent(stat.mtime, now) || is_recent(stat.ctime, now)
}

/// Whether a file changed between two looks at it, one before and one after reading.
#[must_use]
pub fn is_changed_between(before: &Stat, after: &Stat) -> bool {
    before.identity() != after.identity()
        || before.kind != after.kind
        || before.size != after.size
        || before.mtime != after.mtime
        || before.ctime != after.ctime
}

/// The clock of a file server may be ahead a little, so that a time just after `now` counts as well; one far
/// ahead was set on purpose and tells changes as well as any other.
fn is_recent(time: Timestamp, now: Timestamp) -> bool {
    const NANOSECONDS: i128 = 1_000_000_000;
    let since =
        |time: Timestamp| i128::from(time.seconds) * NANOSECONDS + i128::from(time.nanoseconds);
    (since(now) - since(time)).abs() <= i128::from(VOLATILE_SECONDS) * NANOSECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat() -> Stat {
        Stat {
            kind: FileKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 10,
            blocks: 8,
            mtime: Timestamp { seconds: 100, nanoseconds: 5 },
            ctime: Timestamp { seconds: 200, nanoseconds: 6 },
            btime: None,
            device: 1 << 32,
            inode: 42,
            links: 1,
            rdev_major: 0,
            rdev_minor: 0,
            flags: 0,
            is_mount_root: false,
        }
    }

    fn entry_of(stat: &Stat) -> Entry {
        build_entry(b"f", stat, kind_without_content(stat), Vec::new(), &Users::new())
    }

    #[test]
    fn unchanged_means_kind_size_times_and_inode() {
        let previous = entry_of(&stat());
        let rules = ChangeRules::default();
        let check = |change: fn(&mut Stat), expected: bool| {
            let mut now = stat();
            change(&mut now);
            assert_eq!(is_unchanged(&previous, &now, rules), expected, "{now:?}");
        };
        check(|_| {}, true);
        check(|stat| stat.device = 7, true);
        check(|stat| stat.kind = FileKind::Fifo, false);
        check(|stat| stat.size = 11, false);
        check(|stat| stat.mtime.nanoseconds = 6, false);
        check(|stat| stat.ctime.seconds = 201, false);
        check(|stat| stat.inode = 43, false);
    }

    #[test]
    fn rules_ignore_inode_and_ctime() {
        let previous = entry_of(&stat());
        let moved = Stat { inode: 43, ..stat() };
        let touched = Stat { ctime: Timestamp { seconds: 201, nanoseconds: 0 }, ..stat() };
        let rules = ChangeRules { ignore_inode: true, ignore_ctime: false };
        assert!(
            is_unchanged(&previous, &moved, rules) && !is_unchanged(&previous, &touched, rules)
        );
        let rules = ChangeRules { ignore_inode: false, ignore_ctime: true };
        assert!(
            !is_unchanged(&previous, &moved, rules) && is_unchanged(&previous, &touched, rules)
        );
    }

    #[test]
    fn volatile_entries_and_directories_are_never_unchanged() {
        let mut previous = entry_of(&stat());
        previous.volatile = true;
        assert!(!is_unchanged(&previous, &stat(), ChangeRules::default()));
        let directory = Stat { kind: FileKind::Directory, ..stat() };
        assert!(!is_unchanged(&entry_of(&directory), &directory, ChangeRules::default()));
    }

    #[test]
    fn devices_are_compared_by_number_and_links_by_length() {
        let device = Stat { kind: FileKind::BlockDevice, rdev_major: 8, rdev_minor: 1, ..stat() };
        let previous = entry_of(&device);
        assert!(is_unchanged(&previous, &device, ChangeRules::default()));
        assert!(!is_unchanged(
            &previous,
            &Stat { rdev_minor: 2, ..device },
            ChangeRules::default()
        ));

        let link = Stat { kind: FileKind::Symlink, size: 3, ..stat() };
        let mut previous = entry_of(&link);
        previous.kind = EntryKind::Symlink { target: b"abc".to_vec() };
        assert!(is_unchanged(&previous, &link, ChangeRules::default()));
        assert!(is_unchanged(&previous, &Stat { size: 0, ..link }, ChangeRules::default()));
        assert!(!is_unchanged(&previous, &Stat { size: 4, ..link }, ChangeRules::default()));
    }

    #[test]
    fn what_was_touched_within_two_seconds_is_volatile() {
        let check = |seconds: i64, nanoseconds: u32, expected: bool| {
            assert_eq!(
                is_volatile(&stat(), Timestamp { seconds, nanoseconds }),
                expected,
                "{seconds}.{nanoseconds}"
            );
        };
        check(200, 6, true); // ctime
        check(202, 6, true);
        check(202, 7, false);
        check(198, 6, true); // a clock that is ahead
        check(198, 5, false);
        check(101, 0, true); // mtime
        check(i64::MAX, 0, false);
        check(i64::MIN, 0, false);
    }

    #[test]
    fn refreshing_keeps_content_and_takes_the_rest_anew() {
        let mut previous = entry_of(&stat());
        previous.kind = EntryKind::File {
            size: 10,
            content: Content::Inline(b"0123456789".to_vec()),
            holes: Vec::new(),
        };
        previous.xattrs = vec![Xattr { name: b"user.a".to_vec(), value: b"b".to_vec() }];
        let now = Stat { mode: 0o600, device: 9, ..stat() };
        let refreshed = refresh_entry(previous.clone(), &now, &Users::new());
        assert_eq!(refreshed, Entry { mode: 0o600, device: 9, ..previous });
    }
}
