//! `@putdotio/api-client` under Node: by plain HTTP, and by TLS with the names of put.io led here.

use crate::tools::{Setting, program, run, script, tool};
use putio_emulator::Profile;

fn check(is_tls: bool) {
    let setting = Setting::new(Profile::default());
    let modules = tool("node/node_modules/@putdotio/api-client");
    let mut command = setting.command(&program("node"));
    command
        .env("EMULATOR_CLIENT", modules)
        .env("NODE_EXTRA_CA_CERTS", setting.path("ca.pem"))
        .arg(script("api_client.cjs"));
    let host = if is_tls {
        let port = setting.emulator.tls_address().unwrap().port();
        command.env("EMULATOR_URL", format!("https://api.put.io:{port}"));
        "api.put.io"
    } else {
        command.env("EMULATOR_URL", setting.emulator.api_url());
        "127.0.0.1"
    };
    let printed = run(&mut command);
    assert!(printed.ends_with("done\n"), "{printed}");
    assert!(setting.emulator.files("user").unwrap().is_empty());
    let trash = setting.emulator.trash("user").unwrap();
    assert_eq!(trash.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["renamed"]);
    let log = setting.emulator.log();
    assert!(log.iter().all(|entry| entry.host == host), "{log:#?}");
    assert!(log.iter().all(|entry| entry.status.is_some_and(|status| status < 500)), "{log:#?}");
}

#[test]
fn the_api_client_does_all_it_can_by_plain_http() {
    check(false);
}

#[test]
fn the_api_client_does_all_it_can_by_tls() {
    check(true);
}
