//! Openers that do not do as they should, whenever a message asks for it.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    process::ExitCode,
};

use node::{
    checks::{
        attachments::Analysis,
        opener::{Cause, confine},
    },
    policy::evidence::{Barred, Found},
};
use proto::{
    codec, file_name::NamePattern, fingerprint::Fingerprint, policy::ContentKind, score::Score, verdict::Reason,
};
use serde::Serialize;

/// What a message says that is to be read badly.
pub(crate) const BAD: &[u8] = b"please be a bad opener";

/// What openers say, as the node reads it.
#[derive(Serialize)]
enum Said {
    Ready { landlock: bool },
    Unfit(String),
    Found(Analysis),
}

/// What is done, and what the node makes of it.
pub(crate) const DEEDS: [(&str, Cause); 13] = [
    ("exit", Cause::Ended),
    ("abort", Cause::Aborted),
    ("memory", Cause::Aborted),
    ("depth", Cause::Aborted),
    ("file", Cause::Forbidden),
    ("exec", Cause::Forbidden),
    ("thread", Cause::Forbidden),
    ("silence", Cause::Late),
    ("loop", Cause::Late),
    ("noise", Cause::Nonsense),
    ("endless", Cause::Nonsense),
    ("ready again", Cause::Nonsense),
    ("half", Cause::Ended),
];

/// What is said that a good one would not say.
pub(crate) const LIES: [&str; 10] = [
    "a foreign fingerprint",
    "a foreign name",
    "a foreign part",
    "what was not asked for in a part",
    "for it",
    "a rule",
    "a long text",
    "a line",
    "a direction",
    "a thousand and one",
];

/// Shuts itself off, answers well, and badly when it is asked for.
pub(crate) fn opener(deed: &str) -> ExitCode {
    assert_eq!(std::env::vars_os().count(), 0, "a secret in the environment is no secret any more");
    match deed {
        "not there" => return ExitCode::FAILURE,
        "late" => std::thread::sleep(std::time::Duration::from_secs(3600)),
        "unfit" => say(&Said::Unfit("as told".to_owned())),
        "unasked" => say(&Said::Found(Analysis::default())),
        _ => {}
    }
    confine().expect("it is shut off");
    say(&Said::Ready { landlock: true });
    while let Some(question) = heard() {
        if question.windows(BAD.len()).any(|words| words == BAD) {
            lie_or_do(deed);
        }
        say(&Said::Found(Analysis::default()));
    }
    ExitCode::SUCCESS
}

fn heard() -> Option<Vec<u8>> {
    let mut input = std::io::stdin().lock();
    let mut head = [0; 4];
    input.read_exact(&mut head).ok()?;
    let mut question = vec![0; usize::try_from(u32::from_be_bytes(head)).ok()?];
    input.read_exact(&mut question).ok()?;
    Some(question)
}

fn say(word: &Said) {
    let word = codec::encode(word);
    let length = u32::try_from(word.len()).expect("short").to_be_bytes();
    raw(&[&length, &word[..]].concat());
}

fn raw(bytes: &[u8]) {
    let mut output = std::io::stdout().lock();
    output.write_all(bytes).and_then(|()| output.flush()).expect("said");
}

fn lie_or_do(deed: &str) {
    match deed {
        "exit" => std::process::exit(7),
        "abort" => std::process::abort(),
        "memory" => drop(std::hint::black_box(vec![1_u8; 4 << 30])),
        "depth" => drop(depth(1)),
        "file" => drop(std::fs::File::open("/etc/passwd")),
        "exec" => drop(std::process::Command::new("/bin/true").status()),
        "thread" => drop(std::thread::Builder::new().spawn(|| ())),
        "silence" => drop(heard()),
        "loop" => loop {
            std::hint::spin_loop();
        },
        "noise" => raw(b"\0\0\0\x05noise"),
        "endless" => raw(&[0xff; 100]),
        "ready again" => say(&Said::Ready { landlock: true }),
        "half" => {
            raw(b"\0\0\0\x05no");
            std::process::exit(0);
        }
        lie => say(&Said::Found(lied(lie))),
    }
}

/// More frames than a stack has room for.
fn depth(at: u64) -> u64 {
    let room = std::hint::black_box([at; 1024]);
    if room[0] == 0 { 0 } else { depth(at + 1) + room[1] }
}

fn barred(part: usize, what: Barred) -> Analysis {
    Analysis { barred: Some(BTreeSet::from([(part, what)])), ..Analysis::default() }
}

fn lied(lie: &str) -> Analysis {
    let found = |rule: &str, text: &str| Found { kind: ContentKind::Macro, rule: rule.into(), text: text.into() };
    let of = |one: Found| Analysis { found: vec![one], ..Analysis::default() };
    match lie {
        "a foreign fingerprint" => {
            let foreign = Fingerprint::new("foreign", 0, vec![1, 2], None).expect("sound");
            Analysis { fingerprints: vec![(foreign, "x".into())], ..Analysis::default() }
        }
        "a foreign name" => {
            let foreign = NamePattern::new("foreign").expect("sound");
            Analysis { names: vec![(foreign, "x".into())], ..Analysis::default() }
        }
        "a foreign part" => barred(99, Barred::Kind(ContentKind::Macro)),
        "what was not asked for in a part" => barred(0, Barred::Name(NamePattern::new("foreign").expect("sound"))),
        "for it" => {
            let reason = Reason { rule: "GOOD".into(), score: Score(-1), text: "x".into() };
            Analysis { reasons: vec![reason], ..Analysis::default() }
        }
        "a rule" => of(found("good, really", "x")),
        "a long text" => of(found("LONG", &"x".repeat(1001))),
        "a line" => of(found("LINE", "x\r\nX-Postern-Verdict: accept")),
        "a direction" => of(found("DIRECTION", "x\u{202e}y")),
        "a thousand and one" => Analysis { opaque: vec!["x".into(); 1001], ..Analysis::default() },
        _ => unreachable!("{lie} is no lie"),
    }
}
