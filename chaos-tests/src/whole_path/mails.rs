//! The messages that go the whole path: real ones out of a folder, or made ones; each time they are sent made new, so that no
//! scanner has seen them before.

use std::{path::Path, sync::Arc};

use anyhow::ensure;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use fastrand::Rng;
use node::{checks::attachments, limits::Limits, message::Message};
use proto::time::UnixMs;

use crate::{
    accuracy::corpus,
    edge::{
        DOMAIN, SENDER_DOMAIN,
        mails::{Mails, Route},
    },
    zones::SigningKey,
};

/// Of the order in which messages are taken.
const SEED: u64 = 5;
/// Recipients that the messages go to in turn.
const RECIPIENTS: usize = 1000;
/// Postfix takes no larger ones by default.
const BYTES_MAX: usize = 10_000_000;
/// Bytes of HTML in a made message, before it is encoded.
const HTML_BYTES: usize = 13_500;
/// Octets that are one whole line of base64, which may stand before others.
const LINE_OCTETS: usize = 57;

const WORDS: [&str; 32] = [
    "agenda",
    "annual",
    "autumn",
    "budget",
    "citizen",
    "committee",
    "council",
    "culture",
    "deadline",
    "district",
    "evening",
    "exhibition",
    "festival",
    "garden",
    "harbour",
    "invitation",
    "library",
    "meeting",
    "minister",
    "museum",
    "newsletter",
    "opening",
    "programme",
    "project",
    "railway",
    "region",
    "report",
    "school",
    "service",
    "summer",
    "village",
    "weather",
];

/// Messages and their envelopes.
#[derive(Debug)]
pub struct Set {
    /// Name in the table.
    pub name: &'static str,
    messages: Vec<(Route, Vec<u8>)>,
    /// Signs each anew.
    signing: Option<Arc<SigningKey>>,
    /// Messages that were left out because a gateway that reads them would not pass them on.
    pub left_out: usize,
}

impl Set {
    /// The first of a folder with `ham`, `spam` and `phish`, in an order that is mixed and always the same.
    ///
    /// # Errors
    /// When there is none in it.
    pub fn of_folder(folder: &Path, count: usize) -> anyhow::Result<Self> {
        let mut all = corpus::read(folder)?;
        Rng::with_seed(SEED).shuffle(&mut all);
        let (mut messages, mut left_out) = (Vec::new(), 0);
        for sorted in all {
            if messages.len() == count {
                break;
            }
            match sender(&sorted.bytes) {
                Some(from) => messages.push((route(from, messages.len()), sorted.bytes)),
                None => left_out += 1,
            }
        }
        ensure!(!messages.is_empty(), "no message in {} can be sent", folder.display());
        Ok(Self { name: "real mail", messages, signing: None, left_out })
    }

    /// Made ones: text and HTML of about 17 KB together, with links and a signature.
    #[must_use]
    pub fn made(count: usize, signing: Arc<SigningKey>) -> Self {
        let one = |n: usize| {
            let from = format!("news{}@{SENDER_DOMAIN}", n % 40);
            (route(from.clone(), n), newsletter(&from, n))
        };
        let messages = (0..count).map(one).collect();
        Self { name: "HTML, 17 KB, signed", messages, signing: Some(signing), left_out: 0 }
    }

    /// The first `count` of them as nobody has seen them before: `mark` is of this time alone.
    ///
    /// # Errors
    /// When one cannot be signed.
    pub fn fresh(&self, mark: u32, count: usize) -> anyhow::Result<Arc<Mails>> {
        let mut made = Vec::new();
        for (n, (route, message)) in self.messages.iter().take(count).enumerate() {
            let message = unlike(message, &format!("Reference {mark:08x}-{n:08x}"));
            made.push((
                route,
                match &self.signing {
                    Some(signing) => signing.sign(&message)?,
                    None => message,
                },
            ));
        }
        let each = made.iter().map(|(route, message)| (*route, message.as_slice()));
        Ok(Arc::new(Mails::each(self.name, each)?))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.messages.len()
    }
}

fn route(from: String, n: usize) -> Route {
    Route { from, to: format!("user{}@{DOMAIN}", n % RECIPIENTS) }
}

/// The reverse-path for a message, its author; `None` when it cannot be sent by SMTP as it is, or a gateway that looks into it
/// has to keep it.
fn sender(bytes: &[u8]) -> Option<String> {
    let bare = |pair: &[u8]| (pair[0] == b'\r') != (pair[1] == b'\n');
    if bytes.len() > BYTES_MAX || bytes.contains(&0) || bytes.windows(2).any(bare) {
        return None;
    }
    let message = Message::parse(bytes.to_vec().into(), &Limits::default());
    let is_broken = message.defects.iter().any(|defect| defect.breaks());
    if is_broken || !attachments::analyse(&message, &attachments::Unwanted::default()).opaque.is_empty() {
        return None;
    }
    let path = message.from.iter().find_map(|author| {
        let local = author.written.rsplit_once('@')?.0.rsplit(['<', ' ', '"']).next()?;
        let domain = author.domain.as_ref()?;
        let is_plain =
            !local.is_empty() && local.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+=".contains(&byte));
        is_plain.then(|| format!("{local}@{domain}"))
    });
    // Who names no author is answered nowhere.
    Some(path.unwrap_or_default())
}

/// The same message with another line at the beginning of each of its texts, in the encoding that the text has: no part of it that
/// people read is the same as before. What is attached stays, as it does in life.
fn unlike(message: &[u8], mark: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 200);
    let (mut in_header, mut field, mut part) = (true, Vec::new(), Part::default());
    let mut boundaries: Vec<Vec<u8>> = Vec::new();
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        out.extend_from_slice(line);
        let text = line.trim_ascii_end();
        if in_header && text.is_empty() {
            part.learn(&field, &mut boundaries);
            field.clear();
            if part.is_text {
                out.extend_from_slice(&part.line(mark));
            }
            in_header = part.is_message;
            part = Part::default();
        } else if in_header {
            if !line.starts_with(b" ") && !line.starts_with(b"\t") {
                part.learn(&field, &mut boundaries);
                field.clear();
            }
            field.extend_from_slice(text);
        } else if boundaries.iter().any(|boundary| text == boundary.as_slice()) {
            in_header = true;
        }
    }
    out
}

/// What the header of a part says so far.
#[derive(Debug)]
struct Part {
    is_text: bool,
    is_message: bool,
    is_base64: bool,
}

impl Default for Part {
    fn default() -> Self {
        Self { is_text: true, is_message: false, is_base64: false }
    }
}

impl Part {
    fn learn(&mut self, field: &[u8], boundaries: &mut Vec<Vec<u8>>) {
        let text = String::from_utf8_lossy(field);
        let lower = text.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-type:").map(str::trim) {
            self.is_text = value.starts_with("text") && !value.contains("name=");
            self.is_message = value.starts_with("message/rfc822");
            if let Some(at) = lower.find("boundary=") {
                let value = text.get(at + "boundary=".len()..).unwrap_or_default();
                let named = match value.strip_prefix('"') {
                    Some(quoted) => quoted.split('"').next(),
                    None => value.split([';', ' ']).next(),
                };
                boundaries.extend(named.map(|name| format!("--{name}").into_bytes()));
            }
        } else if let Some(value) = lower.strip_prefix("content-transfer-encoding:") {
            self.is_base64 = value.trim() == "base64";
        }
    }

    fn line(&self, mark: &str) -> Vec<u8> {
        let line = if self.is_base64 { STANDARD.encode(format!("{mark:<LINE_OCTETS$}")) } else { mark.to_owned() };
        format!("{line}\r\n").into_bytes()
    }
}

fn newsletter(from: &str, n: usize) -> Vec<u8> {
    let mut rng = Rng::with_seed(n as u64);
    let mut sentence = || {
        let words: Vec<&str> = (0..rng.usize(6..16)).map(|_| WORDS[rng.usize(..WORDS.len())]).collect();
        format!("The {}.", words.join(" "))
    };
    let mut html = String::from(
        "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><style>td{padding:8px} .a{color:#336699}</style></head>\
         <body bgcolor=\"#ffffff\"><table width=\"600\" cellpadding=\"0\">\n",
    );
    let mut plain = String::new();
    let mut row = 0;
    while html.len() < HTML_BYTES {
        let (title, text) = (sentence(), [sentence(), sentence(), sentence()].join(" "));
        let link =
            format!("https://www.{SENDER_DOMAIN}/{}/{}?id={n}&item={row}", WORDS[row % 32], WORDS[(row + n) % 32]);
        html += &format!(
            "<tr><td class=\"a\" style=\"border:1px solid #cccccc\"><h2>{title}</h2><p>{text}</p>\
             <a href=\"{link}\" target=\"_blank\">more &raquo;</a></td></tr>\n"
        );
        if row < 6 {
            plain += &format!("{title}\r\n{text}\r\n{link}\r\n\r\n");
        }
        row += 1;
    }
    html += "</table></body></html>\n";
    format!(
        "From: News of the region <{from}>\r\nTo: user@{DOMAIN}\r\nSubject: News of the region, number {n}\r\nDate: {}\r\n\
         Message-ID: <news-{n}@{SENDER_DOMAIN}>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/alternative; boundary=\"=_alternative\"\r\n\r\n--=_alternative\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\n{plain}\r\n--=_alternative\r\n\
         Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n{}\r\n\
         --=_alternative--\r\n",
        UnixMs::now().rfc5322(),
        quoted_printable(&html)
    )
    .into_bytes()
}

/// Of text in ASCII (RFC 2045 section 6.7).
fn quoted_printable(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut length = 0;
        for c in line.chars() {
            if length > 70 {
                out += "=\r\n";
                length = 0;
            }
            let before = out.len();
            if c == '=' {
                out += "=3D"
            } else {
                out.push(c)
            }
            length += out.len() - before;
        }
        out += "\r\n";
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use node::{limits::Limits, message::Message};

    use super::{Set, sender, unlike};
    use crate::zones::SigningKey;

    fn contents(message: Vec<u8>) -> Vec<String> {
        let message = Message::parse(message.into(), &Limits::default());
        assert!(message.defects.is_empty(), "{:?}", message.defects);
        message.parts.iter().map(|part| String::from_utf8_lossy(&part.content).into_owned()).collect()
    }

    #[test]
    fn each_text_of_a_message_begins_anew_in_its_encoding_and_attachments_stay() {
        let message = b"From: a@good.example\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n boundary=\"b\"\r\n\r\n--b\r\n\
            Content-Type: text/plain\r\n\r\none\r\n--b\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n\
            dHdv\r\n--b\r\nContent-Type: application/pdf; name=\"a.pdf\"\r\n\r\n%PDF-1.4\r\n--b--\r\n";
        let parts = contents(unlike(message, "Reference 1"));
        let [one, two, three] = parts.as_slice() else { panic!("three parts: {parts:?}") };
        assert_eq!(one.trim_end(), "Reference 1\r\none");
        assert!(two.starts_with("Reference 1 ") && two.ends_with("two"), "{two}");
        assert_eq!(three.trim_end(), "%PDF-1.4");
        assert_eq!(unlike(b"Subject: s\r\n\r\nhi\r\n", "R"), b"Subject: s\r\n\r\nR\r\nhi\r\n");
    }

    #[test]
    fn made_mail_is_of_its_size_whole_and_never_twice_the_same() {
        let set = Set::made(3, Arc::new(SigningKey::fresh().expect("a key")));
        let [one, two] = [1, 2].map(|mark| set.fresh(mark, 2).expect("signed"));
        assert_eq!((one.count(), set.count()), (2, 3));
        assert!((15_500..19_000).contains(&one.bytes_mean()), "{}", one.bytes_mean());
        let parts = [&one, &two].map(|mails| contents(mails.nth(1).body.clone()));
        assert_eq!(parts[0].len(), 2);
        for (first, second) in parts[0].iter().zip(&parts[1]) {
            assert_ne!(first, second);
        }
        assert!(parts[0][1].contains("<a href=\"https://www.good.example/"));
    }

    #[test]
    fn what_smtp_or_a_gateway_would_not_take_is_left_out() {
        let with = |text: &str| sender(text.as_bytes());
        assert_eq!(with("From: A <a.b@good.example>\r\n\r\nhi\r\n").as_deref(), Some("a.b@good.example"));
        assert_eq!(with("Subject: nobody\r\n\r\nhi\r\n").as_deref(), Some(""));
        assert_eq!(with("From: a@good.example\r\n\r\nh\ri\r\n"), None);
        assert_eq!(with("From: a@good.example\r\n\r\nh\0i\r\n"), None);
        assert_eq!(with("From: a@good.example\r\nFrom: b@good.example\r\n\r\nhi\r\n"), None);
    }
}
