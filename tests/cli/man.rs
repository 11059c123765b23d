//! `putback man`.

use crate::cli::help::COMMANDS;
use crate::harness::TestEnvironment;

#[test]
fn every_command_gets_a_page() {
    let environment = TestEnvironment::new();
    environment.run(["man", "--output", "pages"]).success();
    for command in COMMANDS {
        let name =
            ["putback"].into_iter().chain(command.split_whitespace()).collect::<Vec<_>>().join("-");
        let page =
            std::fs::read_to_string(environment.path(format!("work/pages/{name}.1"))).unwrap();
        assert!(page.contains(".TH"), "{name}");
        assert!(page.contains("PUTBACK_REPO"), "{name}");
    }
    let count = std::fs::read_dir(environment.path("work/pages")).unwrap().count();
    assert_eq!(count, COMMANDS.len());
}

#[test]
fn the_main_page_goes_to_standard_output() {
    TestEnvironment::new().run(["man"]).success().shows(".TH putback");
}
