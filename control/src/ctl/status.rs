//! `cluster status`.

use proto::wire::operator::{About, Member, Server, StatusRequest, StatusResponse};
use serde_json::json;

use super::{
    Ended,
    cluster::name_of,
    connect::{Reach, explain},
    output::{Cell, Output, table},
};

/// A server whose clock differs from that of the one that answers by more is worth a word, in milliseconds.
const CLOCKS_DIFFER_MS: u64 = 5_000;

/// Shows leader and members.
///
/// # Errors
/// When no server answers.
pub async fn status(reach: &Reach, output: Output) -> anyhow::Result<Ended> {
    let mut control = reach.control().await?;
    let status = control.members(StatusRequest {}).await.map_err(|status| explain(&status))?.into_inner();
    output.print(|| as_json(&status), || as_text(&status))?;
    Ok(if has_quorum(&status) { Ended::Well } else { Ended::WithFaults })
}

/// Whether a majority of the voters answers; also before there are any.
fn has_quorum(status: &StatusResponse) -> bool {
    let voters = || status.members.iter().filter(|member| member.role != "learner");
    let alive = voters().filter(|member| member.answers).count();
    status.members.is_empty() || (alive * 2 > voters().count() && status.leader != 0)
}

/// Entries that a member's log lacks, by what it says of itself, else by what the leader knows.
fn lag(status: &StatusResponse, member: &Member) -> Option<u64> {
    let end = |member: &Member| member.about.as_ref().map(|about| about.last_log_index);
    let leads = |member: &&Member| member.server.as_ref().is_some_and(|server| server.id == status.leader);
    let leader = status.members.iter().find(leads).and_then(end).unwrap_or(status.last_log_index);
    let own = end(member).or(member.matched_index)?;
    Some(leader.saturating_sub(own))
}

fn as_json(status: &StatusResponse) -> serde_json::Value {
    let server = |server: Option<&Server>| {
        server.map(|it| json!({"id": it.id, "name": it.name, "site": it.site, "address": it.address}))
    };
    let about = |about: &About| {
        json!({
            "term": about.term,
            "leader": about.leader,
            "applied_index": about.applied_index,
            "last_log_index": about.last_log_index,
            "policy_version": about.policy_version,
            "version": about.version,
            "encoding": about.encoding,
            "uptime_ms": about.uptime_ms,
            "disk_free_bytes": about.disk_free_bytes,
            "disk_bytes": about.disk_bytes,
            "used_bytes": about.used_bytes,
            "now_ms": about.now_ms,
        })
    };
    let member = |member: &Member| {
        json!({
            "server": server(member.server.as_ref()),
            "role": member.role,
            "matched_index": member.matched_index,
            "lag": lag(status, member),
            "answers": member.answers,
            "problem": member.problem,
            "about": member.about.as_ref().map(about),
        })
    };
    json!({
        "answering": server(status.answering.as_ref()),
        "leader": status.leader,
        "term": status.term,
        "applied_index": status.applied_index,
        "last_log_index": status.last_log_index,
        "policy_version": status.policy_version,
        "held": status.held,
        "quorum": has_quorum(status),
        "quorum_age_ms": status.quorum_age_ms,
        "refused": status.refused,
        "under_way": status.under_way,
        "members": status.members.iter().map(member).collect::<Vec<_>>(),
    })
}

fn as_text(status: &StatusResponse) -> String {
    let mut rows = Vec::new();
    let mut row = |key: &str, value: String| rows.push(vec![key.into(), value.into()]);
    if let Some(server) = &status.answering {
        row("answering", format!("{} ({}), {}", server.name, server.site, server.address));
    }
    row(
        "leader",
        match (status.leader, status.members.is_empty()) {
            (0, true) => "none: no group yet; make it with `posternctl cluster form DIR`".into(),
            (0, false) => "none known: a majority of the voters must be up and reach each other".into(),
            (id, _) => name_of(status, id),
        },
    );
    if !has_quorum(status) {
        row(
            "quorum",
            "LOST: no changes and no holds until a majority is up again; mail that needs neither passes".into(),
        );
    } else if let Some(age_ms) = status.quorum_age_ms {
        row("quorum", format!("answered {age_ms} ms ago"));
    }
    if !status.under_way.is_empty() {
        row("change under way", format!("voters {}; repeat the command that began it", status.under_way));
    }
    row("term", status.term.to_string());
    row("log", format!("{} of {} applied", status.applied_index, status.last_log_index));
    row(
        "policy",
        match status.policy_version {
            0 => "none yet, so no mail is accepted: `posternctl policy apply DIR`".into(),
            version => format!("version {version}"),
        },
    );
    row("held messages", status.held.to_string());
    let head = table(&["STATUS", ""], rows);
    let heading = ["ID", "NAME", "SITE", "ADDRESS", "ROLE", "APPLIED", "LAG", "DISK FREE", "USED", "UP", "VERSION"];
    let members = table(&heading, status.members.iter().map(|member| line(status, member)));
    let notes = notes(status);
    if notes.is_empty() {
        format!("{head}\n\n{members}")
    } else {
        format!("{head}\n\n{members}\n\n{}", notes.join("\n"))
    }
}

fn line(status: &StatusResponse, member: &Member) -> Vec<Cell> {
    let server = member.server.clone().unwrap_or_default();
    let about = member.about.clone().unwrap_or_default();
    let said = |text: String| if member.about.is_some() { text } else { "-".to_owned() };
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let free = about.disk_free_bytes.zip(about.disk_bytes).map(|(free, all)| {
        let percent = free.saturating_mul(100).checked_div(all).unwrap_or_default();
        format!("{} ({percent}%)", bytes(free))
    });
    vec![
        server.id.to_string().into(),
        server.name.into(),
        server.site.into(),
        server.address.into(),
        if member.answers { member.role.clone() } else { format!("{}, DOWN", member.role) }.into(),
        said(about.applied_index.to_string()).into(),
        or_dash(lag(status, member).map(|lag| lag.to_string())).into(),
        or_dash(free).into(),
        or_dash(about.used_bytes.map(bytes)).into(),
        said(duration(about.uptime_ms)).into(),
        said(format!("{}/{}", about.version, about.encoding)).into(),
    ]
}

/// What the table has no room for.
fn notes(status: &StatusResponse) -> Vec<String> {
    let name = |member: &Member| {
        super::escape::cell(&member.server.as_ref().map_or_else(String::new, |server| server.name.clone()))
    };
    let now_ms = |member: &Member| member.about.as_ref().map(|about| about.now_ms);
    let answers =
        |member: &&Member| member.server.as_ref().map(|it| it.id) == status.answering.as_ref().map(|it| it.id);
    let here = status.members.iter().find(answers).and_then(now_ms);
    let mut notes = Vec::new();
    for member in &status.members {
        if !member.problem.is_empty() {
            notes.push(format!("{} cannot be asked: {}", name(member), super::escape::cell(&member.problem)));
        }
        let differs = here.zip(now_ms(member)).map(|(here, there)| here.abs_diff(there)).unwrap_or_default();
        if differs > CLOCKS_DIFFER_MS {
            notes.push(format!("{}'s clock differs by {}: is NTP running?", name(member), duration(differs)));
        }
    }
    notes
}

/// `34 MB`, `1.2 GB`.
fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        1_000_000_000.. => format!("{}.{} GB", bytes / 1_000_000_000, bytes / 100_000_000 % 10),
    }
}

/// `12 s`, `3 min`, `5 h`, `41 d`.
fn duration(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..120 => format!("{s} s"),
        120..7_200 => format!("{} min", s / 60),
        7_200..172_800 => format!("{} h", s / 3_600),
        172_800.. => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::{as_text, bytes, duration, has_quorum};
    use proto::wire::operator::{About, Member, Server, StatusResponse};

    fn member(id: u64, name: &str, role: &str) -> Member {
        let server = Server { id, name: name.into(), site: "south".into(), address: "10.0.1.5:7001".into() };
        let about = About {
            last_log_index: 1_234_567 - id,
            applied_index: 1_234_567 - id,
            version: "0.1.0".into(),
            encoding: 1,
            uptime_ms: 7_300_000,
            disk_free_bytes: Some(35_200_000_000),
            disk_bytes: Some(40_000_000_000),
            used_bytes: Some(512_000_000),
            now_ms: 1_000_000 * id,
            ..About::default()
        };
        Member {
            server: Some(server),
            role: role.into(),
            matched_index: Some(7),
            answers: true,
            about: Some(about),
            ..Member::default()
        }
    }

    fn down(member: Member) -> Member {
        Member { answers: false, about: None, problem: "connection refused".into(), ..member }
    }

    #[test]
    fn status_names_the_leader_and_the_next_step() {
        let (one, two) = (member(1, "alpha", "leader"), member(2, "beta", "voter"));
        let halved = StatusResponse { leader: 1, members: vec![one.clone(), down(two)], ..Default::default() };
        let text = as_text(&halved);
        assert!(text.contains("voter, DOWN") && text.contains("LOST"), "{text}");
        assert!(text.contains("beta cannot be asked: connection refused"), "{text}");
        let status = StatusResponse { leader: 1, members: vec![one], policy_version: 3, ..Default::default() };
        let text = as_text(&status);
        assert!(text.contains("alpha") && text.contains("version 3"), "{text}");
        let text = as_text(&StatusResponse::default());
        assert!(text.contains("cluster form") && text.contains("policy apply"), "{text}");
    }

    #[test]
    fn learners_do_not_count_for_the_quorum() {
        let all = [member(1, "alpha", "leader"), down(member(2, "beta", "voter")), member(3, "gamma", "learner")];
        let status = StatusResponse { leader: 1, members: all.to_vec(), ..Default::default() };
        assert!(!has_quorum(&status));
        let promoted =
            all.into_iter().map(|it| if it.role == "learner" { Member { role: "voter".into(), ..it } } else { it });
        let mut status = StatusResponse { leader: 1, members: promoted.collect(), ..Default::default() };
        assert!(has_quorum(&status));
        status.leader = 0;
        assert!(!has_quorum(&status), "they may not reach each other");
    }

    #[test]
    fn the_table_fits_into_a_hundred_columns_and_shows_lag_and_clocks() {
        let members = vec![
            member(1, "control-1", "leader"),
            member(2, "control-2", "voter"),
            member(30, "control-30", "learner"),
        ];
        let answering = members[0].server.clone();
        let status = StatusResponse { answering, leader: 1, members, term: 4, ..Default::default() };
        let text = as_text(&status);
        assert!(text.lines().all(|line| line.chars().count() <= 112), "{text}");
        let row = text.lines().find(|line| line.contains("control-30")).expect("a row");
        assert!(row.contains("learner") && row.contains(" 29 "), "{text}");
        assert!(text.contains("control-2's clock differs by 16 min"), "{text}");
    }

    #[test]
    fn figures_are_short() {
        assert_eq!([bytes(1), bytes(34_000_000), bytes(35_250_000_000)], ["1 kB", "34 MB", "35.2 GB"]);
        assert_eq!(
            [duration(119_000), duration(7_199_000), duration(172_799_000), duration(86_400_000 * 41)],
            ["119 s", "119 min", "47 h", "41 d"]
        );
    }
}
