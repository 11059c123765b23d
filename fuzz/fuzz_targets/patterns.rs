//! Patterns of users, line by line, against a path.
#![no_main]

use libfuzzer_sys::fuzz_target;
use putback_engine::pattern::Patterns;
use putback_fuzz::take;

/// A path as walkers make them: absolute, without empty names.
fn path(bytes: &[u8]) -> Vec<u8> {
    let names = bytes.split(|byte| *byte == b'/');
    let names = names.filter(|name| !matches!(*name, b"" | b"." | b".."));
    names.flat_map(|name| [b"/", name].concat()).filter(|byte| *byte != 0).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let Some(([options], rest)) = take::<1>(bytes) else { return };
    let (ignore_case, is_directory) = (options & 1 != 0, options & 2 != 0);
    let mut lines = rest.splitn(2, |byte| *byte == b'\n');
    let (path, text) = (path(lines.next().unwrap_or_default()), lines.next().unwrap_or_default());

    let mut patterns = Patterns::new();
    if patterns.push_lines(text, ignore_case).is_ok() {
        let matches = patterns.is_match(&path, is_directory);
        if patterns.is_empty() {
            assert!(!matches);
        }
        if matches {
            for (end, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
                assert!(patterns.may_match_below(&path[..end]), "a walker would not get there");
            }
        }
        // What only directories match, a file never does.
        if !is_directory && matches {
            assert!(!text.split(|byte| *byte == b'\n').all(|line| line.ends_with(b"/")));
        }
        // Taken back by a pattern for everything.
        patterns.push(b"!**", ignore_case).expect("valid");
        assert!(!patterns.is_match(&path, is_directory));
    }
    // Every path matches itself escaped.
    let names = path.split(|byte| *byte == b'/').skip(1);
    if !path.is_empty() && names.clone().all(|name| !matches!(name, b"" | b"." | b"..")) {
        let escaped: Vec<u8> = path
            .iter()
            .flat_map(|byte| {
                let escape = byte.is_ascii() && *byte != b'/';
                escape.then_some(b'\\').into_iter().chain([*byte])
            })
            .collect();
        let mut itself = Patterns::new();
        itself.push(&escaped, ignore_case).expect("valid");
        assert!(itself.is_match(&path, is_directory));
    }
});
