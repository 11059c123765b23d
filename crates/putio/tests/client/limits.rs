//! No request before the moment the service named, whatever kind it is.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use putio::{DeleteOptions, ErrorKind, FileId, Notice, Observe, UploadRequest, WaitReason};

use crate::server::{Head, Reply, Server, in_turn};

const ROW: &str = r#"{"status":"OK","file":{"id":5,"parent_id":3,"name":"a"}}"#;

/// Seconds since 1970 by a clock that is wrong by `skew` seconds.
fn clock(skew: i64) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap() + skew
}

fn date(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).unwrap();
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn refused(skew: i64, seconds: i64) -> Reply {
    Reply::error(429, "RATE_LIMIT_ERROR")
        .with("date", date(clock(skew)))
        .with("x-ratelimit-reset", clock(skew) + seconds)
}

#[derive(Default)]
struct Notices(Mutex<Vec<Notice>>);

impl Observe for Notices {
    fn notice(&self, notice: &Notice) {
        self.0.lock().unwrap().push(notice.clone());
    }
}

/// Tasks of all kinds run while one request is refused: from then on nothing is sent until the
/// moment named by a service whose clock is an hour ahead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_of_any_kind_before_the_reset() {
    let refused_at: Arc<Mutex<Option<(Instant, i64)>>> = Arc::default();
    let state = Arc::clone(&refused_at);
    let service = move |head: &Head, _: &[u8]| {
        let mut state = state.lock().unwrap();
        if head.number == 20 {
            let reset = clock(3600) + 2;
            *state = Some((Instant::now(), reset));
            return Reply::error(429, "")
                .with("date", date(clock(3600)))
                .with("x-ratelimit-reset", reset);
        }
        if state.is_some_and(|(_, reset)| clock(3600) < reset) {
            // Requests that were on their way are refused, too.
            return Reply::error(429, "")
                .with("date", date(clock(3600)))
                .with("x-ratelimit-reset", state.unwrap().1);
        }
        match (head.method.as_str(), head.path.as_str()) {
            ("POST", "/files/") => Reply::new(201).with("location", "/files/1"),
            ("PATCH", _) if head.number.is_multiple_of(3) => Reply::new(409),
            ("PATCH", _) => Reply::new(204).with("upload-offset", 3).with("putio-file-id", 5),
            ("HEAD", _) => Reply::new(200).with("upload-offset", 0),
            ("POST", _) => Reply::json(200, r#"{"status":"OK"}"#),
            _ => Reply::json(200, r#"{"file":{"id":5,"name":"a","size":3,"crc32":"352441c2"}}"#),
        }
    };
    let server = Server::start(service).await;
    let notices = Arc::new(Notices::default());
    let client = server.client_with(|options| {
        options.observer = Arc::clone(&notices) as _;
        options.requests_per_second = Some(200.0);
    });
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8 {
        let client = client.clone();
        tasks.spawn(async move {
            for _ in 0..4 {
                match number % 3 {
                    0 => drop(client.file(FileId(5)).await.unwrap()),
                    1 => client.delete(&[FileId(5)], DeleteOptions::default()).await.unwrap(),
                    _ => {
                        let content = b"abc".to_vec();
                        let request = UploadRequest::new(FileId(3), "a", &content);
                        client.upload(&request, None, &mut |_| {}).await.unwrap();
                    }
                }
            }
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
    let (refused_at, _) = refused_at.lock().unwrap().unwrap();
    // What was on its way already cannot be called back.
    let under_way = Duration::from_millis(200);
    let early: Vec<_> = server
        .received()
        .into_iter()
        .filter(|one| one.at > refused_at + under_way)
        .filter(|one| one.at < refused_at + Duration::from_secs(1))
        .collect();
    assert!(early.is_empty(), "{early:?}");
    assert!(server.received().iter().any(|one| one.at > refused_at + Duration::from_secs(1)));
    let waited = client.usage().waited;
    assert!(waited > Duration::from_secs(1), "{waited:?}");
    let notices = notices.0.lock().unwrap();
    let waits = notices
        .iter()
        .filter(|notice| matches!(notice, Notice::Waiting { reason: WaitReason::RateLimited, .. }));
    assert_eq!(waits.count(), 1, "{notices:?}");
}

async fn time_of(replies: Vec<fn() -> Reply>) -> (f64, usize) {
    let server = Server::start(in_turn(replies)).await;
    let start = Instant::now();
    server.client().file(FileId(5)).await.unwrap();
    (start.elapsed().as_secs_f64(), server.received().len())
}

#[tokio::test]
async fn a_wrong_local_clock_does_no_harm() {
    for reply in [(|| refused(-86_400, 1)) as fn() -> Reply, || refused(86_400, 1)] {
        let (seconds, count) = time_of(vec![reply, || Reply::json(200, ROW)]).await;
        assert!((1.0..2.5).contains(&seconds), "{seconds}");
        assert_eq!(count, 2);
    }
}

#[tokio::test]
async fn retry_after_alone_is_kept() {
    let refused = || Reply::error(429, "").with("retry-after", 1);
    let (seconds, _) = time_of(vec![refused, || Reply::json(200, ROW)]).await;
    assert!((1.0..2.5).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_reset_in_the_past_costs_little() {
    let (seconds, count) = time_of(vec![|| refused(0, -100), || Reply::json(200, ROW)]).await;
    assert!(seconds < 1.5, "{seconds}");
    assert_eq!(count, 2);
}

#[tokio::test]
async fn an_announced_end_is_kept_by_the_next_request() {
    let last = || {
        Reply::json(200, ROW)
            .with("x-ratelimit-remaining", 0)
            .with("date", date(clock(0)))
            .with("x-ratelimit-reset", clock(0) + 1)
    };
    let server = Server::start(in_turn(vec![last, || Reply::json(200, ROW)])).await;
    let client = server.client();
    client.file(FileId(5)).await.unwrap();
    client.file(FileId(5)).await.unwrap();
    let received = server.received();
    let gap = received[1].at - received[0].at;
    assert!(gap >= Duration::from_secs(1), "{gap:?}");
}

#[tokio::test]
async fn an_absurd_reset_is_an_error_for_all() {
    let server = Server::start(in_turn(vec![|| refused(0, 1_000_000_000)])).await;
    let client = server.client();
    for _ in 0..3 {
        let error = client.file(FileId(5)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::RateLimited);
        assert!(error.is_temporary());
    }
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn a_captcha_ends_everything() {
    let captcha =
        || refused(0, 1).with("x-ratelimit-action", "captcha-needed").with("x-ratelimit-id", "abc");
    let server = Server::start(in_turn(vec![captcha])).await;
    let client = server.client();
    let url = "https://app.put.io/captcha/abc".to_owned();
    for _ in 0..2 {
        let error = client.file(FileId(5)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::CaptchaNeeded { url: url.clone() });
        assert!(error.to_string().contains(&url), "{error}");
    }
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn patience_with_refusals_ends() {
    let server = Server::start(in_turn(vec![|| refused(0, -1)])).await;
    let client = server.client_with(|options| options.patience.attempts_max = 2);
    let error = client.file(FileId(5)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::RateLimited);
    assert_eq!(server.received().len(), 2);
}

#[tokio::test]
async fn a_limit_of_requests_per_second_is_kept() {
    let server = Server::start(in_turn(vec![|| Reply::json(200, ROW)])).await;
    let client = server.client_with(|options| options.requests_per_second = Some(20.0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let client = client.clone();
        tasks.spawn(async move { client.file(FileId(5)).await });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap().unwrap();
    }
    let times: Vec<_> = server.received().iter().map(|one| one.at).collect();
    let span = *times.last().unwrap() - times[0];
    assert!(span >= Duration::from_millis(400), "{span:?}");
}

#[tokio::test]
async fn no_more_connections_than_allowed() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static MOST: AtomicUsize = AtomicUsize::new(0);
    static NOW: AtomicUsize = AtomicUsize::new(0);
    let service = |_: &Head, _: &[u8]| {
        let now = NOW.fetch_add(1, Ordering::SeqCst) + 1;
        MOST.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(5));
        NOW.fetch_sub(1, Ordering::SeqCst);
        Reply::json(200, ROW)
    };
    let server = Server::start(service).await;
    let client = server.client_with(|options| options.connections = 2);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let client = client.clone();
        tasks.spawn(async move { client.file(FileId(5)).await });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap().unwrap();
    }
    assert!(MOST.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn clients_beside_each_other_keep_one_limit_and_wait_for_no_connection_of_each_other() {
    let service = |head: &Head, _: &[u8]| match head.path.as_str() {
        "/v2/files/9" => Reply::Hang,
        _ => Reply::json(200, ROW),
    };
    let server = Server::start(service).await;
    let change = |options: &mut putio::ClientOptions| {
        options.requests_per_second = Some(40.0);
        options.connections = 1;
    };
    let one = server.client_with(change);
    let mut options = server.options();
    change(&mut options);
    let other = one.beside(options).unwrap();
    let start = Instant::now();
    let ask = async |client: &putio::Client| {
        for _ in 0..20 {
            client.file(FileId(5)).await.unwrap();
        }
    };
    tokio::join!(ask(&one), ask(&other));
    let seconds = start.elapsed().as_secs_f64();
    assert!(seconds >= 39.0 / 40.0, "40 requests in {seconds} s");
    assert_eq!((one.usage().requests, other.usage().requests), (20, 20));
    let received = server.received();
    assert!(received.iter().all(|one| one.head.header("authorization").is_some()));

    // The only connection of one is taken.
    let hanging = tokio::spawn(async move { one.file(FileId(9)).await });
    while server.received().len() < 41 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    other.file(FileId(5)).await.unwrap();
    hanging.abort();
}

#[tokio::test]
async fn a_refusal_of_one_client_holds_those_beside_it() {
    let refuse = |head: &Head, _: &[u8]| match head.number {
        0 => Reply::error(429, "").with("retry-after", 1),
        _ => Reply::json(200, ROW),
    };
    let server = Server::start(refuse).await;
    let one = server.client();
    let other = one.beside(server.options()).unwrap();
    let start = Instant::now();
    let first = tokio::spawn(async move { one.file(FileId(5)).await });
    while server.received().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    other.file(FileId(5)).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    first.await.unwrap().unwrap();
}
