//! Rules as people write them, each fault at its place, and samples that are tried.

use super::{Drafts, file};
use crate::{
    rules::{RuleSet, engine::Engine},
    score::Score,
    yaml::{self, Faults},
};

fn read(text: &str) -> Result<RuleSet, Vec<String>> {
    let mut drafts = Drafts::default();
    let mut faults = Vec::new();
    if let Err(Faults(more)) = yaml::read("rules.yaml", text, |map| drafts = file(map)) {
        faults.extend(more);
    }
    match drafts.checked() {
        Ok(set) if faults.is_empty() => return Ok(set),
        Ok(_) => {}
        Err(more) => faults.extend(more),
    }
    faults.sort_by_key(|fault| (fault.line, fault.column));
    Err(faults.iter().map(ToString::to_string).collect())
}

fn faults(text: &str) -> Vec<String> {
    read(text).expect_err("faults")
}

const GOOD: &str = r#"
groups:
  - {name: invoices, cap: 3}
rules:
  - name: OWN_INVOICE
    group: invoices
    score: 2.5
    text: it asks to pay an invoice
    subject: '\binvoice\b'
    match: [Your invoice 4711, {subject: INVOICE}]
    no_match: [voice mail, {subject: invoices}]
  - name: OWN_MAILER
    score: 1
    text: it was sent by a program that sends spam
    all:
      - header: 'X-Mailer: ^(leaf|mass)'
      - spf: [fail, softfail]
    any:
      - link_host: 'evil\.test$'
      - attachment_name: '\.iso$'
    none:
      - tls: yes
    match:
      - header: ['X-Mailer: LeafMailer', 'X-Mailer: other']
        spf: softfail
        attachment_name: [a.txt, b.ISO]
    no_match:
      - {header: 'X-Mailer: LeafMailer', spf: fail, link_host: evil.test, tls: yes}
      - {header: 'X-Mailer: LeafMailer', spf: pass, link_host: evil.test}
"#;

#[test]
fn rules_are_read_and_stand_their_samples() {
    let set = read(GOOD).unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert_eq!((set.rules.len(), set.cap("invoices"), set.cap("own")), (2, Score::points(3, 0), Score::points(4, 50)));
    let [invoice, mailer] = set.rules.as_slice() else { panic!("{set:?}") };
    assert_eq!((invoice.score, invoice.all.len()), (Score::points(2, 50), 1));
    assert_eq!((mailer.all[1].value.as_str(), mailer.any.len(), mailer.none.len()), ("fail softfail", 2, 1));
    let engine = Engine::new(std::sync::Arc::new(set));
    assert_eq!((engine.rules().count(), engine.warning()), (2, None));
}

#[test]
fn all_faults_are_told_at_their_lines() {
    let text = r#"
groups: [{name: Big, cap: 3}, {name: empty, cap: 101}, {name: unused, cap: 1}]
rules:
  - {name: SPF_FAIL, score: 1, text: x, subject: abc}
  - {name: OWN_A, score: 101, text: x, subject: abc, colour: red}
  - {name: OWN_B, score: 1, text: x, subject: '(a{1000}){1000}'}
  - {name: OWN_C, score: 1, text: x, subject: '(a'}
  - name: OWN_D
    score: 1
    text: x
    all: [{subject: a}, {body: abc, html: abc}]
    any: [{header: none}]
    none: [{spf: maybe}, {tls: []}]
  - {name: OWN_E, score: 1, text: x, none: [{subject: abc}]}
  - {name: OWN_F, score: 1, text: x, subject: abc, match: [xyz, abc], no_match: [{subject: abc}, {colour: red}]}
  - {name: OWN_F, score: 1, text: x, subject: abc, body: def, match: [abc]}
  - score: 1
"#;
    let found = faults(text);
    let expected = [
        ":2:17: groups[0].name: \"Big\": a name of at most 64 lower-case letters",
        ":2:50: groups[1].cap: points from 0.00 to 100.00 are expected",
        ":2:56: groups[2]: no rule is in the group unused",
        ":4:12: rules[0].name: \"SPF_FAIL\": a name of at most 64 upper-case letters, digits and _ that begins with OWN_",
        ":5:26: rules[1].score: points from -100.00 to 100.00 are expected",
        ":5:54: rules[1].colour: unknown key; known here: ",
        ":6:47: rules[2].subject: it is larger than 1048576 bytes when compiled",
        ":7:47: rules[3].subject: character 1: unclosed group",
        ":11:25: rules[4].all[1]: one condition is expected: header, raw_header, subject",
        ":12:20: rules[4].any[0].header: a header field is expected",
        ":13:18: rules[4].none[0].spf: one of none, pass",
        ":13:26: rules[4].none[1]: one of yes, no is expected",
        ":14:5: rules[5]: nothing must hold for it",
        ":15:60: rules[6].match[0]: OWN_F does not hold for this sample",
        ":15:82: rules[6].no_match[0]: OWN_F holds for this sample, and must not",
        ":15:99: rules[6].no_match[1].colour: unknown key",
        ":16:5: rules[7]: OWN_F is already a rule in rules.yaml:15",
        ":16:71: rules[7].match[0]: the rule looks at more than one field",
        ":17:5: rules[8].name: is missing",
    ];
    for line in expected {
        assert!(found.iter().any(|fault| fault.contains(line)), "{line} is not in\n{}", found.join("\n"));
    }
}
