//! Other people's programs with what was exported.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use hm_vm_core::SnapshotId;
use hm_vm_oci::{
    ArchiveWriter, Compression, LayoutWriter, Reference, RegistryClient, RegistryOptions,
};
use hm_vm_store::{ExportOptions, FileKind, ImageFormat, Store, VmFiles};
use hm_vm_testkit::privilege::{need_program, need_root};
use hm_vm_testkit::registry::{DockerDaemon, RegistryServer, RegistrySetup, need_registry};
use hm_vm_testkit::require;
use tempfile::TempDir;

use super::support::fill;
use crate::common::upper;

/// A store with a snapshot in which there is a shell.
struct Built {
    directory: TempDir,
    store: Store,
    vm: VmFiles,
    snapshot: SnapshotId,
}

fn build() -> Built {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let root = directory.path().join("root");
    for name in ["bin", "etc", "tmp", "proc", "dev", "sys"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy(need_program("busybox").unwrap(), root.join("bin/busybox")).unwrap();
    for name in ["sh", "cat", "ls", "true"] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs::write(root.join("etc/hosts"), "x").unwrap();
    fs::write(root.join("tmp/old"), "x").unwrap();
    store.import_image(&root, "base").unwrap();
    let vm = store.new_vm(hm_vm_store::Base::Image("base")).unwrap();
    fill(&store, &vm);
    let snapshot = vm.commit(Some("first")).unwrap();
    Built {
        directory,
        store,
        vm,
        snapshot,
    }
}

fn options(compression: Compression) -> ExportOptions {
    ExportOptions {
        compression,
        env: [("GREETING".to_owned(), "good day".to_owned())].into(),
        working_dir: Some("/etc".into()),
        ..ExportOptions::default()
    }
}

/// What a command printed, which must have worked.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(need_program(program).unwrap())
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {text}{said}"
    );
    text
}

/// What is in a container of the image.
const LOOK: &str = "cat /etc/motd; cat two 2>/dev/null; echo $GREETING in $PWD; ls /tmp /d; \
                    test -e /etc/.wh.hosts || echo no marks";
const SEEN: &str = "hello\ngood day in /etc\n/d:\n";

#[test]
fn skopeo_and_umoci_take_a_layout() {
    require!(need_root());
    for program in ["skopeo", "umoci", "busybox"] {
        require!(need_program(program));
    }
    let built = build();
    for (name, compression) in [("z", Compression::Zstd), ("g", Compression::Gzip)] {
        let layout = built.directory.path().join("layout");
        let writer = LayoutWriter::new(&layout, Some(name)).unwrap();
        let options = options(compression);
        let exported = built
            .store
            .export_snapshot(&built.snapshot, &writer, &options);
        let exported = exported.unwrap();
        let place = format!("oci:{}:{name}", layout.display());
        let inspected = run("skopeo", &["inspect", &place]);
        assert!(
            inspected.contains(&built.snapshot.to_string()),
            "{inspected}"
        );
        assert!(inspected.contains("GREETING=good day"), "{inspected}");
        assert!(
            inspected.contains(&exported.manifest.to_string()),
            "{inspected}"
        );
        let copy = built.directory.path().join(format!("copy-{name}"));
        run(
            "skopeo",
            &["copy", &place, &format!("dir:{}", copy.display())],
        );
    }
    // The one on this machine does not know zstd.
    let bundle = built.directory.path().join("bundle");
    let image = format!("{}:g", built.directory.path().join("layout").display());
    run(
        "umoci",
        &["unpack", "--image", &image, bundle.to_str().unwrap()],
    );
    assert_same_tree(&built, &bundle.join("rootfs"));
}

/// Compares everything but the root itself and times of links, which not every tool sets.
fn assert_same_tree(built: &Built, root: &Path) {
    let view = built.store.view(&built.snapshot).unwrap();
    let walk = view.walk().unwrap();
    let mut count = 0;
    for entry in &walk {
        let path = root.join(entry.path.strip_prefix("/").unwrap());
        let found = path.symlink_metadata().unwrap();
        let expected = &entry.metadata;
        assert_eq!(found.mode() & 0o7777, expected.mode, "{path:?}");
        assert_eq!(
            (found.uid(), found.gid()),
            (expected.uid, expected.gid),
            "{path:?}"
        );
        assert_eq!(found.modified().unwrap(), expected.modified, "{path:?}");
        match expected.kind {
            FileKind::File => {
                let mut content = Vec::new();
                view.copy_file_to(&entry.path, &mut content).unwrap();
                assert_eq!(fs::read(&path).unwrap(), content, "{path:?}");
            }
            FileKind::Symlink => {
                let target = view.read_link(&entry.path).unwrap();
                assert_eq!(fs::read_link(&path).unwrap(), target);
            }
            _ => {}
        }
        count += 1;
    }
    let mut there = 0;
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            there += 1;
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            }
        }
    }
    assert_eq!(there, count, "nothing else is there");
    let links = |path: &str| root.join(path).metadata().unwrap().ino();
    assert_eq!(links("one"), links("d/two"));
}

#[test]
fn podman_runs_an_archive() {
    require!(need_root());
    for program in ["podman", "busybox"] {
        require!(need_program(program));
    }
    let built = build();
    let archive = built.directory.path().join("image.tar");
    let writer = ArchiveWriter::new(&archive, Some("localhost/built:1")).unwrap();
    let options = options(Compression::Zstd);
    let exported = built
        .store
        .export_snapshot(&built.snapshot, &writer, &options);
    exported.unwrap();
    let at = |name: &str| built.directory.path().join(name).display().to_string();
    let (data, state) = (at("podman-root"), at("podman-run"));
    let podman = |arguments: &[&str]| {
        let global = ["--root", &data, "--runroot", &state, "--storage-driver=vfs"];
        let global = [&global[..], &["--cgroup-manager=cgroupfs"], arguments].concat();
        run("podman", &global)
    };
    podman(&["load", "--input", archive.to_str().unwrap()]);
    // Limits that may be had everywhere, instead of the highest.
    let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];
    let container = ["run", "--rm", "--network=none"];
    let container = [&container[..], &limits].concat();
    let image = ["localhost/built:1", "/bin/sh", "-c", LOOK];
    let seen = podman(&[&container[..], &image].concat());
    assert!(seen.starts_with(SEEN), "{seen}");
    assert!(seen.ends_with("/tmp:\nnew\nno marks\n"), "{seen}");
}

#[test]
fn docker_runs_an_archive() {
    require!(DockerDaemon::need());
    require!(need_program("busybox"));
    let built = build();
    let archive = built.directory.path().join("image.tar");
    let writer = ArchiveWriter::new(&archive, Some("built:1")).unwrap();
    let options = options(Compression::Gzip);
    let exported = built
        .store
        .export_snapshot(&built.snapshot, &writer, &options);
    let exported = exported.unwrap();
    let docker = DockerDaemon::start().unwrap();
    docker
        .docker(&["load", "--input", archive.to_str().unwrap()])
        .unwrap();
    let id = docker.docker(&["inspect", "--format={{.Id}}", "built:1"]);
    assert_eq!(id.unwrap(), exported.config.to_string());
    let container = [
        "run",
        "--rm",
        "--network=none",
        "built:1",
        "/bin/sh",
        "-c",
        LOOK,
    ];
    let seen = docker.docker(&container).unwrap();
    assert!(seen.starts_with(SEEN), "{seen}");
    assert!(seen.ends_with("/tmp:\nnew\nno marks"), "{seen}");
}

#[test]
fn a_registry_gets_only_what_it_lacks() {
    require!(need_registry());
    require!(need_program("skopeo"));
    require!(need_program("busybox"));
    let built = build();
    let server = RegistryServer::start(RegistrySetup::default()).unwrap();
    let name = format!("{}/team/built:1", server.address());
    let reference: Reference = name.parse().unwrap();
    let client = RegistryClient::new(RegistryOptions::default()).unwrap();
    let push = |snapshot: &SnapshotId, options: &ExportOptions| {
        let destination = client.destination(&reference);
        let before = server.requests().unwrap().len();
        let report = built
            .store
            .export_snapshot(snapshot, &*destination, options);
        let requests = server.requests().unwrap();
        let stored = requests[before..]
            .iter()
            .filter(|request| request.stored_blob());
        (report.unwrap(), stored.count())
    };
    let zstd = options(Compression::Zstd);
    let (first, stored) = push(&built.snapshot, &zstd);
    assert_eq!((first.layers, stored), (2, 3));
    let (again, stored) = push(&built.snapshot, &zstd);
    assert_eq!((again.manifest, stored), (first.manifest, 0));
    let path = upper(&built.store, &built.vm).join("more");
    fs::write(&path, "more").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let second = built.vm.commit(None).unwrap();
    let (report, stored) = push(&second, &zstd);
    assert_eq!((report.layers, stored), (3, 2));
    let place = format!("docker://{name}");
    let inspect = ["inspect", "--tls-verify=false", &place];
    assert!(run("skopeo", &inspect).contains(&second.to_string()));
    let docker = ExportOptions {
        format: ImageFormat::Docker,
        ..options(Compression::Gzip)
    };
    push(&second, &docker);
    let raw = run("skopeo", &[&inspect[..], &["--raw"]].concat());
    assert!(raw.contains("distribution.manifest.v2+json"), "{raw}");
}
