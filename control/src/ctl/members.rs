//! `cluster add`, `promote`, `remove` and `transfer-leader`.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use proto::wire::operator::{MemberAddRequest, MemberChanged, MemberRequest, Server};
use tonic::{Response, Status};

use super::{
    Ended,
    args::{Add, Promote, Remove, TransferLeader},
    connect::{Reach, explain},
    escape, output, settings,
};

/// How long `promote --wait` waits for a server to be filled.
const FILLED_WITHIN: Duration = Duration::from_secs(3_600);
/// Between two tries while it is being filled.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Takes in a new server.
///
/// # Errors
/// When the argument is wrong or no server answers.
pub async fn add(reach: &Reach, add: &Add) -> anyhow::Result<Ended> {
    let server = new_server(add.id, &add.member)?;
    let name = server.name.clone();
    let request = MemberAddRequest { server: Some(server), why: add.why.clone(), ticket: add.ticket.clone() };
    let changed = answer(reach.control().await?.member_add(request).await).with_context(|| format!("add {name}"))?;
    let ended = told(&changed)?;
    if ended == Ended::Well {
        output::line(&format!("Next: posternctl cluster promote {name} --wait --why …"))?;
    }
    Ok(ended)
}

/// `delta=west@10.0.3.6:7001`.
fn new_server(id: u64, text: &str) -> anyhow::Result<Server> {
    let wanted = "NAME=SITE@HOST:PORT is expected, such as delta=west@10.0.3.6:7001";
    let (name, rest) = text.split_once('=').context(wanted)?;
    let (site, address) = rest.split_once('@').context(wanted)?;
    Ok(Server { id, name: settings::name(name)?, site: settings::name(site)?, address: settings::address(address)? })
}

/// Gives a learner its vote, at once or as soon as it has caught up.
///
/// # Errors
/// When no server answers, or it does not catch up within an hour.
pub async fn promote(reach: &Reach, promote: Promote) -> anyhow::Result<Ended> {
    let Promote { name, wait, why, ticket } = promote;
    let request = MemberRequest { name: settings::name(&name)?, why, ticket, force: false };
    let mut control = reach.control().await?;
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos} of {len} entries, {msg}")?);
    let begun = Instant::now();
    let mut most = 0;
    loop {
        let changed =
            answer(control.member_promote(request.clone()).await).with_context(|| format!("promote {name}"))?;
        let Some(lag) = changed.lag.filter(|_| wait && !changed.done) else {
            bar.finish_and_clear();
            return told(&changed);
        };
        if begun.elapsed() > FILLED_WITHIN {
            bail!("{} After an hour: see its log for what holds it up", escape::lines(&changed.refused));
        }
        most = most.max(lag);
        bar.set_length(most);
        bar.set_position(most - lag);
        bar.set_message(format!("{lag} to come"));
        tokio::time::sleep(ASK_AGAIN_AFTER).await;
    }
}

/// Removes a server for good.
///
/// # Errors
/// When no server answers.
pub async fn remove(reach: &Reach, remove: Remove) -> anyhow::Result<Ended> {
    let Remove { name, why, ticket, force } = remove;
    let request = MemberRequest { name: settings::name(&name)?, why, ticket, force };
    let changed = answer(reach.control().await?.member_remove(request).await);
    told(&changed.with_context(|| format!("remove {name}"))?)
}

/// Has another server lead.
///
/// # Errors
/// When no server answers.
pub async fn transfer(reach: &Reach, transfer: TransferLeader) -> anyhow::Result<Ended> {
    let TransferLeader { name, why, ticket } = transfer;
    if !name.is_empty() {
        settings::name(&name)?;
    }
    let request = MemberRequest { name, why, ticket, force: false };
    told(&answer(reach.control().await?.transfer_leader(request).await).context("hand leadership over")?)
}

fn answer(answer: Result<Response<MemberChanged>, Status>) -> anyhow::Result<MemberChanged> {
    // Its trace in the audit log is written first and says nothing of how it went on.
    let answer = answer.map_err(|status| {
        explain(&status).context(
            "see `posternctl cluster status` for what has come of it, and repeat the command: that is harmless",
        )
    });
    Ok(answer?.into_inner())
}

/// Prints what came of it.
fn told(changed: &MemberChanged) -> anyhow::Result<Ended> {
    if !changed.done {
        output::note(&format!("posternctl: refused: {}", changed.refused));
        return Ok(Ended::WithFaults);
    }
    for note in &changed.notes {
        output::line(&escape::lines(note))?;
    }
    Ok(Ended::Well)
}

#[cfg(test)]
mod tests {
    use super::new_server;

    #[test]
    fn a_new_server_is_read_like_those_of_cluster_init() {
        let server = new_server(4, "delta=west@10.0.3.6:7001").expect("a server");
        assert_eq!((server.id, server.name.as_str(), server.site.as_str()), (4, "delta", "west"));
        assert_eq!(server.address, "10.0.3.6:7001");
        for bad in ["delta", "delta=west", "delta@h:1", "delta=west@h", "=west@h:1", "delta=@h:1"] {
            assert!(new_server(4, bad).is_err(), "{bad}");
        }
    }
}
