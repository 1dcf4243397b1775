//! Open files: as many as the limits need, as far as the system allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::Limits;

/// Listeners, logs, name servers, control servers, directories, and kept connections to next hops.
const FILES_APART: usize = 1024;

/// Files that are open when all places are taken: each listener's connections, and for each message that is under way there
/// one to the virus scanner and one to a next hop.
fn needed(limits: &Limits) -> u64 {
    let listener = limits.connections_max.saturating_add(limits.messages_max.saturating_mul(2));
    u64::try_from(listener.saturating_mul(2).saturating_add(FILES_APART)).unwrap_or(u64::MAX)
}

/// Raises the soft limit to what is needed, or to the hard limit. Too low a one is said in the log: then a flood could take the
/// files that other connections need, before any of our own bounds is reached.
pub fn allow(limits: &Limits) {
    let (now, needed) = (getrlimit(Resource::Nofile), needed(limits));
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if enough(now.current) {
        return;
    }
    let current = if enough(now.maximum) { Some(needed) } else { now.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current, maximum: now.maximum }) {
        tracing::warn!(%error, "raise the limit of open files");
    }
    let allowed = getrlimit(Resource::Nofile).current;
    if !enough(allowed) {
        tracing::warn!(
            allowed,
            needed,
            "too few open files are allowed for limits.connections_max and limits.messages_max: raise LimitNOFILE, or lower them"
        );
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, getrlimit};

    use super::{allow, needed};
    use crate::limits::Limits;

    #[test]
    fn what_the_default_limits_need_is_allowed() {
        let limits = Limits::default();
        assert_eq!(needed(&limits), 2 * (1000 + 2 * 256) + 1024);
        allow(&limits);
        let now = getrlimit(Resource::Nofile);
        let most = now.maximum.unwrap_or(u64::MAX);
        assert!(now.current.unwrap_or(u64::MAX) >= needed(&limits).min(most), "{now:?}");
    }
}
