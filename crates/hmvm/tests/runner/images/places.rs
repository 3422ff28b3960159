//! Layouts, archives and daemons of this machine.

use std::process::Command;

use hm_vm_testkit::privilege::{need_program, need_root};
use hm_vm_testkit::registry::DockerDaemon;
use hm_vm_testkit::require;

use super::support::{Images, tool};

#[test]
fn a_layout_directory_and_its_archive_are_images() {
    let images = require!(Images::new());
    let image = images.version("one");
    let layout = format!("oci:{}", image.place());
    let import = |source: &str, name: &str| images.env.hmvm(["image", "import", source, name]);
    import(&layout, "by-place").success();
    let path = image.layout().display().to_string();
    import(&path, "by-path").success();
    let archive = images.root.join("archive.tar");
    tool(Command::new("skopeo").args([
        "--insecure-policy",
        "copy",
        &layout,
        &format!("oci-archive:{}:latest", archive.display()),
    ]));
    import(&archive.display().to_string(), "archive").success();
    let docker = images.root.join("docker.tar");
    tool(Command::new("skopeo").args([
        "--insecure-policy",
        "copy",
        &layout,
        &format!("docker-archive:{}:some/image:1", docker.display()),
    ]));
    import(&docker.display().to_string(), "docker").success();
    import(
        &format!("docker-archive:{}:some/image:1", docker.display()),
        "named",
    )
    .success();
    let digest = images.inspect("by-path")["digest"].clone();
    for name in ["by-place", "by-path", "archive", "docker", "named"] {
        assert_eq!(
            images.sh(name, "cat /version").success().stdout,
            "one",
            "{name}"
        );
    }
    for name in ["by-place", "archive"] {
        assert_eq!(images.inspect(name)["digest"], digest, "{name}");
    }
    // Layers are stored once, whatever brought them.
    let root = import(&docker.display().to_string(), "again").success();
    assert!(root.stderr.contains("again"), "{root:?}");
    let wrong = import(&format!("oci:{path}:other"), "wrong").exits_with(125);
    assert!(wrong.stderr.contains("other"), "{wrong:?}");
}

#[test]
fn what_docker_saves_and_has_is_imported() {
    require!(need_root());
    require!(DockerDaemon::need());
    let images = require!(Images::new());
    images.push("one", "some/image:tag");
    let name = images.name("some/image:tag");
    let daemon = DockerDaemon::start().expect("a daemon");
    daemon.docker(&["pull", "--quiet", &name]).expect("pulled");
    daemon.docker(&["tag", &name, "app:1"]).expect("tagged");
    let tar = images.root.join("saved.tar");
    let path = tar.display().to_string();
    daemon
        .docker(&["save", "--output", &path, "app:1"])
        .expect("saved");
    images
        .env
        .hmvm(["image", "import", &path, "saved"])
        .success();
    let mut command = images
        .env
        .command(["image", "import", "docker-daemon:app:1", "daemon"]);
    command.env("DOCKER_HOST", daemon.host());
    images.env.run(&mut command).success();
    images.pull(&[&name]).success();
    for image in ["saved", "daemon", &name] {
        assert_eq!(images.sh(image, "cat /version").success().stdout, "one");
    }
    // The image's identity is that of its configuration, however it came.
    let id = daemon
        .docker(&["inspect", "--format", "{{.Id}}", "app:1"])
        .expect("inspected");
    for image in ["saved", "daemon", &name] {
        assert_eq!(images.inspect(image)["digest"], id.as_str(), "{image}");
    }
}

#[test]
fn what_podman_saves_is_imported() {
    require!(need_root());
    require!(need_program("podman"));
    let images = require!(Images::new());
    let image = images.version("one");
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command
            .args(["--root", &images.root.join("podman").display().to_string()])
            .args([
                "--runroot",
                &images.root.join("podman-run").display().to_string(),
            ])
            .args([
                "--storage-driver=vfs",
                "--cgroup-manager=cgroupfs",
                "--events-backend=file",
            ])
            .args(arguments);
        tool(&mut command)
    };
    // Podman makes a name of the path, and takes no capitals there.
    let mut copy = Command::new("skopeo");
    copy.args(["--insecure-policy", "copy", "--quiet"]);
    let archive = format!("oci-archive:{}", images.root.join("in.tar").display());
    copy.args([&format!("oci:{}", image.place()), &archive]);
    tool(&mut copy);
    let id = podman(&["pull", "--quiet", &archive]);
    for format in ["docker-archive", "oci-archive"] {
        let tar = images.root.join(&format!("{format}.tar"));
        let path = tar.display().to_string();
        podman(&[
            "save",
            "--quiet",
            "--format",
            format,
            "--output",
            &path,
            id.trim(),
        ]);
        images
            .env
            .hmvm(["image", "import", &path, format])
            .success();
        assert_eq!(images.sh(format, "cat /version").success().stdout, "one");
    }
}
