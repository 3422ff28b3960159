//! What containers reach with the network policy `outbound`.
#![expect(clippy::expect_used, reason = "a failed expectation is a failed test")]

mod support;

use std::sync::{Arc, Mutex};

use hm_vm_core::{
    CancelCause, Cancellation, Error, ExecRequest, NetworkPolicy, OutputSink, Vm, VmBackend,
    VmConfig,
};
use hm_vm_docker::DockerBackend;
use hm_vm_testkit::engines::{IMAGE, TestEngine};
use hm_vm_testkit::require;
use hm_vm_testkit::roots::TestRoot;
use support::{held, open, owner, until};
use tokio::sync::Notify;

/// Any port: nothing else listens in the daemon's network namespace.
const PORT: u16 = 7777;

/// The last line of standard output, and who waits for one.
#[derive(Debug, Default)]
struct Last {
    line: Mutex<String>,
    came: Notify,
}

impl OutputSink for Last {
    fn on_stdout(&self, line: &str) {
        *self.line.lock().expect("a lock") = line.to_owned();
        self.came.notify_one();
    }

    fn on_stderr(&self, _line: &str) {}
}

impl Last {
    fn line(&self) -> String {
        self.line.lock().expect("a lock").clone()
    }
}

async fn vm(backend: &DockerBackend, network: NetworkPolicy) -> Box<dyn Vm> {
    let config = VmConfig {
        network,
        ..VmConfig::default()
    };
    backend.create(IMAGE, &config).await.expect("a VM")
}

/// The last line that a command prints.
async fn says(vm: &dyn Vm, cmd: &str) -> String {
    let last = Last::default();
    let code = vm.exec(cmd, &[], "/", &last).await.expect("an end");
    assert_eq!(code, 0, "{cmd}");
    last.line()
}

/// Runs `work` while the VM serves, with the address at which its own server has answered it.
async fn serving<F: Future<Output = ()>>(
    vm: &dyn Vm,
    address: &str,
    work: impl FnOnce(String) -> F,
) {
    let cmd = format!(
        "while echo hello | nc -l -p {PORT}; do :; done & at=$({address}); \
         until test \"$(nc $at {PORT} < /dev/null 2> /dev/null)\" = hello; do :; done; echo $at; wait"
    );
    let (stop, last) = (Cancellation::new(), Last::default());
    let request = ExecRequest {
        grace: std::time::Duration::ZERO,
        ..ExecRequest::new(&cmd, &stop)
    };
    let work = async {
        last.came.notified().await;
        work(last.line()).await;
        stop.cancel(CancelCause::User);
    };
    let (served, ()) = tokio::join!(vm.exec_with(&request, &last), work);
    let error = served.expect_err("a stopped server");
    assert!(
        matches!(error.downcast_ref(), Some(Error::Cancelled { .. })),
        "{error:#}"
    );
}

/// The server's answer, or `no` where it cannot be reached.
async fn reached(vm: &dyn Vm, address: &str) -> String {
    let cmd = format!("nc -w 3 {address} {PORT} < /dev/null 2> /dev/null || echo no");
    says(vm, &cmd).await
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(test);
}

/// A way out, and none to each other; also for those on a private network that has a way out.
#[test]
fn containers_on_the_bridge_reach_the_machine_and_not_each_other() {
    let engine = require!(TestEngine::own_docker_with_bridge());
    let root = TestRoot::new().expect("a directory");
    let backend = open(engine.socket(), &root.join("state"));
    let offered = backend.capabilities().networks;
    assert_eq!(offered, NetworkPolicy::ALL);
    run(async {
        let (one, other) = (
            vm(&backend, NetworkPolicy::Outbound).await,
            vm(&backend, NetworkPolicy::Outbound).await,
        );
        let (machine, none) = (
            vm(&backend, NetworkPolicy::Host).await,
            vm(&backend, NetworkPolicy::None).await,
        );
        let gateway = says(
            &*one,
            "ip route | sed -n 's/^default via \\([^ ]*\\) .*/\\1/p'",
        )
        .await;
        serving(&*machine, &format!("echo {gateway}"), async |address| {
            assert_eq!(reached(&*one, &address).await, "hello");
            assert_eq!(reached(&*none, &address).await, "no");
        })
        .await;
        let own = "ip -4 -o addr show dev eth0 | sed -n 's/.* inet \\([^/]*\\).*/\\1/p'";
        serving(&*one, own, async |address| {
            assert_eq!(reached(&*other, &address).await, "no");
        })
        .await;
        for mut vm in [one, other, machine, none] {
            vm.destroy().await.expect("an end");
        }
    });
    assert!(backend.flush());
    let owner = owner(&root.join("state"));
    until("containers stay", || held(&engine, &owner));
    let networks = list(&engine);
    assert_eq!(networks.matches("hm-vm-outbound").count(), 1, "{networks}");
}

fn list(engine: &Arc<TestEngine>) -> String {
    let listed = engine.docker_client(&["network", "ls", "--format", "{{.Name}}"]);
    listed.expect("a list")
}

/// What a daemon without bridges cannot do is not promised.
#[test]
fn a_daemon_without_bridges_offers_no_way_out() {
    let engine = require!(TestEngine::docker());
    let root = TestRoot::new().expect("a directory");
    let backend = open(engine.socket(), &root.join("state"));
    let offered = backend.capabilities().networks;
    assert_eq!(offered, [NetworkPolicy::None, NetworkPolicy::Host]);
    let config = VmConfig {
        network: NetworkPolicy::Outbound,
        ..VmConfig::default()
    };
    run(async {
        let refused = backend.create(IMAGE, &config).await.map(drop);
        let error = refused.expect_err("a refusal");
        assert!(
            matches!(error.downcast_ref(), Some(Error::Unsupported { .. })),
            "{error:#}"
        );
    });
}
