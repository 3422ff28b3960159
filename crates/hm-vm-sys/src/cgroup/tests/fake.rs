//! Made-up machines: hierarchies are plain directories with the control files that are looked at.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cgroup::leftovers::session_of;
use crate::cgroup::limits::{Controller, settings};
use crate::cgroup::machine::{Hierarchy, Machine, Version, parse};
use crate::cgroup::manager::{apply, tidy};
use crate::cgroup::{CgroupLimits, CgroupManager, v2};

fn group(dir: &Path, files: &[(&str, &str)]) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    for (name, text) in files {
        fs::write(dir.join(name), text).unwrap();
    }
    dir.to_path_buf()
}

fn v2(mount_point: &Path, own: &str) -> Hierarchy {
    Hierarchy {
        version: Version::V2,
        controllers: Vec::new(),
        mount_point: mount_point.to_path_buf(),
        own: mount_point.join(own),
    }
}

fn machine(hierarchies: Vec<Hierarchy>, uid: u32, bus: Option<&str>) -> Machine {
    Machine {
        hierarchies,
        uid,
        user_bus: bus.map(str::to_owned),
    }
}

const ROOT: &[(&str, &str)] = &[
    ("cgroup.controllers", "cpuset cpu io memory pids\n"),
    ("cgroup.subtree_control", "memory pids\n"),
    ("cgroup.procs", "1\n2\n"),
];

const LIMITS: CgroupLimits = CgroupLimits {
    cpus: Some(2),
    memory_bytes: Some(64 << 20),
    pids: Some(50),
};

#[test]
fn the_hierarchies_of_a_hybrid_machine_are_found() {
    let mountinfo = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/a /sys/fs/cgroup/mem\\040ory rw shared:3 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
42 31 0:38 / /second rw - cgroup2 cgroup2 rw
";
    let own = "9:name=systemd:/\n4:memory:/docker/a/b\n1:cpu,cpuacct:/x\n0::/user.slice\n";
    let found = parse(mountinfo, own);
    let owns: Vec<_> = found.iter().map(|h| h.own.to_str().unwrap()).collect();
    assert_eq!(
        owns,
        [
            "/sys/fs/cgroup/cpu,cpuacct/x",
            "/sys/fs/cgroup/mem ory/b",
            "/sys/fs/cgroup/systemd",
            "/sys/fs/cgroup/unified/user.slice",
        ]
    );
    let machine = machine(found, 0, None);
    assert_eq!(machine.v1("memory").unwrap().controllers, ["memory"]);
    assert!(machine.v1("pids").is_none());
    assert_eq!(
        machine.v2().unwrap().mount_point,
        Path::new("/sys/fs/cgroup/unified")
    );
}

#[test]
fn the_nearest_group_without_processes_that_has_all_controllers_is_chosen() {
    let temp = tempfile::tempdir().unwrap();
    let root = group(temp.path(), ROOT);
    let slice = [
        ("cgroup.type", "domain\n"),
        ("cgroup.controllers", "cpu memory pids\n"),
        ("cgroup.subtree_control", "\n"),
        ("cgroup.procs", ""),
    ];
    let all = ["cpu", "memory", "pids"];
    group(&root.join("a"), &slice);
    let mut busy = slice;
    busy[3] = ("cgroup.procs", "77\n");
    group(&root.join("a/b"), &busy);
    let place = v2::find_place(&v2(&root, "a/b"), &all).unwrap();
    assert_eq!(place.dir, root.join("a"));
    assert_eq!(place.controllers, all);

    // With one controller fewer there, the root is better, although it holds processes.
    fs::write(root.join("a/cgroup.controllers"), "memory pids\n").unwrap();
    let place = v2::find_place(&v2(&root, "a/b"), &all).unwrap();
    assert_eq!(place.dir, root);

    // A threaded group cannot have them at all.
    fs::write(root.join("a/cgroup.type"), "threaded\n").unwrap();
    fs::write(root.join("cgroup.controllers"), "memory\n").unwrap();
    fs::write(root.join("cgroup.subtree_control"), "\n").unwrap();
    let place = v2::find_place(&v2(&root, "a/b"), &all).unwrap();
    assert_eq!(
        (place.dir, place.controllers),
        (root, vec!["memory".to_owned()])
    );
}

#[test]
fn controllers_are_made_available_where_they_are_not_yet() {
    let temp = tempfile::tempdir().unwrap();
    let root = group(temp.path(), ROOT);
    let parent = group(&root.join("hm-vm"), &[("cgroup.subtree_control", "")]);
    let place = v2::find_place(&v2(&root, ""), &["cpu", "pids"]).unwrap();
    assert_eq!(v2::prepare_parent(&place).unwrap(), parent);
    let control = |dir: &Path| fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap();
    // A plain file keeps what was there before; the kernel would answer with all three.
    assert_eq!(control(&root), "+cpury pids\n");
    assert_eq!(control(&parent), "+pids");
}

#[test]
fn a_group_inside_a_container_without_a_place_is_explained() {
    let temp = tempfile::tempdir().unwrap();
    // The root of a cgroup namespace is no root: it has a type.
    let root = group(temp.path(), ROOT);
    fs::write(root.join("cgroup.type"), "domain\n").unwrap();
    let error = CgroupManager::on(machine(vec![v2(&root, "")], 0, None), "o", "s").unwrap_err();
    assert!(error.reason.contains("below ours"), "{error}");
    let error = CgroupManager::on(machine(Vec::new(), 0, None), "o", "s").unwrap_err();
    assert!(error.to_string().contains("mount -t cgroup2"), "{error}");
}

#[test]
fn a_user_gets_what_systemd_delegates_and_is_told_of_the_rest() {
    let temp = tempfile::tempdir().unwrap();
    let root = group(temp.path(), &[("cgroup.controllers", "cpu memory pids\n")]);
    group(
        &root.join("user.slice/user-1000.slice/user@1000.service"),
        &[("cgroup.controllers", "memory pids\n")],
    );
    let hierarchy = v2(&root, "user.slice/user-1000.slice/session-2.scope");
    let with_bus = machine(vec![hierarchy.clone()], 1000, Some("unix:path=/nowhere"));
    let manager = CgroupManager::on(with_bus, "o", "s").unwrap();
    assert_eq!(manager.support().memory, Ok(()));
    assert_eq!(manager.support().pids, Ok(()));
    let reason = manager.support().cpus.clone().unwrap_err();
    assert!(reason.contains("Delegate=cpu"), "{reason}");
    assert!(
        manager.describe().contains("systemd"),
        "{}",
        manager.describe()
    );
    // What is not supported is refused before anything is asked of systemd.
    let error = manager.create(&LIMITS).unwrap_err();
    assert!(error.to_string().contains("limiting cpu"), "{error}");

    let error = CgroupManager::on(machine(vec![hierarchy], 1000, None), "o", "s").unwrap_err();
    assert!(error.fix.contains("enable-linger"), "{error}");
}

#[test]
fn limits_are_written_in_the_way_of_each_generation() {
    let written = |version| {
        let temp = tempfile::tempdir().unwrap();
        for controller in Controller::ALL {
            for setting in settings(version, controller, &LIMITS) {
                fs::write(temp.path().join(setting.file), "").unwrap();
            }
            apply(temp.path(), version, controller, &LIMITS).unwrap();
        }
        let mut found: Vec<(String, String)> = fs::read_dir(temp.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|e| {
                let text = fs::read_to_string(e.path()).unwrap();
                (e.file_name().into_string().unwrap(), text)
            })
            .collect();
        found.sort();
        found
    };
    let expected = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(a, b)| ((*a).into(), (*b).into()))
            .collect()
    };
    assert_eq!(
        written(Version::V2),
        expected(&[
            ("cpu.max", "200000 100000"),
            ("memory.max", "67108864"),
            ("memory.swap.max", "0"),
            ("pids.max", "50"),
        ])
    );
    assert_eq!(
        written(Version::V1),
        expected(&[
            ("cpu.cfs_period_us", "100000"),
            ("cpu.cfs_quota_us", "200000"),
            ("memory.limit_in_bytes", "67108864"),
            ("memory.memsw.limit_in_bytes", "67108864"),
            ("memory.swappiness", "0"),
            ("pids.max", "50"),
        ])
    );
}

#[test]
fn a_missing_control_file_is_an_error_unless_it_is_about_swap() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("memory.max"), "").unwrap();
    apply(temp.path(), Version::V2, Controller::Memory, &LIMITS).unwrap();
    let error = apply(temp.path(), Version::V2, Controller::Pids, &LIMITS).unwrap_err();
    assert!(error.to_string().contains("pids.max"), "{error}");
}

#[test]
fn the_session_is_read_from_names_of_our_own_groups_only() {
    assert_eq!(session_of("hm-vm-st0re-abc-12", "st0re"), Some("abc"));
    assert_eq!(session_of("hm-vm-other-abc-12", "st0re"), None);
    assert_eq!(session_of("hm-vm-st0re-abc-", "st0re"), None);
    assert_eq!(session_of("hm-vm-st0re-abc-1x", "st0re"), None);
    assert_eq!(session_of("hm-vm-st0re", "st0re"), None);
    assert_eq!(tidy("a-b/c d9"), "a_b_c_d9");
}
