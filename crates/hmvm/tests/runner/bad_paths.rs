//! Wrong paths, here and in a VM: one clear line, a hint, exit code 125, and nothing changed.

use hm_vm_testkit::require;

use crate::env::TestEnv;

/// Standard error as it must be, and exit code 125.
#[track_caller]
fn refused(env: &TestEnv, arguments: &[&str], expected: &str) {
    let run = env.hmvm(arguments);
    assert_eq!(run.stderr, expected, "{arguments:?}");
    assert_eq!((run.code, run.stdout.as_str()), (125, ""), "{arguments:?}");
}

#[test]
fn what_is_no_image_is_not_imported() {
    let env = TestEnv::new();
    env.write("letter", "dear diary");
    env.write("blank", "");
    env.write(
        "noise.gz",
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xff\xff\xff",
    );
    env.write("root/file", "x");
    std::fs::create_dir(env.path().join("nothing")).expect("a directory");
    env.hmvm(["image", "import", "root", "taken"]).success();
    let before = env.json(["image", "ls", "--json"]);
    let hint = "hint: hmvm image import takes a directory with a root file system, a tar archive of one, \
                an OCI layout, or what docker save writes\n";
    for path in ["letter", "blank", "noise.gz", "nothing"] {
        // The name is one that exists: that image stays as it is.
        let run = env.hmvm(["image", "import", path, "taken"]).exits_with(125);
        assert!(
            run.stderr.contains(&format!("$DIR/{path}: ")) && run.stderr.ends_with(hint),
            "{path}: {}",
            run.stderr
        );
        assert_eq!(run.stderr.lines().count(), 2, "{}", run.stderr);
    }
    for name in ["", "host", "a\nb"] {
        let run = env.hmvm(["image", "import", "root", name]).exits_with(125);
        assert!(
            run.stderr
                .starts_with(&format!("error: image name {name:?}: ")),
            "{}",
            run.stderr
        );
        assert_eq!(run.stderr.lines().count(), 2, "{}", run.stderr);
    }
    assert_eq!(env.json(["image", "ls", "--json"]), before);
    assert_eq!(env.leftovers(), serde_json::json!([]));
    // On purpose, it is replaced.
    env.write("root/more", "x");
    env.hmvm(["image", "import", "root", "taken"]).success();
    assert_eq!(
        env.json(["image", "inspect", "taken", "--json"])["entries"],
        2
    );
}

#[test]
fn paths_in_a_vm_that_do_not_fit_are_told() {
    let env = require!(TestEnv::machine());
    let made = "mkdir -p /out/sub && echo new > /out/file && echo x > /out/sub/deep";
    let id = env.result(&["exec", "--json", "--", made]);
    let id = id["snapshot"].as_str().expect("a snapshot").to_owned();
    let before = env.json(["snapshot", "ls", "--json"]);
    let short = &id[..12];
    let look =
        format!("hint: hmvm exec --from {short} --cache off -- ls -l DIR shows what is there\n");
    let workdir = "hint: --workdir takes a directory that the VM has; with --inject it is made\n";
    for (path, reason) in [
        ("/etc/passwd", "Not a directory (os error 20)"),
        ("/no/such", "No such file or directory (os error 2)"),
        ("/etc/../no", "No such file or directory (os error 2)"),
    ] {
        let expected = format!(
            "error: working directory \"{path}\": cannot be entered in the VM: {reason}\n{workdir}"
        );
        refused(&env, &["exec", "--workdir", path, "--", "true"], &expected);
    }
    env.write("old", "old");
    let at = |path: &str| format!("{short}:{path}");
    for (verb, path, target, reason) in [
        (
            "cat",
            "/no/such",
            None,
            "/no/such: no such file or directory",
        ),
        ("cat", "/out", None, "/out: it is a directory"),
        ("cat", "/out/file/x", None, "/out/file/x: not a directory"),
        (
            "cp",
            "/no/such",
            Some("copy"),
            "/no/such: no such file or directory",
        ),
        (
            "cp",
            "/out",
            Some("old"),
            "$DIR/old: it exists and is not a directory",
        ),
        (
            "cp",
            "/out/file",
            Some("a/b"),
            "$DIR/a/b: its parent directory does not exist",
        ),
    ] {
        let path = at(path);
        let arguments: Vec<&str> = ["snapshot", verb, &path]
            .into_iter()
            .chain(target)
            .collect();
        refused(&env, &arguments, &format!("error: {reason}\n{look}"));
    }
    assert!(!env.path().join("copy").exists() && !env.path().join("a").exists());
    assert_eq!(
        std::fs::read_to_string(env.path().join("old")).expect("old"),
        "old"
    );
    assert_eq!(env.json(["snapshot", "ls", "--json"]), before);

    // As with cp: onto a file, into a directory, under a new name.
    env.hmvm(["snapshot", "cp", &at("/out/file"), "old"])
        .success();
    assert_eq!(
        std::fs::read_to_string(env.path().join("old")).expect("old"),
        "new\n"
    );
    env.hmvm(["snapshot", "cp", &at("/out"), "fresh"]).success();
    env.hmvm(["snapshot", "cp", &at("/out"), "fresh"]).success();
    for copy in ["fresh/sub/deep", "fresh/out/sub/deep"] {
        assert_eq!(
            std::fs::read_to_string(env.path().join(copy)).expect(copy),
            "x\n"
        );
    }
}
