//! A small HTTP server: a closure says what each request is answered, and all requests are kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use putio::{Client, ClientOptions, Token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The token of all tests.
pub(crate) const TOKEN: &str = "SECRETTOKEN";

/// The head of a request.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: HashMap<String, String>,
    pub(crate) headers: HashMap<String, String>,
    /// Its number, from 0.
    pub(crate) number: usize,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path == path
    }
}

/// A request as it was received, and when its head was.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) at: Instant,
}

impl Received {
    pub(crate) fn form(&self) -> HashMap<String, String> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }
}

/// What becomes of a request.
pub(crate) enum Reply {
    /// An answer.
    Answer { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// An answer whose body is cut after so many bytes.
    Cut { status: u16, headers: Vec<(String, String)>, body: Vec<u8>, bytes: usize },
    /// The connection is closed without an answer.
    Close,
    /// Nothing happens for a long time.
    Hang,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self::Answer { status, headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn json(status: u16, body: impl Into<String>) -> Self {
        let body: String = body.into();
        Self::Answer { status, headers: Vec::new(), body: body.into_bytes() }
            .with("content-type", "application/json")
    }

    pub(crate) fn error(status: u16, error_type: &str) -> Self {
        Self::json(
            status,
            format!(
                r#"{{"status":"ERROR","status_code":{status},"error_type":"{error_type}","error_message":"text"}}"#
            ),
        )
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        if let Self::Answer { headers, .. } | Self::Cut { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_string()));
        }
        self
    }

    pub(crate) fn cut(self, bytes: usize) -> Self {
        match self {
            Self::Answer { status, headers, body } => Self::Cut { status, headers, body, bytes },
            other => other,
        }
    }
}

/// What a service does: looks at the head and says how much of the body to read, then answers.
pub(crate) trait Service: Send + Sync + 'static {
    /// Read no more of the body than this and close the connection.
    fn body_limit(&self, head: &Head) -> Option<usize> {
        let _ = head;
        None
    }

    /// Answers. `is_whole` is false for a body that `body_limit` has cut.
    fn answer(&self, head: &Head, body: Vec<u8>, is_whole: bool) -> Reply;
}

impl<F: Fn(&Head, &[u8]) -> Reply + Send + Sync + 'static> Service for F {
    fn answer(&self, head: &Head, body: Vec<u8>, _: bool) -> Reply {
        self(head, &body)
    }
}

/// A server that runs until it is dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Received>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(service: impl Service) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let log = Arc::clone(&received);
        let service = Arc::new(service);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (service, log) = (Arc::clone(&service), Arc::clone(&log));
                connections.spawn(async move { serve(stream, &*service, &log).await });
            }
        });
        Self { url, received, task }
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// `METHOD path` of all requests.
    pub(crate) fn lines(&self) -> Vec<String> {
        let received = self.received();
        received.iter().map(|one| format!("{} {}", one.head.method, one.head.path)).collect()
    }

    /// Options that fit tests: short waits.
    pub(crate) fn options(&self) -> ClientOptions {
        let mut options = ClientOptions::new("putio-tests/1");
        options.api_url = self.url.clone();
        options.upload_url = self.url.clone();
        options.patience.backoff = Duration::from_millis(2);
        options.requests_per_second = Some(1000.0);
        options
    }

    pub(crate) fn client(&self) -> Client {
        self.client_with(|_| {})
    }

    pub(crate) fn client_with(&self, change: impl FnOnce(&mut ClientOptions)) -> Client {
        let mut options = self.options();
        change(&mut options);
        Client::new(Token::new(TOKEN.to_owned()).unwrap(), options).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    service: &dyn Service,
    log: &Mutex<Vec<Received>>,
) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let head_bytes = loop {
            if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let mut head = parse_head(std::str::from_utf8(&buffer[..head_bytes]).unwrap());
        buffer.drain(..head_bytes);
        let index = {
            let mut log = log.lock().unwrap();
            head.number = log.len();
            log.push(Received { head: head.clone(), body: Vec::new(), at: Instant::now() });
            log.len() - 1
        };
        let length: usize = head.header("content-length").map_or(0, |text| text.parse().unwrap());
        assert_eq!(head.header("transfer-encoding"), None, "bodies have a length");
        let limit = service.body_limit(&head).filter(|limit| *limit < length);
        let wanted = limit.unwrap_or(length);
        while buffer.len() < wanted {
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                break;
            }
        }
        let body: Vec<u8> = buffer.drain(..wanted.min(buffer.len())).collect();
        log.lock().unwrap()[index].body = body.clone();
        let reply = service.answer(&head, body, limit.is_none());
        if limit.is_some() {
            return None;
        }
        let (status, headers, body, cut) = match reply {
            Reply::Answer { status, headers, body } => (status, headers, body, None),
            Reply::Cut { status, headers, body, bytes } => (status, headers, body, Some(bytes)),
            Reply::Close => return None,
            Reply::Hang => {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                return None;
            }
        };
        let mut text = format!("HTTP/1.1 {status} X\r\n");
        for (name, value) in &headers {
            text += &format!("{name}: {value}\r\n");
        }
        if status != 204 && !headers.iter().any(|(name, _)| name == "content-length") {
            text += &format!("content-length: {}\r\n", body.len());
        }
        text += "\r\n";
        stream.write_all(text.as_bytes()).await.ok()?;
        if head.method == "HEAD" {
            continue;
        }
        let bytes = cut.unwrap_or(body.len()).min(body.len());
        stream.write_all(&body[..bytes]).await.ok()?;
        if cut.is_some() {
            stream.flush().await.ok()?;
            return None;
        }
    }
}

fn parse_head(text: &str) -> Head {
    let mut lines = text.lines();
    let mut words = lines.next().unwrap().split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers = lines.filter_map(|line| line.split_once(':'));
    Head {
        method: method.to_owned(),
        path: path.to_owned(),
        query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        headers: headers
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect(),
        number: 0,
    }
}

/// Runs all the replies in turn, and the last one from then on.
pub(crate) fn in_turn(
    replies: Vec<fn() -> Reply>,
) -> impl Fn(&Head, &[u8]) -> Reply + Send + Sync + 'static {
    move |head, _| replies[head.number.min(replies.len() - 1)]()
}
