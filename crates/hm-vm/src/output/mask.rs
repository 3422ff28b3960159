//! Hiding secrets in output.
//!
//! Replacing happens in the stream, before anything is recorded or shown. The result is that of a replacement
//! in the whole text, whatever the chunks: of values that overlap the leftmost one is replaced, of those
//! the longest.

use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};
use hm_vm_core::{Error, Secret};

/// What is shown in place of a secret.
const SHOWN: &[u8] = b"***";

/// A value shorter than this is part of so many words that nothing readable would be left.
const MIN_BYTES: usize = 3;

/// A line of a longer value is replaced by itself only from this length on: `}` and `end` are no secrets.
const MIN_LINE_BYTES: usize = 4;

/// The values to hide.
pub(crate) struct Mask {
    finder: AhoCorasick,
    /// Sorted, each once.
    values: Vec<Vec<u8>>,
    /// Whether a value begins with this byte.
    begins: [bool; 256],
    longest: usize,
}

impl Mask {
    /// Hides `values`: what each is called, and its bytes. Line ends at the end of a value are no part of
    /// it; an empty value is none. `None` when there is nothing to hide.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] for a value of one or two bytes.
    pub(crate) fn new<'a>(
        values: impl IntoIterator<Item = (String, &'a Secret)>,
    ) -> Result<Option<Arc<Self>>, Error> {
        let mut parts = Vec::new();
        for (name, secret) in values {
            let value = trim_end(secret.expose());
            if (1..MIN_BYTES).contains(&value.len()) {
                return Err(Error::InvalidInput {
                    what: name,
                    reason: format!(
                        "a secret of fewer than {MIN_BYTES} bytes cannot be hidden in the output"
                    ),
                });
            }
            parts.push(value);
            if value.contains(&b'\n') {
                let lines = value.split(|&byte| byte == b'\n').map(trim_end);
                parts.extend(lines.filter(|line| line.len() >= MIN_LINE_BYTES));
            }
        }
        parts.retain(|part| !part.is_empty());
        parts.sort_unstable();
        parts.dedup();
        let Some(longest) = parts.iter().map(|part| part.len()).max() else {
            return Ok(None);
        };
        // Not the other kinds: their memory is a multiple of the values'.
        let finder = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .match_kind(MatchKind::LeftmostLongest)
            .build(&parts)
            .map_err(|_| Error::InvalidInput {
                what: "the secrets".into(),
                reason: "they are too long to be hidden in the output".into(),
            })?;
        let mut begins = [false; 256];
        for part in &parts {
            begins[usize::from(part[0])] = true;
        }
        Ok(Some(Arc::new(Self {
            finder,
            values: parts.into_iter().map(<[u8]>::to_vec).collect(),
            begins,
            longest,
        })))
    }

    /// Writes `text` to `out` with the values replaced, as far as what follows cannot change it. Returns how
    /// many bytes that was. With `last` nothing follows.
    fn replace(&self, text: &[u8], last: bool, out: &mut Vec<u8>) -> usize {
        let open = |from| {
            if last {
                text.len()
            } else {
                self.open(text, from)
            }
        };
        let (mut done, mut limit) = (0, open(0));
        while let Some(found) = self
            .finder
            .find(Input::new(text).span(done..text.len()))
            .filter(|found| found.start() < limit)
        {
            out.extend_from_slice(&text[done..found.start()]);
            out.extend_from_slice(SHOWN);
            done = found.end();
            if done > limit {
                limit = open(done);
            }
        }
        out.extend_from_slice(&text[done..limit]);
        limit
    }

    /// Where, at or after `from`, the first value may begin that the end of `text` cuts off.
    fn open(&self, text: &[u8], from: usize) -> usize {
        let from = from.max(text.len().saturating_sub(self.longest - 1));
        (from..text.len())
            .find(|&start| {
                self.begins[usize::from(text[start])] && self.begins_value(&text[start..])
            })
            .unwrap_or(text.len())
    }

    /// Whether a value goes on after `start`.
    fn begins_value(&self, start: &[u8]) -> bool {
        let place = self
            .values
            .partition_point(|value| value.as_slice() <= start);
        self.values
            .get(place)
            .is_some_and(|value| value.starts_with(start))
    }
}

fn trim_end(mut value: &[u8]) -> &[u8] {
    while let [rest @ .., b'\n' | b'\r'] = value {
        value = rest;
    }
    value
}

/// Hides the values in one stream. Holds back what may be the beginning of one.
pub(super) struct Masker {
    mask: Arc<Mask>,
    held: Vec<u8>,
    out: Vec<u8>,
}

impl Masker {
    pub(super) fn new(mask: &Arc<Mask>) -> Self {
        Self {
            mask: Arc::clone(mask),
            held: Vec::new(),
            out: Vec::new(),
        }
    }

    /// Takes the next bytes of the stream, and returns what can be shown now.
    pub(super) fn push<'a>(&'a mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.held.is_empty() && !self.mask.finder.is_match(bytes) {
            let (now, later) = bytes.split_at(self.mask.open(bytes, 0));
            self.held.extend_from_slice(later);
            return now;
        }
        self.held.extend_from_slice(bytes);
        self.out.clear();
        let done = self.mask.replace(&self.held, false, &mut self.out);
        self.held.drain(..done);
        &self.out
    }

    /// Ends the stream, and returns the rest. A second call returns nothing.
    pub(super) fn finish(&mut self) -> &[u8] {
        self.out.clear();
        self.mask.replace(&self.held, true, &mut self.out);
        self.held.clear();
        &self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mask(values: &[&[u8]]) -> Result<Option<Arc<Mask>>, Error> {
        let secrets: Vec<Secret> = values.iter().map(|v| Secret::new(v.to_vec())).collect();
        Mask::new(secrets.iter().map(|secret| ("secret".to_owned(), secret)))
    }

    fn masked(values: &[&[u8]], chunks: &[&[u8]]) -> String {
        let mut masker = Masker::new(&mask(values).unwrap().unwrap());
        let mut shown = Vec::new();
        for chunk in chunks {
            shown.extend_from_slice(masker.push(chunk));
        }
        shown.extend_from_slice(masker.finish());
        shown.extend_from_slice(masker.finish());
        String::from_utf8(shown).unwrap()
    }

    /// The definition, at the price of a search at every byte.
    fn replaced(values: &[Vec<u8>], text: &[u8]) -> Vec<u8> {
        let (mut shown, mut rest) = (Vec::new(), text);
        while let Some(first) = rest.first() {
            let longest = values
                .iter()
                .filter(|value| rest.starts_with(value))
                .map(Vec::len)
                .max();
            match longest {
                Some(length) => {
                    shown.extend_from_slice(SHOWN);
                    rest = &rest[length..];
                }
                None => {
                    shown.push(*first);
                    rest = &rest[1..];
                }
            }
        }
        shown
    }

    #[test]
    fn values_are_found_across_chunks_and_line_ends_at_their_end_do_not_matter() {
        assert_eq!(
            masked(&[b"hunter2\r\n"], &[b"x hun", b"ter", b"2\n"]),
            "x ***\n"
        );
        assert_eq!(
            masked(&[b"hunter2"], &[b"hunter", b"hunter2hunter"]),
            "hunter***hunter"
        );
        assert_eq!(
            masked(&[b"abc", b"abcdef"], &[b"abcde", b"f abcd"]),
            "*** ***d"
        );
    }

    #[test]
    fn only_what_may_be_a_value_is_held_back() {
        let mut masker = Masker::new(&mask(&[b"hunter2"]).unwrap().unwrap());
        assert_eq!(masker.push(b"50%\r"), b"50%\r");
        assert_eq!(masker.push(b"the h"), b"the ");
        assert_eq!(masker.push(b"at"), b"hat");
    }

    #[test]
    fn the_lines_of_a_value_are_hidden_each() {
        let value: &[u8] = b"BEGIN\r\nshort\n}\nsecond line\n";
        assert_eq!(
            masked(&[value], &[b"a short second line } of BEGINNERS"]),
            "a *** *** } of ***NERS"
        );
        assert_eq!(
            masked(&[value], &[b"BEGIN\r\nshort\n}\nsecond line\n"]),
            "***\n"
        );
    }

    #[test]
    fn a_tiny_value_is_refused_and_an_empty_one_is_none() {
        let error = mask(&[b"ab\n"]).err().unwrap();
        assert!(matches!(error, Error::InvalidInput { .. }));
        assert!(!error.to_string().contains("ab\n"));
        assert!(mask(&[b"", b"\n"]).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn chunks_change_nothing(
            text in proptest::collection::vec(b'a'..=b'c', 0..80),
            values in proptest::collection::vec(proptest::collection::vec(b'a'..=b'c', 3..9), 1..5),
            cuts in proptest::collection::vec(0usize..80, 0..12),
        ) {
            let secrets: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
            let mut masker = Masker::new(&mask(&secrets).unwrap().unwrap());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let (mut shown, mut start) = (Vec::new(), 0);
            for cut in cuts {
                shown.extend_from_slice(masker.push(&text[start..cut]));
                start = cut;
            }
            shown.extend_from_slice(masker.finish());
            prop_assert_eq!(shown, replaced(&values, &text));
        }
    }
}
