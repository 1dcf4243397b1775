//! Whether sender and recipient know each other: a department that has written to somebody lately waits for the answer. Only what the
//! author's domain vouches for is that somebody's answer.

use proto::{
    address::Address,
    correspondence::{corresponds, pair_key},
    reputation::{Subject, SubjectKey},
    score::Score,
    time::UnixMs,
    verdict::Reason,
};

use crate::{message::Message, policy::score::reason, smtp::transaction::Transaction};

/// The rule and what it is worth: not so much that the account of a correspondent that was taken over gets everything in.
pub const RULE: (&str, Score, &str) =
    ("CORRESPONDENT", Score(-150), "its recipients' departments have written to its author lately");

/// What speaks for a message whose author all of the recipients' departments have written to. `senders` are those who answer for it.
#[must_use]
pub fn correspondent(message: &Message, transaction: &Transaction, senders: &[Subject], now: UnixMs) -> Option<Reason> {
    let [author] = message.from.as_slice() else { return None };
    let is_vouched_for = senders.iter().any(|sender| matches!(sender, Subject::Dkim(_) | Subject::Spf(_)));
    let author = Address::parse(&author.written).ok().filter(|_| is_vouched_for)?;
    let known = |department| corresponds(transaction.view.reputation.repute(pair_key(&author, department), now));
    let all = transaction.recipients.iter().all(|recipient| recipient.department().is_some_and(known));
    let (rule, score, text) = RULE;
    (all && !transaction.recipients.is_empty()).then(|| reason(rule, score, text))
}

/// Whom outside a department has written to. Nothing answers for itself: what is sent by itself (RFC 3834 section 5), as an answer to
/// any spam may be, is no letter.
pub fn pairs<'t>(message: &Message, transaction: &'t Transaction) -> impl Iterator<Item = SubjectKey> + use<'t> {
    let is_automatic = message.field("auto-submitted").is_some_and(|value| !value.trim().eq_ignore_ascii_case("no"))
        || message.has("precedence")
        || message.has("list-id")
        || transaction.reverse_path.address().is_none();
    let department = transaction.client.department.as_ref().filter(|_| !is_automatic);
    let outside = transaction.recipients.iter().filter(|recipient| recipient.department().is_none());
    outside.filter_map(move |recipient| Some(pair_key(&recipient.address, department?)))
}

#[cfg(test)]
mod tests {
    use proto::{
        address::{Address, ReversePath},
        correspondence::pair_key,
        department::DepartmentId,
        policy::PolicyLayer,
        reputation::{Subject, Tally, tick},
        time::UnixMs,
        view::ViewChange,
    };

    use super::{correspondent, pairs};
    use crate::{
        policy::samples::{from_department, message, transaction, view},
        smtp::transaction::TrustClass,
    };

    #[test]
    fn a_letter_to_somebody_outside_makes_a_correspondent_and_an_automatic_answer_does_not() {
        let to = ["karl@partner.example", "carl@health.gov.test"];
        let sent = |department: bool, text: &str| {
            let transaction = transaction(view(PolicyLayer::default()), &to);
            let transaction =
                if department { from_department(transaction, "interior", TrustClass::Outbound) } else { transaction };
            pairs(&message(&format!("From: anna@interior.gov.test\n{text}\nx\n")), &transaction).collect::<Vec<_>>()
        };
        let karl = Address::parse(to[0]).expect("an address");
        let key = pair_key(&karl, &DepartmentId::parse("interior").expect("an id"));
        assert_eq!(sent(true, ""), [key]);
        assert_eq!(sent(true, "Auto-Submitted: no\n"), [key]);
        for automatic in ["Auto-Submitted: auto-replied\n", "Precedence: bulk\n", "List-Id: <a.b>\n"] {
            assert_eq!(sent(true, automatic), [], "{automatic}");
        }
        assert_eq!(sent(false, ""), [], "a stranger writes for nobody");
        let answer = transaction(view(PolicyLayer::default()), &to);
        let mut answer = from_department(answer, "interior", TrustClass::Outbound);
        answer.reverse_path = ReversePath::Null;
        let text = message("From: anna@interior.gov.test\n\nx\n");
        assert_eq!(pairs(&text, &answer).count(), 0, "who wants no answer has written no letter");
    }

    #[test]
    fn only_a_vouched_for_author_to_whom_all_departments_have_written_is_a_correspondent() {
        let now = UnixMs(1_800_000_000_000);
        let levels = Tally { good: 256, bad: 0, tick: tick(now) }.levels();
        let karl = Address::parse("karl@partner.example").expect("an address");
        let key = pair_key(&karl, &DepartmentId::parse("interior").expect("an id"));
        let change =
            ViewChange { index: 10, policy_version: 8, subjects: vec![(key, Some(levels))], ..ViewChange::default() };
        let view = view(PolicyLayer::default()).after(change);
        let vouched = ["spf:partner.example".parse::<Subject>().expect("a subject")];
        let known = |from: &str, to: &[&str], senders: &[Subject]| {
            let message = message(&format!("From: {from}\n\nx\n"));
            correspondent(&message, &transaction(view.clone(), to), senders, now).is_some()
        };
        let (anna, carl) = ("anna@interior.gov.test", "carl@health.gov.test");
        assert!(known("Karl <karl@partner.example>", &[anna, "bert@interior.gov.test"], &vouched));
        assert!(!known("Karl <karl@partner.example>", &[anna], &[]), "anybody can write that name");
        assert!(!known("Karl <karl@partner.example>", &[anna, carl], &vouched), "health has never written to him");
        assert!(!known("Carla <carla@partner.example>", &[anna], &vouched));
        assert!(!known("karl@partner.example, x@evil.test", &[anna], &vouched));
        assert!(!known("nobody", &[anna], &vouched));
    }
}
