//! What a next hop answers.

use bytes::BytesMut;
use node::{
    actions::relay::answer::{Answer, LINE_BYTES_MAX, LINES_MAX, Nonsense, Reader, TEXT_MAX},
    smtp::reply::{Class, Reply},
};

use super::pieces::Pieces;

/// One connection to a next hop. Its first byte says how the answers are cut.
///
/// # Panics
/// When the cuts make a difference, when an answer differs from what is on the wire or holds more than its bounds, or when
/// what is passed on to the sender is not one clean refusal of the right class.
pub fn next_hop(input: &[u8]) {
    let [cuts, stream @ ..] = input else { return };
    let read = read(stream, *cuts);
    assert_eq!(read, self::read(stream, 1), "byte by byte");
    let (answers, _) = read;
    let mut codes = stream.split_inclusive(|byte| *byte == b'\n');
    for answer in &answers {
        // The lines of an answer, as they stand on the wire.
        let mut lines = 0;
        for line in codes.by_ref() {
            lines += 1;
            assert_eq!(line.get(..3), Some(answer.code().to_string().as_bytes()), "each line has the code");
            if line.get(3) != Some(&b'-') {
                break;
            }
        }
        assert_eq!(answer.lines().len(), lines, "no line is lost");
        is_bounded(answer);
        is_passed_on(answer);
    }
}

/// All answers, and what was wrong with the rest.
fn read(stream: &[u8], cuts: u8) -> (Vec<Answer>, Option<Nonsense>) {
    let (mut reader, mut unread) = (Reader::default(), BytesMut::new());
    let mut answers = Vec::new();
    for piece in Pieces::new(stream, cuts) {
        unread.extend_from_slice(piece);
        loop {
            match reader.read(&mut unread) {
                Ok(Some(answer)) => answers.push(answer),
                Ok(None) => break,
                Err(nonsense) => return (answers, Some(nonsense)),
            }
        }
        assert!(unread.len() <= LINE_BYTES_MAX, "no more is kept than a line");
    }
    (answers, None)
}

fn is_bounded(answer: &Answer) {
    assert!((200..600).contains(&answer.code()));
    assert!((1..=LINES_MAX).contains(&answer.lines().len()));
    for line in answer.lines() {
        assert!(line.len() <= LINE_BYTES_MAX && is_printable(line), "{line:?}");
    }
    assert!(answer.text().len() <= TEXT_MAX && is_printable(&answer.text()));
    let class = match answer.code() / 100 {
        2 => Class::Done,
        3 => Class::Continue,
        4 => Class::Temporary,
        _ => Class::Permanent,
    };
    assert_eq!(answer.class(), class);
}

fn is_passed_on(answer: &Answer) {
    let reply = answer.passed_on("mx.test:25");
    let refused_for_good = answer.class() == Class::Permanent;
    assert_eq!(reply.class(), if refused_for_good { Class::Permanent } else { Class::Temporary });
    assert!(![421, 500, 501, 502, 503, 504].contains(&reply.code()), "nothing about our own session");
    is_one_refusal(&reply);
    let reply = answer.passed_on_as_temporary("mx.test:25");
    assert_eq!((reply.class(), reply.code()), (Class::Temporary, 451));
    is_one_refusal(&reply);
}

/// One line, printable, with an enhanced code of the same class, and without the host.
fn is_one_refusal(reply: &Reply) {
    let wire = reply.to_string();
    let line = wire.strip_suffix("\r\n").expect("it ends with CRLF");
    assert!(is_printable(line) && line.len() < 512, "{line:?}");
    assert_eq!(line.get(..3), Some(reply.code().to_string().as_str()));
    assert_eq!((line.get(3..4), line.get(4..5)), (Some(" "), line.get(..1)), "{line:?}");
    assert!(line.get(5..6) == Some(".") && reply.note().contains("mx.test:25") && is_printable(reply.note()));
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}
