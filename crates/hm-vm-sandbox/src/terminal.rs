//! A pseudo-terminal for a VM.
//!
//! It is made on the host and shown in the VM as `/dev/console`. The user's own terminal stays out
//! of reach: what is typed and shown goes through [`Pty::relay`].

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hm_vm_core::{Terminal, TerminalSize};
use hm_vm_sys::UserNamespace;
use hm_vm_sys::readiness::watch;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};

/// Our end of a pseudo-terminal.
#[derive(Debug)]
pub(crate) struct Pty {
    master: AsyncFd<OwnedFd>,
    path: PathBuf,
}

const CHUNK: usize = 16 * 1024;

impl Pty {
    /// Makes a pseudo-terminal of the user's size, owned by the VM's root. Returns both ends.
    pub(crate) fn open(owner: &UserNamespace, terminal: &Terminal) -> Result<(Self, OwnedFd)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).context("opening a pseudo-terminal")?;
        grantpt(&master).context("granting a pseudo-terminal")?;
        unlockpt(&master).context("unlocking a pseudo-terminal")?;
        let name = ptsname(&master, Vec::new()).context("naming a pseudo-terminal")?;
        let path = PathBuf::from(name.to_string_lossy().into_owned());
        let slave = rustix::fs::open(
            &path,
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .with_context(|| format!("opening {}", path.display()))?;
        if rustix::process::geteuid().is_root() {
            let root = owner.root_outside();
            rustix::fs::fchown(&slave, Some(Uid::from_raw(root)), Some(Gid::from_raw(root)))
                .with_context(|| format!("giving {} to the VM", path.display()))?;
        }
        resize(&master, *terminal.size.borrow())?;
        rustix::fs::fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)
            .context("preparing a pseudo-terminal")?;
        let master = watch(master, Interest::READABLE | Interest::WRITABLE)
            .context("watching a pseudo-terminal")?;
        Ok((Self { master, path }, slave))
    }

    /// Its path on the host.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Carries bytes both ways and passes size changes on, until the VM's end is closed and
    /// everything it wrote has been shown. At the end of the input, `hang_up` is called once.
    pub(crate) async fn relay(&self, terminal: Terminal, hang_up: impl FnOnce()) -> Result<()> {
        let Terminal {
            mut input,
            mut output,
            mut size,
        } = terminal;
        let show = async {
            let mut buffer = vec![0; CHUNK];
            loop {
                let length = self.read(&mut buffer).await?;
                if length == 0 {
                    return Ok(());
                }
                output
                    .write_all(&buffer[..length])
                    .await
                    .context("writing to the terminal")?;
                output.flush().await.context("writing to the terminal")?;
            }
        };
        let take = async {
            let mut buffer = vec![0; CHUNK];
            loop {
                let length = input
                    .read(&mut buffer)
                    .await
                    .context("reading from the terminal")?;
                if length == 0 {
                    hang_up();
                    return std::future::pending::<Result<()>>().await;
                }
                self.write(&buffer[..length]).await?;
            }
        };
        let follow = async {
            while size.changed().await.is_ok() {
                let now = *size.borrow_and_update();
                resize(self.master.get_ref(), now)?;
            }
            std::future::pending::<Result<()>>().await
        };
        tokio::select! {
            shown = show => shown,
            taken = take => taken,
            followed = follow => followed,
        }
    }

    /// Reads what the VM wrote. 0 is the end: the kernel says EIO when nobody has the VM's end.
    async fn read(&self, buffer: &mut [u8]) -> Result<usize> {
        let read = self
            .master
            .async_io(Interest::READABLE, |master| {
                rustix::io::read(master, &mut *buffer).map_err(Into::into)
            })
            .await;
        match read {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                Ok(0)
            }
            other => other.context("reading from the pseudo-terminal"),
        }
    }

    async fn write(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let written = self
                .master
                .async_io(Interest::WRITABLE, |master| {
                    rustix::io::write(master, bytes).map_err(Into::into)
                })
                .await
                .context("writing to the pseudo-terminal")?;
            bytes = &bytes[written..];
        }
        Ok(())
    }
}

fn resize(terminal: &OwnedFd, size: TerminalSize) -> Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).context("resizing a pseudo-terminal")
}
