//! Bytes to upload.

use std::io;

/// Bytes of a known length that can be read from any offset, as often as needed.
pub trait Content: Send + Sync {
    /// Bytes.
    fn length(&self) -> u64;

    /// Reads from `offset` into the start of `buffer` and returns how many bytes it were; 0 only at
    /// the end. May block for as long as a local disk takes: it is asked for small pieces.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

impl Content for [u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..));
        let rest = rest.unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

impl Content for Vec<u8> {
    fn length(&self) -> u64 {
        self.as_slice().length()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.as_slice().read_at(offset, buffer)
    }
}

impl<T: Content + ?Sized> Content for &T {
    fn length(&self) -> u64 {
        (**self).length()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(offset, buffer)
    }
}

/// An open local file as it is now; its length is taken once.
#[derive(Debug)]
pub struct FileContent {
    file: std::fs::File,
    length: u64,
}

impl FileContent {
    /// Takes an open file.
    ///
    /// # Errors
    /// The system's, if it does not tell the length.
    pub fn new(file: impl Into<std::fs::File>) -> io::Result<Self> {
        let file = file.into();
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }
}

impl Content for FileContent {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = rest.min(buffer.len());
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_at(&self.file, &mut buffer[..count], offset);
        #[cfg(windows)]
        return std::os::windows::fs::FileExt::seek_read(&self.file, &mut buffer[..count], offset);
    }
}
