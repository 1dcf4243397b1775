//! What the checks found. A check that could not answer says so: silence is not a pass.

use std::collections::BTreeSet;

use proto::{
    address::Domain,
    file_name::NamePattern,
    fingerprint::Fingerprint,
    policy::ContentKind,
    reputation::{Repute, Subject},
    verdict::Reason,
};
use serde::{Deserialize, Serialize};

use crate::checks::listing::Entry;

/// What an authentication method says (RFC 8601 section 2.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthResult {
    /// Nothing to check, or not checked.
    #[default]
    None,
    /// It holds.
    Pass,
    /// The domain says nothing either way, or the signature does not fit without harm being claimed.
    Neutral,
    /// The domain thinks it is probably forged.
    SoftFail,
    /// It does not hold.
    Fail,
    /// It could not be checked now: DNS did not answer in time.
    TempError,
    /// It cannot be checked: a record or field is wrong.
    PermError,
}

impl AuthResult {
    /// The word of RFC 8601.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Neutral => "neutral",
            Self::SoftFail => "softfail",
            Self::Fail => "fail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// One DKIM signature (RFC 6376).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Whether it holds.
    pub result: AuthResult,
    /// Who signed: the `d` tag.
    pub domain: String,
    /// The `s` tag.
    pub selector: String,
}

/// What the record of a domain asks for when DMARC fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// Nothing.
    #[default]
    Nothing,
    /// Quarantine.
    Quarantine,
    /// Reject.
    Reject,
}

/// SPF, DKIM, DMARC, ARC and reverse DNS. By default nothing was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authentication {
    /// Of the MAIL FROM identity, or of HELO for the null reverse-path (RFC 7208 section 2.4).
    pub spf: AuthResult,
    /// Of the HELO identity (RFC 7208 section 2.3).
    pub spf_helo: AuthResult,
    /// At most as many as the limit.
    pub dkim: Vec<Signature>,
    /// Over the one From field (RFC 7489 and RFC 9989).
    pub dmarc: AuthResult,
    /// What the record asks for when it fails.
    pub dmarc_asks: Asked,
    /// Of the chain (RFC 8617).
    pub arc: AuthResult,
    /// Whether the chain passes, was sealed only by hosts that we trust, and says that DMARC passed at its start.
    pub arc_vouches: bool,
    /// Whether the client's address has a name that leads back to it (RFC 8601 section 2.7.3).
    pub reverse: AuthResult,
    /// The domain that DMARC was checked for.
    pub from_domain: Option<Domain>,
    /// Why not all of it could be checked, in words for the operator.
    pub problem: Option<String>,
}

impl Authentication {
    /// Everything that would have been checked is a temporary error.
    #[must_use]
    pub fn unavailable(problem: impl Into<String>) -> Self {
        let gone = AuthResult::TempError;
        Self { spf: gone, spf_helo: gone, dmarc: gone, problem: Some(problem.into()), ..Self::default() }
    }

    /// One word for all signatures: the best of them.
    #[must_use]
    pub fn dkim_best(&self) -> AuthResult {
        let order = [AuthResult::Pass, AuthResult::TempError, AuthResult::Fail, AuthResult::PermError];
        let found = order.into_iter().find(|result| self.dkim.iter().any(|signature| signature.result == *result));
        found.or_else(|| self.dkim.first().map(|signature| signature.result)).unwrap_or_default()
    }

    /// Whether a failure to ask DNS leaves open what the message is.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.problem.is_some() || self.dmarc == AuthResult::TempError || self.spf == AuthResult::TempError
    }
}

/// What the virus scanner says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Virus {
    /// It looked at all of it and found nothing.
    Clean,
    /// It found this.
    Infected {
        /// The scanner's name for it, printable.
        name: String,
    },
    /// It could not look, and why.
    Unavailable {
        /// In words for the operator.
        why: String,
    },
    /// It will not look at all of this message, however often it is asked: it is over the limits, or the scanner breaks off over
    /// it each time.
    Unscannable {
        /// In words for the operator.
        why: String,
    },
    /// Nobody asked: policy says off for every recipient, or the outcome was settled before.
    NotScanned,
}

impl Virus {
    /// One word for headers and scans.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Infected { .. } => "infected",
            Self::Unavailable { .. } => "unavailable",
            Self::Unscannable { .. } => "unscannable",
            Self::NotScanned => "not-scanned",
        }
    }
}

/// A kind of content found in a part or inside an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What it is.
    pub kind: ContentKind,
    /// Which rule found it: stable, upper case.
    pub rule: String,
    /// In words, without hostile characters.
    pub text: String,
}

/// Something that a policy may not let in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Barred {
    /// A kind of content.
    Kind(ContentKind),
    /// A format that people described.
    Fingerprint(Fingerprint),
    /// A name of a file.
    Name(NamePattern),
}

/// How far the analyses of the content came; what comes later counts more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Analysed {
    /// To their end.
    Whole,
    /// They failed over it or took too long, and would again.
    BrokeOff,
    /// They could not be made now, which says nothing of the message.
    NotNow,
}

/// All of it. The default is that nothing was found out, which `decide` does not take for a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Who sent it.
    pub authentication: Authentication,
    /// What is known of them.
    pub senders: Repute,
    /// What spoke for or against the client before its first message.
    pub client: Vec<Reason>,
    /// Malware.
    pub virus: Virus,
    /// Kinds of content.
    pub kinds: Vec<Found>,
    /// Formats that people described and that were found, each with words about where.
    pub fingerprints: Vec<(Fingerprint, String)>,
    /// Names that people do not want and that were found, each with words about where.
    pub names: Vec<(NamePattern, String)>,
    /// In which part of the message what lies that a policy may not let in; `None` when it is more than is told.
    pub barred: Option<BTreeSet<(usize, Barred)>>,
    /// What is broken, over a limit or of a kind that is not opened, and why. What is encrypted is not among them: it is a kind.
    pub opaque: Vec<String>,
    /// Scored rules on content.
    pub content: Vec<Reason>,
    /// What its near-copies have in common with it.
    pub copies: Vec<Subject>,
    /// Domains that it names, which lists are asked about.
    pub domains: Vec<Entry>,
    /// How far the analyses of the content came.
    pub analysed: Analysed,
}

impl Evidence {
    /// Before anything was looked at.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            authentication: Authentication::default(),
            senders: Repute::default(),
            client: Vec::new(),
            virus: Virus::NotScanned,
            kinds: Vec::new(),
            fingerprints: Vec::new(),
            names: Vec::new(),
            barred: Some(BTreeSet::new()),
            opaque: Vec::new(),
            content: Vec::new(),
            copies: Vec::new(),
            domains: Vec::new(),
            analysed: Analysed::BrokeOff,
        }
    }
}
