//! What must hold of archives that are unpacked, whatever bytes they are made of: nothing outside of the directory is
//! touched, and the limits hold. Used by the fuzz target, and by the tests of hm-vm-store.

use std::fs;
use std::path::Path;

use hm_vm_store::import::{
    ImportLimits, ImportOptions, LayerLimits, LayerOptions, unpack_layer_from, unpack_tar_from,
};

const BYTES: u64 = 1 << 20;
const ENTRIES: u64 = 200;
const CONTENT: &str = "not to be touched";

/// An archive, once as a layer and once as a root file system.
pub(crate) fn layer(bytes: &[u8]) {
    within(|directory| {
        let limits = LayerLimits {
            bytes: BYTES,
            entries: ENTRIES,
        };
        let options = LayerOptions {
            limits,
            ..LayerOptions::default()
        };
        let report = unpack_layer_from(&mut &bytes[..], Path::new("layer"), directory, &options);
        if let Ok(report) = report {
            assert!(report.entries <= ENTRIES && report.bytes <= BYTES);
        }
    });
    within(|directory| {
        let limits = ImportLimits {
            bytes: BYTES,
            entries: ENTRIES,
        };
        let options = ImportOptions {
            limits,
            ..ImportOptions::default()
        };
        let report = unpack_tar_from(&mut &bytes[..], Path::new("archive"), directory, &options);
        if let Ok(report) = report {
            assert!(report.entries <= ENTRIES && report.bytes <= BYTES);
        }
    });
}

/// Does it in a directory, and looks whether what lies around it is as it was.
fn within(unpack: impl FnOnce(&Path)) {
    let Ok(around) = tempfile::tempdir() else {
        return;
    };
    let (inside, outside) = (around.path().join("root"), around.path().join("outside"));
    if fs::create_dir(&inside)
        .and_then(|()| fs::write(&outside, CONTENT))
        .is_err()
    {
        return;
    }
    unpack(&inside);
    assert_eq!(fs::read_to_string(&outside).ok().as_deref(), Some(CONTENT));
    let names = fs::read_dir(around.path()).map_or(0, Iterator::count);
    assert_eq!(names, 2, "something was made outside");
    let is_directory = fs::symlink_metadata(&inside).is_ok_and(|found| found.is_dir());
    assert!(is_directory, "the directory itself was replaced");
}
