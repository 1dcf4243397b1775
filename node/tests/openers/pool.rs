//! The openers of a node, good ones and bad ones: what each message gets, and that the next one is read.

use std::{
    collections::BTreeSet, future::Future, net::Ipv4Addr, path::Path, pin::pin, process::Command, time::Duration,
};

use futures::{future::Either, poll};
use ipnet::IpNet;
use node::{
    checks::{
        attachments::{self, Unwanted},
        opener::{ARGUMENT, Cause, Openers, Program, Unopened},
    },
    limits::Limits,
    message::Message,
};
use proto::{file_name::NamePattern, fingerprint::Fingerprint, policy::ContentKind};
use rustix::process::Signal;
use tokio::{sync::watch, time::timeout};

use crate::{
    bad::{BAD, DEEDS, LIES},
    family::{children, watched},
    samples::{built_in, of_others, with, zipped},
};

/// Longer than any test waits.
const LONG: Duration = Duration::from_secs(600);

fn on_one_thread(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test);
}

fn limits(openers_max: usize, time_max: Duration) -> Limits {
    Limits { openers_max, opener_time_max: time_max, checks_time_max: LONG, ..Limits::default() }
}

fn good(openers_max: usize) -> Openers {
    Openers::new(Program::own(), &limits(openers_max, LONG))
}

fn bad(deed: &str, time_max: Duration) -> Openers {
    Openers::new(bad_program(deed), &limits(1, time_max))
}

fn bad_program(deed: &str) -> Program {
    Program { path: "/proc/self/exe".into(), arguments: vec!["bad".into(), deed.into()] }
}

fn archive() -> Message {
    with("a.zip", &zipped(&[("a.exe", b"MZ\x90\0\x03\0")]))
}

/// What is asked about beside the parts.
fn nothing() -> Unwanted {
    Unwanted::default()
}

/// Of one client.
fn client(site: u8) -> [IpNet; 2] {
    client_of(site, 1)
}

fn client_of(site: u8, host: u8) -> [IpNet; 2] {
    [32, 24].map(|prefix| IpNet::new_assert(Ipv4Addr::new(192, 0, site, host).into(), prefix).trunc())
}

async fn reads_on(openers: &Openers) {
    let analysis = openers.analyse(&archive(), nothing(), client(1)).await.expect("it is read");
    assert!(analysis.found.iter().any(|found| found.kind == ContentKind::Executable), "{analysis:?}");
}

fn broke_off(cause: Cause) -> Result<attachments::Analysis, Unopened> {
    Err(Unopened::BrokeOff(cause))
}

fn is_chance(told: &Result<attachments::Analysis, Unopened>, cause: Cause) -> bool {
    matches!(told, Err(Unopened::NotNow(why)) if why.contains(cause.as_str()) && why.contains("chance"))
}

pub(crate) fn as_the_reader_itself() {
    on_one_thread(async {
        let openers = good(1);
        let own = Fingerprint::new("drawing", 2, b"AC10".to_vec(), None).expect("sound");
        let other = Fingerprint::new("other", 0, b"zzzz".to_vec(), None).expect("sound");
        let name = NamePattern::new("*.e?e").expect("sound");
        let asked = Unwanted { fingerprints: BTreeSet::from([own, other]), names: BTreeSet::from([name]) };
        let mut seen = 0;
        for (name, message) in built_in() {
            let itself = attachments::analyse(&message, &asked);
            seen += itself.found.len() + itself.fingerprints.len() + itself.opaque.len() + itself.reasons.len();
            assert_eq!(openers.analyse(&message, asked.clone(), client(1)).await, Ok(itself), "{name}");
        }
        assert!(seen > 20, "the samples hold {seen} things to be found");
        for path in of_others() {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let message = with(&name, &std::fs::read(&path).expect("a readable file"));
            let itself = attachments::analyse(&message, &asked);
            assert_eq!(openers.analyse(&message, asked.clone(), client(1)).await, Ok(itself), "{name}");
        }
        assert_eq!(children(std::process::id()).len(), 1, "one opener read all of them");
    });
}

pub(crate) fn the_node() {
    let path = Path::new(env!("CARGO_BIN_EXE_postern-node"));
    on_one_thread(async {
        let program = Program { path: path.to_owned(), arguments: vec![ARGUMENT.into()] };
        reads_on(&Openers::new(program, &limits(1, LONG))).await;
    });
    let help = Command::new(path).arg("--help").output().expect("it runs").stdout;
    let help = String::from_utf8(help).expect("text");
    assert!(help.contains("--config") && !help.contains(ARGUMENT), "{help}");
}

pub(crate) fn what_it_does() {
    on_one_thread(async {
        for (deed, cause) in DEEDS {
            let time_max = if cause == Cause::Late { Duration::from_millis(500) } else { LONG };
            let openers = bad(deed, time_max);
            // What may be chance is, until it has happened three times in a row.
            let chances = if matches!(cause, Cause::Late | Cause::Ended) { 2 } else { 0 };
            for _ in 0..chances {
                let told = openers.analyse(&with("a", BAD), nothing(), client(1)).await;
                assert!(is_chance(&told, cause), "{deed}: {told:?}");
            }
            let told = openers.analyse(&with("a", BAD), nothing(), client(1)).await;
            assert_eq!(told, broke_off(cause), "{deed}");
            assert!(openers.analyse(&with("a", b"x"), nothing(), client(1)).await.is_ok(), "after {deed}");
            let count = openers.counts().into_iter().find(|(word, _)| *word == cause.as_str());
            assert_eq!(count, Some((cause.as_str(), chances + 1)), "{deed}");
        }
    });
}

pub(crate) fn what_it_says() {
    on_one_thread(async {
        for lie in LIES {
            let openers = bad(lie, LONG);
            assert_eq!(
                openers.analyse(&with("a", BAD), nothing(), client(1)).await,
                broke_off(Cause::Nonsense),
                "{lie}"
            );
            assert!(openers.analyse(&with("a", b"x"), nothing(), client(1)).await.is_ok(), "after {lie}");
        }
    });
}

pub(crate) fn killed() {
    on_one_thread(async {
        let openers = good(1);
        reads_on(&openers).await;
        let message = archive();
        let kill = async || {
            // Another message, so that nothing is found out about this one.
            openers.analyse(&with("a", b"x"), nothing(), client(1)).await.expect("it is read");
            let opener = watched(std::process::id()).pop().expect("one");
            opener.signal(Signal::STOP);
            let mut asking = pin!(openers.analyse(&message, nothing(), client(1)));
            assert!(poll!(&mut asking).is_pending(), "it has the question and stands still");
            opener.signal(Signal::KILL);
            asking.await
        };
        for _ in 0..2 {
            assert!(is_chance(&kill().await, Cause::Killed) && is_chance(&kill().await, Cause::Killed));
            reads_on(&openers).await;
        }
        assert!(is_chance(&kill().await, Cause::Killed) && is_chance(&kill().await, Cause::Killed));
        assert_eq!(kill().await, broke_off(Cause::Killed), "an answer had wiped the earlier ones out");
        reads_on(&openers).await;
    });
}

pub(crate) fn frozen() {
    on_one_thread(async {
        let openers = Openers::new(Program::own(), &limits(2, Duration::from_secs(5)));
        reads_on(&openers).await;
        let opener = watched(std::process::id()).pop().expect("one");
        opener.signal(Signal::STOP);
        let message = archive();
        let mut asking = pin!(openers.analyse(&message, nothing(), client(2)));
        assert!(poll!(&mut asking).is_pending(), "it has the question and stands still");
        for _ in 0..20 {
            reads_on(&openers).await;
        }
        assert!(is_chance(&asking.await, Cause::Late));
        opener.ended();
        reads_on(&openers).await;
    });
}

pub(crate) fn killed_before() {
    on_one_thread(async {
        let openers = good(1);
        reads_on(&openers).await;
        let opener = watched(std::process::id()).pop().expect("one");
        opener.signal(Signal::KILL);
        opener.ended();
        reads_on(&openers).await;
    });
}

pub(crate) fn asked_to_stop() {
    on_one_thread(async {
        let openers = good(1);
        reads_on(&openers).await;
        let opener = watched(std::process::id()).pop().expect("one");
        for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
            opener.signal(signal);
            reads_on(&openers).await;
        }
        assert_eq!(children(std::process::id()), [opener.pid]);
    });
}

pub(crate) fn forgotten() {
    on_one_thread(async {
        let openers = good(1);
        reads_on(&openers).await;
        let opener = watched(std::process::id()).pop().expect("one");
        opener.signal(Signal::STOP);
        {
            let message = archive();
            let mut asking = pin!(openers.analyse(&message, nothing(), client(1)));
            assert!(poll!(&mut asking).is_pending(), "it has the question and stands still");
        }
        opener.ended();
        reads_on(&openers).await;
    });
}

pub(crate) fn not_now() {
    on_one_thread(async {
        let why = |told| match told {
            Err(Unopened::NotNow(why)) => why,
            other => panic!("{other:?}"),
        };
        let short = Limits { openers_max: 1, checks_time_max: Duration::from_secs(1), ..Limits::default() };
        let nowhere = Program { path: "/nowhere/postern-node".into(), arguments: Vec::new() };
        for (program, word) in [
            (nowhere, "/nowhere/postern-node"),
            (bad_program("not there"), "ready"),
            (bad_program("unfit"), "as told"),
            (bad_program("unasked"), "ready"),
            (bad_program("late"), "in time"),
        ] {
            let openers = Openers::new(program, &short);
            assert!(openers.can_start());
            let told = why(openers.analyse(&archive(), nothing(), client(1)).await);
            assert!(told.contains(word), "{told}");
            assert!(!openers.can_start() && openers.warnings()[0].contains(word), "{:?}", openers.warnings());
            assert!(openers.prove().await.is_err());
        }
        let openers = Openers::new(Program::own(), &short);
        reads_on(&openers).await;
        watched(std::process::id()).iter().for_each(|opener| opener.signal(Signal::STOP));
        let message = archive();
        let mut first = pin!(openers.analyse(&message, nothing(), client(1)));
        assert!(poll!(&mut first).is_pending(), "it has the one place");
        let told = why(openers.analyse(&message, nothing(), client(1)).await);
        assert!(told.contains("free"), "{told}");
    });
}

pub(crate) fn fair() {
    on_one_thread(async {
        let openers = good(2);
        reads_on(&openers).await;
        let opener = watched(std::process::id()).pop().expect("one");
        opener.signal(Signal::STOP);
        let (one, other) = (client(1), client(2));
        let message = archive();
        let mut first = pin!(openers.analyse(&message, nothing(), one));
        assert!(poll!(&mut first).is_pending(), "it has the question and stands still");
        let mut second = pin!(openers.analyse(&message, nothing(), one));
        assert!(poll!(&mut second).is_pending(), "its share is taken");
        for client in [other, client(3), other] {
            assert!(openers.analyse(&message, nothing(), client).await.is_ok(), "nobody else waits for it");
        }
        assert!(poll!(&mut second).is_pending(), "and its share is taken still");
        opener.signal(Signal::KILL);
        assert!(is_chance(&first.await, Cause::Killed));
        assert!(second.await.is_ok(), "now it is its turn");
    });
}

pub(crate) fn fair_to_sites() {
    on_one_thread(async {
        let openers = good(4);
        let message = archive();
        let ask = |site, host| openers.analyse(&message, nothing(), client_of(site, host));
        assert!(matches!(futures::join!(ask(1, 1), ask(2, 1)), (Ok(_), Ok(_))));
        let stopped = watched(std::process::id());
        assert_eq!(stopped.len(), 2);
        stopped.iter().for_each(|opener| opener.signal(Signal::STOP));
        let (mut first, mut second, mut third) = (pin!(ask(1, 1)), pin!(ask(1, 2)), pin!(ask(1, 3)));
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending(), "they stand still");
        let others = pin!(async {
            for _ in 0..20 {
                assert!(matches!(futures::join!(ask(2, 1), ask(3, 1)), (Ok(_), Ok(_))));
            }
        });
        let ended = futures::future::select(&mut third, others).await;
        assert!(matches!(ended, Either::Right(_)), "the share of its site is taken, and the others have theirs");
        stopped.iter().for_each(|opener| opener.signal(Signal::KILL));
        assert!(is_chance(&first.await, Cause::Killed) && is_chance(&second.await, Cause::Killed));
        assert!(third.await.is_ok(), "now it is its turn");
    });
}

pub(crate) fn tried_again() {
    on_one_thread(async {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("later");
        let openers = Openers::new(Program { path: path.clone(), ..Program::own() }, &limits(1, LONG));
        assert!(openers.prove().await.is_err() && !openers.can_start());
        std::os::unix::fs::symlink("/proc/self/exe", path).expect("it is there now");
        let (_stop, stopping) = watch::channel(false);
        tokio::spawn(openers.clone().keep_watch(stopping));
        let well = async {
            while !openers.can_start() {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, well).await.expect("nobody had to send mail");
        assert!(!openers.warnings().iter().any(|warning| warning.contains("no opener")));
    });
}

pub(crate) fn worn() {
    on_one_thread(async {
        let openers = good(1);
        reads_on(&openers).await;
        let first = watched(std::process::id()).pop().expect("one");
        for _ in 0..999 {
            openers.analyse(&with("a", b"x"), nothing(), client(1)).await.expect("it is read");
        }
        first.ended();
        reads_on(&openers).await;
        let counts = openers.counts();
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 1001, "{counts:?}");
        assert!(counts.contains(&("opened", 1001)), "nothing was lost by it: {counts:?}");
    });
}

pub(crate) fn storm() {
    on_one_thread(async {
        let openers = Openers::new(bad_program("abort"), &limits(2, LONG));
        let ask = async || {
            let told = openers.analyse(&with("a", BAD), nothing(), client(1)).await;
            assert_eq!(told, broke_off(Cause::Aborted));
            assert!(children(std::process::id()).len() <= 2);
        };
        let all = (0..12).map(|_| ask());
        futures::future::join_all(all).await;
        assert!(openers.analyse(&with("a", b"x"), nothing(), client(1)).await.is_ok());
    });
}
