//! Turns ranges of system-call numbers into a program of the classic packet filter.

use libc::sock_filter;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on.
    Allow,
    /// It fails with this errno.
    Fail(u16),
    /// It depends on one argument.
    Check(Check),
}

/// A look at the lower 32 bits of an argument. (The kernel looks at no more for the arguments
/// that our rules are about, or at bits that are all there.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// Which argument, from 0.
    pub(super) argument: u8,
    /// What it is compared with.
    pub(super) test: Test,
    /// Errno if the test refuses the call.
    pub(super) errno: u16,
}

/// When a [`Check`] allows the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// None of these bits is set.
    NoBit(u32),
    /// The value is one of these.
    Only(&'static [u32]),
    /// The value is none of these.
    Not(&'static [u32]),
}

/// The calls from `first` up to the next region's `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) first: u32,
    pub(super) verdict: Verdict,
}

/// Longest program that the kernel takes.
const MAX_INSTRUCTIONS: usize = 4096;

// Offsets in `struct seccomp_data`. Arguments are 64 bits wide, little endian on our processors.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

// Values of <linux/bpf_common.h>.
const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

const fn ret_allow() -> sock_filter {
    instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW)
}

const fn ret_errno(errno: u16) -> sock_filter {
    instruction(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32)
}

/// Builds the program. `regions` must be sorted, and begin at 0. `None` if it would be too long.
pub(super) fn assemble(arch: u32, regions: &[Region]) -> Option<Vec<sock_filter>> {
    let mut program = vec![
        instruction(LOAD_WORD, 0, 0, OFFSET_ARCH),
        instruction(JUMP_EQUAL, 1, 0, arch),
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        instruction(LOAD_WORD, 0, 0, OFFSET_NUMBER),
    ];
    program.extend(search(regions)?);
    (program.len() <= MAX_INSTRUCTIONS).then_some(program)
}

/// A binary search for the region of the loaded number. Every path through it returns.
fn search(regions: &[Region]) -> Option<Vec<sock_filter>> {
    if let [region] = regions {
        return verdict(region.verdict);
    }
    let (lower, upper) = regions.split_at(regions.len() / 2);
    let border = upper.first()?.first;
    let lower = search(lower)?;
    let mut code = Vec::new();
    // Conditional jumps reach 255 instructions; further ones need an unconditional jump.
    if let Ok(distance) = u8::try_from(lower.len()) {
        code.push(instruction(JUMP_GREATER_EQUAL, distance, 0, border));
    } else {
        code.push(instruction(JUMP_GREATER_EQUAL, 0, 1, border));
        code.push(instruction(JUMP, 0, 0, u32::try_from(lower.len()).ok()?));
    }
    code.extend(lower);
    code.extend(search(upper)?);
    Some(code)
}

fn verdict(verdict: Verdict) -> Option<Vec<sock_filter>> {
    let check = match verdict {
        Verdict::Allow => return Some(vec![ret_allow()]),
        Verdict::Fail(errno) => return Some(vec![ret_errno(errno)]),
        Verdict::Check(check) => check,
    };
    let (allow, refuse) = (ret_allow(), ret_errno(check.errno));
    let offset = OFFSET_ARGUMENTS + 8 * u32::from(check.argument);
    let mut code = vec![instruction(LOAD_WORD, 0, 0, offset)];
    match check.test {
        Test::NoBit(bits) => {
            code.extend([instruction(JUMP_ANY_BIT, 1, 0, bits), allow, refuse]);
        }
        Test::Only(values) => {
            code.extend(any_equal(values)?);
            code.extend([refuse, allow]);
        }
        Test::Not(values) => {
            code.extend(any_equal(values)?);
            code.extend([allow, refuse]);
        }
    }
    Some(code)
}

/// Skips the instruction that follows if the loaded word is one of `values`.
fn any_equal(values: &[u32]) -> Option<Vec<sock_filter>> {
    (0..values.len())
        .rev()
        .zip(values)
        .map(|(after, value)| {
            let distance = u8::try_from(after + 1).ok()?;
            Some(instruction(JUMP_EQUAL, distance, 0, *value))
        })
        .collect()
}
