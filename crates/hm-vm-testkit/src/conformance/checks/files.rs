//! What a snapshot keeps of the files.

use anyhow::{Result, ensure};

use crate::conformance::context::{Context, not_applicable, skipped};
use crate::conformance::guest::Guest;

/// A VM in which `cmd` ran, snapshotted and restored.
async fn kept(ctx: &Context<'_>, cmd: &str) -> Result<Guest> {
    let mut vm = ctx.create().await?;
    vm.sh(cmd).await?;
    forked(ctx, vm).await
}

async fn forked(ctx: &Context<'_>, mut vm: Guest) -> Result<Guest> {
    let id = vm.snapshot().await?;
    vm.destroy().await?;
    ctx.restore(&id).await
}

fn need_faithful_files(ctx: &Context<'_>) -> Result<()> {
    if ctx.capabilities.faithful_files {
        Ok(())
    } else {
        Err(not_applicable("faithful_files is not declared"))
    }
}

/// V10: modes with set-user-id, set-group-id and sticky bits, of files, directories and the root.
pub(crate) async fn modes_are_kept(ctx: &Context<'_>) -> Result<()> {
    need_faithful_files(ctx)?;
    let modes = [
        "0", "400", "644", "755", "777", "1644", "2755", "4755", "6711", "7777",
    ];
    let mut make = String::from("cd /; mkdir m; chmod 751 /\n");
    let mut show = String::from("cd /m\n");
    let mut wanted = Vec::new();
    for mode in modes {
        make += &format!("echo x > m/f{mode}; chmod {mode} m/f{mode}\n");
        make += &format!("mkdir m/d{mode}; chmod {mode} m/d{mode}\n");
        show += &format!("stat -c '%a %F' f{mode} d{mode}\n");
        wanted.push(format!("{mode} regular file"));
        wanted.push(format!("{mode} directory"));
    }
    let mut vm = kept(ctx, &make).await?;
    vm.expect(&show, &wanted.join("\n")).await?;
    if !ctx.harness.layers_are_archives() {
        vm.expect("stat -c %a /", "751").await?;
    }
    vm.sh("cd /m; chmod u+s f755; chmod 700 d777").await?;
    let mut vm = forked(ctx, vm).await?;
    vm.expect("stat -c %a /m/f755 /m/d777 /m/f4755", "4755\n700\n4755")
        .await?;
    vm.destroy().await
}

/// V10: times of change, of files and links and directories.
pub(crate) async fn times_are_kept(ctx: &Context<'_>) -> Result<()> {
    need_faithful_files(ctx)?;
    let make = "mkdir /t; echo x > /t/f; touch -d '2001-02-03 04:05:06' /t/f; \
                mkdir /t/d; touch -d '2002-02-03 04:05:06' /t/d; touch -d '2003-02-03 04:05:06' /t";
    let mut vm = kept(ctx, make).await?;
    let years = vm.sh("stat -c %y /t/f /t/d /t").await?;
    let years: Vec<&str> = years
        .lines()
        .map(|line| line.get(..4).unwrap_or(line))
        .collect();
    ensure!(years == ["2001", "2002", "2003"], "V10: times: {years:?}");
    vm.destroy().await
}

/// V10: owners, where there are several (`many_user_ids`).
pub(crate) async fn owners_are_kept(ctx: &Context<'_>) -> Result<()> {
    if !ctx.capabilities.many_user_ids {
        return Err(not_applicable("many_user_ids is not declared"));
    }
    let make = "mkdir /o; cd /o; echo x > f; chown 1000:2000 f; mkdir d; chown 33:33 d; \
                ln -s f l; chown -h 5:6 l; echo x > n; chown 65534:65534 n; chmod 4755 f";
    let mut vm = kept(ctx, make).await?;
    let show = "cd /o; stat -c '%u:%g' f d l n; stat -c %a f";
    vm.expect(show, "1000:2000\n33:33\n5:6\n65534:65534\n4755")
        .await?;
    vm.destroy().await
}

/// V10: symbolic and hard links.
pub(crate) async fn links_are_kept(ctx: &Context<'_>) -> Result<()> {
    let make = "mkdir -p /l/d; cd /l; echo x > f; ln -s f s; ln -s /l/d a; ln -s no/such dangling; \
                ln -s loop loop; ln -s \"$(printf 'new\\nline')\" odd";
    let mut vm = kept(ctx, make).await?;
    vm.expect(
        "cd /l; cat s; for l in s a dangling loop odd; do readlink $l; done",
        "x\nf\n/l/d\nno/such\nloop\nnew\nline",
    )
    .await?;
    vm.destroy().await?;
    need_faithful_files(ctx)?;
    let make = "mkdir -p /h/sub; cd /h; echo x > a; ln a b; ln a sub/c; echo y > alone";
    let mut vm = kept(ctx, make).await?;
    vm.expect("cd /h; stat -c %h a b sub/c alone", "3\n3\n3\n1")
        .await?;
    // Whether names that are linked stay so when one is written to in a fork is not promised:
    // overlay mounts copy just the one name.
    vm.expect("cd /h; cat b sub/c", "x\nx").await?;
    vm.destroy().await
}

/// V10: holes stay holes, fifos fifos.
pub(crate) async fn holes_and_fifos_are_kept(ctx: &Context<'_>) -> Result<()> {
    need_faithful_files(ctx)?;
    let make = "mkdir /s; cd /s; echo start > sparse; truncate -s 1G sparse; echo end >> sparse; \
                mkfifo -m 620 fifo";
    let mut vm = kept(ctx, make).await?;
    vm.expect(
        "cd /s; stat -c %s sparse; tail -c 4 sparse; stat -c '%a %F' fifo",
        "1073741828\nend\n620 fifo",
    )
    .await?;
    let blocks: u64 = vm.sh("du -k /s/sparse | cut -f1").await?.trim().parse()?;
    ensure!(
        blocks < 1024 || ctx.harness.layers_are_archives(),
        "V10: a file with a hole of 1 GiB takes {blocks} KiB"
    );
    vm.destroy().await
}

/// V10: extended attributes (`xattrs`).
pub(crate) async fn attributes_are_kept(ctx: &Context<'_>) -> Result<()> {
    if !ctx.capabilities.xattrs {
        return Err(not_applicable("xattrs is not declared"));
    }
    let mut vm = ctx.create().await?;
    // perl-base is part of every Debian; its numbers of system calls are those of x86-64.
    let perl = cfg!(target_arch = "x86_64") && vm.run("command -v perl").await?.code == 0;
    let attr = vm
        .run("command -v setfattr && command -v getfattr")
        .await?
        .code
        == 0;
    let (set, get) = if attr {
        (
            "setfattr -n user.hmvm -v value \"$f\"",
            "getfattr --only-values --absolute-names -n user.hmvm \"$f\"; echo",
        )
    } else if perl {
        (
            "perl -e 'exit(syscall(188, $ARGV[0], \"user.hmvm\", \"value\", 5, 0) != 0)' \"$f\"",
            "perl -e '$b = \"\\0\" x 9; syscall(191, $ARGV[0], \"user.hmvm\", $b, 9); print substr($b, 0, 5), \"\\n\"' \"$f\"",
        )
    } else {
        return Err(skipped("the image has neither setfattr nor perl"));
    };
    let paths = "/x/file /x /x/dir";
    vm.sh(&format!(
        "mkdir -p /x/dir; echo x > /x/file; for f in {paths}; do {set} || exit 1; done"
    ))
    .await?;
    let mut vm = forked(ctx, vm).await?;
    vm.expect(
        &format!("for f in {paths}; do {get}; done"),
        "value\nvalue\nvalue",
    )
    .await?;
    // Written to in a fork, so that the file is copied up.
    vm.sh("echo more >> /x/file; echo new > /x/dir/new").await?;
    let mut vm = forked(ctx, vm).await?;
    vm.expect(
        &format!("for f in {paths}; do {get}; done"),
        "value\nvalue\nvalue",
    )
    .await?;
    vm.destroy().await
}

/// V10: names of any bytes and any length.
pub(crate) async fn odd_names_are_kept(ctx: &Context<'_>) -> Result<()> {
    need_faithful_files(ctx)?;
    let (in_archives, white) = match ctx.harness.layers_are_archives() {
        true => ("", ".whatever"),
        false => ("'.wh.file' '.wh..wh..opq'", ".wh..wh..opq"),
    };
    let names = format!(
        "\"$(printf '\\377\\376bad')\" 'new\nline' ' ' '-rf' '*' '\\' '.whatever' {in_archives} \
         'ünï 🦀' \"$(printf '%0255d' 0)\""
    );
    let make = format!(
        "mkdir /n; cd /n; for name in {names}; do echo \"$name\" > \"./$name\" || exit 1; done; \
         d=/n; i=0; while [ $i -lt 100 ]; do d=$d/directory; i=$((i+1)); done; mkdir -p $d; echo deep > $d/file"
    );
    let check = format!(
        "cd /n; for name in {names}; do [ \"$(cat \"./$name\")\" = \"$name\" ] || {{ echo \"$name\" | od -c; }}; done; \
         set -- *; echo $#; find /n -name file -exec cat {{}} \\;"
    );
    let mut vm = kept(ctx, &make).await?;
    vm.expect(&check, "9\ndeep").await?;
    vm.sh("cd /n; rm -f -- ./.wh.file ./-rf").await?;
    let mut vm = forked(ctx, vm).await?;
    vm.sh(&format!(
        "cd /n; [ ! -e .wh.file ] && [ ! -e ./-rf ] && [ -e {white} ] && [ -e '*' ]"
    ))
    .await?;
    vm.destroy().await
}

/// V9, V10: a hundred thousand small files, kept and removed again.
pub(crate) async fn a_hundred_thousand_files(ctx: &Context<'_>) -> Result<()> {
    let files = ctx.scale.files;
    let make =
        format!("mkdir -p /many/flat; cd /many/flat; seq 1 {files} | xargs touch; echo x > 1");
    let mut vm = kept(ctx, &make).await?;
    let count = "find /many/flat -type f | wc -l | tr -d ' '";
    vm.expect(count, &files.to_string()).await?;
    vm.expect("cat /many/flat/1", "x").await?;
    vm.sh("cd /many/flat; seq 2 2 1000 | xargs rm; echo y > 1")
        .await?;
    let mut vm = forked(ctx, vm).await?;
    vm.expect(count, &(files - 500).to_string()).await?;
    vm.expect("cat /many/flat/1", "y").await?;
    vm.destroy().await
}

/// V10: deletion and recreation of directories, and changes of kind, across snapshots.
pub(crate) async fn deletions_are_kept(ctx: &Context<'_>) -> Result<()> {
    let make = "mkdir -p /d/sub /e /k; for f in a b sub/c; do echo 1 > /d/$f; done; echo 1 > /e/a; \
                echo 1 > /k/file; mkdir /k/dir; echo 1 > /k/dir/in; ln -s file /k/link";
    let mut vm = kept(ctx, make).await?;
    vm.sh("rm -r /d; rm /e/a; rm -r /k/file /k/dir /k/link")
        .await?;
    vm.sh("mkdir /k/file; echo 2 > /k/dir; echo 2 > /k/link; echo 2 > /k/file/in")
        .await?;
    let mut vm = forked(ctx, vm).await?;
    vm.sh("test ! -e /d && test -d /e && test ! -e /e/a")
        .await?;
    vm.expect("cat /k/file/in /k/dir /k/link; ls /k/file", "2\n2\n2\nin")
        .await?;
    // Recreated in a later layer: nothing of the first one may show through.
    vm.sh("mkdir -p /d/sub; echo 3 > /d/new; rm -r /e; mkdir /e")
        .await?;
    let mut vm = forked(ctx, vm).await?;
    vm.expect("cd /d; find . | sort; find /e", ".\n./new\n./sub\n/e")
        .await?;
    // Removed and made anew within one command.
    vm.sh("rm -r /d; mkdir -p /d/sub; echo 4 > /d/sub/only")
        .await?;
    let mut vm = forked(ctx, vm).await?;
    vm.expect("cd /d; find . | sort", ".\n./sub\n./sub/only")
        .await?;
    vm.sh("rm -r /d; echo file > /d").await?;
    let mut vm = forked(ctx, vm).await?;
    vm.expect("cat /d", "file").await?;
    vm.destroy().await
}

/// V10: a directory that came from a lower layer is renamed, and what is in it comes along.
pub(crate) async fn lower_directories_can_be_renamed(ctx: &Context<'_>) -> Result<()> {
    let make = "mkdir -p /r/old/deep; echo 1 > /r/old/a; echo 1 > /r/old/deep/b; ln -s a /r/old/l; \
                chmod 750 /r/old/deep; echo 1 > /r/file";
    let mut vm = kept(ctx, make).await?;
    vm.sh("cd /r; mv old new; echo 2 > new/deep/c; mv file moved; mkdir old; echo 3 > old/a")
        .await?;
    for _ in 0..2 {
        vm.expect("cd /r; find . | sort", ".\n./moved\n./new\n./new/a\n./new/deep\n./new/deep/b\n./new/deep/c\n./new/l\n./old\n./old/a")
            .await?;
        vm.expect(
            "cd /r/new; cat a deep/b deep/c l ../moved ../old/a; stat -c %a deep",
            "1\n1\n2\n1\n1\n3\n750",
        )
        .await?;
        vm = forked(ctx, vm).await?;
    }
    vm.sh("cd /r; rm -r old; mv new old; mv old/deep .").await?;
    let mut vm = forked(ctx, vm).await?;
    vm.expect("cd /r; ls old deep", "deep:\nb\nc\n\nold:\na\nl")
        .await?;
    vm.destroy().await
}
