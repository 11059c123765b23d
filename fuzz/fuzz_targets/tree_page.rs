//! Tree pages: entries come back from the pages that a writer would make of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use putback_format::limits::PAGE_ENTRIES_MAX;
use putback_format::page::{PageBuilder, PageReader, TreePage};
use putback_format::tree::Entry;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(reader) = PageReader::new(bytes) {
        assert!(reader.entries_left() <= PAGE_ENTRIES_MAX);
        // After an error nothing more comes.
        let results: Vec<_> = reader.collect();
        let errors = results.iter().position(Result::is_err);
        assert!(errors.is_none_or(|position| position == results.len() - 1));
    }
    let Ok(entries) = TreePage::decode(bytes) else { return };
    assert!(entries.is_sorted_by(|entry, next| entry.name < next.name));
    let mut builder = PageBuilder::new();
    let mut pages = Vec::new();
    for entry in &entries {
        pages.extend(builder.push(entry).expect("it was read from a page"));
    }
    pages.extend(builder.finish());
    if let [page] = pages.as_slice() {
        assert_eq!(page, bytes, "two encodings of one page");
    }
    let decoded: Vec<Entry> =
        pages.iter().flat_map(|page| TreePage::decode(page).expect("just written")).collect();
    assert_eq!(decoded, entries);
});
