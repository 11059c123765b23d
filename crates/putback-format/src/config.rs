//! The configuration of a repository: what every writer must agree on.
//!
//! Configurations are generations, never overwritten. Which of several is in force, and whether its
//! generation is the one in its name, is for the repository to say.
//!
//! Layout and limits: `docs/format.md`, "Configuration".
//!
//! Invariant: whatever [`Config::decode`] returns satisfies [`Config::validate`], so that a chunker,
//! a frame and a pack of these sizes exist.

use crate::cbor::{
    MapWriter, Reader, put_bytes, put_int, put_uint, require_at_most, validate_unknown,
};
use crate::error::Error;
use crate::id::RepositoryId;
use crate::limits::{
    CHUNK_AVERAGE_MAX, CHUNK_AVERAGE_MIN, CHUNK_BYTES_MAX, COMPRESSION_LEVEL_MAX,
    COMPRESSION_LEVEL_MIN, FRAME_PLAIN_BYTES_MAX, FRAME_PLAIN_BYTES_MIN, PACK_BYTES_MAX,
    PACK_BYTES_MIN, SMALL_OBJECT_BYTES_MAX,
};
use crate::tree::{Timestamp, put_timestamp, read_timestamp, validate_timestamp};

/// What the errors of this module are about.
const WHAT: &str = "configuration";
/// The version of configurations that this program reads and writes.
const VERSION: u32 = 1;
/// FastCDC 2020 with normalisation and a gear table derived from the dedup secret.
const CHUNKER_FASTCDC: u32 = 1;

/// Keys of the map that is a configuration. All are always there.
mod key {
    pub(super) const VERSION: u32 = 0;
    pub(super) const REPOSITORY: u32 = 1;
    pub(super) const GENERATION: u32 = 2;
    pub(super) const CREATED: u32 = 3;
    pub(super) const CHUNKER: u32 = 4;
    pub(super) const CHUNK_BYTES_MIN: u32 = 5;
    pub(super) const CHUNK_BYTES_AVERAGE: u32 = 6;
    pub(super) const CHUNK_BYTES_MAX: u32 = 7;
    pub(super) const PACK_BYTES: u32 = 8;
    pub(super) const FRAME_BYTES: u32 = 9;
    pub(super) const COMPRESSION_LEVEL: u32 = 10;
    pub(super) const EPOCH: u32 = 11;
}
/// Number of the fields above.
const FIELDS: usize = 12;

/// How files are cut into chunks. Part of the configuration since every writer must cut alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkerParams {
    /// Smallest chunk but for the last of a file, in bytes; even.
    pub bytes_min: u32,
    /// The average aimed at; a power of two.
    pub bytes_average: u32,
    /// Largest chunk; even.
    pub bytes_max: u32,
}

/// One generation of the configuration, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The repository.
    pub repository: RepositoryId,
    /// Counts from 1.
    pub generation: u64,
    /// When this generation was written.
    pub created: Timestamp,
    /// Cutting: FastCDC 2020 with a keyed gear table is chunker 1, the only one so far.
    pub chunker: ChunkerParams,
    /// Exact size of a full pack in bytes.
    pub pack_bytes: u64,
    /// Plain bytes at which a frame is closed.
    pub frame_bytes: u32,
    /// zstd level.
    pub compression_level: i32,
    /// Newest key epoch, used for writing.
    pub epoch: u32,
    /// Fields of newer programs (CBOR keys from 64), as raw CBOR, kept and written back; sorted by key.
    pub unknown: Vec<(u32, Vec<u8>)>,
}

impl ChunkerParams {
    /// Checks that these sizes can be cut by: even, ascending, the average a power of two.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`], with the first rule that is broken.
    pub fn validate(&self) -> Result<(), Error> {
        if !self.bytes_min.is_multiple_of(2) || !self.bytes_max.is_multiple_of(2) {
            return Err(invalid("its smallest or largest chunk is of an odd size"));
        }
        if !self.bytes_average.is_power_of_two() {
            return Err(invalid("its average chunk is no power of two"));
        }
        if !(CHUNK_AVERAGE_MIN..=CHUNK_AVERAGE_MAX).contains(&self.bytes_average) {
            return Err(invalid("its average chunk is outside the limits"));
        }
        if self.bytes_min == 0
            || self.bytes_min >= self.bytes_average
            || self.bytes_average >= self.bytes_max
        {
            return Err(invalid(
                "its chunk sizes do not ascend from smallest to average to largest",
            ));
        }
        require_at_most(
            "size of the largest chunk",
            self.bytes_max as usize,
            CHUNK_BYTES_MAX as usize,
        )
    }
}

impl Config {
    /// Checks every rule of the format.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`], with the first rule that is broken.
    pub fn validate(&self) -> Result<(), Error> {
        if self.generation == 0 {
            return Err(invalid("its generation is 0"));
        }
        validate_timestamp(WHAT, self.created)?;
        self.chunker.validate()?;
        if !(PACK_BYTES_MIN..=PACK_BYTES_MAX).contains(&self.pack_bytes) {
            return Err(invalid("its pack size is outside the limits"));
        }
        // What does not compress must fit a pack beside its header, whatever that takes.
        if u64::from(self.chunker.bytes_max) > self.pack_bytes / 2 {
            return Err(invalid("its largest chunk takes more than half of a pack"));
        }
        if !(FRAME_PLAIN_BYTES_MIN..=FRAME_PLAIN_BYTES_MAX).contains(&self.frame_bytes) {
            return Err(invalid("its frame size is outside the limits"));
        }
        if !(COMPRESSION_LEVEL_MIN..=COMPRESSION_LEVEL_MAX).contains(&self.compression_level) {
            return Err(invalid("its compression level is outside the limits"));
        }
        validate_unknown(WHAT, &self.unknown)
    }

    /// The bytes to seal. Those of a configuration that is not valid are refused by every reader.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let mut map = MapWriter::begin(&mut out);
        put_uint(map.key(key::VERSION), u64::from(VERSION));
        put_bytes(map.key(key::REPOSITORY), self.repository.as_bytes());
        put_uint(map.key(key::GENERATION), self.generation);
        put_timestamp(map.key(key::CREATED), self.created);
        put_uint(map.key(key::CHUNKER), u64::from(CHUNKER_FASTCDC));
        put_uint(map.key(key::CHUNK_BYTES_MIN), u64::from(self.chunker.bytes_min));
        put_uint(map.key(key::CHUNK_BYTES_AVERAGE), u64::from(self.chunker.bytes_average));
        put_uint(map.key(key::CHUNK_BYTES_MAX), u64::from(self.chunker.bytes_max));
        put_uint(map.key(key::PACK_BYTES), self.pack_bytes);
        put_uint(map.key(key::FRAME_BYTES), u64::from(self.frame_bytes));
        put_int(map.key(key::COMPRESSION_LEVEL), i64::from(self.compression_level));
        put_uint(map.key(key::EPOCH), u64::from(self.epoch));
        map.put_unknown(&self.unknown);
        map.finish();
        out
    }

    /// Decodes the unsealed bytes of a configuration.
    ///
    /// # Errors
    /// [`Error::UnknownVersion`] if a newer program wrote it or it names a newer chunker; others if
    /// it is not valid.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        require_at_most("length of a configuration", bytes.len(), SMALL_OBJECT_BYTES_MAX as usize)?;
        let mut reader = Reader::new(WHAT, bytes);
        let mut map = reader.map()?;
        reader.version_field(&mut map, VERSION)?;
        let mut config = Self {
            repository: RepositoryId::from_bytes([0; RepositoryId::LENGTH]),
            generation: 0,
            created: Timestamp::default(),
            chunker: ChunkerParams { bytes_min: 0, bytes_average: 0, bytes_max: 0 },
            pack_bytes: 0,
            frame_bytes: 0,
            compression_level: 0,
            epoch: 0,
            unknown: Vec::new(),
        };
        // Keys ascend without repeating, so their number tells whether all were there.
        let mut fields = 1;
        while let Some(key) = reader.next_key(&mut map)? {
            match key {
                key::REPOSITORY => {
                    config.repository = RepositoryId::from_bytes(reader.byte_array()?);
                }
                key::GENERATION => config.generation = reader.uint()?,
                key::CREATED => config.created = read_timestamp(&mut reader)?,
                key::CHUNKER => reader.version("chunker", CHUNKER_FASTCDC)?,
                key::CHUNK_BYTES_MIN => config.chunker.bytes_min = reader.uint32()?,
                key::CHUNK_BYTES_AVERAGE => config.chunker.bytes_average = reader.uint32()?,
                key::CHUNK_BYTES_MAX => config.chunker.bytes_max = reader.uint32()?,
                key::PACK_BYTES => config.pack_bytes = reader.uint()?,
                key::FRAME_BYTES => config.frame_bytes = reader.uint32()?,
                key::COMPRESSION_LEVEL => {
                    config.compression_level = i32::try_from(reader.int()?)
                        .map_err(|_| invalid("its compression level is outside the limits"))?;
                }
                key::EPOCH => config.epoch = reader.uint32()?,
                key => {
                    reader.keep_unknown(key, &mut config.unknown)?;
                    continue;
                }
            }
            fields += 1;
        }
        reader.finish()?;
        if fields != FIELDS {
            return Err(invalid("a field is missing"));
        }
        config.validate()?;
        Ok(config)
    }
}

fn invalid(why: &'static str) -> Error {
    Error::Invalid { what: WHAT, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            repository: RepositoryId::from_bytes([3; 16]),
            generation: 1,
            created: Timestamp::from_seconds(1_750_000_000),
            chunker: ChunkerParams {
                bytes_min: 32 << 10,
                bytes_average: 128 << 10,
                bytes_max: 1 << 20,
            },
            pack_bytes: 32 << 20,
            frame_bytes: 1 << 20,
            compression_level: 3,
            epoch: 1,
            unknown: Vec::new(),
        }
    }

    fn check(change: impl Fn(&mut Config), expected: Result<(), &str>) {
        let mut config = config();
        change(&mut config);
        let decoded = Config::decode(&config.encode());
        assert_eq!(config.validate().is_ok(), decoded.is_ok());
        match (decoded, expected) {
            (Ok(decoded), Ok(())) => assert_eq!(decoded, config),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (decoded, expected) => panic!("{decoded:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn chunks_can_be_cut_as_configured() {
        let sizes = |bytes_min, bytes_average, bytes_max| {
            move |config: &mut Config| {
                config.chunker = ChunkerParams { bytes_min, bytes_average, bytes_max };
            }
        };
        check(sizes(32 << 10, 128 << 10, 1 << 20), Ok(()));
        check(sizes(2, 16 << 10, (16 << 10) + 2), Ok(()));
        check(sizes(512 << 10, 2 << 20, 16 << 20), Ok(()));
        check(sizes((32 << 10) + 1, 128 << 10, 1 << 20), Err("of an odd size"));
        check(sizes(32 << 10, 128 << 10, (1 << 20) + 1), Err("of an odd size"));
        check(sizes(32 << 10, 129 << 10, 1 << 20), Err("no power of two"));
        check(sizes(32 << 10, 0, 1 << 20), Err("no power of two"));
        check(sizes(2 << 10, 8 << 10, 64 << 10), Err("average chunk is outside the limits"));
        check(sizes(2 << 20, 4 << 20, 8 << 20), Err("average chunk is outside the limits"));
        check(sizes(0, 128 << 10, 1 << 20), Err("do not ascend"));
        check(sizes(128 << 10, 128 << 10, 1 << 20), Err("do not ascend"));
        check(sizes(32 << 10, 128 << 10, 128 << 10), Err("do not ascend"));
        check(sizes(32 << 10, 128 << 10, (16 << 20) + 2), Err("size of the largest chunk is"));
    }

    #[test]
    fn packs_and_frames_can_be_written_as_configured() {
        check(|config| config.pack_bytes = 8 << 20, Ok(()));
        check(|config| config.pack_bytes = 256 << 20, Ok(()));
        check(|config| config.pack_bytes = (8 << 20) - 1, Err("pack size is outside"));
        check(|config| config.pack_bytes = (256 << 20) + 1, Err("pack size is outside"));
        check(
            |config| {
                config.pack_bytes = 8 << 20;
                config.chunker.bytes_max = (4 << 20) + 2;
            },
            Err("its largest chunk takes more than half of a pack"),
        );
        check(|config| config.frame_bytes = 64 << 10, Ok(()));
        check(|config| config.frame_bytes = 16 << 20, Ok(()));
        check(|config| config.frame_bytes = (64 << 10) - 1, Err("frame size is outside"));
        check(|config| config.frame_bytes = (16 << 20) + 1, Err("frame size is outside"));
        check(|config| config.compression_level = -7, Ok(()));
        check(|config| config.compression_level = 22, Ok(()));
        check(|config| config.compression_level = -8, Err("compression level is outside"));
        check(|config| config.compression_level = 23, Err("compression level is outside"));
        check(|config| config.generation = 0, Err("its generation is 0"));
    }
}
