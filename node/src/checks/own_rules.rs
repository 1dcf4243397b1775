//! Rules that people have written: what they see of a message, and the reasons that they give.

use proto::{
    rules::{
        Content, Evidence, Evidenced, Place, Rule,
        engine::{Engine, Found},
    },
    verdict::Reason,
};

use super::{
    content::{Counted, capped},
    facts::Facts,
};
use crate::{message::mime::Part, policy::evidence::Authentication, smtp::transaction::Client};

/// Looks for all patterns of all rules in a message.
#[must_use]
pub fn search(rules: &Engine, facts: &Facts<'_>) -> Found {
    let mut content = Content::default();
    for place in rules.places() {
        texts(place, facts, |text| content.add(place, text));
    }
    rules.search(&content)
}

/// What the rules that hold say, those of each group up to its cap.
#[must_use]
pub fn reasons(rules: &Engine, found: &Found, checked: &Authentication, client: &Client) -> Vec<Reason> {
    let mut evidence = Evidence::default();
    let words = [
        (Evidenced::Spf, checked.spf.as_str()),
        (Evidenced::Dkim, checked.dkim_best().as_str()),
        (Evidenced::Dmarc, checked.dmarc.as_str()),
        (Evidenced::Arc, checked.arc.as_str()),
        (Evidenced::ReverseName, checked.reverse.as_str()),
        (Evidenced::Tls, if client.tls { "yes" } else { "no" }),
    ];
    for (of, word) in words {
        evidence.set(of, word);
    }
    capped(rules.holding(found, &evidence).map(|rule| counted(rules, rule)), &[])
}

fn counted<'r>(rules: &Engine, rule: &'r Rule) -> Counted<'r> {
    let Rule { name, group, score, text, .. } = rule;
    Counted { group, cap: rules.set().cap(group), name, score: *score, text }
}

/// Hands out the texts of one place.
fn texts(place: &Place, facts: &Facts<'_>, mut take: impl FnMut(&str)) {
    let (message, transaction) = (facts.message, facts.transaction);
    let files = || message.parts.iter().filter(|part| is_file(part));
    match place {
        Place::Header(name) => message.decoded(name).for_each(|text| take(&text)),
        Place::RawHeader(name) => message.header.named(name).for_each(|field| take(&field.text(&message.bytes))),
        Place::Subject => take(&message.subject),
        Place::Body => facts.text.shown().for_each(take),
        Place::Html => take(&facts.html_raw),
        Place::Link => facts.targets.iter().for_each(|target| take(target)),
        Place::LinkHost => facts.hosts.iter().for_each(|host| take(host)),
        Place::AttachmentName => files().flat_map(|part| &part.names).for_each(|name| take(name)),
        Place::AttachmentType => {
            files().filter_map(|part| infer::get(&part.content)).for_each(|found| take(found.mime_type()));
        }
        Place::DeclaredType => files().for_each(|part| take(&part.declared)),
        Place::Author => message.from.iter().for_each(|author| take(&author.written)),
        Place::ReversePath => take(&transaction.reverse_path.to_string()),
        Place::Helo => take(&transaction.client.helo),
        Place::Client => take(&transaction.client.address.to_string()),
    }
}

fn is_file(part: &Part) -> bool {
    part.attached || !part.names.is_empty()
}

#[cfg(test)]
#[path = "own_rules_tests.rs"]
mod tests;
