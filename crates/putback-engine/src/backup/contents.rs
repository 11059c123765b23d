//! Reading one file: its bytes become chunks, chunks become blobs.
//!
//! The file is read once, holes are not read, and what the system says about it afterwards is what the entry
//! says. A file that changed meanwhile is read again once if that is cheap, and told if it changed again.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use putback_format::limits::INLINE_BYTES_MAX;
use putback_format::list::ListBuilder;
use putback_format::tree::{ChunkRef, Content, Extent};
use putback_repo::{Cancel, FrameWriter};

use super::assembly::Assembly;
use crate::Error;
use crate::platform::{self, Stat};

/// Why the content of a file is not there.
pub(crate) enum Failure {
    /// The file cannot be read.
    Read(io::Error),
    /// The backup cannot go on.
    Fatal(Error),
    /// Somebody asked to stop.
    Cancelled,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

/// What was read.
pub(crate) struct FileContent {
    /// Size, holes included.
    pub(crate) size: u64,
    /// Where they are.
    pub(crate) content: Content,
    /// Holes.
    pub(crate) holes: Vec<Extent>,
}

/// A buffer that chunks are cut from. One per worker.
pub(crate) struct ChunkReader<'a> {
    repository: &'a putback_repo::Repository,
    cancel: &'a Cancel,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<'a> ChunkReader<'a> {
    /// A reader with the buffer that the repository's chunks need.
    pub(crate) fn new(repository: &'a putback_repo::Repository, cancel: &'a Cancel) -> Self {
        // Larger than one chunk, so that the rest that is moved to the front is small beside what is read.
        let bytes = 4 * repository.chunker().params().bytes_max as usize;
        Self { repository, cancel, buffer: vec![0; bytes], start: 0, end: 0 }
    }

    /// Reads a file that looked like `stat` when it was found.
    pub(crate) fn read_file(
        &mut self,
        file: &File,
        stat: &Stat,
        data: &mut FrameWriter,
        assembly: &Assembly<'_>,
        advanced: &dyn Fn(u64),
    ) -> Result<FileContent, Failure> {
        if stat.may_have_holes() {
            let extents = platform::data_extents(file, stat.size)?;
            let holes = platform::holes_between(&extents, stat.size);
            let expected: u64 = extents.iter().map(|extent| extent.length).sum();
            let mut source = Extents { file, extents: extents.iter(), left: 0 };
            let (content, bytes) = self.read_all(&mut source, data, assembly, advanced)?;
            if bytes == expected {
                return Ok(FileContent { size: stat.size, content, holes });
            }
            // It shrank: what the holes say is no longer so. Read it as it is now.
            let mut file = file;
            file.seek(SeekFrom::Start(0))?;
        }
        // Files of the kernel's own say 0 and hold something.
        let left = if stat.size == 0 { u64::MAX } else { stat.size };
        let mut source = Expected { file, left };
        let (content, bytes) = self.read_all(&mut source, data, assembly, advanced)?;
        Ok(FileContent { size: bytes, content, holes: Vec::new() })
    }

    /// Reads to the end.
    pub(crate) fn read_all(
        &mut self,
        source: &mut dyn Read,
        data: &mut FrameWriter,
        assembly: &Assembly<'_>,
        advanced: &dyn Fn(u64),
    ) -> Result<(Content, u64), Failure> {
        let chunker = self.repository.chunker();
        let bytes_max = chunker.params().bytes_max as usize;
        (self.start, self.end) = (0, 0);
        let mut list = ListBuilder::new();
        let mut bytes = 0;
        let mut is_at_end = false;
        loop {
            if !is_at_end && self.end - self.start < bytes_max {
                is_at_end = self.fill(source)?;
            }
            let waiting = &self.buffer[self.start..self.end];
            if waiting.is_empty() {
                break;
            }
            if is_at_end && bytes == 0 && waiting.len() <= INLINE_BYTES_MAX {
                advanced(waiting.len() as u64);
                return Ok((Content::Inline(waiting.to_vec()), waiting.len() as u64));
            }
            if self.cancel.is_cancelled() {
                return Err(Failure::Cancelled);
            }
            let length = chunker.cut(waiting);
            let id = data.put(&waiting[..length]).map_err(Error::from)?;
            let chunk = ChunkRef { id, length: length as u64 };
            list.push(chunk, &mut |page| assembly.put(page))?;
            self.start += length;
            bytes += length as u64;
            advanced(length as u64);
        }
        Ok((list.finish(&mut |page| assembly.put(page))?, bytes))
    }

    /// Reads until the buffer is full or the source ends; true at the end.
    fn fill(&mut self, source: &mut dyn Read) -> io::Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < self.buffer.len() {
            match source.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(true),
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

/// A file up to the size that it had: asking for more would cost a call to the system for each file, and the look
/// at the file afterwards tells whether it grew.
struct Expected<'a> {
    file: &'a File,
    left: u64,
}

impl Read for Expected<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let limit = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read(&mut buffer[..limit])?;
        self.left -= count as u64;
        Ok(count)
    }
}

/// The data of a file with holes, one run after another.
struct Extents<'a> {
    file: &'a File,
    extents: std::slice::Iter<'a, Extent>,
    left: u64,
}

impl Read for Extents<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            let Some(extent) = self.extents.next() else { return Ok(0) };
            self.file.seek(SeekFrom::Start(extent.offset))?;
            self.left = extent.length;
        }
        let limit = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read(&mut buffer[..limit])?;
        self.left -= count as u64;
        Ok(count)
    }
}
