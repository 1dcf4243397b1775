//! The pool against clamds on real sockets that answer, hang, break off, die and come back.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use proto::time::UnixMs;
use tokio::sync::watch;

use super::{
    ClamdAddress, VirusScanner,
    fake::{CLEAN, Does, Fake, Role, clamd},
    memory,
};
use crate::{limits::Limits, policy::evidence::Virus};

/// Scans of this message end clamd.
const POISON: &str = "poison";

fn pool(fakes: &[&Fake], limits: &Limits) -> VirusScanner {
    VirusScanner::new(fakes.iter().map(|fake| fake.address.clone()).collect(), limits)
}

async fn scan(scanner: &VirusScanner, message: &'static str) -> &'static str {
    scanner.scan(&Bytes::from_static(message.as_bytes()), &[]).await.as_str()
}

async fn scan_with(scanner: &VirusScanner, message: &'static str, parts: &[&'static str]) -> &'static str {
    let parts: Vec<_> = parts.iter().map(|part| Bytes::from_static(part.as_bytes())).collect();
    let parts: Vec<_> = parts.iter().collect();
    scanner.scan(&Bytes::from_static(message.as_bytes()), &parts).await.as_str()
}

fn good() -> Role {
    Role::judging(|_| CLEAN)
}

/// A good one that has the official database of this number, made so many days ago.
fn with_database(number: u64, age_days: u64) -> Role {
    let made_ms = UnixMs::now().0 - age_days * 24 * 3_600_000;
    let made = Timestamp::from_millisecond(made_ms.cast_signed()).expect("a time");
    Role { version: format!("ClamAV 1.4.6/{number}/{}", made.strftime("%a %b %e %H:%M:%S %Y")), ..good() }
}

fn deadly() -> Role {
    Role::judging(|message| if message == POISON.as_bytes() { Does::Dies } else { CLEAN })
}

fn hasty() -> Limits {
    Limits { virus_time_max: Duration::from_millis(300), ..Limits::default() }
}

#[tokio::test]
async fn clamd_is_asked_over_the_wire() {
    for (answer, expected) in [
        (Some(&b"stream: OK\0"[..]), "clean"),
        (Some(b"stream: Eicar FOUND\0"), "infected"),
        (Some(b"INSTREAM size limit exceeded. ERROR\0"), "unscannable"),
        (Some(b""), "unavailable"),
        (None, "unavailable"),
    ] {
        let scanner = VirusScanner::new(vec![clamd(answer).await], &hasty());
        assert_eq!(scan(&scanner, "message").await, expected, "{answer:?}");
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_end_of_the_message_is_read_and_never_a_pass() {
    for (answer, expected) in [
        (&b"INSTREAM size limit exceeded. ERROR\0"[..], "unscannable"),
        (b"stream: Eicar FOUND\0", "infected"),
        (b"stream: OK\0", "unavailable"),
        (b"", "unavailable"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let fake = Fake::start_in(folder.path(), Role::judging(move |_| Does::SaysEarly(answer)));
        fake.change(|role| role.nest = Does::SaysEarly(b"INSTREAM size limit exceeded. ERROR\0"));
        let scanner = pool(&[&fake], &Limits::default());
        assert_eq!(scanner.scan(&vec![0; 8 << 20].into(), &[]).await.as_str(), expected, "{answer:?}");
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_unscannable_without_a_question() {
    let fake = Fake::start(good()).await;
    // The field that stands before a message for clamd counts, too.
    let virus_bytes_max = super::MAIL_HEAD.len() + 10;
    let scanner = pool(&[&fake], &Limits { virus_bytes_max, ..Limits::default() });
    assert_eq!(scan(&scanner, "12345678901").await, "unscannable");
    let longest = "12345678901234567890123456789012";
    assert_eq!(longest.len(), virus_bytes_max);
    assert_eq!(scan_with(&scanner, "1", &["123456789012345678901234567890123"]).await, "unscannable");
    assert_eq!(fake.heard(), [""; 0]);
    assert_eq!(scan(&scanner, "1234567890").await, "clean");
}

#[tokio::test]
async fn a_clamd_that_is_not_there_is_unavailable() {
    let nowhere = ClamdAddress::Unix("/nonexistent/clamd.sock".into());
    let scanner = VirusScanner::new(vec![nowhere], &Limits::default());
    assert_eq!(scan(&scanner, "x").await, "unavailable");
    assert!(!scanner.is_alive());
    let none = VirusScanner::new(Vec::new(), &Limits::default());
    assert_eq!((scan(&none, "x").await, none.is_alive()), ("unavailable", false));
}

#[tokio::test]
async fn malware_in_a_part_or_in_the_message_is_found_whatever_else_is_over_the_limits() {
    let judge = |message: &[u8]| match message {
        b"bad" => Does::Says(b"stream: Eicar FOUND\0"),
        b"big" => Does::Says(b"stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND\0"),
        _ => CLEAN,
    };
    let fake = Fake::start(Role::judging(judge)).await;
    let scanner = pool(&[&fake], &Limits::default());
    assert_eq!(scan_with(&scanner, "message", &["bad"]).await, "infected");
    assert_eq!(scan_with(&scanner, "bad", &["fine", "big"]).await, "infected");
    assert_eq!(scan_with(&scanner, "message", &["big", "fine"]).await, "unscannable");
    assert_eq!(scan_with(&scanner, "message", &["fine"]).await, "clean");
}

#[tokio::test]
async fn mail_goes_to_the_least_busy_clamd_and_in_turn_to_those_that_are_as_busy() {
    let hangs = |message: &[u8]| if message == b"slow" { Does::Hangs } else { CLEAN };
    let (one, other) = (Fake::start(Role::judging(hangs)).await, Fake::start(Role::judging(hangs)).await);
    let scanner = pool(&[&one, &other], &Limits::default());
    for message in ["a", "b", "c", "d"] {
        assert_eq!(scan(&scanner, message).await, "clean");
    }
    assert_eq!((one.scanned(), other.scanned()), (vec!["a".into(), "c".into()], vec!["b".into(), "d".into()]));
    let busy = tokio::spawn({
        let scanner = scanner.clone();
        async move { scan(&scanner, "slow").await }
    });
    one.hears("slow").await;
    for message in ["e", "f", "g"] {
        assert_eq!(scan(&scanner, message).await, "clean");
    }
    assert_eq!(other.scanned(), ["e", "f", "g"]);
    busy.abort();
}

#[tokio::test]
async fn one_that_cannot_be_reached_rests_while_another_answers_and_is_asked_by_ping_before_it_gets_mail_again() {
    let (one, other) = (Fake::start(good()).await, Fake::start(good()).await);
    let scanner = pool(&[&one, &other], &Limits::default());
    one.die().await;
    for message in ["a", "b", "c"] {
        assert_eq!(scan(&scanner, message).await, "clean");
    }
    assert_eq!(other.scanned(), ["a", "b", "c"]);
    let standing = scanner.standing();
    assert_eq!([standing[0].in_service, standing[1].in_service], [false, true]);
    assert!(scanner.is_alive() && scanner.warnings()[0].contains("rests"), "{:?}", scanner.warnings());

    let one = Fake::start_again(&one.address, good()).await;
    assert_eq!(scan(&scanner, "d").await, "clean");
    assert_eq!(scan(&scanner, "e").await, "clean");
    assert_eq!(one.heard(), [""; 0], "it rests");
    // Without the other its rest is over at once.
    other.die().await;
    assert_eq!(scan(&scanner, "f").await, "clean");
    assert_eq!(one.heard(), ["PING", "VERSION", "NEST", "f"]);
    assert!(scanner.standing()[0].in_service);
    one.die().await;
    assert_eq!(scan(&scanner, "g").await, "unavailable");
    assert!(!scanner.is_alive());
    let one = Fake::start_again(&one.address, good()).await;
    assert_eq!(scan(&scanner, "h").await, "clean");
    assert_eq!(one.heard(), ["PING", "VERSION", "h"], "that it was well before counts for nothing");
}

#[tokio::test]
async fn when_one_breaks_off_another_is_asked_and_the_first_is_looked_at_before_it_gets_mail_again() {
    for answer in [&b""[..], b"stream: O", b"PONG\0", b"stream: OK\0stream: OK\0", b"stream: no space left ERROR\0"] {
        let (one, other) = (Fake::start(Role::judging(move |_| Does::Says(answer))).await, Fake::start(good()).await);
        let scanner = pool(&[&one, &other], &Limits::default());
        assert_eq!(scan(&scanner, "a").await, "clean", "{answer:?}");
        assert_eq!((one.heard().last(), other.scanned()), (Some(&"a".to_owned()), vec!["a".to_owned()]));
        assert!(scanner.standing()[0].in_service, "one message is not enough for a rest");
        one.change(|role| role.judge = good().judge);
        assert_eq!(scan(&scanner, "b").await, "clean");
        assert_eq!(scan(&scanner, "c").await, "clean");
        assert_eq!(
            (other.scanned(), one.heard()),
            (vec!["b".into()], vec!["PING".into(), "VERSION".into(), "c".into()])
        );
    }
}

#[tokio::test]
async fn a_clamd_that_says_nothing_of_what_it_leaves_out_or_talks_nonsense_gets_no_mail() {
    type Spoil = fn(&mut Role);
    let cases: [(Spoil, &str); 6] = [
        (|role| role.nest = CLEAN, "AlertExceedsMax"),
        (|role| role.nest = Does::Says(b"stream: Eicar FOUND\0"), "AlertExceedsMax"),
        (|role| role.nest = Does::Says(b"nonsense\0"), "nonsense"),
        (|role| role.pong = Some(b"PING\0"), "nonsense"),
        (|role| role.pong = Some(b""), "nonsense"),
        (|role| role.version = "SpamAssassin 4".to_owned(), "VERSION"),
    ];
    for (spoil, why) in cases {
        let fake = Fake::start(good()).await;
        fake.change(spoil);
        let scanner = pool(&[&fake], &Limits::default());
        assert_eq!(scan(&scanner, "a").await, "unavailable", "{why}");
        assert_eq!(fake.scanned(), [""; 0], "{why}");
        let warnings = scanner.warnings();
        assert!(!scanner.is_alive() && warnings[0].contains(why), "{why}: {warnings:?}");
    }
}

#[tokio::test]
async fn a_message_that_kills_clamd_three_times_is_unscannable_and_all_other_mail_goes_on() {
    let mut fake = Fake::start(deadly()).await;
    let scanner = pool(&[&fake], &Limits::default());
    for expected in ["unavailable", "unavailable", "unscannable"] {
        assert_eq!(scan_with(&scanner, "with it", &[POISON]).await, expected);
        assert_eq!(fake.scanned(), [POISON]);
        assert_eq!(scan(&scanner, "innocent").await, "unavailable", "there is no clamd");
        fake = Fake::start_again(&fake.address, deadly()).await;
        assert_eq!(scan(&scanner, "innocent").await, "clean");
        fake.heard();
    }
    // In whatever message it comes, no clamd hears of it again.
    assert_eq!(scan_with(&scanner, "with it", &[POISON]).await, "unscannable");
    assert_eq!(scan_with(&scanner, "another", &["fine", POISON]).await, "unscannable");
    assert_eq!(fake.heard(), [""; 0]);
    assert_eq!(scanner.counts().map(|(_, count)| count), [3, 0, 3, 3]);
}

#[tokio::test]
async fn a_message_that_kills_every_clamd_kills_no_more_than_three() {
    let mut fakes = Vec::new();
    for _ in 0..4 {
        fakes.push(Fake::start(deadly()).await);
    }
    let scanner = pool(&fakes.iter().collect::<Vec<_>>(), &Limits::default());
    assert_eq!(scan(&scanner, POISON).await, "unavailable");
    assert_eq!(scan(&scanner, POISON).await, "unscannable");
    assert_eq!(scan(&scanner, POISON).await, "unscannable");
    let dead = fakes.iter().filter(|fake| !fake.scanned().is_empty()).count();
    assert_eq!(dead, 3);
    assert_eq!(scan(&scanner, "innocent").await, "clean");
}

#[tokio::test]
async fn a_message_over_which_clamd_hangs_three_times_is_unscannable_while_others_pass() {
    let hangs = |message: &[u8]| if message == b"slow" { Does::Hangs } else { CLEAN };
    let fake = Fake::start(Role::judging(hangs)).await;
    let scanner = pool(&[&fake], &hasty());
    for expected in ["unavailable", "unavailable", "unscannable"] {
        fake.heard();
        let slow = tokio::spawn({
            let scanner = scanner.clone();
            async move { scan(&scanner, "slow").await }
        });
        fake.hears("slow").await;
        assert_eq!(scan(&scanner, "quick").await, "clean");
        assert_eq!(slow.await.expect("it ends"), expected);
    }
    assert_eq!(scan(&scanner, "quick").await, "clean");
}

#[tokio::test]
async fn a_message_whose_parts_always_take_all_its_time_is_unscannable_where_nothing_is_remembered() {
    let time_max = Duration::from_secs(2);
    let slow = move |message: &[u8]| if message == b"quick" { CLEAN } else { Does::Takes(time_max * 9 / 20) };
    let fake = Fake::start(Role::judging(slow)).await;
    let scanner = pool(&[&fake], &Limits { virus_time_max: time_max, ..Limits::default() });
    let mut said = Vec::new();
    // On a machine that is held up a part may be late by itself, and that counts for the part alone.
    while said.last() != Some(&"unscannable") && said.len() < 10 {
        said.push(scan_with(&scanner, "message", &["one", "two"]).await);
    }
    assert_eq!(said.pop(), Some("unscannable"));
    assert!(said.len() >= 2 && said.iter().all(|said| *said == "unavailable"), "{said:?}");
    fake.heard();
    assert_eq!(scan_with(&scanner, "message", &["one", "two"]).await, "unscannable");
    assert_eq!(fake.heard(), [""; 0], "nobody is asked any more");
    assert_eq!(scan(&scanner, "quick").await, "clean");
}

#[tokio::test]
async fn time_that_a_clamd_took_for_others_does_not_count_against_a_message() {
    let time_max = Duration::from_secs(2);
    let fake = Fake::start(Role::judging(move |_| Does::Takes(time_max * 9 / 20))).await;
    let scanner = pool(&[&fake], &Limits { virus_time_max: time_max, ..Limits::default() });
    scanner.0.clamds[0].look().await.expect("it is well");
    fake.change(|role| role.nest = Does::Hangs);
    for _ in 0..4 {
        assert_eq!(scan_with(&scanner, "message", &["one", "two"]).await, "unavailable");
    }
    let whole = memory::digest((super::MAIL_HEAD, &Bytes::from_static(b"message"))).await;
    assert_eq!(scanner.0.tries.of(whole), 0, "it had no time for something small either");
    fake.change(|role| *role = good());
    assert_eq!(scan_with(&scanner, "message", &["one", "two"]).await, "clean");
}

#[tokio::test]
async fn mail_that_meets_a_frozen_clamd_waits_however_often_it_comes() {
    // All of it, or those of its threads that scan.
    for pong in [None, Some(&b"PONG\0"[..])] {
        let fake = Fake::start(good()).await;
        let scanner = pool(&[&fake], &hasty());
        assert_eq!(scan(&scanner, "before").await, "clean");
        fake.change(|role| *role = Role { pong, nest: Does::Hangs, ..Role::judging(|_| Does::Hangs) });
        for _ in 0..4 {
            assert_eq!(scan(&scanner, "innocent").await, "unavailable", "{pong:?}");
        }
        fake.change(|role| *role = good());
        assert_eq!(scan(&scanner, "innocent").await, "clean");
    }
}

#[tokio::test]
async fn an_answer_wipes_earlier_failures_out() {
    let fails = || Role::judging(|_| Does::Says(b"stream: no memory ERROR\0"));
    let fake = Fake::start(fails()).await;
    let scanner = pool(&[&fake], &Limits::default());
    for _ in 0..3 {
        assert_eq!([scan(&scanner, "a").await, scan(&scanner, "a").await], ["unavailable"; 2]);
        fake.change(|role| *role = good());
        assert_eq!(scan(&scanner, "a").await, "clean");
        fake.change(|role| *role = fails());
    }
}

#[tokio::test]
async fn what_was_said_of_a_part_counts_for_the_same_signatures_only() {
    let fake = Fake::start(with_database(27_810, 0)).await;
    let scanner = pool(&[&fake], &Limits::default());
    assert_eq!(scan_with(&scanner, "one", &["part", "part"]).await, "clean");
    assert_eq!(fake.scanned(), ["part", "one"], "each distinct one once");
    assert_eq!(scan_with(&scanner, "two", &["part"]).await, "clean");
    assert_eq!(fake.scanned(), ["two"]);
    let bad = Role::judging(|message| if message == b"part" { Does::Says(b"stream: New FOUND\0") } else { CLEAN });
    fake.change(|role| *role = Role { judge: bad.judge, ..with_database(27_811, 0) });
    scanner.0.clamds[0].look().await.expect("it is well");
    assert_eq!(scan_with(&scanner, "three", &["part"]).await, "infected");
    fake.heard();
    assert_eq!(scan_with(&scanner, "four", &["part"]).await, "infected");
    assert_eq!(fake.heard(), [""; 0], "infected is remembered too");
}

#[tokio::test]
async fn what_was_no_answer_or_said_by_a_clamd_without_a_database_is_not_remembered() {
    let fake = Fake::start(good()).await;
    let scanner = pool(&[&fake], &Limits::default());
    for _ in 0..2 {
        assert_eq!(scan_with(&scanner, "a", &["part", "part"]).await, "clean");
        assert_eq!(fake.scanned(), ["part", "a"], "each distinct one once; nobody knows which signatures said so");
    }
    let over: &[u8] = b"stream: Heuristics.Limits.Exceeded.MaxFiles FOUND\0";
    for (answer, expected) in [(over, "unscannable"), (b"nonsense\0", "unavailable"), (b"stream: OK\0", "clean")] {
        fake.change(|role| {
            *role = Role { judge: Role::judging(move |_| Does::Says(answer)).judge, ..with_database(1, 0) }
        });
        scanner.0.clamds[0].look().await.expect("it is well");
        assert_eq!(scan(&scanner, "b").await, expected);
    }
}

#[tokio::test]
async fn nothing_is_remembered_while_no_clamd_is_in_service_and_what_older_signatures_said_not_beside_newer_ones() {
    let (old, new) = (Fake::start(with_database(1, 0)).await, Fake::start(with_database(2, 0)).await);
    let alone = pool(&[&old], &Limits::default());
    assert_eq!(scan(&alone, "a").await, "clean");
    old.die().await;
    assert_eq!(scan(&alone, "b").await, "unavailable");
    assert_eq!(scan(&alone, "a").await, "unavailable");

    let old = Fake::start_again(&old.address, with_database(1, 0)).await;
    let scanner = pool(&[&old, &new], &Limits::default());
    assert_eq!([scan(&scanner, "a").await, scan(&scanner, "b").await], ["clean"; 2]);
    assert_eq!((old.scanned(), new.scanned()), (vec!["a".to_owned()], vec!["b".to_owned()]));
    assert_eq!([scan(&scanner, "b").await, scan(&scanner, "a").await], ["clean"; 2]);
    assert_eq!(old.scanned().len() + new.scanned().len(), 1, "only the older one had said something of a");
}

#[tokio::test]
async fn old_signatures_and_those_of_unknown_age_are_told_of() {
    let cases =
        [(with_database(7, 8), Some("8 days old")), (with_database(7, 6), None), (good(), Some("does not tell"))];
    for (role, expected) in cases {
        let fake = Fake::start(role).await;
        let scanner = pool(&[&fake], &Limits::default());
        assert_eq!(scanner.warnings(), [""; 0], "before anybody has looked");
        scanner.look().await;
        let warnings = scanner.warnings();
        assert_eq!(warnings.len(), usize::from(expected.is_some()), "{warnings:?}");
        assert!(expected.is_none_or(|expected| warnings[0].contains(expected)), "{warnings:?}");
        assert!(scanner.is_alive(), "old signatures are better than none");
        let standing = scanner.standing().remove(0);
        assert_eq!(standing.database, standing.database_age_s.map(|_| 7));
        assert_eq!(
            standing.database_age_s.map(|age_s| age_s / 86_400),
            match expected {
                Some("8 days old") => Some(8),
                None => Some(6),
                Some(_) => None,
            }
        );
    }
}

#[tokio::test]
async fn a_clamd_that_comes_back_is_found_without_mail() {
    let fake = Fake::start(good()).await;
    fake.die().await;
    let scanner = pool(&[&fake], &Limits::default());
    assert_eq!(scan(&scanner, "a").await, "unavailable");
    let (stop, stopped) = watch::channel(false);
    let watching = tokio::spawn(scanner.clone().keep_watch(stopped));
    let fake = Fake::start_again(&fake.address, good()).await;
    fake.hears("NEST").await;
    stop.send_replace(true);
    watching.await.expect("it ends");
    assert!(scanner.is_alive());
    assert_eq!(scanner.scan(&Bytes::from_static(b"a"), &[]).await, Virus::Clean);
}

#[tokio::test]
async fn a_message_is_scanned_as_mail_also_when_the_same_bytes_were_clean_as_a_part() {
    let fake = Fake::start(with_database(27_810, 0)).await;
    let scanner = pool(&[&fake], &Limits::default());
    assert_eq!(scan_with(&scanner, "with it", &["%PDF-1.4: x"]).await, "clean");
    fake.heard();
    assert_eq!(scan(&scanner, "%PDF-1.4: x").await, "clean");
    assert_eq!(fake.scanned(), ["%PDF-1.4: x"], "as a part it was no mail to clamd");
    assert_eq!(scan(&scanner, "%PDF-1.4: x").await, "clean");
    assert_eq!(fake.scanned(), [""; 0], "now it is remembered");
}
