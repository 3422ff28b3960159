//! Images of Docker, Buildah, umoci and by hand: the same files here as with Docker.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use hm_vm_oci::{Manifest, Source, open_local};
use hm_vm_store::{FileKind, PullOptions, Store, View};
use hm_vm_testkit::privilege::{need_program, need_root};
use hm_vm_testkit::registry::DockerDaemon;
use hm_vm_testkit::require;
use tar::EntryType;
use tempfile::TempDir;

use super::layer_support::{
    CAPABILITY, Entry, Layers, Mounted, archive, directory, file, link, listing, options,
    plain_listing, symlink,
};

/// A daemon, and a place for files.
struct Docker {
    daemon: DockerDaemon,
    place: TempDir,
}

impl Docker {
    fn start() -> Self {
        Self {
            daemon: DockerDaemon::start().unwrap(),
            place: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// What Docker shows of an image that it has.
    fn shows(&self, image: &str) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
        let container = self.daemon.docker(&["create", image, "/none"]).unwrap();
        let format = "{{.GraphDriver.Data.LowerDir}}";
        let lower = self
            .daemon
            .docker(&["inspect", "--format", format, &container])
            .unwrap();
        // The first one is the container's own.
        let (_, lower) = lower.split_once(':').unwrap();
        let (empty, mount) = (self.path("empty"), self.path("mount"));
        fs::create_dir_all(&empty).unwrap();
        fs::create_dir_all(&mount).unwrap();
        let options = format!("ro,lowerdir={lower}:{}", empty.display());
        let mounted = Mounted::new("overlay", &options, &mount);
        let shown = (listing(&mount), plain_listing(&mount));
        drop(mounted);
        self.daemon.docker(&["rm", &container]).unwrap();
        shown
    }

    /// Compares what Docker and we show of an image in Docker's own archive, which is loaded.
    fn compare(&self, image: &str, archive: &Path, ignored: &[&str]) {
        let (full, plain) = self.shows(image);
        let source = open_local(archive, None).unwrap();
        let layers = unpack(&*source);
        same("the layers", &full, &layers.merged(), ignored);
        let store = Store::open(&self.path("store")).unwrap();
        store
            .pull_image(&*source, "test", &PullOptions::default())
            .unwrap();
        let view = store.image_view("test").unwrap();
        same("the view", &plain, &plain_view(&view), ignored);
        drop(view);
        store.remove_image("test").unwrap();
    }

    /// Compares an image that Docker has.
    fn compare_own(&self, image: &str) {
        let archive = self.path("saved.tar");
        self.daemon
            .docker(&["save", "--output", archive.to_str().unwrap(), image])
            .unwrap();
        self.compare(image, &archive, &[]);
    }

    /// Compares an image in an archive that Docker can load.
    fn compare_archive(&self, image: &str, archive: &Path, ignored: &[&str]) {
        self.daemon
            .docker(&["load", "--input", archive.to_str().unwrap()])
            .unwrap();
        self.compare(image, archive, ignored);
    }
}

/// `ignored` are paths whose times differ with good reason.
fn same(
    what: &str,
    docker: &BTreeMap<String, String>,
    ours: &BTreeMap<String, String>,
    ignored: &[&str],
) {
    for path in docker.keys().chain(ours.keys()) {
        if !ignored.contains(&path.as_str()) {
            assert_eq!(
                ours.get(path),
                docker.get(path),
                "{path} in {what}, and in Docker's"
            );
        }
    }
}

fn unpack(source: &dyn Source) -> Layers {
    let manifest: Manifest = serde_json::from_slice(&source.root().unwrap().bytes).unwrap();
    let mut layers = Layers::new();
    for layer in &manifest.layers {
        let mut bytes = Vec::new();
        source.open(layer).unwrap().read_to_end(&mut bytes).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(&bytes[..])
                .read_to_end(&mut plain)
                .unwrap();
            bytes = plain;
        }
        layers.add(&bytes, &options()).unwrap();
    }
    assert!(layers.notices.is_empty(), "{:?}", layers.notices);
    layers
}

/// As [`plain_listing`], of a view.
fn plain_view(view: &View) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in view.walk().unwrap() {
        let of = entry.metadata;
        let kind = match of.kind {
            FileKind::Directory => "directory".into(),
            FileKind::Symlink => {
                format!("link to {}", view.read_link(&entry.path).unwrap().display())
            }
            FileKind::File => {
                let mut content = Vec::new();
                view.copy_file_to(&entry.path, &mut content).unwrap();
                format!(
                    "file of {} {}",
                    of.size,
                    &blake3::hash(&content).to_hex()[..16]
                )
            }
            FileKind::Fifo => "fifo".into(),
            FileKind::Device | FileKind::Socket => "device".into(),
        };
        // Whole seconds before 1970 are all that these images have.
        let (sign, time) = match of.modified.duration_since(std::time::UNIX_EPOCH) {
            Ok(time) => ("", time),
            Err(before) => ("-", before.duration()),
        };
        let line = format!(
            "{kind} {:o} {}:{} {sign}{}.{:09}",
            of.mode,
            of.uid,
            of.gid,
            time.as_secs(),
            time.subsec_nanos()
        );
        let path = entry.path.strip_prefix("/").unwrap();
        let path = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
        found.insert(path.escape_ascii().to_string(), line);
    }
    found
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// An archive of files that `docker build` begins with.
fn root_of_busybox(at: &Path) {
    let busybox = fs::read(need_program("busybox").unwrap()).unwrap();
    let entries = vec![
        directory("bin"),
        file("bin/busybox").mode(0o755).content(busybox),
        symlink("bin/sh", "busybox"),
        directory("etc"),
        file("etc/passwd").content("root:x:0:0::/:/bin/sh\n"),
        directory("tmp").mode(0o1777),
        directory("old"),
        directory("old/deep"),
        directory("old/deep/er"),
        file("old/deep/er/file")
            .content("1")
            .mtime("1234567890.987654321"),
        file("old/setuid").mode(0o6755).owner(10, 20),
        file("capable")
            .mode(0o755)
            .xattr("security.capability", CAPABILITY),
        link("capable-too", "capable")
            .mode(0o755)
            .xattr("security.capability", CAPABILITY),
        file("linked").content("linked"),
        link("old/linked", "linked"),
        symlink("to-dir", "old/deep"),
        Entry::new(EntryType::Fifo, "fifo").mode(0o611),
        Entry::new(EntryType::Char, "null").mode(0o666).device(1, 3),
        directory(&"long".repeat(60)),
        directory(&["long".repeat(60), "name".repeat(60)].join("/")),
        file(&["long".repeat(60), "name".repeat(60), "end".repeat(30)].join("/")).content("x"),
        file("f\u{fc}nf \u{1f600}").content("unicode"),
    ];
    fs::write(at, archive(entries)).unwrap();
}

const DOCKERFILE: &str = r#"FROM scratch
ADD root.tar /
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /a/b/c /keep && echo 1 > /a/b/c/one && echo 2 > /a/two && chown 3:4 /a/two && chmod 4711 /a/two
RUN rm -r /a/b && mv /old /new
RUN mkdir -p /a/b && echo new > /a/b/new && chmod 700 /keep && chown 5:6 /keep
RUN chmod 2775 /a && chown 1:2 /a/b && touch -d '2001-02-03 04:05:06' /a/b /new
RUN ln /linked /linked-again && mkfifo /fifo2 && mknod /dev2 b 7 9
RUN dd if=/dev/zero of=/sparse bs=1 count=0 seek=5000000 && echo end >> /sparse
RUN rm -rf /tmp && mkdir /tmp && echo x > /tmp/fresh
RUN rm /to-dir && mkdir /to-dir && echo y > /to-dir/y && rm -r /keep && echo file > /keep
RUN rm /fifo && mkdir /fifo && rm -r /fifo && ln -s /new /fifo
RUN chmod 644 /capable && mv /a /z && rm "/f"*nf*
"#;

#[test]
fn images_that_docker_built() {
    require!(DockerDaemon::need());
    require!(need_program("busybox"));
    let docker = Docker::start();
    let context = docker.path("context");
    fs::create_dir(&context).unwrap();
    root_of_busybox(&context.join("root.tar"));
    fs::write(context.join("Dockerfile"), DOCKERFILE).unwrap();
    let mut build = docker.daemon.client().unwrap();
    build.env("DOCKER_BUILDKIT", "0");
    build
        .args(["build", "--network=none", "--tag=built"])
        .arg(&context);
    run(&mut build);
    docker.compare_own("built");
}

#[test]
fn images_that_buildah_built() {
    require!(DockerDaemon::need());
    require!(need_program("buildah"));
    let docker = Docker::start();
    let (root, runroot) = (docker.path("containers"), docker.path("runroot"));
    let buildah = |arguments: &[&str]| {
        let mut command = Command::new("buildah");
        command
            .arg("--root")
            .arg(&root)
            .arg("--runroot")
            .arg(&runroot);
        command.args(["--storage-driver=overlay"]).args(arguments);
        run(&mut command)
    };
    let unpacked = docker.path("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let tar = docker.path("root.tar");
    root_of_busybox(&tar);
    let mut extract = Command::new("tar");
    run(extract
        .args(["--xattrs", "--xattrs-include=*", "-xf"])
        .arg(&tar)
        .arg("-C")
        .arg(&unpacked));
    let container = buildah(&["from", "scratch"]);
    buildah(&["copy", &container, unpacked.to_str().unwrap(), "/"]);
    let steps = [
        "rm -r old && mkdir -p old/deep && echo opaque > old/deep/new",
        "setfattr -n user.note -v text linked && chmod 700 etc && chown 7:8 tmp",
        "rm -r etc && echo file > etc && rm to-dir && mkdir -p to-dir/x && ln linked to-dir/x/again",
        "mkdir etc2 && mv old/deep etc2/ && touch -d '1999-09-09' etc2 && cp -a capable c2 && rm capable-too",
    ];
    let mut container = container;
    for (step, commands) in steps.iter().enumerate() {
        let name = format!("step{step}");
        buildah(&["commit", "--rm", &container, &name]);
        container = buildah(&["from", &name]);
        let mount = buildah(&["mount", &container]);
        run(Command::new("sh")
            .args(["-ec", commands])
            .current_dir(mount));
        buildah(&["umount", &container]);
    }
    let archive = docker.path("buildah.tar");
    let place = format!("docker-archive:{}:buildah:latest", archive.display());
    buildah(&["commit", "--rm", &container, &place]);
    docker.compare_archive("buildah", &archive, &[]);
    buildah(&["rm", "--all"]);
}

#[test]
fn images_that_umoci_built() {
    require!(DockerDaemon::need());
    require!(need_program("umoci"));
    require!(need_program("skopeo"));
    let docker = Docker::start();
    let layout = docker.path("layout");
    let image = format!("{}:latest", layout.display());
    let umoci = |arguments: &[&str]| run(Command::new("umoci").args(arguments));
    umoci(&["init", "--layout", layout.to_str().unwrap()]);
    umoci(&["new", "--image", &image]);
    let tar = docker.path("root.tar");
    root_of_busybox(&tar);
    umoci(&["raw", "add-layer", "--image", &image, tar.to_str().unwrap()]);
    let steps = [
        "rm -r old/deep && mkdir old/deep && echo x > old/deep/x && chmod 711 tmp",
        "mv old older && rm linked && setfattr -n user.note -v text older/linked && mkfifo p",
        "rm etc/passwd && ln -sf older/setuid capable && chown 1:2 older && touch -d '1999-09-09' older",
    ];
    for (step, commands) in steps.iter().enumerate() {
        let bundle = docker.path(&format!("bundle{step}"));
        umoci(&["unpack", "--image", &image, bundle.to_str().unwrap()]);
        run(Command::new("sh")
            .args(["-ec", commands])
            .current_dir(bundle.join("rootfs")));
        umoci(&["repack", "--image", &image, bundle.to_str().unwrap()]);
    }
    let archive = docker.path("umoci.tar");
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["copy", "--insecure-policy", &format!("oci:{image}")]);
    run(skopeo.arg(format!("docker-archive:{}:umoci:latest", archive.display())));
    docker.compare_archive("umoci", &archive, &[]);
}

/// A `docker save` archive of these layers.
fn image_of(layers: &[Vec<u8>], name: &str, at: &Path) {
    use hm_vm_oci::Digest;
    let ids: Vec<String> = layers
        .iter()
        .map(|layer| Digest::of(layer).to_string())
        .collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": ids },
    });
    let config = serde_json::to_vec(&config).unwrap();
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let names: Vec<String> = (0..layers.len())
        .map(|at| format!("{at}/layer.tar"))
        .collect();
    let manifest = serde_json::json!([{
        "Config": config_name, "RepoTags": [format!("{name}:latest")], "Layers": names,
    }]);
    let mut builder = tar::Builder::new(fs::File::create(at).unwrap());
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
    };
    add(&config_name, &config);
    for (name, layer) in names.iter().zip(layers) {
        add(name, layer);
    }
    add("manifest.json", &serde_json::to_vec(&manifest).unwrap());
    builder.finish().unwrap();
}

/// Name of an image, its layers, and paths of which only Docker tells another time.
type ByHand = (&'static str, Vec<Vec<u8>>, &'static [&'static str]);

/// Layers as no program makes them, but Docker takes. The paths are those that the archives do not tell of: with
/// Docker they have the time of the pull.
#[test]
fn images_made_by_hand() {
    require!(DockerDaemon::need());
    require!(need_root());
    let docker = Docker::start();
    let old = || {
        archive(vec![
            directory("foo"),
            file("foo/old"),
            directory("foo/sub"),
            file("foo/sub/old"),
        ])
    };
    let images: Vec<ByHand> = vec![
        (
            "whiteout-before",
            vec![
                old(),
                archive(vec![file(".wh.foo"), directory("foo"), file("foo/new")]),
            ],
            &[],
        ),
        (
            "opaque-before",
            vec![
                old(),
                archive(vec![
                    file("foo/.wh..wh..opq"),
                    directory("foo").mode(0o700),
                    file("foo/new"),
                ]),
            ],
            &[],
        ),
        (
            "opaque-after",
            vec![
                old(),
                archive(vec![
                    directory("foo"),
                    directory("foo/sub"),
                    file("foo/new"),
                    file("foo/.wh..wh..opq"),
                ]),
            ],
            &[],
        ),
        (
            "opaque-root",
            vec![old(), archive(vec![file(".wh..wh..opq"), file("new")])],
            &[],
        ),
        (
            "link-to-whiteout",
            vec![
                old(),
                archive(vec![
                    file("foo/.wh.old"),
                    directory("foo"),
                    link("x", "foo/old"),
                ]),
            ],
            &[],
        ),
        (
            "implied",
            vec![
                archive(vec![
                    directory("tmp").mode(0o1777),
                    directory("o").owner(1000, 1000),
                ]),
                archive(vec![
                    file("tmp/x"),
                    file("o/y"),
                    file("n/e/w"),
                    directory("g").mode(0o2770).owner(0, 5),
                    file("g/i/x"),
                ]),
            ],
            &["tmp", "o", "n", "n/e", "g/i"],
        ),
        (
            "through-links",
            vec![archive(vec![
                directory("usr"),
                directory("usr/lib"),
                symlink("lib", "usr/lib"),
                file("lib/x").content("x"),
                symlink("abs", "/usr"),
                file("abs/y").owner(1, 1),
                directory("abs/lib/deep").mode(0o711),
                file("a/../b"),
            ])],
            // "a" is made by Docker, for a path that does not need it; "usr/lib" gets the time of what was
            // made by way of the link.
            &["a"],
        ),
        (
            "links",
            vec![archive(vec![
                file("a")
                    .content("x")
                    .mode(0o4755)
                    .owner(5, 6)
                    .mtime("1234567890.5"),
                link("b", "a").mode(0o600).owner(7, 8).mtime("1111111111"),
                file("c").xattr("security.capability", CAPABILITY),
                link("d", "c"),
                file("e")
                    .owner(4, 4)
                    .xattr("security.capability", CAPABILITY),
                link("f", "e")
                    .owner(4, 4)
                    .xattr("security.capability", CAPABILITY),
                symlink("s", "a").owner(1, 1),
                link("t", "s").owner(2, 2).mtime("5"),
            ])],
            &[],
        ),
        (
            "attributes",
            vec![archive(vec![
                directory("s").mode(0o2775).owner(0, 50),
                file("s/f"),
                directory("s/d"),
                symlink("s/l", "f"),
                file("s/own").owner(7, 7),
                Entry::new(EntryType::Fifo, "fifo").mode(0o4622).owner(2, 0),
                Entry::new(EntryType::Char, "char")
                    .mode(0o666)
                    .device(5, 300),
                Entry::new(EntryType::Block, "block")
                    .owner(0, 6)
                    .device(259, 70000),
                file("x").xattr("user.a", b"b").mode(0),
                directory("x2")
                    .xattr("user.a", b"v")
                    .mode(0)
                    .mtime("0.000000001"),
                file("old").mtime("-5"),
                symlink("old-link", "old").mtime("-5"),
                file("far").mtime("99999999999"),
            ])],
            &[],
        ),
    ];
    for (name, layers, ignored) in images {
        let path = docker.path("hand.tar");
        image_of(&layers, name, &path);
        docker.compare_archive(name, &path, ignored);
    }
}
