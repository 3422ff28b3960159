//! What is made here, in the hands of other tools.

use std::path::Path;

use hm_vm_oci::{ArchiveWriter, LayoutWriter, media};
use hm_vm_testkit::require;
use hm_vm_testkit::roots::TestRoot;

use super::super::image::{Image, archive, gzip, read_path};
use super::engine::Engine;
use super::podman::Containers;
use super::process::{limited, run, skopeo};

const NAME: &str = "docker.io/hm/made:1";

/// An image of several layers, two alike.
fn image(is_compressed: bool) -> Image {
    let layers = ["one", "two", "one"].map(|name| archive(&[(name, name.as_bytes())]));
    Image::of_layers(&layers, |bytes| match is_compressed {
        true => (media::LAYER_GZIP, gzip(bytes)),
        false => (media::LAYER, bytes.to_vec()),
    })
}

fn write_archive(path: &Path, is_compressed: bool) -> Image {
    let image = image(is_compressed);
    image.write(&ArchiveWriter::new(path, Some(NAME)).unwrap());
    image
}

#[test]
fn docker_loads_archives() {
    let root = TestRoot::new().unwrap();
    let engine = require!(Engine::start(&root));
    for is_compressed in [false, true] {
        let path = root.join("image.tar");
        let image = write_archive(&path, is_compressed);
        run(engine.docker().arg("load").arg("-q").arg("-i").arg(&path));
        assert_eq!(engine.id("hm/made:1"), image.id().to_string());
        // And gives it back as it was.
        engine.save(&path, &["hm/made:1"]);
        assert_eq!(read_path(&path, None).config_digest, image.id());
        run(engine.docker().args(["rmi", "-f", "hm/made:1"]));
    }
}

#[test]
fn podman_loads_archives_and_layouts() {
    let root = TestRoot::new().unwrap();
    let containers = require!(Containers::new(&root));
    for is_compressed in [false, true] {
        // By its name alone: Podman makes an image's name of a layout's path, which may have no capitals then.
        let directory = format!("layout-{is_compressed}");
        let image = write_archive(&root.join("image.tar"), is_compressed);
        image.write(&LayoutWriter::new(&root.join(&directory), Some(NAME)).unwrap());
        for path in ["image.tar", &directory] {
            let mut load = containers.podman();
            let said = run(load
                .current_dir(root.path())
                .args(["load", "-q", "-i", path]));
            let name = said.strip_prefix("Loaded image: ").unwrap();
            if path == "image.tar" {
                assert_eq!(name, NAME);
            }
            let inspect = ["image", "inspect", "--format", "{{.Id}}", name];
            let id = run(containers.podman().args(inspect));
            assert_eq!(id, image.id().hex(), "{path}");
            run(containers.podman().args(["rmi", "-f", name]));
        }
    }
}

#[test]
fn skopeo_inspects_and_copies() {
    let root = TestRoot::new().unwrap();
    require!(skopeo());
    let (file, directory) = (root.join("image.tar"), root.join("layout"));
    let image = write_archive(&file, true);
    image.write(&LayoutWriter::new(&directory, Some(NAME)).unwrap());
    let digest = image.manifest.to_raw().digest.to_string();
    for from in [
        format!("oci:{}:{NAME}", directory.display()),
        format!("oci-archive:{}:{NAME}", file.display()),
    ] {
        let said = run(skopeo()
            .unwrap()
            .args(["inspect", "--format", "{{.Digest}}", &from]));
        assert_eq!(said, digest);
    }
    for (number, from) in [
        format!("oci-archive:{}:{NAME}", file.display()),
        format!("docker-archive:{}:{NAME}", file.display()),
    ]
    .iter()
    .enumerate()
    {
        let copied = root.join(&format!("copied-{number}"));
        run(skopeo()
            .unwrap()
            .args(["copy", "-q", from, &format!("oci:{}:x", copied.display())]));
        assert_eq!(read_path(&copied, None).config.rootfs.diff_ids.len(), 3);
    }
}

#[test]
fn umoci_unpacks_layouts() {
    let root = TestRoot::new().unwrap();
    let mut umoci = require!(limited("umoci"));
    let (layout, bundle) = (root.join("layout"), root.join("bundle"));
    image(true).write(&LayoutWriter::new(&layout, Some("made")).unwrap());
    run(umoci
        .args(["raw", "unpack", "--rootless", "--image"])
        .arg(format!("{}:made", layout.display()))
        .arg(&bundle));
    for name in ["one", "two"] {
        assert_eq!(std::fs::read_to_string(bundle.join(name)).unwrap(), name);
    }
}
