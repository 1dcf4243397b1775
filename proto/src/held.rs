//! The record of a message that we keep: quarantined, or accepted for a recipient whose next hop could not take it yet.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::{
    address::{Address, ReversePath},
    department::DepartmentId,
    envelope::{Handling, Notification},
    time::UnixMs,
    verdict::Verdict,
};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Ulid);

        impl $name {
            /// A new one: 48 bits of time and 80 random bits. Edges only.
            #[must_use]
            pub fn fresh() -> Self {
                Self(Ulid::new())
            }

            /// Reads the 26 characters of Crockford's base 32.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Ulid::from_string(text).ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// Names a transaction: in the 250 reply, the log, the trace and the Received field.
    TransactionId
);
id!(
    /// Names a held record.
    HeldId
);
id!(
    /// Names a mutation, so that proposing it twice is harmless.
    MutationId
);

/// Where a body is, by what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyRef {
    /// SHA-256 in lower-case hex: 64 characters.
    pub digest: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Names of the control servers that had made it durable when it was held.
    pub servers: Vec<String>,
}

/// Whether a text is a SHA-256 in lower-case hex.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Why a message is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeldKind {
    /// Policy said so; it moves only when somebody releases it.
    Quarantined,
    /// Accepted, but the next hop could not take it yet; it moves by itself.
    Deferred,
}

/// Where a held message stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeldStatus {
    /// Kept; nobody delivers it.
    Waiting,
    /// To be delivered by whichever node leases it. `by` and `at` of a release, or nothing for a deferred one.
    Due {
        /// Who released it.
        released: Option<(String, UnixMs)>,
    },
    /// The next hop said 250 to each of its recipients.
    Delivered {
        /// When.
        at: UnixMs,
        /// Who released it.
        released: Option<(String, UnixMs)>,
    },
    /// The next hop refused it for good, or it was tried for too long. It stays here to be looked at.
    Undeliverable {
        /// When it was given up.
        at: UnixMs,
        /// Who had released it.
        released: Option<(String, UnixMs)>,
    },
    /// Somebody deleted it.
    Deleted {
        /// Who.
        by: String,
        /// When.
        at: UnixMs,
    },
}

impl fmt::Display for HeldStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("waiting"),
            Self::Due { released: Some((by, at)) } => write!(f, "released by {by} at {at}"),
            Self::Due { released: None } => f.write_str("to be delivered"),
            Self::Delivered { at, .. } => write!(f, "delivered at {at}"),
            Self::Undeliverable { at, .. } => write!(f, "undeliverable since {at}"),
            Self::Deleted { by, at } => write!(f, "deleted by {by} at {at}"),
        }
    }
}

/// A node's right to deliver, alone, until a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Name of the node.
    pub node: String,
    /// After this another node may take it.
    pub until: UnixMs,
}

/// The record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its name.
    pub id: HeldId,
    /// The transaction that brought it.
    pub transaction: TransactionId,
    /// Why it is kept.
    pub kind: HeldKind,
    /// Where it stands.
    pub status: HeldStatus,
    /// The recipients' department; `None` for mail to the Internet.
    pub department: Option<DepartmentId>,
    /// The sending department, for mail that came from one.
    pub from_department: Option<DepartmentId>,
    /// Whom to tell.
    pub reverse_path: ReversePath,
    /// Who has not got it yet. Never empty while waiting or due.
    pub recipients: Vec<Address>,
    /// The bytes as they are to be delivered.
    pub body: BodyRef,
    /// Why.
    pub verdict: Verdict,
    /// Who sent it here.
    pub client: IpAddr,
    /// Subject, decoded, at most 200 characters, without control characters. Personal data.
    pub subject: String,
    /// When it was accepted.
    pub received_at: UnixMs,
    /// Who delivers it right now.
    pub lease: Option<Lease>,
    /// Delivery attempts that failed.
    pub attempts: u32,
    /// Not to be tried before.
    pub next_attempt: UnixMs,
    /// What the next hop said last.
    pub last_problem: String,
    /// What the sender asked of every server on the way.
    #[serde(default, skip_serializing_if = "Handling::is_plain")]
    pub handling: Handling,
    /// What it wants to hear of single recipients.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notifications: BTreeMap<Address, Notification>,
}

impl Held {
    /// Whether servers that know addresses in ASCII and nothing else of an envelope could keep it.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.handling.is_plain()
            && self.notifications.is_empty()
            && self.reverse_path.address().into_iter().chain(&self.recipients).all(Address::is_ascii)
    }

    /// Whether a node may take it now.
    #[must_use]
    pub fn is_due(&self, now: UnixMs) -> bool {
        matches!(self.status, HeldStatus::Due { .. })
            && self.next_attempt <= now
            && self.lease.as_ref().is_none_or(|lease| lease.until <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{BodyRef, Held, HeldId, HeldKind, HeldStatus, TransactionId};
    use crate::{
        address::{Address, ReversePath},
        codec,
        envelope::{Handling, Notification, Notify},
        mutation::Change,
        score::Score,
        time::UnixMs,
        verdict::{Disposition, Verdict},
    };

    fn address(text: &str) -> Address {
        Address::parse(text).expect("an address")
    }

    fn held() -> Held {
        Held {
            id: HeldId(ulid::Ulid::nil()),
            transaction: TransactionId(ulid::Ulid::nil()),
            kind: HeldKind::Deferred,
            status: HeldStatus::Due { released: None },
            department: None,
            from_department: None,
            reverse_path: ReversePath::Null,
            recipients: vec![address("a@b.test")],
            body: BodyRef { digest: String::new(), size_bytes: 0, servers: Vec::new() },
            verdict: Verdict {
                disposition: Disposition::Accept,
                score: Score::default(),
                tagged: false,
                reasons: Vec::new(),
                policy_version: 1,
            },
            client: "192.0.2.1".parse().expect("an address"),
            subject: String::new(),
            received_at: UnixMs(0),
            lease: None,
            attempts: 0,
            next_attempt: UnixMs(0),
            last_problem: String::new(),
            handling: Handling::default(),
            notifications: BTreeMap::new(),
        }
    }

    /// The version of a log entry that keeps it, after it was encoded and read.
    fn version(held: &Held) -> u32 {
        let read: Held = codec::decode("a record", &codec::encode(held)).expect("it decodes");
        assert_eq!(read, *held);
        Change::Hold { records: vec![self::held(), read] }.version()
    }

    #[test]
    fn what_is_asked_of_every_server_is_kept_and_known_only_to_later_servers() {
        let plain = held();
        assert_eq!(version(&plain), 1);
        let encoded = String::from_utf8_lossy(&codec::encode(&plain)).into_owned();
        assert!(!encoded.contains("handling") && !encoded.contains("notifications"), "as earlier servers store it");
        let asked = Handling { require_tls: true, ..Handling::default() };
        assert_eq!(version(&Held { handling: asked, ..held() }), 6);
        let never = Notification { notify: Some(Notify::Never), original: None };
        let notifications = BTreeMap::from([(address("a@b.test"), never)]);
        assert_eq!(version(&Held { notifications, ..held() }), 6);
        let utf8 = address("\u{e9}@b.test");
        assert_eq!(version(&Held { recipients: vec![address("a@b.test"), utf8.clone()], ..held() }), 6);
        assert_eq!(version(&Held { reverse_path: ReversePath::Address(utf8.clone()), ..held() }), 6);
        let attempted = |delivered| Change::Attempted {
            held: plain.id,
            delivered,
            refused: Vec::new(),
            next_attempt: UnixMs(0),
            problem: String::new(),
        };
        assert_eq!((attempted(vec![utf8]).version(), attempted(plain.recipients.clone()).version()), (6, 1));
    }
}
