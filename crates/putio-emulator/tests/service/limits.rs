//! Limits on requests, latency and bandwidth.

use std::time::{Duration, Instant};

use putio_emulator::options::RateLimit;
use putio_emulator::{Fault, FaultRule, Options};

use crate::client::{Request, Service, noise};

fn limited(requests: u32, window_seconds: f64, rate_headers: bool) -> Service {
    Service::with(Options {
        rate_limits: vec![RateLimit { group: "list".to_owned(), requests, window_seconds }],
        rate_headers,
        violation_grace: Duration::from_millis(50),
        ..Options::default()
    })
}

fn now() -> u64 {
    let time = std::time::SystemTime::now();
    time.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn a_window_refuses_until_its_reset_and_early_requests_are_violations() {
    let service = limited(2, 30.0, true);
    let answer = service.get("/v2/files/list").expect(200);
    assert_eq!(answer.header("x-ratelimit-limit"), Some("2"));
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("1"));
    service.get("/v2/files/list").expect(200);
    assert_eq!(service.get("/v2/account/info").header("x-ratelimit-limit"), None);
    let refused = service.get("/v2/files/list");
    let reset: u64 = refused.header("x-ratelimit-reset").unwrap().parse().unwrap();
    assert!((now() + 25..now() + 35).contains(&reset), "{reset}");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.error(429), "RATE_LIMIT_ERROR");
    assert_eq!(service.emulator.log().pop().unwrap().rate_limited_until, Some(reset));

    // Whatever was on its way may arrive; later requests of this token may not.
    service.get("/v2/account/info").expect(200);
    assert_eq!(service.emulator.violations(), []);
    std::thread::sleep(Duration::from_millis(60));
    service.get("/v2/account/info").expect(200);
    let violations = service.emulator.violations();
    assert_eq!(violations.len(), 1);
    assert_eq!(
        (violations[0].group.as_str(), violations[0].limited_group.as_str()),
        ("account", "list")
    );
    assert!(violations[0].early_by > Duration::from_secs(20));
    service.emulator.advance_clock(Duration::from_secs(31));
    service.get("/v2/files/list").expect(200);
    assert_eq!(service.emulator.violations().len(), 1);
}

#[test]
fn refusals_by_fault_have_every_form() {
    let refuse = |reset_in_seconds, retry_after_seconds, captcha| {
        let service = Service::start();
        let fault =
            Fault::RateLimited { reset_in_seconds, retry_after_seconds, captcha, holds: false };
        service.emulator.set_faults(vec![FaultRule::new(fault).times(1)]);
        let answer = service.get("/v2/files/list").expect(429);
        let logged = service.emulator.log().pop().unwrap().rate_limited_until;
        service.get("/v2/files/list").expect(200);
        (answer, logged)
    };
    let (answer, logged) = refuse(Some(5.0), None, false);
    assert_eq!(
        answer.header("x-ratelimit-reset").map(str::to_owned),
        logged.map(|at| at.to_string())
    );
    assert_eq!(answer.header("retry-after"), None);
    let (answer, logged) = refuse(None, None, false);
    assert_eq!((answer.header("x-ratelimit-reset"), logged), (None, None));
    let (answer, logged) = refuse(None, Some(3), false);
    assert_eq!(answer.header("retry-after"), Some("3"));
    assert!(logged.is_some());
    let (answer, _) = refuse(Some(-100.0), None, true);
    assert!(answer.header("x-ratelimit-reset").unwrap().parse::<u64>().unwrap() < now());
    assert_eq!(answer.header("x-ratelimit-action"), Some("captcha-needed"));
    assert!(answer.header("x-ratelimit-id").is_some());
    let (answer, _) = refuse(Some(1e9), None, false);
    assert!(
        answer.header("x-ratelimit-reset").unwrap().parse::<u64>().unwrap() > now() + 900_000_000
    );
}

#[test]
fn a_refusal_that_holds_refuses_everything_of_the_token() {
    let service = Service::start();
    let fault = Fault::RateLimited {
        reset_in_seconds: Some(60.0),
        retry_after_seconds: None,
        captcha: false,
        holds: true,
    };
    service.emulator.set_faults(vec![FaultRule::new(fault).times(1)]);
    service.get("/v2/files/list").expect(429);
    service.get("/v2/account/info").expect(429);
    service.send(Request::bare("GET", "/v2/oauth2/validate")).expect(200);
    service.emulator.advance_clock(Duration::from_secs(62));
    service.get("/v2/account/info").expect(200);
}

#[test]
fn latency_delays_each_request_and_each_connection() {
    let service = Service::with(Options {
        latency: Duration::from_millis(40),
        connect_latency: Duration::from_millis(30),
        ..Options::default()
    });
    let began = Instant::now();
    let mut connection = service.connect();
    for _ in 0..2 {
        connection.send(Request::new("GET", "/v2/files/list")).unwrap().expect(200);
    }
    assert!(began.elapsed() >= Duration::from_millis(110), "{:?}", began.elapsed());
    assert!(service.emulator.log().iter().all(|entry| entry.latency >= Duration::from_millis(40)));
    service.emulator.set_latency(Duration::ZERO);
    connection.send(Request::new("GET", "/v2/files/list")).unwrap().expect(200);
    assert!(service.emulator.log()[2].latency < Duration::from_millis(40));
}

#[test]
fn all_uploads_share_one_line_and_all_downloads_another() {
    let service = Service::with(Options {
        upload_bytes_per_second: Some(4_000_000),
        download_bytes_per_second: Some(4_000_000),
        ..Options::default()
    });
    let bytes = noise(400_000);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for name in ["a", "b"] {
            scope.spawn(|| service.upload(name, 0, &bytes));
        }
    });
    let taken = began.elapsed();
    assert!(taken >= Duration::from_millis(190), "{taken:?}");
    let links: Vec<String> =
        service.emulator.files("user").unwrap().iter().map(|file| service.link(file.id)).collect();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for link in &links {
            scope.spawn(|| service.send(Request::bare("GET", link)).expect(200));
        }
    });
    let taken = began.elapsed();
    assert!(taken >= Duration::from_millis(170), "{taken:?}");
}

#[test]
fn a_service_whose_clock_is_wrong_says_so_with_every_answer() {
    let service = Service::with(Options { clock_skew_seconds: 7200, ..Options::default() });
    let date = service.get("/v2/account/info").header("date").unwrap().to_owned();
    let told = jiff::fmt::rfc2822::parse(&date).unwrap().timestamp().as_second();
    let ahead = told - jiff::Timestamp::now().as_second();
    assert!((7190..=7201).contains(&ahead), "{date}");
}
