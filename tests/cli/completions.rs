//! `putback completions`.

use crate::harness::TestEnvironment;

#[test]
fn every_shell_gets_a_script_that_knows_the_flags() {
    let environment = TestEnvironment::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        environment.run(["completions", shell]).success().shows("exclude-if-present");
    }
    environment.run(["completions", "tcsh"]).code(2).complains("tcsh");
}
