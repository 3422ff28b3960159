//! What a command finds around itself: its environment, and the files about the network.

use std::collections::BTreeMap;
use std::ffi::CString;

use hm_vm_core::Error;

use crate::user::User;

/// Name of every VM. Not unique: it must not make two runs of one command differ.
pub(crate) const HOST_NAME: &str = "hm-vm";

/// The environment of a command that declares none.
const DEFAULT: [(&str, &str); 4] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/root"),
    ("USER", "root"),
    ("LANG", "C.UTF-8"),
];

/// The declared environment over the image's, and that over the default one of the user (root without), as
/// `NAME=value`.
///
/// # Errors
///
/// [`Error::InvalidInput`] for a name that is empty or has `=` or a zero byte in it, and for a
/// value with a zero byte.
pub(crate) fn environment(
    image: &[(String, String)],
    declared: &[(String, String)],
    user: Option<&User>,
) -> Result<Vec<CString>, Error> {
    let mut all: BTreeMap<&str, &str> = DEFAULT.into_iter().collect();
    if let Some(user) = user {
        let name = user.name.as_str();
        all.extend([
            ("HOME", user.home.as_str()),
            ("USER", name),
            ("LOGNAME", name),
        ]);
    }
    for (name, value) in image.iter().chain(declared) {
        if name.is_empty() || name.contains('=') {
            return Err(Error::InvalidInput {
                what: format!("environment variable {name:?}"),
                reason: "a name must not be empty, and must not contain \"=\"".into(),
            });
        }
        all.insert(name, value);
    }
    all.into_iter()
        .map(|(name, value)| {
            text(&format!("{name}={value}"), || {
                format!("environment variable {name:?}")
            })
        })
        .collect()
}

/// `text` for the kernel. `what` names it if it has a zero byte.
pub(crate) fn text(text: &str, what: impl FnOnce() -> String) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::InvalidInput {
        what: what(),
        reason: "must not contain a zero byte".into(),
    })
}

/// A file of `/etc` that the VM sees in place of its image's, and that no snapshot keeps.
#[derive(Debug, Clone)]
pub(crate) struct ProvidedFile {
    /// Its name in `/etc`.
    pub(crate) name: &'static str,
    /// Its content.
    pub(crate) content: Vec<u8>,
}

/// The files that every VM gets. `names` lead to the loopback interface.
pub(crate) fn provided_files(resolv_conf: String, names: &[String]) -> Vec<ProvidedFile> {
    let mut hosts = format!(
        "127.0.0.1\tlocalhost\n127.0.1.1\t{HOST_NAME}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    );
    for name in names {
        hosts.push_str(&format!("127.0.0.1\t{name}\n"));
    }
    let file = |name, content: String| ProvidedFile {
        name,
        content: content.into_bytes(),
    };
    vec![
        file("hosts", hosts),
        file("hostname", format!("{HOST_NAME}\n")),
        file("resolv.conf", resolv_conf),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    #[test]
    fn declared_wins_over_default_and_later_over_earlier() {
        let image = [pair("X", "0"), pair("Y", "image"), pair("LANG", "image")];
        let env = environment(
            &image,
            &[pair("PATH", "/a"), pair("X", "1"), pair("X", "2=3\n")],
            None,
        )
        .expect("valid");
        assert!(env.contains(&c"PATH=/a".into()));
        assert!(env.contains(&c"X=2=3\n".into()));
        assert!(env.contains(&c"HOME=/root".into()));
        assert!(env.contains(&c"Y=image".into()));
        assert!(env.contains(&c"LANG=image".into()));
        assert_eq!(env.len(), 6);
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        for (name, value) in [("", "x"), ("a=b", "x"), ("a\0", "x"), ("a", "\0")] {
            assert!(
                environment(&[], &[pair(name, value)], None).is_err(),
                "{name:?}={value:?}"
            );
        }
    }
}
