//! Whether something accepts connections at a port.

use crate::calls::{self, PollFd};
use crate::numbers::POLLOUT;

/// Seconds until a listener that does not take more connections counts as none.
const PATIENCE: i64 = 1;

/// On the loopback addresses of both families.
pub fn accepts(port: u16) -> bool {
    const INET: i32 = 2;
    const INET6: i32 = 10;
    let [high, low] = port.to_be_bytes();
    let [family0, family1] = (INET as u16).to_ne_bytes();
    let mut four = [0u8; 16];
    four[..8].copy_from_slice(&[family0, family1, high, low, 127, 0, 0, 1]);
    let [family0, family1] = (INET6 as u16).to_ne_bytes();
    let mut six = [0u8; 28];
    six[..4].copy_from_slice(&[family0, family1, high, low]);
    six[23] = 1;
    connects(INET, &four) || connects(INET6, &six)
}

fn connects(family: i32, address: &[u8]) -> bool {
    let Ok((socket, mut connected)) = calls::connect(family, address) else {
        return false;
    };
    if !connected {
        let mut fds = [PollFd::new(socket, POLLOUT)];
        connected =
            calls::poll(&mut fds, Some(PATIENCE)) > 0 && calls::socket_error(socket) == Ok(0);
    }
    calls::close(socket);
    connected
}
