//! Inject of a part of a directory.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use hm_vm_core::{Error, InjectSource};

use super::errors::{expect_error, expect_invalid};
use super::inject::write;
use crate::conformance::context::{Context, not_applicable};

fn need_patterns(ctx: &Context<'_>) -> Result<()> {
    if ctx.capabilities.inject_patterns {
        Ok(())
    } else {
        Err(not_applicable("inject_patterns is not declared"))
    }
}

fn source(root: &Path, include: &[&str], exclude: &[&str]) -> InjectSource {
    let owned = |patterns: &[&str]| patterns.iter().map(ToString::to_string).collect();
    InjectSource {
        include: owned(include),
        exclude: owned(exclude),
        ..InjectSource::directory(root)
    }
}

/// A workspace of two parts, with something to ignore.
fn workspace(root: &Path) -> Result<()> {
    write(
        root,
        &[
            (".gitignore", "*.tmp\n"),
            ("Cargo.toml", "workspace\n"),
            ("a/src/main.rs", "main\n"),
            ("a/src/deep/mod.rs", "mod\n"),
            ("a/notes.md", "notes\n"),
            ("a/x.tmp", "ignored\n"),
            ("b/src/lib.rs", "lib\n"),
        ],
    )
}

/// B6, V17: where patterns are not declared, they are refused, and nothing is brought. A source
/// without any is a plain inject everywhere.
pub(crate) async fn undeclared_patterns_are_refused(ctx: &Context<'_>) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    workspace(root)?;
    let mut vm = ctx.create().await?;
    let plain = InjectSource::directory(root);
    ensure!(
        ctx.backend.inject_digest_of(&plain).await? == ctx.backend.inject_digest(root).await?,
        "V17: the digest of a plain source is not that of a plain inject"
    );
    if !ctx.capabilities.inject_patterns {
        let mut all = plain.clone();
        all.ignore_files = false;
        for part in [source(root, &["/a"], &[]), source(root, &[], &["/a"]), all] {
            let unsupported = |error: &Error| matches!(error, Error::Unsupported { .. });
            let digest = ctx.backend.inject_digest_of(&part).await;
            expect_error(
                digest,
                "V17: a digest with undeclared patterns",
                unsupported,
            )?;
            let injected = vm.inject_from(&part, "/part").await;
            expect_error(
                injected,
                "V17: an inject with undeclared patterns",
                unsupported,
            )?;
        }
        vm.sh("test ! -e /part/a").await?;
    }
    vm.inject_from(&plain, "/all").await?;
    vm.expect("cat /all/Cargo.toml /all/b/src/lib.rs", "workspace\nlib")
        .await?;
    vm.destroy().await
}

/// V17: exactly what the patterns name is brought, and a second inject replaces it.
pub(crate) async fn patterns_say_what_is_brought(ctx: &Context<'_>) -> Result<()> {
    need_patterns(ctx)?;
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    workspace(root)?;
    let mut vm = ctx.create().await?;
    vm.inject_from(
        &source(root, &["/a", "Cargo.toml"], &["deep", "*.md"]),
        "/w",
    )
    .await?;
    vm.expect("cat /w/Cargo.toml /w/a/src/main.rs", "workspace\nmain")
        .await?;
    for gone in [".gitignore", "a/src/deep", "a/notes.md", "a/x.tmp", "b"] {
        vm.sh(&format!("test ! -e /w/{gone}")).await?;
    }
    vm.sh("echo made > /w/a/made").await?;
    let id = vm.snapshot().await?;
    vm.destroy().await?;
    let mut vm = ctx.restore(&id).await?;
    let mut other = source(root, &["*.rs", "*.tmp"], &["/b"]);
    other.ignore_files = false;
    vm.inject_from(&other, "/w").await?;
    vm.expect(
        "cat /w/a/src/main.rs /w/a/src/deep/mod.rs /w/a/x.tmp /w/a/made",
        "main\nmod\nignored\nmade",
    )
    .await?;
    for gone in ["Cargo.toml", "b", "a/notes.md"] {
        vm.sh(&format!("test ! -e /w/{gone}")).await?;
    }
    vm.inject_from(&source(root, &["/nothing"], &[]), "/w")
        .await?;
    vm.sh("test ! -e /w/a/src").await?;
    vm.expect("cat /w/a/made", "made").await?;
    vm.destroy().await
}

/// V17: the digest changes with what is brought and with nothing else, and an inject tells the same.
pub(crate) async fn digests_follow_the_patterns(ctx: &Context<'_>) -> Result<()> {
    need_patterns(ctx)?;
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    workspace(root)?;
    let part = source(root, &["/a"], &["*.md"]);
    let backend = &ctx.backend;
    let digest = || async { backend.inject_digest_of(&part).await };
    let Some(first) = digest().await? else {
        return Err(not_applicable("the backend tells no inject digests"));
    };
    fs::write(root.join("a/notes.md"), "other notes\n")?;
    fs::write(root.join("b/src/lib.rs"), "other lib\n")?;
    ensure!(
        digest().await?.as_ref() == Some(&first),
        "V17: the digest changes with what is not brought"
    );
    let again = source(root, &["a/src/", "/a"], &["*.md", "/b"]);
    ensure!(
        backend.inject_digest_of(&again).await?.as_ref() == Some(&first),
        "V17: other patterns for the same files give another digest"
    );
    fs::write(root.join("a/src/main.rs"), "other main\n")?;
    let second = digest().await?;
    ensure!(
        second.as_ref() != Some(&first),
        "V17: new contents have the old digest"
    );
    let mut vm = ctx.create().await?;
    let told = vm.inject_from(&part, "/w").await?;
    ensure!(
        told.is_none() || told == second,
        "V17: the inject brought {told:?}, and the digest was {second:?}"
    );
    vm.destroy().await?;
    let entries = backend.inject_entries(&part).await?;
    let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
    ensure!(
        paths.is_empty() || paths == ["a/src/deep/mod.rs", "a/src/main.rs"],
        "V17: the entries are {paths:?}"
    );
    Ok(())
}

/// V17: a pattern that makes no sense is told apart, and nothing is brought.
pub(crate) async fn bad_patterns_are_invalid(ctx: &Context<'_>) -> Result<()> {
    need_patterns(ctx)?;
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    workspace(root)?;
    let mut vm = ctx.create().await?;
    for bad in ["a{b", "[z-a]", ""] {
        for part in [source(root, &[bad, "/a"], &[]), source(root, &[], &[bad])] {
            let doing = format!("V17: the pattern {bad:?}");
            expect_invalid(ctx.backend.inject_digest_of(&part).await, &doing)?;
            expect_invalid(ctx.backend.inject_entries(&part).await, &doing)?;
            expect_invalid(vm.inject_from(&part, "/w").await, &doing)?;
        }
    }
    vm.sh("test ! -e /w/a").await?;
    vm.destroy().await
}
