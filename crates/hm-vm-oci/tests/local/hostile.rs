//! Archives made to do harm: they cost little, and lead nowhere.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;

use hm_vm_oci::{Members, OciError};
use hm_vm_testkit::roots::TestRoot;
use tar::{EntryType, Header};

use super::image::{archive, refusal};

fn header(kind: EntryType, name: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_path(name).unwrap();
    header.set_size(size);
    header.set_cksum();
    header
}

/// An archive of one header with this size, in a file of that length and no more than that on disk.
fn refused(header: &Header, length: u64) -> String {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(header.as_bytes(), 0).unwrap();
    file.set_len(length).unwrap();
    Members::scan(file, "hostile.tar".as_ref())
        .unwrap_err()
        .to_string()
}

#[test]
fn sizes_that_lie_are_refused() {
    for size in [513, 1 << 40, u64::MAX, u64::MAX - 511, i64::MAX as u64] {
        let error = refused(&header(EntryType::Regular, "file", size), 1024);
        assert!(error.contains("cut off"), "{size}: {error}");
    }
    let mut negative = header(EntryType::Regular, "file", 0);
    negative.as_mut_bytes()[124..136].copy_from_slice(&[0xff; 12]);
    negative.set_cksum();
    refused(&negative, 1024);
}

#[test]
fn headers_without_end_are_not_read() {
    const LENGTH: u64 = 1 << 40;
    for kind in [
        EntryType::XHeader,
        EntryType::GNULongName,
        EntryType::GNULongLink,
    ] {
        let error = refused(&header(kind, "x", LENGTH - 512), LENGTH);
        assert!(error.contains("too long"), "{error}");
    }
}

#[test]
fn extended_headers_that_lie_are_refused() {
    for records in [
        "9999999999999999999999 path=x\n",
        "5 path=x\n",
        "0 \n",
        "x",
        "12 path=xxxx",
        "-1 a=b\n",
    ] {
        let mut bytes = header(EntryType::XHeader, "x", records.len() as u64)
            .as_bytes()
            .to_vec();
        bytes.extend_from_slice(records.as_bytes());
        bytes.resize(1024, 0);
        bytes.extend_from_slice(&archive(&[("a", b"b")]));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let error = Members::scan(file, "hostile.tar".as_ref())
            .unwrap_err()
            .to_string();
        assert!(error.contains("damaged"), "{records}: {error}");
    }
}

#[test]
fn a_million_members_are_not_kept() {
    let root = TestRoot::new().unwrap();
    let path = root.join("many.tar");
    let mut file = BufWriter::new(File::create(&path).unwrap());
    file.write_all(&archive(&[("manifest.json", br#"[{"Config":"c","Layers":[]}]"#)])[..1024])
        .unwrap();
    for number in 0..150_000 {
        let header = header(EntryType::Regular, &format!("member-{number}"), 0);
        file.write_all(header.as_bytes()).unwrap();
    }
    file.into_inner().unwrap();
    let members = Members::scan(File::open(&path).unwrap(), &path).unwrap();
    assert!(members.is_cut_off() && members.count() < 150_000);
    let error = refusal(&path, None);
    assert!(error.contains("more than 100000 members"), "{error}");
}

#[test]
fn damage_is_named() {
    let whole = archive(&[("manifest.json", b"[]"), ("b", b"c")]);
    let mut flipped = whole.clone();
    flipped[1024] ^= 1;
    for (bytes, reason) in [
        (&whole[..1536], "cut off"),
        (&whole[..1200], "cut off"),
        (&flipped[..], "damaged"),
    ] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let error = Members::scan(file, "x.tar".as_ref()).unwrap_err();
        assert!(matches!(error, OciError::Invalid { .. }));
        assert!(error.to_string().contains(reason), "{error}");
    }
}
