//! Copying the results of a command to the host.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use hm_vm_core::{Error, OutputReport, OutputRequest, SnapshotId};

use super::errors::{expect_error, expect_invalid};
use crate::conformance::context::{Context, not_applicable};

fn need_outputs(ctx: &Context<'_>) -> Result<()> {
    if ctx.capabilities.outputs {
        Ok(())
    } else {
        Err(not_applicable("outputs is not declared"))
    }
}

async fn copy(
    ctx: &Context<'_>,
    snapshot: &SnapshotId,
    patterns: &[&str],
    to: &Path,
) -> Result<OutputReport> {
    let request = OutputRequest {
        patterns: patterns.iter().map(ToString::to_string).collect(),
        base: "/made-here".into(),
        to: to.to_owned(),
    };
    let result = ctx.backend.copy_outputs(snapshot, &request).await;
    let what = format!("copy_outputs {patterns:?} => {result:?}");
    ctx.record.note(what);
    result
}

/// A snapshot of what these commands make in `/made-here`.
async fn made_by(ctx: &Context<'_>, cmd: &str) -> Result<SnapshotId> {
    let mut vm = ctx.create().await?;
    vm.sh(&format!("mkdir -p /made-here; {cmd}")).await?;
    let id = vm.snapshot().await?;
    vm.destroy().await?;
    Ok(id)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// B6, V18: where outputs are not declared, they are refused, and nothing is written.
pub(crate) async fn undeclared_outputs_are_refused(ctx: &Context<'_>) -> Result<()> {
    if ctx.capabilities.outputs {
        return Err(not_applicable("outputs is declared"));
    }
    let id = made_by(ctx, "echo x > /made-here/out").await?;
    let host = tempfile::tempdir()?;
    let to = host.path().join("to");
    let result = copy(ctx, &id, &["out"], &to).await;
    expect_error(result, "V18: undeclared outputs", |error| {
        matches!(error, Error::Unsupported { .. })
    })?;
    ensure!(!to.exists(), "V18: something was written");
    Ok(())
}

/// V18: what the patterns name is brought, and nothing else.
pub(crate) async fn outputs_are_brought_by_patterns(ctx: &Context<'_>) -> Result<()> {
    need_outputs(ctx)?;
    let id = made_by(
        ctx,
        "mkdir -p /made-here/bin/deep /made-here/other /srv/lib; echo 1 > /made-here/bin/app; \
         echo 2 > /made-here/bin/deep/x.o; echo 3 > /made-here/other/y.o; echo 4 > /made-here/top.txt; \
         echo 5 > /srv/lib/z.so; chmod 755 /made-here/bin/app; ln -s app /made-here/bin/link",
    )
    .await?;
    let host = tempfile::tempdir()?;
    let to = host.path().join("not/there/yet");
    let report = copy(ctx, &id, &["bin", "*.txt", "/srv/lib/*.so", "no/such"], &to).await?;
    for (name, text) in [
        ("bin/app", "1\n"),
        ("bin/deep/x.o", "2\n"),
        ("top.txt", "4\n"),
        ("z.so", "5\n"),
    ] {
        let found = read(&to.join(name))?;
        ensure!(found == text, "V18: {name} holds {found:?}");
    }
    let mode = fs::metadata(to.join("bin/app"))?.mode() & 0o7777;
    ensure!(mode == 0o755, "V18: the mode is {mode:o}");
    let link = fs::read_link(to.join("bin/link"))?;
    ensure!(link == Path::new("app"), "V18: the link leads to {link:?}");
    ensure!(!to.join("other").exists(), "V18: too much was brought");
    ensure!(
        report.unmatched == ["no/such"] && report.files == 5 && report.bytes == 8,
        "V18: the report is {report:?}"
    );
    let all = host.path().join("all");
    let report = copy(ctx, &id, &["**/*.o", "b?n/[a-b]pp"], &all).await?;
    ensure!(report.files == 3, "V18: the report is {report:?}");
    ensure!(
        read(&all.join("other/y.o"))? == "3\n" && !all.join("top.txt").exists(),
        "V18: `**` brought something else"
    );
    Ok(())
}

/// V18: what is there already is left alone, and what differs is replaced.
pub(crate) async fn equal_outputs_are_left_alone(ctx: &Context<'_>) -> Result<()> {
    need_outputs(ctx)?;
    let id = made_by(ctx, "echo 1 > /made-here/a; echo 2 > /made-here/b").await?;
    let host = tempfile::tempdir()?;
    let to = host.path();
    copy(ctx, &id, &["a", "b"], to).await?;
    let inode = |name: &str| fs::metadata(to.join(name)).map(|found| found.ino());
    let before = inode("a")?;
    fs::write(to.join("b"), "changed\n")?;
    let report = copy(ctx, &id, &["a", "b"], to).await?;
    ensure!(
        (report.files, report.unchanged) == (1, 1),
        "V18: the report is {report:?}"
    );
    ensure!(inode("a")? == before, "V18: an equal file was replaced");
    ensure!(
        read(&to.join("b"))? == "2\n",
        "V18: a file was not replaced"
    );
    Ok(())
}

/// V18: links lead out of neither the snapshot nor the destination.
pub(crate) async fn outputs_stay_in_their_place(ctx: &Context<'_>) -> Result<()> {
    need_outputs(ctx)?;
    let host = tempfile::tempdir()?;
    let (to, victim) = (host.path().join("to"), host.path().join("victim"));
    fs::create_dir(&victim)?;
    fs::write(victim.join("file"), "precious\n")?;
    let outside = victim.display();
    let id = made_by(
        ctx,
        &format!("ln -s '{outside}' /made-here/dir; ln -s /etc/passwd /made-here/passwd"),
    )
    .await?;
    let report = copy(ctx, &id, &["dir/file", "dir/*"], &to).await?;
    ensure!(
        report.unmatched.len() == 2 && report.files == 0,
        "V18: a link of the guest led to the host: {report:?}"
    );
    copy(ctx, &id, &["dir", "passwd"], &to).await?;
    let link = fs::read_link(to.join("passwd"))?;
    ensure!(
        link == Path::new("/etc/passwd"),
        "V18: a link was followed: {link:?}"
    );
    // Where the first one left a link, the second one has a directory.
    let second = made_by(
        ctx,
        "mkdir -p /made-here/dir; echo evil > /made-here/dir/file",
    )
    .await?;
    for pattern in ["dir", "dir/file", "**"] {
        let copied = copy(ctx, &second, &[pattern], &to).await;
        expect_invalid(copied, "V18: writing through a link")?;
    }
    // And a link that stands in the place of a file.
    fs::remove_file(to.join("dir"))?;
    fs::create_dir(to.join("dir"))?;
    symlink(victim.join("file"), to.join("dir/file"))?;
    let _ = copy(ctx, &second, &["dir"], &to).await;
    ensure!(
        read(&victim.join("file"))? == "precious\n" && fs::read_dir(&victim)?.count() == 1,
        "V18: something outside of the destination was written"
    );
    for bad in ["../made-here/dir", "dir/../../etc/passwd"] {
        expect_invalid(
            copy(ctx, &second, &[bad], &to).await,
            "V18: a pattern with `..`",
        )?;
    }
    Ok(())
}

/// V18: what cannot be done is told apart.
pub(crate) async fn wrong_outputs_are_invalid(ctx: &Context<'_>) -> Result<()> {
    need_outputs(ctx)?;
    let id = made_by(ctx, "echo x > /made-here/file").await?;
    let host = tempfile::tempdir()?;
    let to = host.path();
    expect_invalid(
        copy(ctx, &id, &["a[", "file"], to).await,
        "V18: a bad pattern",
    )?;
    ensure!(!to.join("file").exists(), "V18: something was written");
    fs::create_dir(to.join("file"))?;
    expect_invalid(
        copy(ctx, &id, &["file"], to).await,
        "V18: a directory in the way",
    )?;
    let unknown = SnapshotId::new("no such snapshot");
    expect_error(
        copy(ctx, &unknown, &["file"], to).await,
        "V18: outputs of an unknown snapshot",
        |error| matches!(error, Error::SnapshotNotFound { .. }),
    )
}

/// V18: what is no file, directory or link stays where it is, and nothing keeps special rights.
pub(crate) async fn special_outputs_are_left_out(ctx: &Context<'_>) -> Result<()> {
    need_outputs(ctx)?;
    let id = made_by(
        ctx,
        "mkdir /made-here/out; mkfifo /made-here/out/fifo; echo x > /made-here/out/setuid; \
         chmod 6755 /made-here/out/setuid",
    )
    .await?;
    let host = tempfile::tempdir()?;
    let report = copy(ctx, &id, &["out"], host.path()).await?;
    ensure!(
        report.skipped == [Path::new("/made-here/out/fifo")],
        "V18: the report is {report:?}"
    );
    let found = fs::metadata(host.path().join("out/setuid"))?;
    ensure!(
        found.mode() & 0o7777 == 0o755 && found.uid() == fs::metadata(host.path())?.uid(),
        "V18: mode {:o}, user {}",
        found.mode(),
        found.uid()
    );
    Ok(())
}
