//! Messages as they come: spam must score, ham must not.

use proto::{policy::PolicyLayer, score::Score};

use super::{Counted, analyse, by_odds, capped};
use crate::checks::{
    criteria::{
        CONNECTION, holding, rules,
        weights::{self, CLASSIFIER_MAX, GROUP_MAX},
    },
    facts::Facts,
    phrases::TOPICS,
};
use crate::policy::{
    samples::{message, transaction, view},
    score::{RULES, reason, total},
};
use crate::smtp::transaction::ClientName;

const HEADER: &str = "Date: Wed, 18 Nov 2026 11:06:40 +0000\nMessage-ID: <1@sender.test>\nTo: anna@interior.gov.test\n";

fn judge(text: &str) -> (Score, Vec<String>) {
    let (message, transaction) =
        (message(text), transaction(view(PolicyLayer::default()), &["anna@interior.gov.test"]));
    let reasons = analyse(&Facts::of(&message, &transaction), None).reasons;
    (total(&reasons), reasons.into_iter().map(|reason| reason.rule).collect())
}

/// Whether a rule holds, whatever it is worth.
fn holds(text: &str, rule: &str) -> bool {
    let (message, rules) = (message(&format!("{HEADER}{text}")), rules());
    let transaction = transaction(view(PolicyLayer::default()), &["anna@interior.gov.test"]);
    let facts = Facts::of(&message, &transaction);
    holding(&facts).into_iter().any(|at| rules[at].name == rule)
}

/// What people and shops write.
const ORDINARY: [&str; 3] = [
    "From: Karl <karl@sender.test>\nSubject: Minutes of Monday's meeting\n\nDear Anna,\n\nhere are the minutes. Please check \
     point 3 and tell me by Friday.\n\nBest regards\nKarl\n",
    "From: Shop <orders@shop.test>\nSubject: Ihre Bestellung 4711\nMIME-Version: 1.0\nContent-Type: text/html\n\n<p>Guten Tag,</p><p>vielen Dank für \
     Ihre Bestellung. Den Stand sehen Sie <a href=\"https://www.shop.test/o/4711\">hier</a>. Bei Fragen antworten Sie \
     einfach auf diese Nachricht. Freundliche Grüße, Ihr Shop. Die Rechnung kommt mit der Ware.</p>\n",
    "From: list@project.test\nSubject: Re: [PATCH] fix a leak\nIn-Reply-To: <x@y.test>\n\n> +\tkfree(p);\n\nLooks good to me.\n",
];

/// What machines write that know no TLS and have no name: a scanner, cron and an alarm.
const MACHINES: [&str; 3] = [
    "From: copier@office.test\nSubject: Scanned document from RNP58387\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\n\n--b\nContent-Type: \
     application/pdf; name=20261118110640.pdf\nContent-Disposition: attachment; filename=20261118110640.pdf\n\n%PDF-1.4\n--b--\n",
    "From: root@srv7.office.test\nSubject: Cron <root@srv7> /usr/local/bin/backup\nContent-Type: text/plain; charset=UTF-8\nAuto-Submitted: \
     auto-generated\n\nbackup of 41 GB ended after 3812 s\n",
    "From: ups@office.test\nSubject: UPS on battery\n\nInput voltage lost at 11:06:02. Runtime left 24 min.\n",
];

#[test]
fn ordinary_mail_is_not_tagged() {
    for text in ORDINARY {
        let (score, rules) = judge(&format!("{HEADER}{text}"));
        assert!(score < Score::points(4, 0), "{score}: {rules:?}");
    }
}

#[test]
fn ordinary_mail_is_not_kept_away_for_the_client_of_a_small_office() {
    let clients = [
        (ClientName::None, "mail.office.test"),
        (ClientName::Unanswered, "mail.office.test"),
        (ClientName::Known("static.7.2.0.192.clients.provider.test".to_owned()), "mail.office.test"),
        (ClientName::Known("192-0-2-7.dsl.provider.test".to_owned()), "server"),
        (ClientName::Known("office.shop".to_owned()), "[192.0.2.7]"),
    ];
    let letters = include_str!("letters_tests.txt").split("=====\n").map(str::to_owned);
    let texts = ORDINARY.iter().chain(&MACHINES).map(|text| format!("{HEADER}{text}")).chain(letters);
    // Many of them sign nothing.
    let unsigned = RULES.iter().find(|rule| rule.1 == "NO_AUTHENTICATION").expect("a rule").2;
    for (text, (name, helo)) in texts.flat_map(|text| clients.iter().map(move |client| (text.clone(), client))) {
        let message = message(&text);
        let mut transaction = transaction(view(PolicyLayer::default()), &["anna@interior.gov.test"]);
        let client = &mut transaction.client;
        (client.address, client.helo) = ("192.0.2.7".parse().expect("an address"), (*helo).to_owned());
        (client.name, client.declined_tls) = (name.clone(), true);
        let reasons = analyse(&Facts::of(&message, &transaction), None).reasons;
        let score = Score(total(&reasons).0 + unsigned.0);
        assert!(score < Score::points(6, 0), "{score}: {name:?} {helo}: {reasons:?}\n{text}");
    }
}

#[test]
fn letters_to_an_office_are_not_touched_whether_they_were_learnt_or_not() {
    for (letters, most) in [(include_str!("letters.txt"), 3), (include_str!("letters_tests.txt"), 4)] {
        for letter in letters.split("=====\n") {
            let (score, rules) = judge(letter);
            assert!(score < Score::points(most, 0), "{score}: {rules:?}\n{letter}");
        }
    }
}

#[test]
fn a_classic_spam_is_over_the_threshold_of_quarantine() {
    let (score, rules) = judge(&format!(
        "{HEADER}From: Pharmacy <a@sender.test>\nSubject: Cheap meds!!\n\nBuy Viagra and Cialis at our online pharmacy, no \
         prescription. Click here: http://bit.ly/abc\n"
    ));
    assert!(score > Score::points(6, 0), "{score}: {rules:?}");
}

#[test]
fn a_blatant_spam_is_over_the_threshold_of_rejection() {
    let (score, rules) = judge(
        "From: Lottery <a@sender.test>\nReply-To: claims@gmail.com\nSubject: YOU HAVE WON THE LOTTERY!!!\n\nCONGRATULATIONS \
         YOU HAVE WON 2 MILLION DOLLARS. You are a winner: claim your prize within 24 hours at http://bit.ly/x. Contact our barrister by \
         Western Union, strictly confidential.\n",
    );
    assert!(score > Score::points(12, 0), "{score}: {rules:?}");
}

#[test]
fn gtube_scores_a_thousand() {
    let text = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X";
    assert!(judge(&format!("{HEADER}From: a@b.test\nSubject: x\n\n{text}\n")).0 >= Score::points(1000, 0));
}

#[test]
fn each_of_these_messages_holds_its_rule() {
    let html = |body: &str| format!("From: a@sender.test\nContent-Type: text/html; charset=utf-8\n\n{body}\n");
    let cases = [
        ("From: a@b.test\nSubject: READ THIS NOW PLEASE\n\nx\n".to_owned(), "SUBJECT_ALL_CAPS"),
        ("From: a@b.test\nSubject: Re: your invoice\n\nx\n".to_owned(), "SUBJECT_FAKE_REPLY"),
        ("Subject: x\n\nx\n".to_owned(), "MISSING_FROM"),
        ("From: nobody\n\nx\n".to_owned(), "FROM_WITHOUT_ADDRESS"),
        ("From: \"minister@bank.test\" <a@evil.test>\n\nx\n".to_owned(), "NAME_SHOWS_OTHER_ADDRESS"),
        ("From: \"help interior.gov.test\" <a@evil.test>\n\nx\n".to_owned(), "NAME_CLAIMS_DEPARTMENT"),
        ("From: a@b.test\nReply-To: x@other.test\n\nx\n".to_owned(), "REPLY_TO_ELSEWHERE"),
        ("From: a@b.test\nReply-To: x@gmail.com\n\nx\n".to_owned(), "REPLY_TO_FREEMAIL"),
        ("From: a@b.test\nPrecedence: bulk\n\nx\n".to_owned(), "BULK_WITHOUT_UNSUBSCRIBE"),
        (html("<img src=http://x.test/a.png>"), "HTML_PICTURE_ONLY"),
        (html(&format!("<div style='display:none'>{}</div>x", "poetry ".repeat(100))), "HIDDEN_TEXT"),
        (html("<form action=http://evil.test>"), "HTML_FORM"),
        (html("<a href='http://evil.test/x'>https://www.bank.test/login</a>"), "LINK_SHOWS_OTHER_HOST"),
        (html("<a href='http://203.0.113.9/x'>here</a>"), "LINK_TO_ADDRESS"),
        (html("<a href='http://xn--bnk-5ma.test/'>here</a>"), "LINK_PUNYCODE"),
        (html("<a href='https://tinyurl.com/x'>here</a>"), "LINK_SHORTENER"),
        (html("<a href='https://bank.test@evil.test/x'>here</a>"), "LINK_WITH_USER"),
        ("From: CrystalLeirPoseidonShark@b.test\n\nx\n".to_owned(), "LOCAL_PART_OF_WORDS"),
        ("From: agw248785g03@b.test\n\nx\n".to_owned(), "LOCAL_PART_IN_TURNS"),
        (html("<a href='https://www.google.test/url?q=%68t%74%70%73'>here</a>"), "LINK_ENCODED"),
        (html("<div style='margin-top: 470500px'>x</div>"), "HTML_PUSHED_OUT"),
        (html("Co\u{73f}n\u{73f}fi\u{73f}rm"), "LETTERS_MARKED"),
        (html(&format!("<p style='visibility:collapse;height:0'>{}</p>x", "poetry ".repeat(100))), "HIDDEN_TEXT"),
        (html("v\u{200b}i\u{200b}a\u{200b}g\u{200b}ra"), "INVISIBLE_CHARACTERS"),
        (html("P\u{430}yPal"), "MIXED_SCRIPTS"),
        (html("v\u{200b}iagra"), "PHRASES_PILLS"),
    ];
    for (text, rule) in cases {
        assert!(holds(&text, rule), "{rule}: {:?}", judge(&format!("{HEADER}{text}")));
    }
}

#[test]
fn no_group_decides_alone() {
    let rules = rules();
    let mut groups: Vec<&str> = rules.iter().map(|rule| rule.group).collect();
    groups.dedup();
    assert!(groups.len() >= 15, "{groups:?}");
    assert!(GROUP_MAX < Score::points(6, 0), "less than the built-in policy quarantines at");
    for group in groups {
        let all = capped(rules.iter().filter(|rule| rule.group == group).map(Counted::from), &[]);
        assert!(total(&all) <= weights::most(group), "{group}: {all:?}");
    }
}

#[test]
fn no_classifier_decides_alone_and_each_speaks_both_ways() {
    assert!(CLASSIFIER_MAX < Score::points(6, 0), "less than the built-in policy quarantines at");
    for rules in [weights::WORDS, weights::FORM] {
        for odds in [1_000_000, -1_000_000] {
            let reason = by_odds(odds, &rules).expect("a reason");
            assert!(reason.score.0.abs() <= CLASSIFIER_MAX.0 && (reason.score.0 > 0) == (odds > 0), "{reason:?}");
        }
        assert!(by_odds(0, &rules).is_none());
    }
}

#[test]
fn phrases_are_written_as_they_are_looked_for() {
    let is_clean = |phrase: &str| phrase.to_lowercase() == phrase && !phrase.is_empty() && !phrase.contains("  ");
    assert!(TOPICS.iter().all(|topic| topic.phrases.split('|').all(is_clean)));
}

#[test]
fn what_the_door_and_the_content_say_of_a_client_is_one_trait() {
    let text =
        message(&format!("Received: from a by b; x\n{HEADER}From: a@sender.test\nSubject: Minutes\n\nSee you.\n"));
    let points = |met: &[(&str, i32)]| {
        let mut transaction = transaction(view(PolicyLayer::default()), &["anna@interior.gov.test"]);
        let client = &mut transaction.client;
        (client.address, client.helo) = ("192.0.2.7".parse().expect("an address"), "scanner".to_owned());
        client.name = ClientName::Known("192-0-2-7.dsl.isp.test".to_owned());
        client.reasons = met.iter().map(|(rule, score)| reason(rule, Score(*score), "x")).collect();
        let reasons = analyse(&Facts::of(&text, &transaction), None).reasons;
        let of_group = |name: &str| rules().iter().any(|rule| rule.group == CONNECTION && rule.name == name);
        let of_content: i32 = reasons.iter().filter(|one| of_group(&one.rule)).map(|one| one.score.0).sum();
        of_content + met.iter().map(|(_, score)| score).sum::<i32>()
    };
    assert_eq!(points(&[]), weights::CONNECTION_MAX.0);
    assert_eq!(points(&[("GENERIC_REVERSE_NAME", 80), ("BAD_HELO", 150)]), weights::CONNECTION_MAX.0);
    assert_eq!(points(&[("FALSE_HELO", 500)]), 500, "what the door alone says stays");
}
