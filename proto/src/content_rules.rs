//! What the state's policy says of what stands in messages: lists that are asked about the names in them, and who must not be
//! imitated.

use serde::{Deserialize, Serialize};

use crate::{address::Domain, client_rules::DnsList, learning::LearningRules};

/// Officials whose names are guarded, at most.
pub const OFFICIALS_MAX: usize = 2_000;
/// Domains that are guarded beside those of departments, at most.
pub const GUARDED_DOMAINS_MAX: usize = 500;

/// All of it. By default nothing is asked; the names of departments are guarded all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRules {
    /// Asked about the hosts of links and the domains of authors, at most [`crate::client_rules::DNS_LISTS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domain_lists: Vec<DnsList>,
    /// Names of people for whom nobody may write from elsewhere than a department or a guarded domain, at most [`OFFICIALS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub officials: Vec<String>,
    /// Domains of others that are worth imitating, such as a bank's, at most [`GUARDED_DOMAINS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guarded_domains: Vec<Domain>,
    /// When and from how much the cluster learns; the built-in rules when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning: Option<LearningRules>,
}

impl ContentRules {
    /// Each value as text with its key, for plans.
    #[must_use]
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let Self { domain_lists, officials, guarded_domains, learning } = self;
        let LearningRules { enabled, lessons_min, every_ms } = learning.unwrap_or_default();
        let texts = |texts: &mut dyn Iterator<Item = String>| format!("[{}]", texts.collect::<Vec<_>>().join(", "));
        vec![
            ("domain_lists", texts(&mut domain_lists.iter().map(ToString::to_string))),
            ("officials", texts(&mut officials.iter().map(|name| format!("{name:?}")))),
            ("guarded_domains", texts(&mut guarded_domains.iter().map(ToString::to_string))),
            ("learning.enabled", if enabled { "yes" } else { "no" }.to_owned()),
            ("learning.lessons_min", lessons_min.to_string()),
            ("learning.every", format!("{} s", every_ms / 1000)),
        ]
    }
}
