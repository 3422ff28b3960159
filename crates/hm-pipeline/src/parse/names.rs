//! Names that the user gives to things.

use super::values::Wrong;

/// A kind of name.
pub(crate) trait Name {
    /// What bears it.
    const WHAT: &'static str;
    /// Regular expression of it, for the schema.
    const PATTERN: &'static str;

    fn check(name: &str) -> Result<(), Wrong>;
}

/// Longest name.
const LONGEST: usize = 128;

/// Letters, digits, `_`, `-` and `.`; the first one a letter, a digit or `_`, so that a name is neither an
/// option nor a hidden file nor a way up.
const PLAIN: &str = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$";

/// Checks a plain name.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Wrong> {
    let wrong = |message: String, suggestion: &str| Err(Wrong::new(message, suggestion));
    if name.is_empty() {
        return wrong(format!("the name of a {what} is empty"), "give it a name");
    }
    if name.len() > LONGEST {
        return wrong(
            format!("the name of a {what} is longer than {LONGEST} characters"),
            "shorten it",
        );
    }
    let strange = name
        .chars()
        .find(|letter| !(letter.is_ascii_alphanumeric() || "_.-".contains(*letter)));
    if let Some(strange) = strange {
        return wrong(
            format!("the name of a {what} cannot have {strange:?}"),
            "use letters, digits, `_`, `-` and `.`",
        );
    }
    if name.starts_with(['-', '.']) {
        return wrong(
            format!("the name of a {what} cannot begin with `{}`", &name[..1]),
            "begin it with a letter, a digit or `_`",
        );
    }
    Ok(())
}

/// Checks the name of a step.
pub(crate) fn step_name(name: &str) -> Result<(), Wrong> {
    check_name("step", name)
}

/// Checks the name of an environment variable.
pub(crate) fn variable_name(name: &str) -> Result<(), Wrong> {
    if name.is_empty() {
        return Err(Wrong::new(
            "the name of a variable is empty",
            "give it a name",
        ));
    }
    if let Some(strange) = name.chars().find(|letter| matches!(letter, '=' | '\0')) {
        return Err(Wrong::new(
            format!("the name of a variable cannot have {strange:?}"),
            "use letters, digits and `_`",
        ));
    }
    Ok(())
}

macro_rules! plain_names {
    ($( $(#[$about:meta])* $kind:ident = $what:literal; )*) => { $(
        $(#[$about])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $kind;

        impl Name for $kind {
            const WHAT: &'static str = $what;
            const PATTERN: &'static str = PLAIN;

            fn check(name: &str) -> Result<(), Wrong> {
                check_name($what, name)
            }
        }
    )* };
}

plain_names! {
    /// Of a step.
    StepName = "step";
    /// Of a cache directory.
    CacheName = "cache";
    /// Of a secret.
    SecretName = "secret";
    /// Of a value that the matrix runs through.
    AxisName = "matrix axis";
}

/// Of an environment variable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VariableName;

impl Name for VariableName {
    const WHAT: &'static str = "variable";
    const PATTERN: &'static str = "^[^=]+$";

    fn check(name: &str) -> Result<(), Wrong> {
        variable_name(name)
    }
}

/// Of a service: it is a host name too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServiceName;

impl Name for ServiceName {
    const WHAT: &'static str = "service";
    const PATTERN: &'static str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";

    fn check(name: &str) -> Result<(), Wrong> {
        let hint = "a service's name is its host name: use small letters, digits and `-`";
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if name == "localhost" {
            return Err(Wrong::new("`localhost` is the step itself", hint));
        }
        let ends = |byte: Option<u8>| byte.is_some_and(letter);
        let well = name.len() <= 63
            && ends(name.bytes().next())
            && ends(name.bytes().last())
            && name.bytes().all(|byte| letter(byte) || byte == b'-');
        if well {
            Ok(())
        } else {
            Err(Wrong::new(
                format!("`{name}` is no name for a service"),
                hint,
            ))
        }
    }
}
