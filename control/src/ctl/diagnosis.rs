//! What is wrong with a cluster, judged from what its members say: pure.

mod servers;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt};

use proto::{
    time::UnixMs,
    wire::operator::{Member, NodeListResponse, StatusResponse},
};

const DAY_MS: u64 = 24 * 3600 * 1000;
/// A certificate that ends sooner needs a new one soon.
const WARN_DAYS: u64 = 30;
/// A certificate that ends sooner needs a new one now.
const BAD_DAYS: u64 = 7;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but not for long, or with less safety than it should have.
    Warn,
    /// Mail is or may be held up or lost.
    Bad,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "BAD",
        })
    }
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// The subject, in a word or two.
    pub about: &'static str,
    /// What is.
    pub what: String,
    /// What to do; empty when nothing.
    pub todo: String,
}

/// What was gathered.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What the members say.
    pub status: StatusResponse,
    /// The nodes, or why they cannot be listed.
    pub nodes: Result<NodeListResponse, String>,
    /// The operator's clock before the members were asked.
    pub begun: UnixMs,
    /// The operator's clock when all had answered.
    pub ended: UnixMs,
    /// Whose certificate the operator has, and its last second.
    pub own: (String, UnixMs),
    /// The last second of each CA that the operator trusts.
    pub cas: Vec<UnixMs>,
}

/// Collects findings; what has none gets one that says so.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, level: Level, about: &'static str, what: impl Into<String>, todo: impl Into<String>) {
        self.0.push(Finding { level, about, what: what.into(), todo: todo.into() });
    }

    /// Says that all is well with a subject unless something was found.
    fn well(&mut self, about: &'static str, what: impl Into<String>) {
        if !self.0.iter().any(|finding| finding.about == about) {
            self.add(Level::Ok, about, what, "");
        }
    }
}

/// All findings, at least one for each subject.
#[must_use]
pub fn diagnose(seen: &Seen) -> Vec<Finding> {
    let mut findings = Findings::default();
    group(&mut findings, &seen.status);
    servers::all(&mut findings, seen);
    certificates(&mut findings, seen);
    nodes(&mut findings, seen);
    findings.0
}

fn name(member: &Member) -> &str {
    member.server.as_ref().map_or("?", |server| server.name.as_str())
}

fn group(findings: &mut Findings, status: &StatusResponse) {
    const ABOUT: &str = "group";
    if status.members.is_empty() {
        findings.add(Level::Bad, ABOUT, "there is no group yet", "posternctl cluster form DIR");
        return;
    }
    let voters: Vec<&Member> = status.members.iter().filter(|member| member.role != "learner").collect();
    let up = voters.iter().filter(|member| member.answers).count();
    if up * 2 <= voters.len() {
        let what = format!("{up} of {} voters answer: no quorum, so no changes and no holds", voters.len());
        findings.add(Level::Bad, ABOUT, what, "start the servers that are down, and see that they reach each other");
    } else if status.leader == 0 {
        let todo = "wait a few seconds and ask again; then look whether the servers reach each other on their ports";
        findings.add(Level::Bad, ABOUT, "nobody leads", todo);
    }
    let sites: BTreeSet<&str> =
        voters.iter().filter_map(|member| member.server.as_ref()).map(|server| server.site.as_str()).collect();
    if sites.len() < 2 {
        let todo = "posternctl cluster add a server in another site, promote it, and remove one of this site";
        findings.add(Level::Bad, ABOUT, "all voters stand in one site: no message can be held in two", todo);
    }
    if voters.len() == 1 || voters.len().is_multiple_of(2) {
        let what = format!("{} voters survive the loss of {}", voters.len(), voters.len().saturating_sub(1) / 2);
        findings.add(Level::Warn, ABOUT, what, "posternctl cluster add and promote one more, or remove one");
    }
    for learner in status.members.iter().filter(|member| member.role == "learner") {
        let todo = format!("posternctl cluster promote {} --wait --why …", name(learner));
        findings.add(Level::Warn, ABOUT, format!("{} has no vote", name(learner)), todo);
    }
    if !status.under_way.is_empty() {
        let what = format!("a change of the membership is under way: {}", status.under_way);
        findings.add(Level::Warn, ABOUT, what, "repeat the command that began it");
    }
    if status.policy_version == 0 {
        let todo = "posternctl policy apply DIR --why …, or posternctl restore FILE --why …";
        findings.add(Level::Warn, ABOUT, "no policy is in force, so no mail is accepted", todo);
    }
    findings.well(ABOUT, format!("{} voters in {} sites, all answer to one leader", voters.len(), sites.len()));
}

/// Judges one certificate by its last second.
fn certificate(findings: &mut Findings, now: UnixMs, whose: &str, until: UnixMs, todo: &str) {
    const ABOUT: &str = "certificates";
    let days = until.0.saturating_sub(now.0) / DAY_MS;
    let (level, what) = if until <= now {
        (Level::Bad, format!("{whose} has expired on {until}"))
    } else if days < BAD_DAYS {
        (Level::Bad, format!("{whose} ends on {until}, in {days} days"))
    } else if days < WARN_DAYS {
        (Level::Warn, format!("{whose} ends on {until}, in {days} days"))
    } else {
        return;
    };
    findings.add(level, ABOUT, what, todo);
}

fn certificates(findings: &mut Findings, seen: &Seen) {
    let now = seen.ended;
    let renew = "posternctl cluster issue --ca CA_FOLDER --renew FOLDER; it is taken without a restart";
    certificate(findings, now, &format!("your own certificate ({})", seen.own.0), seen.own.1, renew);
    for until in &seen.cas {
        let todo = "posternctl cluster new-ca, and follow its steps; long before that day";
        certificate(findings, now, "a CA in your ca.pem", *until, todo);
    }
    let mut count = 1 + seen.cas.len();
    for member in &seen.status.members {
        let until = member.about.as_ref().map_or(0, |about| about.certificate_until_ms);
        if until > 0 {
            count += 1;
            certificate(findings, now, &format!("the certificate of server {}", name(member)), UnixMs(until), renew);
        }
    }
    for node in seen.nodes.iter().flat_map(|listed| &listed.nodes) {
        let until = node.watching.iter().map(|watching| watching.certificate_until_ms).filter(|until| *until > 0).min();
        if let Some(until) = until {
            count += 1;
            certificate(findings, now, &format!("the certificate of node {}", node.name), UnixMs(until), renew);
        }
    }
    findings.well("certificates", format!("{count} are valid for {WARN_DAYS} days and more"));
}

fn nodes(findings: &mut Findings, seen: &Seen) {
    const ABOUT: &str = "nodes";
    let listed = match &seen.nodes {
        Ok(listed) => listed,
        Err(problem) => return findings.add(Level::Warn, ABOUT, format!("they cannot be listed: {problem}"), ""),
    };
    let watching = listed.nodes.iter().filter(|node| !node.watching.is_empty()).count();
    if watching == 0 {
        let todo = "start postern-node where mail is to come in, and look at its log";
        findings.add(Level::Bad, ABOUT, "no node is connected: no mail is taken", todo);
    }
    for node in listed.nodes.iter().filter(|node| node.drained) {
        let todo = format!("posternctl node undrain {} --why …, when the work on it is done", node.name);
        findings.add(Level::Warn, ABOUT, format!("{} is drained and takes no mail", node.name), todo);
    }
    let versions: BTreeSet<&str> =
        listed.nodes.iter().map(|node| node.version.as_str()).filter(|version| !version.is_empty()).collect();
    if versions.len() > 1 {
        let what = format!("they run versions {}", versions.into_iter().collect::<Vec<_>>().join(", "));
        findings.add(Level::Warn, ABOUT, what, "finish the update");
    }
    findings.well(ABOUT, format!("{watching} are connected"));
}
