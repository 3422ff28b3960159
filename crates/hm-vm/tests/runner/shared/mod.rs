//! Engines on several machines, with a cache between them.

mod faults;
mod lies;
mod memory;
mod registry;
mod sharing;

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hm_vm::remote::RemoteReport;
use hm_vm::remote::{CacheMode, CacheRepository, OciCache, OciCacheOptions, RemoteCache as _};
use hm_vm::sandbox::{SandboxBackend, SandboxOptions};
use hm_vm::store::Store;
use hm_vm::{
    Action, CachingPolicy, ExecuteOptions, ExecutionResult, HmVm, ImageRegistry, ImageSource,
    SnapshotId, VmConfig,
};
use hm_vm_testkit::images;
use hm_vm_testkit::roots::TestRoot;
use hm_vm_testkit::skip::Skip;

use super::support::Lines;
use memory::Memory;

/// Long enough for everything that does not fail.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Several machines with the same image.
pub(super) struct World {
    pub(super) root: TestRoot,
}

/// A store with an engine of its own.
pub(super) struct Machine {
    pub(super) engine: HmVm,
    pub(super) store: Store,
    pub(super) cache: Arc<OciCache>,
    notices: Arc<Mutex<Vec<String>>>,
}

impl World {
    pub(super) fn new() -> Result<Self, Skip> {
        images::need_busybox()?;
        let root = TestRoot::new().unwrap();
        images::busybox_root(&root.join("image")).unwrap();
        Ok(Self { root })
    }

    pub(super) fn machine(&self, name: &str, place: &Arc<Memory>) -> Machine {
        self.machine_with(name, place, |_| ())
    }

    pub(super) fn machine_with(
        &self,
        name: &str,
        place: &Arc<Memory>,
        change: impl FnOnce(&mut OciCacheOptions),
    ) -> Machine {
        let place: Arc<dyn CacheRepository> = Arc::<Memory>::clone(place);
        self.machine_at(name, change, |store, options| {
            OciCache::in_repository(store, place, options)
        })
    }

    pub(super) fn machine_at(
        &self,
        name: &str,
        change: impl FnOnce(&mut OciCacheOptions),
        cache: impl FnOnce(Store, OciCacheOptions) -> OciCache,
    ) -> Machine {
        let store = Store::open(&self.root.join(name)).unwrap();
        if store.image("busybox").unwrap().is_none() {
            store
                .import_image(&self.root.join("image"), "busybox")
                .unwrap();
        }
        let notices = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&notices);
        let mut options = OciCacheOptions {
            mode: CacheMode::ReadWrite,
            notice: Some(Arc::new(move |text: &str| {
                told.lock().unwrap().push(text.to_owned());
            })),
            ..OciCacheOptions::default()
        };
        change(&mut options);
        let cache = Arc::new(cache(store.clone(), options));
        let path = store.root().join("registry.db");
        let registry = ImageRegistry::open(&path, NonZeroU64::new(100).unwrap()).unwrap();
        let backend = SandboxBackend::open(store.clone(), SandboxOptions::default()).unwrap();
        let engine = HmVm::new(Arc::new(backend), registry, VmConfig::default())
            .with_remote_cache(Arc::<OciCache>::clone(&cache));
        Machine {
            engine,
            store,
            cache,
            notices,
        }
    }
}

/// What a step gave.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) result: ExecutionResult,
    pub(super) lines: Vec<String>,
}

impl Step {
    pub(super) fn id(&self) -> SnapshotId {
        self.result.snapshot.clone().unwrap()
    }

    /// It came from elsewhere.
    #[track_caller]
    pub(super) fn came(&self) -> u64 {
        assert!(self.result.cached, "{self:?}");
        self.result.remote.expect("it is of this machine").bytes
    }

    /// It was run here.
    #[track_caller]
    pub(super) fn ran(&self) {
        assert!(
            !self.result.cached && self.result.remote.is_none(),
            "{self:?}"
        );
    }
}

impl Machine {
    /// Runs a command on the image, or on a snapshot, with a key derived from all that.
    pub(super) async fn step(&self, parent: Option<&Step>, cmd: &str) -> Step {
        self.step_with(parent, cmd, ExecuteOptions::default()).await
    }

    pub(super) async fn step_with(
        &self,
        parent: Option<&Step>,
        cmd: &str,
        options: ExecuteOptions,
    ) -> Step {
        let action = action(parent, cmd);
        let components = self.engine.derive_key(&action).await.unwrap().unwrap();
        let key = components.key().to_string();
        let options = ExecuteOptions {
            components: Some(components),
            ..options
        };
        self.run(action, &key, options).await
    }

    pub(super) async fn run(&self, action: Action, key: &str, options: ExecuteOptions) -> Step {
        let lines = Lines::default();
        let policy = CachingPolicy::Cache { key: key.into() };
        let result = self.engine.execute_with(action, policy, &lines, options);
        Step {
            result: result.await.unwrap(),
            lines: lines.take(),
        }
    }

    /// Waits until all is published.
    pub(super) async fn publish_all(&self) -> RemoteReport {
        let report = self.cache.finish(PATIENCE).await;
        assert_eq!(report.unfinished, 0, "{report:?}");
        report
    }

    pub(super) fn notices(&self) -> Vec<String> {
        std::mem::take(&mut self.notices.lock().unwrap())
    }

    /// Nothing is left of what did not come to an end.
    #[track_caller]
    pub(super) fn assert_clean(&self) {
        self.store.flush().unwrap();
        assert_eq!(self.store.leftovers().unwrap(), []);
        let tmp = std::fs::read_dir(self.store.root().join("tmp")).unwrap();
        assert_eq!(tmp.count(), 0, "tmp");
        let logs = self.store.root().join("registry.db.logs/tmp");
        let logs = std::fs::read_dir(logs).map_or(0, Iterator::count);
        assert_eq!(logs, 0, "logs");
    }
}

pub(super) fn action(parent: Option<&Step>, cmd: &str) -> Action {
    Action {
        source: match parent {
            Some(step) => ImageSource::Snapshot(step.id()),
            None => ImageSource::Image("busybox".into()),
        },
        ..super::support::action(cmd)
    }
}
