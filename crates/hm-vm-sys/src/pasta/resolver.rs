//! Name resolution of a VM behind pasta.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Stands for the host's own resolver where that listens on loopback. Link-local, so that it is
/// nobody's on the way.
const FORWARDED_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 53);
/// The same for IPv6.
const FORWARDED_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x53);

/// What a VM's `/etc/resolv.conf` says. Derived from the host's: a resolver on the host's loopback
/// is replaced by an address that pasta forwards to it (over UDP; long answers over TCP fail).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestResolver {
    lines: Vec<String>,
    forwarded: Vec<IpAddr>,
}

impl GuestResolver {
    /// Reads the host's `/etc/resolv.conf`. Without one, there are no name servers.
    pub fn of_this_host() -> Self {
        Self::from_host(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    /// Derives it from the text of the host's file.
    pub(super) fn from_host(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("nameserver"), Some(address)) => resolver.add(address),
                (Some("search" | "domain" | "options"), Some(_)) => {
                    resolver.lines.push(line.trim().to_owned());
                }
                _ => {}
            }
        }
        resolver
    }

    fn add(&mut self, address: &str) {
        // A link-local address may name an interface, which is the same one inside.
        let plain = address.split('%').next().unwrap_or(address);
        let Ok(parsed) = plain.parse::<IpAddr>() else {
            return;
        };
        let line = if parsed.is_loopback() {
            let stand_in = match parsed {
                IpAddr::V4(_) => IpAddr::V4(FORWARDED_V4),
                IpAddr::V6(_) => IpAddr::V6(FORWARDED_V6),
            };
            if self.forwarded.contains(&stand_in) {
                return;
            }
            self.forwarded.push(stand_in);
            format!("nameserver {stand_in}")
        } else {
            format!("nameserver {address}")
        };
        self.lines.push(line);
    }

    /// The addresses that pasta shall forward.
    pub(super) fn forwarded(&self) -> &[IpAddr] {
        &self.forwarded
    }

    /// The text of the VM's file.
    pub fn resolv_conf(&self) -> String {
        self.lines
            .iter()
            .fold(String::new(), |text, line| text + line + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_can_be_reached_are_taken_over() {
        let text = "# made by hand\nnameserver 10.255.255.53\nsearch a.example b.example\n\
                    options ndots:2\nnameserver fe80::1%eth0\nnameserver nonsense\nsortlist x\n";
        let resolver = GuestResolver::from_host(text);
        assert_eq!(
            resolver.resolv_conf(),
            "nameserver 10.255.255.53\nsearch a.example b.example\noptions ndots:2\n\
             nameserver fe80::1%eth0\n"
        );
        assert!(resolver.forwarded().is_empty());
    }

    #[test]
    fn a_server_on_loopback_is_forwarded_once() {
        let text = "nameserver 127.0.0.53\nnameserver 127.0.0.1\nnameserver ::1\n";
        let resolver = GuestResolver::from_host(text);
        assert_eq!(
            resolver.resolv_conf(),
            "nameserver 169.254.1.53\nnameserver fe80::53\n"
        );
        assert_eq!(
            resolver.forwarded(),
            [IpAddr::V4(FORWARDED_V4), IpAddr::V6(FORWARDED_V6)]
        );
        assert_eq!(GuestResolver::from_host("").resolv_conf(), "");
    }
}
