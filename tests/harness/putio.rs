//! A put.io of a test's own, and a user of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};

use putio_emulator::options::{Approval, ClientOptions};
use putio_emulator::{AccountOptions, Emulator, Options};
use serde_json::Value;

use crate::harness::{Run, TestEnvironment};

/// Token of the account `ada`. Nothing that is printed or kept elsewhere may have it.
pub(crate) const ADA_TOKEN: &str = "ADATOKENK7Q2ZX9W4M";
/// Token of the account `grace`.
pub(crate) const GRACE_TOKEN: &str = "GRACETOKEN5R8T1Y6U";
/// Id of the application that is registered there.
pub(crate) const CLIENT_ID: &str = "1000";
/// Its secret.
pub(crate) const CLIENT_SECRET: &str = "emulator-secret";

/// Two accounts, and an application that needs a person to agree.
pub(crate) fn options() -> Options {
    Options {
        accounts: vec![
            AccountOptions::new("ada", ADA_TOKEN),
            AccountOptions::new("grace", GRACE_TOKEN),
        ],
        approval: Approval::Manual,
        ..Options::default()
    }
}

/// The application, where browsers come back to `port`.
pub(crate) fn client(port: u16) -> ClientOptions {
    ClientOptions {
        client_id: CLIENT_ID.to_owned(),
        client_secret: CLIENT_SECRET.to_owned(),
        redirect_uris: vec![format!("http://127.0.0.1:{port}/")],
    }
}

/// A port that nobody uses now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl TestEnvironment {
    /// With a put.io that nobody has signed in to.
    pub(crate) fn with_putio(options: Options) -> (Self, Emulator) {
        let emulator = Emulator::start(options).unwrap();
        let mut environment = Self::new();
        environment.set("PUTBACK_PUTIO_API_URL", emulator.api_url());
        environment.set("PUTBACK_PUTIO_UPLOAD_URL", emulator.upload_url());
        environment.unset("PUTBACK_REPO");
        (environment, emulator)
    }

    /// With a put.io, and signed in to the account `ada` as storage `putio`.
    pub(crate) fn signed_in(options: Options) -> (Self, Emulator) {
        let (environment, emulator) = Self::with_putio(options);
        environment.login("putio", ADA_TOKEN).success();
        (environment, emulator)
    }

    /// Signs in with a token on standard input.
    pub(crate) fn login(&self, name: &str, token: &str) -> Run {
        self.run_with_input(["login", "--name", name, "--token-stdin"], token.as_bytes())
    }

    /// The configuration file's content; empty if there is none.
    pub(crate) fn configuration(&self) -> String {
        std::fs::read_to_string(self.config_file()).unwrap_or_default()
    }

    /// Where the token of a storage is kept.
    pub(crate) fn token_file(&self, name: &str) -> std::path::PathBuf {
        self.path(format!("home/.config/putback/storages/{name}.token"))
    }

    /// Starts the program, which goes on while the test looks at what it prints.
    pub(crate) fn start<const N: usize>(&self, arguments: [&str; N]) -> Running {
        let mut command = self.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Running { child, stdout, printed: String::new() }
    }

    /// Asserts that none of the files below the root has this text, but for those named.
    #[track_caller]
    pub(crate) fn assert_nowhere(&self, secret: &str, but: &[std::path::PathBuf]) {
        let mut folders = vec![self.path("")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if !but.contains(&path) {
                    let content = std::fs::read(&path).unwrap();
                    let is_in =
                        content.windows(secret.len()).any(|window| window == secret.as_bytes());
                    assert!(!is_in, "the secret is in {}", path.display());
                }
            }
        }
    }
}

/// A program that runs.
pub(crate) struct Running {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    printed: String,
}

impl Running {
    /// The next object on its standard output.
    #[track_caller]
    pub(crate) fn message(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        self.printed.push_str(&line);
        serde_json::from_str(&line).unwrap_or_else(|error| {
            let mut stderr = String::new();
            drop(self.child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut stderr)));
            panic!("{error} in '{line}'\nstderr:\n{stderr}")
        })
    }

    /// Presses Ctrl-C.
    pub(crate) fn interrupt(&self) {
        let id = self.child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    }

    /// Waits for its end: exit code, and what it printed to both.
    pub(crate) fn wait(mut self) -> (i32, String, String) {
        self.stdout.read_to_string(&mut self.printed).unwrap();
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (self.child.wait().unwrap().code().unwrap_or(-1), self.printed, stderr)
    }
}

/// A browser that knows one thing: to GET a page. Status, `Location`, body.
pub(crate) fn get(url: &str) -> (u16, Option<String>, String) {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let location = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("location").then(|| value.to_owned())
    });
    (status, location, body.to_owned())
}

/// A server that answers every request with this JSON, until the test ends. Its address.
pub(crate) fn answer_all(body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::Builder::new()
        .spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = [0; 4096];
                // One read has the whole head of the small requests that come here.
                if stream.read(&mut head).unwrap_or(0) == 0 {
                    continue;
                }
                let length = body.len();
                drop(write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                     Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                ));
            }
        })
        .unwrap();
    format!("http://{address}")
}
