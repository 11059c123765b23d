//! Ports and connections: plain HTTP, the CONNECT proxy, and TLS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, header};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::clock::http_date;
use crate::connection::Stream;
use crate::error::Error;
use crate::serve::{Services, Source, is_own_host, serve};
use crate::shared::Shared;

/// A proxy's client has so long to say where it wants to.
const CONNECT_TIME: Duration = Duration::from_secs(30);

/// Most bytes of what a proxy's client says.
const CONNECT_BYTES_MAX: usize = 16 << 10;

/// What a port speaks.
#[derive(Clone)]
pub(crate) enum Speech {
    Http,
    Tls(TlsAcceptor),
    Proxy(TlsAcceptor),
}

/// Accepts connections until it is dropped.
pub(crate) async fn listen(
    listener: TcpListener,
    speech: Speech,
    shared: Arc<Shared>,
    services: Services,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let work =
                    connection(stream, speech.clone(), Arc::clone(&shared), services.clone());
                tokio::spawn(work);
            }
            // Out of file handles, mostly: wait for some to be freed.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn connection(stream: TcpStream, speech: Speech, shared: Arc<Shared>, services: Services) {
    // Small answers must not wait for more to be sent with them; a stream that refuses still works.
    let _ = stream.set_nodelay(true);
    tokio::time::sleep(shared.connect_latency()).await;
    let mut stream = Stream::new(stream);
    let control = Arc::clone(stream.control());
    shared.add_connection(&control);
    let source = |is_tls| Source { control: Arc::clone(&control), is_tls };
    let work = async {
        match &speech {
            Speech::Http => requests(stream, source(false), shared, services).await,
            Speech::Tls(acceptor) => {
                if let Ok(stream) = acceptor.accept(stream).await {
                    requests(stream, source(true), shared, services).await;
                }
            }
            Speech::Proxy(acceptor) => {
                let connect = tokio::time::timeout(CONNECT_TIME, connect(&mut stream));
                if let Ok(true) = connect.await
                    && let Ok(stream) = acceptor.accept(stream).await
                {
                    requests(stream, source(true), shared, services).await;
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = control.ended() => {}
    }
    // Requests that still run learn that nobody waits for them.
    if !control.is_handed_over() {
        control.close();
    }
}

/// Serves the requests of one connection.
async fn requests<S>(stream: S, source: Source, shared: Arc<Shared>, services: Services)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        let answer = serve(Arc::clone(&shared), services.clone(), source.clone(), request);
        async move {
            let mut answer = answer.await?;
            // A service whose clock is wrong tells a wrong time with everything it says.
            if let Ok(date) = HeaderValue::from_str(&http_date(shared.clock.now() / 1000)) {
                answer.headers_mut().insert(header::DATE, date);
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    // A connection that ends badly is the client's affair, or a fault's.
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

/// Answers a proxy's client. Whether it may go on.
async fn connect(stream: &mut Stream) -> bool {
    let mut head = Vec::new();
    let end = loop {
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if head.len() > CONNECT_BYTES_MAX || !matches!(stream.read_buf(&mut head).await, Ok(1..)) {
            return false;
        }
    };
    let text = String::from_utf8_lossy(&head[..end]).into_owned();
    let mut words = text.split([' ', '\r']);
    let is_connect = words.next() == Some("CONNECT");
    let target = words.next().unwrap_or_default();
    let host = target.rsplit_once(':').map_or(target, |(host, _)| host).to_ascii_lowercase();
    if !is_connect || !is_own_host(&host) {
        let page = "this proxy leads to put.io and *.put.io by CONNECT, and nowhere else\n";
        let answer = format!(
            "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{page}",
            page.len()
        );
        // Who has gone away needs no answer.
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
        return false;
    }
    stream.put_back(&head[end..]);
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.is_ok()
}

/// Opens a port. Works outside of the runtime, too.
pub(crate) fn bind(address: SocketAddr) -> Result<(std::net::TcpListener, SocketAddr), Error> {
    let open = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    open().map_err(|source| Error::Listen { address, source })
}
