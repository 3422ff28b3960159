//! Layers as archives.

use std::fs;
use std::os::unix::net::UnixListener;

use hm_vm_core::{CancelCause, Cancellation};
use hm_vm_oci::Compression;
use hm_vm_store::{ExportOptions, StoreError};
use rustix::fs::XattrFlags;

use super::support::{LONG, Memory, entries, fill, set_times};
use crate::common::{Fixture, is_root_or_skip, upper, write};

/// The archive of the topmost layer.
fn top(compression: Compression) -> (Memory, Vec<u8>) {
    let fixture = Fixture::new();
    let vm = fixture.vm();
    fill(&fixture.store, &vm);
    let snapshot = vm.commit(None).unwrap();
    let memory = Memory::default();
    let options = ExportOptions {
        compression,
        ..ExportOptions::default()
    };
    let report = fixture
        .store
        .export_snapshot(&snapshot, &memory, &options)
        .unwrap();
    assert_eq!((report.layers, report.notices), (2, Vec::new()));
    let archive = memory.layer(1);
    (memory, archive)
}

#[test]
fn a_layer_is_the_same_on_every_machine() {
    let (memory, archive) = top(Compression::Zstd);
    let (other, again) = top(Compression::Gzip);
    assert_eq!(archive, again);
    let diff_id = memory.config().rootfs.diff_ids[1];
    assert_eq!(diff_id, other.config().rootfs.diff_ids[1]);
    // Changing this means that all layers that others have are made and sent again.
    assert_eq!(
        diff_id.to_string(),
        "sha256:2682689a17aaa4393f5e56678a375b5457a8c9ce8241ad120de0761ec436e540"
    );
}

#[test]
fn marks_links_times_and_attributes_are_as_the_oci_has_them() {
    let (_, archive) = top(Compression::None);
    let found = entries(&archive);
    let names: Vec<String> = found
        .keys()
        .map(|name| String::from_utf8_lossy(name).replace(LONG, "LONG"))
        .collect();
    assert_eq!(
        names,
        [
            "./",
            "d/",
            "d/LONG/",
            "d/LONG/LONG/",
            "d/LONG/LONG/f",
            "d/two",
            "etc/",
            "etc/.wh.hosts",
            "etc/motd",
            "holes",
            "link",
            "one",
            "pipe",
            "secret",
            "set-uid",
            "tmp/",
            "tmp/.wh..wh..opq",
            "tmp/new",
        ]
    );
    let at = |name: &str| &found[name.as_bytes()];
    assert_eq!(at("etc/.wh.hosts").size, 0);
    assert_eq!(at("etc/.wh.hosts").mtime, "0");
    // Things of a directory come before its directories.
    assert_eq!(
        (at("one").kind, at("one").size),
        (tar::EntryType::Regular, 5)
    );
    assert_eq!(at("d/two").kind, tar::EntryType::Link);
    assert_eq!(at("d/two").target, b"one");
    assert_eq!(at("link").target, LONG.as_bytes());
    assert_eq!(at("one").xattrs["user.note"], b"with\0and=");
    assert_eq!(at("d/").xattrs["user.dir"], b"");
    assert!(at("tmp/").xattrs.is_empty());
    assert_eq!(at("set-uid").mode, 0o4755);
    assert_eq!(at("secret").mode, 0);
    assert_eq!(at("pipe").kind, tar::EntryType::Fifo);
    assert_eq!(at("holes").size, 1 << 20);
    assert_eq!(at("one").mtime, "1000000000.0030003");
    assert_eq!(at("etc/motd").mtime, "-199999999.9969997");
    assert!(found.values().all(|entry| entry.owner == (0, 0)));
}

#[test]
fn owners_devices_and_capabilities_are_the_guests() {
    if !is_root_or_skip("owners_devices_and_capabilities_are_the_guests") {
        return;
    }
    let fixture = Fixture::new();
    let vm = fixture.vm();
    let upper = upper(&fixture.store, &vm);
    let at = |name: &str| upper.join(name);
    fs::write(at("plain"), "x").unwrap();
    std::os::unix::fs::chown(at("plain"), Some(1000), Some(3_000_000)).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o660);
    let device = rustix::fs::makedev(10, 200);
    let kind = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, at("tun"), kind, mode, device).unwrap();
    // cap_net_raw=ep, in version 2 and, of the namespace's root, in version 3.
    let version_2 = [&[1, 0, 0, 2, 0, 0x20][..], &[0; 14]].concat();
    let mut version_3 = [&version_2[..], &[0; 4]].concat();
    version_3[3] = 3;
    for (name, value) in [("v2", &version_2), ("v3", &version_3)] {
        fs::write(at(name), "x").unwrap();
        let name = at(name);
        rustix::fs::setxattr(name, "security.capability", value, XattrFlags::empty()).unwrap();
    }
    rustix::fs::setxattr(at("plain"), "trusted.x", b"x", XattrFlags::empty()).unwrap();
    let snapshot = vm.commit(None).unwrap();
    let memory = Memory::default();
    let options = ExportOptions::default();
    let exported = fixture.store.export_snapshot(&snapshot, &memory, &options);
    exported.unwrap();
    let archive = memory.layer(1);
    let found = entries(&archive);
    for name in ["v2", "v3"] {
        let xattrs = &found[name.as_bytes()].xattrs;
        assert_eq!(xattrs["security.capability"], version_2, "{name}");
    }
    assert!(found[&b"plain"[..]].xattrs.is_empty());
    assert_eq!(found[&b"tun"[..]].kind, tar::EntryType::Char);
    let mut members = tar::Archive::new(&archive[..]);
    for entry in members.entries().unwrap() {
        let mut entry = entry.unwrap();
        match &*entry.path_bytes() {
            b"tun" => {
                let header = entry.header();
                assert_eq!(header.device_major().unwrap(), Some(10));
                assert_eq!(header.device_minor().unwrap(), Some(200));
            }
            b"plain" => {
                assert_eq!(entry.header().uid().unwrap(), 1000);
                let extensions = entry.pax_extensions().unwrap().unwrap();
                let mut records = extensions.map(|record| record.unwrap());
                assert!(
                    records
                        .any(|record| record.key() == Ok("gid") && record.value() == Ok("3000000"))
                );
            }
            _ => {}
        }
    }
}

#[test]
fn sockets_are_left_out_and_told() {
    let fixture = Fixture::new();
    let vm = fixture.vm();
    let path = upper(&fixture.store, &vm).join("socket");
    drop(UnixListener::bind(path).unwrap());
    let snapshot = vm.commit(None).unwrap();
    let memory = Memory::default();
    let report = fixture
        .store
        .export_snapshot(&snapshot, &memory, &ExportOptions::default())
        .unwrap();
    assert_eq!(report.notices, ["the socket /socket was left out"]);
    let archive = memory.layer(1);
    assert_eq!(entries(&archive).len(), 1);
}

#[test]
fn a_file_that_would_be_taken_for_a_whiteout_is_refused() {
    let fixture = Fixture::new();
    let vm = fixture.vm();
    write(&fixture.store, &vm, "d/.wh.victim", "x");
    let snapshot = vm.commit(None).unwrap();
    let memory = Memory::default();
    let error = fixture
        .store
        .export_snapshot(&snapshot, &memory, &ExportOptions::default())
        .unwrap_err();
    assert!(matches!(error, StoreError::InvalidInput { .. }), "{error}");
    assert!(error.to_string().starts_with("/d/.wh.victim: "), "{error}");
    assert!(
        hm_vm_oci::Source::root(&memory).is_err(),
        "no image came of it"
    );
    crate::common::assert_clean(&fixture.store);
}

#[test]
fn an_export_ends_when_it_is_cancelled() {
    let fixture = Fixture::new();
    let vm = fixture.vm();
    // Longer than anybody would wait.
    let endless = upper(&fixture.store, &vm).join("endless");
    fs::File::create(endless).unwrap().set_len(1 << 43).unwrap();
    set_times(&upper(&fixture.store, &vm));
    let snapshot = vm.commit(None).unwrap();
    let cancel = Cancellation::new();
    let options = ExportOptions {
        cancel: cancel.clone(),
        ..ExportOptions::default()
    };
    let memory = Memory::default();
    let error = std::thread::scope(|scope| {
        let export = scope.spawn(|| fixture.store.export_snapshot(&snapshot, &memory, &options));
        cancel.cancel(CancelCause::User);
        export.join().unwrap().unwrap_err()
    });
    assert!(matches!(error, StoreError::Cancelled(_)), "{error}");
    crate::common::assert_clean(&fixture.store);
}
