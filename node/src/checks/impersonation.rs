//! Who is imitated: departments and other guarded domains, in addresses and links, and officials, in the names of authors. Mail that
//! uses such a domain itself is none of this: that is for DMARC and the promise that nobody speaks for a department.

use proto::{score::Score, verdict::Reason};

use super::{criteria::weights::GROUP_MAX, facts::Facts};
use crate::{
    message::Mailbox,
    policy::score::{reason, within},
};

/// Rules, with what each is worth. They are not fitted: no sorted mail imitates departments that are made up.
pub const RULES: [(&str, Score, &str); 3] = [
    ("OFFICIAL_IMITATED", Score(400), "it bears the name of an official and comes from elsewhere"),
    ("DOMAIN_IMITATED", Score(400), "an address in it looks like a guarded domain"),
    ("LINK_IMITATED", Score(300), "a link in it looks like a guarded domain"),
];

/// What speaks against a message.
#[must_use]
pub fn reasons(facts: &Facts<'_>) -> Vec<Reason> {
    let guard = &facts.transaction.view.guard;
    let (from, reply_to) = (&facts.message.from, &facts.message.reply_to);
    let comes_from_elsewhere =
        |author: &&Mailbox| !author.domain.as_ref().is_some_and(|domain| guard.has(domain.as_str()));
    let official =
        || from.iter().chain(reply_to).filter(comes_from_elsewhere).find(|author| guard.is_official(&author.name));
    let domains = from.iter().chain(reply_to).filter_map(|author| author.domain.as_ref()).map(|domain| domain.as_str());
    let sender = facts.transaction.reverse_path.address().map(|address| address.domain().as_str());
    let imitated =
        |host: &str| guard.imitated(host).map(|domain| format!("{} looks like {domain}", host.escape_debug()));
    let found = [
        official().map(|_| None),
        domains.chain(sender).find_map(imitated).map(Some),
        facts.distinct_hosts().find_map(imitated).map(Some),
    ];
    let mut so_far = Score::ZERO;
    let told = RULES.into_iter().zip(found).filter_map(|((rule, score, text), found)| {
        let one = reason(rule, score, found?.unwrap_or_else(|| text.to_owned()));
        within(GROUP_MAX, &mut so_far, one)
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use proto::{
        address::Domain,
        content_rules::ContentRules,
        policy::PolicyLayer,
        view::{StateSettings, ViewChange},
    };

    use super::reasons;
    use crate::{
        checks::facts::Facts,
        policy::samples::{message, transaction, view},
    };

    fn rules(text: &str) -> Vec<(String, i32)> {
        let content = ContentRules {
            officials: vec!["Anna Muster".to_owned()],
            guarded_domains: vec![Domain::parse("grossbank.example").expect("a domain")],
            ..ContentRules::default()
        };
        let settings = StateSettings { content: Some(Box::new(content)), ..StateSettings::default() };
        let change = ViewChange { index: 10, policy_version: 8, settings: Some(settings), ..ViewChange::default() };
        let transaction = transaction(view(PolicyLayer::default()).after(change), &["anna@interior.gov.test"]);
        let message = message(text);
        let found = reasons(&Facts::of(&message, &transaction));
        found.into_iter().map(|reason| (reason.rule, reason.score.0)).collect()
    }

    #[test]
    fn officials_and_guarded_domains_are_imitated_by_names_addresses_and_links() {
        let one = |rule: &str, points| vec![(rule.to_owned(), points)];
        let table = [
            ("From: Anna Muster <a@evil.test>\n\nx\n", one("OFFICIAL_IMITATED", 400)),
            ("From: =?utf-8?B?0JBubmEgTXVzdGVy?= <a@evil.test>\n\nx\n", one("OFFICIAL_IMITATED", 400)),
            ("From: x <x@evil.test>\nReply-To: \"Muster, Anna\" <a@evil.test>\n\nx\n", one("OFFICIAL_IMITATED", 400)),
            ("From: Anna Muster <anna@grossbank.example>\n\nx\n", Vec::new()),
            ("From: Hanna Muster <a@evil.test>\n\nx\n", Vec::new()),
            ("From: x <x@interior-gov.test>\n\nx\n", one("DOMAIN_IMITATED", 400)),
            ("From: x <x@a.test>\nReply-To: x@grossbnak.example\n\nx\n", one("DOMAIN_IMITATED", 400)),
            ("From: x <x@a.test>\n\nsee https://interior.gov.test.evil.example/login\n", one("LINK_IMITATED", 300)),
            ("From: x <x@a.test>\n\nsee https://www.grossbank.example/ and https://health.gov.test/\n", Vec::new()),
        ];
        for (text, expected) in table {
            assert_eq!(rules(text), expected, "{text}");
        }
        let all = rules("From: Anna Muster <x@interior-gov.test>\n\nhttps://grosbank.example/\n");
        assert_eq!(all.iter().map(|(_, points)| points).sum::<i32>(), 450, "no group decides alone: {all:?}");
    }
}
