//! Adds up the points of a message: those of its content and those of who sent it.

use proto::{
    reputation::{Repute, Stance},
    score::Score,
    verdict::Reason,
};

use super::evidence::{AuthResult, Authentication, Evidence};

/// A reason of a scored rule.
#[must_use]
pub fn reason(rule: &str, score: Score, text: impl Into<String>) -> Reason {
    Reason { rule: rule.to_owned(), score, text: text.into() }
}

/// What one more reason of a group counts that has counted so much already, and counts no more than `most`, either way. What is
/// worth nothing is none.
#[must_use]
pub fn within(most: Score, so_far: &mut Score, mut one: Reason) -> Option<Reason> {
    let sum = (so_far.0.saturating_add(one.score.0)).clamp(-most.0, most.0);
    one.score = Score(sum - so_far.0);
    so_far.0 = sum;
    (one.score != Score::ZERO).then_some(one)
}

/// All scored reasons, most points first.
#[must_use]
pub fn scored(evidence: &Evidence) -> Vec<Reason> {
    let mut reasons = authenticated(&evidence.authentication);
    reasons.extend(evidence.client.iter().cloned());
    let of_client = reasons.len();
    reasons.extend(known(evidence.senders));
    for one in &evidence.content {
        // Content says what more a client's names are worth than the door has said: to people that is one reason.
        match reasons[..of_client].iter_mut().find(|reason| reason.rule == one.rule) {
            Some(same) => same.score = Score(same.score.0.saturating_add(one.score.0)),
            None => reasons.push(one.clone()),
        }
    }
    reasons.sort_by(|one, other| other.score.cmp(&one.score).then_with(|| one.rule.cmp(&other.rule)));
    reasons
}

/// The sum.
#[must_use]
pub fn total(reasons: &[Reason]) -> Score {
    reasons.iter().map(|reason| reason.score).sum()
}

/// A rule about who sent a message, as people list it: its group, its name, its points (of reputation the most) and its words.
pub type Listed = (&'static str, &'static str, Score, &'static str);

/// All rules about who sent a message, but for those of clients, whose points policy gives.
pub const RULES: [Listed; 12] = [
    ("arc", "ARC_TRUSTED", Score::points(-3, 0), "servers that are trusted vouch for who sent it (ARC)"),
    ("spf", "SPF_FAIL", Score::points(3, 0), "the sender's domain does not send from this address"),
    ("spf", "SPF_SOFTFAIL", Score::points(1, 0), "the sender's domain probably does not send from here"),
    ("spf", "SPF_PERMERROR", Score::points(0, 50), "the SPF record of the sender's domain is wrong"),
    ("helo", "SPF_HELO_FAIL", Score::points(1, 0), "the client uses the name of a host that it is not"),
    ("dkim", "DKIM_INVALID", Score::points(0, 80), "no DKIM signature holds"),
    ("dmarc", "DMARC_FAIL", Score::points(3, 0), "the author's domain does not vouch for the message"),
    ("dmarc", "DMARC_PASS", Score(-50), "the author's domain vouches for the message"),
    ("authentication", "NO_AUTHENTICATION", Score::points(1, 0), "nothing tells who sent it"),
    ("reputation", "REPUTATION_BAD", Score(500), "its senders have sent much bad mail lately"),
    ("reputation", "REPUTATION_GOOD", Score(-200), "its senders have sent much good mail lately"),
    ("reputation", "SENDER_ALLOWED", Score(-500), "an operator vouches for its sender"),
];

/// One of them.
fn told(name: &str) -> Option<Reason> {
    RULES.iter().find(|(_, rule, ..)| *rule == name).map(|(_, rule, score, text)| reason(rule, *score, *text))
}

/// Points for who sent it. A temporary error gives none: whether it matters is for policy to say.
fn authenticated(found: &Authentication) -> Vec<Reason> {
    let spf = match found.spf {
        AuthResult::Fail => Some("SPF_FAIL"),
        AuthResult::SoftFail => Some("SPF_SOFTFAIL"),
        AuthResult::PermError => Some("SPF_PERMERROR"),
        AuthResult::None | AuthResult::Pass | AuthResult::Neutral | AuthResult::TempError => None,
    };
    let dkim = found.dkim_best();
    let nothing = [found.spf, dkim, found.dmarc].iter().all(|result| *result == AuthResult::None);
    let rules = [
        ("SPF_HELO_FAIL", found.spf_helo == AuthResult::Fail),
        ("DKIM_INVALID", dkim == AuthResult::Fail || dkim == AuthResult::PermError),
        ("DMARC_FAIL", found.dmarc == AuthResult::Fail),
        // A chain of trusted sealers speaks for what the author's domain cannot.
        ("ARC_TRUSTED", found.dmarc == AuthResult::Fail && found.arc_vouches),
        ("NO_AUTHENTICATION", nothing && found.problem.is_none()),
        ("DMARC_PASS", found.dmarc == AuthResult::Pass),
    ];
    let holding = rules.into_iter().filter_map(|(rule, holds)| holds.then_some(rule));
    spf.into_iter().chain(holding).filter_map(told).collect()
}

/// From this score of reputation on it is worth points.
pub(super) const BAD_FROM: i16 = 200;
/// Down from this one it is worth points off.
pub(super) const GOOD_FROM: i16 = -300;

/// Points for what is known of the senders: up to five for nothing but bad mail, two off for nothing but good mail.
fn known(senders: Repute) -> Option<Reason> {
    let Repute { stance, score } = senders;
    let (rule, points) = match stance {
        Some(Stance::Allow) => return told("SENDER_ALLOWED"),
        Some(Stance::Block) | None if score >= BAD_FROM => ("REPUTATION_BAD", i32::from(score) / 2),
        Some(Stance::Block) | None if score <= GOOD_FROM => ("REPUTATION_GOOD", i32::from(score) / 5),
        Some(Stance::Block) | None => return None,
    };
    told(rule).map(|told| Reason { score: Score(points), ..told })
}

#[cfg(test)]
mod tests {
    use proto::{
        reputation::{Repute, Stance},
        score::Score,
    };

    use super::{reason, scored, total};
    use crate::policy::evidence::{AuthResult, Authentication, Evidence};

    #[test]
    fn points_of_sender_and_content_add_up_with_the_heaviest_first() {
        let mut evidence = Evidence::nothing();
        evidence.authentication = Authentication { spf: AuthResult::Fail, ..Authentication::default() };
        evidence.content =
            vec![reason("MANY_LINKS", Score::points(0, 50), "x"), reason("PHRASES", Score::points(4, 0), "y")];
        let reasons = scored(&evidence);
        let rules: Vec<_> = reasons.iter().map(|reason| reason.rule.as_str()).collect();
        assert_eq!(rules, ["PHRASES", "SPF_FAIL", "MANY_LINKS"]);
        assert_eq!(total(&reasons), Score::points(7, 50));
    }

    #[test]
    fn what_door_and_content_say_by_one_name_is_one_reason() {
        let mut evidence = Evidence::nothing();
        evidence.authentication = Authentication { spf: AuthResult::Pass, ..Authentication::default() };
        evidence.client = vec![reason("GENERIC_REVERSE_NAME", Score(80), "x is made of the address")];
        evidence.content = [("GENERIC_REVERSE_NAME", 70), ("OWN", 10), ("OWN", 10)]
            .map(|(rule, score)| reason(rule, Score(score), "y"))
            .to_vec();
        let reasons = scored(&evidence);
        let found: Vec<_> = reasons.iter().map(|reason| (reason.rule.as_str(), reason.score.0)).collect();
        assert_eq!(found, [("GENERIC_REVERSE_NAME", 150), ("OWN", 10), ("OWN", 10)]);
        assert_eq!(reasons[0].text, "x is made of the address");
    }

    #[test]
    fn what_is_known_of_the_senders_counts_and_an_operator_counts_more() {
        let table = [
            (Repute { stance: None, score: 0 }, 0),
            (Repute { stance: None, score: 199 }, 0),
            (Repute { stance: None, score: 200 }, 100),
            (Repute { stance: None, score: 980 }, 490),
            (Repute { stance: None, score: -299 }, 0),
            (Repute { stance: None, score: -900 }, -180),
            (Repute { stance: Some(Stance::Allow), score: 980 }, -500),
            // That is a hard rule.
            (Repute { stance: Some(Stance::Block), score: 0 }, 0),
        ];
        for (senders, points) in table {
            let evidence = Evidence { senders, ..Evidence::nothing() };
            let found = scored(&evidence).into_iter().filter(|reason| reason.rule != "NO_AUTHENTICATION");
            assert_eq!(found.map(|reason| reason.score.0).sum::<i32>(), points, "{senders:?}");
        }
    }

    #[test]
    fn a_temporary_error_is_neither_points_nor_a_pass() {
        let mut evidence = Evidence::nothing();
        evidence.authentication = Authentication::unavailable("DNS");
        assert_eq!(scored(&evidence), []);
    }

    #[test]
    fn a_trusted_chain_takes_the_points_of_a_dmarc_failure_away() {
        let mut evidence = Evidence::nothing();
        evidence.authentication =
            Authentication { dmarc: AuthResult::Fail, spf: AuthResult::Pass, ..Authentication::default() };
        assert_eq!(total(&scored(&evidence)), Score::points(3, 0));
        evidence.authentication.arc_vouches = true;
        assert_eq!(total(&scored(&evidence)), Score::ZERO);
    }
}
