//! What an image says of the commands that run in it.

use anyhow::{Context as _, Result, ensure};
use hm_vm_core::{Cancellation, ExecRequest};

use super::errors::expect_invalid;
use crate::conformance::context::{Context, not_applicable, skipped};
use crate::conformance::guest::Guest;
use crate::conformance::harness::ImageConfiguration;

/// A VM of an image that says this.
async fn configured(ctx: &Context<'_>, says: &ImageConfiguration) -> Result<Guest> {
    if !ctx.capabilities.image_defaults {
        return Err(not_applicable("image_defaults is not declared"));
    }
    let image = match ctx.harness.configured_image(says).await {
        Some(Ok(image)) => image,
        Some(Err(skip)) => return Err(skipped(skip.to_string())),
        None => return Err(skipped("the harness makes no image with a configuration")),
    };
    ctx.create_from(&image).await
}

/// The requests of this module: nothing is declared.
fn bare<'a>(cmd: &'a str, stop: &'a Cancellation) -> ExecRequest<'a> {
    ExecRequest {
        working_dir: "",
        ..ExecRequest::new(cmd, stop)
    }
}

fn says() -> ImageConfiguration {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    ImageConfiguration {
        env: vec![
            pair("HMVM_IMAGE", "said"),
            pair("LANG", "C"),
            pair("PATH", "/opt/own:/usr/local/bin:/usr/bin:/bin"),
        ],
        user: None,
        working_dir: Some("/srv/not there/yet".to_owned()),
    }
}

/// B6, V20: where image defaults are not declared, an absent working directory is refused, and nothing runs.
pub(crate) async fn undeclared_image_defaults_are_refused(ctx: &Context<'_>) -> Result<()> {
    if ctx.capabilities.image_defaults {
        return Err(not_applicable("image_defaults is declared"));
    }
    let mut vm = ctx.create().await?;
    let stop = Cancellation::new();
    let result = vm.ask(&bare("echo x > /ran", &stop)).await;
    expect_invalid(result, "V20: no working directory")?;
    vm.expect_nothing_ran().await?;
    vm.destroy().await
}

/// V20: an image that names nothing leaves commands in the root directory.
pub(crate) async fn an_image_that_names_no_directory(ctx: &Context<'_>) -> Result<()> {
    if !ctx.capabilities.image_defaults {
        return Err(not_applicable("image_defaults is not declared"));
    }
    let mut vm = ctx.create().await?;
    let stop = Cancellation::new();
    let got = vm.ask_for(&bare("pwd", &stop)).await?;
    ensure!(got == "/", "V20: without a directory, pwd is {got:?}");
    vm.destroy().await
}

/// V20: what the image says holds in its VMs and in forks of their snapshots; what a command says goes before.
pub(crate) async fn commands_get_what_the_image_says(ctx: &Context<'_>) -> Result<()> {
    let mut vm = configured(ctx, &says()).await?;
    expect_said(&mut vm, "in a VM of the image").await?;
    let snapshot = vm.snapshot().await?;
    expect_said(&mut vm, "after a snapshot").await?;
    vm.destroy().await?;
    let mut fork = ctx.restore(&snapshot).await?;
    expect_said(&mut fork, "in a fork").await?;
    fork.destroy().await
}

async fn expect_said(vm: &mut Guest, place: &str) -> Result<()> {
    let stop = Cancellation::new();
    let cmd = "pwd; echo $HMVM_IMAGE; echo $LANG; echo $HOME; echo $PATH";
    let wanted = "/srv/not there/yet\nsaid\nC\n/root\n/opt/own:/usr/local/bin:/usr/bin:/bin";
    let got = vm.ask_for(&bare(cmd, &stop)).await?;
    ensure!(got == wanted, "V20: {place}: {got:?}");
    let env = [("HMVM_IMAGE".to_owned(), "declared".to_owned())];
    let own = ExecRequest {
        env: &env,
        ..ExecRequest::new("pwd; echo $HMVM_IMAGE; echo $LANG", &stop)
    };
    let got = vm.ask_for(&own).await?;
    ensure!(
        got == "/\ndeclared\nC",
        "V20: {place}, what is declared does not go before: {got:?}"
    );
    Ok(())
}

/// V20: files that are injected without a place go to the directory that the image names, and a second inject
/// there replaces the first one.
pub(crate) async fn injects_go_to_the_images_directory(ctx: &Context<'_>) -> Result<()> {
    let source = tempfile::tempdir().context("making a directory")?;
    std::fs::write(source.path().join("brought"), "x").context("writing a file")?;
    let mut vm = configured(ctx, &says()).await?;
    vm.inject(source.path(), "").await?;
    vm.expect("cat '/srv/not there/yet/brought'", "x").await?;
    std::fs::rename(source.path().join("brought"), source.path().join("other"))
        .context("renaming a file")?;
    vm.inject(source.path(), "/srv/not there/yet").await?;
    vm.expect(
        "test ! -e '/srv/not there/yet/brought'; cat '/srv/not there/yet/other'",
        "x",
    )
    .await?;
    vm.destroy().await
}

/// V20, V14: the image's user runs what names none, with its own `HOME`; a directory that is made belongs to root.
pub(crate) async fn the_images_user_runs_commands(ctx: &Context<'_>) -> Result<()> {
    if !(ctx.capabilities.users && ctx.capabilities.many_user_ids) {
        return Err(not_applicable("users or many_user_ids is not declared"));
    }
    let says = ImageConfiguration {
        user: Some("1234:77".to_owned()),
        working_dir: Some("/srv/made".to_owned()),
        ..ImageConfiguration::default()
    };
    let mut vm = configured(ctx, &says).await?;
    let stop = Cancellation::new();
    let cmd = "id -u; id -g; echo $HOME; stat -c '%u %g %a' .";
    let got = vm.ask_for(&bare(cmd, &stop)).await?;
    ensure!(got == "1234\n77\n/\n0 0 755", "V20: {got:?}");
    let as_root = ExecRequest {
        user: Some("0"),
        ..bare("id -u; pwd", &stop)
    };
    let got = vm.ask_for(&as_root).await?;
    ensure!(got == "0\n/srv/made", "V20: asked to be root: {got:?}");
    vm.destroy().await
}
