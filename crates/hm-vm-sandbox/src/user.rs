//! Who runs a command: from the words of the request to numbers.
//!
//! Names are looked up in the guest's own `/etc/passwd` and `/etc/group`, read from the VM's files at rest,
//! so that nothing of the guest runs for it. The rules are Docker's: a name is tried before a number, a
//! number need not be in the files, and a group that is named leaves no other groups.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Result;
use hm_vm_core::Error;
use hm_vm_store::VmFiles;
use hm_vm_sys::UserNamespace;
use hm_vm_sys::launch::Op;
use hm_vm_sys::userns::Mapping;
use rustix::fs::{Gid, Uid, fchown};
use rustix::io::Errno;

use crate::error::contract;

/// Larger files of users than this are not the work of a distribution.
const LARGEST_FILE: u64 = 4 << 20;

/// The kernel's own bound on supplementary groups.
const MOST_GROUPS: usize = 65536;

/// A user of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary ones.
    groups: Vec<u32>,
    pub(crate) name: String,
    pub(crate) home: String,
}

impl User {
    /// Finds the user of a request in a VM at rest. `upper` is where the VM writes, if not to its own directory.
    pub(crate) fn find(
        asked: &str,
        files: &VmFiles,
        upper: Option<&Path>,
        namespace: &UserNamespace,
    ) -> Result<Self> {
        let read = |path| -> Result<String> {
            let content = files
                .read_file(upper, path, LARGEST_FILE)
                .map_err(contract)?;
            Ok(String::from_utf8_lossy(&content.unwrap_or_default()).into_owned())
        };
        let passwd = read("/etc/passwd")?;
        let group = read("/etc/group")?;
        let mut user = Self::of(asked, &passwd, &group)?;
        user.check(asked, namespace)?;
        Ok(user)
    }

    /// Finds the user in the text of the two files.
    fn of(asked: &str, passwd: &str, group: &str) -> Result<Self, Error> {
        let refuse = |reason: String| Error::InvalidInput {
            what: format!("user {asked:?}"),
            reason,
        };
        let (user, of_group) = match asked.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (asked, None),
        };
        if user.is_empty() || of_group.is_some_and(str::is_empty) {
            return Err(refuse("must be NAME, UID, NAME:GROUP or UID:GROUP".into()));
        }
        let mut found = match Account::find(passwd, user) {
            Some(account) => Self {
                uid: account.uid,
                gid: account.gid,
                groups: memberships(group, account.name),
                name: account.name.into(),
                home: match account.home {
                    "" => "/".into(),
                    home => home.into(),
                },
            },
            None => Self::without_account(user)
                .ok_or_else(|| refuse("the VM's /etc/passwd has no such user".into()))?,
        };
        if let Some(name) = of_group {
            found.groups.clear();
            found.gid = group_id(group, name)
                .ok_or_else(|| refuse(format!("the VM's /etc/group has no group {name:?}")))?;
        }
        Ok(found)
    }

    /// A number, or root, who is there whatever the files say.
    fn without_account(user: &str) -> Option<Self> {
        let uid = if user == "root" { 0 } else { id(user)? };
        Some(Self {
            uid,
            gid: 0,
            groups: Vec::new(),
            name: user.into(),
            home: if user == "root" { "/root" } else { "/" }.into(),
        })
    }

    /// Refuses what does not exist in the user namespace, and leaves out groups that do not.
    fn check(&mut self, asked: &str, namespace: &UserNamespace) -> Result<(), Error> {
        let kind = if namespace.uid_outside(self.uid).is_none() {
            format!("user id {}", self.uid)
        } else if namespace.gid_outside(self.gid).is_none() {
            format!("group id {}", self.gid)
        } else {
            self.groups
                .retain(|id| namespace.gid_outside(*id).is_some());
            return Ok(());
        };
        let reason = match namespace.single_reason() {
            Some(why) => format!(
                "{kind} does not exist inside, where root is the only user: {why}; `hmvm doctor` has the fix"
            ),
            None => format!("{kind} is above those that exist inside"),
        };
        Err(Error::InvalidInput {
            what: format!("user {asked:?}"),
            reason,
        })
    }

    /// What makes the command theirs. All capabilities go with it, but for root.
    pub(crate) fn op(&self, namespace: &UserNamespace) -> Op {
        Op::BecomeUser {
            uid: self.uid,
            gid: self.gid,
            // Where only root exists, the kernel forbids to set groups: ours stay, which is no right inside.
            groups: (namespace.mapping() == Mapping::Range).then(|| self.groups.clone()),
        }
    }

    /// User and group id.
    pub(crate) fn ids(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }
}

/// Gives a stream to the command's user, who may then open it anew as `/dev/stdout`, as in other
/// containers. `ids` are those inside.
pub(crate) fn give(
    stream: &OwnedFd,
    ids: (u32, u32),
    namespace: &UserNamespace,
) -> rustix::io::Result<()> {
    let own = |uid, gid| fchown(stream, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    if rustix::process::geteuid().is_root() {
        let outside = (namespace.uid_outside(ids.0), namespace.gid_outside(ids.1));
        return match outside {
            (Some(uid), Some(gid)) => own(uid, gid),
            _ => Ok(()),
        };
    }
    if ids == (0, 0) {
        // What an ordinary user makes is that of root inside.
        return Ok(());
    }
    match namespace.run(|| own(ids.0, ids.1)) {
        // A terminal belongs to a group that does not exist inside. It works all the same, but by its name.
        Ok(Err(Errno::PERM)) | Err(_) => Ok(()),
        Ok(other) => other,
    }
}

/// One line of `/etc/passwd`.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Account<'a> {
    fn find(passwd: &'a str, user: &str) -> Option<Self> {
        let accounts = || passwd.lines().filter_map(Self::read);
        accounts().find(|account| account.name == user).or_else(|| {
            let uid = id(user)?;
            accounts().find(|account| account.uid == uid)
        })
    }

    /// `None` for a line that makes no sense.
    fn read(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else {
            return None;
        };
        Some(Self {
            name,
            uid: id(uid)?,
            gid: id(gid)?,
            home,
        })
    }
}

/// Name, number and members of the lines of `/etc/group`.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, gid, members, ..] = fields[..] else {
            return None;
        };
        Some((name, id(gid)?, members))
    })
}

fn group_id(group: &str, asked: &str) -> Option<u32> {
    groups(group)
        .find(|(name, ..)| *name == asked)
        .map(|(_, gid, _)| gid)
        .or_else(|| id(asked))
}

fn memberships(group: &str, user: &str) -> Vec<u32> {
    let mut found: Vec<u32> = groups(group)
        .filter(|(_, _, members)| members.split(',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
        .take(MOST_GROUPS)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// A decimal id. The highest number means "no change" to the kernel.
fn id(text: &str) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\n\
        app:x:1000:1001:An app:/home/app:/bin/sh\n99:x:7:8::/seven:/bin/sh\nbare:x:5:6:::\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\naudio:x:29:app\nstaff:x:50:\n";

    fn ids(asked: &str) -> Option<(u32, u32, Vec<u32>)> {
        let user = User::of(asked, PASSWD, GROUP).ok()?;
        Some((user.uid, user.gid, user.groups))
    }

    #[test]
    fn names_and_numbers_are_found_as_docker_finds_them() {
        assert_eq!(ids("app"), Some((1000, 1001, vec![10, 29])));
        assert_eq!(ids("1000"), Some((1000, 1001, vec![10, 29])));
        assert_eq!(ids("app:staff"), Some((1000, 50, vec![])));
        assert_eq!(ids("app:77"), Some((1000, 77, vec![])));
        assert_eq!(ids("4242"), Some((4242, 0, vec![])));
        assert_eq!(ids("4242:staff"), Some((4242, 50, vec![])));
        // A name that looks like a number is a name.
        assert_eq!(ids("99"), Some((7, 8, vec![])));
        assert_eq!(ids("root"), Some((0, 0, vec![10])));
    }

    #[test]
    fn who_is_not_there_is_refused() {
        for asked in [
            "",
            ":",
            "nobody",
            "app:",
            ":staff",
            "app:nogroup",
            "-1",
            "+1",
            "4294967295",
            "99999999999",
            "1000 ",
            "broken",
        ] {
            assert!(
                matches!(
                    User::of(asked, PASSWD, GROUP),
                    Err(Error::InvalidInput { .. })
                ),
                "{asked:?}"
            );
        }
    }

    #[test]
    fn home_and_name_come_from_the_account() {
        let home = |asked, passwd| {
            let user = User::of(asked, passwd, GROUP).unwrap();
            (user.name, user.home)
        };
        let pair = |name: &str, home: &str| (name.to_owned(), home.to_owned());
        assert_eq!(home("1000", PASSWD), pair("app", "/home/app"));
        assert_eq!(home("bare", PASSWD), pair("bare", "/"));
        assert_eq!(home("4242", PASSWD), pair("4242", "/"));
        assert_eq!(home("root", ""), pair("root", "/root"));
    }
}
