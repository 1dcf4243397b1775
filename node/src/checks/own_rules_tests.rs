//! A rule of the view sees what it names of a real message, and its points count as those of the built-in rules do.

use std::{collections::BTreeMap, sync::Arc};

use proto::{
    policy::PolicyLayer,
    rules::{Condition, Rule, RuleSet},
    score::Score,
    verdict::Reason,
    view::{StateSettings, View, ViewChange},
};

use super::{reasons, search};
use crate::{
    checks::facts::Facts,
    policy::{
        evidence::{AuthResult, Authentication},
        samples::{message, transaction, view},
        score::total,
    },
};

const LETTER: &str = "From: Bank <service@bank.test>\nTo: anna@interior.gov.test\nSubject: =?utf-8?Q?Ihre_Gr=C3=BC=C3=9Fe?=\nX-Mailer: \
    LeafMailer\n\t2.8\nX-Note: =?utf-8?Q?secret?=\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: \
    text/html; charset=utf-8\n\n<P CLASS=big>Pay <b>now</b> <a href='https://Evil.TEST/Login.php'>here</a></p>\n--b\nContent-Type: \
    application/x-thing; name=\"Rechnung.PDF\"\nContent-Disposition: attachment\n\n%PDF-1.7\n--b--\n";

fn rule(name: &str, field: &str, value: &str) -> Rule {
    Rule {
        name: format!("OWN_{name}"),
        group: "own".to_owned(),
        score: Score::points(2, 0),
        text: "a test".to_owned(),
        all: vec![Condition { field: field.to_owned(), value: value.to_owned() }],
        any: Vec::new(),
        none: Vec::new(),
    }
}

fn view_with(rules: Vec<Rule>, caps: &[(&str, Score)]) -> View {
    let caps: BTreeMap<_, _> = caps.iter().map(|(group, cap)| ((*group).to_owned(), *cap)).collect();
    let settings = Some(StateSettings { rules: Some(Arc::new(RuleSet { rules, caps })), ..StateSettings::default() });
    view(PolicyLayer::default()).after(ViewChange { index: 10, policy_version: 8, settings, ..ViewChange::default() })
}

/// What the rules of a view say of a letter.
fn said(view: View, letter: &str, checked: &Authentication) -> Vec<Reason> {
    assert_eq!(view.rules.warning(), None);
    let (message, transaction) = (message(letter), transaction(view, &["anna@interior.gov.test"]));
    let found = search(&transaction.view.rules, &Facts::of(&message, &transaction));
    reasons(&transaction.view.rules, &found, checked, &transaction.client)
}

#[test]
fn each_field_is_what_its_name_says() {
    let holds = [
        ("subject", "^ihre grüße$"),
        ("header", "X-Mailer: ^LeafMailer\\s+2\\.8$"),
        ("header", "x-note: ^secret$"),
        ("raw_header", r"X-Note: ^=\?utf-8\?Q\?secret\?=$"),
        ("body", r"Pay now\s+here"),
        ("html", "(?-i)<p class=big>pay <b>"),
        ("link", "^https://evil.test/login.php$"),
        ("link_host", r"^evil\.test$"),
        ("attachment_name", r"(?-i)^Rechnung\.PDF$"),
        ("attachment_type", "^application/pdf$"),
        ("declared_type", "^application/x-thing$"),
        ("author", "^service@bank.test$"),
        ("reverse_path", "^a@sender.test$"),
        ("helo", r"^mail\.sender\.test$"),
        ("client", r"^192\.0\.2\.1$"),
        ("tls", "no"),
        ("spf", "softfail fail"),
        ("dkim", "none"),
    ];
    let rules = holds.iter().enumerate().map(|(at, (field, value))| rule(&at.to_string(), field, value)).collect();
    let checked = Authentication { spf: AuthResult::Fail, ..Authentication::default() };
    let said = said(view_with(rules, &[("own", Score::points(100, 0))]), LETTER, &checked);
    let named: Vec<String> = said.into_iter().map(|reason| reason.rule).collect();
    let missing: Vec<_> = holds
        .iter()
        .enumerate()
        .filter(|(at, _)| !named.contains(&format!("OWN_{at}")))
        .map(|(_, held)| held)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_group_counts_no_more_than_its_cap_and_another_groups_points_are_its_own() {
    let mut other = rule("OTHER", "subject", "grüße");
    other.group = "links".to_owned();
    let rules = vec![rule("A", "subject", "grüße"), rule("B", "body", "pay now"), rule("C", "html", "<b>"), other];
    let of = |caps: &[(&str, Score)]| said(view_with(rules.clone(), caps), LETTER, &Authentication::default());
    assert_eq!(total(&of(&[])), Score::points(6, 50), "4.50 of three rules of a group, and 2.00");
    let capped = of(&[("own", Score::points(3, 0))]);
    let points: Vec<(&str, i32)> = capped.iter().map(|reason| (reason.rule.as_str(), reason.score.0)).collect();
    assert_eq!(points, [("OWN_A", 200), ("OWN_B", 100), ("OWN_OTHER", 200)]);
    assert_eq!(total(&of(&[("own", Score::points(20, 0))])), Score::points(8, 0));
}

#[test]
fn a_rule_that_the_node_cannot_use_is_told_of_and_the_others_hold() {
    let later = rule("LATER", "colour", "red");
    let view = view_with(vec![later, rule("A", "subject", "grüße")], &[]);
    assert!(view.rules.warning().is_some_and(|warning| warning.contains("OWN_LATER (\"colour\" is nothing")));
    let (message, transaction) = (message(LETTER), transaction(view, &["anna@interior.gov.test"]));
    let found = search(&transaction.view.rules, &Facts::of(&message, &transaction));
    let said = reasons(&transaction.view.rules, &found, &Authentication::default(), &transaction.client);
    assert_eq!(said.iter().map(|reason| reason.rule.as_str()).collect::<Vec<_>>(), ["OWN_A"]);
}
