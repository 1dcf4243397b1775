//! What clamd answers.

use node::{
    checks::virus::reply::{read_scan, read_version},
    policy::evidence::Virus,
};

/// An answer, to a scan and to VERSION.
///
/// # Panics
/// When anything but the exact words for clean is clean, when malware is not what clamd names, or when people are told what could
/// do harm where it is shown.
pub fn clamd(input: &[u8]) {
    let line = input.strip_suffix(b"\0").or_else(|| input.strip_suffix(b"\n")).unwrap_or(input);
    match read_scan(input) {
        Ok(Virus::Clean) => assert_eq!(line, b"stream: OK", "clean"),
        Ok(Virus::Infected { name }) => {
            is_printable(&name);
            let told = line.strip_prefix(b"stream: ").and_then(|rest| rest.strip_suffix(b" FOUND")).expect("FOUND");
            assert!(!name.is_empty() && told.starts_with(name.as_bytes()), "{name}");
            assert!(told.len() == name.len() || name.len() == 200, "{name}");
        }
        Ok(Virus::Unscannable { why }) => {
            is_printable(&why);
            let is_found = line.starts_with(b"stream: Heuristics.Limits.Exceeded") && line.ends_with(b" FOUND");
            assert!(is_found || line == b"INSTREAM size limit exceeded. ERROR");
        }
        Ok(other) => panic!("clamd does not say {other:?}"),
        Err(why) => {
            is_printable(&why);
            assert_ne!(line, b"stream: OK");
        }
    }
    match read_version(input) {
        Ok(version) => {
            is_printable(&version.line);
            assert_eq!(version.line.as_bytes(), line);
            let parts: Vec<&str> = version.line.split('/').collect();
            assert!(parts[0].starts_with("ClamAV ") && parts[0].len() > 7);
            assert_eq!(version.database.is_some(), parts.len() == 3, "all or nothing");
            let number = version.database.map(|database| database.number.to_string());
            let written = parts.get(1).map(|number| number.trim_start_matches('0'));
            assert_eq!(number.as_deref().map(|number| number.trim_start_matches('0')), written);
        }
        Err(why) => is_printable(&why),
    }
}

fn is_printable(text: &str) {
    assert!(text.len() <= 300 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
}
