//! How often requests may be sent.
//!
//! [`Pace`] belongs to the account: a bucket of tokens whose rate grows a little with each answer
//! and is halved when the service refuses a request, behind a [`Gate`] that stays shut until the
//! moment the service named. Storage hosts have a gate of their own and no bucket. Neither reads a
//! clock nor sleeps: callers pass the time and wait by themselves.
//!
//! Invariant: while a gate is shut, [`Gate::opens_at`] returns a moment in the future, whatever was
//! reserved before.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use tokio::time::Instant;

use crate::clock;

/// Requests per second at the start.
const RATE_START: f64 = 8.0;
/// Requests per second that are never exceeded, even if nothing is refused.
const RATE_MAX: f64 = 32.0;
/// Requests per second that are allowed however often something is refused.
const RATE_MIN: f64 = 1.0;
/// Growth with each answer, as a part of the highest rate.
const RATE_STEP: f64 = 1.0 / 128.0;
/// Requests that may follow each other at once after a pause.
const BURST: f64 = 8.0;
/// Added to the moment the service names, for clocks that do not tick together.
const MARGIN: Duration = Duration::from_millis(100);
/// The first wait after a refusal that names no moment; doubled each time.
const WAIT_UNNAMED: Duration = Duration::from_secs(5);
/// The first wait after a refusal that names a moment in the past; doubled each time.
const WAIT_PAST: Duration = Duration::from_millis(500);
/// The longest of these two.
const WAIT_GUESSED_MAX: Duration = Duration::from_secs(120);

/// What the headers of an answer say about further requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Advice {
    /// How long to wait from now; zero for a moment in the past.
    pub(crate) wait: Option<Duration>,
    /// Requests left until then.
    pub(crate) remaining: Option<u64>,
    /// The page of a captcha to solve.
    pub(crate) captcha: Option<String>,
}

impl Advice {
    /// Reads the headers of an answer that arrived when the local clock showed `local_seconds`
    /// (since 1970).
    ///
    /// Moments are compared with the `Date` of the same answer, so that a local clock that is wrong
    /// does no harm. That date is cut to whole seconds, which can only lengthen the wait.
    pub(crate) fn read(headers: &HeaderMap, local_seconds: i64) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let now = text("date").and_then(clock::parse_http_date).unwrap_or(local_seconds);
        let until = |moment: i64| seconds(moment.saturating_sub(now));
        let reset = text("x-ratelimit-reset").and_then(parse_seconds).map(until);
        let retry_after = text(RETRY_AFTER.as_str()).and_then(|value| {
            parse_seconds(value).map(seconds).or_else(|| clock::parse_http_date(value).map(until))
        });
        let captcha = text("x-ratelimit-action").is_some_and(|action| action == "captcha-needed");
        Self {
            wait: reset.max(retry_after),
            remaining: text("x-ratelimit-remaining").and_then(|value| value.trim().parse().ok()),
            captcha: captcha.then(|| captcha_page(text("x-ratelimit-id"))),
        }
    }
}

/// Whole seconds, rounded up; milliseconds by mistake are not guessed at.
fn parse_seconds(text: &str) -> Option<i64> {
    let text = text.trim();
    text.parse::<i64>().ok().or_else(|| {
        let value = text.parse::<f64>().ok().filter(|value| value.is_finite())?;
        Some(value.ceil() as i64)
    })
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

fn captcha_page(id: Option<&str>) -> String {
    let mut page = "https://app.put.io/captcha/".to_owned();
    page.extend(url::form_urlencoded::byte_serialize(id.unwrap_or_default().as_bytes()));
    page
}

/// Why a request cannot be sent, ever or for longer than one waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Barred {
    /// The service asks for a longer wait than allowed.
    TooLong(Duration),
    /// A captcha is to be solved at this page.
    Captcha(String),
}

/// Shut until a moment the service named.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    shut_until: Option<Instant>,
    barred: Option<Barred>,
    /// Refusals in a row.
    strikes: u32,
    /// When the last refusal arrived.
    refused_at: Option<Instant>,
}

impl Gate {
    /// When the next request may be sent; `None` is now.
    pub(crate) fn opens_at(&self, now: Instant) -> Result<Option<Instant>, Barred> {
        match (self.shut_until, &self.barred) {
            (Some(until), Some(barred)) if until > now => Err(barred.clone()),
            (Some(until), None) if until > now => Ok(Some(until)),
            _ => Ok(None),
        }
    }

    /// A request that was sent at `sent` has been refused. Returns the wait, and whether this is
    /// the first refusal since the gate was last shut: requests under way together are refused
    /// together, and count once.
    pub(crate) fn refuse(
        &mut self,
        advice: &Advice,
        sent: Instant,
        now: Instant,
        wait_max: Duration,
    ) -> (Duration, bool) {
        let is_first = self.refused_at.is_none_or(|at| sent >= at);
        if is_first {
            self.strikes = self.strikes.saturating_add(1);
            self.refused_at = Some(now);
        }
        let doubled = |first: Duration| {
            let factor = 1u32 << self.strikes.saturating_sub(1).min(16);
            first.saturating_mul(factor).min(WAIT_GUESSED_MAX)
        };
        let wait = match advice.wait {
            Some(wait) if wait > Duration::ZERO => wait.saturating_add(MARGIN),
            Some(_) => doubled(WAIT_PAST),
            None => doubled(WAIT_UNNAMED),
        };
        self.shut(wait, now, wait_max);
        if let Some(page) = &advice.captcha {
            // Nothing is sent for a while, so that the tasks beside this one end too.
            self.barred = Some(Barred::Captcha(page.clone()));
            let minute = now + Duration::from_secs(60).min(wait_max);
            self.shut_until = self.shut_until.max(Some(minute));
        }
        (wait, is_first)
    }

    /// An answer said that none is left until `wait` from now.
    pub(crate) fn exhaust(&mut self, wait: Duration, now: Instant, wait_max: Duration) -> Duration {
        let wait = wait.saturating_add(MARGIN);
        self.shut(wait, now, wait_max);
        wait
    }

    /// An answer other than a refusal arrived to a request sent at `sent`.
    pub(crate) fn accept(&mut self, sent: Instant) {
        if self.refused_at.is_none_or(|at| sent >= at) {
            self.strikes = 0;
        }
    }

    fn shut(&mut self, wait: Duration, now: Instant, wait_max: Duration) {
        let is_open = self.shut_until.is_none_or(|until| until <= now);
        if is_open {
            self.barred = None;
        }
        // A moment that is absurdly far away must not bar the account for ever.
        if wait > wait_max && self.barred.is_none() {
            self.barred = Some(Barred::TooLong(wait));
        }
        self.shut_until = self.shut_until.max(Some(now + wait.min(wait_max)));
    }
}

/// The gate and the bucket of an account.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    pub(crate) gate: Gate,
    rate: f64,
    rate_max: f64,
    burst: f64,
    /// When the bucket would be full again; a request may be sent that much earlier as a full
    /// bucket saves.
    due: Instant,
}

impl Pace {
    pub(crate) fn new(requests_per_second: Option<f64>, now: Instant) -> Self {
        let limit = requests_per_second.filter(|rate| rate.is_finite() && *rate > 0.0);
        let rate_max = limit.map_or(RATE_MAX, |rate| rate.clamp(0.01, 1000.0));
        // A limit that a person sets is where to begin, and it holds in every second, the first one
        // included.
        let (rate, burst) = if limit.is_some() { (rate_max, 1.0) } else { (RATE_START, BURST) };
        Self { gate: Gate::default(), rate, rate_max, burst, due: now }
    }

    /// Takes a token; the request may be sent at the moment returned, if the gate is open then.
    pub(crate) fn reserve(&mut self, now: Instant) -> Result<Instant, Barred> {
        let from = self.gate.opens_at(now)?.unwrap_or(now);
        let interval = Duration::from_secs_f64(1.0 / self.rate);
        let at = self.due.checked_sub(self.saved()).map_or(from, |earliest| earliest.max(from));
        self.due = self.due.max(from) + interval;
        Ok(at)
    }

    /// See [`Gate::refuse`]. The rate is halved, and nothing is saved up for the opening.
    pub(crate) fn refuse(
        &mut self,
        advice: &Advice,
        sent: Instant,
        now: Instant,
        wait_max: Duration,
    ) -> (Duration, bool) {
        let (wait, is_first) = self.gate.refuse(advice, sent, now, wait_max);
        if is_first {
            self.rate = (self.rate / 2.0).max(RATE_MIN.min(self.rate_max));
        }
        if let Some(opens) = self.gate.shut_until {
            self.due = self.due.max(opens + self.saved());
        }
        (wait, is_first)
    }

    /// See [`Gate::accept`]. The rate grows.
    pub(crate) fn accept(&mut self, sent: Instant) {
        self.gate.accept(sent);
        self.rate = (self.rate + self.rate_max * RATE_STEP).min(self.rate_max);
    }

    /// What a full bucket saves.
    fn saved(&self) -> Duration {
        Duration::from_secs_f64((self.burst - 1.0) / self.rate)
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    const MAX: Duration = Duration::from_secs(900);
    const NOW: i64 = 1_795_330_800;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        });
        pairs.collect()
    }

    fn wait(pairs: &[(&'static str, &str)]) -> Option<u64> {
        Advice::read(&headers(pairs), NOW).wait.map(|wait| wait.as_secs())
    }

    #[test]
    fn moments_are_compared_with_the_service_clock() {
        let date = ("date", "Sun, 22 Nov 2026 07:00:00 GMT");
        let skewed = ("date", "Sun, 22 Nov 2026 09:00:00 GMT");
        assert_eq!(wait(&[("x-ratelimit-reset", "1795330804")]), Some(4));
        assert_eq!(wait(&[("x-ratelimit-reset", "1795330804"), date]), Some(4));
        assert_eq!(wait(&[("x-ratelimit-reset", "1795338004"), skewed]), Some(4));
        assert_eq!(wait(&[("x-ratelimit-reset", "1795330803.2"), date]), Some(4));
        assert_eq!(wait(&[("x-ratelimit-reset", "1795330000"), date]), Some(0));
        assert_eq!(wait(&[("retry-after", "7")]), Some(7));
        assert_eq!(wait(&[("retry-after", "Sun, 22 Nov 2026 07:00:09 GMT"), date]), Some(9));
        assert_eq!(wait(&[("retry-after", "2"), ("x-ratelimit-reset", "1795330804")]), Some(4));
        assert_eq!(wait(&[("x-ratelimit-reset", "soon")]), None);
        assert_eq!(wait(&[("x-ratelimit-reset", "-9223372036854775808")]), Some(0));
        assert_eq!(wait(&[("x-ratelimit-reset", "1e300")]), Some(i64::MAX as u64 - NOW as u64));
        assert_eq!(wait(&[]), None);
    }

    #[test]
    fn a_captcha_has_a_page() {
        let pairs = [("x-ratelimit-action", "captcha-needed"), ("x-ratelimit-id", "a/b c")];
        let page = Advice::read(&headers(&pairs), NOW).captcha;
        assert_eq!(page.as_deref(), Some("https://app.put.io/captcha/a%2Fb+c"));
    }

    fn advice(seconds: Option<u64>) -> Advice {
        Advice { wait: seconds.map(Duration::from_secs), ..Advice::default() }
    }

    #[test]
    fn nothing_passes_before_the_moment_named() {
        let start = Instant::now();
        let mut pace = Pace::new(None, start);
        let reserved = pace.reserve(start).unwrap();
        assert_eq!(reserved, start);
        pace.refuse(&advice(Some(4)), start, start, MAX);
        let opens = pace.gate.opens_at(start).unwrap().unwrap();
        assert!(opens > start + Duration::from_secs(4));
        assert!(opens < start + Duration::from_secs(5));
        for _ in 0..20 {
            assert!(pace.reserve(start).unwrap() >= opens);
        }
        // An earlier moment in a later answer does not open it.
        pace.refuse(&advice(Some(1)), start, start, MAX);
        assert_eq!(pace.gate.opens_at(start), Ok(Some(opens)));
        assert_eq!(pace.gate.opens_at(opens), Ok(None));
    }

    #[test]
    fn requests_refused_together_count_once() {
        let start = Instant::now();
        let mut pace = Pace::new(None, start);
        let second = Duration::from_secs(1);
        let (_, is_first) = pace.refuse(&advice(Some(4)), start, start + second, MAX);
        assert!(is_first);
        let (_, is_first) = pace.refuse(&advice(Some(4)), start, start + second, MAX);
        assert!(!is_first);
        assert_eq!(pace.rate, RATE_START / 2.0);
        pace.refuse(&advice(Some(4)), start + 10 * second, start + 11 * second, MAX);
        assert_eq!(pace.rate, RATE_START / 4.0);
    }

    #[test]
    fn after_a_refusal_requests_come_one_by_one() {
        let start = Instant::now();
        let mut pace = Pace::new(None, start);
        pace.refuse(&advice(Some(4)), start, start, MAX);
        let opens = pace.gate.opens_at(start).unwrap().unwrap();
        let times: Vec<_> = (0..3).map(|_| pace.reserve(start).unwrap() - opens).collect();
        let interval = Duration::from_secs_f64(2.0 / RATE_START);
        assert!(times[1] - times[0] >= interval / 2, "{times:?}");
        assert!(times[2] - times[1] >= interval * 9 / 10, "{times:?}");
    }

    #[test]
    fn refusals_without_a_moment_wait_longer_each_time() {
        let start = Instant::now();
        for (named, expected) in [(None, [5.0, 10.0, 20.0, 40.0]), (Some(0), [0.5, 1.0, 2.0, 4.0])]
        {
            let mut gate = Gate::default();
            let mut now = start;
            for seconds in expected {
                let (wait, _) = gate.refuse(&advice(named), now, now, MAX);
                assert_eq!(wait.as_secs_f64(), seconds);
                now += wait;
                assert_eq!(gate.opens_at(now), Ok(None));
            }
            gate.accept(now);
            let (wait, _) = gate.refuse(&advice(named), now, now, MAX);
            assert_eq!(wait.as_secs_f64(), expected[0]);
        }
    }

    #[test]
    fn an_absurd_moment_bars_for_a_while_only() {
        let start = Instant::now();
        let mut gate = Gate::default();
        gate.refuse(&advice(Some(u64::MAX)), start, start, MAX);
        let barred = gate.opens_at(start + Duration::from_secs(1));
        assert!(matches!(barred, Err(Barred::TooLong(_))), "{barred:?}");
        assert_eq!(gate.opens_at(start + MAX), Ok(None));
        let later = start + MAX;
        gate.refuse(&advice(Some(3)), later, later, MAX);
        assert!(matches!(gate.opens_at(later), Ok(Some(_))));
    }

    #[test]
    fn a_captcha_bars_all() {
        let start = Instant::now();
        let mut pace = Pace::new(None, start);
        let page = "https://app.put.io/captcha/1".to_owned();
        let advice = Advice { captcha: Some(page.clone()), ..Advice::default() };
        pace.refuse(&advice, start, start, MAX);
        assert_eq!(pace.reserve(start), Err(Barred::Captcha(page)));
    }

    #[test]
    fn the_rate_is_kept_and_grows() {
        let start = Instant::now();
        let mut pace = Pace::new(None, start);
        let times: Vec<_> =
            (0..24).map(|_| (pace.reserve(start).unwrap() - start).as_secs_f64()).collect();
        assert_eq!(times[7], 0.0, "a burst passes");
        assert!((times[23] - 2.0).abs() < 0.01, "then 8 in a second: {times:?}");
        for _ in 0..1000 {
            pace.accept(start);
        }
        assert_eq!(pace.rate, RATE_MAX);
    }

    #[test]
    fn a_limit_that_a_person_sets_holds_from_the_start() {
        let start = Instant::now();
        for rate in [0.5, 2.0, 100.0] {
            let mut pace = Pace::new(Some(rate), start);
            for _ in 0..1000 {
                pace.accept(start);
            }
            let times: Vec<_> =
                (0..5).map(|_| (pace.reserve(start).unwrap() - start).as_secs_f64()).collect();
            for (number, time) in times.iter().enumerate() {
                assert!((time - number as f64 / rate).abs() < 1e-6, "{rate}: {times:?}");
            }
        }
    }
}
