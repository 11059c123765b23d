//! A port of this machine to which the browser comes back with a code.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::error::{Error, ErrorKind};

/// The largest head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How long one connection may take; browsers open some in advance and leave them idle.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(20);
/// Connections at the same time.
const CONNECTIONS_MAX: usize = 32;

const CALL: &str = "sign in";

/// Waits on a port of this machine, and only there, for the browser to come back with a code.
pub struct Loopback {
    listener: std::net::TcpListener,
    address: SocketAddr,
}

impl fmt::Debug for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loopback").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Loopback {
    /// Takes a port of `127.0.0.1`; 0 is any that is free.
    ///
    /// # Errors
    /// [`ErrorKind::Local`] if the port is in use.
    pub fn bind(port: u16) -> Result<Self, Error> {
        let open = || -> io::Result<Self> {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        open().map_err(|error| {
            let message = format!("port {port} of this machine cannot be used");
            Error::new(ErrorKind::Local, CALL, message).with_source(error)
        })
    }

    /// Where the browser is to come back to. The application must be registered with this address.
    #[must_use]
    pub fn redirect_uri(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Waits for the code. Requests with another state, for other paths or by other methods are
    /// refused and change nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if the person did not allow it; [`ErrorKind::Expired`] after `limit`;
    /// [`ErrorKind::Local`].
    pub async fn wait(self, state: &str, limit: Duration) -> Result<String, Error> {
        let local = |error: io::Error| {
            Error::new(ErrorKind::Local, CALL, "the browser cannot be waited for")
                .with_source(error)
        };
        let listener = TcpListener::from_std(self.listener).map_err(local)?;
        let serving = async {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                        let (stream, _) = accepted.map_err(local)?;
                        let state = state.to_owned();
                        connections.spawn(async move {
                            timeout(CONNECTION_TIME_MAX, serve(stream, &state)).await.ok()?.ok()?
                        });
                    }
                    Some(ended) = connections.join_next() => {
                        if let Ok(Some(result)) = ended {
                            return result;
                        }
                    }
                }
            }
        };
        timeout(limit, serving).await.unwrap_or_else(|_| {
            let message = "the browser did not come back in time";
            Err(Error::new(ErrorKind::Expired, CALL, message))
        })
    }
}

/// Serves one request. `None` if it was not the one waited for.
async fn serve(mut stream: TcpStream, state: &str) -> io::Result<Option<Result<String, Error>>> {
    let mut head = Vec::new();
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let mut piece = [0; 2048];
        let count = stream.read(&mut piece).await?;
        if count == 0 || head.len() + count > HEAD_BYTES_MAX {
            return Ok(None);
        }
        head.extend_from_slice(&piece[..count]);
    }
    let target = std::str::from_utf8(&head).ok().and_then(read_target);
    let reply = match &target {
        Some(target) => judge(target, state),
        None => Reply::Refused("405 Method Not Allowed"),
    };
    let (status, text) = match &reply {
        Reply::Code(_) => ("200 OK", "You are signed in. You can close this page."),
        Reply::Denied(_) => ("200 OK", "You did not sign in. You can close this page."),
        Reply::Refused(status) => (*status, "This page is of no use."),
    };
    let body =
        format!("<!doctype html><meta charset=\"utf-8\"><title>put.io</title><p>{text}</p>\n");
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(match reply {
        Reply::Code(code) => Some(Ok(code)),
        Reply::Denied(reason) => Some(Err(Error::new(ErrorKind::Denied, CALL, reason))),
        Reply::Refused(_) => None,
    })
}

/// What to make of a request.
enum Reply {
    Code(String),
    Denied(String),
    Refused(&'static str),
}

/// The target of a `GET`, without the host: path and query.
fn read_target(head: &str) -> Option<Url> {
    let mut words = head.lines().next()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let is_get = method == "GET" && target.starts_with('/');
    if is_get { Url::parse(&format!("http://localhost{target}")).ok() } else { None }
}

fn judge(target: &Url, state: &str) -> Reply {
    if target.path() != "/" {
        return Reply::Refused("404 Not Found");
    }
    let value = |key: &str| {
        let mut pairs = target.query_pairs();
        pairs.find(|(name, _)| name == key).map(|(_, value)| value.into_owned())
    };
    // Without it, any page a person visits could sign the program in to somebody else's account.
    if !value("state").is_some_and(|given| is_equal(given.as_bytes(), state.as_bytes())) {
        return Reply::Refused("400 Bad Request");
    }
    match (value("code").filter(|code| !code.is_empty()), value("error")) {
        (Some(code), None) => Reply::Code(code),
        (_, Some(error)) => {
            Reply::Denied(error.chars().filter(|c| !c.is_control()).take(100).collect())
        }
        (None, None) => Reply::Refused("400 Bad Request"),
    }
}

/// Compares without telling by the time taken how much was right.
fn is_equal(left: &[u8], right: &[u8]) -> bool {
    let difference = left.iter().zip(right).fold(0, |all, (left, right)| all | (left ^ right));
    left.len() == right.len() && difference == 0 && !right.is_empty()
}
