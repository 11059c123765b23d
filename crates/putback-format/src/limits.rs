//! Every size limit of the format, with its reason.
//!
//! Decoders check a declared size against these before they allocate.

/// Largest chunk that any configuration may ask for: bounds what a reader must hold.
pub const CHUNK_BYTES_MAX: u32 = 16 << 20;
/// Smallest average chunk: below it, ids outweigh what deduplication saves.
pub const CHUNK_AVERAGE_MIN: u32 = 16 << 10;
/// Largest average chunk: eight times it must not exceed [`CHUNK_BYTES_MAX`].
pub const CHUNK_AVERAGE_MAX: u32 = 2 << 20;
/// Most plain bytes of one frame: the largest chunk that stands alone, or many small ones.
pub const FRAME_PLAIN_BYTES_MAX: u32 = 16 << 20;
/// Most blobs of one frame: what its pack can hold.
pub const FRAME_BLOBS_MAX: u32 = PACK_BLOBS_MAX;
/// Smallest pack size that `init` accepts.
pub const PACK_BYTES_MIN: u64 = 8 << 20;
/// Largest pack size that `init` accepts.
pub const PACK_BYTES_MAX: u64 = 256 << 20;
/// Most frames and blobs of one pack: bounds the header, and with it what one pack adds to a segment.
pub const PACK_BLOBS_MAX: u32 = 1 << 17;
/// Largest sealed header of a pack: its table takes 49 bytes for each frame with its blob.
pub const PACK_HEADER_BYTES_MAX: u32 = 8 << 20;
/// Largest index segment. Writers aim at [`SEGMENT_BYTES_TARGET`], and the last pack may go beyond it. What a reader
/// holds is several times as much: 64 MiB are enough for any.
pub const SEGMENT_BYTES_MAX: u32 = 20 << 20;
/// Where writers close an index segment.
pub const SEGMENT_BYTES_TARGET: u32 = 8 << 20;
/// Largest snapshot, configuration, mark or slot as stored.
pub const SMALL_OBJECT_BYTES_MAX: u32 = 16 << 20;
/// Files up to this size are kept in their entry.
pub const INLINE_BYTES_MAX: usize = 128;
/// Longest name of an entry; Linux and macOS stop at 255 bytes, Windows at 255 UTF-16 units.
pub const NAME_BYTES_MAX: usize = 1024;
/// Longest symlink target; Linux stops at 4,095 bytes.
pub const LINK_BYTES_MAX: usize = 64 << 10;
/// Longest value of an extended attribute; Linux stops at 64 KiB, macOS forks are longer.
pub const XATTR_VALUE_BYTES_MAX: usize = 8 << 20;
/// Most extended attributes of an entry.
pub const XATTRS_MAX: usize = 4096;
/// Most entries of one tree page.
pub const PAGE_ENTRIES_MAX: usize = 8192;
/// Entries of a page on average, where the cut by content is expected.
pub const PAGE_ENTRIES_AVERAGE: u64 = 1024;
/// Fewest entries of a page that is not the last.
pub const PAGE_ENTRIES_MIN: usize = 256;
/// Most references of one chunk list, in an entry or in a list page; longer ones get another level.
pub const LIST_REFS_MAX: usize = 4096;
/// Most levels of list pages: 4096^4 chunks are beyond any file.
pub const LIST_DEPTH_MAX: u8 = 4;
/// Most holes of one file that are kept; further ones are stored as zeros.
pub const HOLES_MAX: usize = 1 << 16;
/// Incidents that a snapshot lists; the count goes on.
pub const INCIDENTS_MAX: usize = 10_000;
/// Password slots of a repository.
pub const SLOTS_MAX: usize = 16;
/// Epochs whose keys a slot can hold.
pub const EPOCHS_MAX: usize = 64;
/// Longest encoded entry: a page that ends with one must fit the smallest pack.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;
/// Bytes of entries at which a page is cut, wherever the cut by content would be; every entry of a
/// page begins before it, which bounds what a page can make its reader allocate.
pub const PAGE_BYTES_TARGET: usize = 1 << 20;
/// Largest tree page or list page: the last entry of a page begins before [`PAGE_BYTES_TARGET`].
pub const PAGE_BYTES_MAX: usize = PAGE_BYTES_TARGET + ENTRY_BYTES_MAX + 16;
/// Most pages of a directory: 2 MiB of ids, for about 80 million entries.
pub const DIRECTORY_PAGES_MAX: usize = 1 << 16;
/// Longest name of an owner or group.
pub const OWNER_NAME_BYTES_MAX: usize = 1024;
/// Longest name of an extended attribute; Linux stops at 255 bytes.
pub const XATTR_NAME_BYTES_MAX: usize = 1024;
/// Longest security descriptor; Windows stops at 64 KiB.
pub const SECURITY_DESCRIPTOR_BYTES_MAX: usize = 64 << 10;
/// References of a list page on average, where the cut by content is expected.
pub const LIST_REFS_AVERAGE: u64 = 1024;
/// Fewest references of a list page that is not the last of its level.
pub const LIST_REFS_MIN: usize = 256;
/// Most references that a writer keeps in an entry before it writes list pages.
pub const LIST_REFS_ENTRY: usize = LIST_REFS_MAX / 4;
/// Fields of newer programs in one map that are kept.
pub const UNKNOWN_FIELDS_MAX: usize = 64;
/// Deepest nesting of arrays and maps in a field of a newer program.
pub const UNKNOWN_DEPTH_MAX: u8 = 16;
/// Longest text of a snapshot: host, user, tag, description, program, message.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// Longest path of a snapshot or incident.
pub const PATH_BYTES_MAX: usize = 64 << 10;
/// Most paths of a snapshot.
pub const PATHS_MAX: usize = 1 << 16;
/// Most tags of a snapshot.
pub const TAGS_MAX: usize = 1024;
/// Bytes of paths and messages of the incidents that a snapshot lists; the count goes on.
pub const INCIDENTS_BYTES_MAX: usize = 4 << 20;
/// Most other writers that a snapshot names.
pub const WRITERS_MAX: usize = 1 << 16;
/// Most packs of one mark: 8 MiB of ids. A prune of more writes several marks.
pub const MARK_PACKS_MAX: usize = 1 << 18;
/// Most snapshots of one forget record.
pub const MARK_SNAPSHOTS_MAX: usize = 1 << 16;
/// Smallest frame size of a configuration: below it, compression gains nothing from neighbours.
pub const FRAME_PLAIN_BYTES_MIN: u32 = 64 << 10;
/// Lowest zstd level of a configuration.
pub const COMPRESSION_LEVEL_MIN: i32 = -7;
/// Highest zstd level of a configuration.
pub const COMPRESSION_LEVEL_MAX: i32 = 22;
