//! Named objects in a store: bytes in, bytes out.
//!
//! A store knows nothing of what its objects contain. Objects are written once under names that
//! their content determines, so a retry is harmless and a duplicate is too. Calls block; a store
//! over a network runs its own runtime inside. Limits, retries and the like are layers around it.

pub mod at;
pub mod error;
pub mod local;
pub mod memory;
pub mod path;
#[cfg(feature = "testing")]
pub mod testing;

use std::ops::{ControlFlow, Range};
use std::time::SystemTime;

pub use error::{Error, ErrorKind, Operation, Status};
pub use path::ObjectPath;

/// What [`Store::read_pieces`] reads at once where nothing better is known.
const PIECE_BYTES: u64 = 4 << 20;

/// What a store reports of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Where it is.
    pub path: ObjectPath,
    /// Bytes.
    pub size: u64,
    /// When the store took it, by the store's clock.
    pub modified: Option<SystemTime>,
    /// The store's own id of this row; several rows may have one path on stores that allow it.
    pub service_id: Option<String>,
    /// CRC-32 (IEEE) of its bytes, where the store knows it without reading.
    pub crc32: Option<u32>,
}

/// What a store can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// A round trip costs tens of milliseconds: few large requests are better than many small ones.
    pub is_remote: bool,
    /// Requests that are useful at the same time.
    pub connections: usize,
    /// Listings show every finished write at once, and `lock` works between processes.
    pub is_consistent: bool,
}

/// Free and total bytes of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What can still be written.
    pub available: u64,
}

/// How a store is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Beside other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

/// A held lock; dropping it, or the death of the process, frees it.
pub trait Lock: Send {}

/// An object being written whose name is not known yet: packs are named by their hash.
pub trait Upload: Send {
    /// Appends bytes. What was appended is invisible until [`Upload::finish`]. After an error the
    /// object can no longer be finished.
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error>;

    /// Makes the object durable under `path`, and only then visible.
    ///
    /// When this returns, the object outlives a power failure. An object of this path that already
    /// has the same size is success. A failed sync is final: the object is not visible, and
    /// the call is not to be repeated with the same upload.
    fn finish(self: Box<Self>, path: &ObjectPath) -> Result<ObjectInfo, Error>;
}

/// A place that holds named objects.
pub trait Store: Send + Sync {
    /// How to name the store to a person.
    fn describe(&self) -> String;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Makes the store's root and the given folders; those that exist are left as they are. True if
    /// the root was made by this call, so that nothing can be in it yet.
    fn create(&self, folders: &[&str]) -> Result<bool, Error>;

    /// All objects of a folder (not of its sub-folders), in no order. The empty string is the root.
    /// A folder that does not exist is empty if the store's root exists, and
    /// [`ErrorKind::NotFound`] if not even that does. Foreign names that are no valid
    /// [`ObjectPath`] and temporary files are left out.
    fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, Error>;

    /// One object.
    fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, Error>;

    /// Reads `range` into `buffer`, which is cleared first. Fewer bytes than asked for are an error
    /// ([`ErrorKind::Corrupt`]); the caller has bounded the length.
    fn read(&self, path: &ObjectPath, range: Range<u64>, buffer: &mut Vec<u8>)
    -> Result<(), Error>;

    /// Reads `range` in one go and hands it over in pieces of any length, in order, as they come, until
    /// `each` breaks. Where a request costs a round trip this costs one, and no memory for the range.
    /// Errors as for [`Store::read`]; pieces may have been handed over before.
    fn read_pieces(
        &self,
        path: &ObjectPath,
        range: Range<u64>,
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut buffer = Vec::new();
        let mut offset = range.start;
        while offset < range.end {
            let end = range.end.min(offset + PIECE_BYTES);
            self.read(path, offset..end, &mut buffer)?;
            if each(&buffer).is_break() {
                break;
            }
            offset = end;
        }
        Ok(())
    }

    /// Reads a whole object of at most `bytes_max` bytes; a larger one is [`ErrorKind::Corrupt`].
    fn read_all(&self, path: &ObjectPath, bytes_max: u64) -> Result<Vec<u8>, Error>;

    /// Writes a whole object durably, as [`Upload::finish`] does. A folder that does not exist is
    /// made; a root that does not exist is [`ErrorKind::NotFound`].
    fn write(&self, path: &ObjectPath, bytes: &[u8]) -> Result<ObjectInfo, Error>;

    /// Starts an object whose bytes come in pieces, in `folder`; it can be finished there only.
    /// Folder and root as for [`Store::write`].
    fn upload(&self, folder: &str) -> Result<Box<dyn Upload>, Error>;

    /// Finishes whole objects that an interrupted run had begun to send, and returns them; what is
    /// damaged is given up. What belongs elsewhere, or is refused for reasons of its own, and objects of
    /// processes that live are left alone.
    /// A store that keeps nothing between runs has none.
    fn resume_uploads(&self) -> Result<Vec<ObjectInfo>, Error> {
        Ok(Vec::new())
    }

    /// Deletes these rows; one that is gone already is success.
    fn delete(&self, objects: &[ObjectInfo]) -> Result<(), Error>;

    /// How many rows [`Store::delete`] deletes with one request.
    fn delete_batch(&self) -> usize {
        1
    }

    /// Free and total bytes, where the store tells.
    fn space(&self) -> Result<Option<Space>, Error>;

    /// Waits for a lock between processes; `None` where the store has none.
    fn lock(&self, mode: LockMode) -> Result<Option<Box<dyn Lock>>, Error>;
}
