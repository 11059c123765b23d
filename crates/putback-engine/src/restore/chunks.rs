//! The chunks of a file, one list page at a time.

use putback_format::tree::{ChunkRef, Content};
use putback_repo::Repository;

/// The chunks of a file in order; list pages are read one at a time.
pub(super) struct ChunkRefs<'a> {
    repository: &'a Repository,
    /// References that are left on each level: 0 are chunks, others list pages of that level.
    levels: Vec<(u8, std::vec::IntoIter<ChunkRef>)>,
}

impl<'a> ChunkRefs<'a> {
    pub(super) fn new(repository: &'a Repository, content: &Content) -> Self {
        let levels = match content {
            Content::Inline(_) => Vec::new(),
            Content::Chunks(chunks) => vec![(0, chunks.clone().into_iter())],
            Content::Lists { depth, pages } => vec![(*depth, pages.clone().into_iter())],
        };
        Self { repository, levels }
    }
}

impl Iterator for ChunkRefs<'_> {
    type Item = putback_repo::Result<ChunkRef>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (level, refs) = self.levels.last_mut()?;
            let level = *level;
            match refs.next() {
                None => drop(self.levels.pop()),
                Some(chunk) if level == 0 => return Some(Ok(chunk)),
                Some(page) => match self.repository.read_list_page(&page, level) {
                    Ok(refs) => self.levels.push((level - 1, refs.into_iter())),
                    Err(error) => {
                        self.levels.clear();
                        return Some(Err(error));
                    }
                },
            }
        }
    }
}
