//! Downloads: links, ranges, breaks, and what storage hosts must not see.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use putio::{Error, ErrorKind, FileId};

use crate::server::{Head, Reply, Server};

const LENGTH: usize = 100_000;

fn content() -> Vec<u8> {
    (0..LENGTH as u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Answers a range of the content as storage hosts do.
fn range_reply(head: &Head) -> Reply {
    let content = content();
    let range = head.header("range").and_then(|range| range.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
        return Reply::Answer { status: 200, headers: Vec::new(), body: content };
    };
    let first: usize = first.parse().unwrap();
    let last: usize = last.parse::<usize>().unwrap().min(LENGTH - 1);
    if first > last {
        return Reply::new(416).with("content-range", format!("bytes */{LENGTH}"));
    }
    let body = content[first..=last].to_vec();
    Reply::Answer { status: 206, headers: Vec::new(), body }
        .with("content-range", format!("bytes {first}-{last}/{LENGTH}"))
}

/// A storage host that treats its requests as `fault` says (by number), and an API beside it.
async fn start(
    fault: impl Fn(usize, &Head) -> Option<Reply> + Send + Sync + 'static,
) -> (Server, Server) {
    let count = AtomicUsize::new(0);
    let storage = Server::start(move |head: &Head, _: &[u8]| {
        assert_eq!(head.header("authorization"), None, "the token is not for storage hosts");
        assert_eq!(head.header("cookie"), None);
        let number = count.fetch_add(1, Ordering::SeqCst);
        fault(number, head).unwrap_or_else(|| range_reply(head))
    })
    .await;
    let base = storage.url.clone();
    let links = AtomicUsize::new(0);
    let api = Server::start(move |head: &Head, _: &[u8]| {
        if head.is("GET", "/v2/files/5") {
            return Reply::json(200, format!(r#"{{"file":{{"id":5,"size":{LENGTH}}}}}"#));
        }
        assert!(head.is("GET", "/v2/files/5/url"), "{head:?}");
        let link = links.fetch_add(1, Ordering::SeqCst);
        Reply::json(
            200,
            format!(r#"{{"status":"OK","url":"{base}/download/5?oauth_token=LINK{link}"}}"#),
        )
        .with("set-cookie", "session=1; Path=/")
    })
    .await;
    (api, storage)
}

async fn read_all(api: &Server) -> Result<Vec<u8>, Error> {
    let client = api.client_with(|options| options.patience.attempts_max = 4);
    let mut out = vec![1, 2, 3];
    client.read_range(FileId(5), 0..LENGTH as u64, &mut out).await?;
    Ok(out)
}

#[tokio::test]
async fn a_file_costs_a_link_and_a_request() {
    let (api, storage) = start(|_, _| None).await;
    assert_eq!(read_all(&api).await.unwrap(), content());
    assert_eq!((api.received().len(), storage.received().len()), (1, 1));
}

#[tokio::test]
async fn ranges_of_one_file_share_a_link() {
    let (api, storage) = start(|_, _| None).await;
    let client = api.client();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..10u64 {
        let client = client.clone();
        tasks.spawn(async move {
            let range = number * 1000..number * 1000 + 500;
            let mut out = Vec::new();
            client.read_range(FileId(5), range.clone(), &mut out).await.unwrap();
            assert_eq!(out, content()[range.start as usize..range.end as usize]);
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
    assert_eq!((api.received().len(), storage.received().len()), (1, 10));
    assert_eq!(client.usage().bytes_received, 5000);
}

#[tokio::test]
async fn connections_are_used_again() {
    use std::collections::HashSet;
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    // Counts connections, which the server of the other tests does not tell.
    let (api, storage) = start(|_, _| None).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = format!("http://{}", listener.local_addr().unwrap());
    let back = storage.url.strip_prefix("http://").unwrap().to_owned();
    let seen: Arc<Mutex<HashSet<u16>>> = Arc::default();
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (mut client, address) = listener.accept().await.unwrap();
            log.lock().unwrap().insert(address.port());
            let mut server = tokio::net::TcpStream::connect(&back).await.unwrap();
            tokio::spawn(async move {
                let (mut one, mut other) = (vec![0; 65536], vec![0; 65536]);
                loop {
                    tokio::select! {
                        count = client.read(&mut one) => {
                            let Ok(count @ 1..) = count else { return };
                            server.write_all(&one[..count]).await.unwrap();
                        }
                        count = server.read(&mut other) => {
                            let Ok(count @ 1..) = count else { return };
                            client.write_all(&other[..count]).await.unwrap();
                        }
                    }
                }
            });
        }
    });
    let link = format!(r#"{{"url":"{front}/download/5"}}"#);
    let api_front = Server::start(move |_: &Head, _: &[u8]| Reply::json(200, link.clone())).await;
    let client = api_front.client();
    for _ in 0..5 {
        let mut out = Vec::new();
        client.read_range(FileId(5), 0..1000, &mut out).await.unwrap();
    }
    assert_eq!(seen.lock().unwrap().len(), 1);
    drop(api);
}

#[tokio::test]
async fn a_cut_body_is_continued() {
    let cut = |number, head: &Head| (number < 3).then(|| range_reply(head).cut(20_000));
    let (api, storage) = start(cut).await;
    assert_eq!(read_all(&api).await.unwrap(), content());
    assert_eq!(api.received().len(), 1);
    let received = storage.received();
    let ranges: Vec<_> = received.iter().map(|one| one.head.header("range").unwrap()).collect();
    assert_eq!(ranges.len(), 4);
    assert_eq!(ranges[1], "bytes=20000-99999");
    assert_eq!(ranges[3], "bytes=60000-99999");
}

#[tokio::test]
async fn a_host_that_ignores_ranges_is_read_from_the_start() {
    let whole =
        |_, _: &Head| Some(Reply::Answer { status: 200, headers: Vec::new(), body: content() });
    let (api, _storage) = start(whole).await;
    let mut out = Vec::new();
    api.client().read_range(FileId(5), 500..70_000, &mut out).await.unwrap();
    assert_eq!(out, content()[500..70_000]);
}

#[tokio::test]
async fn a_wrong_range_is_not_taken() {
    let wrong = |number, head: &Head| {
        let range = ["bytes 1-99999/100000", "bytes 0-100000/100001", "nonsense", ""];
        let value = range.get(number)?;
        Some(match range_reply(head) {
            Reply::Answer { body, .. } => Reply::Answer { status: 206, headers: Vec::new(), body }
                .with("content-range", value),
            other => other,
        })
    };
    let (api, storage) = start(wrong).await;
    let error = read_all(&api).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert_eq!(storage.received().len(), 4);
    assert_eq!(read_all(&api).await.unwrap(), content());
}

#[tokio::test]
async fn an_expired_link_is_replaced() {
    for status in [400, 401, 403, 404, 410, 416, 451] {
        let expired = move |_, head: &Head| {
            (head.query["oauth_token"] == "LINK0").then(|| Reply::error(status, "LINK_EXPIRED"))
        };
        let (api, storage) = start(expired).await;
        assert_eq!(read_all(&api).await.unwrap(), content());
        let links = api.lines().iter().filter(|line| line.ends_with("/url")).count();
        assert_eq!((links, storage.received().len()), (2, 2));
    }
}

#[tokio::test]
async fn a_storage_host_that_refuses_for_a_while_is_waited_for() {
    for status in [401, 403, 404, 410, 416] {
        let refusal = move |number, _: &Head| (number < 6).then(|| Reply::new(status));
        let (api, _storage) = start(refusal).await;
        let mut out = Vec::new();
        api.client().read_range(FileId(5), 0..LENGTH as u64, &mut out).await.unwrap();
        assert_eq!(out, content(), "{status}");
    }
    let short = |number, _: &Head| {
        let body = content()[..LENGTH / 2].to_vec();
        (number < 3).then_some(Reply::Answer { status: 200, headers: Vec::new(), body })
    };
    let (api, _storage) = start(short).await;
    assert_eq!(read_all(&api).await.unwrap(), content());
}

#[tokio::test]
async fn links_that_never_work_say_nothing_of_the_file() {
    for status in [400, 401, 403, 404, 410, 416] {
        let (api, storage) = start(move |_, _| Some(Reply::error(status, "invalid_scope"))).await;
        let error = read_all(&api).await.unwrap_err();
        assert_eq!((&error.kind, error.status), (&ErrorKind::Withheld, Some(status)), "{error}");
        assert!(error.is_temporary(), "{error}");
        assert!(!format!("{error} {error:?}").contains("LINK"), "{error:?}");
        assert_eq!(storage.received().len(), 5, "a new link at once, then as often as allowed");
    }
}

#[tokio::test]
async fn patience_with_a_file_that_is_withheld_is_spent_once() {
    let refuses = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let state = Arc::clone(&refuses);
    let refuse = move |_, _: &Head| state.load(Ordering::SeqCst).then(|| Reply::new(404));
    let (api, storage) = start(refuse).await;
    let client = api.client_with(|options| options.patience.attempts_max = 4);
    let mut out = Vec::new();
    for requests in [5, 7, 9] {
        let error = client.read_range(FileId(5), 0..10, &mut out).await.unwrap_err();
        assert_eq!((error.kind, storage.received().len()), (ErrorKind::Withheld, requests));
    }
    refuses.store(false, Ordering::SeqCst);
    client.read_range(FileId(5), 0..10, &mut out).await.unwrap();
    refuses.store(true, Ordering::SeqCst);
    client.read_range(FileId(5), 0..10, &mut out).await.unwrap_err();
    assert_eq!(storage.received().len(), 9 + 1 + 5, "it was handed out meanwhile");
}

#[tokio::test]
async fn a_file_is_gone_when_the_api_says_so() {
    let (_, storage) = start(|_, _| Some(Reply::new(404))).await;
    let base = storage.url.clone();
    let api = Server::start(move |head: &Head, _: &[u8]| match head.number {
        0 => Reply::json(200, format!(r#"{{"url":"{base}/download/5?oauth_token=LINK0"}}"#)),
        _ => Reply::error(404, "NotFound"),
    })
    .await;
    assert_eq!(read_all(&api).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!((api.received().len(), storage.received().len()), (2, 1));
}

#[tokio::test]
async fn lost_bytes_are_an_error_at_once() {
    let (api, storage) = start(|_, _| Some(Reply::error(410, "FILE_LOST"))).await;
    assert_eq!(read_all(&api).await.unwrap_err().kind, ErrorKind::Lost);
    assert_eq!(storage.received().len(), 1);
}

#[tokio::test]
async fn a_file_shorter_than_the_range_is_an_error() {
    let (api, _storage) = start(|_, _| None).await;
    let mut out = Vec::new();
    let range = LENGTH as u64..LENGTH as u64 + 10;
    let error = api.client().read_range(FileId(5), range, &mut out).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert_eq!(api.lines(), ["GET /v2/files/5/url", "GET /v2/files/5"], "nothing is repeated");
    let range = LENGTH as u64 - 10..LENGTH as u64 + 10;
    let error = api.client().read_range(FileId(5), range, &mut out).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
}

#[tokio::test]
async fn storage_that_fails_or_stops_is_tried_again() {
    let fault = |number, head: &Head| match number {
        0 => Some(Reply::new(503)),
        1 => Some(Reply::Close),
        2 => Some(Reply::Hang),
        3 => match range_reply(head) {
            Reply::Answer { body, .. } => Some(
                Reply::Answer { status: 206, headers: Vec::new(), body: body[..5].to_vec() }
                    .with("content-range", "bytes 0-99999/100000")
                    .with("content-length", LENGTH),
            ),
            other => Some(other),
        },
        _ => None,
    };
    let (api, _storage) = start(fault).await;
    let client = api.client_with(|options| {
        options.timeouts.connect = Duration::from_millis(100);
        options.timeouts.header = Duration::from_millis(100);
        options.timeouts.idle = Duration::from_millis(100);
    });
    let mut out = Vec::new();
    client.read_range(FileId(5), 0..LENGTH as u64, &mut out).await.unwrap();
    assert_eq!(out, content());
}

#[tokio::test]
async fn a_storage_host_has_a_limit_of_its_own() {
    let fault =
        |number, _: &Head| (number == 0).then(|| Reply::error(429, "").with("retry-after", 1));
    let (api, storage) = start(fault).await;
    let start = Instant::now();
    assert_eq!(read_all(&api).await.unwrap(), content());
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(storage.received().len(), 2);
}

#[tokio::test]
async fn a_redirect_is_followed_without_the_token() {
    let fault = |number, _: &Head| {
        (number == 0).then(|| Reply::new(302).with("location", "/download/elsewhere?u=1"))
    };
    let (api, storage) = start(fault).await;
    assert_eq!(read_all(&api).await.unwrap(), content());
    assert_eq!(storage.lines()[1], "GET /download/elsewhere");
    for target in ["http://example.com/x", "ftp://127.0.0.1/x"] {
        let fault = move |_, _: &Head| Some(Reply::new(302).with("location", target));
        let (api, _storage) = start(fault).await;
        assert_eq!(read_all(&api).await.unwrap_err().kind, ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn links_to_unsafe_addresses_are_refused() {
    for url in ["http://s01.put.io/download/5", "file:///etc/passwd", "nonsense"] {
        let body = format!(r#"{{"url":"{url}"}}"#);
        let api = Server::start(move |_: &Head, _: &[u8]| Reply::json(200, body.clone())).await;
        assert_eq!(read_all(&api).await.unwrap_err().kind, ErrorKind::Corrupt, "{url}");
    }
}

#[tokio::test]
async fn an_empty_range_costs_nothing() {
    let (api, _storage) = start(|_, _| None).await;
    let mut out = vec![1];
    api.client().read_range(FileId(5), 7..7, &mut out).await.unwrap();
    assert_eq!((out.len(), api.received().len()), (0, 0));
}

#[tokio::test]
async fn the_sink_can_end_a_download() {
    let (api, storage) = start(|_, _| None).await;
    let mut sink = |_: &[u8]| Err(Error::new(ErrorKind::Cancelled, "test", "enough"));
    let error = api.client().download(FileId(5), 0..1000, &mut sink).await.unwrap_err();
    assert_eq!((error.kind, storage.received().len()), (ErrorKind::Cancelled, 1));
}

#[tokio::test]
async fn a_limit_of_bandwidth_is_kept() {
    let (api, _storage) = start(|_, _| None).await;
    let client = api.client_with(|options| options.download_bytes_per_second = Some(200_000));
    let start = Instant::now();
    let mut out = Vec::new();
    client.read_range(FileId(5), 0..LENGTH as u64, &mut out).await.unwrap();
    let seconds = start.elapsed().as_secs_f64();
    // The last piece is paid for afterwards, and it may be large.
    assert!((0.05..2.0).contains(&seconds), "{seconds}");
    assert_eq!(out, content());
}
