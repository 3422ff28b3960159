//! What an image becomes.

use hm_vm_oci::Platform;
use hm_vm_store::{Base, ImageDefaults};

use super::support::{Entry, Memory, empty_store, files, tar};
use crate::common::{assert_clean, entries, layer_count};

fn some_layers() -> Vec<Vec<u8>> {
    vec![
        tar(&[("etc/", ""), ("etc/a", "1"), ("etc/b", "1"), ("opt/x", "1")]),
        tar(&[("etc/.wh.a", ""), ("etc/b", "2")]),
        tar(&[("opt/.wh..wh..opq", ""), ("opt/y", "3")]),
    ]
}

#[test]
fn layers_lie_upon_each_other_and_the_configuration_is_kept() {
    let (_directory, store) = empty_store();
    let says = r#"{"Env":["A=1","B=x=y"],"User":"7:8","WorkingDir":"/opt"}"#;
    let image = Memory::new(&some_layers(), says);
    let info = image.pull(&store, "x").unwrap();
    let found = files(&store, "x");
    let paths: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(paths, ["/etc", "/etc/b", "/opt", "/opt/y"]);
    assert_eq!((&*found["/etc/b"], &*found["/opt/y"]), ("2", "3"));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let defaults = ImageDefaults {
        env: vec![pair("A", "1"), pair("B", "x=y")],
        user: Some("7:8".into()),
        working_dir: Some("/opt".into()),
    };
    assert_eq!(info.defaults, defaults);
    assert_eq!(info.platform, Some(Platform::here()));
    assert!(info.digest.starts_with("sha256:") && info.manifest.is_some());
    assert_eq!((info.reference, info.checked, info.bytes), (None, None, 5));
    let vm = store.new_vm(Base::Image("x")).unwrap();
    assert_eq!(vm.defaults(), &defaults);
    assert_eq!(layer_count(&vm), 3);
    let snapshot = vm.commit(None).unwrap();
    let fork = store.new_vm(Base::Snapshot(&snapshot)).unwrap();
    drop(vm);
    // What began with the image keeps what it said, whatever becomes of it.
    assert!(store.remove_image("x").unwrap());
    assert_eq!(fork.defaults(), &defaults);
    let config = store.snapshot_image_config(&snapshot).unwrap().unwrap();
    assert_eq!(config.config.unwrap().working_dir.as_deref(), Some("/opt"));
    drop(fork);
    store.remove_snapshot(&snapshot).unwrap();
    assert_clean(&store);
    assert_eq!(entries(&store, "layers"), 0);
}

#[test]
fn layers_are_fetched_once_whichever_image_has_them() {
    let (_directory, store) = empty_store();
    let mut layers = some_layers();
    let first = Memory::new(&layers, "{}");
    let info = first.pull(&store, "one").unwrap();
    assert_eq!(first.opened(), 3);
    assert_eq!(first.pull(&store, "one").unwrap(), info);
    // Another name for what is here.
    let other = first.pull(&store, "other").unwrap();
    assert_eq!((first.opened(), &other.digest), (3, &info.digest));
    layers.push(tar(&[("more", "4")]));
    let second = Memory::new(&layers, "{}");
    let more = second.pull(&store, "two").unwrap();
    assert_eq!(second.opened(), 1);
    assert_eq!(more.bytes, 6);
    assert_eq!(store.stats().unwrap().layers, 4);
    for name in ["one", "other"] {
        assert!(store.remove_image(name).unwrap());
    }
    assert_eq!(files(&store, "two")["/more"], "4");
    // The layers of the first image are the second one's.
    assert_eq!(first.pull(&store, "one").unwrap().digest, info.digest);
    assert_eq!(first.opened(), 3);
    // A name may come to stand for something else.
    let moved = second.pull(&store, "one").unwrap();
    assert_eq!(moved.digest, more.digest);
    assert_clean(&store);
}

#[test]
fn an_image_may_have_no_layers_or_one_twice() {
    let (_directory, store) = empty_store();
    let empty = Memory::new(&[], r#"{"Env":["A=1"]}"#);
    assert_eq!(empty.pull(&store, "empty").unwrap().entries, 0);
    assert!(files(&store, "empty").is_empty());
    let (one, two) = (
        tar(&[("f", "1"), ("g", "1")]),
        tar(&[("f", "2"), (".wh.g", "")]),
    );
    let twice = Memory::new(&[one.clone(), two, one], "{}");
    twice.pull(&store, "twice").unwrap();
    assert_eq!(twice.opened(), 2);
    let found = files(&store, "twice");
    assert_eq!((&*found["/f"], &*found["/g"]), ("1", "1"));
    let vm = store.new_vm(Base::Image("twice")).unwrap();
    assert_eq!(layer_count(&vm), 2);
}

#[test]
fn an_image_of_very_many_layers_becomes_shorter() {
    let (_directory, store) = empty_store();
    let texts: Vec<String> = (0..127).map(|number| number.to_string()).collect();
    let layers: Vec<Vec<u8>> = (0..127)
        .map(|number| {
            let (own, gone) = (
                format!("d/{number}"),
                format!("d/.wh.{}", number.max(10) - 10),
            );
            let mut entries: Vec<Entry<'_>> = vec![("last", &texts[number]), (&own, "x")];
            if number >= 10 {
                entries.push((&gone, ""));
            }
            tar(&entries)
        })
        .collect();
    let image = Memory::new(&layers, "{}");
    image.pull(&store, "long").unwrap();
    let found = files(&store, "long");
    assert_eq!(found["/last"], "126");
    let expected: std::collections::BTreeSet<String> =
        (117..127).map(|number| format!("/d/{number}")).collect();
    let left = found.keys().filter(|path| path.starts_with("/d/")).cloned();
    assert_eq!(left.collect::<std::collections::BTreeSet<_>>(), expected);
    let vm = store.new_vm(Base::Image("long")).unwrap();
    assert_eq!(layer_count(&vm), 40);
    vm.remove().unwrap();
    assert_clean(&store);
    assert_eq!(store.stats().unwrap().layers, 40);
    // The lowest ones are still those of others.
    let base = Memory::new(&layers[..20], "{}");
    base.pull(&store, "base").unwrap();
    assert_eq!(base.opened(), 0);
}

#[test]
fn a_layer_with_links_into_lower_ones_serves_its_image_alone() {
    let (_directory, store) = empty_store();
    let lower = tar(&[("a", "content")]);
    let upper = tar(&[("b", "link:a")]);
    let image = Memory::new(&[lower, upper.clone()], "{}");
    image.pull(&store, "one").unwrap();
    let found = files(&store, "one");
    assert_eq!((&*found["/a"], &*found["/b"]), ("content", "content"));
    let other = Memory::new(&[tar(&[("a", "other")]), upper], "{}");
    other.pull(&store, "two").unwrap();
    assert_eq!(other.opened(), 2);
    assert_eq!(files(&store, "two")["/b"], "other");
    assert_clean(&store);
}
