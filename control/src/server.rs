//! A control server from its configuration to its end: opens what it holds, answers, and leaves in order.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use proto::identity::keep_fresh;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::watch};

use crate::{
    bodies::{self, Bodies, Checked, copies::Copies, peers::Peers},
    config::Config,
    learning,
    raft::{self, Findings, Group, GroupConfig, Rules, Server, about::Vitals, stamp},
    repair::{self, Health},
    rpc::{self, Shared, gate::Guard, listener},
    telemetry::{self, Observed},
};

/// Time from one sweep of the body store to the next.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// How long handing leadership over may take before this server ends without it.
const HAND_OVER: Duration = Duration::from_millis(1_500);
/// How long requests may take to finish once the server is to end.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs a control server until `end` resolves. `ready` is told the address once requests are answered.
///
/// # Errors
/// When the port is taken, the start-up gate refuses, or the listener breaks; each says what to do.
pub async fn run(
    config: Config,
    end: impl Future<Output = ()> + Send,
    ready: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    run_with(config, Rules::default(), end, |address, _| ready(address)).await
}

/// The same under other rules; `ready` is told the group as well.
///
/// # Errors
/// As `run`.
pub async fn run_with(
    config: Config,
    rules: Rules,
    end: impl Future<Output = ()> + Send,
    ready: impl FnOnce(SocketAddr, &Group),
) -> anyhow::Result<()> {
    // Before anything is opened, so that a second start by mistake ends here.
    let port = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listen on {}: choose another address with the key listen", config.listen))?;
    let address = port.local_addr().context("read the listener's address")?;
    stamp::make_folder(&config.data)
        .with_context(|| format!("make the data folder {}: check the key data", config.data.display()))?;
    let bodies = Bodies::open(&config.data).context("open the body store")?;
    let group = Group::open(membership(&config, rules)).await.context("open the Raft group")?;

    let (stop, stopping) = watch::channel(false);
    let guard = Guard::new(config.credentials.clone());
    let rotating = keep_fresh(config.credentials.clone(), stopping.clone()).context("listen for SIGHUP")?;
    let shared = Shared {
        group: group.clone(),
        cluster: Arc::from(config.credentials.identity.cluster.as_str()),
        guard: guard.clone(),
        copies: Copies {
            me: server(&config).into(),
            bodies: bodies.clone(),
            peers: Peers::new(config.credentials.clone()),
        },
        stopping: stopping.clone(),
    };
    observe(&shared);
    let health = Health::default();
    let repairer = tokio::spawn(repair::run(shared.copies.clone(), group.clone(), health.clone(), stopping.clone()));
    let learner = tokio::spawn(learning::run(shared.copies.clone(), group.clone(), stopping.clone()));
    let (refusals, credentials) = (guard.refusals.clone(), config.credentials.clone());
    group.tell_vitals(move || Vitals {
        certificate_until: credentials.leaf().not_after,
        bodies: health.now(),
        refused: refusals.snapshot().into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect(),
    });
    let sweeper = tokio::spawn(sweep(bodies, group.clone(), stopping.clone()));
    let mut ending = stopping;
    let ended = async move { drop(ending.wait_for(|stopping| *stopping).await) };
    let answering = rpc::services(&shared).serve_with_incoming_shutdown(listener::incoming(port, &guard), ended);
    let mut answering = std::pin::pin!(answering);
    // Requests are answered meanwhile.
    let end = async {
        end.await;
        if tokio::time::timeout(HAND_OVER, group.step_aside()).await.is_err() {
            tracing::info!("leadership is not handed over in time");
        }
    };
    ready(address, &group);
    tracing::info!(name = config.name, site = config.site, %address, "answering");

    let answered = tokio::select! {
        broken = &mut answering => broken.context("answer gRPC"),
        why = group.left() => Err(anyhow::anyhow!("{why}").context("this server has left the Raft group")),
        () = end => {
            tracing::info!("ending");
            stop.send_replace(true);
            match tokio::time::timeout(DRAIN, answering).await {
                Ok(ended) => ended.context("answer gRPC"),
                Err(_) => {
                    tracing::warn!("some requests did not finish in time");
                    Ok(())
                }
            }
        }
    };
    stop.send_replace(true);
    let rotated = rotating.await.context("look at the credentials");
    let swept = sweeper.await.context("sweep the body store").and(repairer.await.context("repair bodies"));
    let swept = swept.and(learner.await.context("learn from lessons"));
    group.stop().await;
    tracing::info!("ended");
    answered.and(swept).and(rotated)
}

/// What the exported metrics are asked for.
fn observe(shared: &Shared) {
    // The meter keeps what it asks for as long as the process lives; the state must close with the server.
    let (group, refusals) = (shared.group.downgrade(), shared.guard.refusals.clone());
    telemetry::observe(move || {
        let refused = refusals.snapshot();
        let Some(group) = group.upgrade() else { return Observed { refused, ..Observed::default() } };
        let status = group.status();
        Observed {
            applied_index: status.applied_index,
            leads: status.leader == Some(group.me().0),
            held: group.state().held_count(),
            refused,
        }
    });
}

/// What `look` has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Log and state.
    pub raft: Findings,
    /// The bodies of messages. One that is damaged or missing is fetched from another server when it is asked for.
    pub bodies: Checked,
}

/// Opens what a stopped server holds, judges it as a start does, and reads everything. Nobody is answered.
///
/// # Errors
/// When the server would not start: the reason and what to do.
pub async fn look(config: &Config, rules: Rules) -> anyhow::Result<Look> {
    let raft = raft::look(&membership(config, rules)).await?;
    let folder = config.data.clone();
    let bodies = tokio::task::spawn_blocking(move || bodies::check(&folder)).await?;
    Ok(Look { raft, bodies: bodies.context("read the bodies")? })
}

fn server(config: &Config) -> Server {
    Server { name: config.name.clone(), site: config.site.clone(), address: config.advertise.clone() }
}

fn membership(config: &Config, rules: Rules) -> GroupConfig {
    GroupConfig {
        id: config.id,
        server: server(config),
        data_dir: config.data.clone(),
        credentials: config.credentials.clone(),
        rules,
    }
}

/// Deletes bodies that no record needs any more, at the start and then every ten minutes.
async fn sweep(bodies: Bodies, group: Group, mut stopping: watch::Receiver<bool>) {
    let mut turn = tokio::time::interval(SWEEP_EVERY);
    let once = async || {
        // A server that has been away must not judge by an old state: it might not know of a record yet.
        if let Err(problem) = group.linearize().await {
            return tracing::info!(%problem, "no sweep of the body store this time");
        }
        match bodies.sweep(Instant::now(), |digest| group.state().needs_body(digest)).await {
            Ok(0) => {}
            Ok(deleted) => tracing::info!(deleted, "bodies that no record needs are deleted"),
            Err(problem) => tracing::error!(%problem, "sweep the body store"),
        }
    };
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            _ = turn.tick() => {}
        }
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = once() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::identity::Role;

    use super::run;
    use crate::{config::Config, test_pki::Ca};

    #[tokio::test]
    async fn a_port_that_is_taken_is_told_with_the_way_out_before_anything_is_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = taken.local_addr().expect("an address");
        Ca::new().write(folder.path(), "c1", Role::Control, "control-1");
        let text = format!("id: 1\nname: control-1\nsite: north\ndata: data\nlisten: {port}\ncredentials: .\n");
        let config = Config::parse("c.yaml", &text, folder.path()).expect("a configuration");
        let error = run(config, std::future::pending(), |_| {}).await.expect_err("the port is taken");
        let told = format!("{error:#}");
        assert!(told.contains(&port.to_string()) && told.contains("key listen") && told.contains("in use"), "{told}");
        assert!(!folder.path().join("data").exists());
    }
}
