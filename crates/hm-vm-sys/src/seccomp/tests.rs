//! The filter is tried on threads: it applies to one thread, and ends with it.

use std::io;
use std::time::Instant;

use super::{assembler, default_filter, rules};

/// Runs one system call under the filter; the errno, or 0 for success.
fn under_filter(number: libc::c_long, arguments: [libc::c_long; 6]) -> i32 {
    std::thread::spawn(move || {
        default_filter().unwrap().install_on_this_thread().unwrap();
        let [a, b, c, d, e, f] = arguments;
        // SAFETY: the tests below only make calls that are refused before the kernel looks at
        // their arguments, or whose arguments are plain numbers.
        let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
        if result < 0 {
            io::Error::last_os_error().raw_os_error().unwrap()
        } else {
            0
        }
    })
    .join()
    .unwrap()
}

#[test]
fn ordinary_work_goes_on() {
    std::thread::spawn(|| {
        default_filter().unwrap().install_on_this_thread().unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "x").unwrap();
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"x");
        let output = std::process::Command::new("sh")
            .args(["-c", "echo $((40 + 2)) | cat; exit 7"])
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"42\n");
        assert_eq!(output.status.code(), Some(7));
        // A thread under the filter can start more of them, although clone3 is refused.
        std::thread::spawn(|| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
            .join()
            .unwrap();
    })
    .join()
    .unwrap();
}

#[test]
fn calls_that_reach_beyond_the_vm_get_eperm() {
    for number in [
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_fsopen,
        libc::SYS_open_tree,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_init_module,
        libc::SYS_kexec_load,
        libc::SYS_open_by_handle_at,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_pidfd_getfd,
    ] {
        assert_eq!(under_filter(number, [-1; 6]), libc::EPERM, "call {number}");
    }
}

#[test]
fn unknown_calls_and_clone3_get_enosys() {
    for number in [libc::SYS_clone3, 423, 499, 5000, 0x4000_0000, 0x7FFF_FFFF] {
        assert_eq!(under_filter(number, [0; 6]), libc::ENOSYS, "call {number}");
    }
}

#[test]
fn a_clone_with_a_new_namespace_gets_eperm() {
    for flag in [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ] {
        let flags = libc::c_long::from(flag | libc::SIGCHLD);
        assert_eq!(
            under_filter(libc::SYS_clone, [flags, 0, 0, 0, 0, 0]),
            libc::EPERM,
            "{flag:#x}"
        );
    }
}

#[test]
fn personality_takes_dockers_values_only() {
    let query = 0xFFFF_FFFF;
    assert_eq!(
        under_filter(libc::SYS_personality, [query, 0, 0, 0, 0, 0]),
        0
    );
    assert_eq!(under_filter(libc::SYS_personality, [0, 0, 0, 0, 0, 0]), 0);
    // READ_IMPLIES_EXEC
    let refused = 0x40_0000;
    assert_eq!(
        under_filter(libc::SYS_personality, [refused, 0, 0, 0, 0, 0]),
        libc::EPERM
    );
}

#[test]
fn socket_families_that_leave_the_vm_get_eperm() {
    let stream = libc::c_long::from(libc::SOCK_STREAM);
    for family in [libc::AF_ALG, libc::AF_VSOCK] {
        assert_eq!(
            under_filter(libc::SYS_socket, [family.into(), stream, 0, 0, 0, 0]),
            libc::EPERM
        );
    }
    for family in [libc::AF_UNIX, libc::AF_INET] {
        assert_eq!(
            under_filter(libc::SYS_socket, [family.into(), stream, 0, 0, 0, 0]),
            0
        );
    }
}

#[test]
fn typing_into_a_terminal_gets_eperm() {
    // On a bad descriptor, so that only the filter can answer EPERM.
    for request in [0x5412, 0x541C, 0x7_0000_5412] {
        assert_eq!(
            under_filter(libc::SYS_ioctl, [-1, request, 0, 0, 0, 0]),
            libc::EPERM
        );
    }
    let tcgets = 0x5401;
    assert_eq!(
        under_filter(libc::SYS_ioctl, [-1, tcgets, 0, 0, 0, 0]),
        libc::EBADF
    );
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_call_of_i386_kills_the_process() {
    let filter = default_filter().unwrap();
    // SAFETY: needed since the filter kills the whole process. The child makes system calls only,
    // all of them safe after a fork of a threaded program.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let status = i32::from(filter.install_on_this_thread().is_err());
        // SAFETY: number 20 of i386 is getpid; rbx is not touched. Killed, or returns a number.
        unsafe {
            std::arch::asm!("int 0x80", inout("rax") 20_i64 => _, out("r8") _, out("r9") _,
                out("r10") _, out("r11") _);
            libc::_exit(10 + status);
        }
    }
    let mut status = 0;
    // SAFETY: waits for our own child; `status` is a valid place for the answer.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFSIGNALED(status), "status {status:#x}");
    assert_eq!(libc::WTERMSIG(status), libc::SIGSYS);
}

#[test]
fn the_program_is_short() {
    let program = default_filter().unwrap();
    assert!(program.as_raw().len() < 600, "{program:?}");
    assert_eq!(
        usize::from(program.as_sock_fprog().len),
        program.as_raw().len()
    );
    assert!(std::ptr::eq(program, default_filter().unwrap()));
}

/// Prints what building and installing cost; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn measure() {
    let start = Instant::now();
    for _ in 0..1000 {
        let regions = rules::regions().unwrap();
        std::hint::black_box(assembler::assemble(rules::AUDIT_ARCH, &regions).unwrap());
    }
    println!("build {:?}", start.elapsed() / 1000);
    let program = default_filter().unwrap();
    let mut times: Vec<_> = (0..200)
        .map(|_| {
            std::thread::spawn(|| {
                let start = Instant::now();
                program.install_on_this_thread().unwrap();
                start.elapsed()
            })
            .join()
            .unwrap()
        })
        .collect();
    times.sort_unstable();
    println!("install median {:?}, {program:?}", times[100]);
    std::thread::spawn(|| {
        let calls = || {
            let start = Instant::now();
            for _ in 0..1_000_000 {
                // SAFETY: takes no argument and changes nothing.
                unsafe { libc::syscall(libc::SYS_getppid) };
            }
            start.elapsed() / 1_000_000
        };
        let before = calls();
        default_filter().unwrap().install_on_this_thread().unwrap();
        println!("getppid {before:?} without, {:?} with the filter", calls());
    })
    .join()
    .unwrap();
}
