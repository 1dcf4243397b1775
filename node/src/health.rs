//! For load balancers: should this node get connections now? `GET /health` over plain HTTP answers 200, or 503 with the reasons.
//! It says no before mail would be answered with 451: when the node is draining, when its view is stale, and when it is blind,
//! without the scanner or the name servers that policy needs.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{Json, Router, http::StatusCode, routing::get};
use hickory_resolver::{TokioResolver, net::NetError};
use proto::{policy::VirusScan, view::View};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use ulid::Ulid;

use crate::{checks::virus::VirusScanner, cluster::Cluster};

/// Time from one look at scanner and name servers to the next.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a node needs besides its view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Senses {
    scanner: bool,
    name_servers: bool,
}

/// What counts.
#[derive(Clone, Copy, Debug)]
struct Facts {
    stopping: bool,
    drained: bool,
    policy: bool,
    stale: bool,
    scan_needed: bool,
    senses: Senses,
}

/// Why no new connections should come.
fn faults(facts: Facts) -> Vec<&'static str> {
    let Facts { stopping, drained, policy, stale, scan_needed, senses } = facts;
    let table = [
        (stopping, "the node is stopping"),
        (drained, "the node is drained: posternctl node undrain"),
        (!policy, "there is no policy yet"),
        (stale, "no control server has confirmed the policy for too long"),
        (scan_needed && !senses.scanner, "clamd does not answer"),
        (!senses.name_servers, "no name server answers"),
    ];
    table.into_iter().filter_map(|(wrong, why)| wrong.then_some(why)).collect()
}

fn scan_needed(view: &View) -> bool {
    let required = |scan: VirusScan| scan == VirusScan::Required;
    required(view.state_policy.virus_scan.value)
        || view.tenants().any(|tenant| required(tenant.policy.virus_scan.value))
}

/// Whether a name server answers; that there is no such name is an answer. Each question is a new one, so that no cache has it.
async fn name_servers_answer(resolver: &TokioResolver) -> bool {
    let name = format!("{}.invalid.", Ulid::new().to_string().to_ascii_lowercase());
    match resolver.ipv4_lookup(name).await {
        Ok(_) => true,
        Err(error) => is_an_answer(&error),
    }
}

fn is_an_answer(error: &NetError) -> bool {
    error.is_no_records_found() || error.is_nx_domain()
}

/// Looks at scanner and name servers until nobody wants to know.
async fn look(scanner: VirusScanner, resolver: TokioResolver, seen: watch::Sender<Senses>) {
    let mut turn = interval(LOOK_EVERY);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = turn.tick() => {}
            () = seen.closed() => return,
        }
        let (scanner, name_servers) = tokio::join!(scanner.is_alive(), name_servers_answer(&resolver));
        seen.send_if_modified(|senses| {
            let now = Senses { scanner, name_servers };
            let moved = *senses != now;
            *senses = now;
            moved
        });
    }
}

/// Answers at `address` until the process ends: also while the node drains. Gives the address.
///
/// # Errors
/// When the port is taken.
pub async fn serve(
    address: SocketAddr,
    node: &str,
    cluster: &Cluster,
    (scanner, resolver): (VirusScanner, TokioResolver),
    stopping: watch::Receiver<bool>,
) -> anyhow::Result<SocketAddr> {
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("listen on {address} (health in the settings)"))?;
    let address = listener.local_addr().context("ask for the address of the health service")?;
    let (seen, senses) = watch::channel(Senses { scanner: true, name_servers: true });
    tokio::spawn(look(scanner, resolver, seen));
    let (node, cluster) = (node.to_owned(), cluster.clone());
    let judge = move || {
        let view = Arc::clone(&cluster.view().borrow());
        faults(Facts {
            stopping: *stopping.borrow(),
            drained: view.is_drained(&node),
            policy: view.policy_version > 0,
            stale: cluster.view_age() > Duration::from_millis(view.settings.view_age_max_ms),
            scan_needed: scan_needed(&view),
            senses: *senses.borrow(),
        })
    };
    tokio::spawn(answer(listener, judge));
    Ok(address)
}

async fn answer(listener: TcpListener, judge: impl Fn() -> Vec<&'static str> + Clone + Send + Sync + 'static) {
    let health = move || std::future::ready(answered(&judge()));
    if let Err(error) = axum::serve(listener, Router::new().route("/health", get(health))).await {
        tracing::error!(%error, "answer load balancers");
    }
}

fn answered(faults: &[&str]) -> (StatusCode, Json<Value>) {
    let code = if faults.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "healthy": faults.is_empty(), "why": faults })))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::{Facts, Senses, answer, faults};

    #[test]
    fn each_fault_alone_is_a_reason() {
        let senses = Senses { scanner: true, name_servers: true };
        let well = Facts { stopping: false, drained: false, policy: true, stale: false, scan_needed: true, senses };
        assert_eq!(faults(well), Vec::<&str>::new());
        let blind = |scanner, name_servers| Senses { scanner, name_servers };
        let table = [
            (Facts { stopping: true, ..well }, "stopping"),
            (Facts { drained: true, ..well }, "drained"),
            (Facts { policy: false, ..well }, "no policy"),
            (Facts { stale: true, ..well }, "confirmed"),
            (Facts { senses: blind(false, true), ..well }, "clamd"),
            (Facts { senses: blind(true, false), ..well }, "name server"),
        ];
        for (facts, why) in table {
            let told = faults(facts);
            assert!(told.len() == 1 && told[0].contains(why), "{why}: {told:?}");
        }
        let unneeded = Facts { scan_needed: false, senses: blind(false, true), ..well };
        assert_eq!(faults(unneeded), Vec::<&str>::new(), "where nothing is scanned nobody misses the scanner");
    }

    #[tokio::test]
    async fn a_balancer_is_told_over_http() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let drained = Arc::new(AtomicBool::new(false));
        let state = Arc::clone(&drained);
        let judge = move || if state.load(Ordering::SeqCst) { vec!["drained"] } else { Vec::new() };
        tokio::spawn(answer(listener, judge));
        let ask = async |path: &str| {
            let mut socket = TcpStream::connect(address).await.expect("connected");
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            socket.write_all(request.as_bytes()).await.expect("sent");
            let mut told = String::new();
            socket.read_to_string(&mut told).await.expect("an answer");
            told
        };
        let told = ask("/health").await;
        assert!(told.starts_with("HTTP/1.1 200") && told.contains(r#""healthy":true"#), "{told}");
        drained.store(true, Ordering::SeqCst);
        let told = ask("/health").await;
        assert!(told.starts_with("HTTP/1.1 503") && told.contains(r#""why":["drained"]"#), "{told}");
        assert!(ask("/").await.starts_with("HTTP/1.1 404"));
    }
}
