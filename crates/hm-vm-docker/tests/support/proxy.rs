//! A proxy before a daemon's socket, whose connections can be cut.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Passes everything on until it is told to cut.
pub(crate) struct Proxy {
    socket: PathBuf,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Both sides of each connection that is open.
    open: Mutex<Vec<(UnixStream, UnixStream)>>,
    /// Bytes that a connection still may carry from the daemon after its protocol has changed to that of `attach`. Zero: as many as come.
    limit: AtomicU64,
}

impl Proxy {
    /// One that listens at `socket` and passes on to `target`.
    pub(crate) fn start(socket: &Path, target: &Path) -> Self {
        let listener = UnixListener::bind(socket).expect("a socket");
        let state = Arc::<State>::default();
        let (shared, target) = (Arc::clone(&state), target.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // A daemon that is gone: the connection closes at once.
                if let Ok(server) = UnixStream::connect(&target) {
                    shared.connect(client, server);
                }
            }
        });
        Self {
            socket: socket.to_owned(),
            state,
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Cuts all connections. New ones are passed on again.
    pub(crate) fn cut(&self) {
        for (client, server) in self.state.open.lock().expect("no panic").drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    /// Cuts connections to containers that begin from now on after so many bytes. Zero: not at all.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.state.limit.store(bytes, Ordering::SeqCst);
    }
}

impl State {
    fn connect(self: &Arc<Self>, client: UnixStream, server: UnixStream) {
        let copy = |stream: &UnixStream| stream.try_clone().expect("a second handle");
        let mut open = self.open.lock().expect("no panic");
        open.push((copy(&client), copy(&server)));
        drop(open);
        let (mut from, mut to) = (copy(&client), copy(&server));
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let state = Arc::clone(self);
        std::thread::spawn(move || state.answer(server, client));
    }

    /// Passes on what the daemon says.
    fn answer(&self, mut from: UnixStream, mut to: UnixStream) {
        let mut buffer = vec![0; 64 << 10];
        let mut left = None;
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let mut part = &buffer[..read];
            if left.is_none() && is_upgrade(part) {
                let limit = self.limit.load(Ordering::SeqCst);
                left = Some(if limit == 0 { u64::MAX } else { limit });
            }
            if let Some(left) = &mut left {
                let allowed = usize::try_from(*left).unwrap_or(usize::MAX).min(part.len());
                part = &part[..allowed];
                *left -= allowed as u64;
            }
            if to.write_all(part).is_err() || left == Some(0) {
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }
}

/// Whether an answer changes the protocol, as `attach` does: Docker says 101, or 200 with the form of the stream.
fn is_upgrade(answer: &[u8]) -> bool {
    let head = String::from_utf8_lossy(&answer[..answer.len().min(512)]);
    head.starts_with("HTTP/1.1 101") || head.contains("application/vnd.docker.raw-stream")
}
