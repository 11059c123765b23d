//! Which fault happens to a request.

use std::sync::Mutex;

use super::{Fault, FaultRule, Service};
use crate::dice::Dice;
use crate::lock;

/// All rules with their counters.
pub(crate) struct Faults {
    seed: u64,
    rules: Mutex<Vec<Armed>>,
}

struct Armed {
    rule: FaultRule,
    hits: u64,
    happened: u64,
}

/// What rules look at.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) service: Service,
    pub(crate) account: Option<String>,
    pub(crate) has_range: bool,
    /// Bytes of the request's body; `None` if it does not say.
    pub(crate) body_bytes: Option<u64>,
}

/// When rules are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// A request's headers have arrived.
    Arrival,
    /// An upload has all its bytes and is about to become a file.
    Finish,
}

impl Faults {
    pub(crate) fn new(seed: u64, rules: Vec<FaultRule>) -> Self {
        let faults = Self { seed, rules: Mutex::default() };
        faults.set(rules);
        faults
    }

    pub(crate) fn set(&self, rules: Vec<FaultRule>) {
        let arm = |rule| Armed { rule, hits: 0, happened: 0 };
        *lock(&self.rules) = rules.into_iter().map(arm).collect();
    }

    pub(crate) fn rules(&self) -> Vec<FaultRule> {
        lock(&self.rules).iter().map(|armed| armed.rule.clone()).collect()
    }

    /// The fault that happens to this request at this point, if any.
    pub(crate) fn decide(&self, facts: &Facts, point: Point) -> Option<Fault> {
        for (number, armed) in lock(&self.rules).iter_mut().enumerate() {
            if !armed.rule.matches(facts) || !armed.rule.fault.can_happen(facts, point) {
                continue;
            }
            armed.hits += 1;
            let seed = armed.rule.seed.unwrap_or(self.seed);
            let mut dice = Dice::of(seed, number as u64, armed.hits);
            if armed.is_due(&mut dice)
                && let Some(fault) = armed.rule.fault.choose(facts, point, &mut dice)
            {
                armed.happened += 1;
                return Some(fault);
            }
            if armed.rule.is_last {
                return None;
            }
        }
        None
    }
}

impl Armed {
    fn is_due(&self, dice: &mut Dice) -> bool {
        let rule = &self.rule;
        let share = dice.share();
        rule.times.is_none_or(|times| self.happened < times)
            && rule.nth.is_none_or(|nth| self.hits == nth)
            && rule.from.is_none_or(|from| self.hits >= from)
            && rule.to.is_none_or(|to| self.hits <= to)
            && rule.probability.is_none_or(|probability| share < probability)
    }
}

impl FaultRule {
    fn matches(&self, facts: &Facts) -> bool {
        let fits = |pattern: &Option<String>, text: &str| {
            pattern.as_ref().is_none_or(|pattern| is_match(pattern, text))
        };
        self.method.as_ref().is_none_or(|method| method.eq_ignore_ascii_case(&facts.method))
            && fits(&self.path, &facts.path)
            && fits(&self.host, &facts.host)
            && self.service.is_none_or(|service| service == facts.service)
            && self.account.as_ref().is_none_or(|name| Some(name) == facts.account.as_ref())
            && !self.except.iter().any(|pattern| is_match(pattern, &facts.path))
    }
}

impl Fault {
    /// Whether such a request can have this fault at all, at this point.
    fn can_happen(&self, facts: &Facts, point: Point) -> bool {
        let method = facts.method.as_str();
        let path = facts.path.as_str();
        let is_api = facts.service == Service::Api;
        let is_upload = facts.service == Service::Upload;
        let is_download = facts.service == Service::Storage && matches!(method, "GET" | "HEAD");
        let at = |pattern: &str| is_api && is_match(pattern, path);
        let is_listing = at("/v2/files/list") || at("/v2/files/list/continue");
        let is_session =
            is_upload && is_match("/files/?*", path) && matches!(method, "HEAD" | "PATCH");
        let is_about_file = is_download
            || (is_api
                && path
                    .strip_prefix("/v2/files/")
                    .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit())));
        let is_arrival = point == Point::Arrival;
        match self {
            Self::OmitFileId | Self::DuplicateUpload | Self::FullAtFinish => !is_arrival,
            Self::OneOf { faults } => {
                faults.iter().any(|choice| choice.fault.can_happen(facts, point))
            }
            _ if !is_arrival => false,
            Self::CutDownload { .. }
            | Self::FlipBit { .. }
            | Self::DeletedDuringDownload { .. } => is_download && method == "GET",
            Self::IgnoreRange | Self::WrongRange { .. } => is_download && facts.has_range,
            Self::LinkExpired { .. } | Self::StorageMissing => is_download,
            Self::ForgetSession | Self::OffsetBack { .. } => is_session,
            Self::OffsetConflict | Self::CorruptUpload => is_session && method == "PATCH",
            Self::RelativeLocation => is_upload && method == "POST" && path.starts_with("/files"),
            Self::FullAtCreate => is_upload && method == "POST",
            Self::StaleListing { .. }
            | Self::MissingRows { .. }
            | Self::RepeatedRows { .. }
            | Self::ShuffledRows
            | Self::DuplicateNames
            | Self::PhantomRows { .. } => is_listing,
            Self::RenameDuringListing => at("/v2/files/list"),
            Self::CursorExpired => at("*/continue"),
            Self::ChecksumMissing { .. } => is_listing || is_about_file,
            Self::TimeIgnored => at("/v2/files/touch") || (is_upload && method == "POST"),
            Self::WrongSpace { .. } => at("/v2/account/info"),
            Self::TrashLocked { .. } => {
                at("/v2/files/delete")
                    || (at("/v2/trash/*") && method == "POST" && !at("*/continue"))
            }
            Self::RestoreRenames | Self::RestoreNever => at("/v2/trash/restore"),
            Self::FileVanishes | Self::FileLost | Self::FileNotReachable { .. } => is_about_file,
            Self::FolderRace => at("/v2/files/create-folder"),
            Self::CutRequest { after_bytes, .. } => {
                matches!(method, "POST" | "PUT" | "PATCH")
                    && facts.body_bytes.is_none_or(|bytes| bytes > *after_bytes)
            }
            _ => true,
        }
    }

    /// The fault itself, or the one of several that the dice choose.
    fn choose(&self, facts: &Facts, point: Point, dice: &mut Dice) -> Option<Self> {
        let Self::OneOf { faults } = self else { return Some(self.clone()) };
        let possible: Vec<_> =
            faults.iter().filter(|choice| choice.fault.can_happen(facts, point)).collect();
        let sum: f64 = possible.iter().map(|choice| choice.weight.max(0.0)).sum();
        let mut at = dice.share() * sum;
        for choice in &possible {
            at -= choice.weight.max(0.0);
            if at < 0.0 {
                return choice.fault.choose(facts, point, dice);
            }
        }
        possible.last().and_then(|choice| choice.fault.choose(facts, point, dice))
    }
}

/// Whether a text is what a pattern says: `*` stands for any characters, `?` for any one.
pub(crate) fn is_match(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and how much it stands for so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p).is_some_and(|byte| *byte == b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p).is_some_and(|byte| *byte == b'?' || *byte == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            p = at + 1;
            t = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Weighted, storm};

    fn facts(method: &str, path: &str, service: Service) -> Facts {
        Facts {
            method: method.to_owned(),
            path: path.to_owned(),
            host: "api.put.io".to_owned(),
            service,
            account: Some("user".to_owned()),
            has_range: false,
            body_bytes: Some(if method == "PATCH" { 2_000_000 } else { 0 }),
        }
    }

    fn happens(faults: &Faults, method: &str, path: &str) -> Option<&'static str> {
        let service = if path.starts_with("/files") { Service::Upload } else { Service::Api };
        faults.decide(&facts(method, path, service), Point::Arrival).map(|fault| fault.name())
    }

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("/files/*", "/files/abc", true),
            ("/files/*", "/files", false),
            ("/files/?*", "/files/", false),
            ("*/continue", "/v2/files/list/continue", true),
            ("/v2/*/url", "/v2/files/12/url", true),
            ("/v2/*/url", "/v2/files/12/urls", false),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("", "a", false),
        ] {
            assert_eq!(is_match(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_rule_counts_the_requests_that_it_matches() {
        let rule = |fault| FaultRule::new(fault).method("get").path("/v2/files/*");
        let faults = Faults::new(
            0,
            vec![rule(Fault::ResetAfter).nth(2), rule(Fault::ResetBefore).from(3).to(4).times(1)],
        );
        assert_eq!(happens(&faults, "GET", "/v2/files/list"), None);
        assert_eq!(happens(&faults, "POST", "/v2/files/list"), None);
        assert_eq!(happens(&faults, "GET", "/v2/account/info"), None);
        assert_eq!(happens(&faults, "GET", "/v2/files/list"), Some("reset_after"));
        // The second rule was not asked about that one, and has seen one request so far.
        assert_eq!(happens(&faults, "GET", "/v2/files/7"), None);
        assert_eq!(happens(&faults, "GET", "/v2/files/7"), Some("reset_before"));
        assert_eq!(happens(&faults, "GET", "/v2/files/7"), None);
    }

    #[test]
    fn a_fault_that_a_request_cannot_have_does_not_count_it() {
        let faults = Faults::new(0, vec![FaultRule::new(Fault::OffsetConflict).nth(1)]);
        assert_eq!(happens(&faults, "GET", "/v2/files/list"), None);
        assert_eq!(happens(&faults, "HEAD", "/files/a"), None);
        assert_eq!(happens(&faults, "PATCH", "/files/a"), Some("offset_conflict"));
        let faults = Faults::new(0, vec![FaultRule::new(Fault::OmitFileId)]);
        assert_eq!(happens(&faults, "PATCH", "/files/a"), None);
        let patch = facts("PATCH", "/files/a", Service::Upload);
        assert_eq!(faults.decide(&patch, Point::Finish), Some(Fault::OmitFileId));
    }

    #[test]
    fn a_last_rule_hides_later_ones_and_exceptions_hide_requests() {
        let never =
            FaultRule::new(Fault::ResetBefore).path("/v2/trash/*").probability(0.0, 1).last();
        let all = FaultRule::new(Fault::ResetAfter).except("/v2/config*");
        let faults = Faults::new(0, vec![never, all]);
        assert_eq!(happens(&faults, "GET", "/v2/trash/list"), None);
        assert_eq!(happens(&faults, "GET", "/v2/config/key"), None);
        assert_eq!(happens(&faults, "GET", "/v2/files/1"), Some("reset_after"));
    }

    #[test]
    fn a_choice_is_made_among_what_can_happen_and_again_with_the_same_seed() {
        let weighted = |weight, fault| Weighted { weight, fault };
        let choice = Fault::OneOf {
            faults: vec![
                weighted(1.0, Fault::ResetBefore),
                weighted(1.0, Fault::ResetAfter),
                weighted(50.0, Fault::CursorExpired),
            ],
        };
        let run = |seed| {
            let faults = Faults::new(seed, vec![FaultRule::new(choice.clone())]);
            (0..50).map(|_| happens(&faults, "GET", "/v2/files/1")).collect::<Vec<_>>()
        };
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
        assert!(run(5).contains(&Some("reset_before")) && run(5).contains(&Some("reset_after")));
        assert!(!run(5).contains(&Some("cursor_expired")) && !run(5).contains(&None));
    }

    #[test]
    fn a_storm_hits_every_kind_of_request_as_often_as_it_says() {
        let faults = Faults::new(0, storm(0.3, 9));
        let requests = [
            ("GET", "/v2/files/list", Service::Api),
            ("POST", "/v2/files/delete", Service::Api),
            ("POST", "/files/", Service::Upload),
            ("PATCH", "/files/a", Service::Upload),
            ("HEAD", "/files/a", Service::Upload),
            ("GET", "/download/1", Service::Storage),
        ];
        for (method, path, service) in requests {
            let facts = facts(method, path, service);
            let mut names = std::collections::BTreeSet::new();
            let hits = (0..2_000)
                .filter_map(|_| faults.decide(&facts, Point::Arrival))
                .map(|fault| names.insert(fault.name()))
                .count();
            assert!((500..700).contains(&hits), "{method} {path}: {hits}");
            for expected in ["rate_limited", "status", "reset_before", "reset_after"] {
                assert!(names.contains(expected), "{method} {path}: no {expected}");
            }
            assert_eq!(names.contains("cut_request"), method == "PATCH", "{path}");
            assert_eq!(names.contains("cut_download"), service == Service::Storage, "{path}");
            assert_eq!(names.contains("trash_locked"), path.ends_with("delete"), "{path}");
        }
    }
}
