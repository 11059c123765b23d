//! A connection that can be reset from within a request.
//!
//! Faults need what HTTP libraries hide: the end of the TCP connection under a half-sent answer.
//! [`Stream`] is the TCP stream with a [`Control`] that requests hold; once one says so, every read
//! and write fails, and closing sends a reset in place of an orderly end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const RESET: u8 = 2;

/// Ends a connection.
#[derive(Debug, Default)]
pub(crate) struct Control {
    state: AtomicU8,
    ended: Notify,
    is_handed_over: AtomicBool,
}

impl Control {
    /// Ends the connection with a TCP reset.
    pub(crate) fn reset(&self) {
        self.end(RESET);
    }

    /// Ends the connection as if the process behind it had closed it.
    pub(crate) fn close(&self) {
        self.end(CLOSED);
    }

    /// The connection speaks something else than HTTP from now on, and outlives its requests.
    pub(crate) fn hand_over(&self) {
        self.is_handed_over.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_handed_over(&self) -> bool {
        self.is_handed_over.load(Ordering::SeqCst)
    }

    fn end(&self, state: u8) {
        self.state.fetch_max(state, Ordering::SeqCst);
        self.ended.notify_waiters();
    }

    pub(crate) fn is_ended(&self) -> bool {
        !self.is_open()
    }

    fn is_open(&self) -> bool {
        self.state.load(Ordering::SeqCst) == OPEN
    }

    /// Returns once the connection has been ended.
    pub(crate) async fn ended(&self) {
        loop {
            // Made before the state is looked at, or an end in between would be missed.
            let notified = self.ended.notified();
            if !self.is_open() {
                return;
            }
            notified.await;
        }
    }
}

/// A TCP stream that its control can end. Bytes that were read ahead come first.
pub(crate) struct Stream {
    stream: TcpStream,
    ahead: Vec<u8>,
    control: Arc<Control>,
}

impl Stream {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, ahead: Vec::new(), control: Arc::default() }
    }

    pub(crate) fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Bytes to be read before those of the stream.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        self.ahead.splice(0..0, bytes.iter().copied());
    }

    fn check(&self) -> io::Result<()> {
        if self.control.is_open() { Ok(()) } else { Err(io::ErrorKind::ConnectionReset.into()) }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        if !self.ahead.is_empty() {
            let now = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..now]);
            self.ahead.drain(..now);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.control.state.load(Ordering::SeqCst) == RESET {
            // An orderly end must not come before the reset.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.control.state.load(Ordering::SeqCst) == RESET {
            // With a linger time of zero, closing discards what was not sent and resets. A stream
            // that refuses the option is closed all the same.
            let _ = self.stream.set_zero_linger();
        }
    }
}
