//! Password slots: the keys of a repository under one password.
//!
//! Argon2id (RFC 9106) turns the password into a key-encryption key and a commitment. The commitment is
//! checked, in constant time, before anything is decrypted: ChaCha20-Poly1305 does not commit to its
//! key, and without it one slot could be made that opens under several passwords.
//! Layout: `docs/format.md`, "Password slots".

use argon2::{Algorithm, Argon2, Params, Version};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::envelope::{self, MAGIC, ObjectKind};
use crate::error::Error;
use crate::id::RepositoryId;
use crate::key::{DedupSecret, KeyRing, MasterKey};
use crate::limits::{EPOCHS_MAX, SMALL_OBJECT_BYTES_MAX};
use crate::seal::{SEAL_OVERHEAD_BYTES, SealKey};
use crate::wire::{Reader, length_u32};

const WHAT: &str = "a password slot";
const KIND: u8 = 1;
const VERSION: u8 = 1;
const CONTEXT_CIPHER: &str = "putback 2026-11-22 v1 slot cipher";
const CONTEXT_NONCE: &str = "putback 2026-11-22 v1 slot nonce";
const CONTEXT_COMMITMENT: &str = "putback 2026-11-22 v1 slot commitment";
/// Magic, kind, version, two zero bytes, repository, memory, iterations, lanes, salt.
const COST_HEADER_BYTES: usize = 4 + 1 + 1 + 2 + 16 + 12 + 32;
/// The above and the commitment.
const HEADER_BYTES: usize = COST_HEADER_BYTES + 32;
/// Dedup secret, number of epochs, and room for all of them: the size tells nothing.
const SECRETS_BYTES: usize = 32 + 4 + EPOCHS_MAX * 36;

/// What Argon2id may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Lanes, computed in parallel.
    pub lanes: u32,
}

impl KdfCost {
    /// The least that a slot may ask for, for machines with little memory.
    pub const LOW: Self = Self { memory_kib: 19 << 10, iterations: 2, lanes: 1 };
    /// RFC 9106, section 4: the second recommended option.
    pub const DEFAULT: Self = Self { memory_kib: 64 << 10, iterations: 3, lanes: 4 };
    /// For those who want a guess to cost a second and a GiB.
    pub const HIGH: Self = Self { memory_kib: 1 << 20, iterations: 3, lanes: 4 };

    /// Refuses what would protect too little, and what a hostile slot could use to exhaust a reader:
    /// memory outside 19 MiB to 2 GiB, more than 16 iterations or lanes, more than 4 GiB in all passes.
    fn check(self) -> Result<Self, Error> {
        let total = u64::from(self.memory_kib) * u64::from(self.iterations);
        let why = if self.memory_kib < Self::LOW.memory_kib {
            "it asks for less than 19 MiB of memory"
        } else if self.memory_kib > 2 << 20 {
            "it asks for more than 2 GiB of memory"
        } else if !(1..=16).contains(&self.iterations) || !(1..=16).contains(&self.lanes) {
            "iterations or lanes are outside 1 to 16"
        } else if total > 4 << 20 {
            "memory times iterations is above 4 GiB"
        } else {
            return Ok(self);
        };
        Err(Error::Invalid { what: WHAT, why })
    }
}

/// The slot's own key and its commitment.
fn derive(
    password: &[u8],
    cost: KdfCost,
    cost_header: &[u8],
    salt: &[u8; 32],
) -> Result<(SealKey, [u8; 32]), Error> {
    let failed =
        |_| Error::SelfCheck { what: WHAT, why: "Argon2id failed, perhaps for want of memory" };
    let params =
        Params::new(cost.memory_kib, cost.iterations, cost.lanes, Some(32)).map_err(failed)?;
    let mut output = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password, salt, output.as_mut())
        .map_err(failed)?;
    // Binding the header makes cost, salt and repository part of the keys.
    let mut material = Zeroizing::new(output.to_vec());
    material.extend_from_slice(cost_header);
    let key = SealKey {
        cipher: blake3::derive_key(CONTEXT_CIPHER, &material),
        nonce: blake3::derive_key(CONTEXT_NONCE, &material),
    };
    Ok((key, blake3::derive_key(CONTEXT_COMMITMENT, &material)))
}

/// Makes a slot. `info` says whose password it is; anyone who opens any slot can read it.
/// `salts` are random and used once: the slot's and the one of its description.
///
/// # Errors
/// - [`Error::Invalid`]: the cost is outside its limits.
/// - [`Error::SelfCheck`]: Argon2id failed, or the slot did not open again.
pub fn seal(
    password: &[u8],
    cost: KdfCost,
    repository: RepositoryId,
    keys: &KeyRing,
    info: &[u8],
    salts: [[u8; 32]; 2],
) -> Result<Vec<u8>, Error> {
    let cost = cost.check()?;
    let mut slot = Vec::with_capacity(HEADER_BYTES + SECRETS_BYTES + SEAL_OVERHEAD_BYTES);
    slot.extend_from_slice(&MAGIC);
    slot.extend_from_slice(&[KIND, VERSION, 0, 0]);
    slot.extend_from_slice(repository.as_bytes());
    for number in [cost.memory_kib, cost.iterations, cost.lanes] {
        slot.extend_from_slice(&number.to_le_bytes());
    }
    slot.extend_from_slice(&salts[0]);
    let (key, commitment) = derive(password, cost, &slot, &salts[0])?;
    slot.extend_from_slice(&commitment);

    let secrets = encode_secrets(keys)?;
    let header = slot.clone();
    key.seal(&salts[0], &header, &secrets, &mut slot)?;

    let epoch = keys.newest_epoch();
    let info = envelope::seal(
        ObjectKind::SlotInfo,
        repository,
        epoch,
        keys.master(WHAT, epoch)?,
        salts[1],
        info,
    )?;
    slot.extend_from_slice(&info);

    let mut opened = Vec::new();
    let sealed = Slot::decode(&slot)?.sealed;
    key.unseal(WHAT, &header, sealed, &mut opened)?;
    let same = opened == *secrets;
    opened.zeroize();
    if same {
        Ok(slot)
    } else {
        Err(Error::SelfCheck { what: WHAT, why: "it opened to other bytes" })
    }
}

/// A slot taken apart, still closed.
pub struct Slot<'a> {
    /// The repository that it opens; authenticated by opening.
    pub repository: RepositoryId,
    /// What opening it costs; within the limits.
    pub cost: KdfCost,
    salt: [u8; 32],
    commitment: [u8; 32],
    header: &'a [u8],
    sealed: &'a [u8],
    info: &'a [u8],
}

impl<'a> Slot<'a> {
    /// Takes a slot apart.
    ///
    /// # Errors
    /// - [`Error::WrongMagic`], [`Error::Truncated`], [`Error::TooLarge`]: not a slot.
    /// - [`Error::UnknownVersion`]: written by a newer program.
    /// - [`Error::Invalid`]: it asks for a cost outside the limits.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Error> {
        length_u32(WHAT, bytes.len()).and_then(|length| {
            if length > SMALL_OBJECT_BYTES_MAX {
                let limit = SMALL_OBJECT_BYTES_MAX.into();
                return Err(Error::TooLarge { what: WHAT, value: length.into(), limit });
            }
            Ok(())
        })?;
        let mut reader = Reader::new(bytes, WHAT);
        if reader.array()? != MAGIC || reader.u8()? != KIND {
            return Err(Error::WrongMagic { what: WHAT });
        }
        let version = reader.u8()?;
        if version != VERSION {
            return Err(Error::UnknownVersion { what: WHAT, version: version.into() });
        }
        if reader.array()? != [0; 2] {
            return Err(Error::Invalid { what: WHAT, why: "reserved bytes are not zero" });
        }
        let repository = RepositoryId::from_bytes(reader.array()?);
        let cost =
            KdfCost { memory_kib: reader.u32()?, iterations: reader.u32()?, lanes: reader.u32()? }
                .check()?;
        let salt = reader.array()?;
        let commitment = reader.array()?;
        let sealed = reader.bytes(SECRETS_BYTES + SEAL_OVERHEAD_BYTES)?;
        let header = &bytes[..HEADER_BYTES];
        Ok(Self { repository, cost, salt, commitment, header, sealed, info: reader.rest() })
    }

    /// Opens the slot. Costs what [`Slot::cost`] says, in time and memory.
    ///
    /// # Errors
    /// - [`Error::WrongPassword`]: the commitment is of another password.
    /// - [`Error::Damaged`]: the password is right and the rest is not.
    pub fn open(&self, password: &[u8]) -> Result<KeyRing, Error> {
        let cost_header = &self.header[..COST_HEADER_BYTES];
        let (key, commitment) = derive(password, self.cost, cost_header, &self.salt)?;
        if !bool::from(commitment.ct_eq(&self.commitment)) {
            return Err(Error::WrongPassword);
        }
        let mut secrets = Vec::new();
        key.unseal(WHAT, self.header, self.sealed, &mut secrets)?;
        let keys = decode_secrets(&secrets);
        secrets.zeroize();
        keys
    }

    /// The newest epoch whose key the slot holds, as its description says; unauthenticated until that is read.
    ///
    /// # Errors
    /// As [`envelope::epoch_of`].
    pub fn newest_epoch(&self) -> Result<u32, Error> {
        envelope::epoch_of(ObjectKind::SlotInfo, self.repository, self.info)
    }

    /// Whose password it is; readable with the keys of any slot of the same repository.
    ///
    /// # Errors
    /// As [`envelope::unseal`].
    pub fn info(&self, keys: &KeyRing) -> Result<Vec<u8>, Error> {
        envelope::unseal(ObjectKind::SlotInfo, self.repository, keys, self.info)
    }
}

fn encode_secrets(keys: &KeyRing) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut secrets = Zeroizing::new(Vec::with_capacity(SECRETS_BYTES));
    secrets.extend_from_slice(keys.dedup.as_bytes());
    secrets.extend_from_slice(&length_u32("epochs", keys.masters.len())?.to_le_bytes());
    for (epoch, master) in &keys.masters {
        secrets.extend_from_slice(&epoch.to_le_bytes());
        secrets.extend_from_slice(master.as_bytes());
    }
    secrets.resize(SECRETS_BYTES, 0);
    Ok(secrets)
}

fn decode_secrets(secrets: &[u8]) -> Result<KeyRing, Error> {
    let mut reader = Reader::new(secrets, WHAT);
    let dedup = DedupSecret::from_bytes(reader.array()?);
    let count = reader.count("the number of epochs", EPOCHS_MAX as u32, 36)?;
    let mut masters = std::collections::BTreeMap::new();
    for _ in 0..count {
        masters.insert(reader.u32()?, MasterKey::from_bytes(reader.array()?));
    }
    if masters.is_empty() || masters.len() != count {
        return Err(Error::Invalid { what: WHAT, why: "epochs are missing or double" });
    }
    Ok(KeyRing { dedup, masters })
}

/// Digits of the printed form: Crockford's base 32, which has no I, L, O and U.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const EXPORT_TITLE: &str = "putback key 1";
const EXPORT_LINE_DIGITS: usize = 24;

/// The keys as text that can be printed and typed in again. It opens the repository without a
/// password, and stays valid when passwords change.
#[must_use]
pub fn export(repository: RepositoryId, keys: &KeyRing) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(Vec::new());
    bytes.extend_from_slice(repository.as_bytes());
    bytes.extend_from_slice(keys.dedup.as_bytes());
    for (epoch, master) in &keys.masters {
        bytes.extend_from_slice(&epoch.to_le_bytes());
        bytes.extend_from_slice(master.as_bytes());
    }
    let digits = Zeroizing::new(to_digits(&bytes));
    let mut text = Zeroizing::new(format!("{EXPORT_TITLE}\nrepository {repository}\n"));
    for (number, line) in digits.as_bytes().chunks(EXPORT_LINE_DIGITS).enumerate() {
        text.push_str(&format!("{:02}", number + 1));
        for group in line.chunks(6) {
            text.push(' ');
            text.extend(group.iter().copied().map(char::from));
        }
        text.push_str(&format!(" {}\n", line_check(number, line)));
    }
    text
}

/// Reads what [`export`] wrote, also when typed with other spaces, in lower case, or with O for 0
/// and I or L for 1.
///
/// # Errors
/// [`Error::Invalid`] if the title is missing or nothing follows it, [`Error::IdInvalid`] naming the
/// line whose check digits do not fit.
pub fn import(text: &str) -> Result<(RepositoryId, KeyRing), Error> {
    let what = "an exported key";
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    if !lines.next().is_some_and(|line| line.eq_ignore_ascii_case(EXPORT_TITLE)) {
        return Err(Error::Invalid { what, why: "its first line is not 'putback key 1'" });
    }
    let mut digits = Zeroizing::new(Vec::new());
    let lines = lines.filter(|line| !line.to_ascii_lowercase().starts_with("repository"));
    for (number, line) in lines.enumerate() {
        let wrong = || Error::IdInvalid {
            what: "line of an exported key (its check digits do not fit)",
            text: format!("line {}", number + 1),
        };
        let typed: Vec<u8> = line
            .bytes()
            .filter(|byte| !byte.is_ascii_whitespace() && *byte != b'-')
            .map(|byte| match byte.to_ascii_uppercase() {
                b'O' => b'0',
                b'I' | b'L' => b'1',
                other => other,
            })
            .collect();
        let number_shown = format!("{:02}", number + 1);
        let Some(rest) = typed.strip_prefix(number_shown.as_bytes()) else { return Err(wrong()) };
        let Some((content, check)) = rest.split_last_chunk::<2>() else { return Err(wrong()) };
        if line_check(number, content).as_bytes() != check {
            return Err(wrong());
        }
        digits.extend_from_slice(content);
    }
    let bytes = Zeroizing::new(
        from_digits(&digits).ok_or(Error::Invalid { what, why: "it holds a foreign character" })?,
    );
    let mut reader = Reader::new(&bytes, what);
    let repository = RepositoryId::from_bytes(reader.array()?);
    let dedup = DedupSecret::from_bytes(reader.array()?);
    let rest = reader.rest();
    let mut masters = std::collections::BTreeMap::new();
    let (epochs, remainder) = rest.as_chunks::<36>();
    for epoch in epochs.iter().take(EPOCHS_MAX) {
        let mut reader = Reader::new(epoch, what);
        masters.insert(reader.u32()?, MasterKey::from_bytes(reader.array()?));
    }
    if masters.is_empty()
        || masters.len() != epochs.len()
        || remainder.iter().any(|byte| *byte != 0)
    {
        return Err(Error::Invalid { what, why: "lines are missing or double" });
    }
    Ok((repository, KeyRing { dedup, masters }))
}

/// Two digits that catch a mistyped or swapped line.
fn line_check(number: usize, digits: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[number as u8]);
    hasher.update(digits);
    let hash = hasher.finalize();
    let digit = |byte: u8| char::from(DIGITS[usize::from(byte & 31)]);
    [digit(hash.as_bytes()[0]), digit(hash.as_bytes()[1])].iter().collect()
}

fn to_digits(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(bytes.len() * 8 / 5 + 1);
    for group in bytes.chunks(5) {
        let mut five = [0; 8];
        five[3..3 + group.len()].copy_from_slice(group);
        let word = u64::from_be_bytes(five);
        let count = (group.len() * 8).div_ceil(5);
        for index in 0..count {
            digits.push(char::from(DIGITS[(word >> (35 - 5 * index)) as usize & 31]));
        }
        five.zeroize();
    }
    digits
}

fn from_digits(digits: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(digits.len() * 5 / 8);
    for group in digits.chunks(8) {
        let mut word = 0u64;
        for (index, digit) in group.iter().enumerate() {
            let value = DIGITS.iter().position(|candidate| candidate == digit)?;
            word |= (value as u64) << (35 - 5 * index);
        }
        bytes.extend_from_slice(&word.to_be_bytes()[3..3 + group.len() * 5 / 8]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> KeyRing {
        let mut keys =
            KeyRing::new(DedupSecret::from_bytes([1; 32]), MasterKey::from_bytes([2; 32]));
        keys.insert(2, MasterKey::from_bytes([3; 32])).unwrap();
        keys
    }

    fn slot() -> Vec<u8> {
        let repository = RepositoryId::from_bytes([9; 16]);
        seal(b"secret", KdfCost::LOW, repository, &keys(), b"who", [[4; 32], [5; 32]]).unwrap()
    }

    #[test]
    fn a_slot_opens_with_its_password_and_with_no_other() {
        let bytes = slot();
        let slot = Slot::decode(&bytes).unwrap();
        let opened = slot.open(b"secret").unwrap();
        assert_eq!(opened.dedup.as_bytes(), &[1; 32]);
        assert_eq!(opened.masters[&2].as_bytes(), &[3; 32]);
        assert_eq!(slot.info(&opened).unwrap(), b"who");
        assert!(matches!(slot.open(b"Secret"), Err(Error::WrongPassword)));
    }

    #[test]
    fn a_flipped_byte_anywhere_keeps_a_slot_closed_or_hides_its_description() {
        let bytes = slot();
        for position in (0..bytes.len()).step_by(41) {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0x40;
            let opened = Slot::decode(&damaged).and_then(|slot| {
                let keys = slot.open(b"secret")?;
                slot.info(&keys)
            });
            assert!(opened.is_err(), "byte {position}");
        }
    }

    #[test]
    fn a_hostile_cost_is_refused_before_it_is_paid() {
        for (memory_kib, iterations, lanes) in [
            (u32::MAX, 1, 1),
            (19 << 10, 17, 1),
            (19 << 10, 1, 17),
            (1024, 1, 1),
            (2 << 20, 3, 1),
            (19 << 10, 0, 1),
        ] {
            let cost = KdfCost { memory_kib, iterations, lanes };
            assert!(cost.check().is_err(), "{cost:?}");
        }
        for cost in [KdfCost::LOW, KdfCost::DEFAULT, KdfCost::HIGH] {
            assert_eq!(cost.check(), Ok(cost));
        }
    }

    #[test]
    fn an_exported_key_is_read_back_however_it_was_typed_and_a_slip_is_named_by_its_line() {
        let repository = RepositoryId::from_bytes([0x5a; 16]);
        let text = export(repository, &keys());
        let sloppy = text
            .to_lowercase()
            .replace(' ', "  ")
            .replace('0', "o")
            .replace("putback  key  1", "putback key 1");
        for typed in [text.as_str(), &sloppy] {
            let (id, keys) = import(typed).unwrap();
            assert_eq!(id, repository);
            assert_eq!(keys.masters[&1].as_bytes(), &[2; 32]);
            assert_eq!(keys.masters[&2].as_bytes(), &[3; 32]);
        }
        let mut many = keys();
        for epoch in 3..=EPOCHS_MAX as u32 {
            many.insert(epoch, MasterKey::from_bytes([epoch as u8; 32])).unwrap();
        }
        let (_, read) = import(&export(repository, &many)).unwrap();
        assert_eq!(read.masters.len(), EPOCHS_MAX);
        let mut lines: Vec<String> = text.lines().map(String::from).collect();
        let slip = lines[4].replacen(|c: char| c.is_ascii_alphabetic(), "7", 1);
        lines[4] = if slip == lines[4] { lines[4].replacen('0', "7", 2) } else { slip };
        let Err(Error::IdInvalid { text, .. }) = import(&lines.join("\n")) else {
            panic!("accepted")
        };
        assert_eq!(text, "line 3");
        assert!(import("").is_err() && import("putback key 1\n").is_err());
    }
}
