use std::os::unix::fs::symlink;
use std::process::Command;

use super::*;

fn begin(state: &Path) -> Result<Session> {
    let endpoint = Endpoint::Unix("/nowhere/docker.sock".into());
    Session::begin(Some(state), EngineKind::Docker, &endpoint)
}

#[test]
fn one_state_directory_is_one_owner_and_each_opening_a_session() {
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("deep/state");
    let (one, two) = (begin(&state).unwrap(), begin(&state).unwrap());
    assert_eq!(one.identity().owner, two.identity().owner);
    assert!(is_id(&one.identity().owner));
    assert_ne!(one.identity().session, two.identity().session);
    let name = one.directory().file_name().unwrap().to_str().unwrap();
    assert!(name.strip_prefix("docker-").is_some_and(is_id), "{name}");
    let mode = fs::metadata(&state).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o700);
    let elsewhere = begin(place.path()).unwrap();
    assert_ne!(elsewhere.identity().owner, one.identity().owner);
}

#[test]
fn a_session_is_dead_when_its_lock_can_be_taken_or_is_gone() {
    let place = tempfile::tempdir().unwrap();
    let one = begin(place.path()).unwrap();
    let id = one.identity().session.clone();
    let sessions = one.sessions().clone();
    assert!(sessions.take(&id).is_none());
    assert_eq!(sessions.known().unwrap(), std::slice::from_ref(&id));
    drop(one);
    assert!(sessions.known().unwrap().is_empty());
    assert!(sessions.take(&id).is_some());
    // As a killed process leaves it.
    fs::write(sessions.path(&id), "").unwrap();
    let held = sessions.take(&id).unwrap();
    assert!(sessions.take(&id).is_none(), "two take it over at once");
    held.forget();
    assert!(!sessions.path(&id).exists());
    for strange in ["", "../../owner", "0123456789ABCDEF", "0123456789abcde"] {
        assert!(
            sessions.take(strange).is_none(),
            "{strange:?} is no session of ours"
        );
    }
}

#[test]
fn a_directory_that_is_not_ones_own_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let link = place.path().join("link");
    symlink(place.path(), &link).unwrap();
    let error = begin(&link).unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(begin(&file).is_err());
    if rustix::process::geteuid().is_root() {
        let other = place.path().join("other");
        fs::create_dir(&other).unwrap();
        std::os::unix::fs::chown(&other, Some(1234), Some(1234)).unwrap();
        let error = begin(&other).unwrap_err().to_string();
        assert!(error.contains("belongs to user 1234"), "{error}");
    }
}

#[test]
fn a_directory_that_is_open_to_others_is_closed() {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), Permissions::from_mode(0o777)).unwrap();
    begin(place.path()).unwrap();
    assert_eq!(fs::metadata(place.path()).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn what_is_no_owner_is_not_taken_for_one() {
    let place = tempfile::tempdir().unwrap();
    let long = "a".repeat(2000);
    for bad in ["", "xyz\n", "0123456789ABCDEF", "0123456789abcdef0", &long] {
        fs::write(place.path().join("owner"), bad).unwrap();
        assert!(begin(place.path()).is_err(), "{bad:?}");
    }
    fs::write(place.path().join("owner"), "0123456789abcdef\n").unwrap();
    let session = begin(place.path()).unwrap();
    assert_eq!(session.identity().owner, "0123456789abcdef");
}

#[test]
fn all_who_begin_at_once_are_one_owner() {
    let place = tempfile::tempdir().unwrap();
    let start = std::sync::Barrier::new(8);
    let owners: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    begin(place.path()).unwrap().identity().owner.clone()
                })
            })
            .collect();
        threads.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(owners.iter().all(|owner| *owner == owners[0]), "{owners:?}");
    let mut left: Vec<_> = fs::read_dir(place.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left.len(), 3, "{left:?}");
    assert_eq!(left[1..], ["owner", "sessions"]);
}

#[test]
fn the_lock_does_not_outlive_the_process_in_a_child() {
    let place = tempfile::tempdir().unwrap();
    let session = begin(place.path()).unwrap();
    let id = session.identity().session.clone();
    let sessions = session.sessions().clone();
    let kept = place.path().join("kept");
    fs::hard_link(sessions.path(&id), &kept).unwrap();
    let mut child = Command::new("sleep").arg("100").spawn().unwrap();
    drop(session);
    fs::rename(&kept, sessions.path(&id)).unwrap();
    assert!(sessions.take(&id).is_some());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_standard_place_is_an_absolute_one() {
    let place = |pairs: &[(&str, &str)]| {
        standard_place(|name| {
            let pair = pairs.iter().find(|pair| pair.0 == name);
            pair.map(|pair| pair.1.into())
        })
    };
    let data = place(&[("XDG_DATA_HOME", "/d"), ("HOME", "/h")]).unwrap();
    assert_eq!(data, Path::new("/d/hm-vm/docker"));
    let home = place(&[("XDG_DATA_HOME", "relative"), ("HOME", "/h")]).unwrap();
    assert_eq!(home, Path::new("/h/.local/share/hm-vm/docker"));
    assert!(place(&[]).is_err());
}
