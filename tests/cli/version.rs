//! `putback version`.

use crate::harness::{TestEnvironment, schema};

#[test]
fn the_version_is_shown_without_reading_anything() {
    let mut environment = TestEnvironment::new();
    environment.configure("this is no configuration");
    environment.set("PUTBACK_REPO", "nonsense://");
    environment.run(["version"]).success().shows(&format!("putback {}", env!("CARGO_PKG_VERSION")));
    environment.run(["--version"]).success().shows(env!("CARGO_PKG_VERSION"));
    schema::check(
        "version",
        "document",
        &environment.run(["version", "--json"]).success().document(),
    );
}
