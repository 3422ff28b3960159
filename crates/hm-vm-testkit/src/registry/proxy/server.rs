//! The proxy: accepts, counts, and ends with all its connections.

use std::fmt;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};

use super::faults::Faults;
use super::passed::Passed;
use super::relay;
use crate::lock::lock;

/// A proxy on a loopback port, before a server that speaks plain HTTP. It ends on drop, with all
/// connections to it.
pub struct FaultProxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    acceptor: Option<Acceptor>,
}

/// What the threads of a proxy share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) upstream: String,
    faults: Mutex<Faults>,
    passed: Mutex<Vec<Passed>>,
    live: Mutex<Live>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Live {
    ended: bool,
    connections: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

struct Acceptor {
    end: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl fmt::Debug for FaultProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultProxy")
            .field("address", &self.address)
            .field("upstream", &self.shared.upstream)
            .finish_non_exhaustive()
    }
}

impl FaultProxy {
    /// Starts one before the server at `upstream` (`127.0.0.1:PORT`), which need not run.
    ///
    /// # Errors
    ///
    /// When there is no port.
    pub fn start(upstream: &str, faults: Faults) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("binding a loopback port")?;
        let address = listener.local_addr().context("asking for the port")?;
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            faults: Mutex::new(faults),
            passed: Mutex::default(),
            live: Mutex::default(),
            changed: Condvar::new(),
        });
        let acceptor = Some(Acceptor::start(listener, &shared));
        Ok(Self {
            shared,
            address,
            acceptor,
        })
    }

    /// `127.0.0.1:PORT`: the first part of references.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on these faults happen, and no others.
    pub fn set(&self, faults: Faults) {
        *lock(&self.shared.faults) = faults;
    }

    /// The requests that came so far, in the order in which they began.
    pub fn requests(&self) -> Vec<Passed> {
        lock(&self.shared.passed).clone()
    }

    /// Forgets the requests that came so far.
    pub fn forget(&self) {
        lock(&self.shared.passed).clear();
    }

    /// Bytes of bodies that went to the server and to clients so far.
    pub fn bytes(&self) -> (u64, u64) {
        let passed = lock(&self.shared.passed);
        passed.iter().fold((0, 0), |(sent, received), request| {
            (sent + request.sent, received + request.received)
        })
    }

    /// Refuses connections from now on, and cuts those there are.
    pub fn refuse(&mut self) {
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.stop(self.address);
        }
        self.shared.cut_all();
    }

    /// Accepts connections again, at the same address.
    ///
    /// # Errors
    ///
    /// When somebody else has the port by now.
    pub fn accept(&mut self) -> Result<()> {
        if self.acceptor.is_none() {
            let Ok(listener) = TcpListener::bind(self.address) else {
                bail!("the port of {} was taken", self.address);
            };
            self.acceptor = Some(Acceptor::start(listener, &self.shared));
        }
        Ok(())
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        lock(&self.shared.live).ended = true;
        self.shared.changed.notify_all();
        self.refuse();
        let threads = std::mem::take(&mut lock(&self.shared.live).threads);
        for thread in threads {
            drop(thread.join());
        }
    }
}

impl Acceptor {
    fn start(listener: TcpListener, shared: &Arc<Shared>) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let (ended, shared) = (Arc::clone(&end), Arc::clone(shared));
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(client) = client {
                    shared.serve(client);
                }
            }
        });
        Self { end, thread }
    }

    fn stop(self, address: SocketAddr) {
        self.end.store(true, Ordering::SeqCst);
        // Wakes the thread up; it takes the listener with it.
        drop(TcpStream::connect(address));
        drop(self.thread.join());
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, client: TcpStream) {
        let shared = Arc::clone(self);
        self.register(&client);
        let thread = std::thread::spawn(move || {
            // A connection that ends in an error is one that a client or a fault has cut.
            drop(relay::serve(&shared, &client));
            drop(client.shutdown(Shutdown::Both));
        });
        lock(&self.live).threads.push(thread);
    }

    /// Lets a connection be cut when the proxy refuses or ends.
    pub(super) fn register(&self, connection: &TcpStream) {
        if let Ok(connection) = connection.try_clone() {
            let mut live = lock(&self.live);
            if live.ended {
                drop(connection.shutdown(Shutdown::Both));
            }
            live.connections.push(connection);
        }
    }

    fn cut_all(&self) {
        for connection in lock(&self.live).connections.drain(..) {
            drop(connection.shutdown(Shutdown::Both));
        }
    }

    /// Notes a request, and tells the faults that happen to it and its number.
    pub(super) fn begin(&self, request: Passed) -> (usize, Vec<super::Fault>) {
        let faults = lock(&self.faults).of(&request.method, &request.path, &request.headers);
        let mut passed = lock(&self.passed);
        passed.push(request);
        (passed.len() - 1, faults)
    }

    /// Changes what is noted about a request, unless that was forgotten.
    pub(super) fn note(&self, number: usize, change: impl FnOnce(&mut Passed)) {
        if let Some(request) = lock(&self.passed).get_mut(number) {
            change(request);
        }
    }

    /// Waits until the proxy ends.
    pub(super) fn wait_for_end(&self) {
        let mut live = lock(&self.live);
        while !live.ended {
            live = self
                .changed
                .wait(live)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
