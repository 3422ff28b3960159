//! Output: whole, exact, in order, in bounded memory.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail, ensure};
use hm_vm_core::{LineSplitter, OutputSink, Stream};

use super::super::host::peak_memory_kib;
use crate::conformance::context::Context;
use crate::conformance::guest::Lines;
use crate::lock::lock;

/// Keeps bytes as they come. `lines` are counted where a backend has only lines.
#[derive(Debug, Default)]
struct Bytes {
    out: Mutex<Vec<u8>>,
    err: Mutex<Vec<u8>>,
    lines: AtomicU64,
}

impl OutputSink for Bytes {
    fn on_stdout(&self, line: &str) {
        self.lines.fetch_add(1, Ordering::Relaxed);
        self.on_bytes(Stream::Stdout, format!("{line}\n").as_bytes());
    }

    fn on_stderr(&self, line: &str) {
        self.lines.fetch_add(1, Ordering::Relaxed);
        self.on_bytes(Stream::Stderr, format!("{line}\n").as_bytes());
    }

    fn wants_bytes(&self) -> bool {
        true
    }

    fn on_bytes(&self, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::Stdout => lock(&self.out).extend_from_slice(bytes),
            Stream::Stderr => lock(&self.err).extend_from_slice(bytes),
        }
    }
}

/// Counts without keeping.
#[derive(Debug, Default)]
struct Count {
    bytes: AtomicU64,
    lines: AtomicU64,
    as_bytes: bool,
}

impl OutputSink for Count {
    fn on_stdout(&self, line: &str) {
        self.lines.fetch_add(1, Ordering::Relaxed);
        self.bytes
            .fetch_add(line.len() as u64 + 1, Ordering::Relaxed);
    }

    fn on_stderr(&self, line: &str) {
        self.on_stdout(line);
    }

    fn wants_bytes(&self) -> bool {
        self.as_bytes
    }

    fn on_bytes(&self, _stream: Stream, bytes: &[u8]) {
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

/// V3: all 256 bytes, many times, on both streams.
pub(crate) async fn binary_output_is_exact(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let octal: String = (0..=255u8).map(|byte| format!("\\{byte:03o}")).collect();
    let cmd = format!(
        "i=0; while [ $i -lt 1000 ]; do printf '{octal}'; i=$((i+1)); done; printf 'e\\377' >&2"
    );
    let sink = Bytes::default();
    let code = vm.exec(&cmd, &[], "/", &sink).await?;
    ensure!(code == 0, "V1: {code}");
    let expected: Vec<u8> = (0..1000).flat_map(|_| 0..=255u8).collect();
    let out = lock(&sink.out).clone();
    if sink.lines.load(Ordering::Relaxed) > 0 {
        // This backend has only lines. A last one without end gets one here.
        let text = format!("{}\n", String::from_utf8_lossy(&expected));
        ensure!(
            String::from_utf8_lossy(&out) == text,
            "V3: lines of binary output differ"
        );
    } else {
        ensure!(
            out.len() == expected.len(),
            "V3: {} bytes, not {}",
            out.len(),
            expected.len()
        );
        ensure!(out == expected, "V3: the bytes differ");
        ensure!(*lock(&sink.err) == b"e\xff", "V3: standard error differs");
    }
    vm.destroy().await
}

/// V3: lines: empty ones, carriage returns, characters, a last one without end.
pub(crate) async fn lines_are_exact(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let cases: [(&str, &[&str]); 7] = [
        ("printf ''", &[]),
        ("printf '\\n'", &[""]),
        ("printf 'a\\n\\n\\nb'", &["a", "", "", "b"]),
        ("printf 'a\\r\\nb\\r'", &["a\r", "b\r"]),
        (
            "printf 'gr\\303'; sleep 0.02; printf '\\274n\\n'",
            &["grün"],
        ),
        ("printf 'a\\377b\\n\\303'", &["a\u{fffd}b", "\u{fffd}"]),
        (
            "printf 'half'; sleep 0.02; printf ' line\\nno end'",
            &["half line", "no end"],
        ),
    ];
    for (cmd, lines) in cases {
        let ran = vm.run(cmd).await?;
        ensure!(ran.out == lines, "V3: {cmd}: {:?}, not {lines:?}", ran.out);
    }
    vm.destroy().await
}

/// V3: each stream keeps its order, and neither loses a line, whatever the other one does.
pub(crate) async fn streams_keep_their_order(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let ran = vm
        .run("i=0; while [ $i -lt 5000 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done; printf 'last' >&2")
        .await?;
    let out: Vec<String> = (0..5000).map(|number| format!("o{number}")).collect();
    let mut err: Vec<String> = (0..5000).map(|number| format!("e{number}")).collect();
    err.push("last".into());
    ensure!(
        ran.out == out,
        "V3: standard output is out of order or incomplete"
    );
    ensure!(
        ran.err == err,
        "V3: standard error is out of order or incomplete"
    );
    vm.destroy().await
}

/// V3: much output flows through, in bounded memory.
pub(crate) async fn much_output_flows_through(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let bytes = ctx.scale.output_bytes / 16 * 16;
    vm.sh("true").await?;
    let before = peak_memory_kib();
    for as_bytes in [true, false] {
        let sink = Count {
            as_bytes,
            ..Count::default()
        };
        let cmd = format!("yes 0123456789abcde | head -c {bytes}");
        let code = vm.exec(&cmd, &[], "/", &sink).await?;
        let seen = sink.bytes.load(Ordering::Relaxed);
        let lines = sink.lines.load(Ordering::Relaxed);
        ensure!(
            code == 0 && seen == bytes,
            "V3: {seen} of {bytes} bytes arrived, exit {code}"
        );
        ensure!(
            as_bytes || lines == bytes / 16,
            "V3: {lines} lines, not {}",
            bytes / 16
        );
    }
    if let (Some(before), Some(after)) = (before, peak_memory_kib()) {
        let grown = after.saturating_sub(before);
        ensure!(
            grown < 64 << 10,
            "V3: {grown} KiB of memory for {bytes} bytes of output"
        );
    }
    vm.destroy().await
}

/// V3: a line of ten megabytes comes in pieces of bounded size, complete.
pub(crate) async fn an_over_long_line_comes_in_pieces(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let bytes = 10 << 20;
    let ran = vm
        .run(&format!(
            "head -c {bytes} /dev/zero | tr '\\0' x; echo; echo end"
        ))
        .await?;
    let Some((last, pieces)) = ran.out.split_last() else {
        bail!("V3: nothing arrived: {:?}", ran.err);
    };
    ensure!(
        last == "end",
        "V3: the line after the long one is {last:.80}"
    );
    let longest = pieces.iter().map(String::len).max().unwrap_or(0);
    ensure!(
        longest <= LineSplitter::MAX_LINE_BYTES,
        "V3: a piece of {longest} bytes"
    );
    let total: usize = pieces.iter().map(String::len).sum();
    let right = pieces
        .iter()
        .all(|piece| piece.bytes().all(|byte| byte == b'x'));
    ensure!(
        total == bytes && right,
        "V3: {total} of {bytes} bytes arrived, right: {right}"
    );
    vm.destroy().await
}

/// V3, V2: nothing arrives after `exec` returned, though the command left writers behind.
pub(crate) async fn no_output_after_the_end(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    for _ in 0..10 {
        let sink = Lines::default();
        let cmd =
            "(while :; do echo more; done) & (while :; do echo err >&2; done) & echo main; exit 4";
        let code = vm.exec(cmd, &[], "/", &sink).await?;
        let at_end = sink.count();
        vm.sh("true").await?;
        ensure!(code == 4, "V1: exit 4 came back as {code}");
        ensure!(
            sink.count() == at_end,
            "V3: output arrived after exec returned"
        );
    }
    vm.destroy().await
}
