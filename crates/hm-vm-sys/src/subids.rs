//! Subordinate ids of users: `subuid(5)`, `subgid(5)`.

use std::fs;

use crate::userns::{IdRange, RANGE_SIZE};

/// The maps of an ordinary user: itself as root, its subordinate ids above.
pub(crate) fn user_ranges(uid: u32, gid: u32) -> Result<(Vec<IdRange>, Vec<IdRange>), String> {
    let name = user_name(uid).unwrap_or_else(|| uid.to_string());
    let ranges = |file: &str, own: u32| {
        let (start, count) = subordinate_range(file, &name, uid)
            .ok_or_else(|| format!("{file} has no range for user {name}"))?;
        Ok(vec![
            IdRange {
                inside: 0,
                outside: own,
                count: 1,
            },
            IdRange {
                inside: 1,
                outside: start,
                count: count.min(RANGE_SIZE - 1),
            },
        ])
    };
    let uids: Result<_, String> = ranges("/etc/subuid", uid);
    Ok((uids?, ranges("/etc/subgid", gid)?))
}

fn user_name(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The largest range that the file gives to a user, named or by number: `subuid(5)`.
pub(crate) fn subordinate_range(file: &str, name: &str, uid: u32) -> Option<(u32, u32)> {
    let text = fs::read_to_string(file).ok()?;
    let number = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let start: u32 = fields.next()?.parse().ok()?;
            let count: u32 = fields.next()?.parse().ok()?;
            let fits = start.checked_add(count).is_some() && count > 0;
            (fits && (owner == name || owner == number)).then_some((start, count))
        })
        .max_by_key(|(_, count)| *count)
}
