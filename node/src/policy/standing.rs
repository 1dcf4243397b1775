//! Who answers for a message, what is known of them, and what their message says of them.

use std::net::IpAddr;

use proto::{
    address::ReversePath,
    reputation::{Repute, Stance, Subject, known::Known},
    score::Score,
    time::UnixMs,
    verdict::{Disposition, Verdict},
};

use super::{
    evidence::{AuthResult, Authentication},
    score,
};
use crate::smtp::transaction::Recipient;

/// Rules whose points come from what is known already: what a message says of its senders is without them, or one bad
/// message would be counted again and again.
pub(super) const KNOWN: [&str; 3] = ["REPUTATION_BAD", "REPUTATION_GOOD", "SENDER_ALLOWED"];

/// The client, its net, and the domains that have vouched for the message; of forged ones nothing is learnt.
#[must_use]
pub fn senders(client: IpAddr, path: &ReversePath, found: &Authentication) -> Vec<Subject> {
    let mut senders = Vec::from(Subject::of_client(client));
    if let (AuthResult::Pass, Some(address)) = (found.spf, path.address()) {
        senders.push(Subject::Spf(address.domain().clone()));
    }
    let signed = found.dkim.iter().filter(|signature| signature.result == AuthResult::Pass);
    for domain in signed.filter_map(|signature| proto::address::Domain::parse(&signature.domain).ok()) {
        let signer = Subject::Dkim(domain);
        if !senders.contains(&signer) {
            senders.push(signer);
        }
    }
    senders
}

/// What is known of all of them together: whom an operator has blocked stays blocked, and else the one of whom most is known
/// speaks for all. A net counts half, for it has many users.
#[must_use]
pub fn known(reputation: &Known, senders: &[Subject], now: UnixMs) -> Repute {
    let mut all = Repute::default();
    for sender in senders {
        let one = reputation.repute(sender.key(), now);
        let score = if matches!(sender, Subject::Net(_)) { one.score / 2 } else { one.score };
        if all.stance != Some(Stance::Block) {
            all.stance = one.stance.or(all.stance);
        }
        if (score.abs(), score) > (all.score.abs(), all.score) {
            all.score = score;
        }
    }
    all
}

/// Whether a message was good or bad; `None` when it says nothing of its senders. Bad is malware, or so many points that it
/// is kept from its recipient; good is what was accepted without a tag.
#[must_use]
pub fn outcome(verdicts: &[(Vec<Recipient>, Verdict)]) -> Option<bool> {
    let outcomes = verdicts.iter().filter_map(|(group, verdict)| {
        let policy = &group.first()?.policy;
        let own = verdict.reasons.iter().filter(|reason| !KNOWN.contains(&reason.rule.as_str())).cloned();
        let points: Score = score::total(&own.collect::<Vec<_>>());
        let malware = verdict.reasons.iter().any(|reason| reason.rule == "MALWARE");
        if malware || points >= policy.quarantine_at.value {
            Some(false)
        } else {
            (verdict.disposition == Disposition::Accept && points < policy.tag_at.value).then_some(true)
        }
    });
    // One recipient's strict policy is enough.
    outcomes.min()
}

#[cfg(test)]
mod tests {
    use proto::{
        address::{Address, ReversePath},
        policy::PolicyLayer,
        reputation::{Levels, Manual, Repute, Stance, Subject, Tally},
        score::Score,
        time::UnixMs,
        verdict::{Disposition, Verdict},
        view::{View, ViewChange},
    };

    use super::{known, outcome, senders};
    use crate::policy::{
        evidence::{AuthResult, Authentication, Signature},
        samples::{transaction, view},
        score::reason,
    };

    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    fn subject(text: &str) -> Subject {
        text.parse().expect("a subject")
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
        let found = Authentication { spf: AuthResult::Fail, dkim, ..Authentication::default() };
        let client_alone = ["ip:192.0.2.7", "net:192.0.2.0/24"];
        assert_eq!(texts(&senders(client, &path, &found)), [client_alone[0], client_alone[1], "dkim:good.example"]);
        let passed = Authentication { spf: AuthResult::Pass, ..Authentication::default() };
        assert_eq!(texts(&senders(client, &path, &passed)), [client_alone[0], client_alone[1], "spf:b.example"]);
        assert_eq!(texts(&senders(client, &ReversePath::Null, &passed)), client_alone);
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
        assert_eq!(score(&[]), 0);
        assert!(score(&[("ip:192.0.2.7", 0, 1_000)]) > 900);
        assert!((400..600).contains(&score(&[("net:192.0.2.0/24", 0, 10_000)])), "a net counts half");
        assert!(score(&[("dkim:a.example", 5_000, 0), ("ip:192.0.2.7", 0, 3)]) < -900);
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
            outcome(&[(transaction.recipients.clone(), verdict)])
        };
        assert_eq!(verdict(Disposition::Accept, &[]), Some(true));
        assert_eq!(verdict(Disposition::Accept, &[("A", 5)]), None, "tagged: nobody knows");
        assert_eq!(verdict(Disposition::Quarantine, &[("A", 7)]), Some(false));
        assert_eq!(verdict(Disposition::Quarantine, &[("A", 2), ("REPUTATION_BAD", 5)]), None);
        assert_eq!(verdict(Disposition::Reject, &[("MALWARE", 0)]), Some(false));
        assert_eq!(verdict(Disposition::Reject, &[("DMARC_POLICY", 0)]), None, "who is forged is not the sender");
        assert_eq!(outcome(&[]), None);
    }
}
