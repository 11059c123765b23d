//! Room on a full disk for what makes room.
//!
//! Forgetting and pruning have to write a little before they may delete anything. Where a disk is full to the last
//! byte they could not; so a store keeps a file of [`RESERVE_BYTES`] that says nothing, which goes when an object
//! finds no room, and comes back when something was deleted.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::platform;

/// The file in the root.
const NAME: &str = ".reserve";
/// Enough for marks and tombstones of some thousand packs, or some dozen forget records.
pub(super) const RESERVE_BYTES: u64 = 256 << 10;
/// The disk must have so much more room before any is set aside.
const AVAILABLE_LEAST: u64 = 64 * RESERVE_BYTES;

/// Whether the file is there is for the file system to say: other processes use it as well.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    pub(super) fn new(root: &Path) -> Self {
        Self { path: root.join(NAME) }
    }

    /// Sets room aside if there is enough. Not worth an error: without it all is as it is elsewhere.
    pub(super) fn keep(&self) {
        let is_there = || fs_err::metadata(&self.path).is_ok();
        let root = self.path.parent().unwrap_or(&self.path);
        let has_room = || {
            platform::space(root)
                .is_ok_and(|space| space.is_none_or(|space| space.available >= AVAILABLE_LEAST))
        };
        if !is_there() && has_room() && self.fill().is_err() {
            // Half of it would be taken for all of it.
            let _ = fs_err::remove_file(&self.path);
        }
    }

    fn fill(&self) -> io::Result<()> {
        let mut bytes = vec![0; RESERVE_BYTES as usize];
        // File systems that compress keep no room for zeros.
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let mut file = platform::create_private_file(&self.path)?;
        file.write_all(&bytes)
    }

    /// Gives the room to whom needs it; false if there is none.
    pub(super) fn give(&self) -> bool {
        fs_err::remove_file(&self.path).is_ok()
    }
}
