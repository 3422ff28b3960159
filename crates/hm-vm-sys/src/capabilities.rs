//! The capabilities that the commands of a VM have in their own user namespace.

/// Docker's default set, by number: `chown`, `dac_override`, `fowner`, `fsetid`, `kill`, `setgid`,
/// `setuid`, `setpcap`, `net_bind_service`, `net_raw`, `sys_chroot`, `mknod`, `audit_write`,
/// `setfcap`. Ascending.
pub const DEFAULT_CAPABILITIES: [u8; 14] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];

/// [`DEFAULT_CAPABILITIES`] as a mask with bit N for capability N, as `capset(2)` takes it in two
/// halves of 32 bits.
pub const DEFAULT_CAPABILITY_MASK: u64 = {
    let mut mask = 0;
    let mut index = 0;
    while index < DEFAULT_CAPABILITIES.len() {
        mask |= 1 << DEFAULT_CAPABILITIES[index];
        index += 1;
    }
    mask
};

/// The highest capability number of any kernel that we know of is 40; newer kernels may have more.
/// Dropping from the bounding set goes up to here, and ends at EINVAL.
pub const LAST_POSSIBLE_CAPABILITY: u8 = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_is_dockers() {
        // CapEff in a container that `docker run` made without options.
        assert_eq!(DEFAULT_CAPABILITY_MASK, 0x0000_0000_a804_25fb);
    }

    #[test]
    fn all_numbers_are_different_and_possible() {
        assert_eq!(
            DEFAULT_CAPABILITY_MASK.count_ones() as usize,
            DEFAULT_CAPABILITIES.len()
        );
        assert!(
            DEFAULT_CAPABILITIES
                .iter()
                .all(|n| *n <= LAST_POSSIBLE_CAPABILITY)
        );
    }
}
