//! The scored content rules: one table, each rule a name, points, words and a small function over the facts.

use proto::{score::Score, verdict::Reason};

use super::facts::Facts;
use super::phrases::{self, FREEMAIL, SHORTENERS, TOPICS, Topic};
use crate::{message::Message, smtp::transaction::Transaction};

struct Rule {
    name: &'static str,
    /// Hundredths of a point.
    score: i32,
    text: &'static str,
    holds: fn(&Facts<'_>) -> bool,
}

const fn rule(name: &'static str, score: i32, text: &'static str, holds: fn(&Facts<'_>) -> bool) -> Rule {
    Rule { name, score, text, holds }
}

/// The test string that every spam filter knows.
const GTUBE: &str = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X";

const RULES: [Rule; 31] = [
    rule("GTUBE", 100_000, "it holds the test string for spam filters", |f| f.raw_text.contains(GTUBE)),
    rule("SUBJECT_ALL_CAPS", 200, "its subject shouts", subject_all_caps),
    rule("SUBJECT_EXCITED", 100, "its subject is excited", subject_excited),
    rule("SUBJECT_FAKE_REPLY", 60, "it pretends to be an answer", subject_fake_reply),
    rule("MISSING_FROM", 250, "it has no author", |f| f.message.from.is_empty()),
    rule("FROM_WITHOUT_ADDRESS", 200, "its author has no address", from_without_address),
    rule("MISSING_DATE", 130, "it has no date", |f| !f.message.has("date")),
    rule("MISSING_MESSAGE_ID", 100, "it has no Message-ID", |f| !f.message.has("message-id")),
    rule("MISSING_TO", 130, "it is addressed to nobody", missing_to),
    rule("NAME_SHOWS_OTHER_ADDRESS", 250, "the author's name shows another address", name_shows_other_address),
    rule("NAME_CLAIMS_DEPARTMENT", 300, "the author's name claims to be a department", name_claims_department),
    rule("REPLY_TO_ELSEWHERE", 60, "answers go to another domain than the author's", reply_to_elsewhere),
    rule("REPLY_TO_FREEMAIL", 220, "answers go to a free mailbox that is not the author's", reply_to_freemail),
    rule("HELO_NOT_A_NAME", 80, "the client does not name itself", |f| !f.transaction.client.helo.contains('.')),
    rule("HTML_ONLY", 130, "it is HTML without a plain text", |f| f.text.has_html && !f.text.has_plain),
    rule("HTML_PICTURE_ONLY", 90, "it is a picture with little text", picture_only),
    rule("HIDDEN_TEXT", 50, "it holds text that a reader does not see", hidden_text),
    rule("HTML_FORM", 80, "it asks for data in a form", |f| f.text.html.forms),
    rule("HTML_SCRIPT", 80, "it holds a script", |f| f.text.html.scripts),
    rule("ACTIVE_ATTACHMENT", 250, "an attachment is a page with a script or form", active_attachment),
    rule("LINK_SHOWS_OTHER_HOST", 220, "a link shows another host than it goes to", link_shows_other_host),
    rule("LINK_TO_ADDRESS", 250, "a link goes to a bare address", |f| f.hosts.iter().any(|host| is_bare_address(host))),
    rule("LINK_PUNYCODE", 150, "a link's host is written to look like another", |f| {
        f.hosts.iter().any(|host| host.split('.').any(|label| label.starts_with("xn--")) || !host.is_ascii())
    }),
    rule("LINK_SHORTENER", 180, "a link hides where it goes", |f| {
        f.hosts.iter().any(|host| SHORTENERS.contains(&host.as_str()))
    }),
    rule("LINK_WITH_USER", 250, "a link pretends to go to another host", |f| f.link_with_user),
    rule("MANY_LINKS", 50, "it has many links", |f| f.hosts.len() > 60),
    rule("SHORT_WITH_LINK", 60, "it is little more than a link", short_with_link),
    rule("INVISIBLE_CHARACTERS", 180, "words are broken up by invisible characters", |f| f.invisible_in_words > 2),
    rule("MIXED_SCRIPTS", 250, "letters of other scripts imitate Latin ones", |f| f.mixed_words > 0),
    rule("SHOUTING", 80, "its text shouts", shouting),
    rule("MIME_DEFECTS", 100, "its parts are not well formed", |f| {
        f.message.defects.iter().any(|defect| !defect.breaks())
    }),
];

/// What the rules say about a message.
#[must_use]
pub fn analyse(message: &Message, transaction: &Transaction) -> Vec<Reason> {
    let facts = Facts::of(message, transaction);
    let rules = RULES.iter().filter(|rule| (rule.holds)(&facts)).map(|rule| Reason {
        rule: rule.name.to_owned(),
        score: Score(rule.score),
        text: rule.text.to_owned(),
    });
    let hits = phrases::hits(&facts.words);
    let topics = TOPICS.iter().zip(hits).filter_map(|(topic, hits)| topic_reason(topic, hits));
    rules.chain(topics).chain(bulk_without_way_out(&facts)).collect()
}

/// Each further phrase of a topic counts half, up to the topic's most.
fn topic_reason(topic: &Topic, hits: usize) -> Option<Reason> {
    let further = i32::try_from(hits.checked_sub(1)?).unwrap_or(i32::MAX);
    let score = topic.score.saturating_add(further.saturating_mul(topic.score / 2)).min(topic.score_max);
    Some(Reason { rule: topic.rule.to_owned(), score: Score(score), text: topic.text.to_owned() })
}

fn bulk_without_way_out(facts: &Facts<'_>) -> Option<Reason> {
    let bulk = facts.message.field("precedence").is_some_and(|value| value.eq_ignore_ascii_case("bulk"));
    let way_out = facts.message.has("list-unsubscribe") || facts.words.contains("unsubscribe");
    (bulk && !way_out && !facts.message.has("list-id")).then(|| Reason {
        rule: "BULK_WITHOUT_UNSUBSCRIBE".to_owned(),
        score: Score(80),
        text: "it is mass mail without a way out".to_owned(),
    })
}

fn subject_all_caps(f: &Facts<'_>) -> bool {
    let letters: Vec<char> = f.message.subject.chars().filter(|c| c.is_alphabetic()).collect();
    letters.len() >= 10 && letters.iter().all(|c| !c.is_lowercase())
}

fn subject_excited(f: &Facts<'_>) -> bool {
    ["!!", "$$", "???", "\u{2757}", "\u{1f525}", "\u{1f4b0}", "\u{1f381}"]
        .iter()
        .any(|mark| f.message.subject.contains(mark))
}

fn subject_fake_reply(f: &Facts<'_>) -> bool {
    let subject = f.message.subject.to_ascii_lowercase();
    let is_reply = ["re:", "aw:", "re[", "fwd: re:"].iter().any(|prefix| subject.starts_with(prefix));
    is_reply && !f.message.has("in-reply-to") && !f.message.has("references")
}

fn from_without_address(f: &Facts<'_>) -> bool {
    !f.message.from.is_empty() && f.message.from.iter().any(|mailbox| mailbox.domain.is_none())
}

fn missing_to(f: &Facts<'_>) -> bool {
    let to = f.message.field("to").unwrap_or_default();
    (to.is_empty() || to.to_ascii_lowercase().contains("undisclosed")) && !f.message.has("cc")
}

fn name_shows_other_address(f: &Facts<'_>) -> bool {
    f.message.from.iter().any(|mailbox| {
        let shown = mailbox.name.rsplit_once('@').map(|(_, domain)| domain.to_ascii_lowercase());
        let shown = shown.map(|domain| {
            domain
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-')
                .next()
                .unwrap_or_default()
                .to_owned()
        });
        match (shown, &mailbox.domain) {
            (Some(shown), Some(domain)) => shown.contains('.') && Facts::site(&shown) != Facts::site(domain.as_str()),
            (Some(_), None) | (None, Some(_) | None) => false,
        }
    })
}

fn name_claims_department(f: &Facts<'_>) -> bool {
    let names: Vec<String> = f.message.from.iter().map(|mailbox| mailbox.name.to_lowercase()).collect();
    f.transaction.view.tenants().any(|tenant| {
        let title = tenant.department.name.to_lowercase();
        let claims = |name: &String| {
            (title.len() >= 8 && name.contains(&title))
                || tenant.department.domains.iter().any(|domain| name.contains(domain.as_str()))
        };
        names.iter().any(claims)
    })
}

fn reply_domains(f: &Facts<'_>) -> Option<(String, String)> {
    let of = |mailboxes: &[crate::message::Mailbox]| {
        mailboxes.first().and_then(|mailbox| mailbox.domain.as_ref()).map(|domain| domain.as_str().to_owned())
    };
    Some((of(&f.message.from)?, of(&f.message.reply_to)?))
        .filter(|(from, reply)| Facts::site(from) != Facts::site(reply))
}

fn reply_to_elsewhere(f: &Facts<'_>) -> bool {
    !f.message.has("list-id") && reply_domains(f).is_some()
}

fn reply_to_freemail(f: &Facts<'_>) -> bool {
    reply_domains(f).is_some_and(|(_, reply)| FREEMAIL.contains(&reply.as_str()))
}

fn picture_only(f: &Facts<'_>) -> bool {
    let pictures =
        f.text.html.remote_pictures > 0 || f.message.parts.iter().any(|part| part.declared.starts_with("image/"));
    f.text.has_html && pictures && f.text.html.text.trim().len() < 150
}

fn hidden_text(f: &Facts<'_>) -> bool {
    let hidden = f.text.html.hidden.split_whitespace().map(str::len).sum::<usize>();
    hidden > 400 && hidden > f.text.html.text.len() / 3
}

fn active_attachment(f: &Facts<'_>) -> bool {
    f.message.parts.iter().filter(|part| part.attached || !part.names.is_empty()).any(|part| {
        let is_page = part.names.iter().filter_map(|name| super::kinds::extension(name)).any(|extension| {
            matches!(extension.as_str(), "html" | "htm" | "shtml" | "xhtml" | "svg" | "mht" | "mhtml")
        });
        let head = part.content.get(..part.content.len().min(256 * 1024)).unwrap_or_default().to_ascii_lowercase();
        let has = |needle: &[u8]| head.windows(needle.len()).any(|window| window == needle);
        is_page && (has(b"<script") || has(b"<form") || has(b"http-equiv=\"refresh"))
    })
}

fn link_shows_other_host(f: &Facts<'_>) -> bool {
    f.text.html.links.iter().any(|link| {
        let shown = crate::message::html::host_of(&link.shown);
        match (shown, link.host()) {
            (Some(shown), Some(host)) => Facts::site(&shown) != Facts::site(&host),
            (Some(_), None) | (None, Some(_) | None) => false,
        }
    })
}

fn is_bare_address(host: &str) -> bool {
    host.parse::<std::net::Ipv4Addr>().is_ok()
        || host.starts_with('[')
        || (!host.is_empty() && host.bytes().all(|byte| byte.is_ascii_digit()))
}

fn short_with_link(f: &Facts<'_>) -> bool {
    !f.hosts.is_empty() && f.words.len() < 250 && !f.message.has("list-id")
}

fn shouting(f: &Facts<'_>) -> bool {
    let (upper, lower) = cases(&f.raw_text);
    upper > 150 && upper > lower
}

/// How many letters are upper case and lower case. Those of ASCII are counted by the byte, which is much faster.
fn cases(text: &str) -> (usize, usize) {
    let upper = text.bytes().filter(u8::is_ascii_uppercase).count();
    let lower = text.bytes().filter(u8::is_ascii_lowercase).count();
    if text.is_ascii() {
        return (upper, lower);
    }
    let others = text.chars().filter(|c| !c.is_ascii());
    let (other_upper, other_lower): (Vec<_>, Vec<_>) =
        others.filter(|c| c.is_uppercase() || c.is_lowercase()).partition(|c| c.is_uppercase());
    (upper + other_upper.len(), lower + other_lower.len())
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
