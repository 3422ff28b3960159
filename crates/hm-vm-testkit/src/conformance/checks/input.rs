//! What a command is given: environment, standard input, working directory, arguments.

use anyhow::{Result, ensure};

use super::errors::expect_invalid;
use crate::conformance::context::Context;

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// V4: values of any form arrive as they are; of two with one name the later counts.
pub(crate) async fn odd_environment_arrives(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let values = [
        "",
        " ",
        "a=b=c",
        "two\nlines\n",
        "'\"`$(exit 9)\\",
        "ünï©ode 🦀",
        "*",
        "-n",
        "\t\r\u{1b}[1m",
        "$HOME",
    ];
    for value in values {
        let env = pairs(&[("ODD", "earlier"), ("ODD", value), ("lower_2", value)]);
        let cmd = "printf '%s|%s|%s.' \"$ODD\" \"$lower_2\" \"${ODD+set}\"";
        let ran = vm.run_at(cmd, &env, "/").await?;
        let wanted = format!("{value}|{value}|set.");
        let got = ran.out.join("\n");
        ensure!(got == wanted, "V4: {value:?} arrived as {got:?}");
    }
    for name in ["", "A=B", "NUL\0"] {
        let result = vm.run_at("true", &pairs(&[(name, "x")]), "/").await;
        ensure!(
            result.is_err(),
            "V4: a variable called {name:?} was accepted"
        );
    }
    vm.expect("echo ok", "ok").await?;
    vm.destroy().await
}

/// V4: a default environment, and nothing of the host's.
pub(crate) async fn the_default_environment_is_clean(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    for name in ["PATH", "HOME", "USER", "LANG"] {
        let value = vm.sh(&format!("env | sed -n 's/^{name}=//p'")).await?;
        ensure!(!value.is_empty(), "V4: {name} is empty");
    }
    // By itself a shell adds the second half of these.
    let known = [
        "PATH", "HOME", "USER", "LANG", "HOSTNAME", "LOGNAME", "SHELL", "TERM", "PWD", "OLDPWD",
        "SHLVL", "_",
    ];
    let listed = vm
        .sh("env | sed -n 's/^\\([A-Za-z_][A-Za-z_0-9]*\\)=.*/\\1/p'")
        .await?;
    for name in listed.lines().filter(|name| !known.contains(name)) {
        ensure!(
            std::env::var_os(name).is_none(),
            "V4: {name} came in from the host"
        );
    }
    let home = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| "/hmvm/none".into());
    let all = vm.sh("env").await?;
    ensure!(
        !all.contains(&home),
        "V4: a path of the host is in the environment: {all}"
    );
    let env = pairs(&[("PATH", "/usr/bin:/bin:/declared"), ("HOME", "/declared")]);
    let ran = vm.run_at("echo $PATH; echo $HOME", &env, "/").await?;
    let declared = ["/usr/bin:/bin:/declared", "/declared"];
    ensure!(
        ran.out == declared,
        "V4: declared variables did not win: {ran:?}"
    );
    vm.destroy().await
}

/// V4: standard input is at its end; the session is the command's own, without a terminal.
pub(crate) async fn stdin_ends_and_the_session_is_own(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    vm.expect("cat | wc -c | tr -d ' '", "0").await?;
    vm.expect("if read line; then echo more; else echo end; fi", "end")
        .await?;
    let stat = "read -r pid name state parent group session tty rest < /proc/self/stat; echo $session $tty";
    let fields = vm.sh(stat).await?;
    let (session, tty) = fields.split_once(' ').unwrap_or_default();
    ensure!(tty == "0", "V4: the command has a terminal: {fields}");
    ensure!(
        session.parse::<u32>().is_ok_and(|id| id > 0),
        "V4: a session from outside: {fields}"
    );
    let open = vm
        .sh("if (: < /dev/tty) 2>/dev/null; then echo open; else echo none; fi")
        .await?;
    ensure!(open == "none", "V4: /dev/tty can be opened");
    vm.destroy().await
}

/// V4: no file descriptor of the host's program comes along.
pub(crate) async fn no_descriptors_leak_in(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let open = "for fd in /proc/self/fd/*; do fd=${fd##*/}; case $fd in 0|1|2) ;; *) readlink /proc/$$/fd/$fd;; esac; done; :";
    let leaked = vm.sh(open).await?;
    ensure!(leaked.is_empty(), "V4: descriptors came in: {leaked}");
    vm.destroy().await
}

/// V6: the working directory, of any name, or an error.
pub(crate) async fn working_directories(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    vm.sh("mkdir -p '/a b/ünï'; mkdir '/new\nline'; ln -s '/a b' /link; echo x > /file")
        .await?;
    for dir in ["/", "/tmp", "/a b/ünï", "/new\nline", "/a b/../tmp/"] {
        let ran = vm.run_at("pwd -P", &[], dir).await?;
        let got = ran.out.join("\n");
        let wanted = if dir.ends_with("tmp/") { "/tmp" } else { dir };
        ensure!(ran.code == 0 && got == wanted, "V6: in {dir:?}: {ran:?}");
    }
    let ran = vm.run_at("pwd -P; echo x > made", &[], "/link").await?;
    ensure!(ran.out == ["/a b"], "V6: through a link: {ran:?}");
    vm.sh("test -e '/a b/made'").await?;
    let mut wrong = vec!["/no/such/directory", "/file", "tmp", ".", "/nul\0byte"];
    if !ctx.capabilities.image_defaults {
        wrong.push("");
    }
    for dir in wrong {
        let result = vm.run_at("echo ran > /ran", &[], dir).await;
        expect_invalid(result, &format!("V6: exec in {dir:?}"))?;
        vm.sh("test ! -e /ran").await?;
    }
    vm.destroy().await
}

/// V6, V5: a command that cannot be passed on is an error, not something else that runs.
pub(crate) async fn a_command_with_a_nul_is_invalid(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let result = vm.run("echo a > /ran\0echo b > /ran").await;
    expect_invalid(result, "V5: a command with a NUL")?;
    vm.sh("test ! -e /ran").await?;
    vm.destroy().await
}

/// V5: half a mebibyte of command line and half a mebibyte of environment.
pub(crate) async fn a_mebibyte_of_arguments_arrives(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let value = "v".repeat(64 << 10);
    let env: Vec<(String, String)> = (0..8)
        .map(|number| (format!("BIG_{number}"), value.clone()))
        .collect();
    let words = "word ".repeat((512 << 10) / 5);
    let count = words.split_whitespace().count();
    let sum: Vec<String> = (0..8).map(|number| format!("${{#BIG_{number}}}")).collect();
    let cmd = format!(
        "set -- {words}; echo $# $(({})) \"$0\"; exit 5",
        sum.join("+")
    );
    let ran = vm.run_at(&cmd, &env, "/").await?;
    let got = ran.out.join("\n");
    let wanted = format!("{count} {} ", 8 * (64 << 10));
    ensure!(
        ran.code == 5 && got.starts_with(&wanted),
        "V5: {} {got:.200} {:?}",
        ran.code,
        ran.err
    );
    vm.destroy().await
}

/// V1, V5: a long command line reads like a short one: quotes, line ends, standard input, exit.
pub(crate) async fn a_long_command_is_like_a_short_one(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let body = "cat\necho \"a  'b'\"\necho $PWD $#\nfalse && echo no\nf() { return 7; }\nf\nexit";
    let short = vm.run_at(body, &[], "/tmp").await?;
    for size in [
        100 << 10,
        127 << 10,
        (128 << 10) - 1,
        128 << 10,
        129 << 10,
        900 << 10,
    ] {
        let padding = "#".repeat(size - body.len() - 1);
        let long = vm
            .run_at(&format!("{padding}\n{body}"), &[], "/tmp")
            .await?;
        ensure!(
            long == short,
            "V5: of {size} bytes: {long:?}, not {short:?}"
        );
    }
    vm.destroy().await
}
