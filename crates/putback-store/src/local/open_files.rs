//! Open handles of objects that were read lately.
//!
//! A restore reads many ranges of one pack; opening it for each would cost more than reading.
//! Objects are written once, so an open handle never shows other bytes than its name does.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fs_err::File;

use crate::ObjectPath;

/// How many files stay open at most.
const FILES_MAX: usize = 16;

/// The handles, the one used last at the end.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    files: Mutex<Vec<(ObjectPath, Arc<File>)>>,
}

impl OpenFiles {
    /// The handle of `path`, opened by `open` if there is none. Two threads may open the same file
    /// at once; the later handle is kept.
    pub(super) fn get(
        &self,
        path: &ObjectPath,
        open: impl FnOnce() -> io::Result<File>,
    ) -> io::Result<Arc<File>> {
        {
            let mut files = self.files();
            if let Some(position) = files.iter().position(|(known, _)| known == path) {
                let entry = files.remove(position);
                let file = Arc::clone(&entry.1);
                files.push(entry);
                return Ok(file);
            }
        }
        let file = Arc::new(open()?);
        let mut files = self.files();
        files.retain(|(known, _)| known != path);
        if files.len() >= FILES_MAX {
            files.remove(0);
        }
        files.push((path.clone(), Arc::clone(&file)));
        Ok(file)
    }

    /// Closes the handle of `path`, so that its space is freed once the file is deleted.
    pub(super) fn forget(&self, path: &ObjectPath) {
        self.files().retain(|(known, _)| known != path);
    }

    fn files(&self) -> MutexGuard<'_, Vec<(ObjectPath, Arc<File>)>> {
        // No code that could panic half-way runs under the lock.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(number: usize) -> ObjectPath {
        ObjectPath::new(&number.to_string()).unwrap()
    }

    #[test]
    fn the_handles_used_least_recently_are_closed_first() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("file");
        fs_err::write(&name, b"").unwrap();
        let open_files = OpenFiles::default();
        for number in 0..FILES_MAX {
            open_files.get(&path(number), || File::open(&name)).unwrap();
        }
        open_files.get(&path(0), || panic!("0 is open")).unwrap();
        open_files.get(&path(FILES_MAX), || File::open(&name)).unwrap();

        open_files.get(&path(0), || panic!("0 was used after 1")).unwrap();
        let error = open_files.get(&path(1), || Err(io::ErrorKind::Other.into())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Other, "1 is still open");
        assert_eq!(open_files.files().len(), FILES_MAX);
    }

    #[test]
    fn a_failed_open_is_not_remembered() {
        let open_files = OpenFiles::default();
        open_files.get(&path(1), || Err(io::ErrorKind::NotFound.into())).unwrap_err();
        assert!(open_files.files().is_empty());
    }
}
