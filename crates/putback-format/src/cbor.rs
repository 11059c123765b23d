//! CBOR as this format uses it: one encoding for each value, and a reader that accepts no other.
//!
//! The subset of RFC 8949: integers, byte strings, text, arrays, maps with ascending integer keys,
//! `true`, `false`, `null`; definite lengths and shortest heads only (RFC 8949 §4.2.1).
//! What the fields of an object mean is the work of its own module.
//!
//! Layout: `docs/format.md`, "Encoding".
//!
//! Invariants: [`Reader`] borrows from its input and allocates nothing; a count that
//! [`Reader::array`] returns is within its limit and not above the number of bytes left, so callers
//! reserve that many items without checking again.

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use crate::error::Error;
use crate::limits::{UNKNOWN_DEPTH_MAX, UNKNOWN_FIELDS_MAX};

/// Keys from here on belong to newer programs: kept and written back. Smaller unknown ones are errors.
pub(crate) const UNKNOWN_KEY_MIN: u32 = 64;

/// A map with up to this many fields has a head of one byte.
const SHORT_MAP_FIELDS_MAX: usize = 23;
const MAP_HEAD: u8 = 0xa0;
const ARRAY_MAJOR_TYPE: u8 = 4;

/// Writes a map whose number of fields is known only at its end. Keys must ascend.
#[must_use = "the head of the map is written by `finish`"]
pub(crate) struct MapWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    fields: usize,
}

impl<'a> MapWriter<'a> {
    pub(crate) fn begin(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        out.push(MAP_HEAD);
        Self { out, start, fields: 0 }
    }

    /// Writes a key; the caller appends exactly one value.
    pub(crate) fn key(&mut self, key: u32) -> &mut Vec<u8> {
        self.fields += 1;
        put_uint(self.out, u64::from(key));
        self.out
    }

    pub(crate) fn put_unknown(&mut self, unknown: &[(u32, Vec<u8>)]) {
        for (key, value) in unknown {
            self.key(*key).extend_from_slice(value);
        }
    }

    pub(crate) fn finish(self) {
        if self.fields <= SHORT_MAP_FIELDS_MAX {
            self.out[self.start] = MAP_HEAD | self.fields as u8;
        } else {
            let mut head = Vec::with_capacity(9);
            written(Encoder::new(&mut head).map(self.fields as u64));
            self.out.splice(self.start..=self.start, head);
        }
    }
}

pub(crate) fn put_uint(out: &mut Vec<u8>, value: u64) {
    written(Encoder::new(out).u64(value));
}

pub(crate) fn put_int(out: &mut Vec<u8>, value: i64) {
    written(Encoder::new(out).i64(value));
}

pub(crate) fn put_bool(out: &mut Vec<u8>, value: bool) {
    written(Encoder::new(out).bool(value));
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    written(Encoder::new(out).bytes(value));
}

pub(crate) fn put_text(out: &mut Vec<u8>, value: &str) {
    written(Encoder::new(out).str(value));
}

/// Writes the head of an array; the caller appends `items` values.
pub(crate) fn put_array(out: &mut Vec<u8>, items: usize) {
    written(Encoder::new(out).array(items as u64));
}

/// Writes the head of a byte string; the caller appends `length` bytes.
pub(crate) fn put_bytes_head(out: &mut Vec<u8>, length: usize) {
    written(Encoder::new(out).bytes_len(length as u64));
}

fn written<T, E>(result: Result<T, E>) {
    assert!(result.is_ok(), "a Vec takes any bytes");
}

/// Where the reader is in a map, see [`Reader::next_key`].
pub(crate) struct MapPosition {
    fields_left: u64,
    last_key: Option<u32>,
}

/// Reads values in order. Every error names the object that was given to [`Reader::new`].
pub(crate) struct Reader<'b> {
    what: &'static str,
    decoder: Decoder<'b>,
}

impl<'b> Reader<'b> {
    pub(crate) fn new(what: &'static str, bytes: &'b [u8]) -> Self {
        Self { what, decoder: Decoder::new(bytes) }
    }

    /// Number of bytes read so far.
    pub(crate) fn position(&self) -> usize {
        self.decoder.position()
    }

    /// Succeeds if every byte was read.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        if self.bytes_left() > 0 {
            return Err(Error::TrailingBytes { what: self.what });
        }
        Ok(())
    }

    pub(crate) fn invalid(&self, why: &'static str) -> Error {
        Error::Invalid { what: self.what, why }
    }

    pub(crate) fn uint(&mut self) -> Result<u64, Error> {
        let start = self.position();
        let value = self.decoder.u64().map_err(|error| self.explain(&error))?;
        self.require_shortest(start, value, 0)?;
        Ok(value)
    }

    pub(crate) fn uint32(&mut self) -> Result<u32, Error> {
        let value = self.uint()?;
        u32::try_from(value).map_err(|_| self.invalid("a number does not fit 32 bits"))
    }

    pub(crate) fn int(&mut self) -> Result<i64, Error> {
        let value = self.int_of_any_size()?;
        i64::try_from(value).map_err(|_| self.invalid("a number does not fit 64 bits"))
    }

    pub(crate) fn bool(&mut self) -> Result<bool, Error> {
        self.decoder.bool().map_err(|error| self.explain(&error))
    }

    /// `length_of` names the quantity that must not exceed `bytes_max`.
    pub(crate) fn bytes(
        &mut self,
        length_of: &'static str,
        bytes_max: usize,
    ) -> Result<&'b [u8], Error> {
        let start = self.position();
        let value = self.decoder.bytes().map_err(|error| self.explain(&error))?;
        self.require_shortest(start, value.len() as u64, value.len())?;
        require_at_most(length_of, value.len(), bytes_max)?;
        Ok(value)
    }

    /// A byte string of exactly `N` bytes.
    pub(crate) fn byte_array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let value = self.bytes("length of an id", N)?;
        value.try_into().map_err(|_| self.invalid("an id is too short"))
    }

    pub(crate) fn text(
        &mut self,
        length_of: &'static str,
        bytes_max: usize,
    ) -> Result<&'b str, Error> {
        let start = self.position();
        let value = self.decoder.str().map_err(|error| self.explain(&error))?;
        self.require_shortest(start, value.len() as u64, value.len())?;
        require_at_most(length_of, value.len(), bytes_max)?;
        Ok(value)
    }

    /// Reads the head of an array and returns its number of items.
    pub(crate) fn array(
        &mut self,
        number_of: &'static str,
        items_max: usize,
    ) -> Result<usize, Error> {
        let start = self.position();
        let items = self.decoder.array().map_err(|error| self.explain(&error))?;
        let items = items.ok_or_else(|| self.invalid("an array has no definite length"))?;
        self.require_shortest(start, items, 0)?;
        if items > items_max as u64 {
            return Err(Error::TooLarge { what: number_of, value: items, limit: items_max as u64 });
        }
        self.require_items(items)?;
        // `items_max` is a usize.
        Ok(items as usize)
    }

    /// Reads the head of an array of alternating items and returns the number of pairs.
    pub(crate) fn pairs(
        &mut self,
        number_of: &'static str,
        pairs_max: usize,
        why_odd: &'static str,
    ) -> Result<usize, Error> {
        let items = self.array(number_of, usize::MAX)?;
        require_at_most(number_of, items.div_ceil(2), pairs_max)?;
        if !items.is_multiple_of(2) {
            return Err(self.invalid(why_odd));
        }
        Ok(items / 2)
    }

    /// True if the next value is an array.
    pub(crate) fn next_is_array(&self) -> bool {
        let next = self.decoder.input().get(self.position());
        next.is_some_and(|head| head >> 5 == ARRAY_MAJOR_TYPE)
    }

    /// Reads the head of a map.
    pub(crate) fn map(&mut self) -> Result<MapPosition, Error> {
        let start = self.position();
        let fields = self.decoder.map().map_err(|error| self.explain(&error))?;
        let fields = fields.ok_or_else(|| self.invalid("a map has no definite length"))?;
        self.require_shortest(start, fields, 0)?;
        self.require_items(fields)?;
        Ok(MapPosition { fields_left: fields, last_key: None })
    }

    /// Reads the next key of a map, `None` at its end; the caller then reads exactly one value.
    pub(crate) fn next_key(&mut self, map: &mut MapPosition) -> Result<Option<u32>, Error> {
        if map.fields_left == 0 {
            return Ok(None);
        }
        map.fields_left -= 1;
        let key = self.uint32()?;
        if let Some(last_key) = map.last_key {
            if key == last_key {
                return Err(self.invalid("a field is there twice"));
            }
            if key < last_key {
                return Err(self.invalid("the fields are not in ascending order"));
            }
        }
        map.last_key = Some(key);
        Ok(Some(key))
    }

    /// Reads the map key 0 that every object begins with; its value must be `version_known`.
    pub(crate) fn version_field(
        &mut self,
        map: &mut MapPosition,
        version_known: u32,
    ) -> Result<(), Error> {
        if self.next_key(map)? != Some(0) {
            return Err(self.invalid("it does not begin with its version"));
        }
        self.version(self.what, version_known)
    }

    /// Reads the version of `what`.
    pub(crate) fn version(&mut self, what: &'static str, version_known: u32) -> Result<(), Error> {
        let version = self.uint32()?;
        if version != version_known {
            return Err(Error::UnknownVersion { what, version });
        }
        Ok(())
    }

    /// Takes the value of a key that the caller does not know: an error below [`UNKNOWN_KEY_MIN`],
    /// else a value to keep as it is.
    pub(crate) fn unknown_value(&mut self, key: u32) -> Result<&'b [u8], Error> {
        if key < UNKNOWN_KEY_MIN {
            return Err(self.invalid("it has a field that this program does not know"));
        }
        let start = self.position();
        self.skip_value(UNKNOWN_DEPTH_MAX)?;
        Ok(&self.decoder.input()[start..self.position()])
    }

    /// As [`Self::unknown_value`], and appends it to the fields to write back.
    pub(crate) fn keep_unknown(
        &mut self,
        key: u32,
        unknown: &mut Vec<(u32, Vec<u8>)>,
    ) -> Result<(), Error> {
        let value = self.unknown_value(key)?;
        require_at_most("number of unknown fields", unknown.len() + 1, UNKNOWN_FIELDS_MAX)?;
        unknown.push((key, value.to_vec()));
        Ok(())
    }

    /// Skips one value that could stand in a kept field. minicbor's own `skip` also takes
    /// tags, indefinite lengths and any nesting, which the subset excludes.
    fn skip_value(&mut self, depth_left: u8) -> Result<(), Error> {
        let kind = self.decoder.datatype().map_err(|error| self.explain(&error))?;
        match kind {
            Type::Bool => self.bool().map(drop),
            Type::Null => self.decoder.null().map_err(|error| self.explain(&error)),
            Type::Bytes => self.bytes("length of an unknown field", usize::MAX).map(drop),
            Type::String => self.text("length of an unknown field", usize::MAX).map(drop),
            Type::Array | Type::Map => {
                let Some(depth_left) = depth_left.checked_sub(1) else {
                    return Err(self.invalid("an unknown field is nested too deeply"));
                };
                let values = if kind == Type::Array {
                    self.array("number of items of an unknown field", usize::MAX)? as u64
                } else {
                    // `map` found at least one byte for each of them.
                    2 * self.map()?.fields_left
                };
                for _ in 0..values {
                    self.skip_value(depth_left)?;
                }
                Ok(())
            }
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => self.uint().map(drop),
            Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => {
                self.int_of_any_size().map(drop)
            }
            _ => Err(self.invalid("an unknown field has a value of no known type")),
        }
    }

    fn int_of_any_size(&mut self) -> Result<i128, Error> {
        let start = self.position();
        let value = i128::from(self.decoder.int().map_err(|error| self.explain(&error))?);
        // CBOR stores -1 - n as n; both ranges are those of u64.
        let argument = if value < 0 { -1 - value } else { value } as u64;
        self.require_shortest(start, argument, 0)?;
        Ok(value)
    }

    /// The item that began at `start` had `argument` in its head and `payload_bytes` behind it.
    fn require_shortest(
        &self,
        start: usize,
        argument: u64,
        payload_bytes: usize,
    ) -> Result<(), Error> {
        let head_bytes = match argument {
            0..=23 => 1,
            24..=0xff => 2,
            0x100..=0xffff => 3,
            0x1_0000..=0xffff_ffff => 5,
            _ => 9,
        };
        if self.position() - start - payload_bytes != head_bytes {
            return Err(self.invalid("a number or length is not in its shortest form"));
        }
        Ok(())
    }

    /// Each item takes at least one byte.
    fn require_items(&self, items: u64) -> Result<(), Error> {
        if items > self.bytes_left() as u64 {
            return Err(Error::Truncated { what: self.what });
        }
        Ok(())
    }

    fn bytes_left(&self) -> usize {
        self.decoder.input().len() - self.position()
    }

    fn explain(&self, error: &minicbor::decode::Error) -> Error {
        if error.is_end_of_input() {
            Error::Truncated { what: self.what }
        } else if error.is_type_mismatch() {
            self.invalid("a field is of another type than it should be")
        } else {
            self.invalid("a field is not well-formed")
        }
    }
}

pub(crate) fn require_at_most(
    quantity: &'static str,
    value: usize,
    limit: usize,
) -> Result<(), Error> {
    if value > limit {
        return Err(Error::TooLarge { what: quantity, value: value as u64, limit: limit as u64 });
    }
    Ok(())
}

/// Checks fields that are to be written back: each a value that [`Reader::keep_unknown`] accepts.
pub(crate) fn validate_unknown(
    what: &'static str,
    unknown: &[(u32, Vec<u8>)],
) -> Result<(), Error> {
    require_at_most("number of unknown fields", unknown.len(), UNKNOWN_FIELDS_MAX)?;
    if !unknown.is_sorted_by(|(key, _), (next, _)| key < next) {
        return Err(Error::Invalid { what, why: "its unknown fields are not in ascending order" });
    }
    for (key, value) in unknown {
        let mut reader = Reader::new(what, value);
        reader.unknown_value(*key)?;
        reader.finish()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_skip(bytes: &[u8], expected: Result<(), &'static str>) {
        let mut reader = Reader::new("object", bytes);
        let found = reader.unknown_value(64).and_then(|_| reader.finish());
        match (found, expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(text)) => assert_eq!(error.to_string(), text, "{bytes:02x?}"),
            (found, expected) => panic!("{bytes:02x?}: {found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn a_map_gets_the_head_for_its_number_of_fields() {
        for fields in [0, 1, 23, 24, 255, 256] {
            let mut bytes = vec![0xff];
            let mut map = MapWriter::begin(&mut bytes);
            for key in 0..fields {
                put_bool(map.key(key), true);
            }
            map.finish();

            let mut reader = Reader::new("object", &bytes[1..]);
            let mut map = reader.map().unwrap();
            for key in 0..fields {
                assert_eq!(reader.next_key(&mut map).unwrap(), Some(key));
                assert!(reader.bool().unwrap());
            }
            assert_eq!(reader.next_key(&mut map).unwrap(), None);
            reader.finish().unwrap();
        }
    }

    #[test]
    fn a_field_of_a_newer_program_may_hold_any_value_of_the_subset() {
        for bytes in [
            &[0x00][..],
            &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x20],
            &[0x38, 0x18],
            &[0x42, 1, 2],
            &[0x62, b'a', b'b'],
            &[0xf4],
            &[0xf6],
            &[0x82, 0x01, 0x80],
            &[0xa1, 0x01, 0xa0],
        ] {
            check_skip(bytes, Ok(()));
        }
    }

    #[test]
    fn a_field_of_a_newer_program_holds_nothing_outside_the_subset() {
        let long = "object is invalid: a number or length is not in its shortest form";
        let no_type = "object is invalid: an unknown field has a value of no known type";
        let malformed = "object is invalid: a field is not well-formed";
        let cut = "object is cut short";
        for (bytes, expected) in [
            (&[][..], cut),
            (&[0x18, 0x17], long),
            (&[0x19, 0x00, 0xff], long),
            (&[0x1a, 0x00, 0x00, 0xff, 0xff], long),
            (&[0x1b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], long),
            (&[0x38, 0x17], long),
            (&[0x58, 0x01, 0x00], long),
            (&[0x78, 0x01, b'a'], long),
            (&[0x98, 0x01, 0x00], long),
            (&[0xb8, 0x01, 0x00, 0x00], long),
            (&[0x18], cut),
            (&[0x42, 0x00], cut),
            (&[0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], cut),
            (&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], cut),
            (&[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], cut),
            (&[0xa1, 0x01], cut),
            (&[0x5f, 0xff], no_type),
            (&[0x7f, 0xff], no_type),
            (&[0x9f, 0xff], no_type),
            (&[0xbf, 0xff], no_type),
            (&[0xc0, 0x00], no_type),
            (&[0xf7], no_type),
            (&[0xf9, 0x00, 0x00], no_type),
            (&[0xff], no_type),
            (&[0x1c], no_type),
            (&[0x61, 0xff], malformed),
            (&[0x00, 0x00], "object has bytes behind its end"),
        ] {
            check_skip(bytes, Err(expected));
        }
    }

    #[test]
    fn a_field_of_a_newer_program_is_nested_sixteen_levels_at_most() {
        let mut bytes = vec![0x81; 15];
        bytes.push(0x80);
        check_skip(&bytes, Ok(()));
        let mut bytes = vec![0x81; 16];
        bytes.push(0x80);
        check_skip(&bytes, Err("object is invalid: an unknown field is nested too deeply"));
        check_skip(
            &[0x81; 1 << 20],
            Err("object is invalid: an unknown field is nested too deeply"),
        );
    }

    #[test]
    fn keys_repeat_never_and_ascend_always() {
        for (bytes, expected) in [
            ([0xa2, 0x01, 0xf5, 0x01, 0xf5], "a field is there twice"),
            ([0xa2, 0x02, 0xf5, 0x01, 0xf5], "the fields are not in ascending order"),
        ] {
            let mut reader = Reader::new("object", &bytes);
            let mut map = reader.map().unwrap();
            reader.next_key(&mut map).unwrap();
            reader.bool().unwrap();
            let error = reader.next_key(&mut map).unwrap_err();
            assert_eq!(error, Error::Invalid { what: "object", why: expected });
        }
    }
}
