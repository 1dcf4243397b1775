//! Who must not be imitated: the domains of departments and of others, and the names of officials. Told by skeletons (Unicode
//! Technical Standard 39 section 4), so that letters that look alike are alike.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use crate::{address::Domain, content_rules::ContentRules, department::Department};

/// A name of fewer letters is like too many others to be one letter away from them, or alike under another ending.
const SIGNATURE_CHARS_MIN: usize = 8;
/// Nor is a longer one that of a domain that somebody would take for another.
const SIGNATURE_CHARS_MAX: usize = 64;
/// A longer host is none (RFC 1035 section 2.3.4).
const HOST_BYTES_MAX: usize = 253;
/// Characters of a name for people that are looked at.
const NAME_CHARS_MAX: usize = 200;
/// Labels of a host that are looked at: longer ones are cut from the left, where anybody may put anything.
const LABELS_MAX: usize = 12;
/// Words of a name that are looked at.
const WORDS_MAX: usize = 8;
/// Words beside a name: forms of address and titles.
const TITLES: [&str; 12] =
    ["mr", "mrs", "ms", "dr", "prof", "professor", "herr", "frau", "minister", "sir", "hon", "mag"];

/// What is alike with a title is left out as well.
static LOOKS_OF_TITLES: LazyLock<HashSet<String>> =
    LazyLock::new(|| TITLES.iter().map(|title| skeleton(title)).collect());

/// All of them, ready to be compared with. Without any nobody is imitated.
#[derive(Debug, Default)]
pub struct Guard {
    domains: Vec<Domain>,
    /// By the domain itself.
    by_name: HashMap<String, usize>,
    /// By its skeleton.
    by_skeleton: HashMap<String, usize>,
    /// By the signature, and by each text that is one letter shorter.
    by_signature: HashMap<String, Vec<usize>>,
    /// Words of officials' names, by the last one.
    officials: HashMap<String, Vec<HashSet<String>>>,
}

impl Guard {
    /// The domains of these departments and whom these rules name.
    pub fn new<'d>(rules: Option<&ContentRules>, departments: impl Iterator<Item = &'d Department>) -> Self {
        let mut guard = Self::default();
        let others = rules.into_iter().flat_map(|rules| &rules.guarded_domains);
        for domain in departments.flat_map(|department| &department.domains).chain(others) {
            guard.add(domain);
        }
        for name in rules.into_iter().flat_map(|rules| &rules.officials) {
            for words in looks(name).iter().map(|look| words(look)) {
                if let Some(last) = words.last() {
                    guard.officials.entry(last.clone()).or_default().push(words.into_iter().collect());
                }
            }
        }
        guard
    }

    fn add(&mut self, domain: &Domain) {
        let at = self.domains.len();
        let name = unicode(domain.as_str());
        let signature = signature(&name);
        if signature.chars().count() >= SIGNATURE_CHARS_MIN {
            for shorter in nearby(&signature) {
                self.by_signature.entry(shorter).or_default().push(at);
            }
        }
        self.by_skeleton.insert(skeleton(&name), at);
        self.by_name.insert(name, at);
        self.domains.push(domain.clone());
    }

    /// Whether a host is one of the guarded domains, or below one.
    #[must_use]
    pub fn has(&self, host: &str) -> bool {
        if host.len() > HOST_BYTES_MAX {
            return false;
        }
        let name = unicode(host);
        below(&name).any(|name| self.by_name.contains_key(name))
    }

    /// The guarded domain that a host looks like, or has in its name, without being it or below it.
    #[must_use]
    pub fn imitated(&self, host: &str) -> Option<&Domain> {
        if self.domains.is_empty() || host.len() > HOST_BYTES_MAX || self.has(host) {
            return None;
        }
        let name = unicode(host);
        let skeleton = skeleton(&name);
        let alike = || below(&skeleton).find_map(|name| self.by_skeleton.get(name)).copied();
        let within = || upper_ends(&name).find_map(|name| below(name).find_map(|name| self.by_name.get(name))).copied();
        let own = psl::domain_str(&name).unwrap_or(&name);
        let near = || [name.as_str(), own].into_iter().find_map(|name| self.near(&signature(name)));
        self.domains.get(alike().or_else(within).or_else(near)?)
    }

    /// Of those whose signature is at most one letter away.
    fn near(&self, signature: &str) -> Option<usize> {
        if !(SIGNATURE_CHARS_MIN - 1..=SIGNATURE_CHARS_MAX).contains(&signature.chars().count()) {
            return None;
        }
        let candidates = nearby(signature).filter_map(|shorter| self.by_signature.get(&shorter)).flatten();
        let is_near = |at: &&usize| {
            let guarded = self.domains.get(**at).map(|domain| self::signature(&unicode(domain.as_str())));
            guarded.is_some_and(|guarded| strsim::osa_distance(&guarded, signature) <= 1)
        };
        candidates.into_iter().find(is_near).copied()
    }

    /// Whether a name for people is that of an official: all words of it, in any order.
    #[must_use]
    pub fn is_official(&self, name: &str) -> bool {
        if self.officials.is_empty() {
            return false;
        }
        let name: String = name.chars().take(NAME_CHARS_MAX).collect();
        let found: HashSet<String> = looks(&name).iter().flat_map(|look| words(look)).collect();
        found.iter().filter_map(|word| self.officials.get(word)).flatten().any(|official| official.is_subset(&found))
    }
}

/// In lower case, with international labels as they are shown, and no more labels than are looked at.
fn unicode(host: &str) -> String {
    let (name, _) = idna::domain_to_unicode(host.trim_matches('.'));
    let labels: Vec<&str> = name.rsplit('.').take(LABELS_MAX).collect();
    labels.into_iter().rev().collect::<Vec<_>>().join(".")
}

/// What a text looks like, in lower case.
fn skeleton(text: &str) -> String {
    let lower = text.to_lowercase();
    unicode_security::skeleton(&lower).flat_map(char::to_lowercase).collect()
}

/// What a name looks like without its ending, dots and hyphens: `interior-gov.example` is like `interior.gov.test`.
fn signature(name: &str) -> String {
    let name = name.strip_prefix("www.").unwrap_or(name);
    let name = name.rsplit_once('.').map_or(name, |(name, _)| name);
    skeleton(name).chars().filter(|c| c.is_alphanumeric()).collect()
}

/// A text, and each that has one letter less: two texts that are one letter apart share one of them.
fn nearby(text: &str) -> impl Iterator<Item = String> {
    let without = |(at, letter): (usize, char)| format!("{}{}", &text[..at], &text[at + letter.len_utf8()..]);
    std::iter::once(text.to_owned()).chain(text.char_indices().map(without))
}

/// A name and all names above it.
fn below(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, above)| above))
}

/// A name without its last labels: one less at each step.
fn upper_ends(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(name.rsplit_once('.').map(|(name, _)| name), |name| {
        name.rsplit_once('.').map(|(name, _)| name)
    })
}

/// What a name for people looks like: small letters, or capitals as well, of which others are alike.
fn looks(name: &str) -> [String; 2] {
    let capitals: String = unicode_security::skeleton(name).collect();
    [skeleton(name), skeleton(&capitals)]
}

/// Words of such a look, without titles.
fn words(look: &str) -> Vec<String> {
    let words = look.split(|c: char| !c.is_alphabetic()).filter(|word| word.chars().count() > 1);
    words.filter(|word| !LOOKS_OF_TITLES.contains(*word)).take(WORDS_MAX).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::Guard;
    use crate::{address::Domain, content_rules::ContentRules};

    fn guard() -> Guard {
        let domain = |name: &&str| Domain::parse(name).expect("a domain");
        let guarded_domains =
            ["interior.gov.test", "health.gov.test", "grossbank.example"].iter().map(domain).collect();
        let officials = vec!["Anna Muster".to_owned(), "Dr. Karl von Beispiel".to_owned()];
        Guard::new(Some(&ContentRules { guarded_domains, officials, ..ContentRules::default() }), [].iter())
    }

    #[test]
    fn a_domain_that_looks_like_a_guarded_one_imitates_it() {
        let guard = guard();
        let table = [
            // It is one, or below one, or quite another.
            ("interior.gov.test", None),
            ("mail.Interior.gov.test.", None),
            ("gov.test", None),
            ("interior-design.example", None),
            ("health.example", None),
            ("bank.example", None),
            ("example.com", None),
            ("localhost", None),
            ("", None),
            ("...", None),
            // Letters that look alike: Cyrillic, digits, as punycode.
            ("іnterior.gov.test", Some("interior.gov.test")),
            ("xn--nterior-qog.gov.test", Some("interior.gov.test")),
            ("1nterior.gov.test", Some("interior.gov.test")),
            ("grossbаnk.example", Some("grossbank.example")),
            // Another ending, hyphens for dots, one letter away.
            ("interior.gov.example", Some("interior.gov.test")),
            ("interior-gov.com", Some("interior.gov.test")),
            ("mail.interiorgov.com", Some("interior.gov.test")),
            ("grosbank.example", Some("grossbank.example")),
            ("grossbnak.example", Some("grossbank.example")),
            ("www.grossbank.com", Some("grossbank.example")),
            // Two letters away, though both lack one of the same text.
            ("rossbankg.example", None),
            // It stands in front of another.
            ("interior.gov.test.evil.example", Some("interior.gov.test")),
            ("login.health.gov.test.a.b.c", Some("health.gov.test")),
        ];
        for (host, expected) in table {
            assert_eq!(guard.imitated(host).map(Domain::as_str), expected, "{host}");
        }
        assert!(guard.has("x.health.gov.test") && !guard.has("gov.test"));
        assert_eq!(Guard::default().imitated("interior.gov.test"), None);
    }

    #[test]
    fn an_official_is_known_by_all_words_in_any_order_and_with_letters_that_look_alike() {
        let guard = guard();
        for name in
            ["Anna Muster", "MUSTER, Anna", "Аnnа Мuster (Minister)", "Prof. Anna B. Muster", "von Beispiel Karl"]
        {
            assert!(guard.is_official(name), "{name}");
        }
        for name in ["Anna", "Muster", "Hanna Muster", "Karl Beispiel", "", "Anna Musterfrau"] {
            assert!(!guard.is_official(name), "{name}");
        }
        assert!(!Guard::default().is_official("Anna Muster"));
    }

    #[test]
    fn letters_that_look_like_many_make_no_long_work() {
        let guard = guard();
        // U+FDFA looks like eighteen letters.
        let host = format!("{}.x", "\u{fdfa}".repeat(80));
        assert!(super::signature(&super::unicode(&host)).chars().count() > 500);
        assert_eq!(guard.imitated(&host), None);
        assert_eq!(guard.near(&"a".repeat(65)), None);
        assert_eq!(super::nearby(&"a".repeat(64)).count(), 65);
    }

    #[test]
    fn names_of_any_length_are_looked_at_in_part() {
        let guard = guard();
        let long = format!("{}interior.gov.test.evil.example", "a.".repeat(100));
        assert_eq!(guard.imitated(&long).map(Domain::as_str), Some("interior.gov.test"));
        assert_eq!(guard.imitated(&format!("{long}.{long}")), None, "no host is so long");
        let name = format!("{} Anna Muster", "no yes ".repeat(5_000));
        assert!(!guard.is_official(&name));
        let name = format!("Anna Muster {}", "yes ".repeat(5_000));
        assert!(guard.is_official(&name));
    }
}
