//! Locations of storages and names of objects: what is accepted means the same everywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use putback_remotes::location::{Folder, Location, NAME_BYTES_MAX};
use putback_store::ObjectPath;

/// What put.io makes of a name: percent sequences are decoded, a backslash becomes a hyphen, blanks at the ends
/// go.
fn stored(name: &str) -> Vec<u8> {
    let bytes = name.trim().as_bytes();
    let mut out = Vec::new();
    let mut position = 0;
    while let Some(&byte) = bytes.get(position) {
        let digits = bytes.get(position + 1..position + 3);
        let code = digits
            .filter(|digits| byte == b'%' && digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        out.push(code.unwrap_or(if byte == b'\\' { b'-' } else { byte }));
        position += if code.is_some() { 3 } else { 1 };
    }
    out
}

fuzz_target!(|text: &str| {
    match Location::new(text) {
        Ok(location) => {
            assert_eq!(location.to_string().parse(), Ok(location.clone()));
            assert_eq!(Folder::new(location.folder().as_str()).as_ref(), Ok(location.folder()));
            let names: Vec<&str> = location.folder().names().collect();
            assert_eq!(names.join("/"), location.folder().as_str());
            for name in names {
                assert!(
                    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name != "." && name != ".."
                );
                assert_eq!(stored(name), name.as_bytes(), "put.io would change it");
            }
        }
        Err(error) => {
            assert!(error.text.chars().count() <= 80);
            assert!(!error.to_string().chars().any(char::is_control));
        }
    }
    if let Ok(path) = ObjectPath::new(text) {
        assert_eq!(path.as_str(), text);
        assert_eq!(ObjectPath::in_folder(path.folder(), path.name()), Ok(path.clone()));
        // Joined to a directory, it stays below it.
        let components: Vec<_> = std::path::Path::new(text).components().collect();
        assert!(components.iter().all(|part| matches!(part, std::path::Component::Normal(_))));
        assert_eq!(components.len(), if path.folder().is_empty() { 1 } else { 2 });
    }
});
