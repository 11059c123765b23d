//! What somebody sees who signs in: a code to type, a picture of it, and how long there is time.
//!
//! All of it goes to standard error, also with `--quiet`: it is a question, and without an answer
//! nothing goes on.

use std::io;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use zeroize::Zeroizing;

use crate::report::Failure;
use crate::ui::json::storage::{BrowserSignIn, DeviceCode};
use crate::ui::{Style, Ui, text};

/// What is before each line of the picture.
const MARGIN: &str = "    ";

impl Ui {
    /// Asks to confirm `code` on the page `link`; `link_with_code` is the page with the code in it.
    pub(crate) fn show_device_code(
        &self,
        code: &str,
        link: &str,
        link_with_code: &str,
        limit: Duration,
    ) {
        if self.is_json() {
            self.json(&DeviceCode {
                message_type: "device_code",
                code,
                link,
                link_with_code,
                seconds: limit.as_secs(),
            });
            return;
        }
        let mut out = String::from("To sign in to put.io, ");
        // The picture is tall: what must be read stands below it, where it stays in sight.
        if self.is_stderr_terminal()
            && let Some(picture) = picture(link_with_code)
        {
            out.push_str("point a phone at this\n\n");
            out.push_str(&self.framed(&picture));
            out.push_str("\nor ");
        }
        let (code, bold, plain) = (text::printable(code), self.bold(), self.plain());
        out.push_str(&format!(
            "open this page and type the code:\n\n{MARGIN}{link}\n{MARGIN}{bold}{code}{plain}\n\n"
        ));
        self.write_stderr(out.as_bytes());
    }

    /// Asks to sign in on the page `link`, which leads back to `redirect` on this machine.
    pub(crate) fn show_browser_link(
        &self,
        link: &str,
        redirect: &str,
        is_opened: bool,
        limit: Duration,
    ) {
        if self.is_json() {
            self.json(&BrowserSignIn {
                message_type: "browser_sign_in",
                link,
                redirect,
                seconds: limit.as_secs(),
            });
            return;
        }
        let what = if is_opened {
            "To sign in to put.io, go on in the browser. If none has opened, open this page on this \
             machine:"
        } else {
            "To sign in to put.io, open this page in a browser on this machine:"
        };
        let link = text::printable(link);
        self.write_stderr(format!("{what}\n\n{MARGIN}{link}\n\n").as_bytes());
    }

    /// Some lines that go before a question.
    pub(crate) fn explain(&self, lines: &[&str]) {
        let mut out = String::new();
        for line in lines {
            out.push_str(&text::printable(line));
            out.push('\n');
        }
        self.write_stderr(out.as_bytes());
    }

    /// Asks for a line.
    pub(crate) fn ask(&self, question: &str) -> Result<String, Failure> {
        self.write_stderr(text::printable(question).as_bytes());
        let mut line = String::new();
        match io::stdin().read_line(&mut line) {
            Ok(length) if length > 0 => Ok(line.trim().to_owned()),
            _ => Err(Failure::usage("the question was not answered")),
        }
    }

    /// Asks for a secret, which is not shown while it is typed.
    pub(crate) fn ask_secret(&self, question: &str) -> Result<Zeroizing<String>, Failure> {
        rpassword::prompt_password(question).map(Zeroizing::new).map_err(|error| {
            match error.kind() {
                io::ErrorKind::Interrupted => Failure::Interrupted,
                _ => Failure::usage("the question was not answered"),
            }
        })
    }

    /// Shows how long there is time for what `waits_for` says, until it is dropped.
    pub(crate) fn countdown(&self, waits_for: &'static str) -> Countdown<'_> {
        let bar = (!self.is_json() && self.is_stderr_terminal()).then(|| {
            self.inner.bars.set_draw_target(ProgressDrawTarget::stderr_with_hz(4));
            let bar = self.inner.bars.add(ProgressBar::no_length());
            bar.set_style(ProgressStyle::with_template("{wide_msg}").expect("it is a constant"));
            bar
        });
        Countdown { ui: self, waits_for, bar }
    }

    /// The picture in dark on light, whatever the terminal's colours are; a phone needs that.
    fn framed(&self, picture: &str) -> String {
        let (begin, end) =
            if self.has_colours() { ("\x1b[38;5;16;48;5;231m", "\x1b[0m") } else { ("", "") };
        picture.lines().map(|line| format!("{MARGIN}{begin}{line}{end}\n")).collect()
    }

    fn bold(&self) -> &'static str {
        if self.has_colours() { "\x1b[1m" } else { "" }
    }

    fn plain(&self) -> &'static str {
        Style::stderr().reset
    }

    fn has_colours(&self) -> bool {
        !Style::stderr().reset.is_empty()
    }
}

/// A picture that a phone reads as `content`, of half blocks; the quiet zone is part of it.
///
/// With colours, what is dark is drawn; without them what is light is, since most terminals are
/// dark.
fn picture(content: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(content, EcLevel::L).ok()?;
    let mut render = code.render::<Dense1x2>();
    if Style::stderr().reset.is_empty() {
        render.dark_color(Dense1x2::Light).light_color(Dense1x2::Dark);
    }
    Some(render.quiet_zone(true).module_dimensions(1, 1).build())
}

/// A line that tells how long there is time; nothing where there is no terminal.
pub(crate) struct Countdown<'a> {
    ui: &'a Ui,
    waits_for: &'static str,
    bar: Option<ProgressBar>,
}

impl Countdown<'_> {
    /// Shows how much is left.
    pub(crate) fn set(&self, left: Duration) {
        if let Some(bar) = &self.bar {
            let left = text::duration(left.as_secs_f64().ceil() as u64);
            bar.set_message(format!("waiting for {}, {left} left", self.waits_for));
            bar.tick();
        }
    }
}

impl Drop for Countdown<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            drop(self.ui.inner.bars.clear());
            self.ui.inner.bars.set_draw_target(ProgressDrawTarget::hidden());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_square_and_fits_a_terminal() {
        let picture = picture("https://app.put.io/link?code=ABCD12").unwrap();
        let widths: Vec<usize> = picture.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{widths:?}");
        assert_eq!(widths.len(), widths[0].div_ceil(2));
        assert!(widths[0] + MARGIN.len() <= 80, "{}", widths[0]);
        assert!(widths.len() <= 20, "{}", widths.len());
    }
}
