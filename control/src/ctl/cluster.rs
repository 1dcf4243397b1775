//! `cluster form` and `cluster status`.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, bail};
use proto::{
    member,
    wire::operator::{FormRequest, Member, Server, StatusRequest, StatusResponse},
    yaml,
};
use serde_json::json;

use super::{
    Ended,
    connect::{Control, Reach, explain},
    output::{self, Output, table},
};

/// How long the first election may take before `form` stops waiting for it.
const FIRST_LEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// Makes the Raft group out of the servers of a folder that `cluster init` made, and waits for its first leader.
///
/// # Errors
/// When the folder is none, a server does not answer, or there is a group already.
pub async fn form(reach: &Reach, dir: &Path) -> anyhow::Result<Ended> {
    let servers = servers_of(dir)?;
    let names: Vec<String> = servers.iter().map(|server| format!("{} ({})", server.name, server.site)).collect();
    let mut control = reach.control().await?;
    control.form(FormRequest { servers }).await.map_err(|status| explain(&status)).context("form the cluster")?;
    let leader = tokio::time::timeout(FIRST_LEADER_TIMEOUT, first_leader(&mut control))
        .await
        .context("the group is formed, but has no leader yet: do all servers run and reach each other?")??;
    output::line(&format!("The cluster is formed of {}; {leader} leads.", names.join(", ")))?;
    Ok(Ended::Well)
}

async fn first_leader(control: &mut Control) -> anyhow::Result<String> {
    loop {
        let status = status_of(control).await?;
        if status.leader != 0 {
            return Ok(name_of(&status, status.leader));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Reads `servers/*/control.yaml`. Other keys than those of a member are the server's own business.
fn servers_of(dir: &Path) -> anyhow::Result<Vec<Server>> {
    let folder = dir.join("servers");
    let entries = fs::read_dir(&folder).with_context(|| {
        format!("look into {}: `cluster form` wants the folder that `cluster init` made", folder.display())
    })?;
    let mut servers = Vec::new();
    for entry in entries {
        let path = entry?.path().join("control.yaml");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        servers.push(read_member(&path.display().to_string(), &text)?);
    }
    if servers.is_empty() {
        bail!("{} holds no server", folder.display());
    }
    servers.sort_by_key(|server| server.id);
    Ok(servers)
}

fn read_member(file: &str, text: &str) -> Result<Server, yaml::Faults> {
    yaml::read(file, text, |map| {
        for known in ["data", "listen", "credentials"] {
            map.optional(known, |_| Ok(()));
        }
        Server {
            id: map.required("id", |node| node.integer(1..=u64::MAX)).unwrap_or_default(),
            name: map.required("name", |node| node.parsed(member::name)).unwrap_or_default(),
            site: map.required("site", |node| node.parsed(member::name)).unwrap_or_default(),
            address: map.required("advertise", |node| node.parsed(member::address)).unwrap_or_default(),
        }
    })
}

/// Shows leader and members.
///
/// # Errors
/// When no server answers.
pub async fn status(reach: &Reach, output: Output) -> anyhow::Result<Ended> {
    let status = status_of(&mut reach.control().await?).await?;
    output.print(|| as_json(&status), || as_text(&status))?;
    Ok(if has_quorum(&status) { Ended::Well } else { Ended::WithFaults })
}

async fn status_of(control: &mut Control) -> anyhow::Result<StatusResponse> {
    Ok(control.status(StatusRequest {}).await.map_err(|status| explain(&status))?.into_inner())
}

/// Whether a majority of the members answers; also before there are any.
fn has_quorum(status: &StatusResponse) -> bool {
    let alive = status.members.iter().filter(|member| member.answers).count();
    status.members.is_empty() || alive * 2 > status.members.len()
}

fn name_of(status: &StatusResponse, id: u64) -> String {
    let server = status.members.iter().filter_map(|member| member.server.as_ref()).find(|server| server.id == id);
    super::escape::cell(&server.map_or_else(|| id.to_string(), |server| server.name.clone()))
}

fn as_json(status: &StatusResponse) -> serde_json::Value {
    let server = |server: Option<&Server>| {
        server.map(|it| json!({"id": it.id, "name": it.name, "site": it.site, "address": it.address}))
    };
    let member = |member: &Member| {
        json!({
            "server": server(member.server.as_ref()),
            "role": member.role,
            "matched_index": member.matched_index,
            "answers": member.answers,
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
        "members": status.members.iter().map(member).collect::<Vec<_>>(),
        "refused": status.refused,
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
            (0, false) => "none known: a majority of the members must be up and reach each other".into(),
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
    let members = status.members.iter().map(|member| {
        let server = member.server.clone().unwrap_or_default();
        let matched = member.matched_index.map_or_else(|| "-".to_owned(), |index| index.to_string());
        vec![
            server.id.to_string().into(),
            server.name.into(),
            server.site.into(),
            server.address.into(),
            if member.answers { (&member.role).into() } else { "down".into() },
            matched.into(),
        ]
    });
    let head = table(&["STATUS", ""], rows);
    let members = table(&["ID", "NAME", "SITE", "ADDRESS", "ROLE", "LOG UP TO"], members);
    format!("{head}\n\n{members}")
}

#[cfg(test)]
mod tests {
    use super::{as_text, read_member};
    use proto::wire::operator::{Member, Server, StatusResponse};

    #[test]
    fn a_member_is_read_out_of_control_yaml() {
        let text =
            "id: 2\nname: beta\nsite: south\ndata: data\nlisten: \"0.0.0.0:1\"\nadvertise: \"h:1\"\ncredentials: .\n";
        let expected = Server { id: 2, name: "beta".into(), site: "south".into(), address: "h:1".into() };
        assert_eq!(read_member("control.yaml", text).expect("a member"), expected);
        assert!(read_member("control.yaml", &text.replace("id: 2", "id: 0")).is_err());
    }

    #[test]
    fn status_names_the_leader_and_the_next_step() {
        let server = Server { id: 2, name: "beta".into(), site: "south".into(), address: "h:1".into() };
        let member = Member { server: Some(server), role: "voter".into(), matched_index: Some(7), answers: true };
        let dead = Member { answers: false, ..member.clone() };
        let halved = StatusResponse { leader: 2, members: vec![member.clone(), dead], ..Default::default() };
        let text = as_text(&halved);
        assert!(text.contains("down") && text.contains("LOST"), "{text}");
        let status = StatusResponse { leader: 2, members: vec![member], policy_version: 3, ..Default::default() };
        let text = as_text(&status);
        assert!(text.contains("beta") && text.contains("version 3"), "{text}");
        let text = as_text(&StatusResponse::default());
        assert!(text.contains("cluster form") && text.contains("policy apply"), "{text}");
    }
}
