//! Commands that run beside a step.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hm_pipeline::pipeline::{Ready, ReadyCheck, Service, StepLimits};
use hm_pipeline::{RunEvent, RunEventSink, StepId};
use hm_vm::{
    CancelCause, Cancellation, ExecRequest, ImageSource, NetworkPolicy, NullSink, OutputSink,
    PrivateNetwork, PrivateNetworkRequest, Stream, Vm, VmBackend, VmConfig,
};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::failure::Problem;
use crate::output::human;

/// Time between two looks at whether a service is ready: short first, so that a quick one is not held up.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Time that a service has to end.
const GRACE: Duration = Duration::from_secs(2);

/// The services of one step, running. Dropped, they are told to end, and their tasks end by themselves.
#[derive(Debug)]
pub(super) struct Services {
    network: Arc<dyn PrivateNetwork>,
    stop: Cancellation,
    tasks: JoinSet<()>,
}

/// What is needed to start the services of one step.
pub(super) struct ServicePlan {
    pub(super) backend: Arc<dyn VmBackend>,
    pub(super) events: Arc<dyn RunEventSink>,
    pub(super) step: StepId,
    pub(super) network: NetworkPolicy,
    /// Each with what its VM starts from.
    pub(super) services: Vec<(Service, ImageSource)>,
}

impl ServicePlan {
    /// Starts all services, and waits until each is ready.
    ///
    /// # Errors
    ///
    /// A service could not be started, ended before it was ready, or was not ready in its time.
    pub(super) async fn start(&self) -> Result<Services> {
        let request = PrivateNetworkRequest {
            policy: self.network,
            names: self
                .services
                .iter()
                .map(|(service, _)| service.name.clone())
                .collect(),
        };
        let network = self.backend.private_network(&request).await?;
        let mut services = Services {
            network: Arc::clone(&network),
            stop: Cancellation::new(),
            tasks: JoinSet::new(),
        };
        let mut waits = Vec::new();
        for (service, source) in &self.services {
            let (state, running) = watch::channel(State::Starting);
            let one = OneService {
                service: service.clone(),
                source: source.clone(),
                backend: Arc::clone(&self.backend),
                network: Arc::clone(&network),
                policy: self.network,
                events: Arc::clone(&self.events),
                step: self.step,
            };
            let one = Arc::new(one);
            let (task, stop) = (Arc::clone(&one), services.stop.clone());
            services
                .tasks
                .spawn(async move { task.run(&stop, state).await });
            waits.push(async move { one.until_ready(running).await });
        }
        for wait in waits {
            wait.await?;
        }
        Ok(services)
    }
}

impl Services {
    pub(super) fn network(&self) -> &Arc<dyn PrivateNetwork> {
        &self.network
    }

    /// Ends all of them, and waits for that.
    pub(super) async fn end(mut self) {
        self.stop
            .cancel(CancelCause::Other("the step has ended".into()));
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.stop
            .kill(CancelCause::Other("the step has ended".into()));
        // The tasks free their VMs themselves; aborted, the VMs would be freed by their own drop.
        self.tasks.detach_all();
    }
}

/// How far a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Starting,
    /// It said the line that it is to say.
    Announced,
    /// It is over, for this reason.
    Over(String),
}

struct OneService {
    service: Service,
    source: ImageSource,
    backend: Arc<dyn VmBackend>,
    network: Arc<dyn PrivateNetwork>,
    policy: NetworkPolicy,
    events: Arc<dyn RunEventSink>,
    step: StepId,
}

impl OneService {
    async fn run(&self, stop: &Cancellation, state: watch::Sender<State>) {
        let sink = ServiceSink {
            one: self,
            awaited: match self.service.ready.as_ref().map(|ready| &ready.check) {
                Some(ReadyCheck::Line(text)) => Some(text),
                _ => None,
            },
            state: Mutex::new(&state),
        };
        let ended = self.exec(&self.service.run, stop, &sink).await;
        let stopped = stop.cause().is_some();
        let how = match ended {
            Ok(code) => format!("exited with code {code}"),
            Err(error) => format!("{error:#}"),
        };
        if !stopped {
            self.events.on_event(&RunEvent::Notice {
                step: Some(self.step),
                text: format!("service {} is over: it {how}", self.service.name),
            });
        }
        state.send_replace(State::Over(how));
    }

    /// Runs a command in a VM like the service's.
    async fn exec(&self, cmd: &str, stop: &Cancellation, sink: &dyn OutputSink) -> Result<i32> {
        let mut vm = self.vm().await?;
        let code = self.exec_in(vm.as_mut(), cmd, stop, sink).await;
        let destroyed = vm.destroy().await;
        let code = code?;
        destroyed?;
        Ok(code)
    }

    async fn vm(&self) -> Result<Box<dyn Vm>> {
        let config = config(self.service.limits, self.policy);
        match &self.source {
            ImageSource::Image(image) => self.backend.create(image, &config).await,
            ImageSource::Snapshot(snapshot) => self.backend.restore(snapshot, &config).await,
        }
        .with_context(|| format!("starting service {}", self.service.name))
    }

    async fn exec_in(
        &self,
        vm: &mut dyn Vm,
        cmd: &str,
        stop: &Cancellation,
        sink: &dyn OutputSink,
    ) -> Result<i32> {
        let env: Vec<(String, String)> = self.service.env.clone().into_iter().collect();
        let request = ExecRequest {
            env: &env,
            working_dir: &self.service.working_dir,
            user: self.service.user.as_deref(),
            network: Some(&self.network),
            grace: GRACE,
            ..ExecRequest::new(cmd, stop)
        };
        Ok(vm.exec_with(&request, sink).await?.exit_code)
    }

    async fn until_ready(&self, mut running: watch::Receiver<State>) -> Result<()> {
        let name = &self.service.name;
        let Some(Ready { check, timeout }) = &self.service.ready else {
            return Ok(());
        };
        let over = async {
            let state = running
                .wait_for(|state| *state != State::Starting)
                .await
                .map(|state| state.clone());
            match state {
                Ok(State::Over(how)) => Err(Problem::new(format!(
                    "service {name} was over before it was ready: it {how}"
                ))
                .hint("its output is shown above, with its name")
                .into()),
                _ => Ok(()),
            }
        };
        let ready = async {
            match check {
                ReadyCheck::Line(_) => std::future::pending().await,
                ReadyCheck::Port(port) => self.until_port(*port).await,
                ReadyCheck::Command(cmd) => self.until_command(cmd).await,
            }
        };
        let waited = tokio::time::timeout(*timeout, async {
            tokio::select! {
                biased;
                ready = ready => ready,
                over = over => over,
            }
        });
        waited.await.unwrap_or_else(|_| {
            Err(Problem::new(format!(
                "service {name} was not ready within {}",
                human::duration(*timeout)
            ))
            .hint("ready.timeout gives it more")
            .into())
        })
    }

    async fn until_port(&self, port: u16) -> Result<()> {
        let mut pause = FIRST_PAUSE;
        while !self.network.accepts(port).await? {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(())
    }

    async fn until_command(&self, cmd: &str) -> Result<()> {
        let mut vm = self.vm().await?;
        let stop = Cancellation::new();
        let mut pause = FIRST_PAUSE;
        while self.exec_in(vm.as_mut(), cmd, &stop, &NullSink).await? != 0 {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        vm.destroy().await
    }
}

/// What a VM of the step gets.
pub(super) fn config(limits: StepLimits, network: NetworkPolicy) -> VmConfig {
    VmConfig {
        cpus: limits.cpus,
        memory_mib: limits.memory_mib,
        disk_size_gb: limits.disk_gib,
        pids: limits.pids,
        network,
        ..VmConfig::default()
    }
}

struct ServiceSink<'a> {
    one: &'a OneService,
    awaited: Option<&'a String>,
    state: Mutex<&'a watch::Sender<State>>,
}

impl ServiceSink<'_> {
    fn line(&self, stream: Stream, line: &str) {
        self.one.events.on_event(&RunEvent::ServiceOutput {
            step: self.one.step,
            service: self.one.service.name.clone(),
            stream,
            line: line.to_owned(),
        });
        if self
            .awaited
            .is_some_and(|text| line.contains(text.as_str()))
        {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.send_if_modified(|state| {
                let first = *state == State::Starting;
                if first {
                    *state = State::Announced;
                }
                first
            });
        }
    }
}

impl OutputSink for ServiceSink<'_> {
    fn on_stdout(&self, line: &str) {
        self.line(Stream::Stdout, line);
    }

    fn on_stderr(&self, line: &str) {
        self.line(Stream::Stderr, line);
    }
}
