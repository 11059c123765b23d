//! A ready-made set of rules: everything that goes wrong on a bad day, at once.

use super::{ErrorBody, Fault, FaultRule, Service, Weighted};

/// Rules by which this share of all requests fails, in every way that a client is expected to
/// survive: 429 with a reset or with `Retry-After`, 5xx with all kinds of bodies, before and after
/// execution, connections reset before and after execution, bodies cut in both directions, answers
/// that are no JSON, expired links, and a trash that is locked.
///
/// `probability` is between 0 and 1. Resets are advertised one second ahead, so that tests stay
/// short.
pub fn storm(probability: f64, seed: u64) -> Vec<FaultRule> {
    let rule = |faults: Vec<Weighted>| {
        FaultRule::new(Fault::OneOf { faults }).probability(probability, seed).last()
    };
    vec![
        rule(with(vec![
            weighted(1.5, cut_request(0, true)),
            weighted(1.5, cut_request(1_000, true)),
            weighted(1.5, cut_request(70_000, false)),
            weighted(1.5, cut_request(1_000_000, true)),
        ]))
        .service(Service::Upload)
        .method("PATCH"),
        rule(with(vec![])).service(Service::Upload),
        rule(with(vec![
            weighted(1.0, cut_download(0, false)),
            weighted(1.0, cut_download(1_000, true)),
            weighted(1.0, cut_download(70_000, false)),
            weighted(1.0, cut_download(1_000_000, true)),
            weighted(0.5, Fault::CutDownload { after_bytes: 5_000, chunked: true, reset: false }),
            weighted(1.0, Fault::LinkExpired { status: 403 }),
        ]))
        .service(Service::Storage),
        rule(with(vec![weighted(4.0, Fault::TrashLocked { seconds: 0.0 })]))
            .service(Service::Api)
            .path("/v2/files/delete"),
        rule(with(vec![weighted(4.0, Fault::TrashLocked { seconds: 0.0 })]))
            .service(Service::Api)
            .path("/v2/trash/*"),
        rule(with(vec![
            weighted(0.7, Fault::InvalidJson),
            weighted(0.7, Fault::TruncatedJson),
            weighted(0.7, Fault::CutResponse { after_bytes: 20, reset: false }),
            weighted(0.7, Fault::CutResponse { after_bytes: 20, reset: true }),
        ]))
        .service(Service::Api),
    ]
}

fn weighted(weight: f64, fault: Fault) -> Weighted {
    Weighted { weight, fault }
}

fn cut_request(after_bytes: u64, reset: bool) -> Fault {
    Fault::CutRequest { after_bytes, reset }
}

fn cut_download(after_bytes: u64, reset: bool) -> Fault {
    Fault::CutDownload { after_bytes, chunked: false, reset }
}

/// What can go wrong with any request, and these.
fn with(more: Vec<Weighted>) -> Vec<Weighted> {
    let limited = |reset_in_seconds, retry_after_seconds| Fault::RateLimited {
        reset_in_seconds,
        retry_after_seconds,
        captcha: false,
        holds: false,
    };
    let status =
        |status, body, executed| Fault::Status { status, body, error_type: None, executed };
    let mut all = vec![
        weighted(1.5, limited(Some(1.0), None)),
        weighted(0.5, limited(None, Some(1))),
        weighted(1.0, status(500, ErrorBody::Json, false)),
        weighted(1.0, status(502, ErrorBody::Html, false)),
        weighted(1.0, status(503, ErrorBody::Empty, false)),
        weighted(1.0, status(504, ErrorBody::Html, true)),
        weighted(1.5, Fault::ResetBefore),
        weighted(1.5, Fault::ResetAfter),
        weighted(0.5, Fault::Close { executed: false }),
        weighted(0.5, Fault::Close { executed: true }),
    ];
    all.extend(more);
    all
}
