//! Rules that people write: what they look at, what they are worth, and the engine that looks for all of them at once.
//!
//! A rule is stored as it is written. Reading it, for a file as for a node, is compiling it: so a node says of a rule that only a
//! later version of Postern knows what a file's reader would say, and leaves out that rule alone.

mod borders;
mod content;
pub mod engine;
pub mod file;
mod literals;
mod matcher;
mod pattern;
mod place;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::score::Score;

pub use self::{
    content::{Content, Evidence},
    place::{EVIDENCE, Evidenced, PLACES, Place, Word},
};

/// Most rules of a policy.
pub const RULES_MAX: usize = 2_000;
/// Most conditions of one rule.
pub const CONDITIONS_MAX: usize = 32;
/// Longest pattern or list of words, in bytes.
pub const VALUE_BYTES_MAX: usize = 1_000;
/// Longest name of a rule or a group, in characters.
pub const NAME_CHARS_MAX: usize = 64;
/// Longest text of a rule, in characters.
pub const TEXT_CHARS_MAX: usize = 200;
/// All rules together, as they are stored, in bytes.
pub const RULES_BYTES_MAX: usize = 1024 * 1024;
/// Most points of a rule or a group, on either side of zero.
pub const POINTS_MAX: Score = Score::points(100, 0);
/// What a group counts at most, either way, where nothing else is said: less than the built-in policy quarantines at.
pub const GROUP_CAP: Score = Score(450);
/// The group of a rule that names none.
pub const GROUP: &str = "own";
/// How the name of each rule begins that people write, and that of none which Postern brings along: so no name means two things,
/// whatever a later version brings.
pub const NAME_BEGIN: &str = "OWN_";

/// All rules of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSet {
    /// In the order of their files and their lines.
    pub rules: Vec<Rule>,
    /// What groups count at most, either way; [`GROUP_CAP`] for those that are not named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub caps: BTreeMap<String, Score>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its name: upper case, begins with [`NAME_BEGIN`].
    pub name: String,
    /// What it counts with others against the cap of.
    pub group: String,
    /// What it is worth.
    pub score: Score,
    /// In words, for the verdict.
    pub text: String,
    /// All of these must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<Condition>,
    /// And one of these, if there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<Condition>,
    /// And none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub none: Vec<Condition>,
}

/// One condition, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What is looked at: one of [`PLACES`] or of [`EVIDENCE`].
    pub field: String,
    /// A pattern, in front of it `Name: ` for a header field; of evidence the words that fit, with spaces between them.
    pub value: String,
}

/// Which of the three lists of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum List {
    /// [`Rule::all`].
    All,
    /// [`Rule::any`].
    Any,
    /// [`Rule::none`].
    None,
}

impl Rule {
    /// All conditions, each with its list and its place in it.
    pub fn conditions(&self) -> impl Iterator<Item = (List, usize, &Condition)> {
        let of = |list, conditions: &'_ [Condition]| std::iter::repeat_n(list, conditions.len()).enumerate();
        let lists = of(List::All, &self.all).chain(of(List::Any, &self.any)).chain(of(List::None, &self.none));
        lists.zip(self.all.iter().chain(&self.any).chain(&self.none)).map(|((at, list), one)| (list, at, one))
    }

    fn size_bytes(&self) -> usize {
        let conditions = self.conditions().map(|(_, _, condition)| condition.field.len() + condition.value.len() + 16);
        self.name.len() + self.group.len() + self.text.len() + 64 + conditions.sum::<usize>()
    }
}

impl RuleSet {
    /// What a group counts at most, either way.
    #[must_use]
    pub fn cap(&self, group: &str) -> Score {
        self.caps.get(group).copied().unwrap_or(GROUP_CAP)
    }

    /// How long all of it is, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let caps: usize = self.caps.keys().map(|group| group.len() + 16).sum();
        self.rules.iter().map(Rule::size_bytes).sum::<usize>() + caps
    }
}

/// Whether a rule may be called so.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let own = name.strip_prefix(NAME_BEGIN).unwrap_or_default();
    !own.is_empty() && name.len() <= NAME_CHARS_MAX && name.bytes().all(fits)
}

/// Whether a group may be called so.
#[must_use]
pub fn is_group(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    !name.is_empty() && name.len() <= NAME_CHARS_MAX && name.bytes().all(fits)
}
