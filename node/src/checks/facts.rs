//! What the content rules ask again and again about a message, worked out once.

use std::collections::HashSet;

use mail_parser::DateTime;

use crate::{
    message::{Message, text::Text},
    smtp::transaction::Transaction,
};

/// Text that is looked through for phrases, in bytes.
const WORDS_BYTES_MAX: usize = 64 * 1024;

/// Distinct hosts that are looked at one by one.
const HOSTS_MAX: usize = 100;

/// The facts.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The message.
    pub message: &'a Message,
    /// What a reader sees of it.
    pub text: Text,
    /// Its envelope.
    pub transaction: &'a Transaction,
    /// Subject and what a reader sees, as written, at most 64 KiB.
    pub raw_text: String,
    /// The same in lower case, words parted by single spaces, one at each end, without punctuation between words.
    pub words: String,
    /// Its HTML in lower case, at most 256 KiB.
    pub html_raw: String,
    /// Hosts of the links.
    pub hosts: Vec<String>,
    /// Their sites, each once.
    pub link_sites: Vec<String>,
    /// Where the links go, in lower case.
    pub targets: Vec<String>,
    /// Of the first author: what stands before the `@`, the domain and its site; empty when there is none.
    pub author_local: String,
    /// The domain.
    pub author_domain: String,
    /// Its site.
    pub author_site: String,
    /// The site of who has sent it.
    pub return_site: Option<String>,
    /// When it says that it was written, in seconds since 1970.
    pub date: Option<i64>,
    /// When the first server says that it got it.
    pub received_at: Option<i64>,
    /// What the servers on the way say, in lower case.
    pub received: Vec<String>,
    /// Whether a link has a user before its host.
    pub link_with_user: bool,
    /// Invisible characters between letters.
    pub invisible_in_words: usize,
    /// Words that mix Latin letters with Cyrillic or Greek ones.
    pub mixed_words: usize,
}

impl<'a> Facts<'a> {
    /// Works them out.
    #[must_use]
    pub fn of(message: &'a Message, transaction: &'a Transaction) -> Self {
        let text = Text::of(message);
        let mut raw_text = message.subject.clone();
        for shown in text.shown() {
            raw_text.push('\n');
            let room = WORDS_BYTES_MAX.saturating_sub(raw_text.len());
            raw_text.push_str(&shown[..shown.ceil_char_boundary(room)]);
        }
        let links = text.links();
        let link_with_user = links.iter().any(|link| {
            let authority = link.target.split_once("://").map_or("", |(_, rest)| rest);
            authority.split(['/', '?', '#']).next().unwrap_or_default().contains('@')
        });
        let hosts: Vec<String> = links.iter().filter_map(crate::message::html::Link::host).collect();
        let mut link_sites: Vec<String> = hosts.iter().map(|host| Self::site(host)).collect();
        link_sites.sort_unstable();
        link_sites.dedup();
        let author = message.from.first();
        let author_domain = author
            .and_then(|author| author.domain.as_ref())
            .map(|domain| domain.as_str().to_owned())
            .unwrap_or_default();
        let author_local = author
            .and_then(|author| author.written.rsplit_once('@'))
            .map(|(local, _)| local.to_owned())
            .unwrap_or_default();
        let sender = transaction.reverse_path.address().map(|address| Self::site(address.domain().as_str()));
        let text_of = |field: &crate::message::fields::Field| field.text(&message.bytes);
        let seconds = |text: &str| DateTime::parse_rfc822(text.trim()).map(|date| date.to_timestamp());
        let received: Vec<String> = message.header.named("received").map(text_of).collect();
        let received_at = received.last().and_then(|last| last.rsplit_once(';')).and_then(|(_, date)| seconds(date));
        Self {
            words: words(&raw_text),
            html_raw: text.html_raw(message),
            link_sites,
            targets: links.iter().map(|link| link.target.to_ascii_lowercase()).collect(),
            author_site: if author_domain.is_empty() { String::new() } else { Self::site(&author_domain) },
            author_local,
            author_domain,
            return_site: sender,
            date: message.header.named("date").next().and_then(|field| seconds(&text_of(field))),
            received_at,
            received: received.into_iter().map(|text| text.to_ascii_lowercase()).collect(),
            hosts,
            link_with_user,
            invisible_in_words: invisible_in_words(&raw_text),
            mixed_words: mixed_words(&raw_text),
            message,
            text,
            transaction,
            raw_text,
        }
    }

    /// The first field of this name as it is written, without folding.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<String> {
        self.message.field(name)
    }

    /// Hosts of the links, each once, the first hundred.
    pub fn distinct_hosts(&self) -> impl Iterator<Item = &str> {
        let mut seen = HashSet::new();
        self.hosts.iter().map(String::as_str).filter(move |host| seen.insert(*host)).take(HOSTS_MAX)
    }

    /// The label of the author's domain that its owner has chosen.
    #[must_use]
    pub fn author_label(&self) -> &str {
        self.author_site.rsplit('.').next().unwrap_or_default()
    }

    /// The last two labels of a host, or three below a short second one (`co.uk`). Rough on purpose: it only scores.
    #[must_use]
    pub fn site(host: &str) -> String {
        let labels: Vec<&str> = host.rsplit('.').take(3).collect();
        let short_second = labels.get(1).is_some_and(|label| label.len() <= 3) && labels.len() == 3;
        let take = if short_second { 3 } else { 2 };
        labels.into_iter().take(take).collect::<Vec<_>>().join(".")
    }
}

fn words(text: &str) -> String {
    let mut words = Vec::with_capacity(text.len() + 2);
    words.push(b' ');
    let mut rest = text;
    // Text is mostly ASCII, of which each byte is a character.
    loop {
        let (ascii, others) = rest.split_at(rest.bytes().position(|byte| !byte.is_ascii()).unwrap_or(rest.len()));
        for byte in ascii.bytes() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'\'' | b'%' | b'@' | b'$' | b'-' | b'.' | b'/' => words.push(byte),
                b'A'..=b'Z' => words.push(byte.to_ascii_lowercase()),
                _ => end_word(&mut words),
            }
        }
        let Some(c) = others.chars().next() else { break };
        rest = &others[c.len_utf8()..];
        c.to_lowercase().for_each(|c| match c {
            c if is_invisible(c) => {}
            '\u{2019}' => words.push(b'\''),
            c if c.is_alphanumeric() => words.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            _ => end_word(&mut words),
        });
    }
    if !words.ends_with(b" ") {
        while words.last().is_some_and(|last| matches!(last, b'.' | b'-' | b'/')) {
            words.pop();
        }
        words.push(b' ');
    }
    // Only whole characters were pushed.
    String::from_utf8(words).unwrap_or_default()
}

/// A sentence's end is not part of its last word.
fn end_word(words: &mut Vec<u8>) {
    if words.ends_with(b" ") {
        return;
    }
    for end in [b'.', b'-', b'/'] {
        if words.last() == Some(&end) {
            words.pop();
        }
    }
    words.push(b' ');
}

const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' | '\u{ad}')
}

fn invisible_in_words(text: &str) -> usize {
    if text.is_ascii() {
        return 0;
    }
    let chars: Vec<char> = text.chars().collect();
    let ascii = |c: &char| c.is_ascii_alphabetic();
    chars.windows(3).filter(|three| ascii(&three[0]) && is_invisible(three[1]) && ascii(&three[2])).count()
}

fn mixed_words(text: &str) -> usize {
    if text.is_ascii() {
        return 0;
    }
    text.split(|c: char| !c.is_alphabetic()).filter(|word| is_mixed(word)).count()
}

fn is_mixed(word: &str) -> bool {
    let latin = word.chars().filter(char::is_ascii_alphabetic).count();
    let other = word.chars().filter(|c| matches!(c, '\u{370}'..='\u{52f}')).count();
    latin >= 2 && other >= 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::policy::PolicyLayer;

    use super::{Facts, is_invisible, words};
    use crate::policy::samples::{message, transaction, view};

    #[test]
    fn words_go_on_across_lines_and_punctuation() {
        let message =
            message("From: a@b.test\nSubject: You Have\n\nwon! It\u{2019}s done. special\u{200b}ist act\nnow.\n");
        let transaction = transaction(view(PolicyLayer::default()), &[]);
        let words = Facts::of(&message, &transaction).words;
        assert_eq!(words, " you have won it's done specialist act now ");
    }

    #[test]
    fn a_site_is_what_one_owner_has() {
        assert_eq!(Facts::site("a.b.bank.test"), "test.bank");
        assert_eq!(Facts::site("www.bank.co.uk"), Facts::site("bank.co.uk"));
        assert_ne!(Facts::site("bank.test"), Facts::site("evil.test"));
    }

    /// The same in a few passes over the text, as it is easily seen to be right.
    fn words_plainly(text: &str) -> String {
        let mut words = String::from(" ");
        for c in text.chars().flat_map(char::to_lowercase) {
            match c {
                c if is_invisible(c) => {}
                '\u{2019}' => words.push('\''),
                c if c.is_alphanumeric() || "'%@$-./".contains(c) => words.push(c),
                _ if !words.ends_with(' ') => words.push(' '),
                _ => {}
            }
        }
        let words = words.replace(". ", " ").replace("- ", " ").replace("/ ", " ");
        if words.ends_with(' ') { words } else { words.trim_end_matches(['.', '-', '/']).to_owned() + " " }
    }

    proptest! {
        #[test]
        fn words_are_the_same_in_one_pass(
            text in "(a|B|\\.|-|/|,| |\r\n|\u{2019}|\u{200b}|\u{130}|\u{df}|\u{e9}|\u{c4}|%|1|\\.\\.| - |\\. ){0,30}",
        ) {
            prop_assert_eq!(words(&text), words_plainly(&text));
        }
    }
}
