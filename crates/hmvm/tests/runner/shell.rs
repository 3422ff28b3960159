//! `hmvm shell` on a real terminal, with real job control.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use hm_vm_testkit::require;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::env::TestEnv;

/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A terminal with the program in it, and a person's hands and eyes.
struct Session {
    child: Child,
    keyboard: File,
    user: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
    env: TestEnv,
}

impl Session {
    fn start(env: TestEnv, arguments: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a terminal");
        grantpt(&master).expect("a terminal");
        unlockpt(&master).expect("a terminal");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let user = OpenOptions::new()
            .read(true)
            .write(true)
            .open(name.to_str().expect("UTF-8"))
            .expect("the user's side");
        resize(&user, 100, 30);
        let program = env.command(arguments);
        // Makes the terminal the controlling one, as a terminal emulator does.
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", "--wait"])
            .arg(program.get_program())
            .args(program.get_args());
        command.env_clear().envs(
            program
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let side = || user.try_clone().expect("a copy");
        command
            .current_dir(env.path())
            .env("TERM", "xterm-256color");
        command.stdin(side()).stdout(side()).stderr(side());
        let child = command.spawn().expect("setsid starts");
        let keyboard = File::from(master);
        let mut eyes = keyboard.try_clone().expect("a copy");
        let (sender, screen) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = eyes.read(&mut buffer) {
                if length == 0 || sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        let seen = String::new();
        Self {
            child,
            keyboard,
            user,
            screen,
            seen,
            env,
        }
    }

    fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("typing");
    }

    /// Waits until `text` is on the screen, below what was seen before.
    #[track_caller]
    fn sees(&mut self, text: &str) {
        assert!(
            self.sees_within(text, PATIENCE),
            "no {text:?} in:\n{}",
            self.seen
        );
    }

    fn sees_within(&mut self, text: &str, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self
                .screen
                .recv_timeout(left.min(Duration::from_millis(100)))
            {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) if Instant::now() >= deadline => return false,
                // Nothing more comes from a program that has ended.
                Err(_) if self.child.try_wait().is_ok_and(|status| status.is_some()) => {
                    return false;
                }
                Err(_) => {}
            }
        }
    }

    /// Exit code of the program, once it has ended.
    #[track_caller]
    fn ends(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return status.code();
            }
            // Takes what is on the screen, so that nobody waits for room on it.
            self.sees_within("\u{0}", Duration::from_millis(50));
            assert!(Instant::now() < deadline, "no end: {}", self.seen);
        }
    }

    fn line_by_line(&self) -> bool {
        let modes = tcgetattr(&self.user).expect("modes").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }
}

impl Drop for Session {
    /// A test that fails leaves no program behind.
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn resize(terminal: &File, columns: u16, rows: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).expect("a size");
}

#[test]
fn a_terminal_with_job_control_and_resize() {
    let env = require!(TestEnv::machine());
    let mut session = Session::start(env, &["shell", "--image", "host"]);
    // What is typed is echoed: the sums tell output from echo.
    session.types("PS1='> '; echo ready-$((1+1))\n");
    session.sees("ready-2");
    assert!(
        !session.line_by_line(),
        "the user's terminal is in raw mode"
    );
    session.types("tty; stty size; echo $TERM\n");
    session.sees("/dev/");
    session.sees("30 100");
    session.sees("xterm-256color");

    // The change takes its way through two terminals: it is asked for until it has arrived.
    resize(&session.user, 132, 43);
    let deadline = Instant::now() + PATIENCE;
    loop {
        session.types("stty size\n");
        if session.sees_within("43 132", Duration::from_millis(500)) {
            break;
        }
        assert!(Instant::now() < deadline, "no resize: {}", session.seen);
    }

    // What was typed ahead has run when this has; a Ctrl-Z would throw it away.
    session.types("echo calm-$((4+4))\n");
    session.sees("calm-8");
    session.types("sh -c 'echo going-$((4+5)); exec sed -u s/ask/answer/'\n");
    session.sees("going-9");
    session.types("\u{1a}");
    session.sees("Stopped");
    session.types("jobs | sed s/Stopped/is-$((3+4))/\n");
    session.sees("is-7");
    // Its command once in the list, and once when it goes on.
    session.sees("exec sed -u");
    session.types("fg\n");
    session.sees("exec sed -u");
    // The shell shows the command before it hands over the terminal: whoever answers has it.
    session.types("ask-1\n");
    session.sees("answer-1");
    session.types("\u{3}");
    // What is typed before the shell has the terminal again may be thrown away.
    session.sees("^C");
    session.sees("> ");
    session.types("echo interrupted-$((100+30))\n");
    session.sees("interrupted-130");

    session.types("echo lost > /file; exit 7\n");
    assert_eq!(session.ends(), Some(7));
    assert!(session.line_by_line(), "the terminal is as it was");
    assert_eq!(
        session.env.json(["snapshot", "ls", "--json"]),
        serde_json::json!([])
    );
    assert_eq!(session.env.traces(), Vec::<String>::new());
}

#[test]
fn save_keeps_the_state() {
    let env = require!(TestEnv::machine());
    let arguments = ["shell", "--save", "--", "echo kept > /file; exit 3"];
    let mut session = Session::start(env, &arguments);
    session.sees("hmvm: kept as snapshot ");
    assert_eq!(session.ends(), Some(3));
    let snapshots = session.env.json(["snapshot", "ls", "--json"]);
    let id = snapshots[0]["id"].as_str().expect("an id");
    let run = session
        .env
        .hmvm(["exec", "-q", "--from", id, "--", "cat", "/file"]);
    assert_eq!(run.success().stdout, "kept\n");
}

#[test]
fn the_terminal_is_given_back_when_the_program_is_told_to_end() {
    let env = require!(TestEnv::machine());
    let mut session = Session::start(env, &["shell"]);
    session.types("PS1='> '; echo ready-$((1+1))\n");
    session.sees("ready-2");
    let pid = i32::try_from(session.child.id()).expect("a pid");
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    assert_eq!(session.ends(), Some(130));
    assert!(session.line_by_line(), "the terminal is as it was");
    assert_eq!(session.env.traces(), Vec::<String>::new());
}

#[test]
fn a_shell_where_a_step_failed() {
    let env = require!(TestEnv::machine());
    env.write(
        "hmvm.toml",
        "[pipeline]\nimage = \"host\"\n[steps.fine]\nrun = \"true\"\n[steps.test]\nfrom = \"fine\"\ncache = \"off\"\nworkdir = \"/usr\"\nenv = { WHO = \"me\" }\nrun = \"touch /made; exit 3\"\n",
    );
    let refused = |env: TestEnv, step: &str, why: &str| {
        let mut session = Session::start(env, &["shell", "--failed", step]);
        session.sees(why);
        assert_eq!(session.ends(), Some(125));
    };
    env.hmvm(["run", "-q"]).exits_with(3);
    let mut session = Session::start(env, &["shell", "--failed"]);
    session.types("PS1='> '; echo in-$((1+1)) $PWD $WHO $(ls /made)\n");
    session.sees("in-2 /usr me /made");
    session.types("exit 4\n");
    assert_eq!(session.ends(), Some(4));

    let again = || {
        let env = TestEnv::new();
        env.write(
            "hmvm.toml",
            "[pipeline]\nimage = \"host\"\n[steps.fine]\nrun = \"true\"\n[steps.test]\nrun = \"exit 3\"\n",
        );
        env
    };
    refused(again(), "", "no step of the runs on record failed");
    let env = again();
    env.hmvm(["run", "-q", "fine"]).success();
    refused(env, "fine", "step fine of run 1 did not fail");
    let env = again();
    env.hmvm(["run", "-q"]).exits_with(3);
    env.hmvm(["run", "-q"]).exits_with(3);
    refused(env, "1/test", "the state of step test of run 1 is gone");
}

#[test]
fn a_run_is_drawn_on_a_terminal() {
    let env = require!(TestEnv::machine());
    env.write(
        "hmvm.toml",
        "[pipeline]\nname = \"ci\"\nimage = \"host\"\n[steps.one]\nrun = \"printf 'going \\\\033[2J on\\\\n'; sleep 1\"\n[steps.two]\nfrom = \"one\"\nrun = \"exit 3\"\n",
    );
    let mut session = Session::start(env, &["run"]);
    session.sees("going \\u{1b}[2J on");
    session.sees("0/2 done");
    session.sees("one\u{1b}[0m ran in");
    session.sees("two\u{1b}[0m failed with exit code 3");
    session.sees("shell: hmvm shell --failed 1/two");
    session.sees("2 steps: 1 ran, 1 failed");
    session.sees("run 1 of ci failed");
    assert_eq!(session.ends(), Some(3));
}
