//! Layers that attack whoever unpacks them, through the whole program.

use std::fs;
use std::path::Path;

use hm_vm_testkit::registry::TestImage;
use hm_vm_testkit::require;

use super::support::Images;
use super::tar::Tar;
use crate::env::Run;

/// Builds an image with layers of these bytes above busybox, pulls it, and checks that nothing
/// outside of the store has changed and that the store is as it should be.
fn pull(images: &Images, name: &str, layers: Vec<Vec<u8>>) -> Run {
    let image = TestImage::busybox(&images.root.join(name)).expect("an image");
    for (number, bytes) in layers.iter().enumerate() {
        let tar = images.root.join(&format!("{name}-{number}.tar"));
        fs::write(&tar, bytes).expect("a tar");
        image.add_layer(&tar).expect("a layer");
    }
    push_and_pull(images, &image, name)
}

fn push_and_pull(images: &Images, image: &TestImage, name: &str) -> Run {
    let canary = images.env.write("canary", "alive");
    let before = listing(images.env.path());
    image
        .push(&images.server, &format!("hostile/{name}:1"))
        .expect("pushed");
    let run = images.pull(&[&images.name(&format!("hostile/{name}:1"))]);
    assert!(run.code == 0 || run.code == 125, "{name}: {run:?}");
    assert_eq!(
        fs::read_to_string(canary).expect("a file"),
        "alive",
        "{name}"
    );
    assert_eq!(listing(images.env.path()), before, "{name}");
    for file in ["/tmp/hmvm-escaped", "/hmvm-escaped", "/etc/hmvm-escaped"] {
        assert!(!Path::new(file).exists(), "{name} wrote {file}");
    }
    assert_eq!(
        images.env.leftovers(),
        serde_json::Value::Array(vec![]),
        "{name}"
    );
    run
}

/// What lies around the store.
fn listing(directory: &Path) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .filter(|name| name != "store")
        .collect();
    found.sort();
    found
}

#[test]
fn paths_that_lead_outside_write_nothing_there() {
    let images = require!(Images::new());
    let up = "../".repeat(20);
    let cases = [
        (
            "dots",
            vec![
                Tar::default()
                    .file(&format!("{up}tmp/hmvm-escaped"), b"x")
                    .bytes(),
            ],
        ),
        (
            "middle",
            vec![
                Tar::default()
                    .file(&format!("etc/{up}tmp/hmvm-escaped"), b"x")
                    .bytes(),
            ],
        ),
        (
            "absolute",
            vec![Tar::default().file("/tmp/hmvm-escaped", b"x").bytes()],
        ),
        (
            "link",
            vec![
                Tar::default()
                    .symlink("out", "/tmp")
                    .file("out/hmvm-escaped", b"x")
                    .bytes(),
            ],
        ),
        (
            "link-below",
            vec![
                Tar::default().symlink("out", "/tmp").bytes(),
                Tar::default().file("out/hmvm-escaped", b"x").bytes(),
            ],
        ),
        (
            "dotted-link",
            vec![
                Tar::default()
                    .symlink("out", &format!("{up}tmp"))
                    .file("out/hmvm-escaped", b"x")
                    .bytes(),
            ],
        ),
        (
            "whiteout",
            vec![
                Tar::default()
                    .symlink("out", &images.env.path().display().to_string())
                    .file("out/.wh.canary", b"")
                    .bytes(),
            ],
        ),
        (
            "whiteout-dots",
            vec![
                Tar::default()
                    .file(".wh...", b"")
                    .file("etc/.wh..", b"")
                    .file(".wh.", b"")
                    .bytes(),
            ],
        ),
        (
            "replaced-root",
            vec![
                Tar::default()
                    .symlink(".", "/tmp")
                    .file("hmvm-escaped", b"x")
                    .bytes(),
            ],
        ),
    ];
    for (name, layers) in cases {
        pull(&images, name, layers);
    }
}

#[test]
fn hard_links_reach_nothing_outside() {
    let images = require!(Images::new());
    let secret = images.env.write("secret", "host's own");
    let up = "../".repeat(20);
    let outside = secret.display().to_string();
    let cases = [
        ("absolute", outside.clone(), None),
        ("dots", format!("{up}{outside}"), None),
        (
            "through",
            "out/secret".to_owned(),
            Some(images.env.path().display().to_string()),
        ),
    ];
    for (name, target, link) in cases {
        let mut tar = Tar::default();
        if let Some(link) = link {
            tar = tar.symlink("out", &link);
        }
        let run = pull(
            &images,
            &format!("hard-{name}"),
            vec![tar.link("stolen", &target).bytes()],
        );
        if run.code == 0 {
            let image = images.name(&format!("hostile/hard-{name}:1"));
            let read = images.sh(&image, "cat /stolen");
            assert!(!read.stdout.contains("host's own"), "{name}: {read:?}");
        }
        assert_eq!(fs::read_to_string(&secret).expect("a file"), "host's own");
    }
}

#[test]
fn sizes_that_lie_are_errors() {
    let images = require!(Images::new());
    let long = Tar::default().liar("file", b"short", 5 << 20).bytes();
    pull(&images, "long", vec![long]).exits_with(125);
    let huge = Tar::default()
        .liar("file", b"short", 0o77_777_777_777)
        .bytes();
    pull(&images, "huge", vec![huge]).exits_with(125);
    let mut cut = Tar::default().file("file", &[7; 4096]).bytes();
    cut.truncate(2000);
    pull(&images, "cut", vec![cut]).exits_with(125);
    let garbage = vec![0xff; 10_000];
    pull(&images, "garbage", vec![garbage]).exits_with(125);
}

#[test]
fn entries_that_come_twice_are_what_came_last() {
    let images = require!(Images::new());
    let tar = Tar::default()
        .file("twice", b"first")
        .file("twice", b"last")
        .directory("kind", 0o755)
        .file("kind/inside", b"x")
        .file("kind", b"a file now")
        .file("other", b"x")
        .directory("other", 0o700)
        .file("other/inside", b"inside");
    let run = pull(&images, "twice", vec![tar.bytes()]);
    if run.code == 0 {
        let image = images.name("hostile/twice:1");
        let told = images.sh(&image, "cat /twice /other/inside").success();
        assert_eq!(told.stdout, "lastinside");
    }
}

#[test]
fn device_nodes_and_strange_kinds_harm_nobody() {
    let images = require!(Images::new());
    let tar = Tar::default()
        .entry(b'3', "disk", "", 0o666, b"", 0)
        .entry(b'4', "block", "", 0o666, b"", 0)
        .entry(b'6', "fifo", "", 0o666, b"", 0)
        .entry(b'7', "contiguous", "", 0o644, b"x", 1)
        .file("etc/after", b"after");
    let run = pull(&images, "devices", vec![tar.bytes()]);
    if run.code == 0 {
        let told = images.sh(&images.name("hostile/devices:1"), "cat /etc/after");
        assert_eq!(told.success().stdout, "after");
    }
    for (number, kind) in [b'Z', b'S', b'M', b'V', 0xff].into_iter().enumerate() {
        let tar = Tar::default().entry(kind, "strange", "", 0o644, b"", 0);
        pull(&images, &format!("strange-{number}"), vec![tar.bytes()]);
    }
}

#[test]
fn bombs_end_with_a_clear_error() {
    let images = require!(Images::new());
    // 64 GiB of zeros, in 64 MiB of gzip, in what umoci makes of a sparse tar: too slow to make.
    // What a layer may unpack to is bounded by its compressed size and by the disk; so a header that
    // announces more than any disk has is refused before anything is written.
    let bomb = Tar::default()
        .liar("bomb", &vec![0; 1 << 20], 0o77_777_777_777)
        .bytes();
    let run = pull(&images, "bomb", vec![bomb]).exits_with(125);
    assert!(run.stderr.contains("error"), "{run:?}");
}
