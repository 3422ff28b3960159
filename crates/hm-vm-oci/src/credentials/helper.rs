//! Programs that keep credentials: `docker-credential-NAME get`.

use std::io::{Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::secret::{Credential, Secret};

/// As a user's name: the password is an identity token.
pub(super) const TOKEN_USER: &str = "<token>";
/// How a helper says that it knows nothing of this server.
const NOT_FOUND: &str = "credentials not found";
/// No answer is longer.
const MOST_BYTES: u64 = 64 << 10;
/// How often a helper that has closed its output is asked whether it has ended.
const PAUSE: Duration = Duration::from_millis(2);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    secret: String,
}

/// Asks a helper; `None` when it has nothing. Ends within `limit`, by killing the helper if need be.
///
/// # Errors
///
/// Why there is no answer, in words that hold nothing of it.
pub(super) fn ask(
    directories: &[PathBuf],
    name: &str,
    server: &str,
    limit: Duration,
) -> Result<Option<Credential>, String> {
    let program = format!("docker-credential-{name}");
    // A name is part of a file name, not a path.
    if name.contains('/') {
        return Err(format!("{program:?} is no name of a credential helper"));
    }
    let mut places = directories.iter().map(|directory| directory.join(&program));
    let Some(path) = places.find(|path| path.is_file()) else {
        return Err(format!("there is no {program}"));
    };
    let child = Command::new(path)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("starting {program}: {error}"))?;
    let (success, output) = talk(child, server, limit).map_err(|why| format!("{program} {why}"))?;
    if !success {
        if String::from_utf8_lossy(&output).contains(NOT_FOUND) {
            return Ok(None);
        }
        return Err(format!("{program} failed"));
    }
    // serde's own words may hold parts of the answer.
    let answer: Answer =
        serde_json::from_slice(&output).map_err(|_| format!("{program} gives no valid answer"))?;
    if answer.username.is_empty() && answer.secret.is_empty() {
        return Ok(None);
    }
    let secret = Secret::new(answer.secret);
    Ok(Some(if answer.username == TOKEN_USER {
        Credential::Identity(secret)
    } else {
        Credential::Password {
            user: answer.username,
            password: secret,
        }
    }))
}

/// Whether it succeeded, and what it printed.
fn talk(mut child: Child, server: &str, limit: Duration) -> Result<(bool, Vec<u8>), String> {
    let end = Instant::now() + limit;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    if let Some(mut stdin) = stdin {
        // Fits into the pipe, so that this does not wait. A helper that reads nothing says so by its answer.
        let _ = stdin.write_all(server.as_bytes());
    }
    let (sender, receiver) = mpsc::channel();
    // Left behind when the helper gave its output to a process that outlives it.
    thread::spawn(move || {
        let mut output = Vec::new();
        let read = stdout.map(|stdout| stdout.take(MOST_BYTES + 1).read_to_end(&mut output));
        let _ = sender.send(read.is_some_and(|result| result.is_ok()).then_some(output));
    });
    let output = receiver.recv_timeout(limit);
    let outcome = match output {
        Ok(Some(output)) if output.len() as u64 > MOST_BYTES => Err("says too much".to_owned()),
        Ok(Some(output)) => wait(&mut child, end).map(|success| (success, output)),
        Ok(None) => Err("cannot be read".to_owned()),
        Err(_) => Err(format!("did not answer within {} s", limit.as_secs_f64())),
    };
    if outcome.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    outcome
}

fn wait(child: &mut Child, end: Instant) -> Result<bool, String> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.success()),
            Ok(None) if Instant::now() < end => thread::sleep(PAUSE),
            Ok(None) => return Err("did not end in time".to_owned()),
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn run(script: &str, limit: Duration) -> Result<Option<Credential>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker-credential-test");
        // Written by another process: a file that is open for writing anywhere cannot be run.
        let made = Command::new("sh")
            .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn();
        let mut made = made.unwrap();
        let text = format!("#!/bin/sh\n{script}\n");
        made.stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        assert!(made.wait().unwrap().success());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o755
        );
        ask(&[dir.path().to_owned()], "test", "the.server", limit)
    }

    #[test]
    fn helpers_are_asked_in_their_protocol() {
        let answer = run(
            r#"[ "$1" = get ] && read -r server; printf '{"ServerURL":"","Username":"%s","Secret":"s"}' "$server""#,
            LONG,
        );
        let expected = Credential::Password {
            user: "the.server".to_owned(),
            password: Secret::new("s"),
        };
        assert_eq!(answer, Ok(Some(expected)));
        let token = run(r#"echo '{"Username":"<token>","Secret":"t"}'"#, LONG);
        assert_eq!(token, Ok(Some(Credential::Identity(Secret::new("t")))));
        let absent = run(
            "echo credentials not found in native keychain; exit 1",
            LONG,
        );
        assert_eq!(absent, Ok(None));
    }

    #[test]
    fn helpers_that_fail_are_told_without_what_they_said() {
        for (script, part) in [
            ("echo hidden; exit 1", "failed"),
            ("echo hidden", "no valid answer"),
            ("while echo hidden; do :; done", "too much"),
        ] {
            let why = run(script, LONG).unwrap_err();
            assert!(why.contains(part) && !why.contains("hidden"), "{why}");
        }
    }

    #[test]
    fn helpers_are_not_waited_for_without_end() {
        for script in ["exec sleep 1000", "exec >&-; exec sleep 1000"] {
            let why = run(script, Duration::from_millis(200)).unwrap_err();
            assert!(why.contains("did not"), "{why}");
        }
    }
}
