//! File systems of limited size, for a VM's writable part.
//!
//! For root: an ext4 file system in a sparse file, on a loop device that the kernel lets go of with
//! its last user. It is mounted *detached*: nobody sees it but who has the descriptor, and what it
//! is moved to. So after a `kill -9` there is no mount and no loop device left, only the file.
//!
//! An ordinary user cannot use loop devices, whatever namespace they are in. A [`tmpfs`] can be
//! made in their user namespace instead; it takes memory, and keeps extended attributes of users,
//! which overlays need, only from Linux 6.6 on.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::error::SysError;

/// Least size that ext4 makes sense in.
const MIN_BYTES: u64 = 1 << 20;

/// Attempts to get a loop device, when others take the free ones first.
const ATTEMPTS: usize = 64;

// Of <linux/loop.h>.
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// Why disks cannot be limited here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; {fix}")]
pub struct DiskLimitUnavailable {
    /// Why not.
    pub reason: String,
    /// What the user can do about it.
    pub fix: String,
}

/// A file with a file system, attached to a loop device. Dropping it leaves the file; the device
/// is free again when all mounts of it are gone, too.
#[derive(Debug)]
pub struct LimitedDisk {
    device: PathBuf,
    file: OwnedFd,
}

impl LimitedDisk {
    /// Whether it works here, as far as can be said without trying. Reads only.
    ///
    /// # Errors
    ///
    /// With the reason.
    pub fn available() -> Result<(), DiskLimitUnavailable> {
        let no = |reason: &str, fix: &str| {
            Err(DiskLimitUnavailable {
                reason: reason.into(),
                fix: fix.into(),
            })
        };
        if !rustix::process::geteuid().is_root() {
            return no(
                "a limit of disk space needs a loop device, which only root can set up",
                "run as root, or leave the limit out",
            );
        }
        if !Path::new("/dev/loop-control").exists() {
            return no(
                "this kernel or container has no loop devices",
                "modprobe loop",
            );
        }
        if mkfs().is_none() {
            return no("mkfs.ext4 is not installed", "apt-get install e2fsprogs");
        }
        Ok(())
    }

    /// Makes a file with an empty ext4 file system of this size, whose root directory belongs to
    /// the user and group `owner` of the host. It has no journal: it is for data that is worthless
    /// after a crash. The file is sparse: it takes what is written to it.
    ///
    /// # Errors
    ///
    /// When the file exists, the size is below a mebibyte, or `mkfs.ext4` fails: then the file is
    /// gone again.
    pub fn format(image: &Path, bytes: u64, owner: (u32, u32)) -> Result<(), SysError> {
        let doing = || {
            format!(
                "making a file system of {bytes} bytes in {}",
                image.display()
            )
        };
        if bytes < MIN_BYTES {
            return Err(SysError::new(
                doing(),
                io::Error::from_raw_os_error(libc::EINVAL),
            ));
        }
        let mkfs = mkfs().ok_or_else(|| {
            let missing = "mkfs.ext4 is not installed (package e2fsprogs)";
            SysError::new(doing(), io::Error::new(io::ErrorKind::NotFound, missing))
        })?;
        let make = || -> io::Result<()> {
            // Blocks are written when they are needed, not now.
            let extended = format!(
                "lazy_itable_init=1,nodiscard,root_owner={}:{}",
                owner.0, owner.1
            );
            let output = Command::new(mkfs)
                .args(["-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode"])
                .args(["-E", &extended])
                .arg(image)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .output()?;
            if output.status.success() {
                Ok(())
            } else {
                let text = String::from_utf8_lossy(&output.stderr);
                Err(io::Error::other(text.trim().to_owned()))
            }
        };
        let file = File::create_new(image).map_err(|e| SysError::new(doing(), e))?;
        file.set_len(bytes).and_then(|()| make()).map_err(|e| {
            drop(fs::remove_file(image));
            SysError::new(doing(), e)
        })
    }

    /// Attaches a file that [`format`](Self::format) made to a free loop device.
    ///
    /// # Errors
    ///
    /// Without root or loop devices.
    pub fn attach(image: &Path) -> Result<Self, SysError> {
        let open = |path: &Path| {
            File::options()
                .read(true)
                .write(true)
                .open(path)
                .map_err(|e| SysError::new(format!("opening {}", path.display()), e))
        };
        let backing = open(image)?;
        let control = open(Path::new("/dev/loop-control"))?;
        for _ in 0..ATTEMPTS {
            let number = free_number(control.as_fd())
                .map_err(|e| SysError::new("finding a free loop device", e))?;
            let device = PathBuf::from(format!("/dev/loop{number}"));
            let file = open(&device)?;
            match configure(file.as_fd(), backing.as_fd()) {
                Ok(()) => {
                    return Ok(Self {
                        device,
                        file: file.into(),
                    });
                }
                // Somebody else was faster.
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
                Err(e) => {
                    let doing = format!("attaching {} to {}", image.display(), device.display());
                    return Err(SysError::new(doing, e));
                }
            }
        }
        Err(SysError::new(
            "finding a free loop device",
            io::Error::from_raw_os_error(libc::EBUSY),
        ))
    }

    /// The device, such as `/dev/loop3`.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// The device, opened.
    pub fn device_file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Mounts it, detached: the mount goes with the descriptor, unless it is attached somewhere by
    /// then (`move_mount`). Devices and set-user-id bits have no effect in it.
    ///
    /// # Errors
    ///
    /// When the file holds no file system.
    pub fn mount(&self) -> Result<OwnedFd, SysError> {
        let mount = || -> rustix::io::Result<OwnedFd> {
            let fs = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(fs.as_fd(), "source", self.device.as_path())?;
            // Inode tables are filled when used; no thread needs to do it for this short life.
            fsconfig_set_flag(fs.as_fd(), "noinit_itable")?;
            fsconfig_create(fs.as_fd())?;
            detached(&fs)
        };
        mount().map_err(|e| {
            SysError::new(
                format!("mounting the file system on {}", self.device.display()),
                e,
            )
        })
    }
}

/// Makes an empty file system in memory with room for `bytes` and `inodes`, mounted detached, as
/// [`LimitedDisk::mount`] does. Works for the root of a user namespace that owns its mount
/// namespace, too.
///
/// # Errors
///
/// Without that right, or before Linux 5.2.
pub fn tmpfs(bytes: u64, inodes: u64) -> Result<OwnedFd, SysError> {
    let mount = || -> rustix::io::Result<OwnedFd> {
        let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(fs.as_fd(), "source", "hm-vm")?;
        fsconfig_set_string(fs.as_fd(), "size", bytes.to_string())?;
        fsconfig_set_string(fs.as_fd(), "nr_inodes", inodes.to_string())?;
        fsconfig_set_string(fs.as_fd(), "mode", "0755")?;
        fsconfig_create(fs.as_fd())?;
        detached(&fs)
    };
    mount().map_err(|e| SysError::new(format!("mounting a tmpfs of {bytes} bytes"), e))
}

fn detached(fs: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn mkfs() -> Option<PathBuf> {
    ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"]
        .into_iter()
        .map(|dir| Path::new(dir).join("mkfs.ext4"))
        .find(|path| path.exists())
}

fn free_number(control: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: needed as rustix has no loop devices. The request takes no argument and returns a
    // number.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(number)
}

/// Needs Linux 5.8.
fn configure(device: BorrowedFd<'_>, backing: BorrowedFd<'_>) -> io::Result<()> {
    let config = LoopConfig {
        fd: backing.as_raw_fd().cast_unsigned(),
        block_size: 0,
        info: LoopInfo {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_AUTOCLEAR,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: needed as rustix has no loop devices. The kernel reads a `struct loop_config`, which
    // `config` is laid out as, and which lives until the call returns.
    let result = unsafe {
        libc::ioctl(
            device.as_raw_fd(),
            LOOP_CONFIGURE,
            std::ptr::from_ref(&config),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::time::{Duration, Instant};

    use rustix::fs::{Mode, OFlags, fstat, openat};

    use super::*;

    fn available() -> bool {
        let Err(reason) = LimitedDisk::available() else {
            return true;
        };
        assert!(
            std::env::var_os("HMVM_TEST_REQUIRE_ALL").is_none(),
            "{reason}"
        );
        eprintln!("SKIPPED: {reason}");
        false
    }

    /// Writes until there is no space, and returns how much went in.
    fn fill(mount: &OwnedFd, path: &str) -> u64 {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(mount, path, flags, Mode::RUSR | Mode::WUSR).unwrap();
        let mut file = File::from(file);
        let mut written = 0;
        loop {
            match file.write(&[7; 65536]) {
                Ok(count) => written += count as u64,
                Err(e) => {
                    assert_eq!(e.kind(), io::ErrorKind::StorageFull);
                    return written;
                }
            }
        }
    }

    /// Waits until no loop device has the file: the kernel may finish that a moment later.
    fn wait_until_released(image: &Path) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let in_use = || {
            (0..64).any(|number| {
                fs::read_to_string(format!("/sys/block/loop{number}/loop/backing_file"))
                    .is_ok_and(|text| text.trim().ends_with(image.to_str().unwrap()))
            })
        };
        while in_use() {
            assert!(
                Instant::now() < deadline,
                "{} is still attached",
                image.display()
            );
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_disk_has_its_size_and_its_owner_and_keeps_its_files() {
        if !available() {
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let image = temp.path().join("image");
        LimitedDisk::format(&image, 16 << 20, (1234, 5678)).unwrap();
        let disk = LimitedDisk::attach(&image).unwrap();
        let mount = disk.mount().unwrap();
        let root = fstat(&mount).unwrap();
        assert_eq!((root.st_uid, root.st_gid), (1234, 5678));
        let written = fill(&mount, "full");
        assert!((12 << 20..16 << 20).contains(&written), "{written}");
        drop(mount);
        drop(disk);
        wait_until_released(&image);

        let disk = LimitedDisk::attach(&image).unwrap();
        let mount = disk.mount().unwrap();
        let file = openat(&mount, "full", OFlags::RDONLY, Mode::empty()).unwrap();
        assert_eq!(fstat(&file).unwrap().st_size.cast_unsigned(), written);
        drop((file, mount, disk));
        wait_until_released(&image);
    }

    #[test]
    fn a_new_disk_takes_hardly_any_space() {
        if !available() {
            return;
        }
        use std::os::unix::fs::MetadataExt as _;
        let temp = tempfile::tempdir().unwrap();
        let image = temp.path().join("image");
        LimitedDisk::format(&image, 10 << 30, (0, 0)).unwrap();
        let metadata = fs::metadata(&image).unwrap();
        assert_eq!(metadata.len(), 10 << 30);
        assert!(
            metadata.blocks() * 512 < 16 << 20,
            "{}",
            metadata.blocks() * 512
        );
    }

    #[test]
    fn nothing_stays_after_a_kill() {
        const CHILD: &str = "HMVM_TEST_DISK_CHILD";
        if let Some(image) = std::env::var_os(CHILD) {
            let disk = LimitedDisk::attach(Path::new(&image)).unwrap();
            let _mount = disk.mount().unwrap();
            eprintln!("mounted");
            loop {
                std::thread::park();
            }
        }
        if !available() {
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let image = temp.path().join("image");
        LimitedDisk::format(&image, 8 << 20, (0, 0)).unwrap();
        let mut child = Command::new("/proc/self/exe")
            .args([
                "--exact",
                "disk::tests::nothing_stays_after_a_kill",
                "--nocapture",
            ])
            .env(CHILD, &image)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "mounted"));
        let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts().contains("/dev/loop"), "the mount is visible");
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until_released(&image);
    }

    #[test]
    fn what_is_no_file_system_is_refused() {
        if !available() {
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let image = temp.path().join("image");
        let error = LimitedDisk::format(&image, 100, (0, 0)).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EINVAL));
        assert!(!image.exists());
        fs::write(&image, vec![0; 1 << 20]).unwrap();
        assert!(LimitedDisk::format(&image, 8 << 20, (0, 0)).is_err());
        let disk = LimitedDisk::attach(&image).unwrap();
        let error = disk.mount().unwrap_err();
        assert!(error.to_string().contains("/dev/loop"), "{error}");
        drop(disk);
        wait_until_released(&image);
    }

    #[test]
    fn a_tmpfs_has_its_size() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let mount = tmpfs(1 << 20, 3).unwrap();
        assert_eq!(fill(&mount, "full"), 1 << 20);
        // The root directory is one, the file the second.
        let create = |name: &str| {
            openat(&mount, name, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).map(drop)
        };
        create("third").unwrap();
        assert_eq!(create("fourth").unwrap_err(), rustix::io::Errno::NOSPC);
    }

    #[test]
    #[ignore = "a measurement"]
    fn measure() {
        let temp = tempfile::tempdir().unwrap();
        for bytes in [1 << 30, 100 << 30] {
            let mut times: Vec<_> = (0..11)
                .map(|number| {
                    let image = temp.path().join(format!("{bytes}-{number}"));
                    let mut times = Vec::new();
                    let mut start = Instant::now();
                    let mut lap = || {
                        times.push(start.elapsed());
                        start = Instant::now();
                    };
                    LimitedDisk::format(&image, bytes, (0, 0)).unwrap();
                    lap();
                    let disk = LimitedDisk::attach(&image).unwrap();
                    lap();
                    let mount = disk.mount().unwrap();
                    lap();
                    drop(mount);
                    drop(disk);
                    lap();
                    times
                })
                .collect();
            times.sort_unstable();
            println!(
                "{} GiB: format, attach, mount, drop: {:?}",
                bytes >> 30,
                times[5]
            );
        }
        let start = Instant::now();
        drop(tmpfs(1 << 30, 1000).unwrap());
        println!("tmpfs {:?}", start.elapsed());
    }
}
