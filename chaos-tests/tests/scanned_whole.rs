//! Text by the book is not scanned by itself: a real clamd finds it in the message, whatever that begins with. When this fails after
//! an update of clamd, `node/src/message/plain.rs` calls too much plain.

use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chaos_tests::{
    binaries::programs,
    cluster::clamd::{self, Clamd},
    janitor::Janitor,
    letters,
    runtime::run,
};
use indicatif::ProgressBar;
use node::{
    checks::virus::{ClamdAddress, VirusScanner},
    limits::Limits,
    message::Message,
};

/// What a second signature knows.
const MARK: &str = "zq-malware-of-this-test-0815-zq";
const HEADER: &str = "From: a@b.example\r\nTo: c@d.example\r\nSubject: s\r\nMIME-Version: 1.0\r\n";

/// In base64, all of it escaped, and with a soft end of a line at each place.
fn encoded(text: &str) -> Vec<(&'static str, String)> {
    let digits = STANDARD.encode(text);
    let lines: Vec<&str> = digits.as_bytes().chunks(76).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    let escapes: Vec<String> = text.bytes().map(|byte| format!("={byte:02X}")).collect();
    let escapes: Vec<String> = escapes.chunks(20).map(<[String]>::concat).collect();
    let mut all = vec![("base64", lines.join("\r\n")), ("quoted-printable", escapes.join("=\r\n"))];
    for at in (5..70).step_by(20) {
        let (before, after) = text.split_at(text.len() - at);
        let before: Vec<String> =
            before.as_bytes().chunks(60).map(|line| String::from_utf8_lossy(line).replace('=', "=3D")).collect();
        all.push(("quoted-printable", format!("{}=\r\n{}", before.join("=\r\n"), after.replace('=', "=3D"))));
    }
    all
}

/// The part alone, and in multiparts of each kind, in each other.
fn placed(part: &str) -> Vec<String> {
    let mut all = vec![part.to_owned()];
    let mut inner = part.to_owned();
    for (kind, boundary) in
        [("alternative", "=_a.b-1"), ("related", "----=_Part_2:3"), ("mixed", "c'/+d"), ("alternative", "0")]
    {
        let text = "Content-Type: text/plain; charset=utf-8\r\n\r\nhello\r\n";
        inner = format!(
            "Content-Type: multipart/{kind}; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n{text}\r\n--{boundary}\r\n\
             {inner}\r\n--{boundary}--\r\n"
        );
        all.push(inner.clone());
    }
    all
}

#[test]
fn clamd_finds_in_the_message_what_is_not_scanned_by_itself() -> anyhow::Result<()> {
    run(async {
        let path = clamd::installed().context("clamd is not installed")?;
        let folder = tempfile::tempdir()?;
        let janitor = Janitor::start(&programs(&ProgressBar::hidden()).await?.peer, None)?;
        // Of HTML clamd looks only at what it has brought into lower case, wherever it stands.
        let signatures = folder.path().join("signatures");
        std::fs::create_dir(&signatures)?;
        std::fs::write(signatures.join("mark.ndb"), format!("Local.MARK:0:*:{}\n", hex::encode(MARK)))?;
        let clamd = Clamd::start(&path, folder.path(), folder.path().join("clamd.log"), &janitor).await?;
        let limits = Limits { virus_cache_max: 0, ..Limits::default() };
        let scanner = VirusScanner::new(vec![ClamdAddress::Tcp(clamd.address)], &limits);
        let eicar = String::from_utf8(letters::eicar())?;
        let mut scanned = 0;
        for text in [eicar, format!("<html><body>\r\n<p>hello {MARK}</p></body></html>\r\n")] {
            for kind in ["text/plain; charset=utf-8", "text/html; charset=\"iso-8859-1\"", "text/html"] {
                for (encoding, body) in encoded(&text) {
                    let part = format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{body}");
                    for (at, placed) in placed(&part).into_iter().enumerate() {
                        let first = ["", "%PDF-1.4: a\r\n", "MZ: a\r\n", "X-First: a\r\n"][at % 4];
                        let message = format!("{first}{HEADER}{placed}");
                        let parsed = Message::parse(message.clone().into(), &Limits::default());
                        let is_plain = parsed.parts.last().is_some_and(|part| part.is_plain);
                        ensure!(is_plain && parsed.defects.is_empty(), "it is not plain:\n{message}");
                        let said = scanner.scan(&parsed.bytes, &[]).await;
                        ensure!(said.as_str() == "infected", "{said:?}:\n{message}");
                        scanned += 1;
                    }
                }
            }
        }
        println!("{scanned} messages");
        clamd.stop().await
    })
}
