//! How a message is made: its HTML tags, the types of its parts, some fields of its header, suffixes of domains, the author's mailbox.
//! Hosts, dates and character sets are left out: they tell where and when a message was collected.

use proto::learning::features::Gathering;

use crate::checks::facts::Facts;

/// Tags that are looked at.
const TAGS_MAX: usize = 3000;
/// Words of a tag: its name, names and values of attributes.
const TAG_WORDS_MAX: usize = 20;
/// Bytes of such a word; longer ones are of one message only.
const TAG_WORD_BYTES: std::ops::Range<usize> = 2..24;
/// Words of a field.
const FIELD_WORDS_MAX: usize = 8;
/// Links whose suffixes are looked at.
const HOSTS_MAX: usize = 200;
/// Fields that programs fill in, and that say how.
const FIELDS: [&str; 5] = ["content-transfer-encoding", "x-priority", "importance", "precedence", "content-language"];

/// The features of how a message is made, in ascending order, each once.
#[must_use]
pub fn of(facts: &Facts<'_>) -> Vec<u32> {
    let mut gathering = Gathering::default();
    facts.message.parts.iter().for_each(|part| gathering.word(b'p', &part.declared));
    for (kind, name) in (0..).zip(FIELDS) {
        for word in alphabetic(&facts.raw(name).unwrap_or_default()).take(FIELD_WORDS_MAX) {
            gathering.word(kind, word);
        }
    }
    gathering.word(b'd', facts.author_domain.rsplit('.').next().unwrap_or_default());
    for host in facts.hosts.iter().take(HOSTS_MAX) {
        gathering.word(b'l', host.rsplit('.').next().unwrap_or_default());
    }
    alphabetic(&facts.author_local).for_each(|word| gathering.word(b'a', word));
    for tag in facts.html_raw.split('<').skip(1).take(TAGS_MAX) {
        let words = tag.split('>').next().unwrap_or_default().split([' ', '\t', '\r', '\n', '"', '\'', ';']);
        let words = words.take(TAG_WORDS_MAX).enumerate();
        for (at, word) in words.filter(|(_, word)| TAG_WORD_BYTES.contains(&word.len()) && !word.contains("http")) {
            gathering.word(if at == 0 { b't' } else { b'm' }, word);
        }
    }
    gathering.ended()
}

fn alphabetic(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphabetic()).filter(|word| (2..20).contains(&word.len()))
}

#[cfg(test)]
mod tests {
    use proto::policy::PolicyLayer;

    use super::of;
    use crate::{
        checks::facts::Facts,
        policy::samples::{message, transaction, view},
    };

    fn form(text: &str) -> Vec<u32> {
        let message = message(text);
        let transaction = transaction(view(PolicyLayer::default()), &["anna@interior.gov.test"]);
        of(&Facts::of(&message, &transaction))
    }

    #[test]
    fn tags_count_and_hosts_do_not() {
        let html = |body: &str| form(&format!("From: shop@a.test\nContent-Type: text/html\n\n{body}\n"));
        let centred = html("<center><a href=\"http://one.test/x\">x</a></center>");
        assert_eq!(centred, html("<center><a href=\"http://other.test/y\">x</a></center>"));
        assert_ne!(centred, html("<div><a href=\"http://one.test/x\">x</a></div>"));
    }
}
