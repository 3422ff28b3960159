//! A pipeline as it is to be run: everything checked, inherited, expanded and given its default.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use hm_vm_core::NetworkPolicy;

use crate::condition::Condition;
use crate::configuration::RemoteCacheRule;

/// A step's place in [`Pipeline::steps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub usize);

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Steps and what holds for all of them. Has no cycle; every [`StepId`] in it is valid.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// Its name; that of its directory where the file gives none.
    pub name: String,
    /// Where relative host paths start from: the directory of the file. Absolute.
    pub directory: PathBuf,
    /// Name of the backend, if the file chooses one.
    pub backend: Option<String>,
    /// Wall-clock time that a whole run may take.
    pub timeout: Option<Duration>,
    /// Steps that may run at once, if the file says so.
    pub parallelism: Option<NonZeroUsize>,
    /// Git revision that `changed()` compares with, if the file names one.
    pub changed_since: Option<String>,
    /// Where results are shared with other machines, if the file says so.
    pub remote_cache: Option<RemoteCacheRule>,
    /// The steps in the order of the file, those of a matrix in the order of its values.
    pub steps: Vec<Step>,
}

impl Pipeline {
    /// The step of this id.
    pub fn step(&self, id: StepId) -> &Step {
        &self.steps[id.0]
    }

    /// All ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = StepId> + use<> {
        (0..self.steps.len()).map(StepId)
    }
}

/// One command in a VM.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Unique name: that of the file, with `[AXIS=VALUE,…]` for a step of a matrix.
    pub name: String,
    /// Name in the file: the same for all steps of a matrix.
    pub group: String,
    /// The command, for the shell.
    pub run: String,
    /// Program and options in place of the guest's `sh`, as `bash -e`; `-c` and the command follow.
    pub shell: Option<String>,
    /// What its VM starts from.
    pub base: StepBase,
    /// Steps that must have ended well before this one starts; not that of `base`.
    pub needs: Vec<StepId>,
    /// Host files to bring in. No two have the same target.
    pub injects: Vec<Inject>,
    /// Absolute guest directory; empty for the image's own one.
    pub working_dir: String,
    /// Environment of the pipeline, then of the step.
    pub env: BTreeMap<String, String>,
    /// User inside, if not the image's.
    pub user: Option<String>,
    /// Wall-clock time of one try.
    pub timeout: Option<Duration>,
    /// How often it is tried again after it failed or was out of time.
    pub retries: u32,
    /// What its VM may use.
    pub limits: StepLimits,
    /// What its VM may reach.
    pub network: NetworkPolicy,
    /// Whether and how its result is cached.
    pub cache: CacheRule,
    /// Runs only if this holds.
    pub condition: Option<Condition>,
    /// Files to bring to the host when it has ended well, or was skipped.
    pub outputs: Vec<Outputs>,
    /// Directories that outlive the VM.
    pub caches: Vec<CacheDirectory>,
    /// Secrets.
    pub secrets: Vec<SecretUse>,
    /// Its failure is none of the run. What forks from it is skipped then; what only needs it runs.
    pub allow_failure: bool,
    /// Commands that run beside it.
    pub services: Vec<Service>,
}

impl Step {
    /// A step that has what every step has, and the default of everything else: it runs where and as whom its image
    /// says, without a network or limits, and is cached.
    pub fn new(name: impl Into<String>, base: StepBase, run: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            group: name.clone(),
            name,
            run: run.into(),
            shell: None,
            base,
            needs: Vec::new(),
            injects: Vec::new(),
            working_dir: String::new(),
            env: BTreeMap::new(),
            user: None,
            timeout: None,
            retries: 0,
            limits: StepLimits::default(),
            network: NetworkPolicy::None,
            cache: CacheRule::default(),
            condition: None,
            outputs: Vec::new(),
            caches: Vec::new(),
            secrets: Vec::new(),
            allow_failure: false,
            services: Vec::new(),
        }
    }
}

/// What a VM starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepBase {
    /// An image.
    Image(String),
    /// The snapshot of another step.
    Step(StepId),
}

/// Limits; absent is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StepLimits {
    /// Whole processors.
    pub cpus: Option<u32>,
    /// MiB.
    pub memory_mib: Option<u64>,
    /// GiB.
    pub disk_gib: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// Host files to bring in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inject {
    /// Host directory or file, from the pipeline's directory. A file goes into `target` under its own name.
    pub source: PathBuf,
    /// Absolute guest directory.
    pub target: String,
    /// Patterns as in `.gitignore`; everything when empty.
    pub include: Vec<String>,
    /// Patterns as in `.gitignore`.
    pub exclude: Vec<String>,
    /// Honour `.gitignore` and `.hmvmignore`.
    pub ignore_files: bool,
    /// Bring also what the pipeline's own outputs wrote into `source`. They are left out otherwise,
    /// as a run would change what the next one depends on.
    pub with_outputs: bool,
}

/// Whether a step's result is cached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheRule {
    /// Under which key.
    pub mode: CacheMode,
    /// Host files that the result depends on beside the injected ones: patterns as in `.gitignore`, from
    /// the pipeline's directory.
    pub inputs: Vec<String>,
    /// How old a result may be.
    pub ttl: Option<Duration>,
}

/// Under which key a step's result is cached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// One derived from all that the step depends on.
    #[default]
    Auto,
    /// None: the step always runs, and so does what forks from it.
    Off,
    /// This one, as it is.
    Key(String),
}

/// Files to bring to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// Guest path or pattern; relative ones from the working directory.
    pub pattern: String,
    /// Host directory, from the pipeline's directory (which is the default, as an empty path).
    pub to: PathBuf,
}

/// A directory that outlives the VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheDirectory {
    /// Its name, shared by all pipelines of the user.
    pub name: String,
    /// Absolute guest directory.
    pub target: String,
    /// Whether several steps may have it at once.
    pub sharing: CacheSharing,
}

/// Whether several steps may have a cache directory at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheSharing {
    /// One step at a time, in this run and in others: the next one waits.
    #[default]
    Locked,
    /// Any number: for programs that lock for themselves.
    Shared,
}

/// A secret that a step gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse {
    /// Its name in the step.
    pub name: String,
    /// Where its value comes from.
    pub source: SecretSource,
    /// How the step gets it.
    pub form: SecretForm,
}

/// Where a secret's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A variable of the environment that hmvm runs in.
    Variable(String),
    /// A host file, from the pipeline's directory; `~/` is the home directory.
    File(PathBuf),
}

/// How a step gets a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretForm {
    /// As a file in memory at this absolute guest path.
    File(String),
    /// As this environment variable.
    Variable(String),
}

/// A command that runs beside a step, in a VM of its own on the step's network.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name: unique in the step, and its host name.
    pub name: String,
    /// What its VM starts from.
    pub base: StepBase,
    /// The command.
    pub run: String,
    /// Environment of the pipeline, then of the service.
    pub env: BTreeMap<String, String>,
    /// Absolute guest directory; empty for the image's own one.
    pub working_dir: String,
    /// User inside, if not the image's.
    pub user: Option<String>,
    /// What its VM may use.
    pub limits: StepLimits,
    /// When the step may start: at once, without.
    pub ready: Option<Ready>,
}

/// When a service is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// What to look for.
    pub check: ReadyCheck,
    /// How long it may take.
    pub timeout: Duration,
}

/// What tells that a service is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadyCheck {
    /// It accepts connections on this TCP port.
    Port(u16),
    /// This command, run in a VM like the service's and on its network, exits with 0.
    Command(String),
    /// A line of its output contains this.
    Line(String),
}
