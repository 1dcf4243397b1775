//! Reputation: what is counted about senders, how it fades, and what an operator says by hand.
//!
//! Counts halve each day. Nodes hold them as *levels*: eighths of an octave plus the time in ticks of an eighth of the
//! half-life. A level stays as it is while its count fades, so that time alone changes nothing that must be sent.

pub mod known;

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use crate::{address::Domain, time::UnixMs};

/// Subjects that the state counts at most.
pub const SUBJECTS_MAX: u64 = 1_000_000;
/// Manual entries at most.
pub const MANUAL_MAX: u64 = 10_000;
/// Subjects in one report at most.
pub const REPORT_SUBJECTS_MAX: usize = 4_000;
/// Steps of an octave and ticks of a half-life.
const STEPS: u32 = 8;
/// A tick, in milliseconds: an eighth of the half-life of a day.
const TICK_MS: u64 = 24 * 60 * 60 * 1000 / STEPS as u64;
/// One outcome, in units.
const OUTCOME: u64 = 256;
/// No count goes beyond this many units: sixteen million outcomes.
const UNITS_MAX: u64 = 1 << 32;
/// A score is drawn towards zero as if by this many units of doubt: ten outcomes.
const DOUBT: i64 = 10 * 256;
/// 2^(-k/8) in units of 1/65536.
const FADED: [u64; 8] = [65_536, 60_097, 55_109, 50_535, 46_341, 42_495, 38_968, 35_734];
/// 2^(k/8) in units of 1/65536.
const GROWN: [u64; 8] = [65_536, 71_468, 77_936, 84_990, 92_682, 101_070, 110_218, 120_194];

/// Whom or what outcomes are counted for. Written `ip:192.0.2.7`, `net:192.0.2.0/24`, `dkim:example.com`, `spf:example.com`,
/// `campaign:0123456789abcdef`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subject {
    /// A client's address; an IPv4 address in IPv6 form is the IPv4 address.
    Ip(IpAddr),
    /// A client's net: /24 of IPv4, /64 of IPv6.
    Net(IpNet),
    /// A domain whose DKIM signature was right.
    Dkim(Domain),
    /// A domain of a reverse-path for which SPF passed.
    Spf(Domain),
    /// Something that near-copies of a message have in common.
    Campaign([u8; 8]),
}

/// A text names no subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no subject: write ip:192.0.2.7, net:192.0.2.0/24, net:2001:db8::/64, dkim:example.com, spf:example.com or \
     campaign:0123456789abcdef"
)]
pub struct SubjectError(String);

impl Subject {
    /// A client's address and its net.
    #[must_use]
    pub fn of_client(client: IpAddr) -> [Self; 2] {
        let client = client.to_canonical();
        let prefix = if client.is_ipv4() { 24 } else { 64 };
        let net = IpNet::new_assert(client, prefix).trunc();
        [Self::Ip(client), Self::Net(net)]
    }

    /// What it is called in state and view.
    #[must_use]
    pub fn key(&self) -> SubjectKey {
        let digest: [u8; 32] = Sha256::digest(self.to_string()).into();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        SubjectKey(key)
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let read = |kind: &str, rest: &str| match kind {
            "ip" => Some(Self::Ip(rest.parse::<IpAddr>().ok()?.to_canonical())),
            "net" => {
                let net: IpNet = rest.parse().ok()?;
                let [_, wanted] = Self::of_client(net.addr());
                (wanted == Self::Net(net)).then_some(wanted)
            }
            "dkim" => Domain::parse(rest).ok().map(Self::Dkim),
            "spf" => Domain::parse(rest).ok().map(Self::Spf),
            "campaign" => {
                let mut part = [0; 8];
                hex::decode_to_slice(rest, &mut part).ok().map(|()| Self::Campaign(part))
            }
            _ => None,
        };
        let subject = text.split_once(':').and_then(|(kind, rest)| read(kind, rest));
        subject.ok_or_else(|| SubjectError(text.chars().take(300).collect()))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "ip:{ip}"),
            Self::Net(net) => write!(f, "net:{net}"),
            Self::Dkim(domain) => write!(f, "dkim:{domain}"),
            Self::Spf(domain) => write!(f, "spf:{domain}"),
            Self::Campaign(part) => write!(f, "campaign:{}", hex::encode(part)),
        }
    }
}

impl TryFrom<String> for Subject {
    type Error = SubjectError;
    fn try_from(text: String) -> Result<Self, SubjectError> {
        text.parse()
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.to_string()
    }
}

/// The head of the SHA-256 of a subject's text: a million of them are small, whatever their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectKey(pub [u8; 16]);

/// As one string of bytes: half the size of a list of numbers.
impl Serialize for SubjectKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for SubjectKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl de::Visitor<'_> for Bytes {
            type Value = SubjectKey;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("16 bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<SubjectKey, E> {
                let key = bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))?;
                Ok(SubjectKey(key))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// What a node has seen of a subject since its last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(SubjectKey, u32, u32)", into = "(SubjectKey, u32, u32)")]
pub struct Heard {
    /// Of whom.
    pub subject: SubjectKey,
    /// Good outcomes.
    pub good: u32,
    /// Bad ones.
    pub bad: u32,
}

impl From<(SubjectKey, u32, u32)> for Heard {
    fn from((subject, good, bad): (SubjectKey, u32, u32)) -> Self {
        Self { subject, good, bad }
    }
}

impl From<Heard> for (SubjectKey, u32, u32) {
    fn from(heard: Heard) -> Self {
        (heard.subject, heard.good, heard.bad)
    }
}

/// Number of the tick that a time lies in.
#[must_use]
pub fn tick(at: UnixMs) -> u32 {
    u32::try_from(at.0 / TICK_MS).unwrap_or(u32::MAX)
}

/// Counts of a subject, as they were at a tick. In units of 1/256 of an outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Good outcomes.
    pub good: u64,
    /// Bad ones.
    pub bad: u64,
    /// When they were brought up to date.
    pub tick: u32,
}

impl Tally {
    /// What is left of it at a tick; a tick before its own changes nothing.
    #[must_use]
    pub fn at(self, tick: u32) -> Self {
        let ticks = tick.saturating_sub(self.tick);
        Self { good: faded(self.good, ticks), bad: faded(self.bad, ticks), tick: self.tick.max(tick) }
    }

    /// With what was heard at a tick.
    #[must_use]
    pub fn with(self, heard: &Heard, tick: u32) -> Self {
        let now = self.at(tick);
        let sum = |units: u64, outcomes: u32| (units + u64::from(outcomes) * OUTCOME).min(UNITS_MAX);
        Self { good: sum(now.good, heard.good), bad: sum(now.bad, heard.bad), tick: now.tick }
    }

    /// As nodes hold it.
    #[must_use]
    pub fn levels(self) -> Levels {
        Levels { good: level(self.good, self.tick), bad: level(self.bad, self.tick) }
    }

    /// Hundredths of good and bad outcomes, for people.
    #[must_use]
    pub fn hundredths(self) -> (u64, u64) {
        (self.good * 100 / OUTCOME, self.bad * 100 / OUTCOME)
    }
}

fn faded(units: u64, ticks: u32) -> u64 {
    let whole = units.checked_shr(ticks / STEPS).unwrap_or(0);
    (whole * FADED[(ticks % STEPS) as usize]) >> 16
}

/// The level of a count at a tick; zero for nothing.
fn level(units: u64, tick: u32) -> u32 {
    let Some(octave) = units.checked_ilog2() else { return 0 };
    // From 65536 to 131071, however large the count.
    let mantissa = if octave >= 16 { units >> (octave - 16) } else { units << (16 - octave) };
    let steps = GROWN.iter().skip(1).filter(|grown| mantissa >= **grown).count();
    tick.saturating_add(octave * STEPS).saturating_add(u32::try_from(steps).unwrap_or(0))
}

/// What a level stands for at a tick, in units.
fn units(level: u32, tick: u32) -> u64 {
    if level == 0 || level < tick {
        return 0;
    }
    let above = level - tick;
    ((GROWN[(above % STEPS) as usize] << (above / STEPS).min(40)) >> 16).min(UNITS_MAX)
}

/// Counts of a subject as nodes hold them; a level of zero is a count of zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u32)", into = "(u32, u32)")]
pub struct Levels {
    /// Of good outcomes.
    pub good: u32,
    /// Of bad ones.
    pub bad: u32,
}

impl From<(u32, u32)> for Levels {
    fn from((good, bad): (u32, u32)) -> Self {
        Self { good, bad }
    }
}

impl From<Levels> for (u32, u32) {
    fn from(levels: Levels) -> Self {
        (levels.good, levels.bad)
    }
}

impl Levels {
    /// Whether nodes must learn of the step from `self` to `new`: a count has moved by a fifth, or is not nothing any more.
    #[must_use]
    pub fn moved(self, new: Self) -> bool {
        let far = |old: u32, new: u32| old.abs_diff(new) >= 2;
        far(self.good, new.good) || far(self.bad, new.bad)
    }

    /// From -1000, nothing but good, over 0, unknown or even, to 1000, nothing but bad.
    #[must_use]
    pub fn score(self, now: UnixMs) -> i16 {
        let tick = tick(now);
        let count = |level| i64::try_from(units(level, tick)).unwrap_or(i64::MAX / 4000);
        let (good, bad) = (count(self.good), count(self.bad));
        i16::try_from((bad - good) * 1000 / (good + bad + DOUBT)).unwrap_or(0)
    }
}

/// What an operator says of a subject, whatever is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stance {
    /// Let it in.
    Allow,
    /// Keep it out.
    Block,
}

impl fmt::Display for Stance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Block => "block",
        })
    }
}

/// A stance with its end, as nodes hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manual {
    /// What holds.
    pub stance: Stance,
    /// Until when.
    pub until: UnixMs,
}

/// What is known of a subject at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repute {
    /// What an operator says, while it holds.
    pub stance: Option<Stance>,
    /// See `Levels::score`.
    pub score: i16,
}

#[cfg(test)]
mod tests;
