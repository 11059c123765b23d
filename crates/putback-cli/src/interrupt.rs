//! What Ctrl-C and SIGTERM do.
//!
//! There is one handler for the whole program. An operation that can stop at a safe point says so
//! with [`Interrupt::cancel`]: the first interrupt asks it to, the second ends the program. Anything
//! else ends at the first one, with a word about it and the exit code for it; what it had begun to
//! write under a temporary name ([`Interrupt::remove`]) does not stay behind. So does an operation
//! that waits for an answer ([`Interrupt::question`]).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use putback_repo::Cancel;

use crate::report::code;
use crate::ui::Ui;

/// What an interrupt leads to now. Clones share everything.
#[derive(Clone, Default)]
pub(crate) struct Interrupt {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Asks the operation to stop, and the sentence that says what it still does.
    cancel: Option<(Cancel, &'static str)>,
    /// Questions that wait for an answer.
    questions: u32,
    /// Files that nobody asked for.
    leftovers: Vec<PathBuf>,
    /// As it was when the program began.
    terminal: Option<Terminal>,
}

impl Interrupt {
    /// From now on interrupts lead to what this says.
    pub(crate) fn watch(&self, ui: &Ui) -> anyhow::Result<()> {
        self.state().terminal = Terminal::current();
        let (interrupt, ui) = (self.clone(), ui.clone());
        ctrlc::set_handler(move || interrupt.come(&ui))?;
        Ok(())
    }

    /// The operation that follows stops at a safe point when asked; `until_then` is a sentence that
    /// tells what it does until then.
    pub(crate) fn cancel(&self, until_then: &'static str) -> Cancel {
        let cancel = Cancel::default();
        self.state().cancel = Some((cancel.clone(), until_then));
        cancel
    }

    /// An interrupt removes this file before it ends the program.
    pub(crate) fn remove(&self, leftover: PathBuf) {
        self.state().leftovers.push(leftover);
    }

    /// Until the value is dropped somebody is asked something, and nothing else is done: an interrupt
    /// is the answer, and ends the program.
    pub(crate) fn question(&self) -> Question {
        self.state().questions += 1;
        Question { interrupt: self.clone() }
    }

    /// Returns unless the program is being ended: then the reason for that is the interrupt, whatever
    /// else may have failed for it, such as a pipe whose reader was interrupted too.
    pub(crate) fn settle(&self) {
        drop(self.state());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs on a thread of its own, or where a prompt was interrupted. Holds the state to the end, also
    /// to that of the program.
    pub(crate) fn come(&self, ui: &Ui) {
        let state = self.state();
        let cancel = state.cancel.as_ref().filter(|_| state.questions == 0);
        match cancel {
            Some((cancel, until_then)) if !cancel.is_cancelled() => {
                cancel.cancel();
                ui.notice(&format!("{until_then}; press again to stop at once"));
            }
            Some(_) => end_now(&state),
            None => {
                for leftover in &state.leftovers {
                    // It may have got its final name a moment ago.
                    let _ = fs_err::remove_file(leftover);
                }
                ui.ended_by_interrupt();
                end_now(&state);
            }
        }
    }
}

/// Stands for a question that waits for its answer.
pub(crate) struct Question {
    interrupt: Interrupt,
}

impl Drop for Question {
    fn drop(&mut self) {
        self.interrupt.state().questions -= 1;
    }
}

/// Ends the program although something runs: what it had stored is safe without it.
#[expect(clippy::exit, clippy::disallowed_methods, reason = "the user asked for it")]
fn end_now(state: &State) {
    if let Some(terminal) = &state.terminal {
        terminal.restore();
    }
    std::process::exit(i32::from(code::INTERRUPTED));
}

/// The settings of the terminal. A question for a secret changes them while it waits: nothing is
/// shown, and Ctrl-C is a character like others. Whoever ends the program meanwhile would leave a
/// shell in which nobody sees what they type.
#[cfg(unix)]
struct Terminal {
    file: fs_err::File,
    settings: rustix::termios::Termios,
}

#[cfg(unix)]
impl Terminal {
    fn current() -> Option<Self> {
        let file = fs_err::File::open("/dev/tty").ok()?;
        let settings = rustix::termios::tcgetattr(&file).ok()?;
        Some(Self { file, settings })
    }

    fn restore(&self) {
        use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
        // A program in the background would be stopped for changing anything.
        let is_changed = tcgetattr(&self.file)
            .is_ok_and(|settings| settings.local_modes != self.settings.local_modes);
        if is_changed {
            let _ = tcsetattr(&self.file, OptionalActions::Now, &self.settings);
        }
    }
}

#[cfg(not(unix))]
struct Terminal;

#[cfg(not(unix))]
impl Terminal {
    fn current() -> Option<Self> {
        None
    }

    fn restore(&self) {}
}
