//! Runs the program in a pseudo-terminal of its own, in which the test types.
//!
//! The program is the child of a shell, as it is for people: what it leaves behind in the settings of the
//! terminal is there to be seen when it has ended.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use super::TestEnvironment;

/// Says which process the program is and how it ended, and waits. Ctrl-C goes to the shell, too.
const SHELL: &str = "trap : INT; /bin/sh -c 'echo \"[process $$]\"; exec \"$@\"' sh \"$@\"; \
                     echo \"[exit $?]\"; read -r nothing";

/// How long the program may take for what is expected.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ctrl-C.
pub(crate) const CTRL_C: &str = "\x03";
/// Ctrl-D.
pub(crate) const CTRL_D: &str = "\x04";

/// A terminal, and the program in it.
pub(crate) struct Terminal {
    shell: Child,
    program: Option<Pid>,
    /// The side of the person.
    person: File,
    shown: Receiver<Vec<u8>>,
    screen: String,
    /// What comes before was waited for.
    seen: usize,
}

impl Terminal {
    /// Starts the program.
    #[expect(clippy::disallowed_methods, reason = "the thread ends when the terminal is closed")]
    pub(crate) fn run(environment: &TestEnvironment, arguments: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let person = openpt(flags).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let side = || ioctl_tiocgptpeer(&person, flags).unwrap();
        let program = environment.command(arguments);
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", "/bin/sh", "-c", SHELL, "sh"])
            .arg(program.get_program())
            .args(program.get_args())
            .current_dir(environment.path("work"))
            .env_clear()
            .envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .envs([("TERM", "xterm"), ("NO_COLOR", "1")])
            .stdin(side())
            .stdout(side())
            .stderr(side());
        let shell = command.spawn().unwrap();
        // It holds the program's side open.
        drop(command);
        let person = File::from(person);
        let mut from = person.try_clone().unwrap();
        let (sender, shown) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Fails when nobody is left on the other side.
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        let terminal = Self { shell, program: None, person, shown, screen: String::new(), seen: 0 };
        let mut terminal = terminal.expect("[process ").expect("]");
        let said = terminal.before().trim_end_matches(']').rsplit(' ').next().unwrap();
        terminal.program = Pid::from_raw(said.parse().unwrap());
        terminal
    }

    /// Waits until the terminal shows `text`, after what was waited for before.
    #[track_caller]
    pub(crate) fn expect(mut self, text: &str) -> Self {
        let started = Instant::now();
        loop {
            if let Some(at) = self.screen[self.seen..].find(text) {
                self.seen += at + text.len();
                return self;
            }
            match self.shown.recv_timeout(PATIENCE.saturating_sub(started.elapsed())) {
                Ok(bytes) => self.screen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => {
                    panic!("no '{text}' after '{}' in\n{}", self.before(), self.screen)
                }
            }
        }
    }

    /// What the terminal has shown up to what was waited for.
    pub(crate) fn before(&self) -> &str {
        &self.screen[..self.seen]
    }

    /// Types what may be seen, without the end of the line.
    pub(crate) fn presses(mut self, keys: &str) -> Self {
        self.person.write_all(keys.as_bytes()).unwrap();
        self
    }

    /// Types a line.
    pub(crate) fn types(self, line: &str) -> Self {
        self.presses(&format!("{line}\n"))
    }

    /// Types a line when the program has taken care that it is not shown.
    #[track_caller]
    pub(crate) fn types_secretly(self, line: &str) -> Self {
        self.waits_for_secret().types(line)
    }

    /// Sends the program SIGTERM when what is typed is not shown.
    #[track_caller]
    pub(crate) fn ended_secretly(self) -> Self {
        let terminal = self.waits_for_secret();
        kill_process(terminal.program.unwrap(), Signal::TERM).unwrap();
        terminal
    }

    /// Waits until what is typed is not shown.
    #[track_caller]
    fn waits_for_secret(self) -> Self {
        let started = Instant::now();
        while self.modes().contains(LocalModes::ECHO) {
            assert!(started.elapsed() < PATIENCE, "what is typed shows in\n{}", self.screen);
            std::thread::sleep(Duration::from_millis(2));
        }
        self
    }

    /// Waits until the program has ended with this code, looks at how it leaves the terminal, and returns all
    /// that was shown.
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> String {
        let terminal = self.expect("[exit ").expect("]");
        let usual = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        let modes = terminal.modes();
        assert!(
            terminal.before().ends_with(&format!("[exit {code}]")),
            "not {code}:\n{}",
            terminal.before()
        );
        assert!(modes.contains(usual), "{modes:?} after\n{}", terminal.before());
        let mut terminal = terminal.types("");
        terminal.shell.wait().unwrap();
        std::mem::take(&mut terminal.screen)
    }

    fn modes(&self) -> LocalModes {
        tcgetattr(&self.person).unwrap().local_modes
    }
}

impl Drop for Terminal {
    /// A failed test leaves nothing that waits for an answer.
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
