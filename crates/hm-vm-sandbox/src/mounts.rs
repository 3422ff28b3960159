//! What a command sees in its tree beside the VM's files: caches and secrets.
//!
//! All of it is put together below `/dev`, which is a file system in memory of each launch, and shown at its
//! place once the host's root is out of reach: the guest's own links lie on the way there. What is missing of
//! a place is made, and stays behind in the VM's files as an empty directory or file. Secrets that
//! all lie directly in `/run/secrets` are shown there together, so that only that directory stays.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use hm_vm_core::{Error, Mount, Secret};
use hm_vm_store::{CacheLock, Store};
use hm_vm_sys::launch::{Concealed, Op};

use crate::environment::text;
use crate::error::contract;
use crate::plan::{bind, c, flag, mount};

/// Where secrets are by default.
const SECRETS: &str = "/run/secrets";

/// Where this launch's secrets lie until they are shown.
const SECRETS_PLACE: &str = "/dev/.secrets";

/// Bytes of all secrets of one command.
const MOST_SECRET_BYTES: usize = 16 << 20;

/// Longest target: paths of the kernel end at 4096.
const LONGEST_TARGET: usize = 4000;

/// The mounts of one command, looked at and in order: outer ones before those that lie inside of them. Caches
/// are not removed meanwhile.
#[derive(Debug)]
pub(crate) struct Mounts {
    places: BTreeMap<PathBuf, What>,
}

#[derive(Debug)]
enum What {
    Cache(CacheLock),
    Secret(Secret),
}

impl Mounts {
    /// Checks what is asked for, and makes caches that are not there yet.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] for a target that cannot be, or is there twice, and for too many bytes of
    /// secrets.
    pub(crate) fn new(asked: &[Mount], store: &Store) -> Result<Self> {
        let mut places = BTreeMap::new();
        let mut secret_bytes = 0;
        for mount in asked {
            let (target, what) = match mount {
                Mount::Cache { name, target } => {
                    let place = checked_target(target)?;
                    let cache = store.use_cache(name).map_err(contract)?;
                    (place, What::Cache(cache))
                }
                Mount::Secret { target, content } => {
                    secret_bytes += content.expose().len();
                    (checked_target(target)?, What::Secret(content.clone()))
                }
                _ => {
                    return Err(Error::Unsupported {
                        what: "this kind of mount".into(),
                    }
                    .into());
                }
            };
            if places.insert(target.clone(), what).is_some() {
                return Err(refuse(&target, "there are two mounts at this place").into());
            }
        }
        if secret_bytes > MOST_SECRET_BYTES {
            return Err(Error::InvalidInput {
                what: "the secrets".into(),
                reason: format!("together they have more than {MOST_SECRET_BYTES} bytes"),
            }
            .into());
        }
        Ok(Self { places })
    }

    /// The operations while the old root is the working directory: brings the store's directories over.
    pub(crate) fn fetch(&self, store: &Path, user: (u32, u32), ops: &mut Vec<Op>) {
        for (number, what) in self.places.values().enumerate() {
            let What::Cache(cache) = what else {
                continue;
            };
            let place = cache_place(number);
            let source = store.join(cache.directory());
            let source = source.strip_prefix("/").unwrap_or(&source);
            ops.push(Op::MakeDirectory {
                path: c(&place),
                mode: 0o700,
            });
            ops.push(bind(&source.to_string_lossy(), &place, 0));
            if user.0 != 0 {
                // The cache itself, not what is in it: that belongs to whoever wrote it.
                ops.push(Op::Own {
                    path: c(&place),
                    uid: user.0,
                    gid: user.1,
                });
            }
        }
    }

    /// The operations after the old root is gone: shows everything at its place.
    pub(crate) fn show(&self, user: (u32, u32), ops: &mut Vec<Op>) -> Result<()> {
        let together = self.all_secrets_are_in_one_place();
        let has_secrets = self.secrets().next().is_some();
        if has_secrets {
            self.write_secrets(user, together, ops)?;
        }
        let mut secrets_shown = false;
        for (number, (target, what)) in self.places.iter().enumerate() {
            let (source, target, directory) = match what {
                What::Cache(_) => (cache_place(number), target.as_path(), true),
                What::Secret(_) if together => {
                    if std::mem::replace(&mut secrets_shown, true) {
                        continue;
                    }
                    (SECRETS_PLACE.into(), Path::new(SECRETS), true)
                }
                What::Secret(_) => (format!("{SECRETS_PLACE}/{number}"), target.as_path(), false),
            };
            ops.push(Op::Show {
                source: c(&source),
                target: c_path(target)?,
                directory,
                read_only: matches!(what, What::Secret(_)),
                owner: user,
            });
            if matches!(what, What::Cache(_)) {
                ops.push(Op::Unmount(c(&source)));
            }
        }
        if has_secrets {
            ops.push(Op::Unmount(c(SECRETS_PLACE)));
        }
        Ok(())
    }

    fn write_secrets(&self, user: (u32, u32), together: bool, ops: &mut Vec<Op>) -> Result<()> {
        const PAGE: usize = 4096;
        // Each file takes whole pages, and an inode; so does the directory.
        let pages: usize = self
            .secrets()
            .map(|(.., secret)| secret.expose().len().div_ceil(PAGE) + 1)
            .sum();
        let data = format!(
            "mode=700,size={},nr_inodes={},uid={},gid={}",
            (pages + 1) * PAGE,
            self.secrets().count() + 2,
            user.0,
            user.1
        );
        ops.push(Op::MakeDirectory {
            path: c(SECRETS_PLACE),
            mode: 0o700,
        });
        ops.push(mount("tmpfs", SECRETS_PLACE, "tmpfs", IN_MEMORY, &data));
        for (number, target, secret) in self.secrets() {
            let path = match target.file_name() {
                Some(name) if together => Path::new(SECRETS_PLACE).join(name),
                _ => Path::new(SECRETS_PLACE).join(number.to_string()),
            };
            ops.push(Op::WriteSecret {
                path: c_path(&path)?,
                content: Concealed::new(Exposed(secret.clone())),
                owner: user,
            });
        }
        Ok(())
    }

    fn secrets(&self) -> impl Iterator<Item = (usize, &Path, &Secret)> {
        let places = self.places.iter().enumerate();
        places.filter_map(|(number, (target, what))| match what {
            What::Cache(_) => None,
            What::Secret(secret) => Some((number, target.as_path(), secret)),
        })
    }

    /// And nothing else is in that place or over it.
    fn all_secrets_are_in_one_place(&self) -> bool {
        self.places.iter().all(|(target, what)| match what {
            What::Secret(_) => target.parent() == Some(Path::new(SECRETS)),
            What::Cache(_) => !target.starts_with(SECRETS),
        })
    }
}

const IN_MEMORY: u64 = flag::NOSUID | flag::NODEV | flag::NOEXEC;

/// The bytes of a secret, for the launch.
struct Exposed(Secret);

impl AsRef<[u8]> for Exposed {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

fn cache_place(number: usize) -> String {
    format!("/dev/.cache-{number}")
}

fn c_path(path: &Path) -> Result<CString, Error> {
    text(
        &String::from_utf8_lossy(path.as_os_str().as_bytes()),
        || format!("mount target {}", path.display()),
    )
}

fn refuse(target: &Path, reason: &str) -> Error {
    Error::InvalidInput {
        what: format!("mount target {:?}", target.display().to_string()),
        reason: reason.into(),
    }
}

/// The target without repeated slashes.
fn checked_target(target: &str) -> Result<PathBuf, Error> {
    let path = Path::new(target);
    let reason = if !path.is_absolute() {
        "must be an absolute path"
    } else if target.contains('\0') {
        "must not contain a zero byte"
    } else if target.split('/').any(|part| part == "..") {
        "must not contain \"..\""
    } else if target.len() > LONGEST_TARGET {
        "is too long"
    } else {
        let path: PathBuf = path.components().collect();
        let taken = ["/proc", "/dev", "/sys"];
        if path.parent().is_none() || taken.iter().any(|taken| path.starts_with(taken)) {
            "is a place of the VM's own"
        } else {
            return Ok(path);
        }
    };
    Err(refuse(path, reason))
}
