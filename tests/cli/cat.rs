//! `putback cat`.

use crate::harness::TestEnvironment;

#[test]
fn a_file_is_printed_byte_for_byte() {
    let environment = TestEnvironment::with_repository();
    let content: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let path = environment.write("x.bin", &content);
    environment.backup();
    let run = environment.run(["cat", "latest", path.to_str().unwrap()]).success();
    assert!(run.stdout_bytes() == content);
    let run = environment.run(["cat", &format!("latest:{}", path.display())]).success();
    assert!(run.stdout_bytes() == content);
}

#[test]
fn what_is_no_file_is_not_printed() {
    let environment = TestEnvironment::with_snapshot();
    environment.run(["cat", "latest"]).code(2).complains("no file was named");
    environment.run(["cat", "latest:/no/such"]).code(1).complains("/no/such");
    let folder = format!("latest:{}", environment.source().display());
    assert_ne!(environment.run(["cat", &folder]).code(1).stderr(), "");
}
