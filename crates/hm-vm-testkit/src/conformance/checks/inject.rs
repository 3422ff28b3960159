//! Inject: what it brings, keeps and removes. Runs on the fake as well.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::errors::expect_invalid;
use crate::conformance::context::Context;

/// Writes files, with the directories above them, below `root`.
pub(crate) fn write(root: &Path, files: &[(&str, &str)]) -> Result<()> {
    for (name, text) in files {
        let path = root.join(name);
        let parent = path.parent().context("a file below the root")?;
        fs::create_dir_all(parent)?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("changing the mode of {}", path.display()))
}

/// V8: contents, modes, links and empty directories arrive.
pub(crate) async fn inject_brings_the_contents(ctx: &Context<'_>) -> Result<()> {
    let source = tempfile::tempdir()?;
    let root = source.path();
    write(
        root,
        &[
            ("a", "1\n"),
            ("d/e/f", "2\n"),
            (".hidden", "3\n"),
            ("with space", "4\n"),
        ],
    )?;
    write(root, &[("run.sh", "echo ran\n"), ("private/key", "5\n")])?;
    fs::create_dir_all(root.join("empty/below"))?;
    symlink("d/e/f", root.join("link"))?;
    symlink("no/such/file", root.join("dangling"))?;
    symlink("d", root.join("dirlink"))?;
    for (name, mode) in [
        ("run.sh", 0o755),
        ("a", 0o640),
        ("private", 0o700),
        ("empty", 0o750),
    ] {
        set_mode(&root.join(name), mode)?;
    }
    let mut vm = ctx.create().await?;
    vm.inject(root, "/new/place").await?;
    vm.sh("cat /new/place/a > /first").await?;
    vm.expect(
        "cat /new/place/a /new/place/d/e/f /new/place/.hidden '/new/place/with space'",
        "1\n2\n3\n4",
    )
    .await?;
    vm.sh("test -d /new/place/empty/below").await?;
    vm.sh("test -L /new/place/link && test -L /new/place/dirlink && test -L /new/place/dangling")
        .await?;
    vm.expect(
        "readlink /new/place/link; readlink /new/place/dangling",
        "d/e/f\nno/such/file",
    )
    .await?;
    vm.expect("cat /new/place/link /new/place/dirlink/e/f", "2\n2")
        .await?;
    for (name, mode) in [
        ("run.sh", "755"),
        ("a", "640"),
        ("private", "700"),
        ("empty", "750"),
    ] {
        vm.expect(&format!("stat -c %a /new/place/{name}"), mode)
            .await?;
    }
    vm.sh("test ! -e /new/place/place").await?;
    vm.destroy().await
}

/// V8: what an earlier inject brought and is no longer there goes, in the same VM and in a fork.
/// What the guest made itself stays.
pub(crate) async fn a_second_inject_removes_what_is_gone(ctx: &Context<'_>) -> Result<()> {
    let source = tempfile::tempdir()?;
    let root = source.path();
    write(
        root,
        &[
            ("kept", "1\n"),
            ("gone", "1\n"),
            ("dir/gone", "1\n"),
            ("dir/kept", "1\n"),
        ],
    )?;
    write(
        root,
        &[
            ("whole/dir/gone", "1\n"),
            ("was-file", "1\n"),
            ("was-dir/file", "1\n"),
        ],
    )?;
    let mut vm = ctx.create().await?;
    vm.inject(root, "/work").await?;
    vm.sh("echo own > /work/own; echo own > /work/dir/own; echo changed > /work/kept")
        .await?;
    let id = vm.snapshot().await?;
    for name in ["gone", "dir/gone", "was-file"] {
        fs::remove_file(root.join(name))?;
    }
    fs::remove_dir_all(root.join("whole"))?;
    fs::remove_dir_all(root.join("was-dir"))?;
    write(
        root,
        &[
            ("was-dir", "2\n"),
            ("was-file/file", "2\n"),
            ("added", "2\n"),
        ],
    )?;
    let mut fork = ctx.restore(&id).await?;
    for vm in [&mut vm, &mut fork] {
        vm.inject(root, "/work").await?;
        for gone in ["gone", "dir/gone", "whole"] {
            vm.sh(&format!("test ! -e /work/{gone}"))
                .await
                .context("V8: it is still there")?;
        }
        vm.expect("cat /work/kept /work/dir/kept /work/added", "1\n1\n2")
            .await?;
        vm.expect("cat /work/was-dir /work/was-file/file", "2\n2")
            .await?;
        vm.expect("cat /work/own /work/dir/own", "own\nown").await?;
    }
    fork.destroy().await?;
    vm.destroy().await
}

/// V8: ignore files of the directory are honoured.
pub(crate) async fn ignore_files_are_honoured(ctx: &Context<'_>) -> Result<()> {
    let source = tempfile::tempdir()?;
    let root = source.path();
    write(
        root,
        &[
            (".gitignore", "*.log\n/target/\n!keep.log\n"),
            ("a.log", ""),
            ("keep.log", ""),
        ],
    )?;
    write(
        root,
        &[
            ("target/big", ""),
            ("sub/target/small", ""),
            ("sub/b.log", ""),
            ("sub/c", ""),
        ],
    )?;
    write(
        root,
        &[
            ("sub/.gitignore", "c\n"),
            (".hmvmignore", "secret\n"),
            ("secret", ""),
        ],
    )?;
    let mut vm = ctx.create().await?;
    vm.inject(root, "/work").await?;
    for present in [
        ".gitignore",
        "keep.log",
        "sub/target/small",
        "sub/.gitignore",
    ] {
        vm.sh(&format!("test -e /work/{present}"))
            .await
            .context("V8: it did not arrive")?;
    }
    for ignored in ["a.log", "target", "sub/b.log", "sub/c", "secret"] {
        vm.sh(&format!("test ! -e /work/{ignored}"))
            .await
            .context("V8: it is ignored")?;
    }
    vm.destroy().await
}

/// V8: directories that exist keep their mode and what is in them, the root directory too.
pub(crate) async fn inject_keeps_existing_directories(ctx: &Context<'_>) -> Result<()> {
    let source = tempfile::tempdir()?;
    set_mode(source.path(), 0o700)?;
    write(source.path(), &[("injected/file", "1\n")])?;
    let mut vm = ctx.create().await?;
    vm.sh("mkdir -p /tmp/old; chmod 1777 /tmp; chmod 711 /tmp/old; echo old > /tmp/old/file")
        .await?;
    let root_mode = vm.sh("stat -c %a /").await?;
    vm.inject(source.path(), "/tmp").await?;
    vm.inject(source.path(), "/tmp/old/deep").await?;
    vm.inject(source.path(), "/").await?;
    vm.expect("stat -c %a /tmp; stat -c %a /tmp/old", "1777\n711")
        .await?;
    vm.expect("stat -c %a /", &root_mode).await?;
    vm.expect("cat /tmp/old/file", "old").await?;
    vm.expect(
        "cat /tmp/injected/file /tmp/old/deep/injected/file /injected/file",
        "1\n1\n1",
    )
    .await?;
    vm.sh("test -d /etc").await?;
    vm.destroy().await
}

/// V8: a host path that is not a directory, or a guest path that cannot be one.
pub(crate) async fn wrong_inject_paths_are_invalid(ctx: &Context<'_>) -> Result<()> {
    let source = tempfile::tempdir()?;
    write(source.path(), &[("file", "1\n")])?;
    let mut vm = ctx.create().await?;
    vm.sh("echo x > /file").await?;
    for host in [
        source.path().join("file"),
        source.path().join("none"),
        "".into(),
    ] {
        let doing = format!("V8: inject of {}", host.display());
        expect_invalid(vm.inject(&host, "/hmvm/work").await, &doing)?;
    }
    let mut wrong = vec!["work", "./work", "/file", "/file/below", "/nul\0byte"];
    if !ctx.capabilities.image_defaults {
        wrong.push("");
    }
    for guest in wrong {
        let doing = format!("V8: inject to {guest:?}");
        expect_invalid(vm.inject(source.path(), guest).await, &doing)?;
    }
    vm.expect("cat /file", "x").await?;
    vm.sh("test ! -e /hmvm").await?;
    vm.destroy().await
}

/// B2, V8: host, guest and forks share no injected file, however it is stored.
pub(crate) async fn injected_files_are_not_shared(ctx: &Context<'_>) -> Result<()> {
    let source = tempfile::tempdir()?;
    let root = source.path();
    write(root, &[("file", "host\n"), ("other", "host\n")])?;
    let mut one = ctx.create().await?;
    let mut two = ctx.create().await?;
    one.inject(root, "/work").await?;
    two.inject(root, "/work").await?;
    let id = one.snapshot().await?;
    // In place, so that a file that is shared by a hard link shows it.
    one.sh("echo guest >> /work/file").await?;
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(root.join("other"))?;
    std::io::Write::write_all(&mut file, b"later\n")?;
    drop(file);
    let host = fs::read_to_string(root.join("file"))?;
    ensure!(
        host == "host\n",
        "B2: the guest wrote into the host's file: {host:?}"
    );
    two.expect("cat /work/file /work/other", "host\nhost")
        .await?;
    one.expect("cat /work/file /work/other", "host\nguest\nhost")
        .await?;
    let mut fork = ctx.restore(&id).await?;
    fork.expect("cat /work/file /work/other", "host\nhost")
        .await?;
    let mut three = ctx.create().await?;
    three.inject(root, "/work").await?;
    three
        .expect("cat /work/file /work/other", "host\nhost\nlater")
        .await?;
    for vm in [one, two, fork, three] {
        vm.destroy().await?;
    }
    Ok(())
}

/// B2, V8: a link in the guest leads to another place of the guest, never to the host.
pub(crate) async fn inject_does_not_follow_links_to_the_host(ctx: &Context<'_>) -> Result<()> {
    let source = tempfile::tempdir()?;
    let target = tempfile::tempdir()?;
    set_mode(target.path(), 0o777)?;
    write(source.path(), &[("file", "1\n")])?;
    let host_dir = target
        .path()
        .to_str()
        .context("a UTF-8 temporary directory")?;
    let mut vm = ctx.create().await?;
    vm.sh(&format!(
        "ln -s {host_dir} /absolute; ln -s ../../../../../../..{host_dir} /relative"
    ))
    .await?;
    for link in [
        "/absolute",
        "/relative",
        "/absolute/below",
        "/relative/../x",
    ] {
        // Whether the guest has such a place does not matter: only that the host stays as it is.
        let _ = vm.inject(source.path(), link).await;
        let found = fs::read_dir(target.path())?.count();
        ensure!(found == 0, "B2: inject to {link} wrote to the host");
    }
    let beside = target.path().with_file_name("x");
    ensure!(
        !beside.join("file").exists(),
        "B2: inject wrote beside {host_dir}"
    );
    vm.destroy().await
}

/// V8: the root of the guest owns what was injected, whoever owns it on the host.
pub(crate) async fn injected_files_belong_to_root(ctx: &Context<'_>) -> Result<()> {
    let source = tempfile::tempdir()?;
    write(source.path(), &[("d/file", "1\n")])?;
    symlink("file", source.path().join("d/link"))?;
    if rustix::process::geteuid().is_root() {
        for name in ["", "d", "d/file"] {
            std::os::unix::fs::chown(source.path().join(name), Some(12_345), Some(12_345))?;
        }
    }
    let mut vm = ctx.create().await?;
    vm.inject(source.path(), "/new/work").await?;
    vm.expect(
        "stat -c %u:%g /new /new/work /new/work/d /new/work/d/file /new/work/d/link",
        "0:0\n0:0\n0:0\n0:0\n0:0",
    )
    .await?;
    vm.sh("echo more >> /new/work/d/file && rm -r /new").await?;
    vm.destroy().await
}

/// V8: odd names, a large file, and a fifo among them, which must hold nobody up.
pub(crate) async fn odd_sources_are_injected(ctx: &Context<'_>) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let source = tempfile::tempdir()?;
    let root = source.path();
    let long = "n".repeat(255);
    write(
        root,
        &[
            ("new\nline", "1"),
            ("-rf", "2"),
            (" ", "3"),
            ("*", "4"),
            (&long, "5"),
        ],
    )?;
    write(root, &[(&"d/".repeat(100), "")]).ok();
    let not_utf8 = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    fs::write(root.join(not_utf8), "6").context("writing a name that is not UTF-8")?;
    let large: Vec<u8> = (0..16u32 << 20).map(|at| (at % 251) as u8).collect();
    fs::write(root.join("large"), &large)?;
    let mode = rustix::fs::Mode::from(0o644);
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), fifo, mode, 0)?;
    let mut vm = ctx.create().await?;
    vm.inject(root, "/work").await?;
    let cat = "cd /work && cat 'new\nline' ./-rf ' ' '*' \"$(printf '\\377\\376')\"; cat n*nn";
    vm.expect(cat, "123465").await?;
    vm.expect("wc -c < /work/large | tr -d ' '", &large.len().to_string())
        .await?;
    let middle = large[1_000_000..1_000_003]
        .iter()
        .map(|byte| format!("{byte:03o}"));
    let middle: Vec<String> = middle.collect();
    let od = "dd if=/work/large bs=1 skip=1000000 count=3 2>/dev/null | od -An -b | tr -s ' ' | sed 's/^ //;s/ $//'";
    vm.expect(od, &middle.join(" ")).await?;
    vm.destroy().await
}
