//! Authenticated encryption: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03).
//!
//! The only module that names the cipher. With the feature `fast-aead` the same bytes are produced
//! through aws-lc-rs under an HChaCha20 sub-key, at about twice the speed.

#[cfg(any(test, not(feature = "fast-aead")))]
use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::Error;

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 24;
/// Bytes of an authentication tag.
pub const TAG_BYTES: usize = 16;
/// What sealing adds: the nonce before and the tag behind.
pub const SEAL_OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// A key for sealing together with the key that nonces are derived under.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SealKey {
    pub(crate) cipher: [u8; 32],
    pub(crate) nonce: [u8; 32],
}

impl SealKey {
    /// The nonce for `plain`: the first 24 bytes of keyed BLAKE3 over salt, length of the AAD, AAD and
    /// plain bytes. A broken random generator can then repeat a nonce only together with the same
    /// plain bytes, which yields the same ciphertext and tells nothing.
    fn nonce_for(&self, salt: &[u8; 32], aad: &[u8], plain: &[u8]) -> [u8; NONCE_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.nonce);
        hasher.update(salt);
        hasher.update(&(aad.len() as u64).to_le_bytes());
        hasher.update(aad);
        hasher.update(plain);
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&hasher.finalize().as_bytes()[..NONCE_BYTES]);
        nonce
    }

    /// Appends `nonce | ciphertext | tag` for `plain` to `out`.
    ///
    /// # Errors
    /// [`Error::SelfCheck`] if the cipher refuses; none does for the sizes of the format.
    pub fn seal(
        &self,
        salt: &[u8; 32],
        aad: &[u8],
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let nonce = self.nonce_for(salt, aad, plain);
        out.reserve(plain.len() + SEAL_OVERHEAD_BYTES);
        out.extend_from_slice(&nonce);
        let start = out.len();
        out.extend_from_slice(plain);
        let tag = encrypt(&self.cipher, &nonce, aad, &mut out[start..])?;
        out.extend_from_slice(&tag);
        Ok(())
    }

    /// Unseals `nonce | ciphertext | tag` into `out`, which is overwritten. On failure it is empty.
    ///
    /// # Errors
    /// [`Error::Damaged`] naming `what`, if a bit is not as it was sealed or the key is another.
    pub fn unseal(
        &self,
        what: &'static str,
        aad: &[u8],
        sealed: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        out.clear();
        let damaged = Error::Damaged { what };
        let Some((nonce, rest)) = sealed.split_first_chunk::<NONCE_BYTES>() else {
            return Err(damaged);
        };
        let Some((ciphertext, tag)) = rest.split_last_chunk::<TAG_BYTES>() else {
            return Err(damaged);
        };
        decrypt(&self.cipher, nonce, aad, ciphertext, tag, out).map_err(|()| {
            out.clear();
            damaged
        })
    }
}

#[cfg(feature = "fast-aead")]
mod fast {
    use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
    use zeroize::Zeroizing;

    use super::{NONCE_BYTES, TAG_BYTES};

    /// The ChaCha20-Poly1305 key and nonce that XChaCha20 stands for (draft, section 2.3).
    fn subkey(key: &[u8; 32], nonce: &[u8; NONCE_BYTES]) -> Option<(LessSafeKey, Nonce)> {
        let mut prefix = [0; 16];
        prefix.copy_from_slice(&nonce[..16]);
        let subkey = Zeroizing::new(<[u8; 32]>::from(chacha20::hchacha::<chacha20::R20>(
            &(*key).into(),
            &prefix.into(),
        )));
        let mut short = [0; 12];
        short[4..].copy_from_slice(&nonce[16..]);
        let key = UnboundKey::new(&CHACHA20_POLY1305, subkey.as_ref()).ok()?;
        Some((LessSafeKey::new(key), Nonce::assume_unique_for_key(short)))
    }

    pub(super) fn encrypt(
        key: &[u8; 32],
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        buffer: &mut [u8],
    ) -> Option<[u8; TAG_BYTES]> {
        let (key, nonce) = subkey(key, nonce)?;
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), buffer).ok()?;
        tag.as_ref().try_into().ok()
    }

    pub(super) fn decrypt(
        key: &[u8; 32],
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_BYTES],
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let (key, nonce) = subkey(key, nonce)?;
        out.resize(ciphertext.len(), 0);
        key.open_separate_gather(nonce, Aad::from(aad), ciphertext, tag, out).ok()
    }
}

pub(crate) fn encrypt(
    key: &[u8; 32],
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    buffer: &mut [u8],
) -> Result<[u8; TAG_BYTES], Error> {
    #[cfg(feature = "fast-aead")]
    let tag = fast::encrypt(key, nonce, aad, buffer);
    #[cfg(not(feature = "fast-aead"))]
    let tag = portable_encrypt(key, nonce, aad, buffer);
    tag.ok_or(Error::SelfCheck { what: "a sealed object", why: "the cipher refused" })
}

pub(crate) fn decrypt(
    key: &[u8; 32],
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    ciphertext: &[u8],
    tag: &[u8; TAG_BYTES],
    out: &mut Vec<u8>,
) -> Result<(), ()> {
    #[cfg(feature = "fast-aead")]
    let result = fast::decrypt(key, nonce, aad, ciphertext, tag, out);
    #[cfg(not(feature = "fast-aead"))]
    let result = portable_decrypt(key, nonce, aad, ciphertext, tag, out);
    result.ok_or(())
}

/// The portable cipher: what is used without `fast-aead`, and what tests hold the fast one against.
#[cfg(any(test, not(feature = "fast-aead")))]
fn portable_encrypt(
    key: &[u8; 32],
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    buffer: &mut [u8],
) -> Option<[u8; TAG_BYTES]> {
    let cipher = XChaCha20Poly1305::new(&(*key).into());
    cipher.encrypt_inout_detached(&(*nonce).into(), aad, buffer.into()).ok().map(Into::into)
}

/// See [`portable_encrypt`].
#[cfg(any(test, not(feature = "fast-aead")))]
fn portable_decrypt(
    key: &[u8; 32],
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    ciphertext: &[u8],
    tag: &[u8; TAG_BYTES],
    out: &mut Vec<u8>,
) -> Option<()> {
    out.extend_from_slice(ciphertext);
    let cipher = XChaCha20Poly1305::new(&(*key).into());
    cipher
        .decrypt_inout_detached(&(*nonce).into(), aad, out.as_mut_slice().into(), &(*tag).into())
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SealKey {
        SealKey { cipher: [1; 32], nonce: [2; 32] }
    }

    #[test]
    fn the_fast_and_the_portable_cipher_yield_the_same_bytes() {
        for length in [0, 1, 63, 64, 65, 1000, 100_000] {
            let plain: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
            let (mut fast, mut portable) = (plain.clone(), plain.clone());
            let (key, nonce) = ([9; 32], [4; 24]);
            let tag = encrypt(&key, &nonce, b"aad", &mut fast).unwrap();
            assert_eq!(portable_encrypt(&key, &nonce, b"aad", &mut portable).unwrap(), tag);
            assert_eq!(fast, portable);
            let mut opened = Vec::new();
            decrypt(&key, &nonce, b"aad", &fast, &tag, &mut opened).unwrap();
            assert_eq!(opened, plain);
            let mut opened = Vec::new();
            portable_decrypt(&key, &nonce, b"aad", &fast, &tag, &mut opened).unwrap();
            assert_eq!(opened, plain);
        }
    }

    /// The test vector of draft-irtf-cfrg-xchacha-03, appendix A.3.1.
    #[test]
    fn sealing_matches_the_published_vector() {
        let key: [u8; 32] = std::array::from_fn(|i| 0x80 + i as u8);
        let nonce: [u8; 24] = std::array::from_fn(|i| 0x40 + i as u8);
        let aad = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let mut buffer = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.".to_vec();
        let tag = encrypt(&key, &nonce, &aad, &mut buffer).unwrap();
        assert_eq!(buffer[..8], [0xbd, 0x6d, 0x17, 0x9d, 0x3e, 0x83, 0xd4, 0x3b]);
        assert_eq!(
            tag,
            [
                0xc0, 0x87, 0x59, 0x24, 0xc1, 0xc7, 0x98, 0x79, 0x47, 0xde, 0xaf, 0xd8, 0x78, 0x0a,
                0xcf, 0x49
            ]
        );
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let mut sealed = Vec::new();
        key().seal(&[3; 32], b"aad", b"some plain bytes", &mut sealed).unwrap();
        let mut out = Vec::new();
        key().unseal("it", b"aad", &sealed, &mut out).unwrap();
        assert_eq!(out, b"some plain bytes");
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(key().unseal("it", b"aad", &damaged, &mut out).is_err(), "bit {bit}");
            assert!(out.is_empty());
        }
        for length in 0..sealed.len() {
            assert!(key().unseal("it", b"aad", &sealed[..length], &mut out).is_err());
        }
        assert!(key().unseal("it", b"other", &sealed, &mut out).is_err());
    }

    #[test]
    fn the_nonce_changes_with_salt_aad_and_plain_bytes() {
        let nonce = |salt: u8, aad: &[u8], plain: &[u8]| key().nonce_for(&[salt; 32], aad, plain);
        let first = nonce(0, b"a", b"bc");
        assert_eq!(first, nonce(0, b"a", b"bc"));
        for other in [
            nonce(1, b"a", b"bc"),
            nonce(0, b"ab", b"c"),
            nonce(0, b"a", b"bd"),
            nonce(0, b"", b"abc"),
        ] {
            assert_ne!(first, other);
        }
    }
}
