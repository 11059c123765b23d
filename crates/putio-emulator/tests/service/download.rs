//! Links and the storage behind them.

use std::time::Duration;

use putio_emulator::options::Profile;
use putio_emulator::{Fault, FaultRule, Options, Service as Part};

use crate::client::{Request, Service, noise, path_of};

fn seeded() -> (Service, i64, Vec<u8>) {
    let service = Service::start();
    let bytes = noise(500_000);
    let id = service.emulator.seed_file("user", "file.bin", &bytes).unwrap();
    (service, id, bytes)
}

#[test]
fn a_link_needs_no_token_and_gives_ranges() {
    let (service, id, bytes) = seeded();
    let link = service.link(id);
    assert!(link.starts_with(&format!("/download/{id}?")));
    let fetch = |method: &str, range: Option<&str>| {
        let request = Request::bare(method, &link);
        service.send(match range {
            Some(range) => request.header("Range", range),
            None => request,
        })
    };
    let whole = fetch("GET", None).expect(200);
    assert_eq!(whole.body, bytes);
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert_eq!(whole.header("content-type"), Some("application/octet-stream"));
    let part = fetch("GET", Some("bytes=1000-1999")).expect(206);
    assert_eq!(part.body, bytes[1000..2000]);
    assert_eq!(part.header("content-range"), Some("bytes 1000-1999/500000"));
    assert_eq!(fetch("GET", Some("bytes=499990-")).expect(206).body, bytes[499_990..]);
    assert_eq!(fetch("GET", Some("bytes=-10")).expect(206).body, bytes[499_990..]);
    assert_eq!(fetch("GET", Some("bytes=0-1,5-6")).expect(200).body.len(), 500_000);
    let beyond = fetch("GET", Some("bytes=500000-"));
    assert_eq!(beyond.header("content-range"), Some("bytes */500000"));
    assert_eq!(beyond.error(416), "RangeNotSatisfiable");
    let head = fetch("HEAD", None).expect(200);
    assert_eq!(head.header("content-length"), Some("500000"));
    assert!(head.body.is_empty());

    // What the log shows of it has no secret.
    let log = service.emulator.log();
    let entry = log.iter().find(|entry| entry.service == Part::Storage).unwrap();
    assert!(entry.query.contains("oauth_token=*"), "{}", entry.query);
    assert_eq!((entry.response_bytes, entry.account.as_deref()), (500_000, Some("user")));
}

#[test]
fn downloads_redirect_to_storage_with_and_without_a_name() {
    let (service, id, bytes) = seeded();
    for path in ["download", "download/file.bin", "stream", "stream/x"] {
        for method in ["GET", "HEAD"] {
            let target = format!("/v2/files/{id}/{path}?oauth_token=emulator-token");
            let answer = service.send(Request::bare(method, &target)).expect(302);
            let location = path_of(answer.header("location").unwrap());
            assert_eq!(service.send(Request::bare("GET", &location)).expect(200).body, bytes);
        }
    }
    let folder = service.folder("folder", 0);
    assert_eq!(service.get(&format!("/v2/files/{folder}/url")).error(400), "NotFile");
    assert_eq!(service.get("/v2/files/999/url").error(404), "NotFound");
    let with = service.get(&format!("/v2/files/{id}")).json();
    assert!(with["file"]["first_accessed_at"].is_string());
}

#[test]
fn links_expire_belong_to_their_file_and_end_with_it() {
    let (service, id, _) = seeded();
    let other = service.emulator.seed_file("user", "other", b"1").unwrap();
    let link = service.link(id);
    let fetch = |link: &str| service.send(Request::bare("GET", link));
    let stolen = link.replace(&format!("/download/{id}?"), &format!("/download/{other}?"));
    assert_eq!(fetch(&stolen).error(401), "invalid_scope");
    assert_eq!(fetch(&format!("/download/{id}")).error(401), "invalid_grant");
    service.emulator.advance_clock(Duration::from_secs(3_601));
    assert_eq!(fetch(&link).error(410), "LINK_EXPIRED");
    let link = service.link(id);
    service.emulator.remove_file(id).unwrap();
    assert_eq!(fetch(&link).error(404), "NotFound");
}

#[test]
fn strict_storage_refuses_the_account_token() {
    let profile = Profile { strict_storage: true, ..Profile::default() };
    let service = Service::with(Options { profile, ..Options::default() });
    let id = service.emulator.seed_file("user", "file", b"1").unwrap();
    let link = service.link(id);
    assert_eq!(service.send(Request::new("GET", &link)).error(401), "invalid_scope");
    service.send(Request::bare("GET", &link)).expect(200);
    // The account's token opens no storage, whichever way it comes.
    let target = format!("/download/{id}?oauth_token=emulator-token");
    assert_eq!(service.send(Request::bare("GET", &target)).error(401), "invalid_scope");
}

#[test]
fn lost_corrupt_and_duplicate_files_are_what_tests_made_of_them() {
    let (service, id, bytes) = seeded();
    service.emulator.corrupt_file(id, 1_000).unwrap();
    let damaged = service.send(Request::bare("GET", &service.link(id))).expect(200).body;
    let different: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != damaged[*at]).collect();
    assert_eq!(different, [1_000]);
    let shown = service.get(&format!("/v2/files/{id}")).json()["file"]["crc32"].clone();
    assert_eq!(shown, format!("{:08x}", crc32fast::hash(&bytes)));

    let twin = service.emulator.duplicate_file(id).unwrap();
    assert_eq!(service.names(0), ["file.bin", "file.bin"]);
    let link = service.link(twin);
    service.emulator.lose_file(twin).unwrap();
    assert_eq!(service.get(&format!("/v2/files/{twin}/url")).error(410), "FILE_LOST");
    assert_eq!(service.send(Request::bare("GET", &link)).error(410), "FILE_LOST");
    service.get(&format!("/v2/files/{id}/url")).expect(200);
}

#[test]
fn faults_spoil_downloads_in_every_way() {
    let (service, id, bytes) = seeded();
    let spoilt = |fault: Fault, range: Option<&str>| {
        service.emulator.clear_faults();
        let link = service.link(id);
        service.emulator.set_faults(vec![FaultRule::new(fault)]);
        let request = Request::bare("GET", &link);
        let mut connection = service.connect();
        connection
            .write(
                &range
                    .map_or(Request::bare("GET", &link), |range| request.header("Range", range))
                    .bytes(),
            )
            .unwrap();
        let (status, headers) = connection.read_head().unwrap();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.map(|(_, length)| length.clone());
        let (body, end) = match status {
            200 | 206 => {
                // Orderly answers leave the connection open; the others end it.
                let wanted: usize =
                    length.as_ref().map_or(usize::MAX, |text| text.parse().unwrap());
                connection.read_up_to(wanted)
            }
            _ => (Vec::new(), Ok(())),
        };
        (status, length, body, end)
    };
    let (status, length, body, end) =
        spoilt(Fault::CutDownload { after_bytes: 100_000, chunked: false, reset: false }, None);
    assert_eq!((status, length.as_deref(), body.len()), (200, Some("500000"), 100_000));
    assert!(end.is_ok());
    let (_, _, body, end) =
        spoilt(Fault::CutDownload { after_bytes: 100, chunked: false, reset: true }, None);
    assert_eq!((body.len(), end.unwrap_err().kind()), (100, std::io::ErrorKind::ConnectionReset));
    let (status, length, body, _) =
        spoilt(Fault::CutDownload { after_bytes: 5_000, chunked: true, reset: false }, None);
    assert_eq!((status, length), (200, None));
    assert!(!body.ends_with(b"0\r\n\r\n") && body.len() > 5_000);
    let (_, _, body, _) = spoilt(Fault::FlipBit { offset: 200_000 }, None);
    let different: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != body[*at]).collect();
    assert_eq!(different, [200_000]);

    let range = Some("bytes=1000-1999");
    let (status, _, body, _) = spoilt(Fault::IgnoreRange, range);
    assert_eq!((status, body.len()), (200, 500_000));
    let (status, _, body, _) = spoilt(Fault::WrongRange { shift: 10 }, range);
    assert_eq!((status, &body[..]), (206, &bytes[1010..2000]));
    for status in [401, 403, 410] {
        assert_eq!(spoilt(Fault::LinkExpired { status }, None).0, status);
    }
    assert_eq!(spoilt(Fault::StorageMissing, None).0, 404);
    assert_eq!(spoilt(Fault::FileNotReachable { seconds: 60.0 }, None).0, 503);
    service.emulator.clear_faults();
    assert_eq!(service.get(&format!("/v2/files/{id}/url")).error(503), "FILE_NOT_REACHABLE");
    service.emulator.advance_clock(Duration::from_secs(61));
    let (status, _, body, _) = spoilt(Fault::DeletedDuringDownload { after_bytes: 10 }, None);
    assert_eq!((status, body.len()), (200, 10));
    assert_eq!(service.get(&format!("/v2/files/{id}")).status, 404);
}
