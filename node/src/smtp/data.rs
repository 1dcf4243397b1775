//! Reads what follows DATA (RFC 5321 section 4.5.2): takes the doubled dots out and finds the end. The end is CRLF.CRLF
//! and nothing else. Or reads what follows BDAT (RFC 3030), where dots are dots and the end is told. A message with a CR or
//! LF that stands alone is refused as a whole, so that no server before or behind this one can see two messages where we
//! see one (CVE-2023-51764 and its kin).
//!
//! So is one with a NUL: RFC 5322 section 2 has none, and a server that drops it would see an end where we see none.

use bytes::{Bytes, BytesMut};

use super::reply::Reply;

/// Why a message is refused before anybody looks into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataFault {
    /// A CR without LF or a LF without CR.
    BareLineEnd,
    /// A NUL byte.
    Nul,
    /// Longer than was agreed.
    TooLarge,
    /// Too many messages hold memory now.
    NoRoom,
}

impl DataFault {
    /// What the client is told.
    #[must_use]
    pub fn reply(self) -> Reply {
        match self {
            Self::BareLineEnd => {
                Reply::permanent(50, (5, 2), "a line of the message ends without CRLF").because("BARE_LINE_END")
            }
            Self::Nul => Reply::permanent(50, (5, 2), "the message holds a NUL byte").because("NUL"),
            Self::TooLarge => Reply::permanent(52, (3, 4), "the message is too large").because("MESSAGE_TOO_LARGE"),
            Self::NoRoom => {
                Reply::temporary(51, (3, 2), "too many messages at once; come back later").because("NO_ROOM")
            }
        }
    }
}

/// Where in a line the decoder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// After CRLF, or at the very beginning.
    LineStart,
    /// After a dot at the start of a line.
    Dot,
    /// After dot and CR at the start of a line.
    DotCr,
    /// Within a line.
    Within,
    /// After a CR within a line.
    Cr,
    /// After the end.
    End,
}

/// Decodes one message, fed in chunks of any size.
#[derive(Debug)]
pub struct DataDecoder {
    place: Place,
    /// Whether dots at the start of a line are doubled and one that is not is the end.
    stuffed: bool,
    message: BytesMut,
    bytes_max: usize,
    fault: Option<DataFault>,
}

impl DataDecoder {
    /// For a message of at most `bytes_max` bytes, counted without the doubled dots and the end.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { place: Place::LineStart, stuffed: true, message: BytesMut::new(), bytes_max, fault: None }
    }

    /// The same for one that comes in chunks, whose end is where the last one ends.
    #[must_use]
    pub fn chunked(bytes_max: usize) -> Self {
        Self { stuffed: false, ..Self::new(bytes_max) }
    }

    /// Takes a chunk. `Some(n)` when the message ended after its first `n` bytes; what follows are commands. After a fault
    /// nothing is stored any more.
    pub fn feed(&mut self, chunk: &[u8]) -> Option<usize> {
        let mut rest = chunk;
        while self.place != Place::End {
            if matches!(self.place, Place::LineStart | Place::Within) {
                let (head, tail) = rest.split_at(self.skip_plain(rest));
                self.store(head);
                rest = tail;
            }
            let (byte, tail) = rest.split_first()?;
            self.place = self.after(*byte);
            rest = tail;
        }
        Some(chunk.len() - rest.len())
    }

    /// How many bytes are kept just as they are: whole lines, up to what needs a look. The place moves along.
    fn skip_plain(&mut self, chunk: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let rest = chunk.get(at..).unwrap_or_default();
            if self.place == Place::LineStart && self.stuffed && rest.starts_with(b".") {
                return at;
            }
            let plain = memchr::memchr3(b'\r', b'\n', 0, rest).unwrap_or(rest.len());
            if plain > 0 {
                self.place = Place::Within;
            }
            at += plain;
            if !rest.get(plain..).is_some_and(|end| end.starts_with(b"\r\n")) {
                return at;
            }
            self.place = Place::LineStart;
            at += 2;
        }
    }

    fn after(&mut self, byte: u8) -> Place {
        match (self.place, byte) {
            (Place::LineStart, b'.') if self.stuffed => Place::Dot,
            (Place::Dot, b'\r') => Place::DotCr,
            (Place::DotCr, b'\n') | (Place::End, _) => Place::End,
            (Place::LineStart | Place::Within, b'\r') => Place::Cr,
            (Place::Cr, b'\n') => {
                self.store(b"\r\n");
                Place::LineStart
            }
            // A CR that no LF follows.
            (Place::Cr | Place::DotCr, b'\r') => self.bare(Place::Cr),
            (Place::Cr | Place::DotCr, _) => self.bare(Place::Within),
            // A LF that no CR precedes does not start a line, so what follows cannot be the end.
            (Place::LineStart | Place::Dot | Place::Within, b'\n') => self.bare(Place::Within),
            (Place::LineStart | Place::Dot | Place::Within, 0) => {
                self.refuse(DataFault::Nul);
                Place::Within
            }
            (Place::LineStart | Place::Dot | Place::Within, other) => {
                self.store(&[other]);
                Place::Within
            }
        }
    }

    fn refuse(&mut self, fault: DataFault) {
        self.fault = Some(fault);
        self.message = BytesMut::new();
    }

    fn bare(&mut self, place: Place) -> Place {
        self.refuse(DataFault::BareLineEnd);
        place
    }

    fn store(&mut self, bytes: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        if self.message.len() + bytes.len() > self.bytes_max {
            self.fault = Some(DataFault::TooLarge);
            self.message = BytesMut::new();
            return;
        }
        self.message.extend_from_slice(bytes);
    }

    /// Keeps nothing of the message, which is still read to its end.
    pub fn give_up(&mut self) {
        self.fault.get_or_insert(DataFault::NoRoom);
        self.message = BytesMut::new();
    }

    /// Bytes that may be held in memory after a chunk of `chunk_bytes`. A CR that waits for its LF is stored with it.
    #[must_use]
    pub fn wanted_bytes(&self, chunk_bytes: usize) -> usize {
        let waiting = usize::from(self.place == Place::Cr);
        if self.fault.is_some() { 0 } else { (self.message.len() + waiting + chunk_bytes).min(self.bytes_max) }
    }

    /// Bytes that are held in memory.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        self.message.len()
    }

    /// Why the message will be refused, as far as it has come.
    #[must_use]
    pub fn fault(&self) -> Option<DataFault> {
        self.fault
    }

    /// The message after its end has come. One that came in chunks and does not end with CRLF gets one: no line of a
    /// message is without it, and the next hop may have to be told by DATA.
    ///
    /// # Errors
    /// Why it is refused. A bare line end counts before the size.
    pub fn finish(mut self) -> Result<Bytes, DataFault> {
        match self.place {
            Place::Cr => self.refuse(DataFault::BareLineEnd),
            Place::Within => self.store(b"\r\n"),
            Place::LineStart | Place::Dot | Place::DotCr | Place::End => {}
        }
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(self.message.freeze()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{DataDecoder, DataFault};

    /// What became of the first message, and how many bytes it took; `None` when it has not ended.
    fn decode(chunks: &[&[u8]], bytes_max: usize) -> Option<(usize, Result<Vec<u8>, DataFault>)> {
        let mut decoder = DataDecoder::new(bytes_max);
        let mut used = 0;
        for chunk in chunks {
            if let Some(last) = decoder.feed(chunk) {
                return Some((used + last, decoder.finish().map(|bytes| bytes.to_vec())));
            }
            used += chunk.len();
            assert!(decoder.stored_bytes() <= bytes_max);
        }
        None
    }

    #[test]
    fn dots_are_unstuffed_and_the_end_is_found() {
        let message = |text: &str| decode(&[text.as_bytes()], 1000);
        assert_eq!(message(".\r\n"), Some((3, Ok(Vec::new()))));
        assert_eq!(
            message("a\r\n..b\r\n.c\r\n...\r\n.\r\nQUIT\r\n"),
            Some((20, Ok(b"a\r\n.b\r\nc\r\n..\r\n".to_vec())))
        );
        assert_eq!(message("a.\r\n"), None);
        assert_eq!(message("a\u{e9}\r\n.\r\n").map(|(_, result)| result.is_ok()), Some(true));
        assert_eq!(message("a\0\r\n.\r\n"), Some((7, Err(DataFault::Nul))));
    }

    /// Row 1 of the threats: whatever another server takes for an end, each split at each place.
    #[test]
    fn every_false_end_is_refused_and_hides_no_second_message() {
        let false_ends = [
            "\n.\n",
            "\n.\r\n",
            "\r\n.\n",
            "\r.\r",
            "\r.\r\n",
            "\r\n.\r",
            "\n.\r",
            "\r.\n",
            "\r\n.\r\r\n",
            "\r\r\n.\r\n",
            "\n\n.\r\n",
            "\r\n.\0\r\n",
            "\r\n\0.\r\n",
            "\r\n.\n\r\n",
        ];
        for false_end in false_ends {
            let text = format!("Subject: a\r\n\r\nx{false_end}MAIL FROM:<b@b>\r\nDATA\r\n\r\ny\r\n.\r\n");
            let bytes = text.as_bytes();
            let genuine = matches!(false_end, "\r\r\n.\r\n");
            for at in 0..bytes.len() {
                let (used, result) = decode(&[&bytes[..at], &bytes[at..]], 1000).expect("an end");
                if false_end.contains('\0') {
                    assert_eq!((used, result), (bytes.len(), Err(DataFault::Nul)), "{false_end:?} at {at}");
                } else if genuine {
                    // The CRLF.CRLF in it is the real end; the CR before makes the message refused.
                    assert!(used < bytes.len() && result == Err(DataFault::BareLineEnd), "{false_end:?}");
                } else {
                    assert_eq!((used, result), (bytes.len(), Err(DataFault::BareLineEnd)), "{false_end:?} at {at}");
                }
            }
        }
    }

    #[test]
    fn in_chunks_a_dot_is_a_dot_and_lines_are_as_clean() {
        let message = |chunks: &[&str]| {
            let mut decoder = DataDecoder::chunked(100);
            for chunk in chunks {
                assert_eq!(decoder.feed(chunk.as_bytes()), None, "only the client knows where it ends");
            }
            decoder.finish().map(|bytes| String::from_utf8(bytes.to_vec()).expect("text"))
        };
        assert_eq!(message(&["a\r", "\n.\r\n..", "b\r\n"]), Ok("a\r\n.\r\n..b\r\n".into()));
        assert_eq!(message(&["a\r\n.\r\n"]), Ok("a\r\n.\r\n".into()));
        assert_eq!(message(&["no", " end"]), Ok("no end\r\n".into()));
        assert_eq!(message(&[]), Ok(String::new()));
        for bare in [&["a\nb\r\n"] as &[_], &["a\r"], &["a\r", "b\r\n"], &["\r\n\n"]] {
            assert_eq!(message(bare), Err(DataFault::BareLineEnd), "{bare:?}");
        }
        assert_eq!(message(&["a\0"]), Err(DataFault::Nul));
        assert_eq!(message(&["x".repeat(101).as_str()]), Err(DataFault::TooLarge));
    }

    #[test]
    fn a_message_that_is_given_up_is_read_to_its_end_and_not_kept() {
        let mut decoder = DataDecoder::new(100);
        assert_eq!((decoder.feed(b"abc\r\n"), decoder.wanted_bytes(7), decoder.wanted_bytes(1000)), (None, 12, 100));
        decoder.give_up();
        assert_eq!((decoder.feed(b"d"), decoder.stored_bytes(), decoder.wanted_bytes(7)), (None, 0, 0));
        assert_eq!((decoder.feed(b"\r\n.\r\nQUIT"), decoder.finish()), (Some(5), Err(DataFault::NoRoom)));
    }

    #[test]
    fn room_is_asked_for_a_carriage_return_that_waits_for_its_line_feed() {
        let mut decoder = DataDecoder::new(100);
        assert_eq!((decoder.feed(b"ab\r"), decoder.wanted_bytes(1)), (None, 4));
        assert_eq!((decoder.feed(b"\n"), decoder.stored_bytes()), (None, 4));
    }

    #[test]
    fn an_oversized_message_is_read_to_its_end_and_not_kept() {
        let long = [b"x".repeat(50).as_slice(), b"\r\n.\r\n"].concat();
        assert_eq!(decode(&[&long], 51), Some((55, Err(DataFault::TooLarge))));
        assert_eq!(decode(&[&long], 52).map(|(_, result)| result.is_ok()), Some(true));
    }

    proptest! {
        #[test]
        fn chunks_make_no_difference(
            text in "(a|\\.|\r|\n|\r\n|\r\n\\.){0,40}(\r\n\\.\r\n)?(a|\r\n\\.\r\n){0,3}",
            cuts in proptest::collection::vec(1_usize..9, 0..60),
        ) {
            let bytes = text.as_bytes();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                let to = (from + cut).min(bytes.len());
                chunks.push(&bytes[from..to]);
                from = to;
            }
            chunks.push(&bytes[from..]);
            let singles: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(decode(&chunks, 30), decode(&singles, 30));
        }

        #[test]
        fn the_end_is_the_first_crlf_dot_crlf_and_a_taken_message_has_clean_lines(
            text in "(a|\\.|\r|\n|\r\n|\r\n\\.){0,40}\r\n\\.\r\n(a|\r\n\\.\r\n){0,3}",
        ) {
            let whole = format!("\r\n{text}");
            let expected = whole.find("\r\n.\r\n").map(|at| at + 5 - 2);
            let (used, result) = decode(&[text.as_bytes()], 1000).expect("an end");
            prop_assert_eq!(Some(used), expected);
            let body = &text[..used];
            let clean = body.replace("\r\n", "");
            prop_assert_eq!(result.is_ok(), !clean.contains(['\r', '\n']), "{:?}", body);
        }
    }
}
