//! What tests of stores, and of everything on top of them, need.
//!
//! [`contract`] is what each [`Store`](crate::Store) has to keep; [`recording`] notes every
//! request; [`faulty`] fails on purpose. The last two are layers around any store and see the same
//! [`Call`]s, so that the k-th request of a log is the k-th that a fault can hit. [`simulated`] is a world of
//! machines that share a store, with a time of its own.

pub mod contract;
pub mod faulty;
pub mod random;
pub mod recording;
pub mod simulated;

use crate::Operation;

/// One method of [`Store`](crate::Store) or [`Upload`](crate::Upload) that does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// [`Store::create`](crate::Store::create)
    Create,
    /// [`Store::list`](crate::Store::list)
    List,
    /// [`Store::stat`](crate::Store::stat)
    Stat,
    /// [`Store::read`](crate::Store::read)
    Read,
    /// [`Store::read_all`](crate::Store::read_all)
    ReadAll,
    /// [`Store::write`](crate::Store::write)
    Write,
    /// [`Store::upload`](crate::Store::upload)
    Upload,
    /// [`Upload::append`](crate::Upload::append)
    Append,
    /// [`Upload::finish`](crate::Upload::finish)
    Finish,
    /// [`Store::resume_uploads`](crate::Store::resume_uploads)
    ResumeUploads,
    /// [`Store::delete`](crate::Store::delete)
    Delete,
    /// [`Store::space`](crate::Store::space)
    Space,
    /// [`Store::lock`](crate::Store::lock)
    Lock,
}

impl Call {
    /// What its errors say was asked of the store.
    #[must_use]
    pub const fn operation(self) -> Operation {
        match self {
            Self::List => Operation::List,
            Self::Stat => Operation::Stat,
            Self::Read | Self::ReadAll => Operation::Read,
            Self::Write | Self::Upload | Self::Append | Self::Finish | Self::ResumeUploads => {
                Operation::Write
            }
            Self::Delete => Operation::Delete,
            Self::Create | Self::Space | Self::Lock => Operation::Manage,
        }
    }

    /// Whether it can change what others see.
    #[must_use]
    pub const fn is_change(self) -> bool {
        matches!(
            self,
            Self::Create | Self::Write | Self::Finish | Self::ResumeUploads | Self::Delete
        )
    }

    /// Whether a store that may not be written to refuses it.
    #[must_use]
    pub const fn needs_write_permission(self) -> bool {
        self.is_change() || matches!(self, Self::Upload | Self::Append | Self::Lock)
    }
}
