//! A good set of files, bad ones with the exact place of each fault, and the lines of a plan.

use proto::{address::Domain, department::TlsRule, policy::Layer, policy::Policy, score::Score};

use super::{PolicySet, changes, read};

const STATE: &str = include_str!("../../tests/policy/state.yaml");
const INTERIOR: &str = include_str!("../../tests/policy/interior.yaml");
const HEALTH: &str = include_str!("../../tests/policy/health.yaml");

fn files(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn example() -> Vec<(String, String)> {
    files(&[("state.yaml", STATE), ("interior.yaml", INTERIOR), ("health.yaml", HEALTH)])
}

fn good(input: &[(String, String)]) -> PolicySet {
    read(input).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

fn faults(input: &[(&str, &str)]) -> Vec<String> {
    read(&files(input)).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn the_example_files_make_a_policy() {
    let policy = good(&example());
    let ids: Vec<&str> = policy.departments.iter().map(|department| department.id.as_str()).collect();
    assert_eq!(ids, ["health", "interior"]);
    assert_eq!(policy.settings.view_age_max_ms, 86_400_000);
    let interior = &policy.departments[1];
    assert_eq!(interior.next_hops[0].tls, TlsRule::Required);
    assert_eq!((interior.next_hops[1].port, interior.next_hops[1].tls), (25, TlsRule::Opportunistic));
    assert!(interior.domains.contains(&Domain::parse("police.gov.test").expect("a domain")));
    assert_eq!(policy.departments[0].recipients.as_ref().map(std::collections::BTreeSet::len), Some(3));
    let layers = Policy::built_in().with(&policy.settings.policy, Layer::State);
    let layers = layers.with(&interior.policy, Layer::Department);
    assert_eq!((layers.reject_at.value, layers.reject_at.layer), (Score::points(9, 0), Layer::Department));
    assert_eq!((layers.quarantine_at.value, layers.quarantine_at.layer), (Score::points(6, 50), Layer::State));
}

#[test]
fn a_bare_state_file_takes_the_defaults() {
    let policy = good(&files(&[("conf/state.yaml", "state: x\npolicy: {virus_scan: off}\n")]));
    assert_eq!(policy.settings.view_age_max_ms, 86_400_000);
    assert!(policy.departments.is_empty());
}

#[test]
fn each_fault_is_named_with_file_line_and_key() {
    let state = "state: S\n";
    let a = "department: a\nname: A\ndomains: [a.test]\nnext_hops: [{host: h, port: 1}]\n";
    let with = |more: &str| format!("{a}{more}");
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "state: S\nstat: T\n",
            a,
            &["state.yaml:2:1: stat: unknown key; known here: arc_sealers, client_score_max, \
            clients, content, internet_relays, policy, state, view_age_max"],
        ),
        ("state: 7\n", a, &["state.yaml:1:8: state: text is expected"]),
        (
            "state: S\nclient_score_max: 0\n",
            a,
            &["state.yaml:2:19: client_score_max: a whole number from 1 to 1000 is expected"],
        ),
        ("state: S\nview_age_max: 24\n", a, &["state.yaml:2:15: view_age_max: text is expected"]),
        (
            "state: S\nview_age_max: 40d\n",
            a,
            &["state.yaml:2:15: view_age_max: \"40d\": a time such as 90s, 10m, \
            24h or 2d is expected, from 1s to 30d"],
        ),
        (
            "state: S\npolicy: {malware: accept}\n",
            a,
            &["state.yaml:2:19: policy.malware: one of reject, quarantine, \
            discard is expected"],
        ),
        (
            "state: S\npolicy: {message_bytes_max: 52428801}\n",
            a,
            &["state.yaml:2:29: policy.message_bytes_max: \
            a whole number from 1024 to 52428800 is expected"],
        ),
        (
            "state: S\npolicy: {quarantine_at: 13}\n",
            a,
            &["state.yaml:2:25: policy.quarantine_at: tag_at <= \
            quarantine_at <= reject_at must hold, but they are 4.00 (built in), 13.00 (state), 12.00 (built in)"],
        ),
        (
            state,
            "name: A\ndomains: []\n",
            &[
                "a.yaml:1:1: department: is missing",
                "a.yaml:1:1: next_hops: is missing",
                "a.yaml:2:10: domains: at least one is needed",
            ],
        ),
        (
            state,
            &with("sources: [10.0.0.1/8, 0.0.0.0/0, x]\n"),
            &[
                "a.yaml:5:11: sources[0]: \"10.0.0.1/8\": has bits beyond its prefix; is 10.0.0.0/8 meant?",
                "a.yaml:5:23: sources[1]: \"0.0.0.0/0\": wider than /8: too many hosts would speak for the department",
                "a.yaml:5:34: sources[2]: \"x\": an IP address or a network such as 10.1.0.0/16 is expected",
            ],
        ),
        (
            state,
            &with("recipients: [a b, 12]\n"),
            &[
                "a.yaml:5:14: recipients[0]: \"a b\": the part of an address before the @ is expected",
                "a.yaml:5:19: recipients[1]: text is expected",
            ],
        ),
        (
            state,
            &with("policy: {reject_at: 3}\n"),
            &["a.yaml:5:21: policy.reject_at: tag_at <= quarantine_at <= \
            reject_at must hold, but they are 4.00 (built in), 6.00 (built in), 3.00 (department)"],
        ),
        (
            state,
            "department: A\nname: \"\\e\"\ndomains: [a..b]\nnext_hops: [{host: a/b, port: 0, tls: yes}]\n",
            &[
                "a.yaml:1:13: department: \"A\": a department's id is 1 to 63 lower-case letters, digits and hyphens",
                "a.yaml:2:7: name: \"\\u{1b}\": a name of 1 to 200 characters without control characters is expected",
                "a.yaml:3:11: domains[0]: \"a..b\": not a domain name",
                "a.yaml:4:20: next_hops[0].host: \"a/b\": not a domain name: a host name or an IP address is expected",
                "a.yaml:4:31: next_hops[0].port: a whole number from 1 to 65535 is expected",
                "a.yaml:4:39: next_hops[0].tls: one of none, opportunistic, required is expected",
            ],
        ),
    ];
    for (state, department, expected) in cases {
        assert_eq!(faults(&[("state.yaml", state), ("a.yaml", department)]), *expected, "{state}{department}");
    }
}

#[test]
fn what_two_files_claim_is_found_even_when_one_is_faulty() {
    let a = "department: a\nname: A\ndomains: [a.test, a.test]\nnext_hops: [{host: h}]\nsources: [10.1.0.0/16]\n";
    let b = "department: a\nnaem: B\ndomains: [x.a.test, a.test]\nnext_hops: [{host: h}]\nsources: [10.1.2.3]\n";
    assert_eq!(
        faults(&[("state.yaml", "state: S\n"), ("b.yaml", b), ("a.yaml", a)]),
        [
            "b.yaml:1:1: name: is missing",
            "b.yaml:2:1: naem: unknown key; known here: department, domains, name, next_hops, policy, recipients, \
             services, sources, verify_recipients",
            "b.yaml:5:11: sources[0]: 10.1.2.3/32 overlaps 10.1.0.0/16 of a (a.yaml:5)",
            "a.yaml:1:13: department: a is already the id in b.yaml:1",
            "a.yaml:3:11: domains[0]: a.test belongs to a (b.yaml:3) already",
            "a.yaml:3:19: domains[1]: a.test belongs to a (b.yaml:3) already",
        ]
    );
}

#[test]
fn a_domain_below_another_departments_is_a_fault_but_below_its_own_is_not() {
    let department = |id: &str, domains: &str| {
        format!("department: {id}\nname: N\ndomains: [{domains}]\nnext_hops: [{{host: h}}]\n")
    };
    let a = department("a", "gov.test, x.gov.test");
    assert_eq!(
        faults(&[("a.yaml", &a), ("state.yaml", "state: S\n"), ("b.yaml", &department("b", "y.x.gov.test"))]),
        ["b.yaml:3:11: domains[0]: y.x.gov.test lies below x.gov.test, which belongs to a (a.yaml:3)"]
    );
    assert_eq!(faults(&[("a.yaml", &a), ("state.yaml", "state: S\n")]), [""; 0]);
}

#[test]
fn there_is_exactly_one_state_file() {
    let missing = "state.yaml:1:1: is missing: each policy has one, with at least `state: NAME`";
    assert_eq!(faults(&[]), [missing]);
    assert_eq!(
        faults(&[("state.yaml", "state: S\n"), ("x/state.yaml", "state: S\n"), ("notes.txt", "")]),
        ["x/state.yaml:1:1: there may be only one state.yaml", "notes.txt:1:1: a policy file's name ends in .yaml"]
    );
}

#[test]
fn a_plan_says_what_changes_and_by_which_layer() {
    let old = good(&example());
    assert_eq!(changes(&old, &old), [""; 0]);
    assert_eq!(
        changes(&PolicySet::default(), &old),
        [
            "+ state \"Testland\"",
            "~ state: arc_sealers + lists.example",
            "~ state: quarantine_at 6.00 -> 6.50 (state)",
            "+ department health (1 domain)",
            "+ department interior (2 domains)"
        ]
    );
    let state = STATE.replace("reject_at: 12", "reject_at: 11").replace("24h", "36h");
    let interior = INTERIOR
        .replace("  reject_at: 9\n", "")
        .replace("police.gov.test", "border.gov.test")
        .replace(", port: 25, tls: required", ", port: 26");
    let health =
        HEALTH.replace("recipients: [anna", "recipients: [carl") + "policy:\n  reject_at: 10\n  blocked_types: []\n";
    let stays = good(&files(&[
        ("state.yaml", &STATE.replace("  reject_at: 12\n", "")),
        ("interior.yaml", INTERIOR),
        ("health.yaml", HEALTH),
    ]));
    assert_eq!(changes(&old, &stays), ["~ state: reject_at stays 12.00, now built in"]);
    let zoo = "department: zoo\nname: Zoo\ndomains: [zoo.test]\nnext_hops: [{host: h}]\n";
    let set = [("state.yaml", &*state), ("interior.yaml", &*interior), ("health.yaml", &*health), ("zoo.yaml", zoo)];
    let new = good(&files(&set));
    assert_eq!(
        changes(&old, &new),
        [
            "~ state: view_age_max 1d -> 36h",
            "~ state: reject_at 12.00 -> 11.00 (state)",
            "~ health: recipients + carl, - anna",
            "~ health: reject_at 12.00 -> 10.00 (department)",
            "~ health: blocked_types [executable, script, active, encrypted] -> [] (department)",
            "~ interior: domains + border.gov.test, - police.gov.test",
            "~ interior: next_hops mail.interior.csg.test:25 (TLS required), 10.1.0.26:25 -> \
             mail.interior.csg.test:26, 10.1.0.26:25",
            "~ interior: reject_at 9.00 -> 11.00 (state)",
            "+ department zoo (1 domain)",
        ]
    );
    assert_eq!(changes(&new, &old).last().map(String::as_str), Some("- department zoo (1 domain)"));
}

#[test]
fn what_is_asked_of_clients_is_read_over_what_is_built_in_and_planned() {
    let read = |clients: &str| good(&files(&[("state.yaml", &format!("state: S\n{clients}"))]));
    let old = read("");
    assert_eq!(old.settings.clients, None);
    let new = read(
        "clients: {greet_delay: 2s, greylist_delay: 1m, points: {no_reverse_name: 2}, rates: {unknown_recipients: unbounded, \
         client_connections: 60}, at_once: {sender_domain_messages: 20}, dns_lists: [{zone: bad.test, points: 4, answers: [127.0.0.2, 127.0.1.0/24]}, {zone: good.test, \
         points: -2.5}]}\npolicy: {client_refuse_at: 9, greylist_at: 0}\n",
    );
    assert_eq!(
        changes(&old, &new),
        [
            "~ state: clients.greet_delay 0 ms -> 2000 ms",
            "~ state: clients.greylist_delay 300 s -> 60 s",
            "~ state: clients.points.no_reverse_name 1.20 -> 2.00",
            "~ state: clients.dns_lists [] -> [bad.test 4.00 (127.0.0.2/32 127.0.1.0/24), good.test -2.50]",
            "~ state: clients.rates.client_connections no bound -> 60/min",
            "~ state: clients.rates.unknown_recipients 30/min -> no bound",
            "~ state: clients.at_once.sender_domain_messages no bound -> 20 at once",
            "~ state: client_refuse_at 8.00 -> 9.00 (state)",
            "~ state: greylist_at 2.00 -> 0.00 (state)",
        ]
    );
}

#[test]
fn lists_of_names_and_who_is_guarded_are_read_and_planned_and_their_faults_are_named() {
    let text = |content: &str| format!("state: S\ncontent: {{{content}}}\n");
    let new =
        text("domain_lists: [{zone: dbl.test, points: 4}], officials: [Anna Muster], guarded_domains: [bank.example]");
    let old = good(&files(&[("state.yaml", "state: S\n")]));
    assert_eq!(
        changes(&old, &good(&files(&[("state.yaml", &new)]))),
        [
            "~ state: content.domain_lists [] -> [dbl.test 4.00]",
            "~ state: content.officials [] -> [\"Anna Muster\"]",
            "~ state: content.guarded_domains [] -> [bank.example]",
        ]
    );
    let bad = text("domain_lists: [{zone: dbl.test}], officials: [Anna], guarded_domains: [a b], officers: []");
    assert_eq!(
        faults(&[("state.yaml", &bad)]),
        [
            "state.yaml:2:26: content.domain_lists[0].points: is missing",
            "state.yaml:2:57: content.officials[0]: \"Anna\": a first and a last name are expected",
            "state.yaml:2:82: content.guarded_domains[0]: \"a b\": not a domain name",
            "state.yaml:2:88: content.officers: unknown key; known here: domain_lists, guarded_domains, learning, officials",
        ]
    );
}

#[test]
fn learning_is_on_until_policy_says_otherwise() {
    let text = |learning: &str| format!("state: S\ncontent: {{learning: {{{learning}}}}}\n");
    let read = |learning: &str| good(&files(&[("state.yaml", &text(learning))]));
    let old = good(&files(&[("state.yaml", "state: S\n")]));
    assert_eq!(
        changes(&old, &read("enabled: no, every: 2h, lessons_min: 50")),
        [
            "~ state: content.learning.enabled yes -> no",
            "~ state: content.learning.lessons_min 20 -> 50",
            "~ state: content.learning.every 3600 s -> 7200 s",
        ]
    );
    assert!(old.settings.learning().enabled && read("lessons_min: 5").settings.learning().enabled);
    assert_eq!(
        faults(&[("state.yaml", &text("enabled: maybe, every: 40d, lessons_min: 4"))]),
        [
            "state.yaml:2:31: content.learning.enabled: one of yes, no is expected",
            "state.yaml:2:45: content.learning.every: \"40d\": a time such as 90s, 10m, 24h or 2d is expected, from 1s to 30d",
            "state.yaml:2:63: content.learning.lessons_min: a whole number from 5 to 250 is expected",
        ]
    );
}

#[test]
fn scanning_again_is_a_matter_of_policy_with_a_bound() {
    let read = |policy: &str| good(&files(&[("state.yaml", &format!("state: S\n{policy}"))]));
    assert_eq!(
        changes(&read(""), &read("policy: {rescan_after_minutes: 30, rescan_at: 3.5}\n")),
        ["~ state: rescan_after_minutes 0 -> 30 (state)", "~ state: rescan_at 2.00 -> 3.50 (state)"]
    );
    let told = faults(&[("state.yaml", "state: S\npolicy: {rescan_after_minutes: 1441}\n")]);
    assert_eq!(told, ["state.yaml:2:32: policy.rescan_after_minutes: a whole number from 0 to 1440 is expected"]);
}

#[test]
fn what_holds_for_single_attachments_is_read_and_planned_and_its_faults_are_named() {
    let read = |policy: &str| good(&files(&[("state.yaml", &format!("state: S\n{policy}"))]));
    let new = "policy: {blocked_names: ['*.ISO', 'a?.zip'], attachment_bytes_max: 1000, blocked_type: strip, strip_notice: Gone}\n";
    assert_eq!(
        changes(&read("policy: {strip_notice: Away}\n"), &read(new)),
        [
            "~ state: blocked_names [] -> [*.iso, a?.zip] (state)",
            "~ state: attachment_bytes_max 52428800 -> 1000 (state)",
            "~ state: blocked_type quarantine -> strip (state)",
            "~ state: strip_notice \"Away\" -> \"Gone\" (state)",
        ]
    );
    let bad = "state: S\npolicy: {blocked_names: ['*', 'a/b'], attachment_bytes_max: 0, blocked_type: accept, strip_notice: ''}\n";
    assert_eq!(
        faults(&[("state.yaml", bad)]),
        [
            "state.yaml:2:26: policy.blocked_names[0]: \"*\": it needs a character beside *, ?, dots and blanks, or it would fit \
             names of any sort",
            "state.yaml:2:31: policy.blocked_names[1]: \"a/b\": names are looked at without folders and streams: leave out / \\ and :",
            "state.yaml:2:61: policy.attachment_bytes_max: a whole number from 1 to 52428800 is expected",
            "state.yaml:2:78: policy.blocked_type: one of reject, quarantine, discard, strip, tag is expected",
            "state.yaml:2:100: policy.strip_notice: \"\": a text of 1 to 1000 characters in lines is expected",
        ]
    );
    let many = format!("state: S\npolicy: {{blocked_names: [{}]}}\n", vec!["'*.x'"; 65].join(", "));
    assert_eq!(faults(&[("state.yaml", &many)]), ["state.yaml:2:9: policy: blocked_names: 64 patterns at most"]);
}

#[test]
fn faults_of_what_is_asked_of_clients_are_named() {
    let (text, _, expected): (&str, &str, &[&str]) = (
        "state: S\nclients: {greet_delay: 31s, points: {bad_helo: -1}, dns_lists: [{zone: a.test}, {zone: b.test, points: 2, \
            answers: [192.0.2.1]}], rates: {net_connections: 0}}\n",
        "",
        &[
            "state.yaml:2:24: clients.greet_delay: a time from 1s to 30s, or none, is expected: who waits takes a place",
            "state.yaml:2:48: clients.points.bad_helo: points from 0.00 to 100.00 are expected",
            "state.yaml:2:65: clients.dns_lists[0].points: is missing",
            "state.yaml:2:117: clients.dns_lists[1].answers[0]: an address such as 127.0.0.2, or a net of them such as \
                127.0.0.0/28, is expected",
            "state.yaml:2:156: clients.rates.net_connections: a whole number from 1 to 10000000 is expected, or unbounded",
        ],
    );
    assert_eq!(faults(&[("state.yaml", text)]), *expected);
}

#[test]
fn rules_stand_in_files_of_their_own_and_are_planned_one_by_one() {
    const STATE: (&str, &str) = ("state.yaml", "state: S\n");
    let one = "rules:\n  - {name: OWN_A, score: 1, text: x, subject: abc, match: [ABC]}\n";
    let two = "groups: [{name: b, cap: 2}]\nrules:\n  - {name: OWN_B, score: 2.5, group: b, text: x, all: [{body: def}, {spf: fail}]}\n";
    let old = good(&files(&[STATE]));
    let new = good(&files(&[STATE, ("conf/rules-b.yaml", two), ("rules.yaml", one)]));
    let rules = new.settings.rules.as_ref().expect("rules");
    assert_eq!(rules.rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["OWN_B", "OWN_A"]);
    assert_eq!(
        changes(&old, &new),
        ["+ rule OWN_A (1.00, own)", "+ rule OWN_B (2.50, b)", "~ group b: cap 4.50 -> 2.00"]
    );
    let changed = one.replace("score: 1", "score: -1").replace("subject: abc", "subject: 'ab?c'");
    let later = good(&files(&[STATE, ("rules.yaml", &changed)]));
    assert_eq!(
        changes(&new, &later),
        [
            "~ rule OWN_A: score 1.00 -> -1.00",
            "~ rule OWN_A: all [subject: \"abc\"] -> [subject: \"ab?c\"]",
            "- rule OWN_B (2.50, b)",
            "~ group b: cap 2.00 -> 4.50",
        ]
    );
    assert_eq!(changes(&later, &old), ["- rule OWN_A (-1.00, own)"]);
    assert_eq!(good(&files(&[STATE, ("rules.yaml", "rules: []\n")])), old, "no rules are no change");
}

#[test]
fn a_rule_that_does_not_stand_its_sample_is_a_fault_beside_those_of_other_files() {
    let rules = "rules:\n  - {name: OWN_A, score: 1, text: x, subject: abc, match: [xyz]}\n";
    assert_eq!(
        faults(&[("state.yaml", "stat: S\n"), ("rules-x.yaml", rules), ("rules.yaml", rules)])[1..],
        [
            "state.yaml:1:1: stat: unknown key; known here: arc_sealers, client_score_max, clients, content, internet_relays, policy, state, \
             view_age_max",
            "rules-x.yaml:2:60: rules[0].match[0]: OWN_A does not hold for this sample",
            "rules.yaml:2:5: rules[0]: OWN_A is already a rule in rules-x.yaml:2",
            "rules.yaml:2:60: rules[0].match[0]: OWN_A does not hold for this sample",
        ]
    );
}

#[test]
fn kinds_and_formats_of_ones_own_are_read_and_their_faults_are_named() {
    let read = |policy: &str| format!("state: S\npolicy: {{{policy}}}\n");
    let text = read(
        "blocked_types: [macro, active, encrypted], fingerprints: [{name: CAD, offset: 2, bytes: \"41 43\", mask: \"ffff\"}]",
    );
    let new = good(&files(&[("state.yaml", &text)]));
    assert_eq!(
        changes(&good(&files(&[("state.yaml", "state: S\n")])), &new),
        [
            "~ state: blocked_types [executable, script, active, encrypted] -> [macro, active, encrypted] (state)",
            "~ state: fingerprints [] -> [CAD at 2: 4143/ffff] (state)",
        ]
    );
    let text =
        read("fingerprints: [{name: A, bytes: \"4\"}, {bytes: \"4142\"}, {name: C, offset: 1048577, bytes: \"41\"}]");
    let found = faults(&[("state.yaml", &text)]);
    let problems = ["pairs of hexadecimal digits", "name: is missing", "from 0 to 1048576", "at least 16 bits"];
    assert!(problems.iter().all(|problem| found.iter().any(|fault| fault.contains(problem))), "{found:?}");
    let many = vec!["{name: A, bytes: \"4142\"}"; 65].join(", ");
    assert!(
        faults(&[("state.yaml", &read(&format!("fingerprints: [{many}]")))])[0].contains("64 fingerprints at most")
    );
}
