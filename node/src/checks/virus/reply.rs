//! The grammar of clamd's answers. What is not exactly one of the words is no answer, and never a pass.

use std::sync::Arc;

use jiff::{civil::DateTime, tz::TimeZone};
use proto::time::UnixMs;

use crate::policy::evidence::Virus;

/// Longest text of clamd's that is passed on to people, in characters.
const TEXT_CHARS_MAX: usize = 200;
/// How far ahead of our clock a database's time may be: clamd tells it in its own zone, without saying which.
const AHEAD_MS_MAX: u64 = 24 * 3600 * 1000;

/// What VERSION says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The whole line: another program or another database has another one.
    pub line: Arc<str>,
    /// The official database; `None` where clamd does not name one.
    pub database: Option<Database>,
}

/// The official database of signatures that clamd has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Database {
    /// It grows with each publication.
    pub number: u64,
    /// When it was made, as if clamd's zone were UTC: up to 14 hours wrong.
    pub made_at: UnixMs,
}

impl Database {
    /// Its age in milliseconds; `None` when it is from further ahead than a zone explains, so nobody knows.
    #[must_use]
    pub fn age_ms(&self, now: UnixMs) -> Option<u64> {
        (self.made_at.since_ms(now) <= AHEAD_MS_MAX).then(|| now.since_ms(self.made_at))
    }
}

/// The whole grammar of an answer to INSTREAM: `stream: OK` or `stream: NAME FOUND`, ended by NUL or LF.
///
/// # Errors
/// Anything else, in words for the operator.
pub fn read_scan(reply: &[u8]) -> Result<Virus, String> {
    let text = String::from_utf8_lossy(reply);
    let line = line(&text);
    if line == "stream: OK" {
        return Ok(Virus::Clean);
    }
    // clamd has not looked at all of it: that is no malware, and no pass.
    let over_limits = || Virus::Unscannable { why: "the message is over clamd's limits".to_owned() };
    if line == "INSTREAM size limit exceeded. ERROR" {
        return Ok(over_limits());
    }
    let name = line.strip_prefix("stream: ").and_then(|rest| rest.strip_suffix(" FOUND"));
    match name.filter(|name| !name.is_empty() && is_printable(name)) {
        Some(name) if name.starts_with("Heuristics.Limits.Exceeded") => Ok(over_limits()),
        Some(name) => Ok(Virus::Infected { name: printable(name) }),
        None if line.is_empty() => Err("clamd closed the connection without an answer".to_owned()),
        None => Err(printable(&format!("clamd answered: {line}"))),
    }
}

/// The answer to VERSION: `ClamAV 1.4.3`, or `ClamAV 1.4.3/27800/Sun Nov 22 09:41:02 2026` with an official database.
///
/// # Errors
/// Anything else, in words for the operator.
pub fn read_version(reply: &[u8]) -> Result<Version, String> {
    let text = String::from_utf8_lossy(reply);
    let line = line(&text);
    let wrong = || printable(&format!("clamd answered VERSION with: {line}"));
    let known = line.strip_prefix("ClamAV ").filter(|rest| !rest.is_empty() && is_printable(rest));
    let rest = known.filter(|_| line.len() <= TEXT_CHARS_MAX).ok_or_else(wrong)?;
    let parts: Vec<&str> = rest.split('/').collect();
    let database = match parts.as_slice() {
        ["", ..] => return Err(wrong()),
        [_] => None,
        [_, number, made] => Some(database(number, made).ok_or_else(wrong)?),
        _ => return Err(wrong()),
    };
    Ok(Version { line: line.into(), database })
}

fn database(number: &str, made: &str) -> Option<Database> {
    let made = DateTime::strptime("%a %b %e %H:%M:%S %Y", made).ok()?;
    let made_ms = made.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond();
    let all_digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok().filter(|_| all_digits)?;
    Some(Database { number, made_at: UnixMs(u64::try_from(made_ms).ok()?) })
}

fn line(text: &str) -> &str {
    text.strip_suffix('\0').or_else(|| text.strip_suffix('\n')).unwrap_or(text)
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

/// Without hostile characters, and not longer than people read.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use proto::time::UnixMs;

    use super::{read_scan, read_version};
    use crate::policy::evidence::Virus;

    #[test]
    fn only_the_exact_words_are_clean_or_infected() {
        assert_eq!(read_scan(b"stream: OK\0"), Ok(Virus::Clean));
        assert_eq!(
            read_scan(b"stream: Eicar-Signature FOUND\n"),
            Ok(Virus::Infected { name: "Eicar-Signature".into() })
        );
        for reply in [
            &b""[..],
            b"\0",
            b"OK",
            b"stream: ok",
            b"stream: OK ",
            b"stream: OK\0stream: OK\0",
            b"stream: OK\nx",
            b" stream: OK",
            b"1: stream: OK",
            b"stream:  FOUND",
            b"stream: a\nb FOUND",
            b"stream: Can't allocate memory ERROR",
            b"PONG\0",
            b"\xff\xfe",
        ] {
            assert!(read_scan(reply).is_err(), "{reply:?}");
        }
        for reply in
            [&b"INSTREAM size limit exceeded. ERROR\0"[..], b"stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND\0"]
        {
            assert_eq!(read_scan(reply).map(|found| found.as_str()), Ok("unscannable"), "{reply:?}");
        }
    }

    #[test]
    fn a_version_names_the_database_and_its_time_or_none() {
        let version = read_version(b"ClamAV 1.4.6/27810/Sun Nov  1 09:41:02 2026\0").expect("a version");
        assert_eq!(&*version.line, "ClamAV 1.4.6/27810/Sun Nov  1 09:41:02 2026");
        let database = version.database.expect("a database");
        assert_eq!((database.number, database.made_at), (27810, UnixMs(1_793_526_062_000)));
        assert_eq!(read_version(b"ClamAV 1.4.6\n").map(|version| version.database), Ok(None));
        for reply in [
            &b""[..],
            b"ClamAV ",
            b"PONG\0",
            b"ClamAV 1.4.6/27810\0",
            b"ClamAV /27810/Sun Nov  1 09:41:02 2026\0",
            b"ClamAV 1.4.6/+1/Sun Nov  1 09:41:02 2026\0",
            b"ClamAV 1.4.6/27810/yesterday\0",
            b"ClamAV 1.4.6/27810/Mon Nov  1 09:41:02 2026\0",
            b"ClamAV 1.4.6/27810/Sun Nov  1 09:41:02 1926\0",
            b"ClamAV 1.4.6\0ClamAV 1.4.6\0",
        ] {
            assert!(read_version(reply).is_err(), "{reply:?}");
        }
    }

    #[test]
    fn a_database_from_the_future_has_no_age() {
        let database = read_version(b"ClamAV 1/2/Sun Nov  1 00:00:00 2026\0").expect("a version").database;
        let database = database.expect("a database");
        let (made, hour) = (database.made_at, 3_600_000);
        assert_eq!(database.age_ms(made.plus_ms(8 * 24 * hour)), Some(8 * 24 * hour));
        assert_eq!(database.age_ms(UnixMs(made.0 - 14 * hour)), Some(0), "that is its zone");
        assert_eq!(database.age_ms(UnixMs(made.0 - 25 * hour)), None);
    }
}
