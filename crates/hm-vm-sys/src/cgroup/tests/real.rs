//! Groups on this machine. They need root and a writable hierarchy.

use std::fs;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cgroup::group::GroupDir;
use crate::cgroup::machine::{Machine, Version};
use crate::cgroup::{Cgroup, CgroupLimits, CgroupManager};

/// The manager, or `None` if this machine cannot have one, and that is allowed.
fn manager(owner: &str, session: &str) -> Option<CgroupManager> {
    match CgroupManager::detect(owner, session) {
        Ok(manager) if manager.support().memory.is_ok() => Some(manager),
        other => {
            assert!(
                std::env::var_os("HMVM_TEST_REQUIRE_ALL").is_none(),
                "limits are not available here: {other:?}"
            );
            eprintln!("SKIPPED: limits are not available here: {other:?}");
            None
        }
    }
}

/// Starts a shell that waits for a line before it runs the script; it is in the group by then.
fn start_in(group: &Cgroup, script: &str) -> Child {
    let mut child = Command::new("sh")
        .args(["-c", &format!("read line; {script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    group.attach(child.id()).unwrap();
    use std::io::Write as _;
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    child
}

fn paths(group: &Cgroup) -> Vec<std::path::PathBuf> {
    group.paths().map(std::path::Path::to_path_buf).collect()
}

#[test]
fn the_limit_of_processes_holds_and_is_counted() {
    let Some(manager) = manager("testpids", "s1") else {
        return;
    };
    let limits = CgroupLimits {
        pids: Some(3),
        ..CgroupLimits::default()
    };
    let group = manager.create(&limits).unwrap();
    let script = "for i in 1 2 3 4 5; do sleep 30 >/dev/null 2>&1 & done; wait";
    let child = start_in(&group, script);
    let output = child.wait_with_output();
    // dash gives up at the first fork that fails.
    let output = output.unwrap();
    assert!(!output.status.success(), "{output:?}");
    assert!(group.stats().pids_max_events >= 1, "{:?}", group.stats());
    // The sleeps are still there: kill ends them, and then the group can be removed.
    group.kill().unwrap();
    let dirs = paths(&group);
    group.remove().unwrap();
    group.remove().unwrap();
    assert!(dirs.iter().all(|dir| !dir.exists()));
}

#[test]
fn the_limit_of_memory_holds_and_the_kill_is_counted() {
    let Some(manager) = manager("testmemory", "s1") else {
        return;
    };
    let limits = CgroupLimits {
        memory_bytes: Some(16 << 20),
        ..CgroupLimits::default()
    };
    let group = manager.create(&limits).unwrap();
    // A variable of 64 MiB cannot be.
    let child = start_in(&group, "x=$(head -c 64M /dev/zero | tr '\\0' a)");
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    let stats = group.stats();
    assert!(stats.oom_kills >= 1, "{stats:?}");
    let peak = stats.memory_peak.unwrap();
    assert!((8 << 20..=16 << 20).contains(&peak), "{stats:?}");
    group.remove().unwrap();
}

#[test]
fn the_limit_of_processors_is_set() {
    let Some(manager) = manager("testcpu", "s1") else {
        return;
    };
    let limits = CgroupLimits {
        cpus: Some(1),
        ..CgroupLimits::default()
    };
    let group = manager.create(&limits).unwrap();
    let dir = paths(&group).remove(0);
    let quota = fs::read_to_string(dir.join("cpu.cfs_quota_us"))
        .or_else(|_| fs::read_to_string(dir.join("cpu.max")))
        .unwrap();
    assert!(quota.starts_with("100000"), "{quota}");
}

#[test]
fn a_child_enters_by_itself_through_the_opened_files() {
    let Some(manager) = manager("testenter", "s1") else {
        return;
    };
    let limits = CgroupLimits {
        cpus: Some(1),
        memory_bytes: Some(64 << 20),
        pids: Some(20),
    };
    let group = manager.create(&limits).unwrap();
    if !group.can_be_entered() {
        eprintln!("SKIPPED: groups are entered through systemd here");
        return;
    }
    // Each file is standard output of a shell once: `echo 0` moves the shell, which is the writer.
    for (file, dir) in group.procs_files().unwrap().into_iter().zip(paths(&group)) {
        let mut child = Command::new("sh")
            .args(["-c", "echo 0; exec >&2; cat /proc/self/cgroup"])
            .stdout(file)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut text = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        child.wait().unwrap();
        let name = dir.file_name().unwrap().to_str().unwrap();
        assert!(text.contains(name), "{name} in {text}");
    }
}

#[test]
fn groups_of_dead_sessions_are_found_and_removed_and_no_others() {
    let Some(dead) = manager("testleft", "dead") else {
        return;
    };
    let limits = CgroupLimits {
        pids: Some(9),
        memory_bytes: Some(64 << 20),
        cpus: None,
    };
    let group = dead.create(&limits).unwrap();
    let mut child = start_in(&group, "exec sleep 60");
    let dirs = paths(&group);
    // As after kill -9: nothing is dropped.
    std::mem::forget(group);
    std::mem::forget(dead);

    let alive = manager("testleft", "alive").unwrap();
    let other = alive.create(&limits).unwrap();
    let foreign = manager("testleftother", "x").unwrap();
    let foreign_group = foreign.create(&limits).unwrap();
    let recovering = manager("testleft", "new").unwrap();
    let own = recovering.create(&limits).unwrap();

    let is_alive = |session: &str| session == "alive";
    let mut found: Vec<_> = recovering
        .leftovers(is_alive)
        .into_iter()
        .map(|l| l.path)
        .collect();
    found.sort();
    let mut expected = dirs.clone();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(recovering.remove_leftovers(is_alive).unwrap(), dirs.len());
    assert!(recovering.leftovers(is_alive).is_empty());
    assert!(!child.wait().unwrap().success());
    for group in [&other, &foreign_group, &own] {
        assert!(paths(group).iter().all(|dir| dir.exists()));
    }
}

#[test]
fn dropping_a_group_ends_what_is_inside() {
    let Some(manager) = manager("testdrop", "s1") else {
        return;
    };
    let limits = CgroupLimits {
        pids: Some(9),
        ..CgroupLimits::default()
    };
    let group = manager.create(&limits).unwrap();
    let mut child = start_in(&group, "sleep 60 & sleep 60");
    let dirs = paths(&group);
    drop(group);
    assert!(!child.wait().unwrap().success());
    assert!(dirs.iter().all(|dir| !dir.exists()));
}

#[test]
fn a_v2_group_is_killed_at_once_and_counts_time() {
    let Some(v2) = Machine::read().unwrap().v2().cloned() else {
        return;
    };
    let path = v2.own.join("hm-vm-test-kill");
    if fs::create_dir(&path).is_err() {
        eprintln!("SKIPPED: {} is not writable", v2.own.display());
        return;
    }
    let mut group = Cgroup::new();
    group.add(GroupDir {
        path: path.clone(),
        version: Version::V2,
        cpuacct: false,
    });
    let mut child = start_in(
        &group,
        "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 60",
    );
    // Its time is counted by and by; the test waits for the first of it.
    let deadline = Instant::now() + Duration::from_secs(20);
    while group.stats().cpu.unwrap().is_zero() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    group.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    group.remove().unwrap();
    assert!(!path.exists());
}

/// Prints what a group costs; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn measure() {
    let start = Instant::now();
    let Some(manager) = manager("testmeasure", "s1") else {
        return;
    };
    println!("detect {:?}: {}", start.elapsed(), manager.describe());
    let limits = CgroupLimits {
        cpus: Some(1),
        memory_bytes: Some(1 << 30),
        pids: Some(100),
    };
    let mut times: Vec<_> = (0..100)
        .map(|_| {
            let start = Instant::now();
            let group = manager.create(&limits).unwrap();
            let files = group.procs_files().unwrap();
            let created = start.elapsed();
            drop(files);
            let start = Instant::now();
            group.remove().unwrap();
            (created, start.elapsed())
        })
        .collect();
    times.sort_unstable();
    println!("create, remove: median {:?}", times[50]);
    let start = Instant::now();
    assert!(manager.leftovers(|_| false).is_empty());
    println!("leftovers {:?}", start.elapsed());
}
