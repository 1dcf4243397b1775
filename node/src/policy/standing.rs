//! Who answers for a message, what is known of them, and what their message says of them.

use std::net::IpAddr;

use ipnet::IpNet;
use proto::{
    address::{Domain, ReversePath},
    policy::Policy,
    reputation::{Repute, Stance, Subject, known::Known},
    score::Score,
    time::UnixMs,
    verdict::{Disposition, Verdict},
};

use super::{
    decide::RESCAN,
    evidence::{AuthResult, Authentication},
    score::BAD_FROM,
};
use crate::smtp::transaction::Recipient;

/// Rules whose points come from what is known already: what a message says of its senders is without them, or one bad
/// message would be counted again and again.
const KNOWN: [&str; 8] = [
    "REPUTATION_BAD",
    "REPUTATION_GOOD",
    "SENDER_ALLOWED",
    "CAMPAIGN_BAD",
    "CAMPAIGN_BLOCKED",
    "CAMPAIGN_ALLOWED",
    "CORRESPONDENT",
    "SUDDEN_VOLUME",
];

/// The client, its net, and the domains that have vouched for the author: those that signed and one of the reverse-path, each
/// aligned with the From field (RFC 7489 section 3.1, relaxed). A signature alone may be that of somebody else's message
/// that is sent again, and a client could make up any number of domains.
#[must_use]
pub fn senders(client: IpAddr, path: &ReversePath, found: &Authentication) -> Vec<Subject> {
    let mut senders = Vec::from(Subject::of_client(client));
    let aligned = |domain: &Domain| {
        found.from_domain.as_ref().is_some_and(|from| domain.is_within(from) || from.is_within(domain))
    };
    let path = path.address().map(|address| address.domain().clone());
    senders.extend(path.filter(|domain| found.spf == AuthResult::Pass && aligned(domain)).map(Subject::Spf));
    let signed = found.dkim.iter().filter(|signature| signature.result == AuthResult::Pass);
    for signer in signed.filter_map(|signature| Domain::parse(&signature.domain).ok()).filter(aligned) {
        let signer = Subject::Dkim(signer);
        if !senders.contains(&signer) {
            senders.push(signer);
        }
    }
    senders
}

/// For whom an outcome counts: of the signers the first, for a client could make up any number; and a bad one for a signer only
/// where the reverse-path vouches for the author too. Else whoever sends a genuine message again, from a bad place, would speak
/// ill of its author.
#[must_use]
pub fn answerable(senders: Vec<Subject>, good: bool) -> Vec<Subject> {
    let vouched = senders.iter().any(|sender| matches!(sender, Subject::Spf(_)));
    let mut signers = 0;
    let counts = |sender: &Subject| {
        let is_signer = matches!(sender, Subject::Dkim(_));
        signers += usize::from(is_signer);
        !is_signer || (signers == 1 && (good || vouched))
    };
    senders.into_iter().filter(counts).collect()
}

/// That an operator has blocked a domain which this one lies below: else its owner would go on under another name of his own.
/// Who is let in is let in alone, for below it may be anybody's names.
fn blocked_above(reputation: &Known, sender: &Subject, now: UnixMs) -> Option<Stance> {
    let (domain, subject): (&Domain, fn(Domain) -> Subject) = match sender {
        Subject::Dkim(domain) => (domain, Subject::Dkim),
        Subject::Spf(domain) => (domain, Subject::Spf),
        Subject::Ip(_) | Subject::Net(_) | Subject::Campaign(_) => return None,
    };
    let mut stances = domain.parents().filter_map(|above| reputation.repute(subject(above).key(), now).stance);
    stances.find(|stance| *stance == Stance::Block)
}

/// What is known of all of them together: whom an operator has blocked stays blocked, and else the one of whom most is known
/// speaks for all. No neighbours make a client good; bad ones count half in IPv4, where a net has many users, and in full in IPv6,
/// where a /64 is one customer. And no domain makes a bad client good.
#[must_use]
pub fn known(reputation: &Known, senders: &[Subject], now: UnixMs) -> Repute {
    let mut all = Repute::default();
    for sender in senders {
        let one = reputation.repute(sender.key(), now);
        if all.stance != Some(Stance::Block) {
            all.stance = one.stance.or_else(|| blocked_above(reputation, sender, now)).or(all.stance);
        }
        let score = match sender {
            Subject::Net(IpNet::V4(_)) => (one.score / 2).max(0),
            Subject::Net(IpNet::V6(_)) => one.score.max(0),
            Subject::Ip(_) | Subject::Dkim(_) | Subject::Spf(_) | Subject::Campaign(_) => one.score,
        };
        let redeems = !matches!(sender, Subject::Ip(_)) && score < 0 && all.score >= BAD_FROM;
        if !redeems && (score.abs(), score) > (all.score.abs(), all.score) {
            all.score = score;
        }
    }
    all
}

/// Whether a message was good or bad; `None` when it says nothing of its senders. Bad is malware, or so many points that the
/// state's policy keeps it from its recipient; good is what was accepted whole and without a tag. Departments may be stricter, but that says
/// nothing of the sender to the others.
#[must_use]
pub fn outcome(verdicts: &[(Vec<Recipient>, Verdict)], state: &Policy) -> Option<bool> {
    let outcomes = verdicts.iter().filter_map(|(_, verdict)| {
        let own = verdict.reasons.iter().filter(|reason| !KNOWN.contains(&reason.rule.as_str()));
        let points: Score = own.map(|reason| reason.score).sum();
        let malware = verdict.reasons.iter().any(|reason| reason.rule == "MALWARE");
        if malware || points >= state.quarantine_at.value {
            Some(false)
        } else {
            // A rule without points was against it, but for the one that has it scanned again.
            let is_barred = verdict.reasons.iter().any(|reason| reason.score == Score::ZERO && reason.rule != RESCAN);
            let is_good = verdict.disposition == Disposition::Accept && points < state.tag_at.value && !is_barred;
            is_good.then_some(true)
        }
    });
    // What is bad for one recipient is bad.
    outcomes.min()
}

#[cfg(test)]
mod tests {
    use proto::{
        address::{Address, Domain, ReversePath},
        policy::{Policy, PolicyLayer},
        reputation::{Levels, Manual, Repute, Stance, Subject, Tally},
        score::Score,
        time::UnixMs,
        verdict::{Disposition, Verdict},
        view::{View, ViewChange},
    };

    use super::{RESCAN, answerable, known, outcome, senders};
    use crate::policy::{
        evidence::{AuthResult, Authentication, Signature},
        samples::{transaction, view},
        score::reason,
    };

    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    fn subject(text: &str) -> Subject {
        text.parse().expect("a subject")
    }

    fn signed_by(domain: &str) -> Authentication {
        let dkim = vec![Signature { result: AuthResult::Pass, domain: domain.into(), selector: "s".into() }];
        Authentication { dkim, ..Authentication::default() }
    }

    fn texts(senders: &[Subject]) -> Vec<String> {
        senders.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_domains_that_have_vouched_are_senders() {
        let path = ReversePath::Address(Address::parse("a@b.example").expect("an address"));
        let client = "192.0.2.7".parse().expect("an address");
        let signature = |result, domain: &str| Signature { result, domain: domain.into(), selector: "s".into() };
        let dkim = vec![
            signature(AuthResult::Pass, "good.example"),
            signature(AuthResult::Fail, "bank.example"),
            signature(AuthResult::Pass, "good.example"),
        ];
        let from = |domain: &str| Some(Domain::parse(domain).expect("a domain"));
        let found = Authentication { dkim, from_domain: from("good.example"), ..Authentication::default() };
        let client_alone = ["ip:192.0.2.7", "net:192.0.2.0/24"];
        let signed = senders(client, &path, &found);
        assert_eq!(texts(&signed), [client_alone[0], client_alone[1], "dkim:good.example"]);
        // Somebody else's genuine message that is sent again speaks ill of nobody but who sends it.
        assert_eq!(texts(&answerable(signed.clone(), false)), client_alone);
        assert_eq!(answerable(signed.clone(), true), signed);
        let other = Authentication { from_domain: from("bank.example"), ..found.clone() };
        assert_eq!(texts(&senders(client, &path, &other)), client_alone, "the author is another one");
        let passed =
            Authentication { spf: AuthResult::Pass, from_domain: from("news.b.example"), ..Authentication::default() };
        assert_eq!(texts(&senders(client, &path, &passed)), [client_alone[0], client_alone[1], "spf:b.example"]);
        assert_eq!(texts(&senders(client, &ReversePath::Null, &passed)), client_alone);
        let both = Authentication { spf: AuthResult::Pass, from_domain: from("b.example"), ..signed_by("b.example") };
        let both = senders(client, &path, &both);
        assert_eq!(texts(&both)[2..], ["spf:b.example", "dkim:b.example"]);
        assert_eq!(answerable(both.clone(), false), both);
    }

    #[test]
    fn a_block_holds_for_each_signer_and_an_outcome_counts_for_the_first() {
        let client = "192.0.2.7".parse().expect("an address");
        let signature =
            |domain: &str| Signature { result: AuthResult::Pass, domain: domain.into(), selector: "s".into() };
        let dkim = vec![signature("a.b.example"), signature("b.example")];
        let from_domain = Domain::parse("b.example").ok();
        let found = Authentication { dkim, from_domain, ..Authentication::default() };
        let all = senders(client, &ReversePath::Null, &found);
        assert_eq!(texts(&all)[2..], ["dkim:a.b.example", "dkim:b.example"]);
        assert_eq!(texts(&answerable(all.clone(), true))[2..], ["dkim:a.b.example"]);
        let blocked = with(&[], &[("dkim:b.example", Stance::Block)]);
        assert_eq!(known(&blocked.reputation, &all, NOW).stance, Some(Stance::Block));
    }

    #[test]
    fn a_block_holds_below_the_domain_and_who_is_let_in_is_let_in_alone() {
        let stance = |sender: &str, manual: &[(&str, Stance)]| {
            known(&with(&[], manual).reputation, &[subject("ip:192.0.2.7"), subject(sender)], NOW).stance
        };
        let blocked = ("dkim:b.example", Stance::Block);
        assert_eq!(stance("dkim:b.example", &[blocked]), Some(Stance::Block));
        assert_eq!(stance("dkim:x.a.b.example", &[blocked]), Some(Stance::Block));
        assert_eq!(stance("spf:a.b.example", &[("spf:example", Stance::Block)]), Some(Stance::Block));
        assert_eq!(stance("spf:a.b.example", &[blocked]), None, "it has not signed");
        assert_eq!(stance("dkim:ab.example", &[blocked]), None, "another domain");
        assert_eq!(stance("dkim:example", &[blocked]), None, "the one above it");
        assert_eq!(stance("dkim:a.b.example", &[blocked, ("dkim:a.b.example", Stance::Allow)]), Some(Stance::Allow));
        assert_eq!(stance("dkim:a.b.example", &[("dkim:b.example", Stance::Allow)]), None);
    }

    fn with(counts: &[(&str, u64, u64)], manual: &[(&str, Stance)]) -> View {
        let tick = proto::reputation::tick(NOW);
        let levels = |good: u64, bad: u64| -> Levels { Tally { good: good * 256, bad: bad * 256, tick }.levels() };
        let until = NOW.plus_ms(1_000);
        View::empty().after(ViewChange {
            index: 1,
            subjects: counts.iter().map(|(name, good, bad)| (subject(name).key(), Some(levels(*good, *bad)))).collect(),
            manual: manual
                .iter()
                .map(|(name, stance)| (subject(name).key(), Some(Manual { stance: *stance, until })))
                .collect(),
            ..ViewChange::default()
        })
    }

    #[test]
    fn who_is_known_best_speaks_for_all_and_a_block_holds() {
        let all = ["ip:192.0.2.7", "net:192.0.2.0/24", "dkim:a.example"].map(subject);
        let score = |counts: &[(&str, u64, u64)]| known(&with(counts, &[]).reputation, &all, NOW).score;
        let replayed = score(&[("dkim:a.example", 500_000, 0), ("ip:192.0.2.7", 0, 100)]);
        assert!(replayed > 850, "no signature makes a bad client good: {replayed}");
        assert_eq!(score(&[]), 0);
        assert!(score(&[("ip:192.0.2.7", 0, 1_000)]) > 900);
        assert!((400..600).contains(&score(&[("net:192.0.2.0/24", 0, 10_000)])), "a net counts half");
        let neighbours = score(&[("net:192.0.2.0/24", 10_000, 0), ("ip:192.0.2.7", 0, 3)]);
        assert!(
            neighbours > 0 && score(&[("net:192.0.2.0/24", 10_000, 0)]) == 0,
            "neighbours make nobody good: {neighbours}"
        );
        let vouched = ["ip:192.0.2.7", "spf:a.example"].map(subject);
        let whitewashed =
            known(&with(&[("spf:a.example", 500_000, 0), ("ip:192.0.2.7", 0, 100)], &[]).reputation, &vouched, NOW);
        assert!(whitewashed.score > 850, "a domain that lets everybody send makes nobody good");
        let v6 = ["ip:2001:db8::7", "net:2001:db8::/64"].map(subject);
        let customer = known(&with(&[("net:2001:db8::/64", 0, 10_000)], &[]).reputation, &v6, NOW);
        assert!(customer.score > 950, "all addresses of a customer are one");
        assert!(score(&[("dkim:a.example", 5_000, 0), ("ip:192.0.2.7", 0, 1)]) < -900);
        let stance = |manual: &[(&str, Stance)]| known(&with(&[], manual).reputation, &all, NOW).stance;
        assert_eq!(stance(&[("dkim:a.example", Stance::Allow)]), Some(Stance::Allow));
        assert_eq!(stance(&[("ip:192.0.2.7", Stance::Block), ("dkim:a.example", Stance::Allow)]), Some(Stance::Block));
        assert_eq!(known(&with(&[], &[]).reputation, &[], NOW), Repute::default());
    }

    #[test]
    fn a_message_is_counted_by_what_it_is_and_not_by_what_was_known() {
        let transaction = transaction(view(PolicyLayer::default()), &["anna@interior.gov.test"]);
        let verdict = |disposition, reasons: &[(&str, u16)]| {
            let reasons: Vec<_> =
                reasons.iter().map(|(rule, points)| reason(rule, Score::points(i32::from(*points), 0), "x")).collect();
            let score = crate::policy::score::total(&reasons);
            let verdict = Verdict { disposition, score, tagged: false, reasons, policy_version: 1 };
            outcome(&[(transaction.recipients.clone(), verdict)], &Policy::built_in())
        };
        assert_eq!(verdict(Disposition::Accept, &[]), Some(true));
        assert_eq!(verdict(Disposition::Accept, &[("A", 5)]), None, "tagged: nobody knows");
        assert_eq!(
            verdict(Disposition::Accept, &[("BLOCKED_TYPE", 0), ("STRIPPED", 0)]),
            None,
            "not all of it went on"
        );
        assert_eq!(verdict(Disposition::Accept, &[(RESCAN, 0)]), Some(true));
        assert_eq!(verdict(Disposition::Quarantine, &[("A", 7)]), Some(false));
        assert_eq!(verdict(Disposition::Quarantine, &[("A", 2), ("REPUTATION_BAD", 5)]), None);
        assert_eq!(verdict(Disposition::Reject, &[("MALWARE", 0)]), Some(false));
        assert_eq!(verdict(Disposition::Reject, &[("DMARC_POLICY", 0)]), None, "who is forged is not the sender");
        assert_eq!(outcome(&[], &Policy::built_in()), None);
    }
}
