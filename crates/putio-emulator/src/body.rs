//! Bodies on their way in and out: counted, slowed down, cut and damaged.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::connection::Control;
use crate::line::Line;
use crate::log::Record;
use crate::shared::Shared;

/// What shares a line gets it in pieces of this size.
const PIECE_BYTES: usize = 32 << 10;

/// What was written before a cut is on its way after this time.
const FLUSH_TIME: Duration = Duration::from_millis(30);

/// Where a body ends early.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) after_bytes: u64,
    pub(crate) reset: bool,
}

/// A request's body.
pub(crate) struct Intake {
    body: Incoming,
    shared: Arc<Shared>,
    control: Arc<Control>,
    record: Arc<Record>,
    cut: Option<Cut>,
    taken: u64,
    is_begun: bool,
    is_over: bool,
}

impl Intake {
    pub(crate) fn new(
        body: Incoming,
        shared: Arc<Shared>,
        control: Arc<Control>,
        record: Arc<Record>,
    ) -> Self {
        let (cut, taken, is_begun, is_over) = (None, 0, false, false);
        Self { body, shared, control, record, cut, taken, is_begun, is_over }
    }

    pub(crate) fn set_cut(&mut self, cut: Cut) {
        self.cut = Some(cut);
    }

    /// Whether anything was asked of the body, so that a client that waits for leave to send it
    /// has got it.
    pub(crate) fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.is_over {
            return None;
        }
        self.is_begun = true;
        if let Some(cut) = self.cut
            && self.taken >= cut.after_bytes
        {
            self.is_over = true;
            if cut.reset {
                self.control.reset();
            } else {
                self.control.close();
            }
            return Some(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
            let mut bytes = match frame {
                None => {
                    self.is_over = true;
                    return None;
                }
                Some(Err(error)) => {
                    self.is_over = true;
                    return Some(Err(io::Error::other(error)));
                }
                // Trailers are of no interest.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => bytes,
                    _ => continue,
                },
            };
            if let Some(cut) = self.cut {
                let left = usize::try_from(cut.after_bytes - self.taken).unwrap_or(usize::MAX);
                bytes.truncate(left.max(1));
            }
            self.taken += bytes.len() as u64;
            self.record.request_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            self.shared.upload_line.pass(bytes.len()).await;
            return Some(Ok(bytes));
        }
    }

    /// Reads what nobody wanted, so that the answer is not lost to a client that is still sending.
    pub(crate) async fn drain(&mut self) {
        while let Some(Ok(_)) = self.next().await {}
    }
}

/// What happens to an answer's body.
#[derive(Clone, Debug, Default)]
pub(crate) struct Treatment {
    pub(crate) cut: Option<Cut>,
    /// The length is not told, so that a cut is seen by the missing end alone.
    pub(crate) is_length_hidden: bool,
    pub(crate) flip: Option<u64>,
    pub(crate) bytes_per_second: Option<u64>,
}

/// An answer's body.
pub(crate) struct Outgoing {
    inner: Body,
    shared: Arc<Shared>,
    control: Arc<Control>,
    record: Arc<Record>,
    treatment: Treatment,
    trickle: Option<Line>,
    pending: Option<Bytes>,
    sleep: Option<Pin<Box<Sleep>>>,
    sent: u64,
    is_cut: bool,
}

impl Outgoing {
    pub(crate) fn new(
        inner: Body,
        shared: Arc<Shared>,
        control: Arc<Control>,
        record: Arc<Record>,
        treatment: Treatment,
    ) -> Self {
        let trickle = treatment.bytes_per_second.map(|speed| Line::new(Some(speed)));
        Self {
            inner,
            shared,
            control,
            record,
            treatment,
            trickle,
            pending: None,
            sleep: None,
            sent: 0,
            is_cut: false,
        }
    }

    fn wait(&mut self, until: Option<Instant>) {
        self.sleep = until.map(|until| Box::pin(tokio::time::sleep_until(until)));
    }

    /// Takes the next piece of what is pending, as it is to be sent.
    fn take_piece(&mut self) -> Option<Bytes> {
        let pending = self.pending.as_mut()?;
        let is_slow = self.trickle.is_some() || self.shared.download_line.is_limited();
        let mut length = pending.len();
        if is_slow {
            length = length.min(PIECE_BYTES);
        }
        if let Some(speed) = self.treatment.bytes_per_second {
            let tenth = usize::try_from(speed / 10).unwrap_or(usize::MAX);
            length = length.min(tenth.max(1));
        }
        if let Some(cut) = self.treatment.cut {
            let left = usize::try_from(cut.after_bytes - self.sent).unwrap_or(usize::MAX);
            length = length.min(left);
        }
        let mut piece = pending.split_to(length);
        if pending.is_empty() {
            self.pending = None;
        }
        if let Some(at) = self.treatment.flip
            && let Some(inside) = at.checked_sub(self.sent).and_then(|at| usize::try_from(at).ok())
            && inside < piece.len()
        {
            let mut damaged = piece.to_vec();
            damaged[inside] ^= 0x10;
            piece = damaged.into();
        }
        Some(piece)
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        loop {
            if let Some(sleep) = &mut this.sleep {
                std::task::ready!(sleep.as_mut().poll(cx));
                this.sleep = None;
                if this.is_cut {
                    if this.treatment.cut.is_some_and(|cut| cut.reset) {
                        this.control.reset();
                    } else {
                        this.control.close();
                    }
                    let error: io::Error = io::ErrorKind::ConnectionAborted.into();
                    return Poll::Ready(Some(Err(axum::Error::new(error))));
                }
            }
            if this.treatment.cut.is_some_and(|cut| this.sent >= cut.after_bytes) {
                this.is_cut = true;
                this.wait(Some(Instant::now() + FLUSH_TIME));
                continue;
            }
            if let Some(piece) = this.take_piece() {
                this.sent += piece.len() as u64;
                this.record.response_bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
                // The piece goes now, and the next one once this one is through.
                let through = this.shared.download_line.take(piece.len());
                let trickled = this.trickle.as_ref().and_then(|line| line.take(piece.len()));
                this.wait(through.max(trickled));
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            match std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data()
                        && !bytes.is_empty()
                    {
                        this.pending = Some(bytes);
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pending.is_none()
            && self.sleep.is_none()
            && self.treatment.cut.is_none()
            && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.treatment.is_length_hidden { SizeHint::default() } else { self.inner.size_hint() }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.record.ended();
        if self.shared.is_verbose {
            crate::log::print(&self.record.entry());
        }
    }
}
