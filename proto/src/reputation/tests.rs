//! Subjects are read as they are shown, and counts fade alike however they are held.

use std::net::IpAddr;

use proptest::prelude::*;

use super::{Heard, Levels, STEPS, Subject, SubjectKey, TICK_MS, Tally, level, tick, units};
use crate::{codec, time::UnixMs};

fn heard(good: u32, bad: u32) -> Heard {
    Heard { subject: SubjectKey::default(), good, bad }
}

#[test]
fn a_subject_is_shown_as_it_is_read() {
    for text in [
        "ip:192.0.2.7",
        "net:192.0.2.0/24",
        "ip:2001:db8::7",
        "net:2001:db8::/64",
        "dkim:example.com",
        "spf:a.test",
        "campaign:0123456789abcdef",
    ] {
        let subject: Subject = text.parse().expect(text);
        assert_eq!(subject.to_string(), text);
        let again: Subject = codec::decode("a subject", &codec::encode(&subject)).expect("a subject");
        assert_eq!((again.key(), &again), (subject.key(), &subject));
    }
    assert_eq!("ip:::ffff:192.0.2.7".parse(), "ip:192.0.2.7".parse::<Subject>());
    assert_eq!("dkim:Example.COM".parse(), "dkim:example.com".parse::<Subject>());
    for text in [
        "",
        "ip:",
        "ip:x",
        "192.0.2.7",
        "net:192.0.2.1/24",
        "net:192.0.2.0/25",
        "net:2001:db8::/48",
        "dkim:",
        "spf:a b",
        "to:a.test",
        "campaign:0123",
        "campaign:0123456789abcdeg",
    ] {
        assert!(text.parse::<Subject>().is_err(), "{text}");
    }
}

#[test]
fn a_client_is_counted_for_its_address_and_its_net() {
    let shown = |ip: &str| Subject::of_client(ip.parse::<IpAddr>().expect("an address")).map(|one| one.to_string());
    assert_eq!(shown("192.0.2.7"), ["ip:192.0.2.7", "net:192.0.2.0/24"]);
    assert_eq!(shown("::ffff:192.0.2.7"), ["ip:192.0.2.7", "net:192.0.2.0/24"]);
    assert_eq!(shown("2001:db8:0:7::1"), ["ip:2001:db8:0:7::1", "net:2001:db8:0:7::/64"]);
}

#[test]
fn a_key_is_small_on_the_wire_and_of_one_length() {
    let key = Subject::Ip(IpAddr::from([192, 0, 2, 7])).key();
    assert_eq!(codec::encode(&key).len(), 18);
    assert!(codec::decode::<SubjectKey>("a key", &codec::encode(&"short")).is_err());
}

#[test]
fn a_count_halves_each_day_and_is_gone_in_the_end() {
    let at = tick(UnixMs(1_795_000_000_000));
    let tally = Tally::default().with(&heard(0, 800), at);
    assert_eq!(tally.at(at + STEPS).hundredths(), (0, 40_000));
    assert_eq!(tally.at(at + 3 * STEPS).hundredths(), (0, 10_000));
    assert_eq!(tally.at(at + 100 * STEPS).hundredths(), (0, 0));
    assert_eq!(tally.at(at - 1), tally, "time never goes back");
}

#[test]
fn a_score_says_how_bad_and_how_sure() {
    let now = UnixMs(1_795_000_000_000);
    let score = |good, bad| Tally::default().with(&heard(good, bad), tick(now)).levels().score(now);
    assert_eq!((score(0, 0), score(7, 7), Levels::default().score(now)), (0, 0, 0));
    assert!(score(0, 1) > 50 && score(0, 1) < 150, "one outcome proves little");
    assert!(score(0, 1000) > 980 && score(1000, 0) < -980);
    let bad = Tally::default().with(&heard(0, 10), tick(now)).levels();
    let week = now.plus_ms(7 * 8 * TICK_MS);
    assert!(bad.score(now) > 400 && bad.score(week) < 20, "what was long ago counts for little");
}

proptest! {
    #[test]
    fn what_is_reported_at_once_or_one_by_one_counts_the_same(
        outcomes in prop::collection::vec((0_u32..1000, 0_u32..1000), 1..20), at in 0_u32..1000, later in 0_u32..100,
    ) {
        let before = Tally::default().with(&heard(5, 5), at);
        let one_by_one = outcomes.iter().fold(before, |tally, (good, bad)| tally.with(&heard(*good, *bad), at + later));
        let (good, bad) = outcomes.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        prop_assert_eq!(one_by_one, before.with(&heard(good, bad), at + later));
    }

    /// The reason for levels: a node that holds one needs no message as time passes.
    #[test]
    fn a_level_stays_while_its_count_fades(count in 1_u64..1 << 32, at in 1_u32..500_000, ticks in 0_u32..80) {
        let then = level(count, at);
        let left = Tally { good: count, bad: 0, tick: at }.at(at + ticks).good;
        if left >= 64 {
            prop_assert!(level(left, at + ticks).abs_diff(then) <= 1);
        }
        let shown = units(then, at + ticks);
        // A step is a twelfth.
        prop_assert!(shown <= left + left / 64 + 2 && shown + shown / 8 + 2 >= left, "{shown} for {left}");
    }

    #[test]
    fn no_count_is_too_large(counts in prop::collection::vec(any::<u32>(), 0..20), at in any::<u32>()) {
        let tally = counts.iter().fold(Tally::default(), |tally, count| tally.with(&heard(*count, *count), at));
        prop_assert!(tally.levels().score(UnixMs(u64::from(at).saturating_mul(TICK_MS))).abs() <= 1000);
    }
}
