//! What is known of senders, as the `operator` service shows and takes it.

use proto::{
    mutation::{Change, Grounds},
    reputation::{Stance, Subject, tick},
    time::UnixMs,
    wire::operator::{ManualReputation, Reputation},
};
use tonic::Status;

use crate::state::reputation::Shown;

/// The subject in a request.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is none.
pub fn subject(text: &str) -> Result<Subject, Status> {
    text.trim().parse().map_err(|error: proto::reputation::SubjectError| Status::invalid_argument(error.to_string()))
}

/// The change that a request asks for.
///
/// # Errors
/// `INVALID_ARGUMENT` for what is not a subject or a stance.
pub fn set(text: &str, stance: &str, until_ms: u64, grounds: Grounds) -> Result<Change, Status> {
    let stance = match stance {
        "allow" => Stance::Allow,
        "block" => Stance::Block,
        _ => return Err(Status::invalid_argument("stance: allow or block")),
    };
    Ok(Change::SetReputation { subject: subject(text)?, stance, until: UnixMs(until_ms), grounds })
}

/// What is known of a subject at a moment.
#[must_use]
pub fn shown(subject: &Subject, known: Shown, now: UnixMs) -> Reputation {
    let Shown { tally, said } = known;
    let tally = tally.unwrap_or_default().at(tick(now));
    let (good, bad) = tally.hundredths();
    let manual = said.filter(|said| now < said.until).map(|said| ManualReputation {
        stance: said.stance.to_string(),
        until_ms: said.until.0,
        by: said.by,
        at_ms: said.at.0,
        why: said.grounds.why,
        ticket: said.grounds.ticket,
    });
    Reputation { subject: subject.to_string(), score: tally.levels().score(now).into(), good, bad, manual }
}

#[cfg(test)]
mod tests {
    use proto::{
        mutation::Grounds,
        reputation::{Stance, Tally, tick},
        time::UnixMs,
    };

    use super::{set, shown, subject};
    use crate::state::reputation::{Said, Shown};

    #[test]
    fn what_an_operator_said_is_shown_while_it_holds_and_counts_as_they_are_now() {
        let now = UnixMs(1_795_000_000_000);
        let (subject, until) = (subject(" ip:192.0.2.7").expect("a subject"), now.plus_ms(1000));
        let grounds = Grounds { why: "a test".into(), ticket: "T-1".into() };
        let said = Said {
            subject: subject.clone(),
            stance: Stance::Block,
            until,
            by: "operator/anna".into(),
            at: now,
            grounds,
        };
        let tally = Tally { good: 0, bad: 256 * 40, tick: tick(now) };
        let known = Shown { tally: Some(tally), said: Some(said) };
        let first = shown(&subject, known.clone(), now);
        assert_eq!((first.good, first.bad, first.score), (0, 4000, 791));
        let manual = first.manual.expect("an entry");
        assert_eq!(
            (manual.stance.as_str(), manual.by.as_str(), manual.ticket.as_str()),
            ("block", "operator/anna", "T-1")
        );
        let next_day = shown(&subject, known, now.plus_ms(24 * 60 * 60 * 1000));
        assert_eq!((next_day.bad, next_day.manual), (2000, None));
        let unknown = shown(&subject, Shown::default(), now);
        assert_eq!((unknown.score, unknown.good, unknown.bad, unknown.manual), (0, 0, 0, None));
    }

    #[test]
    fn a_request_names_a_subject_and_allow_or_block() {
        let ask = |subject: &str, stance: &str| set(subject, stance, 1, Grounds::default());
        assert!(ask("spf:a.test", "allow").is_ok() && ask("net:192.0.2.0/24", "block").is_ok());
        let refused = ask("a.test", "block").expect_err("no subject");
        assert!(refused.message().contains("write ip:192.0.2.7"), "{refused}");
        assert!(ask("spf:a.test", "Allow").is_err());
    }
}
