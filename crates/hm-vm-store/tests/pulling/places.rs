//! Images made by others, from where they keep them.

use hm_vm_oci::{Reference, RegistryClient, RegistryOptions, open_local};
use hm_vm_store::PullOptions;
use hm_vm_testkit::registry::{RegistryServer, RegistrySetup, TestImage, need_registry};
use hm_vm_testkit::require;

use super::support::{empty_store, files};
use crate::common::assert_clean;

#[test]
fn a_layout_and_a_registry_have_the_same_image() {
    require!(TestImage::need_tools());
    require!(need_registry());
    let (directory, store) = empty_store();
    let image = TestImage::busybox(&directory.path().join("layout")).unwrap();
    image
        .configure(&[
            "--config.env=A=b c",
            "--config.user=5",
            "--config.workingdir=/w",
        ])
        .unwrap();
    let local = open_local(image.layout(), None).unwrap();
    let from_layout = store
        .pull_image(&*local, "layout", &PullOptions::default())
        .unwrap();
    assert_eq!(from_layout.defaults.user.as_deref(), Some("5"));
    assert_eq!(from_layout.defaults.working_dir.as_deref(), Some("/w"));
    let variable = ("A".to_owned(), "b c".to_owned());
    assert!(from_layout.defaults.env.contains(&variable));
    assert!(files(&store, "layout").contains_key("/bin/busybox"));
    let server = RegistryServer::start(RegistrySetup::default()).unwrap();
    image.push(&server, "o/r:1").unwrap();
    let name = format!("{}/o/r:1", server.address());
    let reference: Reference = name.parse().unwrap();
    let client = RegistryClient::new(RegistryOptions::default()).unwrap();
    let (_other, far) = empty_store();
    for store in [&store, &far] {
        let source = client.source(&reference);
        let options = PullOptions {
            reference: Some(reference.to_string()),
            ..PullOptions::default()
        };
        let pulled = store.pull_image(&*source, &name, &options).unwrap();
        assert_eq!(pulled.digest, from_layout.digest);
        assert_eq!(pulled.defaults, from_layout.defaults);
    }
    assert_eq!(files(&far, &name), files(&store, "layout"));
    let layers = server.requests().unwrap();
    let config = from_layout.digest.as_str();
    let fetched = layers.iter().filter(|request| {
        request.method == "GET"
            && request.path.contains("/blobs/")
            && !request.path.contains(config)
    });
    // The store that had the layout's layer fetched none.
    assert_eq!(fetched.count(), 1);
    assert_clean(&store);
    assert_clean(&far);
}
