//! Who runs a command: from the words of the request to numbers, by the guest's own files.
//!
//! The rules are Docker's, and those of the sandbox: a name is tried before a number, a number need not be
//! in the files, and a group that is named leaves no other groups.

use core::ffi::CStr;

use crate::calls::{self, Result};
use crate::memory::{List, Memory};
use crate::numbers::{EFBIG, EINTR, ENOENT, ENOTDIR, O_NOCTTY, O_NONBLOCK};

/// Larger files of users than this are not the work of a distribution.
const LARGEST_FILE: usize = 4 << 20;
/// The kernel's own bound on supplementary groups.
const MOST_GROUPS: usize = 65536;

/// Why a user was not found, as the report has it. Numbers below are the kernel's, negative.
pub const NO_USER: i32 = 1;
pub const NO_GROUP: i32 = 2;
pub const NO_SENSE: i32 = 3;

/// A user of the guest.
pub struct User<'a> {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary ones.
    pub groups: List<u32>,
    pub name: &'a [u8],
    pub home: &'a [u8],
}

/// The two files of the guest.
pub struct Accounts {
    passwd: Memory,
    group: Memory,
}

impl Accounts {
    pub fn read() -> Result<Self> {
        Ok(Self {
            passwd: read_file(c"/etc/passwd")?,
            group: read_file(c"/etc/group")?,
        })
    }

    /// Finds `NAME|UID[:GROUP]`.
    pub fn find<'a>(&'a self, asked: &'a [u8]) -> Result<User<'a>> {
        let (user, of_group) = match asked.iter().position(|byte| *byte == b':') {
            Some(colon) => (&asked[..colon], Some(&asked[colon + 1..])),
            None => (asked, None),
        };
        if user.is_empty() || of_group.is_some_and(<[u8]>::is_empty) {
            return Err(NO_SENSE);
        }
        let mut found = match account(self.passwd.bytes(), user) {
            Some(account) => User {
                uid: account.uid,
                gid: account.gid,
                groups: memberships(self.group.bytes(), account.name).map_err(|errno| -errno)?,
                name: account.name,
                home: if account.home.is_empty() {
                    b"/"
                } else {
                    account.home
                },
            },
            None => without_account(user)?,
        };
        if let Some(name) = of_group {
            found.groups.truncate(0);
            found.gid = group_id(self.group.bytes(), name).ok_or(NO_GROUP)?;
        }
        Ok(found)
    }
}

/// The file's content, nothing where there is none.
fn read_file(path: &CStr) -> Result<Memory> {
    // The guest may have put anything there: nothing that is opened may make us wait.
    let fd = match calls::open(path, O_NOCTTY | O_NONBLOCK) {
        Ok(fd) => fd,
        Err(ENOENT | ENOTDIR) => return Memory::new(0),
        Err(errno) => return Err(errno),
    };
    let read = read_all(fd);
    calls::close(fd);
    read
}

fn read_all(fd: i32) -> Result<Memory> {
    let mut all = Memory::new(LARGEST_FILE + 1)?;
    let mut length = 0;
    loop {
        match calls::read(fd, &mut all.bytes_mut()[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(EINTR) => {}
            Err(errno) => return Err(errno),
        }
        if length > LARGEST_FILE {
            return Err(EFBIG);
        }
    }
    let mut exact = Memory::new(length)?;
    exact.bytes_mut().copy_from_slice(&all.bytes()[..length]);
    Ok(exact)
}

/// A number, or root, who is there whatever the files say.
fn without_account(user: &[u8]) -> Result<User<'_>> {
    let is_root = user == b"root";
    let uid = if is_root { Some(0) } else { id(user) };
    Ok(User {
        uid: uid.ok_or(NO_USER)?,
        gid: 0,
        groups: List::new(0).map_err(|errno| -errno)?,
        name: user,
        home: if is_root { b"/root" } else { b"/" },
    })
}

struct Account<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

fn accounts(passwd: &[u8]) -> impl Iterator<Item = Account<'_>> {
    lines(passwd).filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let (name, _, uid, gid, _, home) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        Some(Account {
            name,
            uid: id(uid)?,
            gid: id(gid)?,
            home,
        })
    })
}

fn account<'a>(passwd: &'a [u8], user: &[u8]) -> Option<Account<'a>> {
    let by_name = accounts(passwd).find(|account| account.name == user);
    by_name.or_else(|| {
        let uid = id(user)?;
        accounts(passwd).find(|account| account.uid == uid)
    })
}

/// Name, number and members.
fn groups(group: &[u8]) -> impl Iterator<Item = (&[u8], u32, &[u8])> {
    lines(group).filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let (name, _, gid, members) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        Some((name, id(gid)?, members))
    })
}

fn group_id(group: &[u8], asked: &[u8]) -> Option<u32> {
    let by_name = groups(group).find(|(name, ..)| *name == asked);
    by_name.map(|(_, gid, _)| gid).or_else(|| id(asked))
}

fn memberships(group: &[u8], user: &[u8]) -> Result<List<u32>> {
    let mut found = List::new(MOST_GROUPS)?;
    for (_, gid, members) in groups(group) {
        if members
            .split(|byte| *byte == b',')
            .any(|member| member == user)
        {
            found.push(gid);
        }
    }
    found.items_mut().sort_unstable();
    let mut kept = 0;
    let all = found.items_mut();
    for at in 0..all.len() {
        if kept == 0 || all[kept - 1] != all[at] {
            all[kept] = all[at];
            kept += 1;
        }
    }
    found.truncate(kept);
    Ok(found)
}

/// A decimal id. The highest number means "no change" to the kernel.
fn id(text: &[u8]) -> Option<u32> {
    let mut number = 0u32;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u32::from(digit))?;
    }
    (!text.is_empty() && number != u32::MAX).then_some(number)
}
