//! Docker and Podman, shared and of a test's own.

use hm_vm_testkit::engines::{IMAGE, PodmanService, TestEngine};
use hm_vm_testkit::require;
use hm_vm_testkit::skip::Skip;

fn runs_commands(engine: Result<std::sync::Arc<TestEngine>, Skip>) {
    let engine = require!(engine);
    let run = ["run", "--rm", "--network=none", IMAGE, "echo", "hello"];
    assert_eq!(engine.docker_client(&run).unwrap(), "hello");
    let error = engine.docker_client(&["run", "hm-vm-no-such:1"]);
    assert!(
        error.unwrap_err().to_string().contains("hm-vm-no-such"),
        "no error of the client's"
    );
}

#[test]
fn docker_is_shared_and_runs_commands() {
    runs_commands(TestEngine::docker());
}

#[test]
fn podman_is_shared_and_runs_commands() {
    runs_commands(TestEngine::podman());
}

#[test]
fn a_podman_of_ones_own_ends_with_its_test() {
    require!(PodmanService::need());
    let service = PodmanService::start().unwrap();
    let (socket, pid) = (service.socket(), service.pid());
    assert!(socket.exists());
    drop(service);
    assert!(!socket.exists());
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    assert!(!command.contains("podman"), "{command}");
}
