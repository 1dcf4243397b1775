//! What a condition can look at: the text of a message, and what the checks found.

use super::VALUE_BYTES_MAX;

/// Where a pattern is looked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Header fields of a name in lower case, decoded; each by itself.
    Header(String),
    /// The same as they were written, on one line.
    RawHeader(String),
    /// The subject, decoded.
    Subject,
    /// What a reader sees.
    Body,
    /// The HTML as it is written, in lower case.
    Html,
    /// Where the links go; each by itself.
    Link,
    /// Their hosts, in lower case.
    LinkHost,
    /// Names of attachments.
    AttachmentName,
    /// What attachments are by their content.
    AttachmentType,
    /// What they are declared as, in lower case.
    DeclaredType,
    /// Addresses of the authors.
    Author,
    /// The reverse-path; empty when it is null.
    ReversePath,
    /// What the client calls itself.
    Helo,
    /// The client's address.
    Client,
}

/// Words for places in files. `header` and `raw_header` have the name of the field in front of the pattern.
pub const PLACES: [&str; 14] = [
    "header",
    "raw_header",
    "subject",
    "body",
    "html",
    "link",
    "link_host",
    "attachment_name",
    "attachment_type",
    "declared_type",
    "author",
    "reverse_path",
    "helo",
    "client",
];

impl Place {
    /// Reads `field` and `value` of a condition, or of a sample: the place and what is left of the value.
    ///
    /// # Errors
    /// In words, what would be right.
    pub fn parse<'v>(field: &str, value: &'v str) -> Result<(Self, &'v str), String> {
        let place = match field {
            "header" | "raw_header" => {
                let (name, rest) =
                    value.split_once(':').ok_or("a header field is expected, such as \"X-Mailer: text\"")?;
                if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(format!("{name:?} is no name of a header field"));
                }
                let name = name.to_ascii_lowercase();
                let place = if field == "header" { Self::Header(name) } else { Self::RawHeader(name) };
                return Ok((place, rest.strip_prefix(' ').unwrap_or(rest)));
            }
            "subject" => Self::Subject,
            "body" => Self::Body,
            "html" => Self::Html,
            "link" => Self::Link,
            "link_host" => Self::LinkHost,
            "attachment_name" => Self::AttachmentName,
            "attachment_type" => Self::AttachmentType,
            "declared_type" => Self::DeclaredType,
            "author" => Self::Author,
            "reverse_path" => Self::ReversePath,
            "helo" => Self::Helo,
            "client" => Self::Client,
            other => return Err(format!("{other:?} is nothing that a rule can look at")),
        };
        Ok((place, value))
    }

    /// How much of it is looked at, all texts of the place together, in bytes.
    #[must_use]
    pub const fn bytes_max(&self) -> usize {
        match self {
            Self::Html => 256 * 1024,
            Self::Body | Self::Link => 64 * 1024,
            Self::Header(_)
            | Self::RawHeader(_)
            | Self::Subject
            | Self::LinkHost
            | Self::AttachmentName
            | Self::AttachmentType
            | Self::DeclaredType
            | Self::Author
            | Self::ReversePath
            | Self::Helo
            | Self::Client => 16 * 1024,
        }
    }

    /// Whether its text is brought into lower case before it is looked at.
    #[must_use]
    pub const fn is_lower_case(&self) -> bool {
        matches!(self, Self::Html | Self::LinkHost | Self::DeclaredType)
    }
}

/// What a check found, as a rule asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidenced {
    /// SPF of the reverse-path.
    Spf,
    /// The best DKIM signature.
    Dkim,
    /// DMARC.
    Dmarc,
    /// The ARC chain.
    Arc,
    /// Whether the client's address has a name that leads back to it.
    ReverseName,
    /// Whether the connection was under TLS.
    Tls,
}

/// Words for them in files.
pub const EVIDENCE: [(&str, Evidenced); 6] = [
    ("spf", Evidenced::Spf),
    ("dkim", Evidenced::Dkim),
    ("dmarc", Evidenced::Dmarc),
    ("arc", Evidenced::Arc),
    ("reverse_name", Evidenced::ReverseName),
    ("tls", Evidenced::Tls),
];

/// What a check says: the results of RFC 8601 section 2.7, and for TLS yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    /// There was nothing to check.
    None,
    /// It holds.
    Pass,
    /// Nothing is said either way.
    Neutral,
    /// It is probably forged.
    SoftFail,
    /// It does not hold.
    Fail,
    /// It could not be checked.
    TempError,
    /// It cannot be checked.
    PermError,
    /// It is so.
    Yes,
    /// It is not so.
    No,
}

const RESULTS: [(&str, Word); 7] = [
    ("none", Word::None),
    ("pass", Word::Pass),
    ("neutral", Word::Neutral),
    ("softfail", Word::SoftFail),
    ("fail", Word::Fail),
    ("temperror", Word::TempError),
    ("permerror", Word::PermError),
];
const YES_NO: [(&str, Word); 2] = [("yes", Word::Yes), ("no", Word::No)];

impl Evidenced {
    /// By its word in files.
    #[must_use]
    pub fn of(field: &str) -> Option<Self> {
        EVIDENCE.iter().find(|(word, _)| *word == field).map(|(_, of)| *of)
    }

    /// Words that it can be.
    #[must_use]
    pub const fn words(self) -> &'static [(&'static str, Word)] {
        match self {
            Self::Spf | Self::Dkim | Self::Dmarc | Self::Arc | Self::ReverseName => &RESULTS,
            Self::Tls => &YES_NO,
        }
    }

    /// Reads a list of words, of which one must be what was found.
    ///
    /// # Errors
    /// In words, what would be right.
    pub fn parse(self, value: &str) -> Result<Vec<Word>, String> {
        let one = |text: &str| self.words().iter().find(|(word, _)| *word == text).map(|(_, word)| *word);
        let found: Option<Vec<Word>> = value.split_ascii_whitespace().map(one).collect();
        found.filter(|words| !words.is_empty() && value.len() <= VALUE_BYTES_MAX).ok_or_else(|| {
            let all: Vec<&str> = self.words().iter().map(|(word, _)| *word).collect();
            format!("one of {} is expected, or a list of them", all.join(", "))
        })
    }
}
