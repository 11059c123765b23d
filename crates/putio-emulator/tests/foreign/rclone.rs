//! rclone's own backend for put.io, which knows `api.put.io` and `upload.put.io` alone: through the
//! proxy.

use std::process::Command;

use putio_emulator::{Fault, FaultRule, Profile, storm};

use crate::tools::{Setting, TOKEN, noise, output, run, tool};

fn rclone(setting: &Setting, args: &[&str]) -> Command {
    let mut command = setting.proxied(&tool("python/bin/rclone"));
    command
        .env("RCLONE_CONFIG", setting.path("rclone.conf"))
        .env("RCLONE_CONFIG_P_TYPE", "putio")
        .env(
            "RCLONE_CONFIG_P_TOKEN",
            format!("{{\"access_token\":\"{TOKEN}\",\"expiry\":\"0001-01-01T00:00:00Z\"}}"),
        )
        .args(args);
    command
}

/// Names that are harmless, and names that this backend has to encode.
const FILES: &[(&str, usize)] = &[
    ("one.txt", 1_000),
    ("empty.bin", 0),
    ("deep/er/two.bin", 300_000),
    ("with space & ünïcode.dat", 10),
    ("back\\slash", 20),
];

fn everything(profile: Profile) {
    let setting = Setting::new(profile);
    let rclone = |args: &[&str]| run(&mut rclone(&setting, args));
    for (name, length) in FILES {
        setting.write(&format!("source/{name}"), &noise(*length));
    }
    rclone(&["mkdir", "p:folder/below"]);
    rclone(&["copy", "source", "p:folder"]);
    rclone(&["check", "source", "p:folder"]);
    for (name, length) in FILES {
        let stored = name.replace('\\', "\u{ff3c}");
        let bytes = setting.emulator.read_file("user", &format!("folder/{stored}"));
        assert_eq!(bytes.unwrap(), noise(*length), "{name}");
    }

    let listed = rclone(&["lsl", "p:folder"]);
    assert_eq!(listed.lines().count(), FILES.len(), "{listed}");
    assert!(listed.contains("300000") && listed.contains("deep/er/two.bin"), "{listed}");
    let hashes = rclone(&["hashsum", "crc32", "p:folder"]);
    let expected = format!("{:08x}  one.txt", crc32fast::hash(&noise(1_000)));
    assert!(hashes.contains(&expected), "{hashes}");
    let printed = output(&mut crate::rclone::rclone(&setting, &["cat", "p:folder/one.txt"]));
    assert_eq!(printed.stdout, noise(1_000));
    let part = ["cat", "--offset", "100", "--count", "50", "p:folder/deep/er/two.bin"];
    let printed = output(&mut crate::rclone::rclone(&setting, &part));
    assert_eq!(printed.stdout, noise(300_000)[100..150]);

    // Nothing has changed, the times of the files neither.
    let again = rclone(&["copy", "--stats-one-line", "-v", "source", "p:folder"]);
    assert_eq!(again, "");
    let uploads = setting.emulator.log().iter().filter(|entry| entry.path == "/files/").count();
    assert_eq!(uploads, FILES.len());

    rclone(&["moveto", "p:folder/one.txt", "p:folder/below/moved.txt"]);
    rclone(&["copyto", "p:folder/below/moved.txt", "p:folder/copied.txt"]);
    rclone(&["touch", "-t", "2020-01-02T03:04:05", "p:folder/copied.txt"]);
    assert!(rclone(&["lsl", "p:folder/copied.txt"]).contains("2020-01-02 03:04:05"));
    rclone(&["copy", "p:folder", "target"]);
    assert_eq!(fs_err::read(setting.path("target/below/moved.txt")).unwrap(), noise(1_000));
    assert_eq!(fs_err::read(setting.path("target/copied.txt")).unwrap(), noise(1_000));
    assert_eq!(fs_err::read(setting.path("target/back\\slash")).unwrap(), noise(20));
    assert_eq!(fs_err::read(setting.path("target/empty.bin")).unwrap(), b"");

    let about: serde_json::Value =
        serde_json::from_str(&rclone(&["about", "--json", "p:"])).unwrap();
    assert_eq!(about["total"], 1_000_000_000_000_u64);
    assert_eq!(about["used"], 302_030, "{about}");
    rclone(&["deletefile", "p:folder/copied.txt"]);
    rclone(&["purge", "p:folder"]);
    assert!(setting.emulator.files("user").unwrap().is_empty());
    assert_eq!(setting.emulator.trash("user").unwrap().len(), 2);
    rclone(&["cleanup", "p:"]);
    assert!(setting.emulator.trash("user").unwrap().is_empty());
    assert_eq!(rclone(&["lsf", "p:"]), "");
    let bad: Vec<_> =
        setting.emulator.log().into_iter().filter(|entry| entry.status >= Some(500)).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn rclone_does_all_it_can_with_the_plain_profile() {
    everything(Profile::default());
}

#[test]
fn rclone_does_all_it_can_with_the_realistic_profile() {
    everything(Profile::realistic());
}

#[test]
fn rclone_does_all_it_can_over_http_2() {
    everything(Profile { http2: true, page_rows_max: 2, ..Profile::default() });
}

#[test]
fn rclone_resumes_after_a_reset_in_the_middle_of_a_patch() {
    let setting = Setting::new(Profile::default());
    let bytes = noise(3_000_000);
    setting.write("big.bin", &bytes);
    let cut = Fault::CutRequest { after_bytes: 1_234_567, reset: true };
    setting.emulator.set_faults(vec![FaultRule::new(cut).method("PATCH").nth(1)]);
    run(&mut rclone(&setting, &["copyto", "big.bin", "p:big.bin"]));
    assert_eq!(setting.emulator.read_file("user", "big.bin").unwrap(), bytes);
    assert_eq!(setting.emulator.files("user").unwrap().len(), 1);
    let log = setting.emulator.log();
    let offsets: Vec<_> =
        log.iter().filter(|entry| entry.method == "PATCH").map(|entry| entry.offset).collect();
    assert_eq!(offsets, [Some(0), Some(1_234_567)]);
    assert!(log.iter().any(|entry| entry.method == "HEAD" && entry.status == Some(200)));
}

#[test]
fn rclone_honours_an_advertised_reset() {
    let setting = Setting::new(Profile::default());
    setting.emulator.seed_file("user", "file", b"content").unwrap();
    let limited = Fault::RateLimited {
        reset_in_seconds: Some(1.0),
        retry_after_seconds: None,
        captcha: false,
        holds: true,
    };
    setting.emulator.set_faults(vec![FaultRule::new(limited).path("/v2/files/list").nth(1)]);
    assert_eq!(run(&mut rclone(&setting, &["lsf", "p:"])), "file\n");
    assert_eq!(setting.emulator.violations(), []);
    let log = setting.emulator.log();
    assert_eq!(log[0].status, Some(429));
    assert!(log[0].rate_limited_until.is_some() && log.len() >= 2, "{log:#?}");
}

#[test]
fn rclone_gets_through_a_storm() {
    let setting = Setting::new(Profile::default());
    for number in 0..10 {
        setting.write(&format!("source/{number}.bin"), &noise(20_000 + number));
    }
    setting.emulator.set_faults(storm(0.1, 3));
    let patient = ["--retries", "10", "--low-level-retries", "20"];
    let copy = |from: &str, to: &str| {
        run(rclone(&setting, &["copy", from, to]).args(patient));
    };
    copy("source", "p:folder");
    copy("p:folder", "target");
    for number in 0..10 {
        let bytes = fs_err::read(setting.path(&format!("target/{number}.bin"))).unwrap();
        assert_eq!(bytes, noise(20_000 + number), "{number}");
    }
    let faults = setting.emulator.log().iter().filter(|entry| entry.fault.is_some()).count();
    assert!(faults > 0);
}
