//! Resumable uploads: sends what the [`machine`] asks for, and reads the content.
//!
//! A slice is streamed while it is read, in pieces, so an upload needs little memory whatever the
//! size of its slices. The CRC-32 of the content is calculated on the way; what was sent by an
//! earlier process is read again for it.

pub mod machine;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Body, Method, Request, Response, Url};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::client::Client;
use crate::clock;
use crate::content::Content;
use crate::counters::Counters;
use crate::error::{Error, ErrorKind};
use crate::failure::{Failure, Retry, Side};
use crate::model::{DeleteOptions, File, FileId};
use crate::retry::Attempts;
use crate::transport::{Lane, Transport, header, network_failure, timed_out};
use crate::wire;
use machine::{Event, Machine, Reason, Receipt, Row, Step};

/// The largest piece of content read and handed to the connection at once.
const PIECE_BYTES_MAX: usize = 256 << 10;
/// Pieces read ahead of the connection.
const PIECES_AHEAD: usize = 2;

/// The largest body read of an answer that matters for its headers only.
const SMALL_BODY_BYTES_MAX: usize = 64 << 10;

const UPLOAD_OFFSET: &str = "upload-offset";
const UPLOAD_LENGTH: &str = "upload-length";

const CALL: &str = "upload";
const TUS_VERSION: &str = "1.0.0";

/// One file to upload.
#[derive(Clone, Copy)]
pub struct UploadRequest<'a> {
    /// The folder it goes to.
    pub parent: FileId,
    /// Its name there. The service does not mind a second file of the same name.
    pub name: &'a str,
    /// Its modification time; without one the service takes the time of the upload.
    pub updated_at: Option<SystemTime>,
    /// Its bytes.
    pub content: &'a (dyn Content + 'a),
    /// Bytes of one request; `u64::MAX` sends the whole file in one.
    pub slice_bytes: u64,
}

impl<'a> UploadRequest<'a> {
    /// Slices of 32 MiB, no modification time.
    #[must_use]
    pub fn new(parent: FileId, name: &'a str, content: &'a (dyn Content + 'a)) -> Self {
        Self { parent, name, updated_at: None, content, slice_bytes: 32 << 20 }
    }
}

impl fmt::Debug for UploadRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadRequest")
            .field("parent", &self.parent)
            .field("name", &self.name)
            .field("length", &self.content.length())
            .field("slice_bytes", &self.slice_bytes)
            .finish_non_exhaustive()
    }
}

/// An upload that was begun, as it can be kept in a file and resumed by another process.
///
/// Whoever has it and the token can add bytes to the upload, so it is kept as safe as the token; its
/// `Debug` output does not contain the address.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    url: String,
    length: u64,
}

impl Session {
    /// Bytes of the whole file.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("length", &self.length).finish_non_exhaustive()
    }
}

/// A finished upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// The new row.
    pub id: FileId,
    /// CRC-32 of its bytes: the service's, equal to the one of the content that was read.
    pub crc32: u32,
    /// Bytes.
    pub size: u64,
}

impl Client {
    /// Uploads a file and verifies the CRC-32 the service has calculated.
    ///
    /// With a `session` of an earlier upload of the same content, goes on where that stopped, or
    /// finds the row if it was finished. `on_session` is told of each session begun, so that it can
    /// be kept; a session that is told of later replaces the ones before. Dropping the future stops
    /// the upload, and what has arrived stays with the service for a while.
    ///
    /// Costs two requests, and one more for each further slice.
    ///
    /// # Errors
    /// - [`ErrorKind::Full`]: the account has no space left.
    /// - [`ErrorKind::Corrupt`]: the CRC-32 differed three times; the rows have been deleted.
    /// - [`ErrorKind::Local`]: the content could not be read.
    /// - [`ErrorKind::NotFound`], [`ErrorKind::InvalidName`], [`ErrorKind::Denied`]: the folder or
    ///   the name.
    /// - Those of every call. The session stays usable after [`Error::is_temporary`] ones.
    pub async fn upload(
        &self,
        request: &UploadRequest<'_>,
        session: Option<Session>,
        on_session: &mut (dyn FnMut(&Session) + Send),
    ) -> Result<Uploaded, Error> {
        let length = request.content.length();
        // A session that cannot be this upload's is none: it is data that was on a disk.
        let location = session.filter(|session| session.length == length).and_then(|session| {
            Url::parse(&session.url).ok().filter(|url| self.transport().is_trusted(url))
        });
        let machine = Machine::new(length, request.slice_bytes, location.is_some());
        let run = Run {
            client: self,
            request,
            machine,
            location,
            reader: Reader::new(request.content),
            create_attempts: Attempts::new(self.transport(), CALL),
            ask_attempts: Attempts::new(self.transport(), CALL),
            send_attempts: Attempts::new(self.transport(), CALL),
            refusal: None,
        };
        run.drive(on_session).await
    }

    /// Gives up an upload that was begun, so that the service can forget it. One request.
    ///
    /// # Errors
    /// Those of every call; a session that does not exist any more is no error.
    pub async fn abandon(&self, session: &Session) -> Result<(), Error> {
        let url = Url::parse(&session.url).ok().filter(|url| self.transport().is_trusted(url));
        let Some(url) = url else { return Ok(()) };
        let mut attempts = Attempts::new(self.transport(), "abandon");
        loop {
            let request = self.tus_request(Method::DELETE, url.clone());
            match self.exchange("abandon", request).await {
                Ok(_) => return Ok(()),
                Err(failure) if failure.error.is_not_found() => return Ok(()),
                Err(failure) => attempts.again(failure).await?,
            }
        }
    }

    fn tus_request(&self, method: Method, url: Url) -> Request {
        let mut request = Request::new(method, url);
        self.transport().authorize(&mut request);
        let version = HeaderValue::from_static(TUS_VERSION);
        request.headers_mut().insert(HeaderName::from_static("tus-resumable"), version);
        request
    }

    /// Sends a request of the upload host that has no body.
    async fn exchange(&self, call: &'static str, request: Request) -> Result<Reply, Failure> {
        let transport = self.transport();
        let _admission = transport.admit(call, &Lane::Account, true).await?;
        let (response, _) = transport.start(call, &Lane::Account, request).await?;
        self.reply(call, response).await
    }

    async fn reply(&self, call: &'static str, response: Response) -> Result<Reply, Failure> {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        if status == 409 {
            return Ok(Reply { status, headers });
        }
        let transport = self.transport();
        let response = transport.check(call, Side::Upload, response).await?;
        // Nothing is expected in it, and a connection whose answer was read is used again.
        transport.read_body(call, response, SMALL_BODY_BYTES_MAX).await.ok();
        Ok(Reply { status, headers })
    }
}

/// An upload under way.
struct Run<'a> {
    client: &'a Client,
    request: &'a UploadRequest<'a>,
    machine: Machine,
    location: Option<Url>,
    reader: Reader<'a>,
    create_attempts: Attempts<'a>,
    ask_attempts: Attempts<'a>,
    send_attempts: Attempts<'a>,
    /// Why the service refused to go on with a session, for the case that it is the end.
    refusal: Option<Error>,
}

impl Run<'_> {
    async fn drive(
        mut self,
        on_session: &mut (dyn FnMut(&Session) + Send),
    ) -> Result<Uploaded, Error> {
        loop {
            let (stalls, peak) = (self.machine.stalls(), self.machine.peak());
            let event = match self.machine.step() {
                Step::Create => self.create(on_session).await?,
                Step::AskOffset => self.ask_offset().await?,
                Step::Send { offset, length } => self.send(offset, length).await?,
                Step::Hash => Event::Hashed(self.reader.hash_all().await?),
                Step::Find { is_thorough } => Event::Found(self.find(is_thorough).await?),
                Step::Fetch { id } => Event::Fetched(self.fetch(id).await?),
                Step::Delete { id } => {
                    // To the trash, where this is set: nobody should lose a file to a wrong answer.
                    self.client.delete(&[id], DeleteOptions::default()).await?;
                    self.reader.forget();
                    Event::Deleted
                }
                Step::Finished { id, crc32 } => {
                    return Ok(Uploaded { id, crc32, size: self.request.content.length() });
                }
                Step::Failed(reason) => return Err(self.failed(reason)),
            };
            self.machine.on(event);
            if self.machine.peak() > peak {
                self.send_attempts.progress();
            }
            let is_pause_due = !matches!(event, Event::Lost | Event::Failed);
            if is_pause_due && self.machine.stalls() > stalls {
                let message = "the service's answers bring the upload no further";
                let error = Error::new(ErrorKind::Server, CALL, message);
                self.send_attempts.again(Failure::later(error)).await?;
            }
        }
    }

    fn failed(self, reason: Reason) -> Error {
        match reason {
            Reason::Corrupt { expected, found } => {
                let found = found.map_or("none".to_owned(), |crc32| format!("{crc32:08x}"));
                let message = format!(
                    "the service has other bytes than were sent: CRC-32 {found} in place of \
                     {expected:08x}"
                );
                Error::new(ErrorKind::Corrupt, CALL, message)
            }
            Reason::SessionsLost | Reason::Stalled => self.refusal.unwrap_or_else(|| {
                let message = "the service began the upload again and again without finishing it";
                Error::new(ErrorKind::Server, CALL, message)
            }),
        }
    }

    /// Pauses after a failed request and says what the machine is to know of it.
    async fn retry(&mut self, failure: Failure, asking: Asking) -> Result<Event, Error> {
        let event = match failure.retry {
            Retry::Never => return Err(self.explain(failure.error).await),
            Retry::Limited => Event::Refused,
            Retry::Later { .. } if failure.error.status.is_some() => Event::Failed,
            Retry::Later { .. } => Event::Lost,
        };
        let attempts = match asking {
            Asking::ForSession => &mut self.create_attempts,
            Asking::Offset => &mut self.ask_attempts,
            Asking::ToTake => &mut self.send_attempts,
        };
        attempts.again(failure).await?;
        Ok(event)
    }

    /// A refusal that may mean a full account is looked into: what the service says then is not
    /// documented.
    async fn explain(&self, error: Error) -> Error {
        if !matches!(error.kind, ErrorKind::PaymentRequired | ErrorKind::Denied) {
            return error;
        }
        match self.client.account().await {
            Ok(account) if account.disk.available < self.request.content.length() => {
                Error { kind: ErrorKind::Full, ..error }
            }
            _ => error,
        }
    }

    async fn create(
        &mut self,
        on_session: &mut (dyn FnMut(&Session) + Send),
    ) -> Result<Event, Error> {
        self.location = None;
        let length = self.request.content.length();
        let url = self.client.transport().upload_base().join("/files/");
        let mut request = self.client.tus_request(Method::POST, url);
        let headers = request.headers_mut();
        headers.insert(UPLOAD_LENGTH, HeaderValue::from(length));
        headers.insert("upload-metadata", self.metadata()?);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        let headers = match self.client.exchange(CALL, request).await {
            Ok(Reply { status: 409, .. }) => {
                let message = "the service refuses to begin the upload";
                return Err(Error::new(ErrorKind::Invalid, CALL, message));
            }
            Ok(reply) => reply.headers,
            Err(failure) => return self.retry(failure, Asking::ForSession).await,
        };
        let transport = self.client.transport();
        let location = header(&headers, LOCATION.as_str())
            .and_then(|text| transport.upload_base().resolve(text))
            .filter(|url| transport.is_trusted(url));
        let Some(location) = location else {
            let message = "the service named no address of its own for the upload";
            let error = Error::new(ErrorKind::Corrupt, CALL, message);
            return self.retry(Failure::later(error), Asking::ForSession).await;
        };
        self.create_attempts.progress();
        on_session(&Session { url: location.to_string(), length });
        self.location = Some(location);
        Ok(Event::Created(read_receipt(&headers)))
    }

    fn metadata(&self) -> Result<HeaderValue, Error> {
        let parent = self.request.parent.to_string();
        let updated_at = self.request.updated_at.map(|time| {
            clock::format_time(time).ok_or_else(|| {
                Error::new(ErrorKind::Invalid, CALL, "the modification time cannot be written")
            })
        });
        let updated_at = updated_at.transpose()?;
        let mut pairs = vec![
            ("name", self.request.name),
            ("parent_id", parent.as_str()),
            // Without it, bytes that look like a torrent would be started as one.
            ("no-torrent", "true"),
        ];
        if let Some(updated_at) = &updated_at {
            pairs.push(("updated-at", updated_at));
        }
        let pairs: Vec<_> =
            pairs.iter().map(|(key, value)| format!("{key} {}", STANDARD.encode(value))).collect();
        HeaderValue::from_str(&pairs.join(",")).map_err(|error| {
            Error::new(ErrorKind::InvalidName, CALL, "the name cannot be sent").with_source(error)
        })
    }

    fn location(&self) -> Result<Url, Error> {
        self.location
            .clone()
            .ok_or_else(|| Error::new(ErrorKind::Invalid, CALL, "the upload was not begun"))
    }

    async fn ask_offset(&mut self) -> Result<Event, Error> {
        let request = self.client.tus_request(Method::HEAD, self.location()?);
        let result = self.client.exchange(CALL, request).await;
        let event = self.read_answer(result, Asking::Offset).await?;
        if matches!(event, Event::Offset { .. }) {
            self.ask_attempts.progress();
        }
        Ok(event)
    }

    async fn send(&mut self, offset: u64, length: u64) -> Result<Event, Error> {
        let url = self.location()?;
        self.reader.hash_until(offset).await?;
        let result = self.send_slice(url, offset, length).await?;
        // A slice may take hours on a slow line before it breaks off.
        for attempts in [&mut self.create_attempts, &mut self.ask_attempts, &mut self.send_attempts]
        {
            attempts.restart_clock();
        }
        self.read_answer(result, Asking::ToTake).await
    }

    /// Sends a slice. The outer error is the content's.
    async fn send_slice(
        &mut self,
        url: Url,
        offset: u64,
        length: u64,
    ) -> Result<Result<Reply, Failure>, Error> {
        let transport = self.client.transport();
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        let mut request = self.client.tus_request(Method::PATCH, url);
        let headers = request.headers_mut();
        let content_type = HeaderValue::from_static("application/offset+octet-stream");
        headers.insert(CONTENT_TYPE, content_type);
        headers.insert(UPLOAD_OFFSET, HeaderValue::from(offset));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        *request.body_mut() = Some(Body::wrap(SliceBody { pieces, remaining: length }));

        let _admission = match transport.admit(CALL, &Lane::Account, true).await {
            Ok(admission) => admission,
            Err(failure) => return Ok(Err(failure)),
        };
        let sent = Instant::now();
        let answer = transport.dispatch(request);
        tokio::pin!(answer);
        let early = {
            let feeding = feed(&mut self.reader, transport, sender, offset, length);
            tokio::select! {
                biased;
                early = &mut answer => Some(early),
                fed = feeding => match fed {
                    Ok(()) => None,
                    Err(Stop::Content(error)) => return Err(error),
                    Err(Stop::Connection(failure)) => return Ok(Err(failure)),
                },
            }
        };
        let answer = match early {
            Some(early) => early,
            None => {
                // What is still in the system's buffers counts as under way.
                let timeouts = transport.options().timeouts;
                match timeout(timeouts.idle + timeouts.header, answer).await {
                    Ok(answer) => answer,
                    Err(_) => return Ok(Err(timed_out(CALL, "no answer"))),
                }
            }
        };
        let response = match answer {
            Ok(response) => response,
            Err(error) => return Ok(Err(network_failure(CALL, error))),
        };
        transport.heed(&Lane::Account, &response, sent);
        Ok(self.client.reply(CALL, response).await)
    }

    /// Reads what a `HEAD` or `PATCH` was answered.
    async fn read_answer(
        &mut self,
        result: Result<Reply, Failure>,
        asking: Asking,
    ) -> Result<Event, Error> {
        let failure = match result {
            Ok(Reply { status: 409, headers }) => {
                return Ok(Event::Conflict { offset: number(&headers, UPLOAD_OFFSET) });
            }
            Ok(Reply { headers, .. }) => {
                return Ok(Event::Offset {
                    offset: number(&headers, UPLOAD_OFFSET),
                    length: number(&headers, UPLOAD_LENGTH),
                    receipt: read_receipt(&headers),
                });
            }
            Err(failure) => failure,
        };
        match failure.error.kind {
            ErrorKind::NotFound | ErrorKind::Expired => Ok(Event::Gone),
            // Whatever else is wrong with the session, a new one may be better.
            ErrorKind::Invalid | ErrorKind::Conflict if failure.error.status.is_some() => {
                self.refusal = Some(failure.error);
                Ok(Event::Gone)
            }
            _ => self.retry(failure, asking).await,
        }
    }

    async fn find(&self, is_thorough: bool) -> Result<Option<Row>, Error> {
        let UploadRequest { parent, name, .. } = *self.request;
        let is_this = |file: &File| self.reader.is_content_of(file);
        if let Some(file) = self.client.child(parent, name).await?.filter(is_this) {
            return Ok(Some(self.row(&file)));
        }
        if !is_thorough {
            return Ok(None);
        }
        let namesakes = self.client.namesakes(parent, name).await?;
        let newest = namesakes.into_iter().filter(is_this).max_by_key(|file| file.id);
        Ok(newest.map(|file| self.row(&file)))
    }

    async fn fetch(&self, id: FileId) -> Result<Option<Row>, Error> {
        match self.client.file(id).await {
            Ok(file) => Ok(Some(self.row(&file))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn row(&self, file: &File) -> Row {
        let is_ours = file.name == self.request.name
            && file.parent_id == Some(self.request.parent)
            && !file.is_folder();
        Row { id: file.id, size: file.size, crc32: file.crc32, is_ours }
    }
}

/// What a request of an upload is for; patience with each is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asking {
    ForSession,
    Offset,
    ToTake,
}

/// An answer that says something about a session: success, or 409.
struct Reply {
    status: u16,
    headers: HeaderMap,
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    header(headers, name)?.parse().ok()
}

fn read_receipt(headers: &HeaderMap) -> Receipt {
    let id = header(headers, "putio-file-id").and_then(|text| text.parse::<FileId>().ok());
    Receipt {
        id: id.filter(|id| *id > FileId::ROOT),
        crc32: header(headers, "putio-file-crc32").and_then(wire::parse_crc32),
    }
}

/// Why a slice was not sent to its end.
enum Stop {
    /// The content cannot be read.
    Content(Error),
    /// The connection does not take more.
    Connection(Failure),
}

/// Hands the content's bytes to the connection, piece by piece.
async fn feed(
    reader: &mut Reader<'_>,
    transport: &Transport,
    sender: mpsc::Sender<Bytes>,
    offset: u64,
    length: u64,
) -> Result<(), Stop> {
    let piece_bytes = transport.limits().upload_bandwidth.piece_bytes(PIECE_BYTES_MAX);
    let idle = transport.options().timeouts.idle;
    let end = offset + length;
    let mut position = offset;
    while position < end {
        let count = usize::try_from(end - position).unwrap_or(usize::MAX).min(piece_bytes);
        transport.limits().upload_bandwidth.take(count).await;
        let piece = reader.read(position, count).map_err(Stop::Content)?;
        position += piece.len() as u64;
        let piece_length = piece.len() as u64;
        match timeout(idle, sender.send(piece)).await {
            Ok(Ok(())) => Counters::add(&transport.counters().bytes_sent, piece_length),
            // The connection is done with the body: its answer says why.
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(Stop::Connection(timed_out(CALL, "no further byte was taken"))),
        }
    }
    Ok(())
}

/// The body of a slice: pieces as they come, of a length known in advance.
struct SliceBody {
    pieces: mpsc::Receiver<Bytes>,
    remaining: u64,
}

impl http_body::Body for SliceBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.pieces.poll_recv(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(piece)) => {
                self.remaining = self.remaining.saturating_sub(piece.len() as u64);
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Poll::Ready(None) if self.remaining == 0 => Poll::Ready(None),
            Poll::Ready(None) => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

/// Reads the content and calculates its CRC-32 from the start on, whatever is read again.
struct Reader<'a> {
    content: &'a (dyn Content + 'a),
    length: u64,
    hasher: crc32fast::Hasher,
    hashed: u64,
}

impl<'a> Reader<'a> {
    fn new(content: &'a (dyn Content + 'a)) -> Self {
        let length = content.length();
        Self { content, length, hasher: crc32fast::Hasher::new(), hashed: 0 }
    }

    /// Begins the CRC-32 anew.
    fn forget(&mut self) {
        self.hasher = crc32fast::Hasher::new();
        self.hashed = 0;
    }

    /// Reads exactly `count` bytes.
    fn read(&mut self, offset: u64, count: usize) -> Result<Bytes, Error> {
        let mut piece = vec![0; count];
        let mut filled = 0;
        while filled < count {
            match self.content.read_at(offset + filled as u64, &mut piece[filled..]) {
                Ok(0) => {
                    let message = "the content is shorter than it was at the start";
                    return Err(Error::new(ErrorKind::Local, CALL, message));
                }
                Ok(read) => filled += read.min(count - filled),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let message = "the content cannot be read";
                    return Err(Error::new(ErrorKind::Local, CALL, message).with_source(error));
                }
            }
        }
        // What was hashed already is not hashed again when it is sent again.
        if let Some(known) = self.hashed.checked_sub(offset)
            && let Some(new) = usize::try_from(known).ok().and_then(|known| piece.get(known..))
        {
            self.hasher.update(new);
            self.hashed += new.len() as u64;
        }
        Ok(Bytes::from(piece))
    }

    /// Hashes what lies before `offset`, giving way to other tasks now and then.
    async fn hash_until(&mut self, offset: u64) -> Result<(), Error> {
        while self.hashed < offset {
            let rest = usize::try_from(offset - self.hashed).unwrap_or(usize::MAX);
            self.read(self.hashed, rest.min(PIECE_BYTES_MAX))?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// CRC-32 of all.
    async fn hash_all(&mut self) -> Result<u32, Error> {
        self.hash_until(self.length).await?;
        Ok(self.hasher.clone().finalize())
    }

    /// Whether the row has this content. The content is hashed already.
    fn is_content_of(&self, file: &File) -> bool {
        file.size == self.length
            && self.hashed == self.length
            && file.crc32 == Some(self.hasher.clone().finalize())
    }
}
