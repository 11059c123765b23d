//! The file that keeps ids from one process to the next.
//!
//! It may be deleted, damaged or out of date at any time: what cannot be read is as good as absent,
//! and stale ids show by a 404. It names neither the account nor a token, only a hash that must
//! agree.
//!
//! Layout, integers little endian: magic; key (32 bytes); time of the look-up (u64, seconds); number
//! of folders (u32); for each its name, the number of its ids (u32) and these (i64), the number of
//! its rows (u32) and for each name, id (i64), size (u64), time of creation (u64, seconds, 0: not
//! known), checksum (u8 whether known, u32). A name is its length (u8) and its bytes; length 0 stands
//! for 64 hexadecimal digits, kept as 32 bytes; the name of the root is the length 255. At the end
//! BLAKE3 of all before.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use putback_store::path::COMPONENT_BYTES_MAX;
use putio::FileId;

use super::known::{Known, Origin, Row};

const MAGIC: &[u8] = b"putback put.io ids 1\n";

/// Larger files are not read: about four million objects.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Where the folder is, is looked up again after this time: somebody may have renamed it.
const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Stands for the empty name in place of a length.
const ROOT: u8 = u8::MAX;

/// Reads what an earlier process wrote; nothing if that is absent, old, damaged or of another folder.
pub(super) fn load(path: &Path, key: &[u8; 32], now: SystemTime) -> Option<Known> {
    let metadata = fs_err::metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return None;
    }
    decode(&fs_err::read(path).ok()?, key, now)
}

/// Replaces the file by `bytes`. Not synced: a damaged file is as good as none.
pub(super) fn save(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    super::spool::create_private_directories(directory)?;
    let mut file = tempfile::NamedTempFile::with_prefix_in("putio-ids.", directory)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

/// The bytes of the file.
pub(super) fn encode(known: &Known, key: &[u8; 32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&seconds(known.resolved_at).to_le_bytes());
    put_count(&mut bytes, known.folders().len());
    for (name, folder) in known.folders() {
        put_name(&mut bytes, name);
        put_count(&mut bytes, folder.ids.len());
        for id in &folder.ids {
            bytes.extend_from_slice(&id.0.to_le_bytes());
        }
        let rows = folder.rows();
        put_count(&mut bytes, rows.len());
        for (name, row) in rows {
            put_name(&mut bytes, name);
            bytes.extend_from_slice(&row.id.0.to_le_bytes());
            bytes.extend_from_slice(&row.size.to_le_bytes());
            bytes.extend_from_slice(&seconds(row.created_at).to_le_bytes());
            bytes.push(row.crc32.is_some().into());
            bytes.extend_from_slice(&row.crc32.unwrap_or_default().to_le_bytes());
        }
    }
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

/// The reverse of [`encode`]; total on any input.
pub(super) fn decode(bytes: &[u8], key: &[u8; 32], now: SystemTime) -> Option<Known> {
    let (body, hash) = bytes.split_last_chunk::<32>()?;
    if blake3::hash(body) != blake3::Hash::from_bytes(*hash) {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?.strip_prefix(key)?;
    let resolved_at = time(u64::from_le_bytes(take(&mut rest)?))?;
    // A clock that was set back makes it as unknown as a long time does.
    if now.duration_since(resolved_at).ok()? > AGE_MAX {
        return None;
    }
    let mut known = Known::resolved(resolved_at);
    for _ in 0..u32::from_le_bytes(take(&mut rest)?) {
        let name = take_name(&mut rest)?;
        let mut ids = Vec::new();
        for _ in 0..u32::from_le_bytes(take(&mut rest)?) {
            ids.push(FileId(i64::from_le_bytes(take(&mut rest)?)));
        }
        if ids.is_empty() {
            return None;
        }
        let mut rows = Vec::new();
        for _ in 0..u32::from_le_bytes(take(&mut rest)?) {
            let name = take_name(&mut rest)?;
            let id = FileId(i64::from_le_bytes(take(&mut rest)?));
            let size = u64::from_le_bytes(take(&mut rest)?);
            let created_at = time(u64::from_le_bytes(take(&mut rest)?));
            let [is_known] = take(&mut rest)?;
            let crc32 = u32::from_le_bytes(take(&mut rest)?);
            let crc32 = (is_known != 0).then_some(crc32);
            rows.push((name, Row { id, size, crc32, created_at, origin: Origin::Cached }));
        }
        known.add_cached(&name, ids, rows);
    }
    rest.is_empty().then_some(known)
}

/// Reads a file of these bytes behind its head and before its hash, and writes it again without them.
#[cfg(feature = "fuzzing")]
pub(crate) fn recode(bytes: &[u8]) -> Option<Vec<u8>> {
    const KEY: [u8; 32] = [7; 32];
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_330_800);
    let head = encode(&Known::resolved(now), &KEY);
    // Without the number of folders, which is zero there, and the hash.
    let head = &head[..head.len() - 36];
    let mut file = [head, bytes].concat();
    let hash = blake3::hash(&file);
    file.extend_from_slice(hash.as_bytes());
    let file = encode(&decode(&file, &KEY, now)?, &KEY);
    Some(file[head.len()..file.len() - 32].to_vec())
}

fn put_count(bytes: &mut Vec<u8>, count: usize) {
    // A folder of more than 2^32 rows would not have fitted into memory; one that does not decode
    // costs a listing.
    bytes.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_name(bytes: &mut Vec<u8>, name: &str) {
    match blake3::Hash::from_hex(name) {
        // Upper case would not come back.
        Ok(hash) if hash.to_hex().as_str() == name => {
            bytes.push(0);
            bytes.extend_from_slice(hash.as_bytes());
        }
        _ if name.is_empty() => bytes.push(ROOT),
        _ => {
            // Components of paths have at most 200 bytes.
            bytes.push(u8::try_from(name.len()).unwrap_or(ROOT));
            bytes.extend_from_slice(name.as_bytes());
        }
    }
}

fn take_name(rest: &mut &[u8]) -> Option<String> {
    match take(rest)? {
        [0] => Some(blake3::Hash::from_bytes(take(rest)?).to_hex().to_string()),
        [ROOT] => Some(String::new()),
        [length] if usize::from(length) <= COMPONENT_BYTES_MAX => {
            let (name, after) = rest.split_at_checked(length.into())?;
            *rest = after;
            Some(std::str::from_utf8(name).ok()?.to_owned())
        }
        _ => None,
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

/// Seconds since 1970; 0 for unknown.
fn seconds(time: Option<SystemTime>) -> u64 {
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_secs())
}

fn time(seconds: u64) -> Option<SystemTime> {
    if seconds == 0 {
        return None;
    }
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    fn known() -> Known {
        let mut known = Known::resolved(now());
        let row = |id, crc32, created_at| Row {
            id: FileId(id),
            size: 1 << 40,
            crc32,
            created_at,
            origin: Origin::Cached,
        };
        let hash = blake3::hash(b"").to_hex().to_string();
        known.add_cached("", vec![FileId(0)], vec![("PUTBACK.txt".into(), row(9, None, None))]);
        known.add_cached(
            "packs",
            vec![FileId(1 << 40), FileId(5)],
            vec![
                (hash.clone(), row(10, Some(0), Some(now()))),
                (hash.clone(), row(11, Some(u32::MAX), None)),
                (format!("keys-{hash}"), row(12, Some(3), None)),
                (hash.to_uppercase(), row(13, None, None)),
                ("x".repeat(COMPONENT_BYTES_MAX), row(-1, None, None)),
            ],
        );
        known
    }

    #[test]
    fn what_was_written_is_read_back() {
        let bytes = encode(&known(), &KEY);
        let read = decode(&bytes, &KEY, now()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", known()));
        assert_eq!(encode(&read, &KEY), bytes);
    }

    #[test]
    fn a_file_of_another_key_or_another_time_is_as_good_as_none() {
        let bytes = encode(&known(), &KEY);
        assert!(decode(&bytes, &[8; 32], now()).is_none());
        assert!(decode(&bytes, &KEY, now() + AGE_MAX).is_some());
        assert!(decode(&bytes, &KEY, now() + AGE_MAX + Duration::from_secs(1)).is_none());
        assert!(decode(&bytes, &KEY, now() - Duration::from_secs(1)).is_none());
    }

    #[test]
    fn every_damaged_file_is_as_good_as_none() {
        let bytes = encode(&known(), &KEY);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged, &KEY, now()).is_none(), "byte {at} was flipped");
            assert!(decode(&bytes[..at], &KEY, now()).is_none(), "cut at {at}");
        }
        let mut extended = bytes;
        extended.push(0);
        assert!(decode(&extended, &KEY, now()).is_none());
    }

    #[test]
    fn a_file_with_a_right_checksum_and_wrong_content_is_as_good_as_none() {
        let bytes = encode(&known(), &KEY);
        let body = &bytes[..bytes.len() - 32];
        for cut in MAGIC.len() + 32..body.len() {
            let mut forged = body[..cut].to_vec();
            let hash = blake3::hash(&forged);
            forged.extend_from_slice(hash.as_bytes());
            assert!(decode(&forged, &KEY, now()).is_none(), "cut at {cut}");
        }
        for at in MAGIC.len() + 40..body.len() {
            let mut forged = body.to_vec();
            forged[at] = 0xff;
            let hash = blake3::hash(&forged);
            forged.extend_from_slice(hash.as_bytes());
            // Some of these are other valid files; none of them may panic or allocate much.
            let decoded = decode(&forged, &KEY, now());
            assert!(decoded.is_none_or(|known| known.folders().len() <= 2));
        }
    }

    #[test]
    fn a_file_is_replaced_and_its_folder_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/ids");
        assert!(load(&path, &KEY, now()).is_none());
        for _ in 0..2 {
            save(&path, &encode(&known(), &KEY)).unwrap();
            assert!(load(&path, &KEY, now()).is_some());
        }
        fs_err::write(&path, b"garbage").unwrap();
        assert!(load(&path, &KEY, now()).is_none());
    }
}
