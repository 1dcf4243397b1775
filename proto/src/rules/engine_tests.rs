//! What rules hold for, what is tried for that, and what is refused.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::{Engine, Found};
use crate::{
    rules::{Condition, Content, Evidence, Evidenced, Place, RULES_MAX, Rule, RuleSet},
    score::Score,
};

fn condition((field, value): &(&str, &str)) -> Condition {
    Condition { field: (*field).to_owned(), value: (*value).to_owned() }
}

fn rule(name: &str, all: &[(&str, &str)]) -> Rule {
    Rule {
        name: format!("OWN_{name}"),
        group: "own".to_owned(),
        score: Score::points(1, 0),
        text: "a test".to_owned(),
        all: all.iter().map(condition).collect(),
        any: Vec::new(),
        none: Vec::new(),
    }
}

fn engine(rules: Vec<Rule>) -> Engine {
    Engine::new(Arc::new(RuleSet { rules, caps: BTreeMap::new() }))
}

fn content(texts: &[(&str, &str)]) -> Content {
    let mut content = Content::default();
    for (field, text) in texts {
        let (place, text) = Place::parse(field, text).expect("a place");
        content.add(&place, text);
    }
    content
}

fn search(engine: &Engine, texts: &[(&str, &str)]) -> Found {
    engine.search(&content(texts))
}

fn holding(engine: &Engine, texts: &[(&str, &str)]) -> Vec<String> {
    let found = search(engine, texts);
    assert!(!found.is_cut);
    engine.holding(&found, &Evidence::default()).map(|rule| rule.name["OWN_".len()..].to_owned()).collect()
}

/// Whether one pattern of the body is found in a text.
fn fits(pattern: &str, text: &str) -> bool {
    let engine = engine(vec![rule("A", &[("body", pattern)])]);
    assert_eq!(engine.left_out(), [], "{pattern}");
    !holding(&engine, &[("body", text)]).is_empty()
}

/// Why one pattern of a field is refused.
fn refused(field: &str, pattern: &str) -> String {
    let engine = engine(vec![rule("A", &[(field, pattern)])]);
    engine.left_out().first().map(|out| out.problem.clone()).unwrap_or_default()
}

#[test]
fn a_rule_holds_when_all_and_any_and_none_of_its_conditions_do() {
    let mut both = rule("ALL_ANY_NONE", &[("subject", "invoice"), ("body", "urgent")]);
    both.any = vec![condition(&("link_host", r"\.test$")), condition(&("header", "X-Mailer: ^bulk"))];
    both.none = vec![condition(&("author", "@bank\\.test$"))];
    let engine = engine(vec![both]);
    let base = [("subject", "Your INVOICE"), ("body", "it is urgent"), ("link_host", "a.test")];
    assert_eq!(holding(&engine, &base), ["ALL_ANY_NONE"]);
    assert_eq!(holding(&engine, &base[..2]), [""; 0], "none of any");
    assert_eq!(holding(&engine, &base[1..]), [""; 0], "not all");
    assert_eq!(holding(&engine, &[base[0], base[1], ("header", "x-mailer: Bulk 3")]), ["ALL_ANY_NONE"]);
    assert_eq!(holding(&engine, &[base[0], base[1], base[2], ("author", "x@bank.test")]), [""; 0], "one of none");
}

#[test]
fn evidence_is_asked_for_by_words_and_what_is_not_known_is_none() {
    let mut rule = rule("A", &[("spf", "fail softfail")]);
    rule.none = vec![condition(&("tls", "yes"))];
    let engine = engine(vec![rule]);
    let holds = |words: &[(Evidenced, &str)]| {
        let mut evidence = Evidence::default();
        words.iter().for_each(|(of, word)| evidence.set(*of, word));
        engine.holding(&search(&engine, &[]), &evidence).next().is_some()
    };
    assert!(holds(&[(Evidenced::Spf, "fail")]) && holds(&[(Evidenced::Spf, "softfail"), (Evidenced::Tls, "no")]));
    assert!(
        !holds(&[])
            && !holds(&[(Evidenced::Spf, "pass")])
            && !holds(&[(Evidenced::Spf, "fail"), (Evidenced::Tls, "yes")])
    );
}

#[test]
fn a_rule_that_may_hold_without_any_pattern_does() {
    let mut either = rule("EITHER", &[]);
    either.any = vec![condition(&("subject", "invoice")), condition(&("spf", "none"))];
    let mut but = rule("BUT", &[("spf", "none")]);
    but.none = vec![condition(&("subject", "invoice"))];
    let engine = engine(vec![either, but]);
    assert_eq!(holding(&engine, &[("subject", "a letter")]), ["EITHER", "BUT"]);
    assert_eq!(holding(&engine, &[("subject", "an invoice")]), ["EITHER"]);
}

#[test]
fn case_lines_and_texts_are_as_people_expect() {
    assert!(fits("grüße", "Viele GRÜSSE und GRÜẞE, Grüße"));
    assert!(fits("kiss", "\u{212a}i\u{17f}s"), "what matches without regard of case is found by its literal, too");
    assert!(!fits("(?-i)Grüße", "GRÜẞE grüße") && fits("(?-i)Grüße", "Grüße"));
    assert!(fits("^second$", "first\nsecond\nthird"));
    let engine = engine(vec![rule("A", &[("link", "^https://a[^/]*/evil$")])]);
    assert_eq!(holding(&engine, &[("link", "https://a.test"), ("link", "https://b.test/evil")]), [""; 0], "two links");
    assert_eq!(holding(&engine, &[("link", "https://b.test"), ("link", "https://a.test/evil")]), ["A"]);
}

#[test]
fn a_short_match_is_seen_with_what_stands_around_it() {
    let long = "word ".repeat(3_000);
    for (pattern, text, expected) in [
        (r"\binvoice\b", format!("{long} an invoice, {long}"), true),
        (r"\binvoice\b", format!("{long} preinvoices {long}"), false),
        (r"\binvoice\b", format!("{long} préinvoice {long}"), false),
        (r"in.{0,3}voice", format!("{long}in - voice{long}"), true),
        // More places of the literal than are tried one by one.
        (r"aaa[^b]", format!("{}aaa7", "aaab ".repeat(3_000)), true),
        (r"aaa[^b]", "aaab ".repeat(3_000), false),
        (r"(cheap|free) (meds|pills)", format!("{long}free pills{long}"), true),
        (r"invoice.*overdue", format!("{long}\ninvoice 4711 is overdue"), true),
        (r"invoice.*overdue", "invoice\noverdue".to_owned(), false),
    ] {
        assert_eq!(fits(pattern, &text), expected, "{pattern}");
    }
}

#[test]
fn of_a_thousand_rules_only_those_are_tried_of_which_a_literal_is_there() {
    let many = |count: usize| {
        engine(
            (0..count)
                .map(|n| rule(&format!("R{n}"), &[("body", &format!(r"\bword{n:04}\s+(now|today)\b"))]))
                .collect(),
        )
    };
    let text = "a letter about word0003 now, word0005 later, and nothing else ".repeat(20);
    for count in [10, 1_000] {
        let (engine, text) = (many(count), [("body", text.as_str())]);
        assert_eq!((search(&engine, &text).tried, holding(&engine, &text).len()), (2, 1), "of {count}");
    }
}

#[test]
fn patterns_without_a_literal_are_one_expression_and_few() {
    let of = |count: usize| {
        (0..count).map(|n| rule(&format!("R{n}"), &[("subject", &format!("^[a-f]{{{n}}}x?[0-9]+$"))])).collect()
    };
    let engine = engine(of(super::WITHOUT_LITERAL_MAX + 3));
    assert_eq!(engine.left_out().len(), 3);
    assert!(engine.warning().expect("a warning").starts_with("3 of 35 rules of the policy are not in force: OWN_R32"));
    assert_eq!(holding(&engine, &[("subject", "ABCx12")]), ["R3"], "the others are in force");
}

#[test]
fn bombs_are_refused_and_said_to_be_what_they_are() {
    for bomb in ["(a{1000}){1000}", r"(\pL{100}){100}", "((((a{50}){50}){50}){50}){50}"] {
        assert!(refused("subject", bomb).contains("when compiled"), "{bomb}: {}", refused("subject", bomb));
    }
    assert!(refused("html", r"\B\w{3}x\B").contains("too complex"), "{}", refused("html", r"\B\w{3}x\B"));
    assert_eq!(engine(vec![rule("A", &[("html", r"\b\w{3}x\b")])]).left_out(), [], "borders are marked");
    let nested = format!("{}a{}", "(".repeat(60), ")".repeat(60));
    for (pattern, problem) in [
        ("(a", "unclosed group"),
        ("x*", "empty text"),
        ("", "a pattern of 1 to"),
        (r"(a)\1", "backreference"),
        (&nested, "nest"),
    ] {
        assert!(refused("subject", pattern).contains(problem), "{pattern}: {}", refused("subject", pattern));
    }
    assert!(refused("colour", "red").contains("nothing that a rule can look at"));
    assert!(refused("header", "no colon").contains("header field") && refused("spf", "maybe").contains("one of none"));
}

#[test]
fn more_rules_than_there_may_be_are_left_out_one_by_one_and_not_all() {
    let engine = engine((0..RULES_MAX + 5).map(|n| rule(&format!("R{n}"), &[("spf", "fail")])).collect());
    assert_eq!(engine.counts(), [("in_force", 2_000), ("left_out", 5)]);
    let mut none = rule("NONE", &[]);
    none.none = vec![condition(&("spf", "fail"))];
    assert!(super::Engine::new(Arc::new(RuleSet { rules: vec![none], ..RuleSet::default() })).warning().is_some());
}

#[test]
fn a_text_is_looked_at_up_to_its_bound() {
    let text = format!("{} evil", "x".repeat(10 * 1024 * 1024));
    let engine = engine(vec![rule("A", &[("body", "evil")]), rule("B", &[("body", "xxxx+y?$")])]);
    assert_eq!(holding(&engine, &[("body", &text)]), ["B"], "the end is not looked at");
}

#[test]
fn work_that_is_too_much_is_told_and_not_done() {
    // Each pattern is within its bound; together they are not, where the text is as an adversary would write it.
    let rules = (0..60).map(|n| rule(&format!("R{n}"), &[("html", &format!("abc[a-c]{{0,300}}.*{n}x"))])).collect();
    let engine = engine(rules);
    assert_eq!(engine.left_out(), []);
    let found = search(&engine, &[("html", &"abc".repeat(100_000))]);
    assert!(found.is_cut && found.tried < 60, "{found:?}");
}

#[test]
fn borders_of_words_are_looked_for_in_long_texts_that_are_not_ascii() {
    // Words of each of them are there, in HTML as long as it may be: a letter in German is no letter of an adversary.
    let rules = (0..150).map(|n| rule(&format!("R{n}"), &[("html", &format!(r"\bwort{n}\b|\bfür{n}\b"))])).collect();
    let engine = engine(rules);
    assert_eq!(engine.left_out(), []);
    let words: String = (0..150).map(|n| format!("<p>schöner{n} fürwort{n} vorwort{n} für{n}ä</p>")).collect();
    let text = format!("{}<p>für7, wort8!</p>", words.repeat(256 * 1024 / words.len() - 1));
    let found = search(&engine, &[("html", &text)]);
    assert!(!found.is_cut, "{}", found.tried);
    assert_eq!(holding(&engine, &[("html", &text)]), ["R7", "R8"]);
}

#[test]
fn texts_that_are_found_are_paid_for() {
    let engine = engine(vec![rule("A", &[("body", "foofoo.*barbar")])]);
    let [few, many] = [1, 1000].map(|times| search(&engine, &[("body", &"foofoo ".repeat(times))]));
    assert_eq!((few.tried, many.tried), (0, 0));
    assert_ne!(few, many, "what is left of the work");
}

fn piece() -> impl Strategy<Value = String> {
    let pieces = [
        "abc",
        "foo",
        "x",
        r"\b",
        "^",
        "$",
        ".",
        "[a-c]",
        r"\w",
        r"\s+",
        "ä",
        "ß",
        "k",
        "s",
        "(?-i:K)",
        "(ab|ac)",
        "(foo|bar)?",
        "a{2,3}",
        "b*",
        "(a|)",
        r"\d",
        "İ",
        "[^x]",
        r"(?-u:\w)",
    ];
    proptest::sample::select(pieces.to_vec()).prop_map(str::to_owned)
}

fn word() -> impl Strategy<Value = String> {
    let words =
        ["abc", "foo", "bar", "x", " ", "\n", "Ä", "ä", "ẞ", "K", "\u{212a}", "\u{17f}", "İ", "1", "aa", "ABC", "b"];
    proptest::sample::select(words.to_vec()).prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn what_is_found_together_is_what_each_pattern_finds_alone(
        patterns in proptest::collection::vec(proptest::collection::vec(piece(), 1..6), 1..6),
        words in proptest::collection::vec(word(), 0..30),
    ) {
        let (patterns, text): (Vec<String>, String) = (patterns.iter().map(|pieces| pieces.concat()).collect(), words.concat());
        let rules = patterns.iter().enumerate().map(|(n, pattern)| rule(&n.to_string(), &[("body", pattern)])).collect();
        let engine = engine(rules);
        let found = holding(&engine, &[("body", &text)]);
        for (n, pattern) in patterns.iter().enumerate() {
            let usable = engine.left_out().iter().all(|out| out.rule != n);
            let alone = regex_automata::meta::Regex::new(&format!("(?im){pattern}")).is_ok_and(|regex| regex.is_match(&text));
            prop_assert_eq!(found.contains(&n.to_string()), usable && alone, "{} in {:?}", pattern, text);
        }
    }
}
