//! What holds for every value and for every string of bytes.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use putback_format::config::Config;
use putback_format::list::decode_list_page;
use putback_format::mark::Mark;
use putback_format::page::{PageBuilder, PageReader, TreePage};
use putback_format::snapshot::Snapshot;
use putback_format::tree::{Entry, decode_entry, encode_entry};

use crate::arbitrary;

fn encoded(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_entry(entry, &mut bytes);
    bytes
}

/// Directories short enough for one page.
fn directory() -> impl Strategy<Value = Vec<Entry>> {
    btree_map(arbitrary::name(), arbitrary::entry(), 1..8).prop_map(|entries| {
        entries.into_iter().map(|(name, entry)| Entry { name, ..entry }).collect()
    })
}

fn page(entries: &[Entry]) -> Vec<u8> {
    let mut builder = PageBuilder::new();
    for entry in entries {
        assert_eq!(builder.push(entry).unwrap(), None);
    }
    builder.finish().unwrap()
}

/// What happens to bytes on the way.
#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Truncate(Index),
    /// Repeats what lies between two places.
    Repeat(Index, Index),
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let one = prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        1 => any::<Index>().prop_map(Damage::Remove),
        1 => any::<Index>().prop_map(Damage::Truncate),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Repeat(from, to)),
    ];
    vec(one, 1..4)
}

fn apply(mut bytes: Vec<u8>, damage: &[Damage]) -> Vec<u8> {
    for one in damage {
        if bytes.is_empty() {
            break;
        }
        match one {
            Damage::Set(at, byte) => *at.get_mut(&mut bytes) = *byte,
            Damage::Insert(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
            Damage::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
            Damage::Truncate(at) => bytes.truncate(at.index(bytes.len())),
            Damage::Repeat(from, to) => {
                let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
                let repeated = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.splice(to..to, repeated);
            }
        }
    }
    bytes
}

/// Gives bytes to every decoder; what one accepts has no other encoding.
fn check_bytes(bytes: &[u8]) {
    if let Ok(entry) = decode_entry(bytes) {
        assert_eq!(entry.validate(), Ok(()));
        assert_eq!(encoded(&entry), bytes);
    }
    if let Ok(snapshot) = Snapshot::decode(bytes) {
        assert_eq!(snapshot.validate(), Ok(()));
        assert_eq!(snapshot.encode(), bytes);
    }
    if let Ok(config) = Config::decode(bytes) {
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.encode(), bytes);
    }
    if let Ok(mark) = Mark::decode(bytes) {
        // Fields of newer programs are left out of marks.
        assert_eq!(Mark::decode(&mark.encode()), Ok(mark));
    }
    if let Ok(entries) = TreePage::decode(bytes) {
        assert_eq!(page(&entries), bytes);
    }
    if let Ok(reader) = PageReader::new(bytes) {
        assert!(reader.count() <= 8192);
    }
    for depth in 0..6 {
        let _ = decode_list_page(bytes, depth);
    }
}

proptest! {
    #[test]
    fn an_entry_survives(entry in arbitrary::entry()) {
        prop_assert_eq!(entry.validate(), Ok(()));
        prop_assert_eq!(decode_entry(&encoded(&entry)), Ok(entry));
    }

    #[test]
    fn a_page_survives(entries in directory()) {
        let page = page(&entries);
        prop_assert_eq!(TreePage::decode(&page), Ok(entries.clone()));
        let one_by_one: Result<Vec<_>, _> = PageReader::new(&page).unwrap().collect();
        prop_assert_eq!(one_by_one, Ok(entries));
    }

    #[test]
    fn a_snapshot_survives(snapshot in arbitrary::snapshot()) {
        prop_assert_eq!(snapshot.validate(), Ok(()));
        prop_assert_eq!(Snapshot::decode(&snapshot.encode()), Ok(snapshot));
    }

    #[test]
    fn a_configuration_survives(config in arbitrary::config()) {
        prop_assert_eq!(config.validate(), Ok(()));
        prop_assert_eq!(Config::decode(&config.encode()), Ok(config));
    }

    #[test]
    fn a_mark_survives(mark in arbitrary::mark()) {
        prop_assert_eq!(mark.validate(), Ok(()));
        prop_assert_eq!(Mark::decode(&mark.encode()), Ok(mark));
    }

    #[test]
    fn a_truncated_entry_is_refused(entry in arbitrary::entry(), at in any::<Index>()) {
        let bytes = encoded(&entry);
        prop_assert!(decode_entry(&bytes[..at.index(bytes.len())]).is_err());
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..300)) {
        check_bytes(&bytes);
    }

    #[test]
    fn a_damaged_page_does_not_panic(entries in directory(), damage in damage()) {
        check_bytes(&apply(page(&entries), &damage));
        check_bytes(&apply(encoded(&entries[0]), &damage));
    }

    #[test]
    fn a_damaged_object_does_not_panic(
        snapshot in arbitrary::snapshot(),
        config in arbitrary::config(),
        mark in arbitrary::mark(),
        damage in damage(),
    ) {
        check_bytes(&apply(snapshot.encode(), &damage));
        check_bytes(&apply(config.encode(), &damage));
        check_bytes(&apply(mark.encode(), &damage));
    }
}
