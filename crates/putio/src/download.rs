//! Reading files: a link of the API, then the storage host without the token.
//!
//! A link is good for a few minutes and carries its own credential, so it is kept in memory only,
//! and neither logged nor part of any error. All readers of one file share it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{CONTENT_ENCODING, CONTENT_RANGE, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, Request, Response, StatusCode, Url};
use tokio::time::{Instant, timeout};

use crate::client::Client;
use crate::counters::Counters;
use crate::error::{Error, ErrorKind};
use crate::failure::{Failure, Side};
use crate::model::FileId;
use crate::retry::Attempts;
use crate::transport::{Call, header, network_failure, timed_out};
use crate::wire::UrlAnswer;

/// How long a link is used. Its real life is not known; shorter than any that would be useful.
const LINK_LIFE: Duration = Duration::from_secs(180);
/// Links kept.
const LINKS_MAX: usize = 1024;
/// Hosts that a link may lead on to.
const REDIRECTS_MAX: u32 = 3;
/// The longest range read into memory without being told in advance, as capacity.
const CAPACITY_MAX: u64 = 64 << 20;

/// How long the end of a body may take after its last byte, before the connection is given up.
const END_OF_BODY: Duration = Duration::from_secs(1);

const CALL: &str = "download";

/// Links by file.
#[derive(Default)]
pub(crate) struct Links(Mutex<HashMap<FileId, Arc<Slot>>>);

/// Locked while a link is asked for, so that several readers ask once.
type Slot = tokio::sync::Mutex<Kept>;

/// What is known of one file.
#[derive(Default)]
struct Kept {
    link: Option<Link>,
    /// When the file was refused last, after all patience.
    withheld: Option<Instant>,
}

#[derive(Clone)]
struct Link {
    url: Url,
    taken: Instant,
}

impl Links {
    fn slot(&self, id: FileId) -> Arc<Slot> {
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if links.len() >= LINKS_MAX {
            // Those in use are held by their readers too.
            links.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(links.entry(id).or_default())
    }
}

impl Client {
    /// Reads a range of a file into `out`, which is cleared first and then holds exactly these
    /// bytes.
    ///
    /// # Errors
    /// As [`Client::download`].
    pub async fn read_range(
        &self,
        id: FileId,
        range: Range<u64>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        out.clear();
        let length = range.end.saturating_sub(range.start);
        out.reserve(usize::try_from(length.min(CAPACITY_MAX)).unwrap_or(0));
        let mut sink = |piece: &[u8]| {
            out.extend_from_slice(piece);
            Ok(())
        };
        self.download(id, range, &mut sink).await
    }

    /// Reads a range of a file and hands its bytes to `sink`, in order, each once. `sink` must not
    /// block for long; its error ends the download.
    ///
    /// Costs one request for a link, shared by all ranges of the file for three minutes, and one for
    /// the range. When the connection breaks, the download goes on where it stopped. The bytes are
    /// not verified: the service tells no checksum of a range.
    ///
    /// Only the API tells whether a file exists: a storage host that refuses what the API has just
    /// given a link to is asked again with new links, until patience ends. For three minutes from then
    /// on, two refusals of the same file are enough, so that reading its other parts takes no time.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Lost`] if the service has lost the bytes;
    /// [`ErrorKind::Corrupt`] if the file is shorter than the range, or the storage host keeps
    /// sending other ranges than it was asked for; [`ErrorKind::Withheld`] if it keeps refusing;
    /// [`ErrorKind::PaymentRequired`]; those of every call; those of `sink`.
    pub async fn download(
        &self,
        id: FileId,
        range: Range<u64>,
        sink: &mut (dyn FnMut(&[u8]) -> Result<(), Error> + Send),
    ) -> Result<(), Error> {
        let mut position = range.start;
        let mut attempts = Attempts::new(self.transport(), CALL);
        let slot = self.shared.links.slot(id);
        // The last link was refused, and no byte has come since.
        let mut is_refused = false;
        while position < range.end {
            let link = self.link(id, &slot).await?;
            let before = position;
            let result = self.read_link(&link, &mut position, range.end, sink).await;
            if position > before {
                attempts.progress();
                is_refused = false;
                slot.lock().await.withheld = None;
            }
            let refusal = match result {
                Ok(()) => continue,
                Err(Stop::Sink(error)) => return Err(error),
                Err(Stop::Failure(failure)) => {
                    attempts.again(failure).await?;
                    continue;
                }
                Err(Stop::Short(error)) => {
                    self.check_length(id, range.end).await?;
                    error
                }
                Err(Stop::Link(error)) => error,
            };
            // The link or the host, not the file: the API has just said that the file is there.
            forget(&slot, &link).await;
            if !std::mem::replace(&mut is_refused, true) {
                Counters::add(&self.transport().counters().retries, 1);
                continue;
            }
            let error = Error { kind: ErrorKind::Withheld, ..refusal };
            let withheld = slot.lock().await.withheld;
            let ended = match withheld.is_some_and(|at| at.elapsed() < LINK_LIFE) {
                true => Err(error),
                false => attempts.again(Failure::later(error)).await,
            };
            if ended.is_err() {
                slot.lock().await.withheld = Some(Instant::now());
                return ended;
            }
        }
        Ok(())
    }

    /// Asks the API whether the file is as long as `end`.
    async fn check_length(&self, id: FileId, end: u64) -> Result<(), Error> {
        if self.file(id).await?.size >= end {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Corrupt, CALL, "the file is shorter than the range asked for"))
    }

    /// The link of a file, asked for unless one is at hand.
    async fn link(&self, id: FileId, slot: &Slot) -> Result<Link, Error> {
        let mut kept = slot.lock().await;
        if let Some(link) = kept.link.as_ref().filter(|link| link.taken.elapsed() < LINK_LIFE) {
            return Ok(link.clone());
        }
        let call = Call::get(CALL, format!("/files/{id}/url"));
        let taken = Instant::now();
        let answer: UrlAnswer = self.transport().send(&call).await?;
        let url = Url::parse(&answer.url).ok().filter(|url| self.transport().is_usable(url));
        let Some(url) = url else {
            let message = "the link to the file's bytes is not an https address";
            return Err(Error::new(ErrorKind::Corrupt, CALL, message));
        };
        let link = Link { url, taken };
        kept.link = Some(link.clone());
        Ok(link)
    }

    /// Reads on from `position`, which follows what the sink has taken.
    async fn read_link(
        &self,
        link: &Link,
        position: &mut u64,
        end: u64,
        sink: &mut (dyn FnMut(&[u8]) -> Result<(), Error> + Send),
    ) -> Result<(), Stop> {
        let mut url = link.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let lane = self.transport().lane(&url);
            let mut request = Request::new(Method::GET, url.clone());
            let range = format!("bytes={position}-{}", end - 1);
            if let Ok(range) = HeaderValue::from_str(&range) {
                request.headers_mut().insert(RANGE, range);
            }
            // No token: the link has its own credential, and storage hosts refuse both.
            let _admission = self.transport().admit(CALL, &lane, false).await?;
            let (response, _) = self.transport().start(CALL, &lane, request).await?;
            if !response.status().is_redirection() {
                return self.read_response(response, position, end, sink).await;
            }
            let next = header(response.headers(), LOCATION.as_str())
                .and_then(|text| url.join(text).ok())
                .filter(|next| self.transport().is_usable(next));
            url = next.ok_or_else(|| {
                let message = "the storage host sends the download to no https address";
                Failure::later(Error::new(ErrorKind::Corrupt, CALL, message))
            })?;
        }
        let message = "the storage host sends the download from one address to the next";
        Err(Failure::later(Error::new(ErrorKind::Corrupt, CALL, message)).into())
    }

    async fn read_response(
        &self,
        response: Response,
        position: &mut u64,
        end: u64,
        sink: &mut (dyn FnMut(&[u8]) -> Result<(), Error> + Send),
    ) -> Result<(), Stop> {
        let status = response.status();
        if status.is_client_error() {
            return Err(self.refused(response).await);
        }
        let mut response = self.transport().check(CALL, Side::Storage, response).await?;
        // A storage host that ignores the range sends the whole file.
        let mut skip = if status == StatusCode::PARTIAL_CONTENT {
            let text = header(response.headers(), CONTENT_RANGE.as_str());
            match text.and_then(parse_content_range) {
                Some((first, last)) if first == *position && last >= first && last < end => 0,
                _ => return Err(unexpected("it sent another range than it was asked for")),
            }
        } else {
            *position
        };
        let encoding = header(response.headers(), CONTENT_ENCODING.as_str());
        if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
            return Err(unexpected("it sent encoded bytes without being asked to"));
        }
        if let Some(length) = response.content_length().filter(|_| status == StatusCode::OK)
            && length < end
        {
            let message = "the storage host has fewer bytes than were asked for";
            return Err(Stop::Short(Error::new(ErrorKind::Corrupt, CALL, message)));
        }
        let transport = self.transport();
        while *position < end {
            let piece = match timeout(transport.options().timeouts.idle, response.chunk()).await {
                Ok(Ok(Some(piece))) => piece,
                Ok(Ok(None)) => {
                    let error = Error::new(ErrorKind::Network, CALL, "the body ended early");
                    return Err(Failure::later(error).into());
                }
                Ok(Err(error)) => return Err(network_failure(CALL, error).into()),
                Err(_) => return Err(timed_out(CALL, "no further byte came").into()),
            };
            Counters::add(&transport.counters().bytes_received, piece.len() as u64);
            transport.limits().download_bandwidth.take(piece.len()).await;
            let skipped = usize::try_from(skip).map_or(piece.len(), |skip| skip.min(piece.len()));
            skip -= skipped as u64;
            let rest = &piece[skipped..];
            let wanted = usize::try_from(end - *position).unwrap_or(usize::MAX).min(rest.len());
            if wanted > 0 {
                sink(&rest[..wanted]).map_err(Stop::Sink)?;
                *position += wanted as u64;
            }
        }
        if status == StatusCode::PARTIAL_CONTENT {
            // Taking the end of the body too lets the connection be used again.
            let _ = timeout(END_OF_BODY, response.chunk()).await;
        }
        Ok(())
    }

    /// What a storage host's refusal means.
    async fn refused(&self, response: Response) -> Stop {
        let status = response.status().as_u16();
        let checked = self.transport().check(CALL, Side::Storage, response).await;
        let Err(failure) = checked else { return unexpected("it refused and did not") };
        match failure.error.kind {
            // Said of the file, the account or the moment. Nothing else that a storage host says is:
            // one that does not have the file yet, or no longer, answers with a plain 404 or 410.
            ErrorKind::Lost
            | ErrorKind::Server
            | ErrorKind::PaymentRequired
            | ErrorKind::RateLimited
            | ErrorKind::CaptchaNeeded { .. } => Stop::Failure(failure),
            _ if status == 416 => Stop::Short(failure.error),
            _ => Stop::Link(failure.error),
        }
    }
}

/// Why reading from a link stopped.
enum Stop {
    /// The sink does not want more.
    Sink(Error),
    /// The storage host does not accept the link, or does not have the file.
    Link(Error),
    /// The storage host has fewer bytes than the range asks for.
    Short(Error),
    /// Anything else.
    Failure(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

fn unexpected(message: &str) -> Stop {
    let message = format!("the storage host misbehaves: {message}");
    Failure::later(Error::new(ErrorKind::Corrupt, CALL, message)).into()
}

/// Drops a link, unless another reader has replaced it already.
async fn forget(slot: &Slot, link: &Link) {
    let mut kept = slot.lock().await;
    if kept.link.as_ref().is_some_and(|kept| kept.taken == link.taken) {
        kept.link = None;
    }
}

/// The first and the last byte of `bytes 0-9/10` (RFC 9110 section 14.4).
pub(crate) fn parse_content_range(text: &str) -> Option<(u64, u64)> {
    let (unit, rest) = text.split_once(' ')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (range, _) = rest.split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_answers_are_read() {
        assert_eq!(parse_content_range("bytes 0-9/10"), Some((0, 9)));
        assert_eq!(parse_content_range("bytes 5-5/*"), Some((5, 5)));
        for bad in ["", "bytes */10", "bytes 1/2", "0-9/10", "items 0-9/10", "bytes a-9/10"] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }
}
