//! Known answers: what hashing, sealing, key derivation, cutting and encoding must yield on every machine.
//!
//! A machine with a faulty processor or memory, or a program that was built wrongly, fails here before it writes
//! backups that nobody can read. Published vectors come first; the others were made by this project and guard the
//! format, `docs/format.md`. Tests of the crate run them too.

use argon2::{Algorithm, Argon2, ParamsBuilder, Version};

use crate::chunk::Chunker;
use crate::compress::{Codec, Compressor, Decompressor};
use crate::config::{ChunkerParams, Config};
use crate::envelope::{self, ObjectKind};
use crate::error::Error;
use crate::id::RepositoryId;
use crate::key::{BlobKind, DedupSecret, KeyRing, MasterKey};
use crate::list::decode_list_page;
use crate::mark::Mark;
use crate::page::TreePage;
use crate::seal;
use crate::slot::{self, KdfCost, Slot};
use crate::snapshot::Snapshot;
use crate::tree::{decode_entry, encode_entry};

/// A computation whose result is known.
pub struct KnownAnswer {
    /// What is computed, and where the answer comes from.
    pub name: &'static str,
    compute: fn() -> Result<(), String>,
}

impl KnownAnswer {
    /// Computes it.
    ///
    /// # Errors
    /// What came out instead.
    pub fn check(&self) -> Result<(), String> {
        (self.compute)()
    }
}

/// All of them. The key derivations take some tenths of a second, everything else milliseconds.
pub const KNOWN_ANSWERS: [KnownAnswer; 10] = [
    KnownAnswer { name: "BLAKE3 (vectors of its authors)", compute: blake3_vectors },
    KnownAnswer {
        name: "XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03, A.3.1)",
        compute: cipher_vector,
    },
    KnownAnswer { name: "Argon2id (RFC 9106, 5.3)", compute: argon2_vector },
    KnownAnswer { name: "zstd frames (RFC 8878)", compute: zstd_frames },
    KnownAnswer { name: "blob ids", compute: blob_ids },
    KnownAnswer { name: "cut points", compute: cut_points },
    KnownAnswer { name: "sealed objects", compute: sealed_objects },
    KnownAnswer { name: "password slots", compute: password_slots },
    KnownAnswer { name: "exported keys", compute: exported_keys },
    KnownAnswer { name: "encodings of every kind of object", compute: encodings },
];

fn equal(what: &str, found: &[u8], expected: &str) -> Result<(), String> {
    let found: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
    if found == expected { Ok(()) } else { Err(format!("{what} is {found}, not {expected}")) }
}

fn describe(error: Error) -> String {
    error.to_string()
}

/// Bytes that look random, and are the same everywhere.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(b"putback vectors").finalize_xof().fill(&mut bytes);
    bytes
}

fn keys() -> KeyRing {
    KeyRing::new(DedupSecret::from_bytes([1; 32]), MasterKey::from_bytes([2; 32]))
}

/// Inputs of 0 bytes and of 31,744 bytes counting up to 250, from `test_vectors.json` of the BLAKE3 project.
fn blake3_vectors() -> Result<(), String> {
    let key = b"whats the Elvish word for friend";
    let context = "BLAKE3 2019-12-27 16:29:52 test vectors context";
    equal(
        "the hash of nothing",
        blake3::hash(b"").as_bytes(),
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    )?;
    equal(
        "the keyed hash of nothing",
        blake3::keyed_hash(key, b"").as_bytes(),
        "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26",
    )?;
    equal(
        "the key derived from nothing",
        &blake3::derive_key(context, b""),
        "2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d",
    )?;
    // Many chunks, so that the instructions for several at once are used.
    let long: Vec<u8> = (0..31_744_u32).map(|number| (number % 251) as u8).collect();
    equal(
        "the hash of 31,744 bytes",
        blake3::hash(&long).as_bytes(),
        "62b6960e1a44bcc1eb1a611a8d6235b6b4b78f32e7abc4fb4c6cdcce94895c47",
    )
}

fn cipher_vector() -> Result<(), String> {
    let key: [u8; 32] = std::array::from_fn(|i| 0x80 + i as u8);
    let nonce: [u8; 24] = std::array::from_fn(|i| 0x40 + i as u8);
    let aad = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
    let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
    let mut sealed = plain.to_vec();
    let tag = seal::encrypt(&key, &nonce, &aad, &mut sealed).map_err(describe)?;
    equal("the tag", &tag, "c0875924c1c7987947deafd8780acf49")?;
    equal("the beginning of the ciphertext", &sealed[..16], "bd6d179d3e83d43b9576579493c0e939")?;
    let mut opened = Vec::new();
    let is_open = seal::decrypt(&key, &nonce, &aad, &sealed, &tag, &mut opened).is_ok();
    if !is_open || opened != plain {
        return Err("what was sealed does not open to what it was".to_owned());
    }
    sealed[0] ^= 1;
    match seal::decrypt(&key, &nonce, &aad, &sealed, &tag, &mut Vec::new()) {
        Ok(()) => Err("a flipped bit was not noticed".to_owned()),
        Err(()) => Ok(()),
    }
}

fn argon2_vector() -> Result<(), String> {
    let failed = |error| format!("Argon2id failed: {error}");
    let mut params = ParamsBuilder::new();
    params.m_cost(32).t_cost(3).p_cost(4).output_len(32);
    params.data(argon2::AssociatedData::new(&[4; 12]).map_err(failed)?);
    let params = params.build().map_err(failed)?;
    let secret = [3; 8];
    let argon2 = Argon2::new_with_secret(&secret, Algorithm::Argon2id, Version::V0x13, params)
        .map_err(failed)?;
    let mut tag = [0; 32];
    argon2.hash_password_into(&[1; 32], &[2; 16], &mut tag).map_err(failed)?;
    equal("the tag", &tag, "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659")
}

fn zstd_frames() -> Result<(), String> {
    // As the program `zstd` made it.
    let frame = bytes_of(
        "28b52ffd00587d010054027075746261636b202c20616e64207468656e20736f6d65206d6f7265 \
         2074657874206f660a02003c81702c2a5c",
    );
    let plain = b"putback putback putback putback putback putback putback, and then some more text of putback\n";
    let mut decoded = Vec::new();
    let mut decompressor = Decompressor::new().map_err(describe)?;
    decompressor.decompress(Codec::Zstd, &frame, plain.len(), &mut decoded).map_err(describe)?;
    if decoded != plain {
        return Err("a frame of another program decodes to other bytes".to_owned());
    }
    let text: Vec<u8> = noise(5_000).iter().flat_map(|byte| [b'a' + byte % 16; 20]).collect();
    for level in [-7, 1, 3, 19] {
        let mut coded = Vec::new();
        let codec = Compressor::new(level)
            .and_then(|mut c| c.compress(&text, &mut coded))
            .map_err(describe)?;
        decompressor.decompress(codec, &coded, text.len(), &mut decoded).map_err(describe)?;
        if codec != Codec::Zstd || decoded != text {
            return Err(format!("what level {level} compressed decodes to other bytes"));
        }
    }
    Ok(())
}

fn blob_ids() -> Result<(), String> {
    let keys = DedupSecret::from_bytes([1; 32]).id_keys();
    let plain = noise(100_000);
    let id = |kind| *keys.blob_id(kind, &plain).as_bytes();
    equal("the id of data", &id(BlobKind::Data), ID_OF_DATA)?;
    equal("the id of a tree", &id(BlobKind::Tree), ID_OF_TREE)
}

fn cut_points() -> Result<(), String> {
    let gear = DedupSecret::from_bytes([1; 32]).gear_table();
    let params =
        ChunkerParams { bytes_min: 32 << 10, bytes_average: 128 << 10, bytes_max: 1 << 20 };
    let chunker = Chunker::new(params, &gear);
    let data = noise(4 << 20);
    let mut rest = data.as_slice();
    let mut lengths = Vec::new();
    while !rest.is_empty() {
        let length = chunker.cut(rest);
        lengths.extend_from_slice(&(length as u32).to_le_bytes());
        rest = &rest[length..];
    }
    equal("the hash of all lengths", blake3::hash(&lengths).as_bytes(), CUTS)
}

fn sealed_objects() -> Result<(), String> {
    let (repository, keys) = (RepositoryId::from_bytes([7; 16]), keys());
    let payload = noise(200);
    let master = keys.master("it", 1).map_err(describe)?;
    let object = envelope::seal(ObjectKind::Mark, repository, 1, master, [8; 32], &payload)
        .map_err(describe)?;
    equal("its hash", blake3::hash(&object).as_bytes(), SEALED_OBJECT)?;
    let opened =
        envelope::unseal(ObjectKind::Mark, repository, &keys, &object).map_err(describe)?;
    if opened == payload { Ok(()) } else { Err("it opens to other bytes".to_owned()) }
}

fn password_slots() -> Result<(), String> {
    let repository = RepositoryId::from_bytes([7; 16]);
    let salts = [[8; 32], [9; 32]];
    let slot = slot::seal(b"password", KdfCost::LOW, repository, &keys(), b"who", salts)
        .map_err(describe)?;
    equal("its hash", blake3::hash(&slot).as_bytes(), SLOT)?;
    let slot = Slot::decode(&slot).map_err(describe)?;
    let opened = slot.open(b"password").map_err(describe)?;
    if slot.info(&opened).map_err(describe)? != b"who" {
        return Err("its description is another".to_owned());
    }
    match slot.open(b"Password") {
        Err(Error::WrongPassword) => Ok(()),
        _ => Err("it opens with another password".to_owned()),
    }
}

fn exported_keys() -> Result<(), String> {
    let repository = RepositoryId::from_bytes([7; 16]);
    let text = slot::export(repository, &keys());
    equal("its hash", blake3::hash(text.as_bytes()).as_bytes(), EXPORTED_KEY)?;
    let (read, _) = slot::import(&text).map_err(describe)?;
    if read == repository { Ok(()) } else { Err("it is read as another".to_owned()) }
}

/// Decodes an object and encodes it again.
type Recode = fn(&[u8]) -> Result<Vec<u8>, Error>;

const ENCODINGS: [(&str, &str, Recode); 6] = [
    ("an entry", include_str!("../testdata/entry/everything-else.hex"), |bytes| {
        let mut out = Vec::new();
        encode_entry(&decode_entry(bytes)?, &mut out);
        Ok(out)
    }),
    ("a tree page", include_str!("../testdata/tree-page/three-entries.hex"), |bytes| {
        let mut builder = crate::page::PageBuilder::new();
        for entry in TreePage::decode(bytes)? {
            builder.push(&entry)?;
        }
        Ok(builder.finish().unwrap_or_default())
    }),
    ("a list page", include_str!("../testdata/list-page/chunks.hex"), |bytes| {
        decode_list_page(bytes, 1).map(|_| bytes.to_vec())
    }),
    ("a snapshot", include_str!("../testdata/snapshot/complete.hex"), |bytes| {
        Snapshot::decode(bytes).map(|snapshot| snapshot.encode())
    }),
    ("a configuration", include_str!("../testdata/configuration/changed.hex"), |bytes| {
        Config::decode(bytes).map(|config| config.encode())
    }),
    ("a mark", include_str!("../testdata/mark/packs.hex"), |bytes| {
        Mark::decode(bytes).map(|mark| mark.encode())
    }),
];

/// Hex digits; `#` begins a comment.
fn bytes_of(text: &str) -> Vec<u8> {
    let code = text.lines().flat_map(|line| line.split('#').next().unwrap_or_default().chars());
    let digits: Vec<u8> = code.filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| (byte << 4) | digit)).collect()
}

fn encodings() -> Result<(), String> {
    for (what, text, recode) in ENCODINGS {
        let bytes = bytes_of(text);
        let recoded = recode(&bytes).map_err(|error| format!("{what}: {error}"))?;
        if bytes.is_empty() || recoded != bytes {
            return Err(format!("{what} is encoded to other bytes"));
        }
        if recode(&bytes[..bytes.len() - 1]).is_ok() {
            return Err(format!("{what} that was cut short is taken for whole"));
        }
    }
    Ok(())
}

const ID_OF_DATA: &str = "7f1f89f8afb4899f0d56e424d08ffe7c446bdcf58c70e8d7b27fb76252a18106";
const ID_OF_TREE: &str = "7aa5772ad37baeeb7039abe143f2979aed810846ab7705b4e7d1accca867f645";
const CUTS: &str = "f138ee5e060d8b13814d16f56471a9a0bd4f2a9834fe1bd0753e2b771d953e55";
const SEALED_OBJECT: &str = "0e5e64293a1c664bb7d75457646e872b96df0dbbb632e53a2896862909484e2d";
const SLOT: &str = "1a1e9c3f408f5846d68463b8e1f2682857c3d53a1c9536eb1acbecc70f59901d";
const EXPORTED_KEY: &str = "d7a8411f7975c0ee902378ea98ce45f26be749be58c63c060910c09018944974";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_answer_is_found() {
        let wrong: Vec<String> = KNOWN_ANSWERS
            .iter()
            .filter_map(|known| Some(format!("{}: {}", known.name, known.check().err()?)))
            .collect();
        assert_eq!(wrong, [""; 0]);
    }

    #[test]
    fn another_answer_is_a_failure_that_names_both() {
        assert_eq!(equal("it", &[1, 0xab], "01ab"), Ok(()));
        assert_eq!(equal("it", &[1], "02"), Err("it is 01, not 02".to_owned()));
    }
}
