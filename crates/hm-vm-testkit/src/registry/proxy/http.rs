//! As much of HTTP/1.1 as a proxy of tests needs.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;

/// The longest head that is read.
const MAX_HEAD: u64 = 1 << 20;

/// The first line and the headers of a request or an answer.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) first: String,
    pub(super) headers: Vec<(String, String)>,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    /// The connection ends with it.
    ToTheEnd,
}

impl Head {
    /// Reads a head; `None` at the end of the connection.
    pub(super) fn read(from: &mut BufReader<TcpStream>) -> io::Result<Option<Self>> {
        let mut from = from.take(MAX_HEAD);
        let mut first = String::new();
        if from.read_line(&mut first)? == 0 {
            return Ok(None);
        }
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or(ErrorKind::InvalidData)?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let first = first.trim_end().to_owned();
        Ok(Some(Self { first, headers }))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(had, _)| had.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.headers
            .retain(|(had, _)| !had.eq_ignore_ascii_case(name));
    }

    pub(super) fn set(&mut self, name: &str, value: impl ToString) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.to_string()));
    }

    /// The status in the first line of an answer.
    pub(super) fn status(&self) -> u16 {
        let word = self.first.split(' ').nth(1);
        word.and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    /// What is told about the body, if anything.
    pub(super) fn framing(&self) -> Option<Framing> {
        if self.get("Transfer-Encoding").is_some() {
            return Some(Framing::Chunked);
        }
        let length = self.get("Content-Length")?;
        length.parse().ok().map(Framing::Length)
    }

    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        to.write_all(text.as_bytes())
    }
}

/// The bytes of a body, without their framing.
#[derive(Debug)]
pub(super) struct Body<'a> {
    from: &'a mut BufReader<TcpStream>,
    framing: Framing,
    /// What is left of the body, or of its current chunk.
    left: u64,
    ended: bool,
}

impl<'a> Body<'a> {
    pub(super) fn new(from: &'a mut BufReader<TcpStream>, framing: Framing) -> Self {
        let left = match framing {
            Framing::Length(length) => length,
            Framing::Chunked => 0,
            Framing::ToTheEnd => u64::MAX,
        };
        Self {
            from,
            framing,
            left,
            ended: false,
        }
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let mut line = String::new();
        self.from.by_ref().take(MAX_HEAD).read_line(&mut line)?;
        let size = line.trim_end().split(';').next().unwrap_or_default();
        self.left = u64::from_str_radix(size, 16).map_err(|_| ErrorKind::InvalidData)?;
        if self.left == 0 {
            // Trailers, and an empty line.
            while line != "\r\n" {
                line.clear();
                if self.from.by_ref().take(MAX_HEAD).read_line(&mut line)? == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            }
            self.ended = true;
        }
        Ok(())
    }
}

impl Read for Body<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.framing == Framing::Chunked && self.left == 0 && !self.ended {
            self.next_chunk()?;
        }
        if self.left == 0 || self.ended || into.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(into.len());
        let read = self.from.read(&mut into[..most])?;
        if read == 0 {
            if self.framing == Framing::ToTheEnd {
                self.ended = true;
                return Ok(0);
            }
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        if self.framing == Framing::Chunked && self.left == 0 {
            let mut end = [0; 2];
            self.from.read_exact(&mut end)?;
        }
        Ok(read)
    }
}
