//! An emulated account, and stores in it.

use std::path::Path;
use std::time::Duration;

use putback_remotes::{PutioOptions, PutioStore, account_key};
use putback_store::{Error, ErrorKind, ObjectInfo, ObjectPath, Store as _};
use putio::{Client, ClientOptions, DeleteOptions, FileId, Patience, Token};
use putio_emulator::{Emulator, FileInfo, LogEntry, Options, Profile, Service};

pub(crate) const ACCOUNT: &str = "user";
pub(crate) const TOKEN: &str = "emulator-token";
pub(crate) const FOLDER: &str = "backups/laptop";
/// All folders of a repository.
pub(crate) const FOLDERS: [&str; 7] =
    ["config", "keys", "copies", "packs", "index", "snapshots", "marks"];

/// A service with one account.
pub(crate) fn emulator() -> Emulator {
    emulator_with(|_| {})
}

pub(crate) fn emulator_with(change: impl FnOnce(&mut Options)) -> Emulator {
    let mut options = Options::default();
    change(&mut options);
    Emulator::start(options).unwrap()
}

/// A client that tries again soon and does not try for long.
pub(crate) fn client(emulator: &Emulator, attempts_max: u32) -> Client {
    client_of(emulator, TOKEN, attempts_max)
}

/// The same for the account of this token.
pub(crate) fn client_of(emulator: &Emulator, token: &str, attempts_max: u32) -> Client {
    let options = ClientOptions {
        api_url: emulator.api_url(),
        upload_url: emulator.upload_url(),
        // The service refuses what is too much; before that, nothing is held back.
        requests_per_second: Some(1_000_000.0),
        patience: Patience {
            attempts_max,
            wait_max: Duration::from_secs(5),
            total: Duration::from_secs(60),
            backoff: Duration::from_millis(5),
        },
        ..ClientOptions::new("putback-tests")
    };
    Client::new(Token::new(token.to_owned()).unwrap(), options).unwrap()
}

fn token() -> Token {
    Token::new(TOKEN.to_owned()).unwrap()
}

pub(crate) fn options(emulator: &Emulator) -> PutioOptions {
    let account = account_key(&emulator.api_url(), &token());
    PutioOptions::new(client(emulator, 10), account, FOLDER)
}

/// A store without a past.
pub(crate) fn store(emulator: &Emulator) -> PutioStore {
    PutioStore::open(options(emulator)).unwrap()
}

/// A store of a process that keeps what it may in `directory`.
pub(crate) fn store_in(emulator: &Emulator, directory: &Path) -> PutioStore {
    PutioStore::open(PutioOptions {
        cache: Some(directory.join("cache")),
        state: Some(directory.join("state")),
        ..options(emulator)
    })
    .unwrap()
}

/// A store whose client gives up at the first failure.
pub(crate) fn hasty_store_in(emulator: &Emulator, directory: &Path) -> PutioStore {
    PutioStore::open(PutioOptions {
        client: client(emulator, 1),
        cache: Some(directory.join("cache")),
        state: Some(directory.join("state")),
        ..options(emulator)
    })
    .unwrap()
}

/// A store with its folders, all of them listed.
pub(crate) fn created(emulator: &Emulator) -> PutioStore {
    let store = store(emulator);
    store.create(&FOLDERS).unwrap();
    for folder in FOLDERS {
        assert_eq!(store.list(folder).unwrap(), []);
    }
    store
}

pub(crate) fn path(text: &str) -> ObjectPath {
    text.parse().unwrap()
}

/// The path of an object that is named by its bytes.
pub(crate) fn path_of(folder: &str, bytes: &[u8]) -> ObjectPath {
    path(&format!("{folder}/{}", blake3::hash(bytes).to_hex()))
}

/// Bytes that are not the same twice.
pub(crate) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Rows as `name:id`, sorted.
pub(crate) fn names(rows: &[ObjectInfo]) -> Vec<&str> {
    let mut names: Vec<_> = rows.iter().map(|row| row.path.name()).collect();
    names.sort_unstable();
    names
}

#[track_caller]
pub(crate) fn assert_kind<T>(result: Result<T, Error>, kind: ErrorKind) -> String {
    match result {
        Ok(_) => panic!("it succeeded but should be {kind:?}"),
        Err(error) => {
            assert_eq!(error.kind, kind, "{error}: {error:?}");
            chain(&error)
        }
    }
}

/// An error with its causes, as a person sees it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    assert!(!text.contains(TOKEN), "{text}");
    text
}

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    List,
    Child,
    File,
    CreateFolder,
    Link,
    Delete,
    Account,
    UploadCreate,
    UploadStatus,
    UploadData,
    Download,
    Other,
}

pub(crate) fn kind(entry: &LogEntry) -> Kind {
    let is = |start: &str, end: &str| entry.path.starts_with(start) && entry.path.ends_with(end);
    match (entry.service, entry.method.as_str()) {
        (Service::Storage, _) => Kind::Download,
        (Service::Upload, "POST") => Kind::UploadCreate,
        (Service::Upload, "HEAD") => Kind::UploadStatus,
        (Service::Upload, "PATCH") => Kind::UploadData,
        (Service::Api, _) if is("/v2/files/list", "") => Kind::List,
        (Service::Api, _) if is("/v2/files/", "/child") => Kind::Child,
        (Service::Api, _) if is("/v2/files/", "/url") => Kind::Link,
        (Service::Api, _) if is("/v2/files/create-folder", "") => Kind::CreateFolder,
        (Service::Api, _) if is("/v2/files/delete", "") => Kind::Delete,
        (Service::Api, _) if is("/v2/account/info", "") => Kind::Account,
        (Service::Api, "GET") if is("/v2/files/", "") => Kind::File,
        _ => Kind::Other,
    }
}

/// What the requests since the last time were for, in their order.
pub(crate) fn requests(emulator: &Emulator) -> Vec<Kind> {
    let requests = emulator.log().iter().map(kind).collect();
    emulator.clear_log();
    requests
}

/// The files of one name in a folder of the store, ids ascending.
pub(crate) fn rows_on(emulator: &Emulator, path: &ObjectPath) -> Vec<FileInfo> {
    let path = format!("{FOLDER}/{path}");
    let mut rows = emulator.files(ACCOUNT).unwrap();
    rows.retain(|row| row.path == path && !row.is_folder);
    rows.sort_by_key(|row| row.id);
    rows
}

/// The id of a folder.
pub(crate) fn folder_on(emulator: &Emulator, path: &str) -> i64 {
    let files = emulator.files(ACCOUNT).unwrap();
    files.iter().find(|row| row.path == path && row.is_folder).unwrap().id
}

/// Does something with a client of its own, beside the stores.
pub(crate) fn with_client<T>(
    emulator: &Emulator,
    work: impl AsyncFnOnce(&Client) -> Result<T, putio::Error>,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = client(emulator, 10);
    runtime.block_on(work(&client)).unwrap()
}

/// Deletes a row with all that is in it, as somebody else would.
pub(crate) fn delete_on(emulator: &Emulator, id: i64) {
    with_client(emulator, async |client| {
        client.delete(&[FileId(id)], DeleteOptions { skip_trash: true }).await
    });
}

/// Gives the folder at `path` another one of its name beside it, with these files in it. put.io
/// lets that happen by accident; the emulator, where a move may clash.
pub(crate) fn seed_twin(emulator: &Emulator, path: &str, files: &[&str]) -> i64 {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let twin = emulator.seed_folder(ACCOUNT, &format!("elsewhere/{name}")).unwrap();
    for file in files {
        emulator.seed_file(ACCOUNT, &format!("elsewhere/{name}/{file}"), b"bytes").unwrap();
    }
    let parent = if parent.is_empty() { 0 } else { folder_on(emulator, parent) };
    emulator.set_profile(Profile::hostile());
    let errors = with_client(emulator, async |client| {
        client.move_files(&[FileId(twin)], FileId(parent)).await
    });
    assert_eq!(errors, []);
    emulator.set_profile(Profile::default());
    twin
}
