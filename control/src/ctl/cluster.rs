//! `cluster form`.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, bail};
use proto::{
    member,
    wire::operator::{FormRequest, Server, StatusRequest, StatusResponse},
    yaml,
};

use super::{
    Ended,
    connect::{Control, Reach, explain},
    output,
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

async fn status_of(control: &mut Control) -> anyhow::Result<StatusResponse> {
    Ok(control.status(StatusRequest {}).await.map_err(|status| explain(&status))?.into_inner())
}

pub(super) fn name_of(status: &StatusResponse, id: u64) -> String {
    let server = status.members.iter().filter_map(|member| member.server.as_ref()).find(|server| server.id == id);
    super::escape::cell(&server.map_or_else(|| id.to_string(), |server| server.name.clone()))
}

#[cfg(test)]
mod tests {
    use super::read_member;
    use proto::wire::operator::Server;

    #[test]
    fn a_member_is_read_out_of_control_yaml() {
        let text =
            "id: 2\nname: beta\nsite: south\ndata: data\nlisten: \"0.0.0.0:1\"\nadvertise: \"h:1\"\ncredentials: .\n";
        let expected = Server { id: 2, name: "beta".into(), site: "south".into(), address: "h:1".into() };
        assert_eq!(read_member("control.yaml", text).expect("a member"), expected);
        assert!(read_member("control.yaml", &text.replace("id: 2", "id: 0")).is_err());
    }
}
