//! Keys as text, as a person typed them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use putback_format::slot::{export, import};

fuzz_target!(|text: &str| {
    let Ok((repository, keys)) = import(text) else { return };
    let clean = export(repository, &keys);
    let (again, read) = import(&clean).expect("just written");
    assert_eq!(again, repository);
    assert_eq!(*export(again, &read), *clean);
});
