//! Where a job's output ends.

use super::report::Report;
use super::request::Nonce;

/// Finds the end mark of a job in a stream that comes in pieces, and the report behind it.
///
/// Output goes on as soon as it is sure that it is output: what is held back is at most the beginning of a mark.
#[derive(Debug)]
pub struct MarkerScan {
    nonce: Nonce,
    /// How many bytes of a mark the output seen so far ends with.
    matched: usize,
    /// What follows the mark.
    tail: Vec<u8>,
    /// How much should follow.
    expected: usize,
    surplus: bool,
}

impl MarkerScan {
    /// For standard output, where a report follows.
    pub fn stdout(nonce: Nonce) -> Self {
        Self::new(nonce, Report::SIZE)
    }

    /// For standard error, where nothing follows.
    pub fn stderr(nonce: Nonce) -> Self {
        Self::new(nonce, 0)
    }

    fn new(nonce: Nonce, expected: usize) -> Self {
        Self {
            nonce,
            matched: 0,
            tail: Vec::new(),
            expected,
            surplus: false,
        }
    }

    /// Takes the next bytes of the stream, and calls `output` with those that are output, in order.
    pub fn push(&mut self, bytes: &[u8], mut output: impl FnMut(&[u8])) {
        let nonce = *self.nonce.bytes();
        let mut rest = bytes;
        while self.matched < Nonce::SIZE {
            if self.matched == 0 {
                // By two bytes: output may be full of zeros, and they shall not be looked at one by one.
                let may_begin = |at: &usize| {
                    let next = rest.get(*at + 1);
                    rest[*at] == nonce[0] && next.is_none_or(|next| *next == nonce[1])
                };
                let begin = (0..rest.len()).find(may_begin);
                let (sure, maybe) = rest.split_at(begin.unwrap_or(rest.len()));
                if !sure.is_empty() {
                    output(sure);
                }
                rest = maybe;
            }
            let wanted = &nonce[self.matched..];
            let same = wanted.iter().zip(rest).take_while(|(a, b)| a == b).count();
            self.matched += same;
            rest = &rest[same..];
            if rest.is_empty() || self.matched == Nonce::SIZE {
                break;
            }
            // Not a mark. What matched is a piece of the nonce; one may begin within that.
            let kept = fallback(&nonce[..self.matched]);
            output(&nonce[..self.matched - kept]);
            self.matched = kept;
        }
        if self.matched == Nonce::SIZE {
            let missing = self.expected - self.tail.len();
            let (tail, surplus) = rest.split_at(missing.min(rest.len()));
            self.tail.extend_from_slice(tail);
            self.surplus |= !surplus.is_empty();
        }
    }

    /// Whether the mark, and what should follow it, has come.
    pub fn is_complete(&self) -> bool {
        self.matched == Nonce::SIZE && self.tail.len() == self.expected
    }

    /// The report, when it is complete. `None` also where it makes no sense.
    pub fn report(&self) -> Option<Report> {
        Report::parse(self.tail.as_slice().try_into().ok()?)
    }

    /// Whether something came behind the end: somebody else wrote to the stream.
    pub fn has_surplus(&self) -> bool {
        self.surplus
    }

    /// What is held back, when the stream has ended without its mark: then it was output.
    pub fn held(&self) -> &[u8] {
        if self.matched == Nonce::SIZE {
            return &[];
        }
        &self.nonce.bytes()[..self.matched]
    }
}

/// Length of the longest end of `matched`, other than all of it, that the nonce begins with.
fn fallback(matched: &[u8]) -> usize {
    (0..matched.len())
        .rev()
        .find(|length| matched.ends_with(&matched[..*length]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Feeds pieces, and returns output, scan, and whether held bytes were ever more than a mark.
    fn feed(mut scan: MarkerScan, stream: &[u8], pieces: &[usize]) -> (Vec<u8>, MarkerScan) {
        let (mut out, mut rest) = (Vec::new(), stream);
        for piece in pieces.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*piece).min(rest.len()));
            scan.push(now, |bytes| out.extend_from_slice(bytes));
            rest = later;
        }
        (out, scan)
    }

    /// Nonces with many repetitions: where a search that forgets something goes wrong.
    fn nonces() -> impl Strategy<Value = Nonce> {
        vec(0u8..2, Nonce::SIZE).prop_map(|bytes| {
            let mut random = [0; Nonce::SIZE];
            random.copy_from_slice(&bytes);
            Nonce::new(random)
        })
    }

    fn report() -> [u8; Report::SIZE] {
        let mut bytes = [0; Report::SIZE];
        bytes[0] = 1;
        bytes[4] = 42;
        bytes
    }

    proptest! {
        #[test]
        fn output_and_report_are_found_however_they_are_cut(
            nonce in nonces(),
            parts in vec((vec(0u8..2, 0..40), 0..Nonce::SIZE), 0..20),
            pieces in vec(1usize..50, 1..8),
        ) {
            // Output that is full of beginnings of the mark.
            let mut text: Vec<u8> = Vec::new();
            for (noise, beginning) in &parts {
                text.extend(noise);
                text.extend(&nonce.bytes()[..*beginning]);
            }
            let mut stream = text.clone();
            stream.extend(nonce.bytes());
            stream.extend(report());
            // Noise may make a mark earlier than the one at the end: that one counts.
            let end = stream.windows(Nonce::SIZE).position(|window| window == nonce.bytes());
            let (out, scan) = feed(MarkerScan::stdout(nonce.clone()), &stream, &pieces);
            prop_assert_eq!(Some(out.len()), end);
            prop_assert_eq!(&out[..], &stream[..out.len()]);
            if end == Some(text.len()) {
                prop_assert!(scan.is_complete() && !scan.has_surplus());
                let kind = scan.report().map(|report| report.kind);
                prop_assert_eq!(kind, Some(crate::helper::ReportKind::Exited(42)));
            }
        }

        #[test]
        fn a_stream_without_a_mark_is_all_output(
            nonce in nonces(),
            stream in vec(0u8..2, 0..31),
            pieces in vec(1usize..50, 1..8),
        ) {
            let (mut out, scan) = feed(MarkerScan::stderr(nonce), &stream, &pieces);
            prop_assert!(!scan.is_complete());
            out.extend(scan.held());
            prop_assert_eq!(out, stream);
        }
    }

    #[test]
    fn text_is_never_held_back_and_surplus_is_seen() {
        let nonce = Nonce::new([9; Nonce::SIZE]);
        let (out, mut scan) = feed(MarkerScan::stderr(nonce.clone()), b"text", &[1]);
        assert_eq!(
            (out.as_slice(), scan.held()),
            (b"text".as_slice(), [].as_slice())
        );
        scan.push(nonce.bytes(), |_| panic!("no output"));
        assert!(scan.is_complete() && !scan.has_surplus());
        scan.push(b"x", |_| panic!("no output"));
        assert!(scan.has_surplus());
    }
}
