//! The user's configuration: what is read, and all that is told of a wrong one.

use std::path::Path;
use std::time::Duration;

use hm_pipeline::parse::{Format, read, read_configuration, read_remote_cache};
use hm_pipeline::{Configuration, RemoteCacheMode, RemoteCacheRule};

fn rule(repository: &str, mode: Option<RemoteCacheMode>) -> RemoteCacheRule {
    RemoteCacheRule {
        repository: repository.into(),
        mode,
    }
}

#[test]
fn an_empty_file_is_the_default() {
    for text in ["", "# nothing\n", "\u{feff}"] {
        assert_eq!(read_configuration(text), Ok(Configuration::default()));
    }
}

#[test]
fn everything_that_can_be_configured() {
    let read = read_configuration(
        r#"
backend = "docker"

[remote_cache]
repository = "registry.example:5000/team/cache"
mode = "read-only"

[images]
max_age = "7d"

[registries."docker.io"]
mirrors = ["mirror.example:5000", "other.example/hub"]

[registries."[::1]:5000"]
plain_http = true
ca = "/etc/ssl/own.pem"
"#,
    )
    .expect("a right file");
    assert_eq!(read.backend.as_deref(), Some("docker"));
    let read_only = Some(RemoteCacheMode::ReadOnly);
    let expected = rule("registry.example:5000/team/cache", read_only);
    assert_eq!(read.remote_cache, Some(expected));
    assert_eq!(read.image_max_age, Some(Duration::from_secs(7 * 86_400)));
    let hub = &read.registries["docker.io"];
    assert_eq!(hub.mirrors, ["mirror.example:5000", "other.example/hub"]);
    assert!(!hub.plain_http && hub.roots.is_empty());
    let own = &read.registries["[::1]:5000"];
    assert!(own.plain_http && own.mirrors.is_empty());
    assert_eq!(own.roots, [Path::new("/etc/ssl/own.pem")]);
}

#[test]
fn a_short_form_is_the_repository() {
    let read = read_configuration("remote_cache = \"localhost:5000/c\"").expect("a right file");
    assert_eq!(read.remote_cache, Some(rule("localhost:5000/c", None)));
}

#[test]
fn all_problems_are_told_with_their_places() {
    let source = r#"[remote_cache]
repository = "https://registry.example/cache"
mode = "readonly"
[images]
maxage = "7d"
max_age = 7
[registries."docker.io"]
insecure = true
mirrors = ["http://mirror.example/"]
ca = "own.pem"
[registry]
"#;
    let problems = read_configuration(source).expect_err("a wrong file");
    let told = problems.render("config.toml", source);
    let expected = r#"config.toml:2:14: `https://registry.example/cache` is no repository
  |
2 | repository = "https://registry.example/cache"
  |              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
hint: write it without the scheme: "registry.example/cache"

config.toml:3:8: unknown value `readonly`
  |
3 | mode = "readonly"
  |        ^^^^^^^^^^
hint: did you mean "read-only"?

config.toml:5:1: unknown key `maxage`
  |
5 | maxage = "7d"
  | ^^^^^^
hint: did you mean `max_age`?

config.toml:6:11: `7` has no unit
  |
6 | max_age = 7
  |           ^
hint: write "7s" for seconds or "7m" for minutes

config.toml:8:1: unknown key `insecure`
  |
8 | insecure = true
  | ^^^^^^^^
hint: did you mean `plain_http`?

config.toml:9:12: `http://mirror.example/` is no host
  |
9 | mirrors = ["http://mirror.example/"]
  |            ^^^^^^^^^^^^^^^^^^^^^^^^
hint: write it without the scheme: "mirror.example"; plain_http is a key of [registries.HOST]

config.toml:10:6: `own.pem` is no absolute path
   |
10 | ca = "own.pem"
   |      ^^^^^^^^^
hint: write the path from the root

config.toml:11:2: unknown key `registry`
   |
11 | [registry]
   |  ^^^^^^^^
hint: did you mean `registries`?
"#;
    assert!(told == expected, "expected:\n{expected}\ntold:\n{told}");
}

#[test]
fn repositories_have_a_host_a_path_and_no_tag() {
    let one = |repository: &str| read_configuration(&format!("remote_cache = {repository:?}"));
    for right in ["localhost:5000/c", "r.example/a/b_c.d-e", "127.0.0.1:1/x"] {
        assert!(one(right).is_ok(), "{right}");
    }
    for wrong in [
        "",
        "cache",
        "/cache",
        "r.example/",
        "r.example/a//b",
        "r.example/a:tag",
        "r.example/a@sha256:00",
        "r.example/A",
        "oci://r.example/a",
        "r example/a",
    ] {
        assert!(one(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_pipeline_names_its_cache_in_either_form() {
    let pipeline = |rule: &str| {
        let text = format!("[pipeline]\nremote_cache = {rule}\n[steps.a]\nrun = \"x\"\n");
        read(&text, Format::Toml, Path::new("/project")).map(|read| read.remote_cache)
    };
    assert_eq!(
        pipeline("\"r.example/c\""),
        Ok(Some(rule("r.example/c", None)))
    );
    let read_write = Some(RemoteCacheMode::ReadWrite);
    assert_eq!(
        pipeline("{ repository = \"r.example/c\", mode = \"read-write\" }"),
        Ok(Some(rule("r.example/c", read_write)))
    );
    assert!(pipeline("{ mode = \"read-write\" }").is_err());
    assert!(pipeline("\"r.example/c:tag\"").is_err());
}

#[test]
fn an_option_says_repository_and_mode_in_one_word() {
    let read = |text| read_remote_cache(text).map_err(|wrong| (wrong.message, wrong.suggestion));
    assert_eq!(read("r.example/c"), Ok(rule("r.example/c", None)));
    let read_only = Some(RemoteCacheMode::ReadOnly);
    assert_eq!(
        read("r.example/c,mode=read-only"),
        Ok(rule("r.example/c", read_only))
    );
    for wrong in [
        "",
        "c",
        "r.example/c,",
        "r.example/c,mode=",
        "r.example/c,read-only",
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
    let hint = Some("did you mean \"read-only\"?".to_owned());
    assert_eq!(
        read("r.example/c,mode=readonly"),
        Err(("unknown value `readonly`".to_owned(), hint))
    );
}
