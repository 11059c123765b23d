//! What reaches the user's eyes: the only module that writes to standard output and error.
//!
//! Results go to standard output, everything else to standard error. With `--json` both carry
//! objects, one a line, whose form [`json`] owns. With `--quiet` people read nothing but errors and
//! what a listing is asked for; programs are told of warnings all the same.

pub(crate) mod json;
pub(crate) mod progress;
pub(crate) mod remote;
pub(crate) mod sign_in;
pub(crate) mod table;
pub(crate) mod text;

use std::fmt::Arguments;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressDrawTarget};
use serde::Serialize;

use crate::report::code;
use crate::ui::progress::Cadence;
use crate::ui::remote::Remotes;

/// The way to the user. Clones share everything.
#[derive(Clone)]
pub(crate) struct Ui {
    inner: Arc<Inner>,
}

struct Inner {
    json: bool,
    quiet: bool,
    verbosity: u8,
    cadence: Cadence,
    /// Bars on standard error; hidden unless an operation shows progress. Text goes around them.
    bars: MultiProgress,
    /// Bars or lines are being drawn by an operation.
    is_painting: AtomicBool,
    remotes: Remotes,
    stdout_closed: AtomicBool,
    /// Whether bars are on the terminal now.
    is_drawn: AtomicBool,
    /// Whether the program is about to end: nothing is drawn any more.
    is_ending: AtomicBool,
}

impl Ui {
    /// As the flags say.
    pub(crate) fn new(json: bool, quiet: bool, verbosity: u8, cadence: Cadence) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        Self {
            inner: Arc::new(Inner {
                json,
                quiet,
                verbosity,
                cadence,
                bars,
                is_painting: AtomicBool::new(false),
                remotes: Remotes::default(),
                stdout_closed: AtomicBool::new(false),
                is_drawn: AtomicBool::new(false),
                is_ending: AtomicBool::new(false),
            }),
        }
    }

    /// Before the command line is understood: whether errors are wanted as objects is guessed.
    pub(crate) fn early() -> Self {
        let flag = std::env::args_os()
            .take_while(|argument| argument != "--")
            .any(|argument| argument == "--json");
        let environment = std::env::var("PUTBACK_JSON").is_ok_and(|value| {
            matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on" | "y" | "t")
        });
        Self::new(flag || environment, false, 0, Cadence::default())
    }

    /// Whether output is for programs.
    pub(crate) fn is_json(&self) -> bool {
        self.inner.json
    }

    /// Whether operations are to say nothing but errors.
    pub(crate) fn is_quiet(&self) -> bool {
        self.inner.quiet
    }

    /// How often `--verbose` was given.
    pub(crate) fn verbosity(&self) -> u8 {
        self.inner.verbosity
    }

    /// Whether the reader of standard output went away.
    pub(crate) fn is_stdout_closed(&self) -> bool {
        self.inner.stdout_closed.load(Ordering::Relaxed)
    }

    /// Whether standard output is a terminal.
    pub(crate) fn is_stdout_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Whether standard error is a terminal.
    pub(crate) fn is_stderr_terminal(&self) -> bool {
        io::stderr().is_terminal()
    }

    /// Whether a person can be asked: what is typed arrives, and the question is seen.
    pub(crate) fn can_ask(&self) -> bool {
        !self.inner.json && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Whether an operation draws its progress, so that it tells of waits.
    fn is_painting(&self) -> bool {
        self.inner.is_painting.load(Ordering::Relaxed)
    }

    /// Standard output, buffered, for a listing or for bytes. [`Out::finish`] it.
    pub(crate) fn out(&self) -> Out<'_> {
        let raw = Watched { stdout: io::stdout().lock(), closed: &self.inner.stdout_closed };
        Out(BufWriter::with_capacity(64 << 10, raw))
    }

    /// A line of an operation's report; nothing with `--quiet` or `--json`.
    ///
    /// A closed pipe is no reason to end an operation that has done its work.
    pub(crate) fn say(&self, line: Arguments<'_>) {
        if !self.inner.json && !self.inner.quiet {
            self.write_stdout(format!("{line}\n").as_bytes());
        }
    }

    /// An object on standard output.
    pub(crate) fn json(&self, object: &impl Serialize) {
        self.write_stdout(&json::line(object));
    }

    /// An object on standard error.
    pub(crate) fn json_error(&self, object: &impl Serialize) {
        self.write_stderr(&json::line(object));
    }

    /// Something the user should know although all goes on; for people nothing with `--quiet`.
    pub(crate) fn warning(&self, message: &str) {
        let message = text::printable(message);
        if self.inner.json {
            self.json_error(&json::Warning { message_type: "warning", message: &message });
        } else if !self.inner.quiet {
            let style = Style::stderr();
            self.write_stderr(
                format!("{}warning:{} {message}\n", style.yellow, style.reset).as_bytes(),
            );
        }
    }

    /// A line on standard error that is neither error nor warning; nothing with `--quiet` or
    /// `--json`.
    pub(crate) fn notice(&self, message: &str) {
        if !self.inner.quiet {
            self.interrupted(message);
        }
    }

    /// Says how an operation was interrupted, as the last line; for programs the exit code does.
    pub(crate) fn interrupted(&self, message: &str) {
        if !self.inner.json {
            self.write_stderr(format!("{}\n", text::printable(message)).as_bytes());
        }
    }

    /// Says that the program ends at once.
    pub(crate) fn ended_by_interrupt(&self) {
        self.remove_bars();
        let message = "interrupted";
        let bytes = if self.inner.json {
            json::line(&json::ExitError {
                message_type: "exit_error",
                code: code::INTERRUPTED,
                message: message.to_owned(),
                causes: Vec::new(),
                hint: None,
            })
        } else {
            // A terminal shows ^C at the beginning of the line.
            let gap = if io::stderr().is_terminal() { "\n" } else { "" };
            format!("{gap}{message}\n").into_bytes()
        };
        drop(io::stderr().write_all(&bytes));
    }

    /// Has the bars removed by who draws them. Does not wait for long: that one may wait for a reader,
    /// or draw rarely; then they stay.
    fn remove_bars(&self) {
        const PATIENCE: Duration = Duration::from_millis(300);
        self.inner.is_ending.store(true, Ordering::Release);
        let started = Instant::now();
        while self.inner.is_drawn.load(Ordering::Acquire) && started.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// An error for people.
    pub(crate) fn error(&self, message: &str, causes: &[String], hint: Option<&str>) {
        let style = Style::stderr();
        let mut out = format!("{}error:{} {message}\n", style.red, style.reset);
        for cause in causes {
            out.push_str("  caused by: ");
            out.push_str(cause);
            out.push('\n');
        }
        if let Some(hint) = hint {
            out.push_str(style.cyan);
            out.push_str("hint:");
            out.push_str(style.reset);
            out.push(' ');
            out.push_str(hint);
            out.push('\n');
        }
        self.write_stderr(out.as_bytes());
    }

    /// What can be done about errors that were shown before, for people.
    pub(crate) fn hint(&self, hint: &str) {
        if !self.inner.json {
            let style = Style::stderr();
            self.write_stderr(format!("{}hint:{} {hint}\n", style.cyan, style.reset).as_bytes());
        }
    }

    /// Damage that was found, what it hurts, and what will be done about it where that is known.
    pub(crate) fn damage(
        &self,
        object: &str,
        message: &str,
        hurts: &[String],
        more: Option<&str>,
        remedy: Option<&str>,
    ) {
        let style = Style::stderr();
        let (object, message) = (text::printable(object), text::printable(message));
        let mut out = format!("{}damaged:{} {object}: {message}\n", style.red, style.reset);
        for hurt in hurts {
            out.push_str("  hurts ");
            out.push_str(hurt);
            out.push('\n');
        }
        if let Some(more) = more {
            out.push_str(&format!("  {more}\n"));
        }
        if let Some(remedy) = remedy {
            out.push_str(&format!("  to do: {}\n", text::printable(remedy)));
        }
        self.write_stderr(out.as_bytes());
    }

    fn write_stdout(&self, bytes: &[u8]) {
        self.inner.bars.suspend(|| {
            let mut out = self.out();
            // `Watched` has noted a closed pipe; nobody is left to hear of anything else.
            drop(out.write_all(bytes).and_then(|()| out.flush()));
        });
    }

    fn write_stderr(&self, bytes: &[u8]) {
        self.inner.bars.suspend(|| {
            let mut stderr = io::stderr().lock();
            drop(stderr.write_all(bytes));
        });
    }
}

/// Buffered standard output.
pub(crate) struct Out<'a>(BufWriter<Watched<'a>>);

impl Out<'_> {
    /// Writes what is buffered; call it at the end of success.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Standard output that remembers that its reader went away.
struct Watched<'a> {
    stdout: StdoutLock<'static>,
    closed: &'a AtomicBool,
}

impl Watched<'_> {
    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            self.closed.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.stdout.write(bytes);
        self.note(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.stdout.flush();
        self.note(result)
    }
}

/// Colours, or nothing where they are not wanted.
struct Style {
    red: &'static str,
    yellow: &'static str,
    cyan: &'static str,
    reset: &'static str,
}

impl Style {
    /// For standard error: colours on a terminal unless `NO_COLOR` is set.
    fn stderr() -> Self {
        let choice = anstream::AutoStream::choice(&io::stderr());
        if matches!(choice, anstream::ColorChoice::Never) {
            Self { red: "", yellow: "", cyan: "", reset: "" }
        } else {
            Self { red: "\x1b[1;31m", yellow: "\x1b[1;33m", cyan: "\x1b[36m", reset: "\x1b[0m" }
        }
    }
}
