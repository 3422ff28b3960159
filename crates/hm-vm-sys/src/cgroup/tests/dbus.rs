//! The conversation with systemd, with a real bus and a stand-in for systemd on it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use zbus::object_server::SignalEmitter;
use zbus::zvariant::{OwnedObjectPath, OwnedValue};

use crate::cgroup::files;
use crate::cgroup::machine::Machine;
use crate::cgroup::systemd::{Call, Scope, Systemd};

/// A bus of our own. Ends when dropped.
struct Bus {
    daemon: Child,
    address: String,
}

impl Bus {
    fn start() -> Option<Self> {
        let daemon = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address=1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut daemon) = daemon else {
            assert!(
                std::env::var_os("HMVM_TEST_REQUIRE_ALL").is_none(),
                "dbus-daemon is not installed"
            );
            eprintln!("SKIPPED: dbus-daemon is not installed");
            return None;
        };
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        let bus = Self {
            daemon,
            address: address.trim().to_owned(),
        };
        // dbus-daemon gives up for users who are not in the password database.
        if bus.address.is_empty() {
            assert!(std::env::var_os("HMVM_TEST_REQUIRE_ALL").is_none());
            eprintln!("SKIPPED: dbus-daemon does not start for this user");
            return None;
        }
        Some(bus)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // Fails if it has ended already.
        drop(self.daemon.kill());
        self.daemon.wait().unwrap();
    }
}

type Properties = Vec<(String, OwnedValue)>;

/// Plays systemd's manager: notes what it is asked, and answers as told.
#[derive(Clone, Default)]
struct FakeManager {
    asked: Arc<Mutex<Vec<String>>>,
    result: &'static str,
    /// Where it makes groups for scopes, if it does.
    groups: Option<PathBuf>,
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl FakeManager {
    fn subscribe(&self) {
        self.asked.lock().unwrap().push("Subscribe".into());
    }

    async fn start_transient_unit(
        &self,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        name: String,
        mode: String,
        properties: Properties,
        others: Vec<(String, Properties)>,
    ) -> zbus::fdo::Result<OwnedObjectPath> {
        let told: Vec<String> = properties
            .iter()
            .map(|(key, value)| format!("{key}={:?}", **value))
            .collect();
        let told = format!("{name} {mode} {} others={}", told.join(" "), others.len());
        self.asked.lock().unwrap().push(told);
        if let Some(groups) = &self.groups {
            let pids: Vec<u32> = properties
                .into_iter()
                .find(|(key, _)| key == "PIDs")
                .and_then(|(_, value)| Vec::try_from(value).ok())
                .unwrap();
            let dir = groups.join(&name);
            fs::create_dir(&dir).unwrap();
            files::write(&dir.join("cgroup.procs"), &pids[0].to_string()).unwrap();
        }
        let path = |number: u32| {
            OwnedObjectPath::try_from(format!("/org/freedesktop/systemd1/job/{number}")).unwrap()
        };
        // The end of somebody else's job, then of this one.
        let failed = "failed".to_owned();
        Self::job_removed(&emitter, 6, path(6), "other.scope".into(), failed).await?;
        Self::job_removed(&emitter, 7, path(7), name, self.result.into()).await?;
        Ok(path(7))
    }

    fn attach_processes_to_unit(&self, unit: String, group: String, pids: Vec<u32>) {
        let told = format!("attach {unit} {group} {pids:?}");
        self.asked.lock().unwrap().push(told);
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

/// Puts the stand-in on the bus. It serves while the result lives.
fn serve(bus: &Bus, manager: FakeManager) -> (tokio::runtime::Runtime, zbus::Connection) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let connection = runtime
        .block_on(async {
            zbus::connection::Builder::address(bus.address.as_str())?
                .serve_at("/org/freedesktop/systemd1", manager)?
                .name("org.freedesktop.systemd1")?
                .build()
                .await
        })
        .unwrap();
    (runtime, connection)
}

#[test]
fn a_scope_is_asked_for_with_delegation_and_awaited() {
    let Some(bus) = Bus::start() else { return };
    let manager = FakeManager {
        result: "done",
        ..FakeManager::default()
    };
    let _serving = serve(&bus, manager.clone());
    let systemd = Systemd::on(&bus.address).unwrap();
    systemd
        .call(Call::StartScope {
            unit: "hm-vm-o-s-0.scope".into(),
            pid: 4711,
        })
        .unwrap();
    systemd
        .call(Call::Attach {
            unit: "hm-vm-o-s-0.scope".into(),
            group: "/hm-vm-o-s-1".into(),
            pid: 4712,
        })
        .unwrap();
    let asked = manager.asked.lock().unwrap();
    let expected = r#"hm-vm-o-s-0.scope fail Description=Str("Virtual machines of hm-vm") PIDs="#;
    assert_eq!(asked[0], "Subscribe");
    assert!(asked[1].starts_with(expected), "{}", asked[1]);
    assert!(asked[1].contains("U32(4711)"), "{}", asked[1]);
    assert!(asked[1].contains("Delegate=Bool(true)"), "{}", asked[1]);
    assert!(asked[1].ends_with("others=0"), "{}", asked[1]);
    assert_eq!(asked[2], "attach hm-vm-o-s-0.scope /hm-vm-o-s-1 [4712]");
}

#[test]
fn a_job_that_fails_and_a_bus_without_systemd_are_errors() {
    let Some(bus) = Bus::start() else { return };
    let systemd = Systemd::on(&bus.address).unwrap();
    let start = || Call::StartScope {
        unit: "u.scope".into(),
        pid: 1,
    };
    let error = systemd.call(start()).unwrap_err();
    assert!(error.to_string().contains("u.scope"), "{error}");
    let _serving = serve(
        &bus,
        FakeManager {
            result: "failed",
            ..FakeManager::default()
        },
    );
    let error = systemd.call(start()).unwrap_err();
    assert!(error.to_string().contains("failed"), "{error}");
    let address = "unix:path=/nowhere/at/all";
    assert!(Systemd::on(address).unwrap().call(start()).is_err());
}

#[test]
fn the_scope_is_kept_by_a_placeholder_that_ends_with_it() {
    let Some(v2) = Machine::read().unwrap().v2().cloned() else {
        return;
    };
    let probe = v2.own.join("hm-vm-test-writable");
    if fs::create_dir(&probe).is_err() {
        eprintln!("SKIPPED: {} is not writable", v2.own.display());
        return;
    }
    fs::remove_dir(&probe).unwrap();
    let Some(bus) = Bus::start() else { return };
    let unit = format!("hm-vm-test-{}.scope", std::process::id());
    let manager = FakeManager {
        result: "done",
        groups: Some(v2.own.clone()),
        ..FakeManager::default()
    };
    let _serving = serve(&bus, manager);
    let scope = Scope::start(&bus.address, &unit, &v2, &[]).unwrap();
    let dir = scope.dir().to_path_buf();
    assert_eq!(dir, v2.own.join(&unit));
    assert!(!files::has_processes(&dir));
    assert!(files::has_processes(&dir.join("placeholder")));
    assert!(scope.may_be_entered());
    drop(scope);
    // Empty now, which is when systemd removes it. Here the test does.
    assert!(!files::has_processes(&dir.join("placeholder")));
    fs::remove_dir(dir.join("placeholder")).unwrap();
    fs::remove_dir(dir).unwrap();
}
