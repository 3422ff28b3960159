//! Images of a Docker daemon.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;

use hm_vm_core::{CancelCause, Cancellation};
use hm_vm_oci::{DaemonOptions, OciError, Platform, open_daemon, read_blob, resolve};
use hm_vm_testkit::registry::{DockerDaemon, TestImage};
use hm_vm_testkit::require;
use hm_vm_testkit::roots::TestRoot;

fn options(socket: &Path, scratch: &Path) -> DaemonOptions {
    DaemonOptions {
        socket: socket.to_owned(),
        scratch: scratch.to_owned(),
        ..DaemonOptions::default()
    }
}

#[test]
fn a_daemons_image_is_the_one_that_it_was_given() {
    require!(DockerDaemon::need());
    require!(TestImage::need_tools());
    let root = TestRoot::new().unwrap();
    let image = TestImage::busybox(&root.join("layout")).unwrap();
    image.configure(&["--config.workingdir=/w"]).unwrap();
    let tar = root.join("x.tar");
    let copied = std::process::Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q"])
        .arg(format!("oci:{}", image.place()))
        .arg(format!("docker-archive:{}:o/x:1", tar.display()))
        .status()
        .unwrap();
    assert!(copied.success());
    let daemon = DockerDaemon::start().unwrap();
    daemon
        .docker(&["load", "--input", tar.to_str().unwrap()])
        .unwrap();
    let id = daemon
        .docker(&["image", "inspect", "--format={{.Id}}", "o/x:1"])
        .unwrap();
    let options = options(&daemon.socket(), root.path());
    let before = std::fs::read_dir(root.path()).unwrap().count();
    for name in ["o/x:1", id.as_str()] {
        let source = open_daemon(name, &options).unwrap();
        let found = resolve(&*source, &Platform::here()).unwrap();
        assert_eq!(found.config_digest.to_string(), id);
        let directory = found.config.config.unwrap().working_dir;
        assert_eq!(directory.as_deref(), Some("/w"));
        for layer in &found.manifest.layers {
            read_blob(&*source, layer, 1 << 30).unwrap();
        }
    }
    let missing = open_daemon("o/none", &options).unwrap_err();
    assert!(matches!(missing, OciError::NotFound { .. }), "{missing:?}");
    let small = DaemonOptions {
        limit: 1000,
        ..options.clone()
    };
    let error = open_daemon("o/x:1", &small).unwrap_err();
    assert!(error.to_string().contains("more than 1000"), "{error}");
    // The file without a name leaves nothing.
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), before);
}

#[test]
fn wrong_names_and_absent_daemons_are_told_apart() {
    let root = TestRoot::new().unwrap();
    let options = options(&root.join("none"), root.path());
    for name in ["", "a b", "a?b", "a/../b", "é", "a\n"] {
        let error = open_daemon(name, &options).unwrap_err();
        assert!(matches!(error, OciError::Invalid { .. }), "{error:?}");
    }
    let error = open_daemon("x", &options).unwrap_err();
    assert!(matches!(error, OciError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("No such file"), "{error}");
}

/// A daemon that answers once, with these bytes, and breaks off.
fn answer_once(socket: &Path, answer: &'static [u8]) -> std::thread::JoinHandle<()> {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).unwrap() > 0);
        stream.write_all(answer).unwrap();
    })
}

#[test]
fn answers_that_are_none_are_failures() {
    let root = TestRoot::new().unwrap();
    let cases: [(&[u8], &str); 3] = [
        (
            b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nsick",
            "500 Internal Server Error: sick",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\nhalf", ""),
        (b"nonsense\r\n\r\n", ""),
    ];
    for (number, (bytes, words)) in cases.into_iter().enumerate() {
        let socket = root.join(&number.to_string());
        let daemon = answer_once(&socket, bytes);
        let error = open_daemon("x", &options(&socket, root.path())).unwrap_err();
        daemon.join().unwrap();
        assert!(
            matches!(
                error,
                OciError::Answer { .. } | OciError::Unreachable { .. }
            ),
            "{error:?}"
        );
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_silent_daemon_is_left_when_cancelled() {
    let root = TestRoot::new().unwrap();
    let socket = root.join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let cancel = Cancellation::new();
    let options = DaemonOptions {
        cancel: cancel.clone(),
        ..options(&socket, root.path())
    };
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        cancel.cancel(CancelCause::User);
        // Open until the other side goes.
        let _ = stream.read(&mut [0; 1]);
    });
    let error = open_daemon("x", &options).unwrap_err();
    assert!(matches!(error, OciError::Cancelled(_)), "{error:?}");
}
