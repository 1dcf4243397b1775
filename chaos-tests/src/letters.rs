//! The messages of the test world, made when they are wanted.

use std::io::{Cursor, Write as _};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{held::TransactionId, time::UnixMs};

/// A message with its header and text; attachments come as parts.
#[derive(Clone, Debug)]
pub struct Letter {
    from: String,
    to: String,
    subject: String,
    text: String,
    attachment: Option<(String, String, Vec<u8>)>,
    /// Message-ID, unique.
    pub message_id: String,
}

impl Letter {
    /// An ordinary one. `from` is the From field, which need not be the reverse-path.
    #[must_use]
    pub fn new(from: &str, to: &str, subject: &str) -> Self {
        let domain = from.rsplit_once('@').map_or("example", |(_, domain)| domain.trim_end_matches('>'));
        Self {
            from: from.to_owned(),
            to: to.to_owned(),
            subject: subject.to_owned(),
            text: "Dear colleague,\r\n\r\nthe minutes of yesterday's meeting follow on Friday.\r\n\r\nKind regards\r\n"
                .into(),
            attachment: None,
            message_id: format!("<{}@{domain}>", TransactionId::fresh()),
        }
    }

    /// With another text.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        text.clone_into(&mut self.text);
        self
    }

    /// With a file.
    #[must_use]
    pub fn attach(mut self, name: &str, media_type: &str, bytes: &[u8]) -> Self {
        self.attachment = Some((name.to_owned(), media_type.to_owned(), bytes.to_owned()));
        self
    }

    /// The bytes, lines ended by CRLF.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut message = format!(
            "From: {}\r\nTo: {}\r\nSubject: {}\r\nDate: {}\r\nMessage-ID: {}\r\nMIME-Version: 1.0\r\n",
            self.from,
            self.to,
            self.subject,
            UnixMs::now().rfc5322(),
            self.message_id
        );
        let text = format!("Content-Type: text/plain; charset=utf-8\r\n\r\n{}", self.text);
        let Some((name, media_type, bytes)) = &self.attachment else { return (message + &text).into_bytes() };
        let encoded = STANDARD.encode(bytes);
        let lines: Vec<&str> =
            encoded.as_bytes().chunks(76).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        message.push_str("Content-Type: multipart/mixed; boundary=\"=_b1\"\r\n\r\n--=_b1\r\n");
        message.push_str(&text);
        message.push_str(&format!(
            "\r\n--=_b1\r\nContent-Type: {media_type}; name=\"{name}\"\r\nContent-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment; filename=\"{name}\"\r\n\r\n{}\r\n--=_b1--\r\n",
            lines.join("\r\n")
        ));
        message.into_bytes()
    }
}

/// A text of about this many bytes, for load.
#[must_use]
pub fn text_of(bytes: usize) -> String {
    let line = "The committee has taken note of the report and asks for its publication.\r\n";
    line.repeat(bytes / line.len() + 1)
}

/// Spam that scores between quarantine and rejection.
pub const SPAM: &str = "Dear winner,\r\n\r\n\
    You have been selected as the winner of our lottery. Click here to claim your prize:\r\n\
    http://claims.lottery-claims.example/winner?id=123456\r\n\r\n\
    This is a limited time offer.\r\n";

/// What people write.
pub const MINUTES: &str = "Dear Anna,\r\n\r\nhere are the minutes of our meeting. We have agreed that the report goes to the committee \
    before the end of the month,\r\nthat Karl asks the archive for the missing files, and that we look at the plan again when they are \
    there.\r\nPlease tell me by Friday whether point three is as you remember it.\r\n\r\nKind regards\r\nKarl\r\n";

/// The Generic Test for Unsolicited Bulk Email, known to mail filters.
#[must_use]
pub fn gtube() -> String {
    // In two halves, so that no filter finds it in this source file.
    format!("{}{}\r\n", "XJS*C4JDBQADN1.NSBN3*2IDNEN*", "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X")
}

/// The EICAR test file, known to virus scanners: 68 bytes.
#[must_use]
pub fn eicar() -> Vec<u8> {
    format!("{}{}", r"X5O!P%@AP[4\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*").into_bytes()
}

/// The head of a Windows program: an MZ stub that points at a PE header.
#[must_use]
pub fn windows_program() -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x80;
    bytes[0x80..0x86].copy_from_slice(b"PE\0\0\x64\x86");
    bytes
}

/// A ZIP archive with one harmless file.
///
/// # Errors
/// Never in memory.
pub fn zip_archive() -> anyhow::Result<Vec<u8>> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file("report.txt", zip::write::SimpleFileOptions::default()).context("begin a file")?;
    archive.write_all(b"All is well.\n").context("write a file")?;
    Ok(archive.finish().context("finish the archive")?.into_inner())
}

/// Multiparts within multiparts, deeper than any limit allows.
#[must_use]
pub fn nested(from: &str, to: &str, depth: usize) -> Vec<u8> {
    let letter = Letter::new(from, to, "Matryoshka").bytes();
    let head = String::from_utf8_lossy(&letter);
    let head = head.split("Content-Type:").next().unwrap_or_default();
    let mut message = head.to_owned();
    for level in 0..depth {
        message.push_str(&format!("Content-Type: multipart/mixed; boundary=\"=_{level}\"\r\n\r\n--=_{level}\r\n"));
    }
    message.push_str("Content-Type: text/plain\r\n\r\ninnermost\r\n");
    for level in (0..depth).rev() {
        message.push_str(&format!("--=_{level}--\r\n"));
    }
    message.into_bytes()
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::{Letter, eicar};

    #[test]
    fn the_test_file_is_the_one_that_scanners_know() {
        let digest = hex::encode(Sha256::digest(eicar()));
        assert_eq!(digest, "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f");
    }

    #[test]
    fn two_letters_have_different_ids_and_only_crlf() {
        let letter = || Letter::new("Anna <a@good.example>", "b@x.example", "Hi").attach("a.bin", "a/b", &[0; 300]);
        assert_ne!(letter().message_id, letter().message_id);
        let bytes = String::from_utf8(letter().bytes()).expect("ASCII");
        assert!(bytes.contains("@good.example>\r\n"));
        assert_eq!(bytes.matches('\n').count(), bytes.matches("\r\n").count());
        assert!(bytes.split("\r\n").all(|line| line.len() < 998));
    }
}
