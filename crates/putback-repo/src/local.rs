//! Files of the cache and state directories.
//!
//! They tell other people on this machine what the repository hides from its storage, such as the lengths of
//! chunks: so only their owner may enter these directories.

use std::io;
use std::path::Path;

/// Makes a directory and those above it, for their owner alone; what exists is left as it is.
pub(crate) fn create_private_directories(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}
