//! Parser of the fake's command language.

/// How a command follows the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    Always,
    IfOk,
    IfFailed,
}

/// Where the output of a command goes instead of standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    Truncate(Word),
    Append(Word),
    Stderr,
}

/// A piece of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Variable(String),
}

/// One word: pieces that are put together.
pub(super) type Word = Vec<Piece>;

/// One simple command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Simple {
    pub(super) join: Join,
    pub(super) words: Vec<Word>,
    pub(super) redirect: Option<Redirect>,
}

enum Token {
    Word(Word),
    Join(Join),
    To,
    Append,
    ToStderr,
}

/// Parses a command line.
pub(super) fn parse(text: &str) -> Result<Vec<Simple>, String> {
    let mut commands = Vec::new();
    let mut now = empty(Join::Always);
    let mut tokens = tokenize(text)?.into_iter();
    while let Some(token) = tokens.next() {
        match token {
            Token::Word(word) => now.words.push(word),
            Token::Join(join) => {
                let done = std::mem::replace(&mut now, empty(join));
                if !done.words.is_empty() {
                    commands.push(done);
                }
            }
            Token::ToStderr => now.redirect = Some(Redirect::Stderr),
            Token::To | Token::Append => {
                let Some(Token::Word(word)) = tokens.next() else {
                    return Err("redirection without a file".into());
                };
                now.redirect = Some(match token {
                    Token::To => Redirect::Truncate(word),
                    _ => Redirect::Append(word),
                });
            }
        }
    }
    if !now.words.is_empty() {
        commands.push(now);
    }
    Ok(commands)
}

fn empty(join: Join) -> Simple {
    Simple {
        join,
        words: Vec::new(),
        redirect: None,
    }
}

type Operator = (&'static str, fn() -> Token);

/// Longest first, where one begins another.
const OPERATORS: [Operator; 7] = [
    ("&&", || Token::Join(Join::IfOk)),
    ("||", || Token::Join(Join::IfFailed)),
    (";", || Token::Join(Join::Always)),
    ("\n", || Token::Join(Join::Always)),
    (">&2", || Token::ToStderr),
    (">>", || Token::Append),
    (">", || Token::To),
];

fn tokenize(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some((text, token)) = OPERATORS.iter().find(|(text, _)| rest.starts_with(text)) {
            rest = &rest[text.len()..];
            tokens.push(token());
        } else if first == ' ' || first == '\t' {
            rest = &rest[1..];
        } else if "|&<`(){}".contains(first) {
            return Err(format!("{first:?} is beyond the fake's language"));
        } else {
            let (word, after) = word(rest)?;
            tokens.push(Token::Word(word));
            rest = after;
        }
    }
    Ok(tokens)
}

/// Reads one word from the start of `text`, and returns what follows it.
fn word(text: &str) -> Result<(Word, &str), String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        match first {
            '\'' => {
                let (inside, after) = rest[1..].split_once('\'').ok_or("' is not closed")?;
                pieces.push(Piece::Text(inside.to_owned()));
                rest = after;
            }
            '"' => {
                let (inside, after) = rest[1..].split_once('"').ok_or("\" is not closed")?;
                let mut inside = inside;
                pieces.push(Piece::Text(String::new()));
                while !inside.is_empty() {
                    inside = plain(inside, &mut pieces, "");
                }
                rest = after;
            }
            _ if " \t\n;&|>".contains(first) => break,
            _ => rest = plain(rest, &mut pieces, " \t\n;&|>'\""),
        }
    }
    Ok((pieces, rest))
}

/// Takes one run of text, or one variable, and returns what follows it.
fn plain<'a>(text: &'a str, pieces: &mut Word, ends: &str) -> &'a str {
    if let Some(after) = text.strip_prefix('$') {
        let special = after.chars().next().filter(|c| "?$".contains(*c));
        let length = special.map_or_else(
            || {
                after
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(after.len())
            },
            char::len_utf8,
        );
        if length > 0 {
            pieces.push(Piece::Variable(after[..length].to_owned()));
            return &after[length..];
        }
        pieces.push(Piece::Text("$".into()));
        return after;
    }
    let length = text
        .find(|c: char| c == '$' || ends.contains(c))
        .unwrap_or(text.len());
    pieces.push(Piece::Text(text[..length].to_owned()));
    &text[length..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_variables_and_operators() {
        let parsed = parse("echo 'a  b' \"x $HOME\"$? > /f && true").unwrap();
        assert_eq!(parsed.len(), 2);
        assert_eq!(parsed[0].words[1], [Piece::Text("a  b".into())]);
        assert_eq!(
            parsed[0].words[2],
            [
                Piece::Text(String::new()),
                Piece::Text("x ".into()),
                Piece::Variable("HOME".into()),
                Piece::Variable("?".into()),
            ]
        );
        assert!(matches!(parsed[0].redirect, Some(Redirect::Truncate(_))));
        assert_eq!(parsed[1].join, Join::IfOk);
    }

    #[test]
    fn what_it_does_not_know_is_an_error() {
        assert!(parse("a | b").is_err());
        assert!(parse("echo 'x").is_err());
        assert!(parse("echo >").is_err());
    }
}
