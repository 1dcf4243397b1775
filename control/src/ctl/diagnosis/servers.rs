//! What is wrong with the control servers, one by one and among each other.

use std::collections::BTreeSet;

use proto::wire::operator::{About, Member};

use super::{DAY_MS, Findings, Level, Seen, name};

/// Clocks that differ by more are worth a word, in milliseconds.
const CLOCKS_DIFFER_MS: u64 = 1_000;
/// Log time may be a little ahead of the operator's clock, in milliseconds.
const LOG_TIME_AHEAD_MS: u64 = 10_000;
/// A server whose log lacks more entries is behind.
const LAG_MAX: u64 = 1_000;
/// Less room on a disk is worth a word, in percent.
const ROOM_WARN_PERCENT: u64 = 20;
/// With less room than this a disk is nearly full, in percent.
const ROOM_BAD_PERCENT: u64 = 10;
/// Callers turned away since the start that are no accident any more.
const REFUSED_MANY: u64 = 100;

pub(super) fn all(findings: &mut Findings, seen: &Seen) {
    let members = &seen.status.members;
    for member in members.iter().filter(|member| !member.answers) {
        let (who, problem) = (name(member), &member.problem);
        let todo = format!(
            "start postern-control on its host and read its log; when it is lost for good: posternctl cluster add and promote \
             another one, then cluster remove {who}"
        );
        findings.add(Level::Bad, "servers", format!("{who} does not answer: {problem}"), todo);
    }
    let said: Vec<(&str, &About)> =
        members.iter().filter_map(|member| Some((name(member), member.about.as_ref()?))).collect();
    versions(findings, &said);
    lag(findings, seen, members);
    undecided(findings, &said);
    findings.well("servers", format!("{} answer, have caught up, and run the same version", members.len()));
    clocks(findings, seen, &said);
    for (who, about) in &said {
        disk(findings, who, about);
        bodies(findings, seen, who, about);
        refused(findings, who, about);
    }
    findings.well("disks", format!("all have {ROOM_WARN_PERCENT} % free and more"));
    let kept: u64 = said.iter().filter_map(|(_, about)| about.bodies.as_ref()).map(|bodies| bodies.kept).sum();
    findings.well("bodies", format!("all {kept} copies that must be there are there, in two sites"));
    findings.well("callers", "few or none were turned away");
}

fn versions(findings: &mut Findings, said: &[(&str, &About)]) {
    let versions: BTreeSet<&str> = said.iter().map(|(_, about)| about.version.as_str()).collect();
    if versions.len() > 1 {
        let what = format!("they run versions {}", versions.into_iter().collect::<Vec<_>>().join(", "));
        findings.add(Level::Warn, "servers", what, "finish the update, one server after the other");
    }
}

fn lag(findings: &mut Findings, seen: &Seen, members: &[Member]) {
    let end = members.iter().filter_map(|member| member.about.as_ref()).map(|about| about.last_log_index).max();
    let end = end.unwrap_or_default().max(seen.status.last_log_index);
    for member in members {
        let Some(about) = &member.about else { continue };
        let lag = end.saturating_sub(about.applied_index);
        if lag > LAG_MAX {
            let what = format!("{} lacks {lag} of {end} entries", name(member));
            let todo = "wait while it is being filled; else look at its disk, its load and its line";
            findings.add(Level::Warn, "servers", what, todo);
        }
    }
}

/// Who answers in between has a clock between the operator's before and after; only what lies outside is certain.
fn clocks(findings: &mut Findings, seen: &Seen, said: &[(&str, &About)]) {
    let todo = "look at chrony or ntpd on both hosts: chronyc tracking";
    let times = || said.iter().map(|(_, about)| about.now_ms).filter(|now| *now > 0);
    let took = seen.ended.0.saturating_sub(seen.begun.0);
    for (who, about) in said.iter().filter(|(_, about)| about.now_ms > 0) {
        let behind = seen.begun.0.saturating_sub(about.now_ms);
        let ahead = about.now_ms.saturating_sub(seen.ended.0);
        for (by, word) in [(behind, "behind"), (ahead, "ahead of")] {
            if by > CLOCKS_DIFFER_MS {
                let what = format!("the clock of {who} is {by} ms {word} that of this host");
                findings.add(Level::Warn, "clocks", what, todo);
            }
        }
    }
    let apart = times().max().unwrap_or_default().saturating_sub(times().min().unwrap_or_default());
    if apart > CLOCKS_DIFFER_MS + took {
        findings.add(Level::Warn, "clocks", format!("the servers' clocks are up to {apart} ms apart"), todo);
    }
    log_time(findings, seen, said);
    findings.well("clocks", format!("all within {CLOCKS_DIFFER_MS} ms"));
}

/// Log time never goes back, so a jump of it is there to stay until wall clocks have come up with it.
fn log_time(findings: &mut Findings, seen: &Seen, said: &[(&str, &About)]) {
    let ahead = said.iter().map(|(_, about)| about.log_time_ms).max().unwrap_or_default().saturating_sub(seen.ended.0);
    if ahead > LOG_TIME_AHEAD_MS {
        let what = format!("log time is {} s ahead of this host's clock", ahead / 1_000);
        let todo = "the clocks of most servers were wrong: mail that waits for another try waits until then. Set the clocks right; \
                    when the time is too far, release what is urgent by hand, or restore a backup from before";
        findings.add(Level::Bad, "clocks", what, todo);
    }
}

/// States that differ without a majority for one of them.
fn undecided(findings: &mut Findings, said: &[(&str, &About)]) {
    if let Some(at) = said.iter().filter_map(|(_, about)| about.undecided_at).max() {
        let what = format!("at log index {at} the servers' states differed, and none had a majority");
        let todo = "change nothing; compare their disks and logs, and restore the cluster from a backup if policy or held mail \
                    is wrong";
        findings.add(Level::Bad, "servers", what, todo);
    }
}

fn disk(findings: &mut Findings, who: &str, about: &About) {
    let Some((free, all)) = about.disk_free_bytes.zip(about.disk_bytes).filter(|(_, all)| *all > 0) else {
        let todo = "look at its data folder with df, and at its log";
        return findings.add(Level::Warn, "disks", format!("{who} does not say how full its disk is"), todo);
    };
    let percent = free.saturating_mul(100) / all;
    let level = match percent {
        ..ROOM_BAD_PERCENT => Level::Bad,
        ROOM_BAD_PERCENT..ROOM_WARN_PERCENT => Level::Warn,
        ROOM_WARN_PERCENT.. => return,
    };
    let what = format!("{who} has {percent} % of its disk free ({} MB)", free / 1_000_000);
    findings.add(
        level,
        "disks",
        what,
        "make room, or enlarge the file system of its data folder: a full disk stops the server",
    );
}

fn bodies(findings: &mut Findings, seen: &Seen, who: &str, about: &About) {
    let Some(bodies) = &about.bodies else { return };
    if bodies.nowhere > 0 {
        let todo = "start all servers; when they are up: they are in no copy, and only a backup has them";
        findings.add(Level::Bad, "bodies", format!("{} bodies are on no server", bodies.nowhere), todo);
    }
    if bodies.lacking > bodies.nowhere {
        let todo =
            "start the servers that are down: it fetches them by itself within minutes; see its log for the reasons";
        let what = format!("{who} lacks {} bodies that it must keep", bodies.lacking - bodies.nowhere);
        findings.add(Level::Bad, "bodies", what, todo);
    }
    if bodies.one_site > 0 {
        let what = format!("{} bodies are in one site only", bodies.one_site);
        findings.add(Level::Bad, "bodies", what, "posternctl cluster add a server in another site");
    }
    let ago_ms =
        if bodies.round_at_ms == 0 { about.uptime_ms } else { seen.ended.0.saturating_sub(bodies.round_at_ms) };
    if ago_ms > 2 * DAY_MS {
        let todo = "see its log: a look at all bodies takes too long, or fails";
        findings.add(Level::Warn, "bodies", format!("{who} has not looked at its bodies for two days"), todo);
    }
}

fn refused(findings: &mut Findings, who: &str, about: &About) {
    let many: Vec<String> = about
        .refused
        .iter()
        .filter(|(_, count)| **count >= REFUSED_MANY)
        .map(|(reason, count)| format!("{count} times {reason}"))
        .collect();
    if !many.is_empty() {
        let mut many = many;
        many.sort();
        let todo = "its log says who: somebody has an old or a wrong certificate, or tries doors";
        findings.add(
            Level::Warn,
            "callers",
            format!("{who} has turned away {} since its start", many.join(", ")),
            todo,
        );
    }
}
