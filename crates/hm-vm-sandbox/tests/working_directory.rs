//! Where commands run: what the conformance suite cannot reach.
#![expect(
    clippy::expect_used,
    reason = "a backend that cannot be built is a failed test"
)]

mod support;

use hm_vm_core::{Error, Vm, VmBackend, VmConfig};
use support::{Lines, Machine};

async fn run_in(vm: &dyn Vm, cmd: &str, directory: &str) -> anyhow::Result<i32> {
    vm.exec(cmd, &[], directory, &Lines::default()).await
}

/// The process that enters the directory still holds ours: none of them can be reached through `/proc`.
#[tokio::test]
async fn no_link_leads_to_a_directory_of_the_host() {
    let machine = match Machine::new() {
        Ok(machine) => machine,
        Err(skip) => return skip.report(),
    };
    let config = VmConfig::default();
    let mut vm = machine
        .backend
        .create("busybox", &config)
        .await
        .expect("a VM");
    let links = "mkdir /l; i=0; while test $i -lt 64; do ln -s /proc/self/fd/$i /l/$i; i=$((i+1)); done; \
                 ln -s /proc/self/cwd /l/cwd; ln -s /proc/self/root/tmp /l/root; ln -s /tmp /l/tmp";
    assert_eq!(run_in(&*vm, links, "/").await.expect("runs"), 0);
    assert_eq!(
        run_in(&*vm, "test \"$(pwd -P)\" = /tmp", "/l/tmp")
            .await
            .expect("runs"),
        0
    );
    let numbers = (0..64).map(|number| number.to_string());
    let names = numbers.chain(["cwd".into(), "root".into()]);
    for name in names {
        for directory in [format!("/l/{name}"), format!("/proc/self/fd/{name}")] {
            let error = run_in(&*vm, "touch /ran", &directory).await;
            let error = error.expect_err("a directory that cannot be entered");
            assert!(
                matches!(error.downcast_ref(), Some(Error::InvalidInput { .. })),
                "{directory}: {error:#}"
            );
        }
    }
    assert_eq!(run_in(&*vm, "test -e /ran", "/").await.expect("runs"), 1);
    vm.destroy().await.expect("an end");
}
