//! Snapshots that go from one store to another.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use hm_vm_core::{CancelCause, Cancellation, Progress, SnapshotId};
use hm_vm_oci::{Descriptor, Digest, OciError, RawManifest, Source};
use hm_vm_store::{Adopted, Adoption, Base, Store, StoreError, View, VmFiles};
use tempfile::TempDir;

use crate::common::{
    assert_clean, contents, layer_count, open_after_kill, read, upper, white_out, write,
};

/// Blobs in memory, which may lie.
#[derive(Default)]
struct Blobs {
    blobs: Mutex<BTreeMap<Digest, Vec<u8>>>,
    opened: AtomicUsize,
    /// Called before each read.
    before: Option<Box<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for Blobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Blobs")
    }
}

impl Blobs {
    fn put(&self, digest: Digest, bytes: Vec<u8>) {
        self.blobs.lock().unwrap().insert(digest, bytes);
    }

    /// Puts all that a snapshot consists of in, and returns what it is.
    fn take(&self, store: &Store, id: &SnapshotId) -> Adoption {
        let chain = store.snapshot_chain(id).unwrap();
        for (place, layer) in chain.adoption.layers.iter().enumerate() {
            if self.blobs.lock().unwrap().contains_key(&layer.blob.digest) {
                continue;
            }
            let packed = chain.pack(place).unwrap().unwrap();
            assert_eq!(packed.blob, layer.blob);
            let mut bytes = Vec::new();
            packed.open().read_to_end(&mut bytes).unwrap();
            self.put(layer.blob.digest, bytes);
        }
        for (place, inject) in chain.adoption.injects.iter().enumerate() {
            self.put(
                inject.manifest.digest,
                chain.inject_manifest(place).to_vec(),
            );
        }
        assert_eq!(chain.chain, chain.adoption.chain());
        chain.adoption.clone()
    }

    fn opened(&self) -> usize {
        self.opened.swap(0, Ordering::Relaxed)
    }
}

impl Source for Blobs {
    fn describe(&self) -> String {
        "memory".into()
    }

    fn root(&self) -> Result<RawManifest, OciError> {
        Err(OciError::invalid("root", "none"))
    }

    fn manifest(&self, _: &Descriptor) -> Result<RawManifest, OciError> {
        self.root()
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, OciError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        if let Some(before) = &self.before {
            before();
        }
        let blobs = self.blobs.lock().unwrap();
        let bytes = blobs.get(&blob.digest).ok_or_else(|| OciError::NotFound {
            what: blob.digest.to_string(),
            place: self.describe(),
        })?;
        Ok(Box::new(Cursor::new(bytes.clone())))
    }
}

/// Two stores with the same image.
struct Pair {
    directory: TempDir,
    a: Store,
    b: Store,
    blobs: Blobs,
}

impl Pair {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
        fs::create_dir(root.join("tmp")).unwrap();
        let open = |name: &str| {
            let store = Store::open(&directory.path().join(name)).unwrap();
            store.import_image(&root, "base").unwrap();
            store
        };
        let (a, b) = (open("a"), open("b"));
        Self {
            directory,
            a,
            b,
            blobs: Blobs::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A lineage in the first store: each snapshot has a file of its own, and lacks the one of the last but one.
    fn lineage(&self, length: usize) -> Vec<SnapshotId> {
        let vm = self.a.new_vm(Base::Image("base")).unwrap();
        let made = (0..length).map(|step| self.step(&vm, step)).collect();
        vm.remove().unwrap();
        made
    }

    fn step(&self, vm: &VmFiles, step: usize) -> SnapshotId {
        write(&self.a, vm, &format!("d/{step}"), &format!("step {step}"));
        write(&self.a, vm, "last", &format!("{step}"));
        if step > 1 {
            white_out(&self.a, vm, &format!("d/{}", step - 2));
        }
        vm.commit(Some(&format!("step {step}"))).unwrap()
    }

    fn adopt(&self, id: &SnapshotId) -> Adopted {
        let adoption = self.blobs.take(&self.a, id);
        adopt(&self.b, &adoption, &self.blobs).unwrap()
    }

    #[track_caller]
    fn assert_same(&self, id: &SnapshotId) {
        let (a, b) = (self.a.view(id).unwrap(), self.b.view(id).unwrap());
        assert_eq!(contents(&a), contents(&b));
        assert_eq!(View::changes(&self.a, &a, &b).unwrap(), []);
    }
}

fn adopt(store: &Store, adoption: &Adoption, source: &dyn Source) -> Result<Adopted, StoreError> {
    store.adopt_snapshot(adoption, source, &Cancellation::new(), &Progress::new())
}

#[test]
fn a_lineage_goes_over_layer_by_layer() {
    let pair = Pair::new();
    let made = pair.lineage(4);
    let first = pair.adopt(&made[1]);
    assert_eq!((first.was_here, first.layers), (false, 2));
    assert!(first.bytes > 0);
    pair.assert_same(&made[1]);
    // Only what is above it travels.
    assert_eq!(pair.adopt(&made[3]).layers, 2);
    pair.assert_same(&made[3]);
    // The one in between stands on what is there.
    assert_eq!(pair.adopt(&made[2]).layers, 0);
    assert_eq!(pair.adopt(&made[0]).layers, 0);
    for id in &made {
        pair.assert_same(id);
        let (a, b) = (pair.a.snapshot(id), pair.b.snapshot(id));
        let (a, b) = (a.unwrap().unwrap(), b.unwrap().unwrap());
        assert_eq!(
            (a.label, a.parent, a.image, a.created, a.depth, a.layers),
            (b.label, b.parent, b.image, b.created, b.depth, b.layers)
        );
    }
    pair.blobs.opened();
    let again = pair.adopt(&made[3]);
    assert!(again.was_here && again.bytes == 0);
    assert_eq!(pair.blobs.opened(), 0);
    // It is like any other: it can be forked, and its descendants go back.
    let vm = pair.b.new_vm(Base::Snapshot(&made[3])).unwrap();
    write(&pair.b, &vm, "back", "yes");
    let back = vm.commit(None).unwrap();
    vm.remove().unwrap();
    let adoption = pair.blobs.take(&pair.b, &back);
    assert_eq!(adopt(&pair.a, &adoption, &pair.blobs).unwrap().layers, 1);
    pair.assert_same(&back);
    for id in made.iter().chain([&back]) {
        pair.b.remove_snapshot(id).unwrap();
    }
    assert_eq!(pair.b.collect_unused().unwrap().layers, 0);
    assert_clean(&pair.b);
    assert_eq!(pair.b.stats().unwrap().layers, 1);
}

#[test]
fn every_kind_of_change_goes_over() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let pair = Pair::new();
    let vm = pair.a.new_vm(Base::Image("base")).unwrap();
    write(&pair.a, &vm, "old/x", "x");
    write(&pair.a, &vm, "old/y", "y");
    vm.commit(None).unwrap();
    let top = upper(&pair.a, &vm);
    fs::set_permissions(&top, fs::Permissions::from_mode(0o711)).unwrap();
    white_out(&pair.a, &vm, "old");
    white_out(&pair.a, &vm, "etc/hosts");
    write(&pair.a, &vm, "bin/tool", "#!/bin/sh\n");
    fs::set_permissions(top.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(top.join("bin/tool"), top.join("bin/alias")).unwrap();
    symlink("/bin/tool", top.join("bin/link")).unwrap();
    fs::create_dir(top.join("empty")).unwrap();
    let id = vm.commit(None).unwrap();
    vm.remove().unwrap();
    pair.adopt(&id);
    pair.assert_same(&id);
}

/// A lineage whose chain has every layer: each was asked for before the background merged it, which it begins to do at
/// once. Where that was faster, another one is made.
fn unmerged(length: usize) -> (Pair, Vec<SnapshotId>, Adoption) {
    for _ in 0..50 {
        let pair = Pair::new();
        let vm = pair.a.new_vm(Base::Image("base")).unwrap();
        let mut made = Vec::new();
        let mut chain = None;
        for step in 0..length {
            made.push(pair.step(&vm, step));
            chain = Some(pair.blobs.take(&pair.a, &made[step]));
        }
        vm.remove().unwrap();
        match chain {
            Some(chain) if chain.layers.len() == length => return (pair, made, chain),
            _ => {}
        }
    }
    panic!("the background was always faster");
}

#[test]
fn a_chain_is_the_same_after_it_was_flattened() {
    let (pair, made, before) = unmerged(30);
    let last = made.last().unwrap();
    pair.a.flush().unwrap();
    assert!(pair.a.snapshot(last).unwrap().unwrap().layers < 24);
    let kept = pair.a.snapshot_chain(last).unwrap();
    assert_eq!(kept.adoption, before);
    assert!((0..30).any(|place| kept.pack(place).unwrap().is_none()));
    let merged = pair.a.merged_chain(last).unwrap();
    assert!(merged.adoption.layers.len() < 24 && merged.chain != kept.chain);
    let count = merged.adoption.layers.len();
    assert!((0..count).all(|place| merged.pack(place).unwrap().is_some()));
    drop((kept, merged));
    assert_eq!(pair.adopt(last).layers, 30);
    // Which is flattened here as well.
    pair.b.flush().unwrap();
    let vm = pair.b.new_vm(Base::Snapshot(last)).unwrap();
    assert!(layer_count(&vm) < 24, "{}", layer_count(&vm));
    vm.remove().unwrap();
    pair.assert_same(last);
    // A flattened snapshot is still known by its chain.
    let vm = pair.a.new_vm(Base::Snapshot(last)).unwrap();
    let next = pair.step(&vm, 30);
    vm.remove().unwrap();
    assert_eq!(pair.adopt(&next).layers, 1);
    pair.assert_same(&next);
}

#[test]
fn layers_that_were_merged_before_anybody_asked_go_over_merged() {
    let pair = Pair::new();
    let made = pair.lineage(20);
    let last = made.last().unwrap();
    for id in &made[..19] {
        pair.a.remove_snapshot(id).unwrap();
    }
    pair.a.flush().unwrap();
    let adoption = pair.blobs.take(&pair.a, last);
    assert!(adoption.layers.len() < 20);
    adopt(&pair.b, &adoption, &pair.blobs).unwrap();
    pair.assert_same(last);
}

#[test]
fn a_later_inject_removes_what_an_adopted_one_brought() {
    let pair = Pair::new();
    let tree = pair.path("tree");
    fs::create_dir(&tree).unwrap();
    for name in ["kept", "gone"] {
        fs::write(tree.join(name), name).unwrap();
    }
    let vm = pair.a.new_vm(Base::Image("base")).unwrap();
    vm.inject(&tree, "/src").unwrap();
    write(&pair.a, &vm, "src/made", "by the guest");
    let id = vm.commit(None).unwrap();
    vm.remove().unwrap();
    pair.adopt(&id);
    pair.assert_same(&id);
    fs::remove_file(tree.join("gone")).unwrap();
    let inject = |store: &Store| {
        let vm = store.new_vm(Base::Snapshot(&id)).unwrap();
        vm.inject(&tree, "/src").unwrap();
        let id = vm.commit(None).unwrap();
        vm.remove().unwrap();
        contents(&store.view(&id).unwrap())
    };
    let (a, b) = (inject(&pair.a), inject(&pair.b));
    assert_eq!(a, b);
    let has = |path: &str| b.contains_key(Path::new(path));
    assert!(has("/src/kept") && has("/src/made") && !has("/src/gone"));
}

#[test]
fn a_tree_that_is_injected_again_is_on_top_once() {
    let pair = Pair::new();
    let tree = pair.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("x"), "x").unwrap();
    let vm = pair.a.new_vm(Base::Image("base")).unwrap();
    vm.inject(&tree, "/src").unwrap();
    let first = vm.commit(None).unwrap();
    write(&pair.a, &vm, "src/x", "changed");
    let second = vm.commit(None).unwrap();
    vm.inject(&tree, "/src").unwrap();
    let third = vm.commit(None).unwrap();
    vm.remove().unwrap();
    for id in [&third, &first, &second] {
        pair.adopt(id);
        pair.assert_same(id);
    }
    assert_eq!(read(&pair.b.view(&third).unwrap(), "/src/x"), "x");
}

#[test]
fn an_id_stands_for_one_chain() {
    let pair = Pair::new();
    let made = pair.lineage(2);
    pair.adopt(&made[0]);
    let other = Adoption {
        id: made[0].clone(),
        ..pair.blobs.take(&pair.a, &made[1])
    };
    let error = adopt(&pair.b, &other, &pair.blobs).unwrap_err();
    assert!(error.to_string().contains("with other files"), "{error}");
    pair.assert_same(&made[0]);
    // Also where the chain was not known yet.
    let own = pair.b.new_vm(Base::Image("base")).unwrap();
    let id = own.commit(None).unwrap();
    own.remove().unwrap();
    let error = adopt(&pair.b, &Adoption { id, ..other }, &pair.blobs).unwrap_err();
    assert!(error.to_string().contains("with other files"), "{error}");
    assert_clean(&pair.b);
}

#[test]
fn without_the_image_there_is_no_snapshot() {
    let pair = Pair::new();
    let id = pair.lineage(1).remove(0);
    let adoption = pair.blobs.take(&pair.a, &id);
    pair.b.remove_image("base").unwrap();
    let error = adopt(&pair.b, &adoption, &pair.blobs).unwrap_err();
    assert!(
        matches!(&error, StoreError::ImageNotFound { image } if *image == adoption.base_digest),
        "{error}"
    );
    assert_eq!(pair.blobs.opened(), 0);
    assert_clean(&pair.b);
}

#[test]
fn an_image_that_lost_its_name_is_still_there() {
    let pair = Pair::new();
    let made = pair.lineage(3);
    let vm = pair.b.new_vm(Base::Image("base")).unwrap();
    write(&pair.b, &vm, "other", "file");
    vm.commit(None).unwrap();
    vm.remove().unwrap();
    pair.b.remove_image("base").unwrap();
    assert_eq!(pair.adopt(&made[2]).layers, 3);
    pair.assert_same(&made[2]);
}

/// What a source can lie about.
#[test]
fn a_lie_leaves_nothing() {
    let pair = Pair::new();
    let made = pair.lineage(3);
    let good = pair.blobs.take(&pair.a, &made[2]);
    let blob = good.layers[1].blob.clone();
    let bytes = pair.blobs.blobs.lock().unwrap()[&blob.digest].clone();
    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let mut longer = bytes.clone();
    longer.push(0);
    for wrong in [flipped, bytes[..middle].to_vec(), longer, Vec::new()] {
        pair.blobs.put(blob.digest, wrong);
        refused(&pair, &good);
    }
    pair.blobs.blobs.lock().unwrap().remove(&blob.digest);
    refused(&pair, &good);
    pair.blobs.put(blob.digest, bytes);
    // Layers in another order, under the names of each other.
    let mut swapped = good.clone();
    let (first, second) = (good.layers[0].clone(), good.layers[1].clone());
    swapped.layers[0].blob = second.blob;
    swapped.layers[1].blob = first.blob;
    refused(&pair, &swapped);
    let mut short = good.clone();
    short.layers[1].blob.size -= 1;
    refused(&pair, &short);
    let mut long = good.clone();
    long.layers[1].blob.size += 1;
    refused(&pair, &long);
    // After all that, it works.
    assert_eq!(adopt(&pair.b, &good, &pair.blobs).unwrap().layers, 3);
    pair.assert_same(&made[2]);
}

#[track_caller]
fn refused(pair: &Pair, adoption: &Adoption) {
    let error = adopt(&pair.b, adoption, &pair.blobs).unwrap_err();
    assert!(matches!(error, StoreError::Oci(_)), "{error:?}");
    assert!(!pair.b.snapshot_exists(&adoption.id).unwrap());
    pair.b.collect_unused().unwrap();
    assert_clean(&pair.b);
    assert_eq!(pair.b.stats().unwrap().layers, 1);
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_fetched() {
    let pair = Pair::new();
    let id = pair.lineage(1).remove(0);
    let good = pair.blobs.take(&pair.a, &id);
    let with_id = |id: &str| Adoption {
        id: SnapshotId::new(id),
        ..good.clone()
    };
    let many = Adoption {
        layers: vec![good.layers[0].clone(); 5000],
        ..good.clone()
    };
    let own = Adoption {
        own: 2,
        ..good.clone()
    };
    for wrong in [
        with_id("../../etc/passwd"),
        with_id(""),
        with_id(&id.to_uppercase()),
        many,
        own,
    ] {
        if wrong == good {
            continue;
        }
        let error = adopt(&pair.b, &wrong, &pair.blobs).unwrap_err();
        assert!(matches!(error, StoreError::InvalidInput { .. }), "{error}");
    }
    assert_eq!(pair.blobs.opened(), 0);
}

#[test]
fn a_cancelled_adoption_leaves_nothing() {
    let mut pair = Pair::new();
    let made = pair.lineage(3);
    let adoption = pair.blobs.take(&pair.a, &made[2]);
    let cancel = Cancellation::new();
    let token = cancel.clone();
    let left = AtomicUsize::new(2);
    pair.blobs.before = Some(Box::new(move || {
        if left.fetch_sub(1, Ordering::Relaxed) == 1 {
            token.cancel(CancelCause::User);
        }
    }));
    let adopted = pair
        .b
        .adopt_snapshot(&adoption, &pair.blobs, &cancel, &Progress::new());
    let error = adopted.unwrap_err().contract();
    assert!(
        matches!(error, Some(hm_vm_core::Error::Cancelled { .. })),
        "{error:?}"
    );
    pair.b.collect_unused().unwrap();
    assert_clean(&pair.b);
    assert_eq!(pair.b.stats().unwrap().layers, 1);
}

#[test]
fn a_collection_meanwhile_does_no_harm() {
    let mut pair = Pair::new();
    let made = pair.lineage(4);
    pair.adopt(&made[1]);
    let adoption = pair.blobs.take(&pair.a, &made[3]);
    let (store, below) = (pair.b.clone(), made[1].clone());
    pair.blobs.before = Some(Box::new(move || {
        // What it stands on, and what has come, is nobody's yet.
        store.remove_snapshot(&below).unwrap();
        store.collect_unused().unwrap();
        store.flush().unwrap();
    }));
    assert_eq!(adopt(&pair.b, &adoption, &pair.blobs).unwrap().layers, 2);
    pair.assert_same(&made[3]);
    assert_clean(&pair.b);
}

#[test]
fn a_layer_that_two_need_comes_once() {
    let pair = Pair::new();
    let vm = pair.a.new_vm(Base::Image("base")).unwrap();
    write(&pair.a, &vm, "common", "to both");
    let common = vm.commit(None).unwrap();
    vm.remove().unwrap();
    let adoptions: Vec<Adoption> = (0..4)
        .map(|number| {
            let vm = pair.a.new_vm(Base::Snapshot(&common)).unwrap();
            write(&pair.a, &vm, "own", &format!("{number}"));
            let id = vm.commit(None).unwrap();
            vm.remove().unwrap();
            pair.blobs.take(&pair.a, &id)
        })
        .collect();
    let begin = Arc::new(Barrier::new(4));
    std::thread::scope(|scope| {
        for (number, adoption) in adoptions.iter().enumerate() {
            let (pair, begin) = (&pair, Arc::clone(&begin));
            scope.spawn(move || {
                // Half of them in another session, as another process would be.
                let store = match number % 2 {
                    0 => pair.b.clone(),
                    _ => Store::open(&pair.path("b")).unwrap(),
                };
                begin.wait();
                adopt(&store, adoption, &pair.blobs).unwrap();
            });
        }
    });
    assert_eq!(pair.blobs.opened(), 5);
    for adoption in &adoptions {
        pair.assert_same(&adoption.id);
    }
    assert_clean(&pair.b);
}

const ROOT: &str = "HM_VM_STORE_TEST_ADOPTER";

/// Death at any moment of an adoption.
#[test]
fn a_killed_adoption_leaves_a_whole_store() {
    let pair = Pair::new();
    let made = pair.lineage(6);
    let last = made.last().unwrap();
    let expected = contents(&pair.a.view(last).unwrap());
    drop((pair.a, pair.b));
    let root = pair.directory.path();
    let began = Instant::now();
    let (mut kills, mut whole) = (0_u32, 0);
    while kills < 60 && began.elapsed() < Duration::from_secs(20) {
        let mut child = start(root, last);
        // Not a sleep that stands for an event: the moment of death is the input of the test.
        std::thread::sleep(Duration::from_micros(
            5_000 + u64::from(kills) * 7919 % 60_000,
        ));
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        let store = open_after_kill(&root.join("b"));
        store.collect_unused().unwrap();
        assert_clean(&store);
        if store.snapshot_exists(last).unwrap() {
            whole += 1;
            assert_eq!(contents(&store.view(last).unwrap()), expected);
            store.remove_snapshot(last).unwrap();
            assert_clean(&store);
        }
        assert_eq!(store.stats().unwrap().layers, 1);
    }
    assert!(kills >= 20, "only {kills} kills, {whole} whole");
}

fn start(root: &Path, id: &SnapshotId) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "adopting::adopter", "--nocapture"])
        .env(ROOT, root)
        .env("HM_VM_STORE_TEST_ID", &**id)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// The worker of the test above. Does nothing in an ordinary test run.
#[test]
fn adopter() {
    let Some(root) = std::env::var_os(ROOT) else {
        return;
    };
    let root = PathBuf::from(root);
    let id = SnapshotId::new(std::env::var("HM_VM_STORE_TEST_ID").unwrap());
    let (a, b) = (root.join("a"), root.join("b"));
    let (a, b) = (Store::open(&a).unwrap(), Store::open(&b).unwrap());
    let blobs = Blobs::default();
    let adoption = blobs.take(&a, &id);
    loop {
        adopt(&b, &adoption, &blobs).unwrap();
        b.remove_snapshot(&id).unwrap();
    }
}

/// Reading is all that a source is asked for.
#[test]
fn an_unreadable_source_says_what_is_wrong() {
    #[derive(Debug)]
    struct Broken;
    impl Source for Broken {
        fn describe(&self) -> String {
            "a broken place".into()
        }
        fn root(&self) -> Result<RawManifest, OciError> {
            Err(OciError::invalid("root", "none"))
        }
        fn manifest(&self, _: &Descriptor) -> Result<RawManifest, OciError> {
            self.root()
        }
        fn open(&self, _: &Descriptor) -> Result<Box<dyn Read + Send>, OciError> {
            struct Cut;
            impl Read for Cut {
                fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                    Err(io::ErrorKind::ConnectionReset.into())
                }
            }
            Ok(Box::new(Cut))
        }
    }
    let pair = Pair::new();
    let id = pair.lineage(1).remove(0);
    let adoption = pair.blobs.take(&pair.a, &id);
    adopt(&pair.b, &adoption, &Broken).unwrap_err();
    assert_clean(&pair.b);
}
