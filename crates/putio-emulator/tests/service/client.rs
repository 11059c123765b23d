//! A client that does as it is told: raw HTTP over a blocking stream.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use putio_emulator::{Emulator, Options};
use serde_json::Value;

/// Token of the account that [`Options::default`] has.
pub(crate) const TOKEN: &str = "emulator-token";

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The answer, if it has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// `error_type` of an error of this status, whose envelope is whole.
    #[track_caller]
    pub(crate) fn error(self, status: u16) -> String {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let body = answer.json();
        assert_eq!((&body["status"], &body["status_code"]), (&"ERROR".into(), &status.into()));
        for key in ["error_message", "error_uri", "error_id", "extra"] {
            assert!(body.get(key).is_some(), "{key}");
        }
        body["error_type"].as_str().unwrap().to_owned()
    }
}

/// A request under construction.
pub(crate) struct Request {
    head: String,
    body: Vec<u8>,
    has_length: bool,
}

impl Request {
    /// With the default account's token.
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self::bare(method, target).header("Authorization", &format!("Bearer {TOKEN}"))
    }

    /// Without any token.
    pub(crate) fn bare(method: &str, target: &str) -> Self {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
        Self { head, body: Vec::new(), has_length: matches!(method, "GET" | "HEAD") }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        if name.eq_ignore_ascii_case("content-length")
            || name.eq_ignore_ascii_case("transfer-encoding")
        {
            self.has_length = true;
        }
        self
    }

    /// The same, for another host.
    pub(crate) fn with_host(mut self, host: &str) -> Self {
        self.head = self.head.replacen("Host: 127.0.0.1", &format!("Host: {host}"), 1);
        self
    }

    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    pub(crate) fn form(self, body: &str) -> Self {
        self.header("Content-Type", "application/x-www-form-urlencoded").body(body.as_bytes())
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.header("Content-Type", "application/json").body(body.to_string().as_bytes())
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        let mut head = self.head;
        if !self.has_length {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend(self.body);
        bytes
    }
}

/// One connection.
pub(crate) struct Connection<S: Read + Write = TcpStream> {
    stream: BufReader<S>,
}

impl Connection {
    pub(crate) fn open(url: &str) -> Self {
        let stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self::over(stream)
    }
}

impl<S: Read + Write> Connection<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)?;
        self.stream.get_mut().flush()
    }

    pub(crate) fn send(&mut self, request: Request) -> std::io::Result<Answer> {
        let is_head = request.head.starts_with("HEAD ");
        self.write(&request.bytes())?;
        self.read_answer(is_head)
    }

    /// Reads the head of an answer: status and headers.
    pub(crate) fn read_head(&mut self) -> std::io::Result<(u16, Vec<(String, String)>)> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines[1..]
            .iter()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Ok((status, headers))
    }

    pub(crate) fn read_answer(&mut self, is_head: bool) -> std::io::Result<Answer> {
        let (status, headers) = self.read_head()?;
        let mut answer = Answer { status, headers, body: Vec::new() };
        if is_head || matches!(status, 100..200 | 204 | 304) {
            return Ok(answer);
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let mut line = String::new();
                if self.stream.read_line(&mut line)? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                let length = usize::from_str_radix(line.trim(), 16).unwrap();
                let mut piece = vec![0; length + 2];
                self.stream.read_exact(&mut piece)?;
                if length == 0 {
                    return Ok(answer);
                }
                answer.body.extend_from_slice(&piece[..length]);
            }
        }
        let length: usize = answer.header("content-length").map_or(0, |text| text.parse().unwrap());
        answer.body = vec![0; length];
        self.stream.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    /// Reads this many bytes, or until the end, and says what kind of end it was.
    pub(crate) fn read_up_to(&mut self, most: usize) -> (Vec<u8>, std::io::Result<()>) {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        while bytes.len() < most {
            let room = piece.len().min(most - bytes.len());
            match self.stream.read(&mut piece[..room]) {
                Ok(0) => break,
                Ok(count) => bytes.extend_from_slice(&piece[..count]),
                Err(error) => return (bytes, Err(error)),
            }
        }
        (bytes, Ok(()))
    }
}

/// An emulator, and requests to it.
pub(crate) struct Service {
    pub(crate) emulator: Emulator,
}

impl Service {
    pub(crate) fn start() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Self {
        Self { emulator: Emulator::start(options).unwrap() }
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(&self.emulator.api_url())
    }

    /// One request on a connection of its own, or why there was no answer.
    pub(crate) fn attempt(&self, request: Request) -> std::io::Result<Answer> {
        self.connect().send(request)
    }

    #[track_caller]
    pub(crate) fn send(&self, request: Request) -> Answer {
        self.attempt(request).unwrap()
    }

    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Answer {
        self.send(Request::new("GET", target))
    }

    #[track_caller]
    pub(crate) fn post(&self, target: &str, form: &str) -> Answer {
        self.send(Request::new("POST", target).form(form))
    }

    /// Begins an upload; the path of its session.
    #[track_caller]
    pub(crate) fn create_upload(&self, name: &str, parent: i64, length: usize) -> String {
        let answer = self.send(create_request(name, parent, length)).expect(201);
        path_of(answer.header("location").unwrap())
    }

    #[track_caller]
    pub(crate) fn patch(&self, session: &str, offset: usize, body: &[u8]) -> Answer {
        self.send(patch_request(session, offset).body(body))
    }

    /// Uploads a file in one piece; its id.
    #[track_caller]
    pub(crate) fn upload(&self, name: &str, parent: i64, body: &[u8]) -> i64 {
        let session = self.create_upload(name, parent, body.len());
        let answer = self.patch(&session, 0, body).expect(204);
        answer.header("putio-file-id").unwrap().parse().unwrap()
    }

    /// Path and query of a file's download link.
    #[track_caller]
    pub(crate) fn link(&self, id: i64) -> String {
        let answer = self.get(&format!("/v2/files/{id}/url")).expect(200);
        path_of(answer.json()["url"].as_str().unwrap())
    }

    /// Names of a folder's listing, in order.
    #[track_caller]
    pub(crate) fn names(&self, parent: i64) -> Vec<String> {
        let answer = self.get(&format!("/v2/files/list?parent_id={parent}")).expect(200).json();
        names(&answer)
    }

    #[track_caller]
    pub(crate) fn folder(&self, name: &str, parent: i64) -> i64 {
        let form = format!("name={name}&parent_id={parent}");
        let answer = self.post("/v2/files/create-folder", &form).expect(200);
        answer.json()["file"]["id"].as_i64().unwrap()
    }
}

pub(crate) fn names(listing: &Value) -> Vec<String> {
    let files = listing["files"].as_array().unwrap();
    files.iter().map(|file| file["name"].as_str().unwrap().to_owned()).collect()
}

/// Path and query of an absolute address.
pub(crate) fn path_of(url: &str) -> String {
    let rest = url.split_once("://").unwrap().1;
    rest[rest.find('/').unwrap()..].to_owned()
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

pub(crate) fn metadata(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{key} {}", base64(value))).collect();
    pairs.join(",")
}

pub(crate) fn create_request(name: &str, parent: i64, length: usize) -> Request {
    let parent = parent.to_string();
    let metadata = metadata(&[("name", name), ("parent_id", &parent), ("no-torrent", "true")]);
    Request::new("POST", "/files/")
        .header("Upload-Length", &length.to_string())
        .header("Upload-Metadata", &metadata)
}

pub(crate) fn patch_request(session: &str, offset: usize) -> Request {
    Request::new("PATCH", session)
        .header("Content-Type", "application/offset+octet-stream")
        .header("Upload-Offset", &offset.to_string())
}

/// Bytes that no compression or repetition makes shorter.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}
