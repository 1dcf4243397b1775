//! The section `content` of the state's file: what is asked about the content of messages, and who must not be imitated.

use proto::{
    address::Domain,
    client_rules::DNS_LISTS_MAX,
    content_rules::{ContentRules, GUARDED_DOMAINS_MAX, OFFICIALS_MAX},
    learning::LearningRules,
    score::Score,
    yaml::Map,
};

use super::{
    clients::dns_list,
    fields::{duration_ms, name_for_people},
};

/// Lessons of either kind that learning may wait for: more are not kept of one source.
const LESSONS_MIN: std::ops::RangeInclusive<u64> = 5..=250;

/// What the section says.
pub(super) fn content(map: &mut Map<'_, '_>) -> ContentRules {
    let lists = map.sections("domain_lists", dns_list).unwrap_or_default();
    let rules = ContentRules {
        domain_lists: lists.into_iter().flatten().collect(),
        officials: map.list("officials", |node| node.parsed(official)).unwrap_or_default(),
        guarded_domains: map.list("guarded_domains", |node| node.parsed(Domain::parse)).unwrap_or_default(),
        learning: map.section("learning", learning),
    };
    let numbers = [
        (
            "domain_lists",
            rules.domain_lists.len(),
            DNS_LISTS_MAX,
            "each is a question to DNS for each name in a message",
        ),
        ("officials", rules.officials.len(), OFFICIALS_MAX, "name those whom somebody would obey"),
        (
            "guarded_domains",
            rules.guarded_domains.len(),
            GUARDED_DOMAINS_MAX,
            "each is compared with each name in a message",
        ),
    ];
    if rules.domain_lists.iter().any(|list| list.points < Score::ZERO) {
        map.fault("domain_lists: points above zero are expected: anybody can link to a good site".to_owned());
    }
    for (key, number, most, why) in numbers {
        if number > most {
            map.fault(format!("{key}: at most {most} are expected: {why}"));
        }
    }
    rules
}

/// One word is the name of too many.
fn official(text: &str) -> Result<String, String> {
    let name = name_for_people(text)?;
    if name.split_whitespace().count() < 2 {
        return Err("a first and a last name are expected".to_owned());
    }
    Ok(name)
}

/// When and from how much the cluster learns.
fn learning(map: &mut Map<'_, '_>) -> LearningRules {
    let built_in = LearningRules::default();
    let lessons_min = map.optional("lessons_min", |node| node.integer(LESSONS_MIN));
    LearningRules {
        enabled: map.optional("enabled", |node| node.word(&[("yes", true), ("no", false)])).unwrap_or(built_in.enabled),
        lessons_min: lessons_min.and_then(|count| u32::try_from(count).ok()).unwrap_or(built_in.lessons_min),
        every_ms: map.optional("every", |node| node.parsed(duration_ms)).unwrap_or(built_in.every_ms),
    }
}
