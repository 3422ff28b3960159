//! Archives are read back by the `tar` crate.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt as _};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hm_vm_store::inject::{StatCache, scan};

use super::*;

/// What was read of a member.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    path: Vec<u8>,
    kind: EntryType,
    mode: u32,
    target: Vec<u8>,
    content: Vec<u8>,
    mtime: Option<String>,
}

fn archive(tree: &Tree, source: &Path, prefix: &[&str]) -> Result<Vec<u8>, Unfinished> {
    let prefix: Vec<String> = prefix.iter().map(ToString::to_string).collect();
    let contents = Contents {
        tree,
        source: &SourceDirectory::open(source)?,
        prefix: &prefix,
        progress: &Progress::new(),
    };
    let mut all = Vec::new();
    write(&contents, &mut |piece| {
        assert!(piece.len() <= PIECE);
        all.extend_from_slice(&piece);
        true
    })?;
    Ok(all)
}

fn read(archive: &[u8]) -> Vec<Read> {
    let mut members = Vec::new();
    for member in tar::Archive::new(archive).entries().unwrap() {
        let mut member = member.unwrap();
        let header = member.header().clone();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
        let mut mtime = None;
        for record in member.pax_extensions().unwrap().into_iter().flatten() {
            let record = record.unwrap();
            if record.key_bytes() == b"mtime" {
                mtime = Some(String::from_utf8(record.value_bytes().to_vec()).unwrap());
            }
        }
        let mut content = Vec::new();
        let path = member.path_bytes().into_owned();
        let target = member.link_name_bytes().unwrap_or_default().into_owned();
        member.read_to_end(&mut content).unwrap();
        members.push(Read {
            path,
            kind: header.entry_type(),
            mode: header.mode().unwrap(),
            target,
            content,
            mtime,
        });
    }
    members
}

#[test]
fn odd_trees_are_read_back_as_they_are() {
    let source = tempfile::tempdir().unwrap();
    let root = source.path();
    let long = "n".repeat(255);
    let odd = root.join(OsStr::from_bytes(b"\xff\xfe=\n"));
    fs::create_dir_all(root.join("deep").join(&long)).unwrap();
    for name in ["100", "99"] {
        let length = name.parse().unwrap();
        fs::write(root.join("n".repeat(length)), name).unwrap();
    }
    fs::write(root.join("deep").join(&long).join(&long), "long").unwrap();
    fs::write(&odd, "odd").unwrap();
    fs::set_permissions(&odd, fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("t".repeat(1000), root.join("far")).unwrap();
    symlink(OsStr::from_bytes(b"\xff"), root.join("near")).unwrap();
    let large: Vec<u8> = (0..1_000_003u32).map(|at| (at % 251) as u8).collect();
    fs::write(root.join("large"), &large).unwrap();
    let tree = scan(root, &StatCache::disabled()).unwrap();
    let members = read(&archive(&tree, root, &["a", "b"]).unwrap());
    assert_eq!(members.len(), tree.len() + 2);
    assert_eq!(
        (members[0].path.as_slice(), members[0].mode),
        (&b"a/"[..], 0o755)
    );
    assert_eq!(members[1].path, b"a/b/");
    for (entry, member) in tree.entries().zip(&members[2..]) {
        let host = root.join(OsStr::from_bytes(entry.path));
        let path = member.path.strip_prefix(b"a/b/").unwrap();
        let path = path.strip_suffix(b"/").unwrap_or(path);
        assert_eq!(path, entry.path);
        assert_eq!(member.mode, entry.mode);
        match member.kind {
            EntryType::Directory => assert!(host.is_dir()),
            EntryType::Symlink => {
                assert_eq!(
                    member.target,
                    fs::read_link(host).unwrap().into_os_string().into_vec()
                );
            }
            EntryType::Regular => assert_eq!(member.content, fs::read(host).unwrap()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let source = tempfile::tempdir().unwrap();
    let before = SystemTime::UNIX_EPOCH - Duration::from_millis(1500);
    let after = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 7);
    let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for (name, time) in [("after", after), ("before", before), ("whole", whole)] {
        let file = File::create(source.path().join(name)).unwrap();
        file.set_modified(time).unwrap();
    }
    let tree = scan(source.path(), &StatCache::disabled()).unwrap();
    let members = read(&archive(&tree, source.path(), &[]).unwrap());
    let times: Vec<_> = members
        .iter()
        .map(|member| member.mtime.as_deref())
        .collect();
    assert_eq!(
        times,
        [Some("1700000000.000000007"), Some("-1.500000000"), None]
    );
}

#[test]
fn what_changed_since_the_scan_is_told() {
    let changes: [fn(&Path); 5] = [
        |file| fs::write(file, "longer than it was").unwrap(),
        |file| fs::write(file, "OTHER").unwrap(),
        |file| fs::remove_file(file).unwrap(),
        |file| fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap(),
        |file| {
            fs::remove_file(file).unwrap();
            symlink("/etc/passwd", file).unwrap();
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let source = tempfile::tempdir().unwrap();
        let file = source.path().join("file");
        fs::write(&file, "plain").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let tree = scan(source.path(), &StatCache::disabled()).unwrap();
        change(&file);
        let refused = archive(&tree, source.path(), &[]).unwrap_err();
        assert!(
            matches!(&refused, Unfinished::Source(InjectError::ChangedWhileReading { path }) if path == Path::new("file")),
            "{number}: {refused:?}"
        );
    }
}

#[test]
fn nothing_is_made_for_nobody() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("file"), vec![1; 3 * PIECE]).unwrap();
    let tree = scan(source.path(), &StatCache::disabled()).unwrap();
    let contents = Contents {
        tree: &tree,
        source: &SourceDirectory::open(source.path()).unwrap(),
        prefix: &[],
        progress: &Progress::new(),
    };
    let mut pieces = 0;
    let stopped = write(&contents, &mut |_| {
        pieces += 1;
        false
    });
    assert!(matches!(stopped, Err(Unfinished::Stopped)));
    assert_eq!(pieces, 1);
}

#[test]
fn records_count_their_own_length() {
    for length in 0..2000 {
        let mut record = Vec::new();
        put_record(&mut record, "path", &vec![b'x'; length]);
        let text = String::from_utf8(record.clone()).unwrap();
        let told: usize = text.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(told, record.len());
    }
}
