//! A program that follows orders over its standard streams: one line an order, one line an answer. What is measured by
//! its memory needs a process of its own.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::measure::kib;

/// The program, waiting for orders.
#[derive(Debug)]
pub(crate) struct Driver(RefCell<Running>);

#[derive(Debug)]
struct Running {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Driver {
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the driver")?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("the driver has no output")?);
        Ok(Self(RefCell::new(Running {
            child,
            orders,
            answers,
        })))
    }

    /// Sends one order and waits for its answer.
    pub(crate) fn order(&self, order: &str) -> anyhow::Result<Duration> {
        let mut driver = self.0.borrow_mut();
        let orders = driver.orders.as_mut().context("the driver was stopped")?;
        writeln!(orders, "{order}").context("sending an order to the driver")?;
        let mut answer = String::new();
        driver
            .answers
            .read_line(&mut answer)
            .context("reading the driver's answer")?;
        match answer.trim_end().split_once(' ') {
            Some(("ok", nanos)) => Ok(Duration::from_nanos(
                nanos.parse().context("reading the driver's time")?,
            )),
            Some(("error", message)) => bail!("{message}"),
            _ => bail!("the driver ended"),
        }
    }

    /// By how many KiB the peak of the driver's memory goes beyond what it holds before, while it follows an order.
    pub(crate) fn growth(&self, order: &str) -> anyhow::Result<i64> {
        let directory = format!("/proc/{}", self.0.borrow().child.id());
        // Makes what is resident now the peak: see proc(5).
        std::fs::write(format!("{directory}/clear_refs"), "5")
            .with_context(|| format!("resetting the peak of {directory}"))?;
        let status = format!("{directory}/status");
        let before = kib(&status, "VmHWM:")?;
        self.order(order)?;
        Ok(kib(&status, "VmHWM:")? - before)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let driver = self.0.get_mut();
        // It ends when its orders do.
        driver.orders = None;
        let _ = driver.child.wait();
    }
}
