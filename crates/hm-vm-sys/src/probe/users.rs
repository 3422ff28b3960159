//! Subordinate ids, and the programs that map them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::Fact;

/// How many ids an image may use.
const WANTED: u64 = 65_536;

/// The ids that a file in the form of `/etc/subuid` gives to a user, by name or number.
pub(super) fn count_ids(text: &str, user: &str, uid: u32) -> u64 {
    let number = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut parts = line.trim().split(':');
            let (owner, _, count) = (parts.next()?, parts.next()?, parts.next()?);
            (owner == user || owner == number).then(|| count.parse::<u64>().ok())?
        })
        .max()
        .unwrap_or(0)
}

/// The name of a user in the text of `/etc/passwd`.
pub(super) fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut parts = line.split(':');
        let (name, _, number) = (parts.next()?, parts.next()?, parts.next()?);
        (number.parse() == Ok(uid)).then_some(name)
    })
}

pub(super) fn subordinate_ids() -> Fact {
    let name = "subordinate ids";
    let uid = rustix::process::getuid().as_raw();
    if uid == 0 {
        return Fact::ok(name, "not needed: root maps a range of its own");
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let number = uid.to_string();
    let user = user_name(&passwd, uid).unwrap_or(&number);
    let count = |path: &str| count_ids(&fs::read_to_string(path).unwrap_or_default(), user, uid);
    let (uids, gids) = (count("/etc/subuid"), count("/etc/subgid"));
    if uids.min(gids) >= WANTED {
        return Fact::ok(
            name,
            format!("{uids} user ids and {gids} group ids for {user}"),
        );
    }
    Fact::degraded(
        name,
        format!(
            "{user} has {uids} user ids and {gids} group ids of {WANTED}: without them, all files \
             in a VM belong to its root"
        ),
        format!("sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"),
    )
}

pub(super) fn mapping_programs() -> Fact {
    let name = "newuidmap and newgidmap";
    if rustix::process::getuid().is_root() {
        return Fact::ok(name, "not needed by root");
    }
    for program in ["newuidmap", "newgidmap"] {
        let found = ["/usr/bin", "/bin", "/usr/local/bin"]
            .into_iter()
            .map(|dir| Path::new(dir).join(program))
            .find_map(|path| fs::metadata(&path).ok().map(|metadata| (path, metadata)));
        let Some((path, metadata)) = found else {
            let fix = "sudo apt-get install uidmap (elsewhere: the package shadow-utils or shadow)";
            return Fact::degraded(name, format!("{program} is not installed"), fix);
        };
        let set_user_id = metadata.permissions().mode() & 0o4000 != 0;
        let mut value = [0; 64];
        let capable = rustix::fs::getxattr(&path, "security.capability", &mut value).is_ok();
        if !set_user_id && !capable {
            return Fact::degraded(
                name,
                format!(
                    "{} has neither the set-user-id bit nor capabilities",
                    path.display()
                ),
                format!("sudo chmod u+s {}", path.display()),
            );
        }
    }
    Fact::ok(name, "installed, with the rights that they need")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_range_of_the_user_counts() {
        let text = "bob:100000:65536\nalice:200000:10\nalice:300000:70000\n1001:5:7\nbroken\n";
        assert_eq!(count_ids(text, "alice", 1000), 70_000);
        assert_eq!(count_ids(text, "nobody", 1001), 7);
        assert_eq!(count_ids(text, "carol", 1002), 0);
        assert_eq!(
            user_name("root:x:0:0::/:/bin/sh\nal:x:7:7::/:/x\n", 7),
            Some("al")
        );
        assert_eq!(user_name("root:x:0:0::/:/bin/sh\n", 7), None);
    }
}
