//! Snapshots as images: what they say, what is freed, how deep they go, and how they travel.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test"
)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hm_vm_core::{NullSink, OutputSink, SnapshotId, SnapshotLabel, Vm, VmBackend, VmConfig};
use hm_vm_docker::{DockerBackend, EngineKind};
use hm_vm_testkit::engines::{IMAGE, TestEngine};
use hm_vm_testkit::require;
use hm_vm_testkit::roots::TestRoot;
use support::{held, open, owner, until};

/// More layers than this no image may have.
const MOST_LAYERS: usize = 110;

struct Place {
    /// Whether a snapshot's image has only the variables of its image: Podman adds those of the container.
    keeps_env: bool,
    backend: DockerBackend,
    owner: String,
    engine: Arc<TestEngine>,
    root: TestRoot,
}

impl Place {
    fn new(engine: Arc<TestEngine>) -> Self {
        let root = TestRoot::new().expect("a directory");
        let backend = open(engine.socket(), &root.join("state"));
        Self {
            keeps_env: backend.engine().kind == EngineKind::Docker,
            backend,
            owner: owner(&root.join("state")),
            engine,
            root,
        }
    }

    fn client(&self, arguments: &[&str]) -> String {
        self.engine.docker_client(arguments).expect("the client")
    }

    /// All images of the engine, each with its names.
    fn images(&self) -> BTreeSet<String> {
        let format = "--format={{.ID}} {{.Repository}}:{{.Tag}}";
        let listed = self.client(&["images", "--all", "--no-trunc", format]);
        listed.lines().map(str::to_owned).collect()
    }

    /// What `image` says about containers, in a form that can be compared.
    fn says(&self, image: &str) -> String {
        let format = "{{json .Config.Entrypoint}} {{json .Config.Cmd}} {{.Config.WorkingDir}} \
                      {{.Config.User}} {{json .Config.ExposedPorts}}";
        let env = if self.keeps_env {
            "{{json .Config.Env}}"
        } else {
            ""
        };
        let format = format!("{format} {env}");
        self.client(&["inspect", "--type=image", "--format", &format, image])
    }

    fn label(&self, image: &str, name: &str) -> String {
        let format = format!("{{{{index .Config.Labels \"io.hm-vm.{name}\"}}}}");
        self.client(&["inspect", "--type=image", "--format", &format, image])
    }

    fn layers(&self, image: &str) -> usize {
        let format = "{{len .RootFS.Layers}}";
        let count = self.client(&["inspect", "--type=image", "--format", format, image]);
        count.parse().expect("a number")
    }

    /// An image of the same files, with an instruction each.
    fn image(&self, name: &str, changes: &[&str]) {
        let container = self.client(&["create", IMAGE, "/never-run"]);
        let tar = self.root.join("image.tar");
        let tar = tar.to_str().expect("a path that is text");
        self.client(&["export", "--output", tar, &container]);
        let mut arguments = vec!["import"];
        for change in changes {
            arguments.extend(["--change", change]);
        }
        arguments.extend([tar, name]);
        self.client(&arguments);
        self.client(&["rm", &container]);
    }

    async fn vm(&self, from: &str) -> Box<dyn Vm> {
        let made = self.backend.create(from, &VmConfig::default()).await;
        made.expect("a VM")
    }

    async fn fork(&self, snapshot: &SnapshotId) -> Box<dyn Vm> {
        let made = self.backend.restore(snapshot, &VmConfig::default()).await;
        made.expect("a fork")
    }

    async fn exists(&self, snapshot: &SnapshotId) -> bool {
        let exists = self.backend.snapshot_exists(snapshot).await;
        exists.expect("an answer")
    }

    async fn remove(&self, snapshot: &SnapshotId) {
        let removed = self.backend.remove_snapshot(snapshot).await;
        removed.expect("a removal");
    }

    /// A file that is different each time, without a process.
    async fn write(&self, vm: &dyn Vm, name: &str, text: &str) {
        let dir = self.root.join("brought").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("text"), text).unwrap();
        let place = format!("/brought/{name}");
        vm.inject(&dir, &place).await.expect("an inject");
    }
}

async fn run(vm: &dyn Vm, cmd: &str) {
    let code = vm.exec(cmd, &[], "", &NullSink).await.expect("an end");
    assert_eq!(code, 0, "{cmd}");
}

async fn snapshot(vm: &mut Box<dyn Vm>) -> SnapshotId {
    let taken = vm.snapshot(&SnapshotLabel::Ephemeral).await;
    taken.expect("a snapshot")
}

/// Any key, and what an image says to containers of it and of its snapshots.
async fn any_key_and_what_the_image_says(place: &Place) {
    let image = format!("hm-vm-says-{}:1", place.owner);
    place.image(
        &image,
        &[
            "ENTRYPOINT [\"/bin/sh\", \"-c\"]",
            "CMD [\"echo \\\"hi\\\" there\"]",
            "ENV SAYS=a=b",
            "WORKDIR /tmp",
            "USER 65534:65534",
            "EXPOSE 80",
            "LABEL mine=kept",
        ],
    );
    let mut previous = image.clone();
    let mut vm = place.vm(&image).await;
    let keys = [
        "plain".to_owned(),
        "Upper/Case KEY with spaces: and 'quotes' \"double\" $HOME `x` \\ back\\n".to_owned(),
        "snow ☃ — ключ".to_owned(),
        "x".repeat(10_000),
        "line\nbreak\ttab\0nul".to_owned(),
        String::new(),
        "=".to_owned(),
    ];
    let mut all = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        place.write(&*vm, "key", &number.to_string()).await;
        let label = SnapshotLabel::Cached(key.clone());
        let id = vm.snapshot(&label).await.expect("a snapshot");
        assert_eq!(place.says(&id), place.says(&image), "{key:?}");
        assert_eq!(place.label(&id, "session"), "");
        assert_eq!(place.label(&id, "owner"), place.owner);
        assert_eq!(place.label(&id, "kind"), "snapshot");
        let parent = place.label(&id, "parent");
        let expected = place.client(&["inspect", "--type=image", "--format={{.Id}}", &previous]);
        assert!(parent.ends_with(&expected), "{parent} is not {expected}");
        vm = place.fork(&id).await;
        previous = id.to_string();
        all.push(id);
    }
    let facts = place.backend.snapshots().expect("a list");
    assert_eq!(facts.len(), keys.len());
    for (id, key) in all.iter().zip(&keys) {
        let fact = facts.iter().find(|fact| fact.id == *id).expect("its facts");
        let shown = fact.key.clone().unwrap_or_default();
        let plain: String = key
            .chars()
            .map(|one| if one.is_control() { '\u{fffd}' } else { one })
            .take(1024)
            .collect();
        assert_eq!(shown, plain);
        assert!(fact.bytes > fact.own_bytes, "{fact:?}");
    }
    let last = place.client(&["run", "--rm", "--network=none", all.last().unwrap()]);
    assert_eq!(
        last, "hi there",
        "`run` of a snapshot does what the image does"
    );
    drop(vm);
    for id in &all {
        place.remove(id).await;
    }
    assert!(place.backend.flush());
    place.client(&["rmi", &image]);
}

/// In every order, what is removed is freed, and nothing else.
async fn what_is_removed_is_freed(place: &Place) {
    let before = place.images();
    let mut vm = place.vm(IMAGE).await;
    let mut chain = Vec::new();
    for number in 0..4 {
        place.write(&*vm, "chain", &number.to_string()).await;
        chain.push(snapshot(&mut vm).await);
        vm = place.fork(chain.last().unwrap()).await;
    }
    // Middle, beginning, and then an end that a VM runs on.
    for gone in [1, 0, 3] {
        place.remove(&chain[gone]).await;
        assert!(!place.exists(&chain[gone]).await);
        let config = VmConfig::default();
        let restored = place.backend.restore(&chain[gone], &config).await;
        assert!(restored.is_err());
    }
    run(&*vm, "test \"$(cat /brought/chain/text)\" = 3").await;
    place.write(&*vm, "chain", "again").await;
    let child = snapshot(&mut vm).await;
    let mut fork = place.fork(&chain[2]).await;
    run(&*fork, "test \"$(cat /brought/chain/text)\" = 2").await;
    let other = snapshot(&mut fork).await;
    // A name that a user gave keeps the image, and is the user's.
    let kept = format!("hm-vm-kept-{}:1", place.owner);
    place.client(&["tag", &other, &kept]);
    for id in [&other, &child, &chain[2]] {
        place.remove(id).await;
        place.remove(id).await;
        assert!(!place.exists(id).await);
    }
    assert!(!place.client(&["images", "--quiet", &kept]).is_empty());
    place.client(&["rmi", &kept]);
    drop((vm, fork));
    assert!(place.backend.flush());
    let after = || place.images().difference(&before).cloned().collect();
    until("images that were removed", after);
    assert!(place.backend.leftovers().expect("a list").is_empty());
}

/// Dropped at any moment, a snapshot is either there and told, or not there.
async fn what_nobody_waits_for_is_not_there(place: &Place) {
    let before = place.images();
    let mut vm = place.vm(IMAGE).await;
    for millis in [0, 1, 3, 10, 30] {
        place.write(&*vm, "dropped", &millis.to_string()).await;
        let label = SnapshotLabel::Ephemeral;
        let taking = vm.snapshot(&label);
        let limit = Duration::from_millis(millis);
        if let Ok(taken) = tokio::time::timeout(limit, taking).await {
            place.remove(&taken.expect("a snapshot")).await;
        }
    }
    vm.destroy().await.expect("an end");
    drop(vm);
    let after = || place.images().difference(&before).cloned().collect();
    until("images of dropped snapshots", after);
}

async fn snapshots_travel(place: &Place) {
    let mut vm = place.vm(IMAGE).await;
    place.write(&*vm, "copy", "travels").await;
    let id = snapshot(&mut vm).await;
    let mut archive = Vec::new();
    let saved = place.backend.save_archive(&id, &mut archive);
    saved.expect("an archive");
    let elsewhere = open(place.engine.socket(), &place.root.join("elsewhere"));
    assert!(
        !elsewhere.snapshot_exists(&id).await.unwrap(),
        "another owner's"
    );
    let bytes = std::io::Cursor::new(archive.clone());
    let came = elsewhere.load_archive(bytes).expect("a snapshot");
    assert!(elsewhere.snapshot_exists(&came).await.unwrap());
    let fork = elsewhere.restore(&came, &VmConfig::default()).await;
    let fork = fork.expect("a fork");
    run(&*fork, "test \"$(cat /brought/copy/text)\" = travels").await;
    drop(fork);
    assert_eq!(elsewhere.snapshots().unwrap().len(), 1);
    elsewhere.remove_snapshot(&came).await.unwrap();
    assert!(!elsewhere.snapshot_exists(&came).await.unwrap());
    assert!(
        place.exists(&id).await,
        "one owner's removal is not another's"
    );
    // Half an archive, and none.
    for part in [&archive[..archive.len() / 2], b"nothing".as_slice(), b""] {
        let bytes = std::io::Cursor::new(part.to_vec());
        assert!(
            elsewhere.load_archive(bytes).is_err(),
            "{} bytes",
            part.len()
        );
    }
    let unknown = SnapshotId::new(format!("sha256:{}", "0".repeat(64)));
    let mut out = Vec::new();
    assert!(place.backend.save_archive(&unknown, &mut out).is_err());
    place.remove(&id).await;
}

/// Who else removes a snapshot is heard of.
async fn others_removals_are_seen(place: &Place) {
    let mut vm = place.vm(IMAGE).await;
    place.write(&*vm, "seen", "1").await;
    let id = snapshot(&mut vm).await;
    drop(vm);
    for _ in 0..4 {
        assert!(place.exists(&id).await);
    }
    assert!(place.backend.flush());
    let names = place.client(&[
        "inspect",
        "--type=image",
        "--format={{join .RepoTags \" \"}}",
        &id,
    ]);
    for name in names.split(' ') {
        place.client(&["rmi", name]);
    }
    // The news takes a moment.
    for _ in 0..1000 {
        if !place.exists(&id).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!place.exists(&id).await);
}

/// An image with a volume: what is there, and what is written there, is in its snapshots.
async fn volumes_are_files(place: &Place) {
    let before = place.images();
    let image = format!("hm-vm-volume-{}:1", place.owner);
    place.image(&image, &["VOLUME /tmp/data", "ENV A=b"]);
    let mut vm = place.vm(&image).await;
    run(&*vm, "mkdir -p /tmp/data && echo 1 > /tmp/data/written").await;
    let id = snapshot(&mut vm).await;
    let again = place.vm(&image).await;
    let fork = place.fork(&id).await;
    run(&*fork, "test \"$(cat /tmp/data/written)$A\" = 1b").await;
    let tags = place.client(&["images", "--format={{.Repository}}:{{.Tag}}"]);
    let prepared = tags.lines().filter(|tag| tag.contains(":p-")).count();
    assert_eq!(prepared, 1, "{tags}");
    drop((vm, again, fork));
    place.remove(&id).await;
    assert!(place.backend.flush());
    place.client(&["rmi", &image]);
    place.backend.collect_leftovers().expect("a collection");
    let after = || place.images().difference(&before).cloned().collect();
    until("an image that was prepared from one that is gone", after);
}

/// Every file with what can be known of it. Size and links of a directory are the file system's affair.
const LISTING: &str = "list() { find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /brought -o -path /etc \\) \
    -prune -o \"$@\"; }; list ! -type d -exec stat -c '%N %f %u %g %h %t:%T %s' {} + | sort; \
    list -type d -exec stat -c '%N %f %u %g' {} + | grep -v '^/ ' | sort";

const STRANGE: &str = "mkdir -m 1750 /x && cd /x && echo a > a && ln a hard && ln -s a soft && mkfifo -m 640 fifo && \
    echo s > set && chmod 4751 set && chown 12:34 a && echo gone > gone && mkdir -m 700 empty && \
    touch \"$(printf 'n\\377ame')\" && mkdir dir && echo 1 > dir/1";

/// A long chain has few layers and the same files.
async fn a_chain(place: &Place, length: usize) {
    let mut vm = place.vm(IMAGE).await;
    run(&*vm, STRANGE).await;
    let mut last = snapshot(&mut vm).await;
    vm = place.fork(&last).await;
    run(
        &*vm,
        "rm -r /x/gone /x/dir && rm /bin/yes && mkdir /x/dir && echo 2 > /x/dir/2",
    )
    .await;
    let says = place.says(&last);
    let first = output(&*vm, LISTING).await;
    assert!(first.contains("/x/set"), "{first}");
    let mut deepest = 0;
    for number in 0..length {
        place.write(&*vm, "step", &number.to_string()).await;
        let next = snapshot(&mut vm).await;
        vm = place.fork(&next).await;
        place.remove(&last).await;
        last = next;
        deepest = deepest.max(place.layers(&last));
    }
    assert!(deepest <= MOST_LAYERS, "{deepest} layers");
    assert!(
        length < 105 || deepest > 90,
        "nothing was merged: {deepest} layers"
    );
    let end = output(&*vm, LISTING).await;
    assert_eq!(end, first);
    run(
        &*vm,
        &format!("test \"$(cat /brought/step/text)\" = {}", length - 1),
    )
    .await;
    assert_eq!(place.says(&last), says);
    drop(vm);
    place.remove(&last).await;
    assert!(place.backend.flush());
}

async fn output(vm: &dyn Vm, cmd: &str) -> String {
    let lines = Lines::default();
    let code = vm.exec(cmd, &[], "", &lines).await.expect("an end");
    let lines = lines.0.lock().unwrap().join("\n");
    assert_eq!(code, 0, "{lines}");
    lines
}

#[derive(Debug, Default)]
struct Lines(std::sync::Mutex<Vec<String>>);

impl OutputSink for Lines {
    fn on_stdout(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }

    fn on_stderr(&self, line: &str) {
        self.on_stdout(line);
    }
}

async fn all(place: &Place) {
    any_key_and_what_the_image_says(place).await;
    what_is_removed_is_freed(place).await;
    what_nobody_waits_for_is_not_there(place).await;
    snapshots_travel(place).await;
    others_removals_are_seen(place).await;
    volumes_are_files(place).await;
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

#[test]
fn snapshots_on_docker() {
    // Of its own: all its images are compared.
    let place = Place::new(require!(TestEngine::own_docker()));
    runtime().block_on(all(&place));
}

#[test]
fn snapshots_on_podman() {
    let place = Place::new(require!(TestEngine::own_podman()));
    runtime().block_on(all(&place));
}

fn chain(place: &Place, length: usize) {
    runtime().block_on(a_chain(place, length));
    until("what a chain left", || held(&place.engine, &place.owner));
}

#[test]
fn a_chain_of_300_on_docker() {
    let place = Place::new(require!(TestEngine::docker()));
    chain(&place, 300);
}

#[test]
fn a_chain_of_105_on_podman() {
    let place = Place::new(require!(TestEngine::podman()));
    chain(&place, 105);
}
