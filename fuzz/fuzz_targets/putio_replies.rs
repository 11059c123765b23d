//! Bodies of put.io's answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use putback_fuzz::take;
use putio::fuzzing;

fuzz_target!(|bytes: &[u8]| {
    let Some((status, body)) = take::<2>(bytes) else { return };
    let status = 100 + u16::from_le_bytes(status) % 500;
    fuzzing::read_answers(body);
    let error = fuzzing::read_refusal(status, body);
    // It goes to terminals and logs.
    let shown = format!("{error} {}", error.error_type.as_deref().unwrap_or_default());
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    assert!(shown.chars().count() < 600);
    assert!(!shown.contains("://") && !shown.contains("token="));
});
