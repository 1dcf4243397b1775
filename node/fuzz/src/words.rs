//! Values of header fields: encoded words (RFC 2047), parameters (RFC 2231), addresses.

use std::fmt::Write as _;

use node::{
    limits::Limits,
    message::{Message, without_controls},
};

use super::judged::judged;

/// The fields that are read into something.
const FIELDS: [&str; 10] = [
    "Subject: ",
    "From: ",
    "Sender: ",
    "Reply-To: ",
    "Content-Type: application/octet-stream; ",
    "Content-Disposition: attachment; ",
    "Content-Type: ",
    "Received: ",
    "Message-ID: ",
    "Date: ",
];

/// A value. Its first byte says of which field; from 128 on it is a text that is encoded first, in one of the ways that senders
/// know.
///
/// # Panics
/// When the message is not judged as promised, when the value makes another field, or when a name or subject that was encoded by
/// the rules is not read as it was.
pub fn words(input: &[u8]) {
    let [how, value @ ..] = input else { return };
    if *how < 128 {
        let field = FIELDS[usize::from(*how) % FIELDS.len()];
        let message = judged(&with(field, value), &Limits::default());
        let fields = 2 + usize::from(!field.starts_with("From"));
        assert_eq!(message.header.fields.len(), fields, "a value is no field");
    } else if let Ok(text) = std::str::from_utf8(value) {
        is_read_as_written(text, how % 4);
    }
}

/// A message with a field of such a value; a line end in it folds the field.
fn with(field: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = b"X-First: x\r\n".to_vec();
    if !field.starts_with("From") {
        bytes.extend(b"From: a@sender.test\r\n");
    }
    bytes.extend(field.bytes());
    for byte in value {
        match byte {
            b'\r' => {}
            b'\n' => bytes.extend(b"\r\n\t"),
            byte => bytes.push(*byte),
        }
    }
    bytes.extend(b"\r\n\r\nbody\r\n");
    bytes
}

/// What is encoded by the rules is read, and without what could do harm where it is shown.
fn is_read_as_written(text: &str, how: u8) {
    let subject = Message::parse(
        with("Subject: ", encoded_words(text, how.is_multiple_of(2)).as_bytes()).into(),
        &Limits::default(),
    );
    let shown: String = without_controls(text).trim().chars().take(node::message::SUBJECT_CHARS_MAX).collect();
    assert_eq!(bare(&subject.subject), bare(&shown));
    if text.is_empty() {
        return;
    }
    let value = match how {
        0 | 1 => format!("filename=\"{}\"", encoded_words(text, how == 0)),
        2 => format!("filename*=utf-8''{}", percent(text)),
        _ => sections(text),
    };
    let message =
        Message::parse(with("Content-Disposition: attachment; ", value.as_bytes()).into(), &Limits::default());
    let names = &message.parts[0].names;
    assert!(names.iter().any(|name| bare(name) == bare(text)), "{value} is {names:?}");
}

/// Without what is not seen of it.
fn bare(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && !c.is_whitespace()).collect()
}

/// As many words as are needed, each of at most 75 characters (RFC 2047 section 2).
fn encoded_words(text: &str, quoted: bool) -> String {
    let mut words: Vec<String> = Vec::new();
    let letters: Vec<char> = text.chars().collect();
    for piece in letters.chunks(if quoted { 5 } else { 11 }) {
        let piece: String = piece.iter().collect();
        words.push(if quoted {
            let hex: String = piece.bytes().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "={byte:02X}");
                hex
            });
            format!("=?utf-8?Q?{hex}?=")
        } else {
            format!("=?UTF-8?b?{}?=", base64(piece.as_bytes()))
        });
    }
    words.join(" ")
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "%{byte:02x}");
        hex
    })
}

/// In pieces, on a line each (RFC 2231 section 4.1).
fn sections(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let piece = |(number, letters): (usize, &[char])| {
        let charset = if number == 0 { "utf-8''" } else { "" };
        format!("filename*{number}*={charset}{}", percent(&letters.iter().collect::<String>()))
    };
    letters.chunks(7).enumerate().map(piece).collect::<Vec<_>>().join(";\n")
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= three.len() { char::from(letter) } else { '=' });
        }
    }
    text
}
