//! Limits on the number of requests, and whether clients keep to what they were told.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock;
use crate::options::RateLimit;

/// A reset that is further away than this is nonsense that clients need not wait for.
const RESET_AHEAD_MAX: i64 = 3_600_000;

/// Limits, and the resets that were advertised.
pub(crate) struct Limits {
    rules: Mutex<Vec<RateLimit>>,
    headers_always: bool,
    grace: Duration,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By token and group.
    windows: HashMap<(String, String), Window>,
    /// By token, in Unix milliseconds: everything is refused until then.
    held: HashMap<String, i64>,
    /// By token.
    advertised: HashMap<String, Vec<Advertised>>,
}

struct Window {
    /// Unix milliseconds.
    ends: i64,
    used: u32,
}

/// A reset that a token was told of.
#[derive(Clone, Debug)]
struct Advertised {
    /// Unix milliseconds.
    reset: i64,
    since: Instant,
    by: u64,
    group: String,
}

/// What the limits say of a request.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    /// Unix seconds of the reset, if it is refused.
    pub(crate) refused_until: Option<i64>,
    /// For its answer.
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// A request that came too early.
pub(crate) struct Early {
    pub(crate) by: Duration,
    pub(crate) limited_group: String,
    pub(crate) advertised_by: u64,
}

impl Limits {
    pub(crate) fn new(rules: Vec<RateLimit>, headers_always: bool, grace: Duration) -> Self {
        Self { rules: Mutex::new(rules), headers_always, grace, inner: Mutex::default() }
    }

    pub(crate) fn set(&self, rules: Vec<RateLimit>) {
        *lock(&self.rules) = rules;
        lock(&self.inner).windows.clear();
    }

    pub(crate) fn clear(&self) {
        *lock(&self.inner) = Inner::default();
    }

    /// Counts a request and says whether it is refused. `now` in Unix milliseconds.
    pub(crate) fn count(&self, token: &str, group: &str, now: i64) -> Verdict {
        let mut inner = lock(&self.inner);
        let mut verdict = Verdict::default();
        if let Some(until) = inner.held.get(token).copied() {
            if until > now {
                verdict.refused_until = Some(seconds_up(until));
                return verdict;
            }
            inner.held.remove(token);
        }
        let mut least: Option<(u32, u32, i64)> = None;
        for rule in lock(&self.rules).iter() {
            if !matches!(rule.group.as_str(), "*" | "all") && rule.group != group {
                continue;
            }
            let counted = if rule.group == "*" { group } else { &rule.group };
            let length = (rule.window_seconds.max(0.001) * 1000.0).ceil() as i64;
            let key = (token.to_owned(), format!("{counted} {}", rule.window_seconds));
            let window = inner.windows.entry(key).or_insert(Window { ends: 0, used: 0 });
            if window.ends <= now {
                *window = Window { ends: now.saturating_add(length), used: 0 };
            }
            let ends = seconds_up(window.ends);
            if window.used >= rule.requests {
                verdict.refused_until = verdict.refused_until.max(Some(ends));
            } else {
                window.used += 1;
            }
            let remaining = rule.requests - window.used;
            if least.is_none_or(|(_, fewest, _)| remaining < fewest) {
                least = Some((rule.requests, remaining, ends));
            }
        }
        if let Some((limit, remaining, ends)) = least
            && (self.headers_always || verdict.refused_until.is_some())
        {
            verdict.headers = vec![
                ("x-ratelimit-limit", limit.to_string()),
                ("x-ratelimit-remaining", remaining.to_string()),
                ("x-ratelimit-reset", ends.to_string()),
            ];
        }
        verdict
    }

    /// Refuses all requests of a token until then, in Unix milliseconds.
    pub(crate) fn hold(&self, token: &str, until: i64) {
        lock(&self.inner).held.insert(token.to_owned(), until);
    }

    /// An answer tells a token of a reset, in Unix milliseconds.
    pub(crate) fn advertise(&self, token: &str, group: &str, reset: i64, by: u64, now: i64) {
        if reset <= now || reset - now > RESET_AHEAD_MAX {
            return;
        }
        let mut inner = lock(&self.inner);
        let all = inner.advertised.entry(token.to_owned()).or_default();
        all.retain(|one| one.reset > now);
        all.push(Advertised { reset, since: Instant::now(), by, group: group.to_owned() });
    }

    /// Whether a request comes although its token had been told to wait.
    pub(crate) fn early(&self, token: &str, now: i64) -> Option<Early> {
        let inner = lock(&self.inner);
        let all = inner.advertised.get(token)?;
        let one = all
            .iter()
            .filter(|one| one.reset > now && one.since.elapsed() > self.grace)
            .max_by_key(|one| one.reset)?;
        Some(Early {
            by: Duration::from_millis(u64::try_from(one.reset - now).unwrap_or_default()),
            limited_group: one.group.clone(),
            advertised_by: one.by,
        })
    }
}

/// Whole seconds, not before these milliseconds.
pub(crate) fn seconds_up(milliseconds: i64) -> i64 {
    milliseconds.div_euclid(1000) + i64::from(milliseconds.rem_euclid(1000) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(group: &str, requests: u32) -> RateLimit {
        RateLimit { group: group.to_owned(), requests, window_seconds: 10.0 }
    }

    #[test]
    fn a_window_counts_each_token_and_group_and_opens_again() {
        let limits = Limits::new(vec![limit("list", 2)], false, Duration::ZERO);
        let now = 1_000_500;
        assert_eq!(limits.count("a", "list", now), Verdict::default());
        assert_eq!(limits.count("a", "list", now), Verdict::default());
        let refused = limits.count("a", "list", now + 1_000);
        assert_eq!(refused.refused_until, Some(1_011));
        assert!(refused.headers.contains(&("x-ratelimit-remaining", "0".to_owned())));
        assert_eq!(limits.count("a", "read", now).refused_until, None);
        assert_eq!(limits.count("b", "list", now).refused_until, None);
        assert_eq!(limits.count("a", "list", 1_011_000).refused_until, None);
    }

    #[test]
    fn a_star_limits_each_group_and_all_limits_their_sum() {
        let limits = Limits::new(vec![limit("*", 1)], true, Duration::ZERO);
        assert_eq!(limits.count("a", "list", 0).refused_until, None);
        let headers = limits.count("a", "read", 0).headers;
        assert!(headers.contains(&("x-ratelimit-reset", "10".to_owned())));
        assert_eq!(limits.count("a", "read", 1).refused_until, Some(10));

        let limits = Limits::new(vec![limit("all", 1)], false, Duration::ZERO);
        assert_eq!(limits.count("a", "list", 0).refused_until, None);
        assert_eq!(limits.count("a", "read", 1).refused_until, Some(10));
    }

    #[test]
    fn who_was_told_to_wait_is_early_until_the_reset() {
        let limits = Limits::new(Vec::new(), false, Duration::ZERO);
        limits.advertise("a", "list", 5_000, 3, 1_000);
        std::thread::sleep(Duration::from_millis(1));
        let early = limits.early("a", 2_000).unwrap();
        assert_eq!((early.by, early.advertised_by), (Duration::from_secs(3), 3));
        assert!(limits.early("b", 2_000).is_none());
        assert!(limits.early("a", 5_000).is_none());
        // Nobody has to wait for years, or for what is over.
        limits.advertise("b", "list", 1_000_000_000, 4, 1_000);
        limits.advertise("b", "list", 500, 5, 1_000);
        std::thread::sleep(Duration::from_millis(1));
        assert!(limits.early("b", 1_001).is_none());
    }

    #[test]
    fn a_held_token_is_refused_for_everything() {
        let limits = Limits::new(Vec::new(), false, Duration::ZERO);
        limits.hold("a", 3_000);
        assert_eq!(limits.count("a", "read", 2_999).refused_until, Some(3));
        assert_eq!(limits.count("a", "read", 3_000).refused_until, None);
    }
}
