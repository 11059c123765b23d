//! Further names of files: hard links, or copies where there are none.

use std::fs::File;
use std::io;
use std::sync::Arc;

use putback_format::snapshot::IncidentKind;
use putback_repo::Action;

use crate::platform::{self, MetadataProblem};
use crate::restore::add;
use crate::restore::folder::guard;
use crate::restore::item::{Failure, LeaderState, Link, Place, Unclosed};
use crate::restore::queue::{Task, Window};
use crate::restore::write::{COPY_BYTES, Worker, made_action, make_temporary, rename_to_item};

/// Links that are made by one task.
const LINKS_PER_TASK: usize = 128;

impl Worker<'_> {
    pub(super) fn make_links(&mut self, links: &[Link]) {
        for link in links {
            if self.run.is_stopped() {
                return;
            }
            if link.leader.state() == LeaderState::Unfinished {
                let (leader, item) = (Arc::clone(&link.leader), Arc::clone(&link.item));
                guard(&self.run.deferred_links).push(Link { leader, item });
            } else {
                self.make_link(link);
            }
        }
    }

    /// Makes the links that had to wait for a file; all files are settled now.
    pub(super) fn make_deferred_links(&mut self) {
        let links = std::mem::take(&mut *guard(&self.run.deferred_links));
        for link in links {
            if self.run.is_stopped() {
                return;
            }
            self.make_link(&link);
        }
    }

    /// Sets the flags that had to wait until all names of their file were made.
    pub(super) fn close_files(&mut self) {
        let files = std::mem::take(&mut *guard(&self.run.unclosed));
        for unclosed in files {
            if self.run.is_stopped() {
                return;
            }
            unclosed.folder.write_path(&unclosed.name, &mut self.path);
            match self.try_close_file(&unclosed) {
                Ok(problems) => self.run.tell_metadata(&self.path, problems),
                Err(error) => {
                    let mut failure = self.run.target_failure(&self.path, "set its flags", error);
                    failure.kind = IncidentKind::MetadataIncomplete;
                    self.run.problem(&self.path, &failure);
                }
            }
        }
    }

    fn try_close_file(&mut self, unclosed: &Unclosed) -> io::Result<Vec<MetadataProblem>> {
        let file = self.open(&unclosed.folder)?.open_file(&unclosed.name)?;
        if platform::stat_file(&file)?.identity() != unclosed.identity {
            return Err(io::Error::other("the file was replaced after it was restored"));
        }
        Ok(platform::add_flags(&file, unclosed.flags))
    }

    fn make_link(&mut self, link: &Link) {
        self.amount.bytes += link.item.data_bytes();
        if link.leader.state() != LeaderState::Complete {
            let message = "the file that it is another name of could not be restored".to_owned();
            self.abandon(&link.item, &Failure { kind: IncidentKind::Lost, message });
            return;
        }
        match self.try_make_link(link) {
            Ok(action) => self.complete(&link.item, action, Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.abandon_for(&link.item, "make the hard link", error);
            }
            // Another file system, or one without hard links.
            Err(_) => match self.copy_instead(link) {
                Ok((action, problems)) => self.complete(&link.item, action, problems),
                Err(error) => self.abandon_for(&link.item, "make the hard link or a copy", error),
            },
        }
    }

    fn try_make_link(&mut self, link: &Link) -> io::Result<Action> {
        let Link { leader, item } = link;
        let from = self.run.target.open(&leader.folder)?;
        let directory = self.open(&item.folder)?;
        if let Place::Free = item.place {
            directory.create_hard_link(&from, &leader.name, &item.name)?;
            return Ok(Action::Restored);
        }
        let identity = from.stat(&leader.name)?.identity();
        if directory.stat(&item.name).is_ok_and(|stat| stat.identity() == identity) {
            return Ok(Action::Unchanged);
        }
        let temporary =
            make_temporary(|name| directory.create_hard_link(&from, &leader.name, name))?;
        if let Err(error) = directory.rename(&temporary, &item.name) {
            // It was made here; the failure that is told says enough.
            let _ = directory.remove_file(&temporary);
            return Err(error);
        }
        Ok(Action::Updated)
    }

    fn copy_instead(&mut self, link: &Link) -> io::Result<(Action, Vec<MetadataProblem>)> {
        let item = &link.item;
        if item.file().is_none() {
            return self.try_restore_other(item);
        }
        let from = self.run.target.open(&link.leader.folder)?.open_file(&link.leader.name)?;
        let directory = self.open(&item.folder)?;
        let (name, file) = directory.create_temporary_file()?;
        let result = self.copy_file(&from, &file).and_then(|()| {
            let stat = platform::stat_file(&file)?;
            let (_, problems) = item.metadata.apply_to_file(&file, &stat, item.before_as_new());
            rename_to_item(&directory, &name, item)?;
            Ok(problems)
        });
        if result.is_err() {
            // It was made here; the failure that is told says enough.
            let _ = directory.remove_file(&name);
        }
        let mut problems = result?;
        self.close(item, &file, &mut problems);
        Ok((made_action(item), problems))
    }

    fn copy_file(&mut self, from: &File, to: &File) -> io::Result<()> {
        let size = platform::stat_file(from)?.size;
        to.set_len(size)?;
        for extent in platform::data_extents(from, size)? {
            let mut offset = extent.offset;
            let end = extent.offset + extent.length;
            while offset < end {
                let count = (end - offset).min(COPY_BYTES as u64) as usize;
                self.buffer.resize(count, 0);
                platform::read_exact_at(from, &mut self.buffer, offset)?;
                platform::write_all_at(to, &self.buffer, offset)?;
                add(&self.run.counts.bytes_written, count as u64);
                offset += count as u64;
            }
        }
        Ok(())
    }
}

/// Tasks for the links of a window.
pub(super) fn link_tasks(window: &Arc<Window>) -> Vec<Task> {
    let count = window.links.len();
    (0..count)
        .step_by(LINKS_PER_TASK)
        .map(|start| Task::Links(Arc::clone(window), start..count.min(start + LINKS_PER_TASK)))
        .collect()
}
