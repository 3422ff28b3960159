//! The tables of the file. Their documentation comments are the descriptions in the schema.

use super::forms::{
    Filled, GuestPath, HostDirectory, If, Line, Network, Pattern, Revision, Sharing,
};
use super::names::{CacheName, ServiceName, StepName, VariableName};
use super::quantities::{Disk, Memory, Time};
use super::registries::{RemoteMode, Repository};
use super::table::table;
use super::unions::{CacheWord, EnvValue, MatrixTable, Secrets, TextOr};
use super::values::{As, Bool, Count, Map, Must, OneOrMany, Raw, Text};

table! {
    /// A pipeline of hmvm: steps that fork from each other's snapshots, and are skipped when nothing that they depend on has changed.
    FileTable {
        /// What holds for all steps.
        pipeline: Option<PipelineTable>,
        /// The steps, by name.
        steps: Map<StepName, Raw<StepTable>>,
    }

    /// What holds for all steps.
    PipelineTable {
        /// Name of the pipeline. Default: that of its directory.
        name: Option<As<Line>>,
        /// Image of steps that have neither `image` nor `from`. Default: `host`.
        image: Option<As<Line>>,
        /// Environment of all steps and services.
        env: Option<Map<VariableName, EnvValue>>,
        /// Wall-clock time that a whole run may take.
        timeout: Option<As<Time>>,
        /// Steps that may run at once. Default: as many as the machine's processors and memory allow.
        parallelism: Option<Count<1, 10_000>>,
        /// Name of the backend.
        backend: Option<As<Line>>,
        /// Git revision that `changed()` compares with.
        changed_since: Option<As<Revision>>,
        /// Repository of a registry in which results are shared with other machines: its name, or a table. Default: that of the configuration of hmvm, else none.
        remote_cache: Option<TextOr<As<Repository>, RemoteCacheTable>>,
    }

    /// A cache shared with other machines.
    RemoteCacheTable {
        /// Repository of a registry, as `registry.example/team/cache`.
        repository: As<Repository>,
        /// `read-write` (the default): results are shared. `read-only`: they are taken, and none is given.
        mode: Option<As<RemoteMode>>,
    }

    /// A command in a VM.
    StepTable {
        /// The command, for the shell. May have many lines.
        run: Must<As<Filled>>,
        /// Step whose snapshot this one starts from.
        from: Option<Text>,
        /// Image that this step starts from. Default: that of the pipeline.
        image: Option<As<Line>>,
        /// Steps that must have ended well before this one starts.
        needs: Option<OneOrMany<Text>>,
        /// Host directories and files to bring in.
        inject: Option<OneOrMany<TextOr<As<Filled>, InjectTable>>>,
        /// Absolute guest directory in which the command runs. Default: that of the step it forks from; else `/src` when something is injected without a target; else that of the image.
        workdir: Option<As<GuestPath>>,
        /// Environment of the step, above that of the pipeline.
        env: Option<Map<VariableName, EnvValue>>,
        /// Program and options in place of `sh`, as `bash -e`; `-c` and the command follow. Default: that of the step it forks from.
        shell: Option<As<Line>>,
        /// User inside. Default: that of the step it forks from, else that of the image, else root.
        user: Option<As<Line>>,
        /// Wall-clock time of one try.
        timeout: Option<As<Time>>,
        /// How often the step is tried again after it failed. Default: 0.
        retries: Option<Count<0, 100>>,
        /// Processors that the VM may use.
        cpus: Option<Count<1, 4096>>,
        /// Memory that the VM may use, in whole MiB.
        memory: Option<As<Memory>>,
        /// Disk that the VM may use, in whole GiB.
        disk: Option<As<Disk>>,
        /// Processes and threads that the VM may have.
        pids: Option<Count<1, 4_194_304>>,
        /// What the VM may reach: `none` (the default), `outbound` or `host`.
        network: Option<As<Network>>,
        /// Whether the result is cached: `auto` (the default), `off`, or a table.
        cache: Option<TextOr<As<CacheWord>, CacheTable>>,
        /// The step runs only if this holds.
        r#if: Option<As<If>>,
        /// Values that the step is made for, one step for each combination.
        matrix: Option<MatrixTable>,
        /// Guest paths or patterns to bring to the host when the step ended well, or was skipped.
        outputs: Option<OneOrMany<TextOr<As<Pattern>, OutputTable>>>,
        /// Directories that outlive the VM: guest path by name.
        caches: Option<Map<CacheName, TextOr<As<GuestPath>, CacheDirectoryTable>>>,
        /// Secrets: names of variables of the environment of hmvm, or a table.
        secrets: Option<Secrets>,
        /// The step's failure is none of the run. Default: false.
        allow_failure: Option<Bool>,
        /// Commands that run beside the step in VMs of their own, by host name.
        services: Option<Map<ServiceName, ServiceTable>>,
    }

    /// Host files to bring in.
    InjectTable {
        /// Host directory or file, from the pipeline's directory.
        source: As<Filled>,
        /// Absolute guest directory. Default: the working directory.
        target: Option<As<GuestPath>>,
        /// Bring only what one of these patterns names. Patterns as in `.gitignore`.
        include: Option<OneOrMany<As<Pattern>>>,
        /// Leave out what one of these patterns names.
        exclude: Option<OneOrMany<As<Pattern>>>,
        /// Honour `.gitignore` and `.hmvmignore`. Default: true.
        ignore_files: Option<Bool>,
        /// Bring also what the pipeline's own outputs wrote into the source. Default: false.
        with_outputs: Option<Bool>,
    }

    /// How the result is cached.
    CacheTable {
        /// Cache under this key, as it is, in place of the derived one.
        key: Option<As<Line>>,
        /// Host files that the result depends on beside the injected ones. Patterns as in `.gitignore`.
        inputs: Option<OneOrMany<As<Pattern>>>,
        /// How old a result may be.
        ttl: Option<As<Time>>,
        /// `auto` (the default) or `off`.
        mode: Option<As<CacheWord>>,
    }

    /// Files to bring to the host.
    OutputTable {
        /// Guest path or pattern; a relative one from the working directory.
        path: As<Pattern>,
        /// Host directory, from the pipeline's directory. Default: that directory.
        to: Option<As<HostDirectory>>,
    }

    /// A directory that outlives the VM.
    CacheDirectoryTable {
        /// Absolute guest directory.
        target: As<GuestPath>,
        /// `locked` (the default): one step at a time. `shared`: any number at once.
        sharing: Option<As<Sharing>>,
    }

    /// A secret: where its value comes from, and how the step gets it.
    SecretTable {
        /// Variable of the environment of hmvm that has the value.
        env: Option<Must<As<Line>>>,
        /// Host file that has the value, from the pipeline's directory; `~/` is the home directory.
        file: Option<Must<As<Line>>>,
        /// Absolute guest path of the file in memory that the step gets. Default: `/run/secrets/NAME`.
        target: Option<As<GuestPath>>,
        /// Environment variable that the step gets instead of a file.
        variable: Option<As<Line>>,
    }

    /// A command that runs beside a step, in a VM of its own.
    ServiceTable {
        /// The command, for the shell.
        run: Must<As<Filled>>,
        /// Image that it starts from. Default: that of the pipeline.
        image: Option<As<Line>>,
        /// Step whose snapshot it starts from.
        from: Option<Text>,
        /// Environment of the service, above that of the pipeline.
        env: Option<Map<VariableName, EnvValue>>,
        /// Absolute guest directory in which the command runs. Default: that of the step it forks from, else that of the image.
        workdir: Option<As<GuestPath>>,
        /// User inside. Default: that of the step it forks from, else that of the image, else root.
        user: Option<As<Line>>,
        /// Processors that the VM may use.
        cpus: Option<Count<1, 4096>>,
        /// Memory that the VM may use, in whole MiB.
        memory: Option<As<Memory>>,
        /// Disk that the VM may use, in whole GiB.
        disk: Option<As<Disk>>,
        /// Processes and threads that the VM may have.
        pids: Option<Count<1, 4_194_304>>,
        /// When the step may start. Default: at once.
        ready: Option<ReadyTable>,
    }

    /// When a service is ready: one of `port`, `run` and `line`.
    ReadyTable {
        /// It accepts connections on this TCP port.
        port: Option<Must<Count<1, 65_535>>>,
        /// This command, run in a VM like the service's and on its network, exits with 0.
        run: Option<Must<As<Filled>>>,
        /// A line of its output contains this.
        line: Option<Must<As<Line>>>,
        /// How long it may take. Default: 60s.
        timeout: Option<As<Time>>,
    }
}

/// A list of patterns.
pub(crate) fn patterns(list: Option<OneOrMany<As<Pattern>>>) -> Vec<String> {
    list.map_or_else(Vec::new, |OneOrMany(items)| {
        items.into_iter().map(|item| item.value).collect()
    })
}
