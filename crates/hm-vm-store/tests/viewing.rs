//! Reading, comparing and copying out, of trees that a hostile guest made.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use hm_vm_store::{Change, ChangeKind, CopyOptions, FileKind, StoreError};

use crate::common::{Fixture, read, upper, white_out, write};

#[test]
fn links_are_followed_inside_the_tree_only() {
    let fixture = Fixture::new();
    let vm = fixture.vm();
    let root = upper(&fixture.store, &vm);
    symlink("/etc", root.join("absolute")).unwrap();
    symlink("../../../../../../etc/hosts", root.join("climbing")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("/nowhere", root.join("dangling")).unwrap();
    let snapshot = vm.commit(None).unwrap();
    let view = fixture.store.view(&snapshot).unwrap();
    assert_eq!(read(&view, "/absolute/hosts"), "127.0.0.1 localhost\n");
    assert_eq!(read(&view, "/climbing"), "127.0.0.1 localhost\n");
    assert_eq!(read(&view, "/../../etc/hosts"), "127.0.0.1 localhost\n");
    for missing in ["/loop", "/dangling", "/etc/hosts/x", "/absolute/shadow"] {
        let error = view.metadata(Path::new(missing)).unwrap_err();
        assert!(
            matches!(error, StoreError::InvalidInput { .. }),
            "{error:?}"
        );
    }
    assert_eq!(
        view.read_link(Path::new("/absolute")).unwrap(),
        Path::new("/etc")
    );
    let link = view.symlink_metadata(Path::new("/loop")).unwrap();
    assert_eq!(link.kind, FileKind::Symlink);
    assert!(view.read_link(Path::new("/etc")).is_err());
    assert!(view.read_dir(Path::new("/etc/hosts")).is_err());
}

#[test]
fn deleted_and_replaced_directories_do_not_shine_through() {
    let fixture = Fixture::new();
    let vm = fixture.vm();
    white_out(&fixture.store, &vm, "etc");
    vm.commit(None).unwrap();
    write(&fixture.store, &vm, "etc/new", "1");
    let snapshot = vm.commit(None).unwrap();
    let view = fixture.store.view(&snapshot).unwrap();
    let names: Vec<_> = view
        .read_dir(Path::new("/etc"))
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(names, ["new"]);
}

#[test]
fn a_diff_lists_what_changed() {
    let fixture = Fixture::new();
    let vm = fixture.vm();
    write(&fixture.store, &vm, "same", "1");
    write(&fixture.store, &vm, "content", "1");
    write(&fixture.store, &vm, "mode", "1");
    write(&fixture.store, &vm, "type", "1");
    write(&fixture.store, &vm, "gone/a", "1");
    let before = vm.commit(None).unwrap();
    let root = upper(&fixture.store, &vm);
    write(&fixture.store, &vm, "same", "1");
    write(&fixture.store, &vm, "content", "2");
    write(&fixture.store, &vm, "mode", "1");
    fs::set_permissions(root.join("mode"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(root.join("type")).unwrap();
    white_out(&fixture.store, &vm, "gone");
    write(&fixture.store, &vm, "new/b", "1");
    let after = vm.commit(None).unwrap();
    let changes = fixture.store.diff(&before, &after).unwrap();
    let expected = |list: &[(ChangeKind, &str)]| -> Vec<Change> {
        list.iter()
            .map(|(kind, path)| Change {
                kind: *kind,
                path: path.into(),
            })
            .collect()
    };
    use ChangeKind::{Added, Changed, Deleted};
    assert_eq!(
        changes,
        expected(&[
            (Changed, "/content"),
            (Deleted, "/gone"),
            (Deleted, "/gone/a"),
            (Changed, "/mode"),
            (Added, "/new"),
            (Added, "/new/b"),
            (Changed, "/type"),
        ])
    );
    assert_eq!(fixture.store.diff(&before, &before).unwrap(), []);
    let back = fixture.store.diff(&after, &before).unwrap();
    assert_eq!(back.len(), changes.len());
}

#[test]
fn files_come_out_without_what_could_harm() {
    let fixture = Fixture::new();
    let vm = fixture.vm();
    let root = upper(&fixture.store, &vm);
    write(&fixture.store, &vm, "out/sub/file", "content");
    fs::set_permissions(
        root.join("out/sub/file"),
        fs::Permissions::from_mode(0o4755),
    )
    .unwrap();
    symlink("/etc/passwd", root.join("out/link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("out/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let snapshot = vm.commit(None).unwrap();
    let dest = fixture.directory.path().join("dest");
    let copy = |to: &Path| fixture.store.copy_out(&snapshot, Path::new("/out"), to);
    let report = copy(&dest).unwrap();
    assert_eq!(
        (report.files, report.directories, report.symlinks),
        (1, 2, 1)
    );
    assert_eq!(report.skipped, [Path::new("/out/fifo")]);
    let file = dest.join("sub/file");
    assert_eq!(fs::read_to_string(&file).unwrap(), "content");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(
        fs::read_link(dest.join("link")).unwrap(),
        Path::new("/etc/passwd")
    );
    assert!(!dest.join("fifo").exists());
    // Now that it exists, a second copy goes into it.
    copy(&dest).unwrap();
    assert!(dest.join("out/sub/file").exists());

    let options = CopyOptions {
        keep_special_bits: true,
    };
    let kept = fixture.directory.path().join("kept");
    let path = Path::new("/out/sub/file");
    fixture
        .store
        .copy_out_with(&snapshot, path, &kept, options)
        .unwrap();
    assert_eq!(fs::metadata(&kept).unwrap().mode() & 0o7777, 0o4755);
}

#[test]
fn nothing_is_written_through_a_link_at_the_destination() {
    let fixture = Fixture::new();
    let vm = fixture.vm();
    write(&fixture.store, &vm, "out/sub/file", "guest");
    write(&fixture.store, &vm, "out/top", "guest");
    let snapshot = vm.commit(None).unwrap();
    let host = fixture.directory.path().join("host");
    let victim = fixture.directory.path().join("victim");
    fs::create_dir_all(host.join("out")).unwrap();
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), "precious").unwrap();
    let copy = |guest: &str| fixture.store.copy_out(&snapshot, Path::new(guest), &host);
    symlink(&victim, host.join("out/sub")).unwrap();
    assert!(matches!(copy("/out"), Err(StoreError::InvalidInput { .. })));
    fs::remove_file(host.join("out/sub")).unwrap();
    let _ = fs::remove_file(host.join("out/top"));
    symlink(victim.join("file"), host.join("out/top")).unwrap();
    assert!(matches!(copy("/out"), Err(StoreError::InvalidInput { .. })));
    symlink(victim.join("file"), host.join("top")).unwrap();
    assert!(matches!(
        copy("/out/top"),
        Err(StoreError::InvalidInput { .. })
    ));
    assert_eq!(fs::read_to_string(victim.join("file")).unwrap(), "precious");
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
    // A regular file is replaced, not written to: a hard link to it keeps its content.
    fs::remove_file(host.join("top")).unwrap();
    fs::hard_link(victim.join("file"), host.join("top")).unwrap();
    copy("/out/top").unwrap();
    assert_eq!(fs::read_to_string(host.join("top")).unwrap(), "guest");
    assert_eq!(fs::read_to_string(victim.join("file")).unwrap(), "precious");
}

#[test]
fn holes_stay_holes() {
    let fixture = Fixture::new();
    let vm = fixture.vm();
    let path = upper(&fixture.store, &vm).join("sparse");
    let file = fs::File::create(&path).unwrap();
    file.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", (64 << 20) - 3).unwrap();
    let snapshot = vm.commit(None).unwrap();
    let dest = fixture.directory.path().join("sparse");
    fixture
        .store
        .copy_out(&snapshot, Path::new("/sparse"), &dest)
        .unwrap();
    let copied = fs::metadata(&dest).unwrap();
    assert_eq!(copied.len(), 64 << 20);
    assert!(
        copied.blocks() * 512 < 1 << 20,
        "{} blocks",
        copied.blocks()
    );
    assert!(fs::read(&dest).unwrap().ends_with(b"end"));
}
