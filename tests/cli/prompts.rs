//! What the program asks a person, in a terminal.

use crate::harness::putio::{GRACE_TOKEN, options};
use crate::harness::terminal::{CTRL_C, CTRL_D, Terminal};
use crate::harness::{PASSWORD, TestEnvironment};

/// As for somebody who types the password.
fn without_password(mut environment: TestEnvironment) -> TestEnvironment {
    environment.unset("PUTBACK_PASSWORD");
    environment
}

/// Whether the password opens the repository.
fn opens(environment: &mut TestEnvironment, password: &str) -> bool {
    environment.set("PUTBACK_PASSWORD", password);
    let run = environment.run(["key", "list"]);
    environment.unset("PUTBACK_PASSWORD");
    !run.stderr().contains("wrong password")
}

#[test]
fn a_new_password_is_typed_twice_and_never_shown() {
    let mut environment = without_password(TestEnvironment::new());
    let init = |environment: &TestEnvironment| {
        Terminal::run(environment, &["init", "--kdf-cost", "low"])
            .expect("password for the new repository")
            .expect(": ")
    };
    let screen = init(&environment).types_secretly("").ends(2);
    assert!(screen.contains("error: the password from the terminal is empty"), "{screen}");
    assert!(!screen.contains("once more"), "{screen}");
    let screen = init(&environment)
        .types_secretly("one word")
        .expect("once more: ")
        .types_secretly("another word")
        .ends(1);
    assert!(screen.contains("error: the two passwords differ"), "{screen}");
    assert!(!environment.path("repository").exists());
    let screen = init(&environment)
        .types_secretly(PASSWORD)
        .expect("once more: ")
        .types_secretly(PASSWORD)
        .expect("created repository")
        .ends(0);
    assert!(!screen.contains(PASSWORD), "{screen}");
    assert!(opens(&mut environment, PASSWORD));
    // Where there is one already, nobody types a password in vain.
    Terminal::run(&environment, &["init"]).expect("there is already a repository at").ends(1);
}

#[test]
fn a_wrong_password_is_asked_for_again_twice() {
    let environment = without_password(TestEnvironment::with_snapshot());
    let asked = "password of the repository ";
    let again = "wrong password, try again; password of the repository ";
    let ask = || Terminal::run(&environment, &["snapshots"]).expect(asked);
    let screen = ask()
        .types_secretly("wrong")
        .expect(again)
        .types_secretly(PASSWORD)
        .expect("1 snapshot")
        .ends(0);
    assert!(!screen.contains(PASSWORD), "{screen}");
    let screen = ask()
        .types_secretly("wrong")
        .expect(again)
        .types_secretly("wrong")
        .expect(again)
        .types_secretly("wrong")
        .ends(12);
    assert!(screen.contains("error: wrong password for the repository at"), "{screen}");
    let screen = ask().types_secretly(CTRL_D).ends(2);
    assert!(screen.contains("error: no password of the repository"), "{screen}");
}

#[test]
fn ctrl_c_at_a_password_ends_the_program_once() {
    let environment = without_password(TestEnvironment::with_snapshot());
    let screen = Terminal::run(&environment, &["snapshots"])
        .expect("password of the repository")
        .types_secretly(CTRL_C)
        .ends(130);
    assert_eq!(screen.matches("interrupted").count(), 1, "{screen}");
    assert!(!screen.contains("error:"), "{screen}");
}

#[test]
fn a_program_that_is_told_to_end_at_a_password_leaves_the_terminal_as_it_was() {
    let environment = without_password(TestEnvironment::with_snapshot());
    let screen = Terminal::run(&environment, &["snapshots"])
        .expect("password of the repository")
        .ended_secretly()
        .ends(130);
    assert_eq!(screen.matches("interrupted").count(), 1, "{screen}");
}

/// With a damaged index, so that `repair index` has something to ask.
fn damaged() -> TestEnvironment {
    let environment = TestEnvironment::with_snapshot();
    for entry in std::fs::read_dir(environment.path("repository/index")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    environment
}

fn repair(environment: &TestEnvironment) -> Terminal {
    Terminal::run(environment, &["repair", "index"])
        .expect("do this? y or yes, anything else is no: ")
}

#[test]
fn ctrl_c_at_a_question_ends_the_program_at_once() {
    let environment = damaged();
    // The operation has said already that it can stop at a safe point.
    let screen = repair(&environment).presses(CTRL_C).ends(130);
    assert!(!screen.contains("stopping"), "{screen}");
    assert_eq!(screen.matches("interrupted").count(), 1, "{screen}");
    let (environment, _emulator) = TestEnvironment::signed_in(options());
    environment.login("work", GRACE_TOKEN).success();
    let screen = Terminal::run(&environment, &["storage", "remove", "work"])
        .expect("Forget storage 'work'? y or yes, anything else is no: ")
        .presses(CTRL_C)
        .ends(130);
    assert_eq!(screen.matches("interrupted").count(), 1, "{screen}");
    environment.run(["storage", "list"]).success().shows("work:");
}

#[test]
fn only_y_and_yes_are_yes() {
    let environment = damaged();
    for answer in ["", "n", "no", "yess", "ja"] {
        let screen = repair(&environment).types(answer).ends(1);
        assert!(screen.contains("error: the repair was not confirmed"), "{screen}");
    }
    let screen = repair(&environment).presses(CTRL_D).ends(2);
    assert!(screen.contains("error: the question was not answered"), "{screen}");
    for answer in ["y", "Yes"] {
        let environment = damaged();
        let screen = repair(&environment).types(answer).ends(0);
        assert!(screen.contains("1 index segment written"), "{screen}");
        environment.run(["check"]).success();
    }
}

/// With the password of the user, and those for Grace and Alan.
fn with_three_passwords() -> TestEnvironment {
    let mut environment = TestEnvironment::with_repository();
    for name in ["Grace", "Alan"] {
        environment.set("PUTBACK_NEW_PASSWORD", password_of(name));
        let label = format!("for {name}");
        environment.run(["key", "add", "--label", &label, "--kdf-cost", "low"]).success();
    }
    environment.unset("PUTBACK_NEW_PASSWORD");
    without_password(environment)
}

fn password_of(name: &str) -> String {
    format!("the word of {name}")
}

/// Up to the question about the first slot, with the names of whom it belongs to and of the other one.
fn rotate(environment: &TestEnvironment, flags: &[&str]) -> (Terminal, [&'static str; 2]) {
    let arguments: Vec<&str> = ["key", "rotate"].iter().chain(flags).copied().collect();
    let terminal = Terminal::run(environment, &arguments)
        .expect("password of the repository ")
        .types_secretly(PASSWORD)
        .expect("password of slot ")
        .expect(DROP);
    let names = match terminal.before().contains("'for Grace'") {
        true => ["Grace", "Alan"],
        false => ["Alan", "Grace"],
    };
    (terminal, names)
}

const DROP: &str = ", nothing to drop it: ";
const REALLY: &str = "its password opens the repository no more? y or yes, anything else is no: ";

#[test]
fn rotating_keys_says_which_password_was_wrong_and_drops_what_was_confirmed() {
    let mut environment = with_three_passwords();
    let (terminal, [first, second]) = rotate(&environment, &[]);
    terminal
        .types_secretly("wrong")
        .expect("wrong password, try again; password of slot ")
        .expect(DROP)
        .types_secretly("")
        .expect("drop slot ")
        .expect(REALLY)
        .types("n")
        .expect("the slot is not dropped; password of slot ")
        .expect(DROP)
        .types_secretly(&password_of(first))
        .expect(&format!("'for {second}'"))
        .expect(DROP)
        .types_secretly("")
        .expect(REALLY)
        .types("y")
        .expect("drops the password of slot ")
        .expect("the keys were rotated")
        .ends(0);
    assert!(opens(&mut environment, PASSWORD));
    assert!(opens(&mut environment, &password_of(first)));
    assert!(!opens(&mut environment, &password_of(second)));
}

#[test]
fn rotating_keys_keeps_a_password_that_was_typed_for_another_slot() {
    let mut environment = with_three_passwords();
    let (terminal, [first, second]) = rotate(&environment, &[]);
    terminal
        .types_secretly(&password_of(second))
        .expect("this is the password of another slot, which is kept; password of slot ")
        .expect(DROP)
        .types_secretly(&password_of(first))
        .expect("the keys were rotated")
        .ends(0);
    for password in [PASSWORD, &password_of(first), &password_of(second)] {
        assert!(opens(&mut environment, password), "{password}");
    }
}

#[test]
fn a_rotation_that_is_given_up_changes_nothing() {
    let mut environment = with_three_passwords();
    let (terminal, [first, _]) = rotate(&environment, &[]);
    let screen = terminal
        .types_secretly("wrong")
        .expect(DROP)
        .types_secretly("wrong")
        .expect(DROP)
        .types_secretly("wrong")
        .ends(1);
    assert!(screen.contains("error: no password was given that opens slot "), "{screen}");
    let (terminal, _) = rotate(&environment, &[]);
    terminal.types_secretly(CTRL_C).ends(130);
    let (terminal, _) = rotate(&environment, &[]);
    let terminal = terminal.types_secretly("").expect(REALLY).presses(CTRL_C);
    assert_eq!(terminal.ends(130).matches("interrupted").count(), 1);
    // A dry run drops nothing, and asks for no more than who stays.
    let (terminal, _) = rotate(&environment, &["--dry-run"]);
    let screen = terminal
        .types_secretly(&password_of(first))
        .expect(DROP)
        .types_secretly("")
        .expect("would drop the password of slot ")
        .ends(0);
    assert!(!screen.contains("y or yes"), "{screen}");
    for password in [PASSWORD, &password_of("Grace"), &password_of("Alan")] {
        assert!(opens(&mut environment, password), "{password}");
    }
}
