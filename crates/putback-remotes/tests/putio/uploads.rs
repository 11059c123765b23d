//! Objects that are interrupted on their way, and what stands in their way.

use std::path::Path;

use putback_remotes::{PutioOptions, PutioStore, account_key};
use putback_store::{Error, ErrorKind, ObjectInfo, ObjectPath, Status, Store};
use putio::Token;
use putio_emulator::faults::ErrorBody;
use putio_emulator::{AccountOptions, Emulator, Fault, FaultRule, Service};

use crate::support::{
    ACCOUNT, FOLDER, FOLDERS, Kind, assert_kind, bytes, client_of, created, delete_on, emulator,
    emulator_with, folder_on, hasty_store_in, kind, options, path, path_of, requests, rows_on,
    store_in,
};

fn write_in_pieces(
    store: &dyn Store,
    path: &ObjectPath,
    bytes: &[u8],
) -> Result<ObjectInfo, Error> {
    let mut upload = store.upload(path.folder())?;
    for piece in bytes.chunks(999_999) {
        upload.append(piece)?;
    }
    upload.finish(path)
}

/// The files in the spool, without locks.
fn spooled(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let spool = directory.join("state/spool");
    let Ok(entries) = fs_err::read_dir(spool) else {
        return names;
    };
    for entry in entries {
        for entry in fs_err::read_dir(entry.unwrap().path()).unwrap() {
            names.push(entry.unwrap().file_name().into_string().unwrap());
        }
    }
    names.retain(|name| name != "lock");
    names.sort();
    names
}

/// Every PATCH arrives up to `after_bytes`, and then nothing of uploads any more.
fn break_after(emulator: &Emulator, after_bytes: u64) {
    emulator.set_faults(vec![
        FaultRule::new(Fault::CutRequest { after_bytes, reset: true }).method("PATCH").nth(1),
        FaultRule::new(Fault::ResetBefore).service(Service::Upload).method("PATCH"),
        FaultRule::new(Fault::ResetBefore).service(Service::Upload).method("HEAD"),
    ]);
}

/// A store that was killed after `after_bytes` of an object had arrived.
fn interrupted(emulator: &Emulator, directory: &Path, bytes: &[u8], after_bytes: u64) {
    let store = hasty_store_in(emulator, directory);
    store.create(&FOLDERS).unwrap();
    break_after(emulator, after_bytes);
    let error = write_in_pieces(&store, &path_of("packs", bytes), bytes).unwrap_err();
    assert_eq!(error.status, Status::Exhausted, "{error:?}");
    emulator.clear_faults();
    assert_eq!(spooled(directory).len(), 2, "the object and what it is");
}

#[test]
fn an_interrupted_upload_goes_on_where_it_stopped() {
    let emulator = emulator();
    let directory = tempfile::tempdir().unwrap();
    let bytes = bytes(1, 6_000_000);
    let path = path_of("packs", &bytes);
    interrupted(&emulator, directory.path(), &bytes, 2_500_000);
    assert_eq!(rows_on(&emulator, &path).len(), 0);
    let arrived = emulator.uploads(ACCOUNT).unwrap()[0].offset;
    assert!(arrived > 0, "something had arrived");
    emulator.clear_log();

    let store = store_in(&emulator, directory.path());
    let resumed = store.resume_uploads().unwrap();
    assert_eq!(resumed.len(), 1);
    assert_eq!((&resumed[0].path, resumed[0].size), (&path, 6_000_000));
    assert_eq!(resumed[0].crc32, Some(crc32fast::hash(&bytes)));
    let log = emulator.log();
    let data: Vec<_> = log.iter().filter(|entry| kind(entry) == Kind::UploadData).collect();
    assert_eq!(data.len(), 1);
    assert_eq!((data[0].offset, data[0].request_bytes), (Some(arrived), 6_000_000 - arrived));
    assert!(!log.iter().any(|entry| kind(entry) == Kind::UploadCreate), "no second session");

    assert_eq!(rows_on(&emulator, &path).len(), 1);
    assert_eq!(store.read_all(&path, u64::MAX).unwrap(), bytes);
    assert_eq!(store.resume_uploads().unwrap(), []);
    assert_eq!(spooled(directory.path()), [""; 0]);
}

#[test]
fn a_failed_attempt_can_be_repeated_by_the_same_process() {
    let emulator = emulator();
    let directory = tempfile::tempdir().unwrap();
    let bytes = bytes(1, 5_000_000);
    let path = path_of("packs", &bytes);
    let store = hasty_store_in(&emulator, directory.path());
    store.create(&FOLDERS).unwrap();
    break_after(&emulator, 1_000_000);
    write_in_pieces(&store, &path, &bytes).unwrap_err();
    // Another process does not take it away.
    emulator.clear_faults();
    assert_eq!(store_in(&emulator, directory.path()).resume_uploads().unwrap(), []);
    assert_eq!(store.resume_uploads().unwrap().len(), 1);
    assert_eq!(store.read_all(&path, u64::MAX).unwrap(), bytes);
}

#[test]
fn an_upload_whose_end_nobody_heard_of_is_not_sent_again() {
    let emulator = emulator();
    let directory = tempfile::tempdir().unwrap();
    let bytes = bytes(1, 5_000_000);
    let path = path_of("packs", &bytes);
    {
        let store = hasty_store_in(&emulator, directory.path());
        store.create(&FOLDERS).unwrap();
        emulator.set_faults(vec![
            FaultRule::new(Fault::ResetAfter).method("PATCH").nth(1),
            FaultRule::new(Fault::ResetBefore).from(1).except("/files/*"),
            FaultRule::new(Fault::ResetBefore).service(Service::Upload).method("HEAD"),
            FaultRule::new(Fault::ResetBefore).service(Service::Upload).method("PATCH"),
        ]);
        write_in_pieces(&store, &path, &bytes).unwrap_err();
        emulator.clear_faults();
    }
    assert_eq!(rows_on(&emulator, &path).len(), 1);
    requests(&emulator);
    let store = store_in(&emulator, directory.path());
    assert_eq!(store.resume_uploads().unwrap().len(), 1);
    let kinds = requests(&emulator);
    assert!(!kinds.contains(&Kind::UploadData), "{kinds:?}");
    assert_eq!(rows_on(&emulator, &path).len(), 1, "no duplicate");
    assert_eq!(store.read_all(&path, u64::MAX).unwrap(), bytes);
}

#[test]
fn an_interrupted_upload_whose_session_is_forgotten_starts_over() {
    let emulator = emulator();
    let directory = tempfile::tempdir().unwrap();
    let bytes = bytes(1, 5_000_000);
    interrupted(&emulator, directory.path(), &bytes, 1_000_000);
    emulator.set_faults(vec![
        FaultRule::new(Fault::ForgetSession).service(Service::Upload).method("HEAD").nth(1),
    ]);
    let store = store_in(&emulator, directory.path());
    assert_eq!(store.resume_uploads().unwrap().len(), 1);
    assert_eq!(store.read_all(&path_of("packs", &bytes), u64::MAX).unwrap(), bytes);
}

#[test]
fn a_spooled_object_that_was_damaged_on_the_disk_is_given_up() {
    let emulator = emulator();
    let directory = tempfile::tempdir().unwrap();
    interrupted(&emulator, directory.path(), &bytes(1, 5_000_000), 1_000_000);
    let spool = directory.path().join("state/spool");
    let process = fs_err::read_dir(spool).unwrap().next().unwrap().unwrap().path();
    for entry in fs_err::read_dir(process).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "object") {
            let mut content = fs_err::read(&file).unwrap();
            content[4_000_000] ^= 1;
            fs_err::write(&file, content).unwrap();
        }
    }
    emulator.clear_log();
    let store = store_in(&emulator, directory.path());
    assert_eq!(store.resume_uploads().unwrap(), []);
    assert!(!requests(&emulator).contains(&Kind::UploadData));
    assert_eq!(spooled(directory.path()), [""; 0]);
    assert_eq!(store.list("packs").unwrap(), []);
}

#[test]
fn a_spooled_object_that_is_not_taken_keeps_no_other_from_being_sent() {
    let emulator = emulator();
    let directory = tempfile::tempdir().unwrap();
    let [large, small] = two_interrupted(&emulator, directory.path());
    let resume = || {
        let resumed = store_in(&emulator, directory.path()).resume_uploads().unwrap();
        resumed.into_iter().map(|info| info.path).collect::<Vec<_>>()
    };
    emulator.set_quota(ACCOUNT, 1_000_000).unwrap();
    assert_eq!((resume(), spooled(directory.path()).len()), (Vec::new(), 4));
    emulator.set_quota(ACCOUNT, 4_000_000).unwrap();
    assert_eq!(resume(), [small]);
    emulator.set_quota(ACCOUNT, 100_000_000).unwrap();
    for fault in [Fault::CorruptUpload, Fault::PlanInactive] {
        emulator.set_faults(vec![FaultRule::new(fault).method("PATCH")]);
        assert_eq!((resume(), spooled(directory.path()).len()), (Vec::new(), 2));
    }
    emulator.clear_faults();
    assert_eq!(resume(), [large]);
    assert_eq!(spooled(directory.path()), [""; 0]);
}

/// Two objects, of 6 and of 2 MB, that two processes left half sent.
fn two_interrupted(emulator: &Emulator, directory: &Path) -> [ObjectPath; 2] {
    let (large, small) = (bytes(1, 6_000_000), bytes(2, 2_000_000));
    interrupted(emulator, directory, &large, 1_000_000);
    let store = hasty_store_in(emulator, directory);
    break_after(emulator, 500_000);
    write_in_pieces(&store, &path_of("packs", &small), &small).unwrap_err();
    emulator.clear_faults();
    [path_of("packs", &large), path_of("packs", &small)]
}

fn failing(method: &str) -> FaultRule {
    let body = ErrorBody::Html;
    FaultRule::new(Fault::Status { status: 500, body, error_type: None, executed: false })
        .service(Service::Upload)
        .method(method)
}

fn paths(rows: Vec<ObjectInfo>) -> Vec<ObjectPath> {
    let mut paths: Vec<_> = rows.into_iter().map(|row| row.path).collect();
    paths.sort();
    paths
}

#[test]
fn a_session_that_only_fails_is_begun_anew() {
    for methods in [&["PATCH"][..], &["HEAD"], &["HEAD", "PATCH"]] {
        let emulator = emulator();
        let directory = tempfile::tempdir().unwrap();
        let mut expected = two_interrupted(&emulator, directory.path());
        expected.sort();
        let broken = format!("/files/{}", emulator.uploads(ACCOUNT).unwrap()[0].id);
        emulator.set_faults(methods.iter().map(|method| failing(method).path(&broken)).collect());
        let store = store_in(&emulator, directory.path());
        assert_eq!(paths(store.resume_uploads().unwrap()), expected, "{methods:?}");
        assert_eq!(spooled(directory.path()), [""; 0]);
        for path in &expected {
            assert_eq!(rows_on(&emulator, path).len(), 1);
        }
    }
}

#[test]
fn an_upload_without_an_answer_keeps_nothing_else_from_being_stored() {
    let emulator = emulator();
    let directory = tempfile::tempdir().unwrap();
    let mut expected = two_interrupted(&emulator, directory.path());
    expected.sort();
    // Whichever comes first.
    {
        emulator.set_faults(vec![failing("HEAD").times(1)]);
        let store = hasty_store_in(&emulator, directory.path());
        assert_eq!(store.resume_uploads().unwrap().len(), 1);
        assert_eq!(spooled(directory.path()).len(), 2);
    }
    emulator.set_faults(vec![failing("HEAD"), failing("PATCH")]);
    {
        let store = store_in(&emulator, directory.path());
        assert_eq!(store.resume_uploads().unwrap(), [], "the rest of put.io answers");
        assert_eq!(spooled(directory.path()).len(), 2);
        emulator.set_faults(vec![FaultRule::new(Fault::ResetBefore)]);
        let error = store.resume_uploads().unwrap_err();
        assert_eq!((error.kind, error.status), (ErrorKind::Other, Status::Exhausted));
        emulator.clear_faults();
        store.write(&path("packs/other"), b"bytes").unwrap();
    }
    let store = store_in(&emulator, directory.path());
    assert_eq!(store.resume_uploads().unwrap().len(), 1);
    assert_eq!(spooled(directory.path()), [""; 0]);
    for path in &expected {
        assert_eq!(rows_on(&emulator, path).len(), 1);
    }
}

#[test]
fn what_was_meant_for_a_folder_that_is_gone_is_not_sent_elsewhere() {
    let emulator = emulator();
    let directory = tempfile::tempdir().unwrap();
    interrupted(&emulator, directory.path(), &bytes(1, 5_000_000), 1_000_000);
    delete_on(&emulator, folder_on(&emulator, FOLDER));
    let store = created(&emulator);
    drop(store);
    fs_err::remove_dir_all(directory.path().join("cache")).unwrap();
    let store = store_in(&emulator, directory.path());
    assert_eq!(store.resume_uploads().unwrap(), []);
    assert_eq!(spooled(directory.path()).len(), 2, "it is forgotten when its time is over");
    assert_eq!(store.list("packs").unwrap(), [], "another repository gets nothing of the old one");
}

#[test]
fn what_was_meant_for_another_account_is_left_for_that_one() {
    let other = "other-token";
    let emulator = emulator_with(|options| {
        options.accounts.push(AccountOptions::new("other", other));
    });
    let directory = tempfile::tempdir().unwrap();
    let bytes = bytes(1, 5_000_000);
    interrupted(&emulator, directory.path(), &bytes, 1_000_000);
    {
        let options = PutioOptions {
            client: client_of(&emulator, other, 10),
            account: account_key(&emulator.api_url(), &Token::new(other.to_owned()).unwrap()),
            cache: Some(directory.path().join("cache")),
            state: Some(directory.path().join("state")),
            ..options(&emulator)
        };
        let store = PutioStore::open(options).unwrap();
        store.create(&FOLDERS).unwrap();
        assert_eq!(store.resume_uploads().unwrap(), []);
        assert_eq!(store.list("packs").unwrap(), []);
    }
    let store = store_in(&emulator, directory.path());
    assert_eq!(store.resume_uploads().unwrap().len(), 1);
    assert_eq!(store.read_all(&path_of("packs", &bytes), u64::MAX).unwrap(), bytes);
}

#[test]
fn without_a_state_directory_nothing_is_left() {
    let emulator = emulator();
    let store = created(&emulator);
    let bytes = bytes(1, 5_000_000);
    write_in_pieces(&store, &path_of("packs", &bytes), &bytes).unwrap();
    assert_eq!(store.resume_uploads().unwrap(), []);
}

#[test]
fn bytes_that_put_io_spoils_are_sent_again_and_no_wrong_row_stays() {
    let emulator = emulator();
    let store = created(&emulator);
    let bytes = bytes(1, 5_000_000);
    let path = path_of("packs", &bytes);
    emulator.set_faults(vec![FaultRule::new(Fault::CorruptUpload).method("PATCH").nth(1)]);
    write_in_pieces(&store, &path, &bytes).unwrap();
    emulator.clear_faults();
    assert_eq!(rows_on(&emulator, &path).len(), 1);
    assert_eq!(store.read_all(&path, u64::MAX).unwrap(), bytes);

    emulator.set_faults(vec![FaultRule::new(Fault::CorruptUpload).method("PATCH")]);
    let other = crate::support::bytes(2, 100_000);
    assert_kind(store.write(&path_of("packs", &other), &other), ErrorKind::Corrupt);
    emulator.clear_faults();
    assert_eq!(rows_on(&emulator, &path_of("packs", &other)).len(), 0);
    store.write(&path_of("packs", &other), &other).unwrap();
}

#[test]
fn an_object_that_does_not_fit_is_refused_before_it_is_sent() {
    let emulator = emulator();
    let store = created(&emulator);
    emulator.set_quota(ACCOUNT, 8_000_000).unwrap();
    let (first, second) = (bytes(1, 5_000_000), bytes(2, 5_000_000));
    let first_info = write_in_pieces(&store, &path_of("packs", &first), &first).unwrap();
    requests(&emulator);
    let text =
        assert_kind(write_in_pieces(&store, &path_of("packs", &second), &second), ErrorKind::Full);
    assert!(text.contains("5000000 bytes") && text.contains("3000000 are free"), "{text}");
    assert!(!requests(&emulator).contains(&Kind::UploadData));
    // Small objects go on: a checkpoint can be written.
    store.write(&path("snapshots/a"), b"bytes").unwrap();
    // Room that was made is seen at once.
    delete_on(&emulator, first_info.service_id.unwrap().parse().unwrap());
    write_in_pieces(&store, &path_of("packs", &second), &second).unwrap();
}

#[test]
fn a_service_that_does_not_tell_its_space_is_not_asked_for_each_object() {
    let emulator = emulator();
    let directory = tempfile::tempdir().unwrap();
    let store = store_in(&emulator, directory.path());
    store.create(&FOLDERS).unwrap();
    requests(&emulator);
    let body = ErrorBody::Html;
    let fault = Fault::Status { status: 503, body, error_type: None, executed: false };
    emulator.set_faults(vec![FaultRule::new(fault).path("/v2/account/info")]);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let store = &store;
            scope.spawn(move || {
                let bytes = bytes(seed, 1_200_000);
                store.write(&path_of("packs", &bytes), &bytes).unwrap();
            });
        }
    });
    for seed in 4..6 {
        let error = store.space().unwrap_err();
        assert_eq!((error.kind, error.status), (ErrorKind::Other, Status::Exhausted));
        assert!(crate::support::chain(&error).contains("503"), "{error:?}");
        let bytes = bytes(seed, 1_200_000);
        store.write(&path_of("packs", &bytes), &bytes).unwrap();
    }
    let asked = requests(&emulator).into_iter().filter(|kind| *kind == Kind::Account).count();
    assert_eq!(asked, 10, "one call, tried until patience ends");
    assert_eq!(store.list("packs").unwrap().len(), 6);
}

#[test]
fn an_account_that_is_full_after_all_says_so() {
    for fault in [Fault::FullAtCreate, Fault::FullAtFinish] {
        let emulator = emulator();
        let store = created(&emulator);
        emulator.set_faults(vec![
            FaultRule::new(fault),
            FaultRule::new(Fault::WrongSpace { available_bytes: 1 }).path("/v2/account/info"),
        ]);
        assert_kind(store.write(&path("packs/a"), b"bytes"), ErrorKind::Full);
    }
}

#[test]
fn no_more_objects_are_sent_at_once_than_connections() {
    let emulator = emulator();
    let options = PutioOptions { connections: 2, ..options(&emulator) };
    let store = PutioStore::open(options).unwrap();
    assert_eq!(store.capabilities().connections, 2);
    store.create(&FOLDERS).unwrap();
    emulator.set_latency(std::time::Duration::from_millis(30));
    emulator.clear_log();
    std::thread::scope(|scope| {
        for number in 0..8_u64 {
            let store = &store;
            scope.spawn(move || {
                let bytes = bytes(number, 10_000);
                store.write(&path_of("packs", &bytes), &bytes).unwrap();
            });
        }
    });
    let mut changes = Vec::new();
    for entry in emulator.log() {
        changes.push((entry.at, 1));
        changes.push((entry.at + entry.latency, -1));
    }
    changes.sort();
    let mut under_way = 0;
    for (_, change) in changes {
        under_way += change;
        assert!(under_way <= 2);
    }
    assert_eq!(store.list("packs").unwrap().len(), 8);
}

#[test]
fn a_storm_is_survived_without_a_duplicate_that_is_not_known() {
    let emulator = emulator();
    let directory = tempfile::tempdir().unwrap();
    emulator.set_faults(putio_emulator::storm(0.3, 5));
    let store = store_in(&emulator, directory.path());
    store.create(&FOLDERS).unwrap();
    let objects: Vec<_> = (0..12).map(|seed| bytes(seed, 200_000 << (seed % 5))).collect();
    for bytes in &objects {
        write_in_pieces(&store, &path_of("packs", bytes), bytes).unwrap();
    }
    for bytes in &objects {
        assert_eq!(&store.read_all(&path_of("packs", bytes), u64::MAX).unwrap(), bytes);
    }
    emulator.clear_faults();
    for bytes in &objects {
        assert!(!rows_on(&emulator, &path_of("packs", bytes)).is_empty());
    }
    let fresh = crate::support::store(&emulator);
    let listed = fresh.list("packs").unwrap();
    assert_eq!(
        listed.len(),
        emulator.files(ACCOUNT).unwrap().iter().filter(|row| !row.is_folder).count()
    );
    for bytes in &objects {
        assert_eq!(&fresh.read_all(&path_of("packs", bytes), u64::MAX).unwrap(), bytes);
    }
    assert_eq!(emulator.violations(), []);
    assert_eq!(spooled(directory.path()), [""; 0]);
}
