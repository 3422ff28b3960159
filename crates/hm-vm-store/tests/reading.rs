//! Files of a VM at rest.

use std::fs;
use std::os::unix::fs::symlink;

use hm_vm_store::StoreError;

use crate::common::{Fixture, upper, white_out, write};

const LIMIT: u64 = 64;

#[test]
fn a_file_is_read_as_the_next_command_finds_it() {
    let fixture = Fixture::new();
    let vm = fixture.vm();
    let read = |path: &str| {
        let content = vm.read_file(None, path, LIMIT).unwrap();
        content.map(|bytes| String::from_utf8(bytes).unwrap())
    };
    assert_eq!(read("/etc/passwd").as_deref(), Some("root:x:0:0\n"));
    assert_eq!(read("/no/such"), None);
    write(&fixture.store, &vm, "etc/passwd", "new");
    assert_eq!(read("/etc/passwd").as_deref(), Some("new"));
    // A link that says the root means the guest's.
    let upper = upper(&fixture.store, &vm);
    symlink("/etc/../../etc/passwd", upper.join("link")).unwrap();
    assert_eq!(read("/link").as_deref(), Some("new"));
    vm.commit(None).unwrap();
    assert_eq!(read("/link").as_deref(), Some("new"));
    white_out(&fixture.store, &vm, "etc/passwd");
    assert_eq!(read("/etc/passwd"), None);
    // The VM may write elsewhere.
    let elsewhere = fixture.directory.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("etc")).unwrap();
    fs::write(elsewhere.join("etc/passwd"), "other").unwrap();
    let content = vm.read_file(Some(&elsewhere), "/etc/passwd", LIMIT);
    assert_eq!(content.unwrap().as_deref(), Some(b"other".as_slice()));
}

#[test]
fn what_is_no_small_file_is_refused() {
    let fixture = Fixture::new();
    let vm = fixture.vm();
    let outside = fixture.directory.path().join("outside");
    fs::write(&outside, "secret").unwrap();
    let upper = upper(&fixture.store, &vm);
    symlink(&outside, upper.join("out")).unwrap();
    assert_eq!(vm.read_file(None, "/out", LIMIT).unwrap(), None);
    symlink("loop", upper.join("loop")).unwrap();
    write(&fixture.store, &vm, "large", &"x".repeat(65));
    write(&fixture.store, &vm, "whole", &"x".repeat(64));
    assert!(vm.read_file(None, "/whole", LIMIT).unwrap().is_some());
    let fifo = upper.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    for path in ["/large", "/etc", "/", "/fifo", "/loop", "/large/below"] {
        let refused = vm.read_file(None, path, LIMIT);
        assert!(
            matches!(refused, Err(StoreError::InvalidInput { .. })),
            "{path}: {refused:?}"
        );
    }
    vm.remove().unwrap();
    assert!(vm.read_file(None, "/etc/passwd", LIMIT).is_err());
}
