//! Whole control servers in this process, with batches of our choice, so that proposals go straight to the library.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, bail};
use control::{
    config::Config,
    ctl::{args, init},
    raft::{Batching, Group, Rules, Server},
    server,
};
use proto::mutation::Outcome;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::{Store, work::Work};
use crate::{cluster::operator::until, ports};

/// Names and sites of a cluster's servers, in order of their ids.
pub const NAMES: [(&str, &str); 3] = [("alpha", "north"), ("beta", "south"), ("gamma", "west")];

/// Control servers with a leader.
#[derive(Debug)]
pub struct Voters {
    groups: Vec<Group>,
    end: watch::Sender<bool>,
    running: Vec<JoinHandle<anyhow::Result<()>>>,
}

/// Makes certificates and settings for the first `count` servers, node `mx1` and operator `anna` on free ports of loopback.
///
/// # Errors
/// When there are no free ports or the folder is not empty.
pub fn init(folder: &Path, count: usize) -> anyhow::Result<()> {
    let reserved = (0..count).map(|_| ports::reserve(None)).collect::<anyhow::Result<Vec<_>>>()?;
    let server = |((name, site), port): (&(&str, &str), &ports::Reserved)| format!("{name}={site}@{}", port.address());
    let all = args::Init {
        dir: folder.to_owned(),
        server: NAMES.iter().zip(&reserved).map(server).collect(),
        node: vec!["mx1=north".into()],
        operator: vec!["anna".into()],
    };
    init::make(&all).map(drop).context("make certificates and settings")
}

impl Voters {
    /// Starts one to three servers and waits for a leader.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start(folder: &Path, count: usize, batching: Batching) -> anyhow::Result<Self> {
        init(folder, count)?;
        let (end, ending) = watch::channel(false);
        let mut voters = Self { groups: Vec::new(), end, running: Vec::new() };
        let mut members = BTreeMap::new();
        for (name, site) in NAMES.iter().take(count) {
            let config = Config::load(&folder.join("servers").join(name).join("control.yaml"))?;
            let (name, site) = ((*name).to_owned(), (*site).to_owned());
            members.insert(config.id, Server { name, site, address: config.advertise.clone() });
            let mut ending = ending.clone();
            let end = async move { drop(ending.wait_for(|ending| *ending).await) };
            let (tell, told) = oneshot::channel();
            let ready = |_, group: &Group| drop(tell.send(group.clone()));
            let rules = Rules { batching, ..Rules::default() };
            voters.running.push(tokio::spawn(server::run_with(config, rules, end, ready)));
            let Ok(group) = told.await else {
                let ended = voters.running.remove(voters.running.len() - 1).await.context("a control server")?;
                bail!("a control server ended before it was ready: {ended:?}");
            };
            voters.groups.push(group);
        }
        voters.groups.first().context("no server was asked for")?.form(members).await?;
        until("a leader is there", || async { voters.leader() }).await?;
        Ok(voters)
    }

    /// The group at the leader.
    #[must_use]
    pub fn leader(&self) -> Option<Group> {
        let leads = |group: &&Group| group.status().leader == Some(group.me().0) && group.in_touch();
        self.groups.iter().find(leads).cloned()
    }

    /// Stops all servers in order.
    ///
    /// # Errors
    /// When one had ended with an error.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.end.send_replace(true);
        for running in self.running {
            running.await.context("a control server")??;
        }
        Ok(())
    }
}

/// Proposals at one server.
#[derive(Clone, Debug)]
pub struct Proposals(pub Group);

impl Store for Proposals {
    async fn write(&self, _: usize, work: Work) -> anyhow::Result<()> {
        match self.0.propose(work.mutation()).await? {
            Outcome::Done => Ok(()),
            other @ (Outcome::PolicyApplied { .. } | Outcome::Leased(_) | Outcome::Refused(_)) => {
                bail!("the mutation was not committed: {other:?}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use control::raft::Batching;

    use super::{Proposals, Voters};
    use crate::commits::{Store as _, work::Work};

    /// Has eight clients make 200 holds, and gives the number of entries that it took.
    async fn entries_of_200_holds(batching: Batching) -> u64 {
        let folder = tempfile::tempdir().expect("a folder");
        let voters = Voters::start(folder.path(), 1, batching).await.expect("started");
        let group = voters.leader().expect("a leader");
        let before = group.status().last_log_index;
        let clients = (0..8).map(|client| {
            let proposals = Proposals(group.clone());
            tokio::spawn(async move {
                for _ in 0..25 {
                    proposals.write(client, Work::Hold).await.expect("committed");
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.expect("no panic");
        }
        assert_eq!(group.state().held_count(), 200);
        let entries = group.status().last_log_index - before;
        drop(group);
        voters.stop().await.expect("stopped");
        entries
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_write_that_was_counted_is_committed_and_one_an_entry_is_one_an_entry() {
        let batched = entries_of_200_holds(Batching::default()).await;
        let single = entries_of_200_holds(Batching { mutations_max: 1, ..Batching::default() }).await;
        assert!(batched < 200 && single >= 200, "{batched} entries for 200 mutations, and {single}");
    }
}
