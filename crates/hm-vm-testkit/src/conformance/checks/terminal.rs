//! The interactive side, where it is declared.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use hm_vm_core::{CancelCause, Cancellation, Error, ExecRequest, Terminal, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

use super::errors::expect_error;
use crate::conformance::context::{Context, not_applicable};

/// The user's end of a session.
struct User {
    keyboard: DuplexStream,
    screen: DuplexStream,
    size: watch::Sender<TerminalSize>,
    seen: String,
}

impl User {
    fn sit_down() -> (Self, Terminal) {
        let (keyboard, input) = tokio::io::duplex(4096);
        let (output, screen) = tokio::io::duplex(4096);
        let size = watch::Sender::new(TerminalSize {
            columns: 97,
            rows: 31,
        });
        let terminal = Terminal {
            input: Box::pin(input),
            output: Box::pin(output),
            size: size.subscribe(),
        };
        let user = Self {
            keyboard,
            screen,
            size,
            seen: String::new(),
        };
        (user, terminal)
    }

    async fn see(&mut self, text: &str) -> Result<()> {
        let mut buffer = [0; 1024];
        while !self.seen.contains(text) {
            let length = self.screen.read(&mut buffer).await?;
            if length == 0 {
                bail!("the screen went dark before {text:?}: {:?}", self.seen);
            }
            self.seen
                .push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        Ok(())
    }

    /// Interrupts until the text is seen: a signal that meets a shell between its fork and the
    /// start of the program is lost in the child.
    async fn interrupt_until(&mut self, text: &str) -> Result<()> {
        loop {
            self.type_in("\u{3}").await?;
            let seen = tokio::time::timeout(Duration::from_millis(500), self.see(text)).await;
            if let Ok(seen) = seen {
                return seen;
            }
        }
    }

    async fn type_in(&mut self, text: &str) -> Result<()> {
        self.keyboard.write_all(text.as_bytes()).await?;
        Ok(())
    }
}

fn request<'a>(cmd: &'a str, stop: &'a Cancellation) -> ExecRequest<'a> {
    ExecRequest {
        env: &[],
        working_dir: "/",
        grace: Duration::from_millis(100),
        ..ExecRequest::new(cmd, stop)
    }
}

fn need_terminal(ctx: &Context<'_>) -> Result<()> {
    if ctx.capabilities.terminal {
        Ok(())
    } else {
        Err(not_applicable("terminal is not declared, and is refused"))
    }
}

/// V1, V7: a session on a real terminal: size, its change, input, Ctrl-C, exit code.
pub(crate) async fn a_terminal_session_works(ctx: &Context<'_>) -> Result<()> {
    need_terminal(ctx)?;
    let mut guest = ctx.create().await?;
    let (mut user, terminal) = User::sit_down();
    let stop = Cancellation::new();
    let cmd = "test -t 0 && test -t 1 && test -t 2 && echo all-tty; stty size; exec sh";
    let request = request(cmd, &stop);
    let session = guest.vm.terminal(&request, terminal);
    let work = async {
        user.see("all-tty").await?;
        user.see("31 97").await?;
        user.type_in("echo $((6*7))-answer\n").await?;
        user.see("42-answer").await?;
        let size = TerminalSize {
            columns: 120,
            rows: 40,
        };
        user.size.send_replace(size);
        // The change travels on its own way, so ask until it is there.
        user.type_in(
            "while [ \"$(stty size)\" != '40 120' ]; do sleep 0.02; done; echo re''sized\n",
        )
        .await?;
        user.see("resized").await?;
        user.type_in("trap 'echo inter''rupted; on=' INT; on=1; echo set''up; while [ $on ]; do sleep 0.02; done\n")
            .await?;
        user.see("setup").await?;
        user.interrupt_until("interrupted").await?;
        user.type_in("echo kept > /file; exit 7\n").await
    };
    let (ended, done) = tokio::join!(session, work);
    done?;
    let ended = ended?;
    ensure!(
        ended.exit_code == 7,
        "V1: exit 7 of a session came back as {ended:?}"
    );
    guest.expect("cat /file", "kept").await?;
    guest.destroy().await
}

/// V2, V13: a session ends when its user leaves, when it is stopped, and when it is dropped.
pub(crate) async fn a_terminal_session_can_be_ended(ctx: &Context<'_>) -> Result<()> {
    need_terminal(ctx)?;
    let mut guest = ctx.create().await?;
    let stop = Cancellation::new();
    let hang_up = request("echo ready; sleep 1000", &stop);
    let (mut user, terminal) = User::sit_down();
    let session = guest.vm.terminal(&hang_up, terminal);
    let leave = async {
        user.see("ready").await?;
        drop(user);
        anyhow::Ok(())
    };
    let (ended, left) = tokio::join!(session, leave);
    left?;
    let ended = ended?;
    ensure!(
        ended.exit_code == 129,
        "V1: a hang-up came back as {ended:?}"
    );
    let (mut user, terminal) = User::sit_down();
    let stubborn = request(
        "trap '' TERM HUP INT; echo ready; sleep 1000; sleep 1000",
        &stop,
    );
    let session = guest.vm.terminal(&stubborn, terminal);
    let cancel = async {
        let seen = user.see("ready").await;
        stop.cancel(CancelCause::User);
        seen
    };
    let (ended, seen) = tokio::join!(session, cancel);
    seen?;
    expect_error(ended, "V13: a stopped session", |error| {
        matches!(
            error,
            Error::Cancelled {
                cause: CancelCause::User
            }
        )
    })?;
    guest.expect("echo ok", "ok").await?;
    guest.destroy().await
}
