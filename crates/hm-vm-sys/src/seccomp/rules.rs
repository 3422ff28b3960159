//! Which calls are allowed.
//!
//! After Docker's default profile for a container with the default capabilities, on a kernel of at
//! least 4.8 (from where `ptrace` cannot be used to get around a filter). Differences: `TIOCSTI`
//! and `TIOCLINUX`, which write into the terminal's input, are refused; so are the i386 calls.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::assembler::{Check, Test};
use super::assembler::{Region, Verdict};

/// The architecture that the filter is for, as the audit subsystem names it.
#[cfg(target_arch = "x86_64")]
pub(super) const AUDIT_ARCH: u32 = 0xC000_003E;
/// The architecture that the filter is for, as the audit subsystem names it.
#[cfg(target_arch = "aarch64")]
pub(super) const AUDIT_ARCH: u32 = 0xC000_00B7;
/// There is no filter for this processor.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) const AUDIT_ARCH: u32 = 0;

/// No lists for this processor.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn regions() -> Option<Vec<Region>> {
    None
}

/// The ranges of numbers, by what happens to them, from 0 upwards.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) fn regions() -> Option<Vec<Region>> {
    let allowed = lists::ALLOWED.iter().chain(lists::ALLOWED_HERE);
    let refused = lists::REFUSED.iter().chain(lists::REFUSED_HERE);
    let mut verdicts = std::collections::BTreeMap::new();
    for number in allowed.chain(lists::ALLOWED_NEW) {
        verdicts.insert(u32::try_from(*number).ok()?, Verdict::Allow);
    }
    for number in refused {
        verdicts.insert(
            u32::try_from(*number).ok()?,
            Verdict::Fail(number_of(libc::EPERM)),
        );
    }
    for (number, check) in CHECKED {
        verdicts.insert(u32::try_from(*number).ok()?, Verdict::Check(*check));
    }
    let last = *verdicts.last_key_value()?.0;
    let unknown = Verdict::Fail(number_of(libc::ENOSYS));
    let mut regions: Vec<Region> = Vec::new();
    // One more than the last, so that all beyond our lists is unknown.
    for first in 0..=last + 1 {
        let verdict = verdicts.get(&first).copied().unwrap_or(unknown);
        if regions
            .last()
            .is_none_or(|region| region.verdict != verdict)
        {
            regions.push(Region { first, verdict });
        }
    }
    Some(regions)
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const fn number_of(errno: libc::c_int) -> u16 {
    // Errnos are positive, and below 4096.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "see above"
    )]
    let number = errno as u16;
    number
}

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`. (`NEWTIME` is
/// no flag of `clone`.)
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const NAMESPACE_FLAGS: u32 = 0x7E02_0000;

/// `PER_LINUX`, `PER_LINUX32`, `UNAME26`, both, and the query.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const PERSONALITIES: &[u32] = &[0x0, 0x8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF];

/// `AF_ALG`, whose kernel side is large and hardly used, and `AF_VSOCK`, which reaches a
/// hypervisor or its other guests.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const REFUSED_FAMILIES: &[u32] = &[38, 40];

/// `TIOCSTI` and `TIOCLINUX`: both can put words into the mouth of the person at the terminal.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const REFUSED_IOCTLS: &[u32] = &[0x5412, 0x541C];

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const CHECKED: &[(libc::c_long, Check)] = &[
    (
        libc::SYS_clone,
        Check {
            argument: 0,
            test: Test::NoBit(NAMESPACE_FLAGS),
            errno: number_of(libc::EPERM),
        },
    ),
    (
        libc::SYS_personality,
        Check {
            argument: 0,
            test: Test::Only(PERSONALITIES),
            errno: number_of(libc::EPERM),
        },
    ),
    (
        libc::SYS_socket,
        Check {
            argument: 0,
            test: Test::Not(REFUSED_FAMILIES),
            errno: number_of(libc::EPERM),
        },
    ),
    (
        libc::SYS_ioctl,
        Check {
            argument: 1,
            test: Test::Not(REFUSED_IOCTLS),
            errno: number_of(libc::EPERM),
        },
    ),
];

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[path = "lists.rs"]
mod lists;
