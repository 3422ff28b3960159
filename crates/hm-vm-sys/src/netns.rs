//! A network namespace that several VMs join.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use crate::SysError;
use crate::launch::loopback_up;
use crate::userns::UserNamespace;

/// A network namespace of a user namespace, with its loopback interface up. No process is needed to keep
/// it: it lives as long as this, or a process that joined it.
#[derive(Debug)]
pub struct NetworkNamespace {
    fd: Arc<OwnedFd>,
    owner: Arc<UserNamespace>,
}

impl NetworkNamespace {
    /// Makes one. Blocks for some hundred microseconds.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it: too many namespaces, for instance.
    pub fn new(owner: &Arc<UserNamespace>) -> Result<Self, SysError> {
        let made = owner.run(|| -> Result<OwnedFd, SysError> {
            // SAFETY: no pointers. The work's process shares memory and descriptors with ours, and no
            // namespaces: ours stays where it is.
            if unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_NEWNET) } < 0 {
                return Err(SysError::last("making a network namespace"));
            }
            loopback_up().map_err(|errno| {
                let error = io::Error::from_raw_os_error(errno);
                SysError::new("bringing the loopback interface up", error)
            })?;
            // The work's process is one of its own, so that this is its namespace.
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            rustix::fs::open("/proc/self/ns/net", flags, Mode::empty())
                .map_err(|errno| SysError::new("opening a network namespace", errno))
        })?;
        Ok(Self {
            fd: Arc::new(made?),
            owner: Arc::clone(owner),
        })
    }

    /// The namespace, for [`NetworkOf::Shared`](crate::launch::NetworkOf::Shared).
    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// The user namespace that it belongs to: only VMs of that one can join.
    pub fn owner(&self) -> &Arc<UserNamespace> {
        &self.owner
    }

    /// Whether a socket in the namespace listens on this TCP port of 127.0.0.1 or `::1`. Connects to nothing, so
    /// that a server that serves one connection has that still to come.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered, or its list of sockets cannot be read.
    pub fn listens(&self, port: u16) -> Result<bool, SysError> {
        let fd = self.fd.as_raw_fd();
        self.owner.run(|| {
            // SAFETY: no pointers. As in `new`, only the work's process changes over.
            if unsafe { libc::syscall(libc::SYS_setns, fd, libc::CLONE_NEWNET) } < 0 {
                return Err(SysError::last("joining a network namespace"));
            }
            for (path, required) in [("/proc/self/net/tcp", true), ("/proc/self/net/tcp6", false)] {
                match fs::read_to_string(path) {
                    Ok(table) if has_listener(&table, port) => return Ok(true),
                    Ok(_) => {}
                    // A kernel without IPv6.
                    Err(error) if !required && error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(SysError::new(format!("reading {path}"), error)),
                }
            }
            Ok(false)
        })?
    }
}

/// Whether a table of `/proc/net` has a socket that listens on this port of the loopback address, or of all.
fn has_listener(table: &str, port: u16) -> bool {
    /// `TCP_LISTEN` as the table has it.
    const LISTEN: &str = "0A";
    table.lines().skip(1).any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (Some(local), _, Some(LISTEN)) = (words.next(), words.next(), words.next()) else {
            return false;
        };
        let Some((address, number)) = local.split_once(':') else {
            return false;
        };
        u16::from_str_radix(number, 16) == Ok(port)
            && read_address(address).is_some_and(is_reached_by_loopback)
    })
}

fn is_reached_by_loopback(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_unspecified() || address == Ipv4Addr::LOCALHOST,
        IpAddr::V6(address) => address.is_unspecified() || address == Ipv6Addr::LOCALHOST,
    }
}

/// The kernel prints an address as numbers of 32 bits in the machine's own order.
fn read_address(text: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for start in (0..text.len()).step_by(8) {
        let word = u32::from_str_radix(text.get(start..start + 8)?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(bytes) => Some(IpAddr::from(bytes)),
        Err(_) => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue\n";

    fn line(address: IpAddr, port: u16, state: &str) -> String {
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let mut text = String::new();
        for word in bytes.chunks(4) {
            let word = u32::from_ne_bytes(word.try_into().unwrap());
            text += &format!("{word:08X}");
        }
        format!("{HEAD}   0: {text}:{port:04X} 00000000:0000 {state} 00000000:00000000\n")
    }

    #[test]
    fn listeners_are_those_that_loopback_reaches() {
        for (address, reached) in [
            ("0.0.0.0", true),
            ("127.0.0.1", true),
            ("::", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.1.2.3", false),
            ("fe80::1", false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(
                has_listener(&line(address, 8080, "0A"), 8080),
                reached,
                "{address}"
            );
            assert!(!has_listener(&line(address, 8080, "0A"), 8081));
            assert!(!has_listener(&line(address, 8080, "01"), 8080));
        }
        assert!(!has_listener(HEAD, 8080));
    }

    #[test]
    fn a_namespace_is_of_its_own_and_sees_only_its_sockets() {
        let owner = UserNamespace::for_current_user().unwrap();
        let network = NetworkNamespace::new(&Arc::new(owner)).unwrap();
        let before = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let here = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!network.listens(here.local_addr().unwrap().port()).unwrap());
        let fd = network.fd.as_raw_fd();
        // Sockets stay in the namespace that they were made in.
        let inside = network
            .owner
            .run(|| {
                // SAFETY: no pointers.
                assert_eq!(unsafe { libc::setns(fd, libc::CLONE_NEWNET) }, 0);
                std::net::TcpListener::bind("127.0.0.1:0").unwrap()
            })
            .unwrap();
        let port = inside.local_addr().unwrap().port();
        assert!(network.listens(port).unwrap());
        drop(inside);
        assert!(!network.listens(port).unwrap());
        assert_eq!(fs::read_link("/proc/thread-self/ns/net").unwrap(), before);
    }
}
