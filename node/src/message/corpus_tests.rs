//! Messages of others, which are not part of the repository:
//! `POSTERN_CONFORMANCE=FOLDER cargo test -p node --lib message::corpus -- --nocapture`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use proto::{policy::PolicyLayer, verdict::Disposition};

use super::Message;
use crate::{
    checks::{attachments, content, facts::Facts},
    limits::Limits,
    policy::{
        decide::decide,
        evidence::Evidence,
        samples::{clean, transaction, view},
    },
};

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// As DATA would let it through: each line ends with CRLF, and there is no NUL.
fn as_received(content: &[u8]) -> Bytes {
    let text: Vec<u8> = content.iter().copied().filter(|byte| !matches!(byte, b'\r' | 0)).collect();
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    Bytes::from(
        lines.flat_map(|line| [line.strip_suffix(b"\n").unwrap_or(line), b"\r\n"].concat()).collect::<Vec<u8>>(),
    )
}

fn disposition(message: &Message) -> Disposition {
    let transaction = transaction(view(PolicyLayer::default()), &["anna@interior.gov.test"]);
    let found = attachments::analyse(message, &attachments::Unwanted::default());
    let content = content::analyse(&Facts::of(message, &transaction), None).reasons;
    let evidence = Evidence { kinds: found.found, opaque: found.opaque, content, ..clean() };
    decide(message, &evidence, &transaction).remove(0).1.disposition
}

/// What lines hold, however they end.
fn plain(content: &[u8]) -> Vec<u8> {
    content.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect()
}

/// What another reader (Apache James Mime4J) has taken out of a message: `NAME_decoded_1_2.txt` beside `NAME.msg`.
fn expected(message: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let name = message.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let beside = files(message.parent().expect("a folder")).into_iter().filter(|file| {
        let other = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let of_it = other.strip_prefix(&name).is_some_and(|rest| rest.starts_with("_decoded_"));
        of_it && (other.ends_with(".txt") || other.ends_with(".bin"))
    });
    beside.map(|file| (file.clone(), plain(&std::fs::read(&file).expect("a readable file")))).collect()
}

#[test]
fn every_message_of_a_folder_gets_a_verdict_and_is_taken_apart_as_others_do() {
    #[expect(clippy::disallowed_methods, reason = "the folder is named by whoever has one")]
    let Ok(folder) = std::env::var("POSTERN_CONFORMANCE") else { return };
    let mut files = files(Path::new(&folder));
    files.sort();
    assert!(!files.is_empty());
    let (mut dispositions, mut defects, mut missing) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let mut compared = 0;
    for file in files {
        let bytes = as_received(&std::fs::read(&file).expect("a readable file"));
        let message = Message::parse(bytes.clone(), &Limits::default());
        *dispositions.entry(format!("{:?}", disposition(&message))).or_insert(0) += 1;
        for defect in &message.defects {
            println!("{defect:?} {}", file.display());
            *defects.entry(format!("{defect:?}")).or_insert(0) += 1;
        }
        if file.extension().is_some_and(|ending| ending == "msg")
            && !message.defects.iter().any(|defect| defect.breaks())
        {
            let parts: Vec<Vec<u8>> = message.parts.iter().map(|part| plain(&part.content)).collect();
            let expected = expected(&file);
            compared += expected.len();
            // A message within it stands there as it is; and of a part that breaks off, or goes on behind its padding, readers take
            // the last bytes differently.
            let whole = plain(&bytes);
            let is_there = |content: &[u8]| {
                let begin = &content[..content.len().saturating_sub(2)];
                parts.iter().any(|part| part == content || !begin.is_empty() && part.starts_with(begin))
                    || memchr::memmem::find(&whole, content).is_some()
            };
            missing.extend(expected.into_iter().filter(|(_, content)| !is_there(content)).map(|(file, _)| file));
        }
    }
    println!("{dispositions:?}\n{defects:?}\n{compared} parts compared");
    assert!(missing.is_empty(), "{} parts are other ones: {missing:#?}", missing.len());
}
