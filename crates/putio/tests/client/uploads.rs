//! Uploads against a service with sessions and rows that fails on demand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use putio::{Client, ErrorKind, FileId, Session, UploadRequest, Uploaded};

use crate::server::{Head, Reply, Server, Service};

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Executed, not answered.
    Lost,
    /// Not executed, not answered.
    Dropped,
    /// Of a body only so many bytes are read, and kept.
    Torn(usize),
    /// Answered with this status, not executed.
    Status(u16),
    /// Too many requests, with a moment in the past.
    Refused,
    /// Executed; the answer does not say which row it is.
    Mute,
    /// Executed; the answer names the row without its checksum.
    NoChecksum,
    /// The session is forgotten.
    Forgotten,
    /// A byte is damaged on the way to the disk.
    Damaged,
}

type Rule = Box<dyn Fn(&Head) -> Option<Fault> + Send + Sync>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    id: i64,
    name: String,
    parent: String,
    bytes: Vec<u8>,
}

/// A session.
struct Begun {
    metadata: HashMap<String, String>,
    length: usize,
    bytes: Vec<u8>,
    row: Option<i64>,
}

#[derive(Default)]
struct State {
    sessions: HashMap<String, Begun>,
    rows: Vec<Row>,
    next: i64,
}

struct Uploads {
    state: Arc<Mutex<State>>,
    rule: Rule,
    finishes_empty_files_at_once: bool,
}

impl Uploads {
    fn json(row: &Row) -> String {
        let crc32 = crc32fast::hash(&row.bytes);
        format!(
            r#"{{"id":{},"name":"{}","parent_id":{},"size":{},"crc32":"{crc32:08x}","content_type":"a/b"}}"#,
            row.id,
            row.name,
            row.parent,
            row.bytes.len()
        )
    }

    fn finish(state: &mut State, path: &str) -> i64 {
        state.next += 1;
        let id = 5_000_000_000 + state.next;
        let Begun { metadata, bytes, row, .. } = state.sessions.get_mut(path).unwrap();
        assert_eq!(metadata["no-torrent"], "true");
        *row = Some(id);
        state.rows.push(Row {
            id,
            name: metadata["name"].clone(),
            parent: metadata["parent_id"].clone(),
            bytes: bytes.clone(),
        });
        id
    }

    fn execute(&self, head: &Head, body: &[u8], fault: Option<Fault>) -> Reply {
        let state = &mut *self.state.lock().unwrap();
        match (head.method.as_str(), head.path.as_str()) {
            ("POST", "/files/") => {
                let pairs = head.header("upload-metadata").unwrap().split(',');
                let metadata = pairs.map(|pair| {
                    let (key, value) = pair.split_once(' ').unwrap();
                    let value = STANDARD.decode(value).unwrap();
                    (key.to_owned(), String::from_utf8(value).unwrap())
                });
                let length: usize = head.header("upload-length").unwrap().parse().unwrap();
                assert_eq!(head.header("content-length"), Some("0"));
                assert_eq!(head.header("tus-resumable"), Some("1.0.0"));
                let path = format!("/files/{}", state.sessions.len() + 1);
                let metadata = metadata.collect();
                let begun = Begun { metadata, length, bytes: Vec::new(), row: None };
                state.sessions.insert(path.clone(), begun);
                let reply = Reply::new(201).with("location", &path);
                if length == 0 && self.finishes_empty_files_at_once {
                    let id = Self::finish(state, &path);
                    state.sessions.remove(&path);
                    return reply.with("putio-file-id", id).with("putio-file-crc32", "00000000");
                }
                reply
            }
            ("HEAD", path) => match state.sessions.get(path) {
                None => Reply::new(404),
                Some(Begun { length, bytes, .. }) => {
                    Reply::new(200).with("upload-offset", bytes.len()).with("upload-length", length)
                }
            },
            ("PATCH", path) => {
                assert_eq!(head.header("content-type"), Some("application/offset+octet-stream"));
                let offset: usize = head.header("upload-offset").unwrap().parse().unwrap();
                let Some(Begun { length, bytes, row, .. }) = state.sessions.get_mut(path) else {
                    return Reply::new(404);
                };
                if offset != bytes.len() {
                    return Reply::new(409).with("upload-offset", bytes.len());
                }
                bytes.extend_from_slice(body);
                if fault == Some(Fault::Damaged) && offset == 0 {
                    bytes[0] ^= 1;
                }
                let end = bytes.len();
                let crc32 = crc32fast::hash(bytes);
                let (is_done, row) = (end == *length, *row);
                let reply = Reply::new(204).with("upload-offset", end);
                if !is_done {
                    return reply;
                }
                let id = row.unwrap_or_else(|| Self::finish(state, path));
                match fault {
                    Some(Fault::Mute) => reply,
                    Some(Fault::NoChecksum) => reply.with("putio-file-id", id),
                    _ => reply
                        .with("putio-file-id", id)
                        .with("putio-file-crc32", format!("{crc32:08x}")),
                }
            }
            ("DELETE", path) => match state.sessions.remove(path) {
                Some(_) => Reply::new(204),
                None => Reply::new(404),
            },
            ("POST", "/v2/files/delete") => {
                let ids: Vec<_> = form(body)["file_ids"].split(',').map(str::to_owned).collect();
                state.rows.retain(|row| !ids.contains(&row.id.to_string()));
                Reply::json(200, r#"{"status":"OK","cursor":null}"#)
            }
            ("GET", "/v2/files/list") => {
                let rows: Vec<_> = state
                    .rows
                    .iter()
                    .filter(|row| row.parent == head.query["parent_id"])
                    .map(Self::json)
                    .collect();
                Reply::json(200, format!(r#"{{"files":[{}],"cursor":null}}"#, rows.join(",")))
            }
            ("GET", path) => {
                let id = path.strip_prefix("/v2/files/").unwrap();
                let row = match id.strip_suffix("/child") {
                    Some(parent) => state
                        .rows
                        .iter()
                        .find(|row| row.parent == parent && row.name == head.query["name"]),
                    None => state.rows.iter().find(|row| row.id.to_string() == id),
                };
                match row {
                    Some(row) => Reply::json(200, format!(r#"{{"file":{}}}"#, Self::json(row))),
                    None => Reply::error(404, "NotFound"),
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

fn form(body: &[u8]) -> HashMap<String, String> {
    url::form_urlencoded::parse(body).into_owned().collect()
}

impl Service for Uploads {
    fn body_limit(&self, head: &Head) -> Option<usize> {
        match (self.rule)(head) {
            Some(Fault::Torn(bytes)) => Some(bytes),
            _ => None,
        }
    }

    fn answer(&self, head: &Head, body: Vec<u8>, _: bool) -> Reply {
        let fault = (self.rule)(head);
        match fault {
            Some(Fault::Dropped) => Reply::Close,
            Some(Fault::Status(status)) => Reply::new(status),
            Some(Fault::Refused) => Reply::error(429, "").with("x-ratelimit-reset", 1),
            Some(Fault::Forgotten) => {
                self.state.lock().unwrap().sessions.remove(&head.path);
                Reply::new(404)
            }
            Some(Fault::Lost) => {
                self.execute(head, &body, fault);
                Reply::Close
            }
            _ => self.execute(head, &body, fault),
        }
    }
}

struct Bench {
    server: Server,
    state: Arc<Mutex<State>>,
}

impl Bench {
    async fn start(rule: impl Fn(&Head) -> Option<Fault> + Send + Sync + 'static) -> Self {
        Self::start_as(false, rule).await
    }

    async fn start_as(
        finishes_empty_files_at_once: bool,
        rule: impl Fn(&Head) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let service = Uploads {
            state: Arc::clone(&state),
            rule: Box::new(rule),
            finishes_empty_files_at_once,
        };
        Self { server: Server::start(service).await, state }
    }

    async fn upload(&self, content: &[u8]) -> Result<Uploaded, putio::Error> {
        self.resume(&self.server.client(), content, None, &mut Vec::new()).await
    }

    async fn resume(
        &self,
        client: &Client,
        content: &[u8],
        session: Option<Session>,
        sessions: &mut Vec<Session>,
    ) -> Result<Uploaded, putio::Error> {
        let mut request = UploadRequest::new(FileId(3), "pack", &content);
        request.slice_bytes = 100_000;
        request.updated_at = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_330_800));
        client.upload(&request, session, &mut |session| sessions.push(session.clone())).await
    }

    /// The upload went well, and its row is the only one.
    #[track_caller]
    fn check(&self, uploaded: &Uploaded, content: &[u8]) {
        let state = self.state.lock().unwrap();
        assert_eq!(state.rows.len(), 1, "{:?}", self.server.lines());
        assert!(state.rows[0].bytes == content);
        assert_eq!((uploaded.id.0, uploaded.size), (state.rows[0].id, content.len() as u64));
        assert_eq!(uploaded.crc32, crc32fast::hash(content));
    }

    fn methods(&self) -> String {
        let lines = self.server.lines();
        let words = lines.iter().map(|line| match line.split_once(' ').unwrap() {
            ("GET", path) if path.ends_with("/child") => "child",
            ("GET", path) if path.ends_with("/list") => "list",
            ("GET", _) => "file",
            ("POST", "/v2/files/delete") => "delete",
            (method, _) => method,
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length as u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Uploads 250,000 bytes in three slices with faults by the number of the request, and compares the
/// requests made.
async fn check(faults: &[(usize, Fault)], methods: &str) {
    let faults = faults.to_vec();
    let rule = move |head: &Head| {
        let fault = faults.iter().find(|(number, _)| *number == head.number);
        fault.map(|(_, fault)| *fault)
    };
    let bench = Bench::start(rule).await;
    let content = content(250_000);
    let uploaded = bench.upload(&content).await.unwrap();
    assert_eq!(bench.methods(), methods);
    bench.check(&uploaded, &content);
}

#[tokio::test]
async fn an_upload_is_one_request_and_one_for_each_slice() {
    check(&[], "POST PATCH PATCH PATCH").await;
}

#[tokio::test]
async fn metadata_is_complete_and_the_token_sent() {
    let bench = Bench::start(|_| None).await;
    let content = content(10);
    bench.upload(&content).await.unwrap();
    let state = bench.state.lock().unwrap();
    let mut pairs: Vec<_> =
        state.sessions["/files/1"].metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    pairs.sort_unstable();
    assert_eq!(
        pairs,
        [
            ("name", "pack"),
            ("no-torrent", "true"),
            ("parent_id", "3"),
            ("updated-at", "2026-11-22T07:00:00Z"),
        ]
    );
    for received in bench.server.received() {
        assert_eq!(received.head.header("authorization"), Some("Bearer SECRETTOKEN"));
    }
}

#[tokio::test]
async fn lost_and_torn_requests_go_on_where_they_stopped() {
    check(&[(0, Fault::Lost)], "POST POST PATCH PATCH PATCH").await;
    check(&[(1, Fault::Lost)], "POST PATCH HEAD PATCH PATCH").await;
    check(&[(1, Fault::Dropped)], "POST PATCH HEAD PATCH PATCH PATCH").await;
    check(&[(2, Fault::Torn(50_000)), (3, Fault::Lost)], "POST PATCH PATCH HEAD HEAD PATCH").await;
}

#[tokio::test]
async fn a_failing_service_gets_the_slice_again() {
    check(&[(1, Fault::Status(503))], "POST PATCH PATCH PATCH PATCH").await;
    check(
        &[(1, Fault::Status(500)), (2, Fault::Status(502))],
        "POST PATCH PATCH HEAD PATCH PATCH PATCH",
    )
    .await;
    check(&[(2, Fault::Refused)], "POST PATCH PATCH PATCH PATCH").await;
}

#[tokio::test]
async fn a_lost_last_answer_is_resolved() {
    check(&[(3, Fault::Lost)], "POST PATCH PATCH PATCH HEAD child").await;
    check(&[(3, Fault::Lost), (4, Fault::Forgotten)], "POST PATCH PATCH PATCH HEAD child").await;
    check(&[(3, Fault::Mute)], "POST PATCH PATCH PATCH child").await;
    check(&[(3, Fault::NoChecksum)], "POST PATCH PATCH PATCH file").await;
}

#[tokio::test]
async fn a_lost_session_is_begun_again() {
    check(&[(2, Fault::Forgotten)], "POST PATCH PATCH POST PATCH PATCH PATCH").await;
    check(&[(2, Fault::Status(412))], "POST PATCH PATCH POST PATCH PATCH PATCH").await;
}

#[tokio::test]
async fn damage_on_the_way_is_found_and_repaired() {
    check(&[(1, Fault::Damaged)], "POST PATCH PATCH PATCH file delete POST PATCH PATCH PATCH")
        .await;
}

#[tokio::test]
async fn damage_each_time_is_an_error_and_leaves_nothing() {
    let bench = Bench::start(|head| (head.method == "PATCH").then_some(Fault::Damaged)).await;
    let error = bench.upload(&content(1000)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(bench.state.lock().unwrap().rows.is_empty());
    let round = "POST PATCH file delete";
    assert_eq!(bench.methods(), [round; 3].join(" "));
}

#[tokio::test]
async fn empty_files_are_finished_either_way() {
    for at_once in [false, true] {
        let bench = Bench::start_as(at_once, |_| None).await;
        let uploaded = bench.upload(&[]).await.unwrap();
        bench.check(&uploaded, &[]);
        assert_eq!(bench.methods(), "POST PATCH");
    }
}

#[tokio::test]
async fn an_upload_goes_on_in_another_process() {
    // The third slice is not taken, as often as it is sent.
    let bench = Bench::start(|head| {
        let is_third = head.header("upload-offset") == Some("200000");
        (is_third && head.number < 6).then_some(Fault::Dropped)
    })
    .await;
    let content = content(250_000);
    let mut sessions = Vec::new();
    let client = bench.server.client_with(|options| options.patience.attempts_max = 2);
    let error = bench.resume(&client, &content, None, &mut sessions).await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
    assert_eq!(bench.methods(), "POST PATCH PATCH PATCH HEAD PATCH");
    assert_eq!(sessions.len(), 1);
    assert!(!format!("{sessions:?}").contains("files"), "{sessions:?}");

    let kept = serde_json::to_string(&sessions[0]).unwrap();
    let session: Session = serde_json::from_str(&kept).unwrap();
    let client = bench.server.client();
    let uploaded =
        bench.resume(&client, &content, Some(session.clone()), &mut sessions).await.unwrap();
    bench.check(&uploaded, &content);
    assert_eq!(bench.methods(), "POST PATCH PATCH PATCH HEAD PATCH HEAD PATCH");
    assert_eq!(client.usage().bytes_sent, 50_000);

    // Once more: it was finished, and the process died before it knew.
    let again = bench.resume(&client, &content, Some(session.clone()), &mut sessions).await;
    assert_eq!(again.unwrap(), uploaded);
    // And once more, when the service has forgotten the session.
    bench.state.lock().unwrap().sessions.clear();
    let again = bench.resume(&client, &content, Some(session), &mut sessions).await.unwrap();
    assert_eq!(again, uploaded);
    assert_eq!(sessions.len(), 1);
    assert!(bench.methods().ends_with("HEAD child HEAD child"), "{}", bench.methods());
}

#[tokio::test]
async fn a_session_that_is_not_this_uploads_is_not_used() {
    let bench = Bench::start(|_| None).await;
    let client = bench.server.client();
    let url = format!("{}/files/9", bench.server.url);
    for (url, length) in [
        (url.as_str(), 9),
        ("https://elsewhere.example/files/1", 10),
        ("http://127.0.0.1:1/files/1", 10),
        ("nonsense", 10),
    ] {
        let json = format!(r#"{{"url":"{url}","length":{length}}}"#);
        let session: Session = serde_json::from_str(&json).unwrap();
        let content = content(10);
        let mut sessions = Vec::new();
        bench.resume(&client, &content, Some(session), &mut sessions).await.unwrap();
        assert_eq!(sessions.len(), 1);
    }
    assert_eq!(bench.methods(), ["POST PATCH"; 4].join(" "));
}

#[tokio::test]
async fn the_token_does_not_follow_a_foreign_location() {
    let server = Server::start(|head: &Head, _: &[u8]| {
        assert!(head.is("POST", "/files/"), "{head:?}");
        Reply::new(201).with("location", "https://elsewhere.example/files/1")
    })
    .await;
    let client = server.client_with(|options| options.patience.attempts_max = 2);
    let content = content(10);
    let request = UploadRequest::new(FileId(3), "a", &content);
    let error = client.upload(&request, None, &mut |_| {}).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_full_account_is_said_at_once() {
    for (method, status) in [("POST", 413), ("PATCH", 507)] {
        let rule = move |head: &Head| (head.method == method).then_some(Fault::Status(status));
        let bench = Bench::start(rule).await;
        let error = bench.upload(&content(10)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Full);
    }
    // An answer that says nothing is looked into.
    let server = Server::start(|head: &Head, _: &[u8]| match head.path.as_str() {
        "/files/" => Reply::new(403),
        _ => Reply::json(200, r#"{"info":{"user_id":1,"disk":{"avail":5,"size":9,"used":4}}}"#),
    })
    .await;
    for (length, kind) in [(10, ErrorKind::Full), (5, ErrorKind::Denied)] {
        let content = content(length);
        let request = UploadRequest::new(FileId(3), "a", &content);
        let error = server.client().upload(&request, None, &mut |_| {}).await.unwrap_err();
        assert_eq!(error.kind, kind);
    }
}

#[tokio::test]
async fn content_that_cannot_be_read_is_a_local_error() {
    struct Shrunk;
    impl putio::Content for Shrunk {
        fn length(&self) -> u64 {
            1000
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
            Ok(if offset < 500 { buffer.len().min(10) } else { 0 })
        }
    }
    let bench = Bench::start(|_| None).await;
    let request = UploadRequest::new(FileId(3), "a", &Shrunk);
    let client = bench.server.client();
    let error = client.upload(&request, None, &mut |_| {}).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Local);
}

#[tokio::test]
async fn a_long_transfer_does_not_use_up_patience() {
    let bench = Bench::start(|head| match head.number {
        1 => Some(Fault::Torn(90_000)),
        2 => Some(Fault::Dropped),
        _ => None,
    })
    .await;
    let client = bench.server.client_with(|options| {
        options.upload_bytes_per_second = Some(300_000);
        options.patience.total = Duration::from_millis(100);
    });
    let content = content(100_000);
    let uploaded = bench.resume(&client, &content, None, &mut Vec::new()).await.unwrap();
    bench.check(&uploaded, &content);
    assert_eq!(bench.methods(), "POST PATCH HEAD HEAD PATCH");
}

#[tokio::test]
async fn an_upload_can_be_abandoned() {
    let bench = Bench::start(|head| (head.method == "PATCH").then_some(Fault::Status(401))).await;
    let mut sessions = Vec::new();
    let client = bench.server.client();
    let error = bench.resume(&client, &content(10), None, &mut sessions).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    client.abandon(&sessions[0]).await.unwrap();
    client.abandon(&sessions[0]).await.unwrap();
    assert!(bench.state.lock().unwrap().sessions.is_empty());
    assert_eq!(bench.methods(), "POST PATCH DELETE DELETE");
}

#[tokio::test]
async fn a_limit_of_bandwidth_is_kept() {
    let bench = Bench::start(|_| None).await;
    let client = bench.server.client_with(|options| {
        options.upload_bytes_per_second = Some(400_000);
    });
    let content = content(200_000);
    let start = Instant::now();
    bench.resume(&client, &content, None, &mut Vec::new()).await.unwrap();
    let seconds = start.elapsed().as_secs_f64();
    assert!((0.25..3.0).contains(&seconds), "{seconds}");
    assert_eq!(client.usage().bytes_sent, 200_000);
}

/// Three of ten requests fail in every way; every upload comes whole, with few requests more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_costs_at_most_twice_the_requests() {
    let seed: u64 = 0x9e37_79b9_7f4a_7c15;
    // One decision per request: `body_limit` and `answer` ask with the same number.
    let decide = move |head: &Head| {
        let mut bits = seed.wrapping_mul(head.number as u64 + 1);
        bits ^= bits >> 29;
        bits = bits.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits ^= bits >> 32;
        let choice = (bits >> 8) % 6;
        (bits % 100 < 30).then_some(match choice {
            0 => Fault::Lost,
            1 => Fault::Dropped,
            2 if head.method == "PATCH" => Fault::Torn((bits >> 16) as usize % 40_000),
            2 => Fault::Dropped,
            3 => Fault::Status(503),
            4 => Fault::Status(500),
            _ => Fault::Lost,
        })
    };
    let bench = Bench::start(decide).await;
    let client = bench.server.client();
    let mut tasks = tokio::task::JoinSet::new();
    let bench = Arc::new(bench);
    for number in 0..100 {
        let (bench, client) = (Arc::clone(&bench), client.clone());
        tasks.spawn(async move {
            let content = content(30_000 + number);
            let name = format!("pack-{number}");
            let request = UploadRequest::new(FileId(3), &name, &content);
            let uploaded = client.upload(&request, None, &mut |_| {}).await.unwrap();
            let state = bench.state.lock().unwrap();
            let row = state.rows.iter().find(|row| row.id == uploaded.id.0).unwrap();
            assert!(row.bytes == content && row.name == name);
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
    let requests = bench.server.received().len();
    assert!(requests <= 2 * 200, "{requests} requests for 100 uploads that cost 2 each");
    assert_eq!(client.usage().requests as usize, requests);
}
