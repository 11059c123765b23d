//! `putio.py`: through the proxy, and by plain HTTP with its base addresses changed.

use putio_emulator::Profile;

use crate::tools::{Setting, noise, run, script, tool};

fn check(profile: Profile, is_proxied: bool) {
    let setting = Setting::new(profile);
    let python = tool("python/bin/python");
    let bytes = noise(5_000_000);
    setting.write("source.bin", &bytes);
    let mut command = match is_proxied {
        true => setting.proxied(&python),
        false => {
            let mut command = setting.command(&python);
            command.env("EMULATOR_URL", setting.emulator.api_url());
            command
        }
    };
    let printed = run(command.arg(script("putio_client.py")));
    assert!(printed.ends_with("done\n"), "{printed}");
    assert_eq!(fs_err::read(setting.path("renamed.bin")).unwrap(), bytes);

    let paths: Vec<String> =
        setting.emulator.files("user").unwrap().into_iter().map(|file| file.path).collect();
    assert_eq!(paths, ["folder", "folder/empty.bin", "folder/form.txt", "other"]);
    let trash = setting.emulator.trash("user").unwrap();
    assert_eq!(trash.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["renamed.bin"]);
    let log = setting.emulator.log();
    assert!(log.iter().all(|entry| entry.status.is_some_and(|status| status < 500)), "{log:#?}");
    // It sends four million bytes at a time.
    assert_eq!(log.iter().filter(|entry| entry.method == "PATCH").count(), 2);
    let expected = if is_proxied { "upload.put.io" } else { "127.0.0.1" };
    assert!(log.iter().any(|entry| entry.method == "PATCH" && entry.host == expected));
}

#[test]
fn putio_py_does_all_it_can_through_the_proxy() {
    check(Profile::default(), true);
}

#[test]
fn putio_py_does_all_it_can_by_plain_http() {
    check(Profile::default(), false);
}

#[test]
fn putio_py_does_all_it_can_with_changed_names_and_large_ids() {
    // It sends its token to storage hosts, which a strict profile refuses.
    check(Profile { strict_storage: false, ..Profile::realistic() }, true);
}
