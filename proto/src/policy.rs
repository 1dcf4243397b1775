//! What holds for a recipient, with the layer that set each value: built in, the state's file, the department's file.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{file_name::NamePattern, fingerprint::Fingerprint, score::Score};

/// Who set a value. A later layer wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// What Postern ships with.
    BuiltIn,
    /// The state's file.
    State,
    /// The department's file.
    Department,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BuiltIn => "built in",
            Self::State => "state",
            Self::Department => "department",
        })
    }
}

/// A value and the layer that set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting<T> {
    /// What holds.
    pub value: T,
    /// Who said so.
    pub layer: Layer,
}

/// What happens to a message that a hard rule catches. There is no "accept": that is promise 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refusal {
    /// 5xx to the sender.
    Reject,
    /// Held for the recipient and the operator.
    Quarantine,
    /// Answered with 250, thrown away, and written to the audit log.
    Discard,
}

/// What happens to a message with an attachment that its recipient's policy does not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockedAction {
    /// 5xx to the sender.
    Reject,
    /// Held for the recipient and the operator.
    Quarantine,
    /// Answered with 250, thrown away, and written to the audit log.
    Discard,
    /// The attachment is taken out, a notice stands in its place, and the message as it came is held.
    Strip,
    /// The message goes on, tagged.
    Tag,
}

impl BlockedAction {
    /// Every action with its word in policy files.
    pub const ALL: [(&'static str, Self); 5] = [
        ("reject", Self::Reject),
        ("quarantine", Self::Quarantine),
        ("discard", Self::Discard),
        ("strip", Self::Strip),
        ("tag", Self::Tag),
    ];
}

/// What happens when DMARC (RFC 7489) fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DmarcAction {
    /// Only the score counts.
    Score,
    /// What the domain's own record asks for.
    Follow,
    /// Quarantine, whatever the record asks for.
    Quarantine,
    /// Reject, whatever the record asks for.
    Reject,
}

/// What a check that cannot answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unavailable {
    /// 451: the sender keeps the mail and comes back.
    Defer,
    /// Held.
    Quarantine,
}

/// What an authentication check, or the look-up of a recipient, means that cannot answer. Unlike a virus scan it may be let
/// pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthUnavailable {
    /// Recorded as `temperror` where there is a record; nothing else.
    Accept,
    /// 451.
    Defer,
}

/// Whether mail is scanned for malware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VirusScan {
    /// Each message, or it is not delivered.
    Required,
    /// Nothing is scanned, and each message says so in its header.
    Off,
}

/// A kind of content that a department may refuse, told by the bytes and not by the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentKind {
    /// Programs: PE, ELF, Mach-O, DEX, class files, shortcuts, installers.
    Executable,
    /// Text that a shell, Windows Script Host or the like would run.
    Script,
    /// ZIP, 7z, RAR, tar, gzip and the like.
    Archive,
    /// Disk images.
    Image,
    /// Documents with macros or scripts that run when somebody asks for it.
    Macro,
    /// Documents and pages that run something by themselves, or fetch what runs: macros at opening, Excel 4 macros, DDE,
    /// remote templates, PDF actions, scripts in HTML and SVG files.
    Active,
    /// Archives and documents that nobody can look into without a password.
    Encrypted,
}

impl ContentKind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Executable, Self::Script, Self::Archive, Self::Image, Self::Macro, Self::Active, Self::Encrypted];

    /// The word for it in policy files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Executable => "executable",
            Self::Script => "script",
            Self::Archive => "archive",
            Self::Image => "image",
            Self::Macro => "macro",
            Self::Active => "active",
            Self::Encrypted => "encrypted",
        }
    }

    /// Whether earlier versions of Postern do not know it.
    #[must_use]
    pub const fn is_new(self) -> bool {
        matches!(self, Self::Macro | Self::Active | Self::Encrypted)
    }
}

/// A value as a policy file writes it.
trait Shown {
    fn shown(&self) -> String;
}

impl Shown for Score {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for u64 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}

impl Shown for NamePattern {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for Fingerprint {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl<T: Shown> Shown for Vec<T> {
    fn shown(&self) -> String {
        format!("[{}]", self.iter().map(Shown::shown).collect::<Vec<_>>().join(", "))
    }
}

macro_rules! shown_as_a_word {
    ($($word:ty)*) => {
        $(impl Shown for $word {
            fn shown(&self) -> String {
                format!("{self:?}").to_lowercase()
            }
        })*
    };
}

shown_as_a_word!(Refusal BlockedAction DmarcAction Unavailable AuthUnavailable VirusScan ContentKind);

macro_rules! policy {
    ($($(#[$doc:meta])* $field:ident: $type:ty = $default:expr;)*) => {
        /// Every value that holds for a recipient.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Policy { $($(#[$doc])* pub $field: Setting<$type>,)* }

        /// What one layer says; what it is silent about comes from the layer below.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct PolicyLayer {
            $($(#[$doc])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
        }

        impl Policy {
            /// What holds when no file says anything.
            #[must_use]
            pub fn built_in() -> Self {
                Self { $($field: Setting { value: $default, layer: Layer::BuiltIn },)* }
            }

            /// This policy with what `above` says put on top.
            #[must_use]
            pub fn with(mut self, above: &PolicyLayer, layer: Layer) -> Self {
                $(if let Some(value) = &above.$field { self.$field = Setting { value: value.clone(), layer }; })*
                self
            }

            /// Each value as text with its key and layer, for plans and `show`.
            #[must_use]
            pub fn rows(&self) -> Vec<(&'static str, String, Layer)> {
                vec![$((stringify!($field), self.$field.value.shown(), self.$field.layer),)*]
            }
        }
    };
}

policy! {
    /// From this score on a message is tagged: `X-Postern-Tag: suspicious`, for the recipient's mail program to sort by.
    tag_at: Score = Score::points(4, 0);
    /// From this score on a message is quarantined.
    quarantine_at: Score = Score::points(6, 0);
    /// From this score on a message is rejected.
    reject_at: Score = Score::points(12, 0);
    /// From this score of the client on, which has sent nothing yet, its mail for the recipient is refused.
    client_refuse_at: Score = Score::points(8, 0);
    /// From this score of the client on its first try is put off (greylisting).
    greylist_at: Score = Score::points(2, 0);
    /// Nobody can say now whether a recipient exists.
    recipient_unavailable: AuthUnavailable = AuthUnavailable::Accept;
    /// Malware that clamd names.
    malware: Refusal = Refusal::Reject;
    /// Kinds of attachment that are refused.
    blocked_types: Vec<ContentKind> =
        vec![ContentKind::Executable, ContentKind::Script, ContentKind::Active, ContentKind::Encrypted];
    /// Formats of its own that are refused as blocked types are; at most `FINGERPRINTS_MAX`.
    fingerprints: Vec<Fingerprint> = Vec::new();
    /// Names of files that are refused as blocked types are, also within archives; at most `PATTERNS_MAX`.
    blocked_names: Vec<NamePattern> = Vec::new();
    /// Largest single attachment, in bytes, its transfer encoding undone; a larger one is refused as blocked types are.
    attachment_bytes_max: u64 = MESSAGE_BYTES_MAX;
    /// What happens to a message with one of them.
    blocked_type: BlockedAction = BlockedAction::Quarantine;
    /// What the notice says that stands in the place of an attachment, above what it was; at most `NOTICE_CHARS_MAX`.
    strip_notice: String = NOTICE.to_owned();
    /// DMARC failure.
    dmarc_failure: DmarcAction = DmarcAction::Follow;
    /// A message that breaks the syntax or the limits of MIME.
    unparsable: Refusal = Refusal::Quarantine;
    /// Whether mail is scanned for malware.
    virus_scan: VirusScan = VirusScan::Required;
    /// clamd is away, slow, or answers nonsense.
    virus_unavailable: Unavailable = Unavailable::Defer;
    /// For so many minutes a message from the Internet that is clean and suspicious is held, and then scanned again before it
    /// is delivered; never when zero, at most a day.
    rescan_after_minutes: u64 = 0;
    /// From this score on a message with an attachment is suspicious.
    rescan_at: Score = Score::points(2, 0);
    /// DNS does not answer.
    authentication_unavailable: AuthUnavailable = AuthUnavailable::Accept;
    /// Largest message for the recipient, in bytes; at most 50 MiB.
    message_bytes_max: u64 = 50 * 1024 * 1024;
}

impl PolicyLayer {
    /// Whether it says something of clients that have sent nothing yet: earlier versions of Postern do not know that.
    #[must_use]
    pub fn judges_clients(&self) -> bool {
        self.client_refuse_at.is_some() || self.greylist_at.is_some() || self.recipient_unavailable.is_some()
    }

    /// Whether it names kinds of content, or fingerprints, that earlier versions of Postern do not know.
    #[must_use]
    pub fn looks_into_documents(&self) -> bool {
        self.fingerprints.is_some() || self.blocked_types.iter().flatten().any(|kind| kind.is_new())
    }
}

impl PolicyLayer {
    /// Whether it says something of single attachments: earlier versions of Postern do not know that.
    #[must_use]
    pub fn judges_attachments(&self) -> bool {
        self.blocked_names.is_some()
            || self.attachment_bytes_max.is_some()
            || self.strip_notice.is_some()
            || matches!(self.blocked_type, Some(BlockedAction::Strip | BlockedAction::Tag))
    }

    /// Whether it says something of scanning again: earlier versions of Postern do not know that.
    #[must_use]
    pub fn scans_again(&self) -> bool {
        self.rescan_after_minutes.is_some() || self.rescan_at.is_some()
    }
}

/// Longest time that any policy may hold a message before it is scanned again, in minutes.
pub const RESCAN_MINUTES_MAX: u64 = 24 * 60;

/// Longest text of a notice, in characters.
pub const NOTICE_CHARS_MAX: usize = 1_000;
/// What a notice says when no file says anything.
const NOTICE: &str = "Das Mail-Gateway hat hier eine Anlage entfernt, die nicht angenommen wird. Die vollst\u{e4}ndige Nachricht \
    liegt in der Quarant\u{e4}ne.\nThe mail gateway has removed an attachment here that is not accepted. The whole message is in \
    the quarantine.";

/// Largest message that any policy may allow, in bytes.
pub const MESSAGE_BYTES_MAX: u64 = 50 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::{BlockedAction, ContentKind, Layer, Policy, PolicyLayer};
    use crate::{
        mutation::{Change, Grounds},
        score::Score,
        view::StateSettings,
    };

    #[test]
    fn a_later_layer_wins_and_is_named() {
        let state = PolicyLayer {
            reject_at: Some(Score::points(15, 0)),
            tag_at: Some(Score::points(3, 0)),
            ..PolicyLayer::default()
        };
        let department = PolicyLayer { reject_at: Some(Score::points(9, 0)), ..PolicyLayer::default() };
        let policy = Policy::built_in().with(&state, Layer::State).with(&department, Layer::Department);
        assert_eq!((policy.reject_at.value, policy.reject_at.layer), (Score::points(9, 0), Layer::Department));
        assert_eq!((policy.tag_at.value, policy.tag_at.layer), (Score::points(3, 0), Layer::State));
        assert_eq!(policy.malware.layer, Layer::BuiltIn);
    }

    #[test]
    fn a_kind_has_one_word_in_files_and_on_the_wire() {
        for (word, action) in BlockedAction::ALL {
            assert_eq!(rmp_serde::to_vec(&action).ok(), rmp_serde::to_vec(word).ok());
        }
        for kind in ContentKind::ALL {
            assert_eq!(rmp_serde::to_vec(&kind).ok(), rmp_serde::to_vec(kind.as_str()).ok());
        }
    }

    #[test]
    fn a_layer_that_earlier_versions_would_misread_says_so() {
        let of = |kinds: &[ContentKind]| PolicyLayer { blocked_types: Some(kinds.to_vec()), ..PolicyLayer::default() };
        assert!(!PolicyLayer::default().looks_into_documents());
        assert!(
            !of(&[ContentKind::Executable, ContentKind::Script, ContentKind::Archive, ContentKind::Image])
                .looks_into_documents()
        );
        for new in [ContentKind::Macro, ContentKind::Active, ContentKind::Encrypted] {
            assert!(of(&[ContentKind::Script, new]).looks_into_documents());
        }
        let to = |action| PolicyLayer { blocked_type: Some(action), ..PolicyLayer::default() };
        for (action, is_new) in [
            (BlockedAction::Reject, false),
            (BlockedAction::Quarantine, false),
            (BlockedAction::Discard, false),
            (BlockedAction::Strip, true),
            (BlockedAction::Tag, true),
        ] {
            assert_eq!(to(action).judges_attachments(), is_new, "{action:?}");
        }
        assert!(PolicyLayer { blocked_names: Some(Vec::new()), ..PolicyLayer::default() }.judges_attachments());
        assert!(PolicyLayer { attachment_bytes_max: Some(1), ..PolicyLayer::default() }.judges_attachments());
        assert!(PolicyLayer { strip_notice: Some(String::new()), ..PolicyLayer::default() }.judges_attachments());
        assert!(PolicyLayer { fingerprints: Some(Vec::new()), ..PolicyLayer::default() }.looks_into_documents());
    }

    #[test]
    fn a_policy_with_a_new_kind_waits_for_servers_that_know_it() {
        let version = |policy| {
            Change::ApplyPolicy {
                base_version: 0,
                settings: Box::new(StateSettings { policy, ..StateSettings::default() }),
                departments: Vec::new(),
                changes: Vec::new(),
                grounds: Grounds { why: "a test".into(), ticket: String::new() },
            }
            .version()
        };
        let of = |kind| PolicyLayer { blocked_types: Some(vec![kind]), ..PolicyLayer::default() };
        assert_eq!((version(of(ContentKind::Archive)), version(of(ContentKind::Active))), (1, 7));
        let stripping = PolicyLayer { blocked_type: Some(BlockedAction::Strip), ..PolicyLayer::default() };
        assert_eq!(version(stripping), 9);
    }

    #[test]
    fn values_are_shown_as_the_files_write_them() {
        let rows = Policy::built_in().rows();
        let shown = |key| rows.iter().find(|(name, ..)| *name == key).map(|(_, text, _)| text.as_str());
        assert_eq!(shown("reject_at"), Some("12.00"));
        assert_eq!(shown("blocked_types"), Some("[executable, script, active, encrypted]"));
        assert_eq!(shown("message_bytes_max"), Some("52428800"));
        assert_eq!(shown("virus_unavailable"), Some("defer"));
    }
}
