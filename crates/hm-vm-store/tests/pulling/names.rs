//! Names that lead to images.

use hm_vm_store::{Base, PullOptions};

use super::support::{Memory, empty_store, tar};

#[test]
fn any_form_of_a_reference_leads_to_its_image() {
    let (directory, store) = empty_store();
    let image = Memory::new(&[tar(&[("f", "pulled")])], "{}");
    let full = "docker.io/library/alpine:latest";
    let options = PullOptions {
        reference: Some(full.into()),
        ..PullOptions::default()
    };
    let pulled = store.pull_image(&image, full, &options).unwrap();
    assert_eq!(pulled.reference.as_deref(), Some(full));
    let checked = pulled.checked.unwrap();
    for name in [full, "alpine", "alpine:latest", "docker.io/alpine"] {
        assert_eq!(store.image(name).unwrap().unwrap().name, full, "{name}");
        let digest = store.image_digest(name).unwrap();
        assert_eq!(digest.as_ref(), Some(&pulled.digest), "{name}");
        assert!(store.image_config(name).unwrap().is_some(), "{name}");
    }
    for name in ["alpine:3", "x/alpine", "quay.io/alpine", "", "ALPINE"] {
        assert_eq!(store.image(name).unwrap(), None, "{name}");
        assert_eq!(store.image_digest(name).unwrap(), None, "{name}");
        assert!(!store.remove_image(name).unwrap(), "{name}");
    }
    let vm = store.new_vm(Base::Image("alpine")).unwrap();
    let snapshot = vm.commit(None).unwrap();
    let info = store.snapshot(&snapshot).unwrap().unwrap();
    assert_eq!(info.image.as_deref(), Some(full));
    let again = store.pull_image(&image, full, &options).unwrap();
    assert!(again.checked.unwrap() >= checked);
    assert_eq!((again.created, image.opened()), (pulled.created, 1));
    // What the user imported under the short name goes before.
    let root = directory.path().join("root");
    std::fs::create_dir_all(root.join("own")).unwrap();
    store.import_image(&root, "alpine").unwrap();
    let own = store.image("alpine").unwrap().unwrap();
    assert_eq!((&*own.name, own.manifest), ("alpine", None));
    assert!(store.image_config("alpine").unwrap().is_none());
    assert!(store.remove_image("alpine").unwrap());
    assert!(store.remove_image("alpine").unwrap());
    assert_eq!(store.image(full).unwrap(), None);
}
