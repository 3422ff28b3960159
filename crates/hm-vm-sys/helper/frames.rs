//! Frames from the host, and the fields of a request.

use core::ffi::CStr;

use crate::calls;
use crate::memory::Memory;
use crate::numbers::{EAGAIN, EINTR};

/// Standard input.
pub const INPUT: i32 = 0;
/// Standard output.
pub const OUTPUT: i32 = 1;
/// Standard error.
pub const ERRORS: i32 = 2;

pub const NONCE: usize = 32;
const LARGEST_REQUEST: usize = 32 << 20;
/// Of frames that go to a running command.
pub const LARGEST_MESSAGE: usize = 64 << 10;

pub struct Frame {
    pub kind: u8,
    pub payload: Memory,
}

/// What one look at the input brings.
pub enum Step {
    More,
    Frame(Frame),
    /// The host is gone.
    End,
    /// This is not the protocol.
    Garbage,
}

/// Puts frames together from whatever arrives.
pub struct Reader {
    header: [u8; 5],
    have: usize,
    payload: Option<Memory>,
}

impl Reader {
    pub fn new() -> Self {
        Self {
            header: [0; 5],
            have: 0,
            payload: None,
        }
    }

    /// Reads once; does not wait if there is something to read.
    pub fn step(&mut self) -> Step {
        let header = self.header.len();
        let into = match &mut self.payload {
            None => &mut self.header[self.have..],
            Some(payload) => &mut payload.bytes_mut()[self.have - header..],
        };
        match calls::read(INPUT, into) {
            Ok(0) => return Step::End,
            Ok(length) => self.have += length,
            Err(EINTR | EAGAIN) => return Step::More,
            Err(_) => return Step::End,
        }
        if self.have < header {
            return Step::More;
        }
        if self.payload.is_none() {
            match self.begin_payload() {
                Some(payload) => self.payload = Some(payload),
                None => return Step::Garbage,
            }
        }
        match self.payload.take() {
            Some(payload) if self.have == header + payload.bytes().len() => {
                self.have = 0;
                Step::Frame(Frame {
                    kind: self.header[0],
                    payload,
                })
            }
            unfinished => {
                self.payload = unfinished;
                Step::More
            }
        }
    }

    fn begin_payload(&self) -> Option<Memory> {
        let [kind, length @ ..] = self.header;
        let length = u32::from_le_bytes(length) as usize;
        let largest = match kind {
            b'R' | b'D' => LARGEST_REQUEST,
            b'P' | b'S' | b'K' | b'I' | b'Z' | b'H' => LARGEST_MESSAGE,
            _ => return None,
        };
        if length > largest {
            return None;
        }
        Memory::new(length).ok()
    }
}

/// One field of a request. A zero byte follows it.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    pub tag: u8,
    /// With the zero byte.
    terminated: &'a [u8],
}

impl<'a> Field<'a> {
    pub fn bytes(&self) -> &'a [u8] {
        &self.terminated[..self.terminated.len() - 1]
    }

    /// Up to its first zero byte.
    pub fn text(&self) -> &'a CStr {
        // There is one: the last byte.
        CStr::from_bytes_until_nul(self.terminated).unwrap_or_default()
    }
}

/// The fields of a request, whose form is known to be right.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// `None` where they make no sense.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let fields = Self { rest: bytes };
        let mut walk = fields;
        for field in walk.by_ref() {
            let known = match field.tag {
                b't' => field.bytes().len() == 4,
                b'c' | b'e' | b'd' | b'w' | b'W' | b'u' | b'o' => !field.bytes().contains(&0),
                b's' | b'x' => true,
                _ => false,
            };
            if !known {
                return None;
            }
        }
        let has_command = fields.clone().any(|field| field.tag == b'c');
        (walk.rest.is_empty() && has_command).then_some(fields)
    }

    /// The fields of one kind, in order.
    pub fn tagged(self, tag: u8) -> impl Iterator<Item = Field<'a>> + Clone {
        self.filter(move |field| field.tag == tag)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let (header, rest) = self.rest.split_at_checked(5)?;
        let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let (terminated, after) = rest.split_at_checked(length.checked_add(1)?)?;
        if terminated.last() != Some(&0) {
            return None;
        }
        self.rest = after;
        Some(Field {
            tag: header[0],
            terminated,
        })
    }
}
