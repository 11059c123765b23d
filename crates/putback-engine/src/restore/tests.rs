//! Restores into real folders, from repositories in memory.

pub(super) mod backup;

use std::path::Path;

use super::*;

/// Options that restore everything.
pub(super) fn options(target: &Path) -> RestoreOptions {
    RestoreOptions {
        target: target.to_owned(),
        include: Vec::new(),
        exclude: Vec::new(),
        iinclude: Vec::new(),
        iexclude: Vec::new(),
        overwrite: Overwrite::Always,
        delete: false,
        sparse: false,
        verify: false,
        numeric_owner: false,
        no_owner: false,
        dry_run: false,
        workers: 2,
        cancel: Cancel::default(),
    }
}
