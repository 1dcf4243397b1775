//! What follows DATA and BDAT, against a reader that is written to be read and not to be fast.

use node::smtp::data::{DataDecoder, DataFault};

use super::pieces::Pieces;

/// One stream. Its first byte says whether it follows DATA (even) or BDAT (odd), the second how it is cut, the third how
/// large a message may be: so many times four bytes.
///
/// # Panics
/// When the cuts make a difference, when more is kept than the bound or the room that was asked for, when anything but
/// CRLF.CRLF ends a message, or when a message gets through that the plain reader refuses or reads differently.
pub fn data(input: &[u8]) {
    let [kind, cuts, bound, stream @ ..] = input else { return };
    let stuffed = kind % 2 == 0;
    let bytes_max = usize::from(*bound) * 4;
    let decoded = decode(stream, *cuts, stuffed, bytes_max);
    assert_eq!(any_fault(&decoded), plainly(stream, stuffed, bytes_max), "as the plain reader reads it");
    assert_eq!(decoded, decode(stream, 1, stuffed, bytes_max), "byte by byte");
    gives_up(stream, *cuts, stuffed, bytes_max);
}

/// How many bytes of the stream are the message and its end, and what it is. Nothing when it has not ended.
type Decoded = Option<(usize, Result<Vec<u8>, DataFault>)>;

/// Which of two faults is told, when one message has both, is all the same.
fn any_fault(decoded: &Decoded) -> Decoded {
    decoded.clone().map(|(used, result)| {
        let told = result.map_err(|fault| if fault == DataFault::Nul { DataFault::BareLineEnd } else { fault });
        (used, told)
    })
}

fn decoder(stuffed: bool, bytes_max: usize) -> DataDecoder {
    if stuffed { DataDecoder::new(bytes_max) } else { DataDecoder::chunked(bytes_max) }
}

fn decode(stream: &[u8], cuts: u8, stuffed: bool, bytes_max: usize) -> Decoded {
    let mut decoder = decoder(stuffed, bytes_max);
    let mut used = 0;
    for piece in Pieces::new(stream, cuts) {
        let wanted = decoder.wanted_bytes(piece.len());
        let ended = decoder.feed(piece);
        assert!(decoder.stored_bytes() <= wanted, "no more is kept than there was asked room for");
        assert!(decoder.stored_bytes() <= bytes_max, "no more is kept than the bound");
        assert!(decoder.fault().is_none() || decoder.stored_bytes() == 0, "nothing is kept of what is refused");
        if let Some(last) = ended {
            return Some((used + last, decoder.finish().map(|bytes| bytes.to_vec())));
        }
        used += piece.len();
    }
    (!stuffed).then(|| (used, decoder.finish().map(|bytes| bytes.to_vec())))
}

/// The same by the words of RFC 5321 section 4.5.2 and RFC 3030 section 2. A NUL counts as a bare line end.
fn plainly(stream: &[u8], stuffed: bool, bytes_max: usize) -> Decoded {
    const END: &[u8] = b"\r\n.\r\n";
    if !stuffed {
        return Some((stream.len(), clean(stream, false, bytes_max)));
    }
    // The CRLF of the DATA line is the first half of the end of an empty message.
    let whole = [b"\r\n", stream].concat();
    let at = whole.windows(END.len()).position(|window| window == END)?;
    Some((at + END.len() - 2, clean(&whole[2..at + 2], true, bytes_max)))
}

/// A message of lines, or why it is none.
fn clean(text: &[u8], stuffed: bool, bytes_max: usize) -> Result<Vec<u8>, DataFault> {
    let mut message: Vec<u8> = Vec::new();
    let mut fault = None;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let line_start = at == 0 || text[..at].ends_with(b"\r\n");
        at += 1;
        match byte {
            b'.' if line_start && stuffed => {}
            b'\r' if text.get(at) == Some(&b'\n') => {
                at += 1;
                message.extend_from_slice(b"\r\n");
            }
            b'\r' | b'\n' | 0 => fault = Some(DataFault::BareLineEnd),
            other => message.push(other),
        }
    }
    if !stuffed && !text.is_empty() && !text.ends_with(b"\r\n") {
        message.extend_from_slice(b"\r\n");
    }
    match fault {
        Some(fault) => Err(fault),
        None if message.len() > bytes_max => Err(DataFault::TooLarge),
        None => Ok(message),
    }
}

/// A message that there is no room for is read to the same end, and nothing is kept of it.
fn gives_up(stream: &[u8], cuts: u8, stuffed: bool, bytes_max: usize) {
    let mut decoder = decoder(stuffed, bytes_max);
    decoder.give_up();
    let mut used = 0;
    let ended = Pieces::new(stream, cuts).any(|piece| {
        let ended = decoder.feed(piece);
        used += ended.unwrap_or(piece.len());
        assert_eq!(decoder.stored_bytes(), 0, "nothing is kept of what there is no room for");
        ended.is_some()
    });
    let expected = plainly(stream, stuffed, bytes_max).filter(|_| stuffed).map(|(end, _)| end);
    assert_eq!(ended.then_some(used), expected, "it is read to its end");
    assert!(decoder.finish().is_err(), "and refused");
}
