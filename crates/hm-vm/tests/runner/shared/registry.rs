//! With a real registry between the machines.

use std::time::{Duration, Instant};

use hm_vm::oci::{Reference, RegistryClient, RegistryOptions};
use hm_vm::remote::{CacheMode, OciCache};
use hm_vm_testkit::registry::{
    Fault, FaultProxy, Faults, RegistryServer, RegistrySetup, Rule, need_registry,
};
use hm_vm_testkit::require;
use hm_vm_testkit::skip::Skip;

use super::{Machine, Step, World};

const COMMANDS: u32 = 10;

fn server(world: &World) -> Result<RegistryServer, Skip> {
    let _ = world;
    need_registry()?;
    Ok(RegistryServer::start(RegistrySetup::default()).unwrap())
}

fn machine(world: &World, name: &str, address: &str) -> Machine {
    let options = RegistryOptions {
        connect_timeout: Duration::from_secs(3),
        idle_timeout: Duration::from_secs(10),
        ..RegistryOptions::default()
    };
    let client = RegistryClient::new(options).unwrap();
    let place: Reference = format!("{address}/team/cache").parse().unwrap();
    world.machine_at(
        name,
        |options| options.mode = CacheMode::ReadWrite,
        |store, options| OciCache::new(store, &client, &place, options),
    )
}

/// A lineage with some megabytes in each step, that does not compress.
async fn lineage(machine: &Machine) -> Vec<Step> {
    let mut done: Vec<Step> = Vec::new();
    for number in 0..COMMANDS {
        let cmd = format!("echo {number}; head -c 10000000 /dev/urandom > /file{number}");
        let step = machine.step(done.last(), &cmd).await;
        done.push(step);
    }
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_machine_takes_all_from_the_registry() {
    let world = require!(World::new());
    let server = require!(server(&world));
    let a = machine(&world, "a", server.address());
    let made = lineage(&a).await;
    let report = a.publish_all().await;
    assert_eq!(
        (report.published, report.failed),
        (u64::from(COMMANDS), Vec::new())
    );
    assert_eq!(server.tags("team/cache").unwrap().len(), 10);
    let b = machine(&world, "b", server.address());
    let began = Instant::now();
    let came = lineage(&b).await;
    let took = began.elapsed();
    for (made, came) in made.iter().zip(&came) {
        let bytes = came.came();
        assert!((10_000_000..11_000_000).contains(&bytes), "{bytes}");
        assert_eq!((made.id(), &made.lines), (came.id(), &came.lines));
    }
    println!("{COMMANDS} steps of 10 MB from the registry: {took:?}");
    for step in &came {
        println!("  {:?}", step.result.phases);
    }
    assert_eq!((a.notices(), b.notices()), (vec![], vec![]));
    // What is there already is not sent again.
    let c = machine(&world, "c", server.address());
    let refreshed = c
        .step(None, "echo 0; head -c 10000000 /dev/urandom > /file0")
        .await;
    refreshed.came();
    assert_eq!(c.publish_all().await.bytes, 0);
    b.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_stops_is_a_warning() {
    let world = require!(World::new());
    let mut server = require!(server(&world));
    let a = machine(&world, "a", server.address());
    a.step(None, "echo 1 > /f").await.ran();
    a.publish_all().await;
    server.stop();
    let b = machine(&world, "b", server.address());
    b.step(None, "echo 1 > /f").await.ran();
    let report = b.publish_all().await;
    assert_eq!((report.published, report.failed.len()), (0, 1));
    assert!(!b.notices().is_empty());
}

/// Everything that a network and a server can do to the body of an answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_spoils_blobs_is_a_miss_or_mended() {
    let world = require!(World::new());
    let server = require!(server(&world));
    let a = machine(&world, "a", server.address());
    let cmd = "echo 1; head -c 300000 /dev/urandom > /f";
    let made = a.step(None, cmd).await;
    a.publish_all().await;
    let proxy = FaultProxy::start(server.address(), Faults::none()).unwrap();
    let faults = [
        Fault::FlipByte(1000),
        Fault::TruncateTo(1000),
        Fault::Endless,
        Fault::status(500),
        Fault::Drop,
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let rule = Rule::new("*/blobs/sha256*", fault.clone()).method("GET");
        proxy.set(Faults::none().with(rule));
        let b = machine(&world, &format!("b{number}"), &proxy.address());
        let step = b.step(None, cmd).await;
        assert!(!step.result.cached, "{fault:?}: {step:?}");
        assert_eq!(step.lines, made.lines, "{fault:?}");
        assert!(!b.notices().is_empty(), "{fault:?}");
        b.publish_all().await;
        b.assert_clean();
    }
    // One cut in the middle is mended behind our back.
    proxy.set(Faults::none().once("*/blobs/sha256*", Fault::CutAfter(100)));
    let c = machine(&world, "c", &proxy.address());
    c.step(None, cmd).await.came();
}
