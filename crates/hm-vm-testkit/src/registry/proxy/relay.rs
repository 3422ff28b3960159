//! One connection of a client: requests and answers pass, with the faults that happen to them.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::faults::Fault;
use super::http::{Body, Framing, Head};
use super::passed::Passed;
use super::server::Shared;

/// Answers the requests of one connection until it ends, or a fault ends it.
pub(super) fn serve(shared: &Shared, client: &TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut reader = BufReader::new(client.try_clone()?);
    while let Some(head) = Head::read(&mut reader)? {
        let mut words = head.first.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (method, path) = (word(), word());
        let (number, faults) = shared.begin(Passed {
            method: method.clone(),
            path,
            headers: head.headers.clone(),
            ..Passed::default()
        });
        let exchange = Exchange {
            shared,
            client,
            number,
            faults,
            method,
        };
        if !exchange.run(head, &mut reader)? {
            return Ok(());
        }
    }
    Ok(())
}

/// One request and its answer.
struct Exchange<'a> {
    shared: &'a Shared,
    client: &'a TcpStream,
    number: usize,
    faults: Vec<Fault>,
    method: String,
}

impl Exchange<'_> {
    /// Whether another request can follow.
    fn run(&self, mut head: Head, reader: &mut BufReader<TcpStream>) -> io::Result<bool> {
        if self.faults.contains(&Fault::Drop) {
            return Ok(false);
        }
        if head
            .get("Expect")
            .is_some_and(|what| what.eq_ignore_ascii_case("100-continue"))
        {
            head.remove("Expect");
            let mut client = self.client;
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let framing = head.framing().unwrap_or(Framing::Length(0));
        let mut body = Body::new(reader, framing);
        if let Some(answer) = self.answer() {
            self.swallow(&mut body)?;
            return self.say(&answer.0, &answer.1);
        }
        for fault in &self.faults {
            if let Fault::WithoutHeader(name) = fault {
                head.remove(name);
            }
        }
        head.set("Connection", "close");
        let Ok(mut upstream) = TcpStream::connect(&self.shared.upstream) else {
            self.swallow(&mut body)?;
            return self.say(&Head::answer(502), b"the server cannot be reached");
        };
        self.shared.register(&upstream);
        upstream.set_nodelay(true)?;
        head.write(&mut upstream)?;
        self.send_body(&mut body, framing, &mut upstream)?;
        if self.faults.contains(&Fault::Stall) {
            return self.stall();
        }
        self.pass_answer(BufReader::new(upstream))
    }

    fn answer(&self) -> Option<(Head, Vec<u8>)> {
        self.faults.iter().find_map(|fault| match fault {
            Fault::Answer {
                status,
                headers,
                body,
            } => {
                let mut head = Head::answer(*status);
                head.headers.clone_from(headers);
                Some((head, body.clone()))
            }
            _ => None,
        })
    }

    /// Reads a request's body without passing it on.
    fn swallow(&self, body: &mut Body<'_>) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        let mut total = 0;
        loop {
            let read = body.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            total = self.count_sent(total, read)?;
        }
    }

    fn count_sent(&self, before: u64, read: usize) -> io::Result<u64> {
        let total = before + read as u64;
        self.shared
            .note(self.number, |passed| passed.sent += read as u64);
        for fault in &self.faults {
            match fault {
                Fault::CutRequestAfter(bytes) if total >= *bytes => {
                    return Err(ErrorKind::ConnectionAborted.into());
                }
                Fault::StallRequestAfter(bytes) if total >= *bytes => {
                    self.stall()?;
                    return Err(ErrorKind::ConnectionAborted.into());
                }
                _ => {}
            }
        }
        Ok(total)
    }

    fn say(&self, head: &Head, body: &[u8]) -> io::Result<bool> {
        self.delay();
        if self.faults.contains(&Fault::Stall) {
            return self.stall();
        }
        let mut head = head.clone();
        // An answer to HEAD tells a length that its body would have had.
        if head.get("Content-Length").is_none() {
            head.set("Content-Length", body.len());
        }
        let mut client = self.client;
        self.shared
            .note(self.number, |passed| passed.status = head.status());
        head.write(&mut client)?;
        if self.method != "HEAD" {
            client.write_all(body)?;
            self.shared
                .note(self.number, |passed| passed.received += body.len() as u64);
        }
        Ok(true)
    }

    fn delay(&self) {
        for fault in &self.faults {
            if let Fault::Delay(time) = fault {
                std::thread::sleep(*time);
            }
        }
    }

    fn stall(&self) -> io::Result<bool> {
        self.shared.wait_for_end();
        Ok(false)
    }

    fn send_body(
        &self,
        body: &mut Body<'_>,
        framing: Framing,
        upstream: &mut TcpStream,
    ) -> io::Result<()> {
        let chunked = framing == Framing::Chunked;
        let mut buffer = vec![0; 64 << 10];
        let mut total = 0;
        loop {
            let read = body.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            write_part(upstream, &buffer[..read], chunked)?;
            total = self.count_sent(total, read)?;
        }
        if chunked {
            upstream.write_all(b"0\r\n\r\n")?;
        }
        Ok(())
    }

    fn pass_answer(&self, mut upstream: BufReader<TcpStream>) -> io::Result<bool> {
        let mut head = Head::read(&mut upstream)?.ok_or(ErrorKind::UnexpectedEof)?;
        while head.status() == 100 {
            head = Head::read(&mut upstream)?.ok_or(ErrorKind::UnexpectedEof)?;
        }
        self.delay();
        let status = head.status();
        let empty = self.method == "HEAD" || status == 204 || status == 304;
        let told = head.framing();
        let source = if empty {
            Framing::Length(0)
        } else {
            told.unwrap_or(Framing::ToTheEnd)
        };
        head.remove("Connection");
        let endless = self.faults.contains(&Fault::Endless) && !empty;
        for fault in &self.faults {
            match fault {
                Fault::Header(name, value) => head.set(name, value),
                Fault::Length(length) => head.set("Content-Length", length),
                Fault::TruncateTo(bytes) => {
                    if let Some(Framing::Length(length)) = told {
                        head.set("Content-Length", length.min(*bytes));
                    }
                }
                Fault::Endless if endless => {
                    head.remove("Content-Length");
                    head.set("Transfer-Encoding", "chunked");
                }
                _ => {}
            }
        }
        self.shared
            .note(self.number, |passed| passed.status = status);
        let mut client = self.client;
        head.write(&mut client)?;
        let chunked = !empty && head.get("Transfer-Encoding").is_some();
        let whole = self.pass_body(&mut Body::new(&mut upstream, source), chunked)?;
        if endless {
            let zeros = vec![0; 64 << 10];
            loop {
                self.give(&zeros, true)?;
            }
        }
        if chunked && whole {
            client.write_all(b"0\r\n\r\n")?;
        }
        // A body of another length than it was told leaves nothing that could follow it.
        let honest = !self
            .faults
            .iter()
            .any(|fault| matches!(fault, Fault::Length(_)));
        Ok(whole && honest && source != Framing::ToTheEnd)
    }

    /// Whether the client got what it was told it would get.
    fn pass_body(&self, body: &mut Body<'_>, chunked: bool) -> io::Result<bool> {
        let mut buffer = vec![0; 16 << 10];
        let mut at = 0;
        loop {
            let most = self.until_next_fault(at, buffer.len());
            if most == 0 {
                return self.end_of_part();
            }
            let read = body.read(&mut buffer[..most])?;
            if read == 0 {
                return Ok(true);
            }
            let part = &mut buffer[..read];
            for fault in &self.faults {
                if let Fault::FlipByte(byte) = fault
                    && (at..at + read as u64).contains(byte)
                {
                    part[(byte - at) as usize] ^= 0x20;
                }
            }
            self.give(part, chunked)?;
            self.throttle(read);
            at += read as u64;
        }
    }

    /// How many bytes may pass before the body is cut, stalls or ends.
    fn until_next_fault(&self, at: u64, most: usize) -> usize {
        let ends = self.faults.iter().filter_map(|fault| match fault {
            Fault::CutAfter(end) | Fault::StallAfter(end) | Fault::TruncateTo(end) => Some(*end),
            Fault::Slow(rate) => Some(at + (rate / 20).max(1)),
            _ => None,
        });
        let left = ends.map(|end| end.saturating_sub(at)).min();
        left.map_or(most, |left| {
            most.min(usize::try_from(left).unwrap_or(usize::MAX))
        })
    }

    /// The body has come to where a fault ends it.
    fn end_of_part(&self) -> io::Result<bool> {
        if self
            .faults
            .iter()
            .any(|fault| matches!(fault, Fault::StallAfter(_)))
        {
            return self.stall();
        }
        // What is truncated looks whole; but the server's rest is not read.
        let truncated = |fault: &Fault| matches!(fault, Fault::TruncateTo(_));
        Ok(self.faults.iter().any(truncated))
    }

    fn throttle(&self, read: usize) {
        for fault in &self.faults {
            if let Fault::Slow(rate) = fault {
                std::thread::sleep(Duration::from_secs_f64(read as f64 / (*rate).max(1) as f64));
            }
        }
    }

    fn give(&self, part: &[u8], chunked: bool) -> io::Result<()> {
        let mut client = self.client;
        write_part(&mut client, part, chunked)?;
        self.shared
            .note(self.number, |passed| passed.received += part.len() as u64);
        Ok(())
    }
}

fn write_part(to: &mut impl Write, part: &[u8], chunked: bool) -> io::Result<()> {
    if !chunked {
        return to.write_all(part);
    }
    write!(to, "{:x}\r\n", part.len())?;
    to.write_all(part)?;
    to.write_all(b"\r\n")
}

impl Head {
    /// The head of an answer of the proxy's own.
    fn answer(status: u16) -> Self {
        Self {
            first: format!("HTTP/1.1 {status} of the proxy"),
            headers: Vec::new(),
        }
    }
}
