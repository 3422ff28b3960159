//! From an argument list to one command line of `sh -c`.
//!
//! Two readings of what stands behind `--` are both common, so both are offered:
//!
//! * **Several arguments** are a program and its arguments. Each reaches the program exactly as it
//!   is: the line is `exec` and every argument quoted. `exec` makes the shell look for a *program*,
//!   so that no builtin with rules of its own (`echo` and its backslashes) gets in between.
//! * **A single argument** is a line for the shell, as it is: `hmvm exec -- 'make && make test'`.

use std::ffi::OsString;

use crate::failure::Problem;

/// Makes the line for the guest's `sh -c`.
///
/// # Errors
///
/// An argument that is not UTF-8, or an empty line.
pub(crate) fn command_line(arguments: &[OsString]) -> Result<String, Problem> {
    let mut words = Vec::with_capacity(arguments.len());
    for (index, argument) in arguments.iter().enumerate() {
        let word = argument.to_str().ok_or_else(|| {
            Problem::new(format!(
                "argument {} of the command is not UTF-8: {argument:?}",
                index + 1
            ))
            .hint("let the shell make the bytes: hmvm exec -- \"ls \\\"$(printf '\\377')\\\"\"")
        })?;
        words.push(word);
    }
    match words.as_slice() {
        [line] if line.trim().is_empty() => {
            Err(Problem::new("the command is empty").hint("write it after --: hmvm exec -- make"))
        }
        [line] => Ok((*line).to_owned()),
        ["", ..] => Err(Problem::new("the name of the program is empty")),
        words => Ok(exec_line(words)),
    }
}

fn exec_line(words: &[&str]) -> String {
    let mut line = String::from("exec");
    // Some shells know no `--` after `exec`: it is written only where nothing else would do.
    if words.first().is_some_and(|word| word.starts_with('-')) {
        line.push_str(" --");
    }
    for word in words {
        line.push(' ');
        line.push_str(&quote(word));
    }
    line
}

/// Quotes one word for any POSIX shell. Words of harmless characters stay as they are.
pub(crate) fn quote(word: &str) -> String {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:@%+,=".contains(&byte);
    if !word.is_empty() && word.bytes().all(harmless) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    fn line(arguments: &[&str]) -> String {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        command_line(&arguments).expect("a command line")
    }

    #[test]
    fn several_arguments_are_a_program_and_one_is_a_shell_line() {
        assert_eq!(line(&["make", "-j2", "a b"]), "exec make -j2 'a b'");
        assert_eq!(line(&["echo a; echo b"]), "echo a; echo b");
        assert_eq!(line(&["if", ""]), "exec if ''");
        assert_eq!(line(&["-x", "y"]), "exec -- -x y");
    }

    #[test]
    fn an_empty_command_is_refused() {
        assert!(command_line(&[OsString::from(" ")]).is_err());
        assert!(command_line(&[OsString::new(), OsString::from("x")]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// A real shell gives every argument back byte by byte.
        #[test]
        fn a_shell_reads_back_what_was_quoted(
            arguments in proptest::collection::vec("[^\u{0}]{0,12}|[ '\"\\\\$`!*?~#&|;<>(){}\n\t-]{0,8}", 1..6)
        ) {
            let mut words = vec!["printf", "%s\\0"];
            words.extend(arguments.iter().map(String::as_str));
            let output = Command::new("sh").arg("-c").arg(line(&words)).output().expect("sh runs");
            let expected: String = arguments.iter().map(|word| format!("{word}\0")).collect();
            prop_assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        }
    }
}
