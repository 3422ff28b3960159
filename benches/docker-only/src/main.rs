//! Drives the published Docker-only crate (`hm-vm` 0.0.9): reads one order a line, answers `ok NANOSECONDS` or
//! `error MESSAGE`. Only the part of an order that the benchmark compares is timed.
#![forbid(unsafe_code)]

mod docker;
mod registry;

use std::io::{BufRead as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;

use docker::Docker;
use registry::Registry;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut orders = Orders {
        docker: None,
        registry: None,
    };
    for line in std::io::stdin().lock().lines() {
        let line = line.context("reading an order")?;
        let answer = match runtime.block_on(orders.follow(&line)) {
            Ok(duration) => format!("ok {}", duration.as_nanos()),
            Err(error) => format!("error {}", format!("{error:#}").replace('\n', " ")),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")
            .and_then(|()| out.flush())
            .context("answering")?;
    }
    Ok(())
}

/// What earlier orders opened.
struct Orders {
    docker: Option<Docker>,
    registry: Option<Registry>,
}

impl Orders {
    async fn follow(&mut self, line: &str) -> anyhow::Result<Duration> {
        let (order, rest) = line.split_once(' ').unwrap_or((line, ""));
        match order {
            "connect" => {
                self.docker = Some(Docker::connect(rest)?);
                Ok(Duration::ZERO)
            }
            "registry-open" => {
                let (count, path) = rest.split_once(' ').context("registry-open COUNT PATH")?;
                let (registry, duration) = Registry::filled(path.as_ref(), count.parse()?)?;
                self.registry = Some(registry);
                Ok(duration)
            }
            "registry-get" => Ok(self.registry()?.get(rest)),
            "registry-put" => Ok(self.registry()?.put(rest)),
            _ => {
                self.docker
                    .as_mut()
                    .context("not connected")?
                    .follow(order, rest)
                    .await
            }
        }
    }

    fn registry(&self) -> anyhow::Result<&Registry> {
        self.registry.as_ref().context("no registry is open")
    }
}
