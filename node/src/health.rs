//! For load balancers: should this node get connections now? `GET /health` over plain HTTP answers 200, or 503 with the reasons:
//! the node is draining, its view is stale, or it is blind: without the scanner or the name servers that policy cannot do without,
//! or unable to open attachments.
//! What somebody should look after without a reason to send mail elsewhere, such as old signatures, stands there as a warning.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use hickory_resolver::{TokioResolver, net::NetError, proto::rr::RecordType};
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use proto::{
    policy::{AuthUnavailable, Policy, VirusScan},
    view::View,
};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    checks::{opener::Openers, virus::VirusScanner},
    cluster::Cluster,
    learning::InUse,
};

/// Time from one look at the name servers to the next.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may take from its beginning to its end.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(5);

/// What a node needs besides its view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Senses {
    scanner: bool,
    name_servers: bool,
    openers: bool,
}

/// What counts.
#[derive(Clone, Copy, Debug)]
struct Facts {
    stopping: bool,
    drained: bool,
    policy: bool,
    stale: bool,
    scan_needed: bool,
    names_needed: bool,
    senses: Senses,
}

/// What a load balancer is told.
struct Judged {
    faults: Vec<&'static str>,
    warnings: Vec<String>,
}

/// Why no new connections should come.
fn faults(facts: Facts) -> Vec<&'static str> {
    let Facts { stopping, drained, policy, stale, scan_needed, names_needed, senses } = facts;
    let table = [
        (stopping, "the node is stopping"),
        (drained, "the node is drained: posternctl node undrain"),
        (!policy, "there is no policy yet"),
        (stale, "no control server has confirmed the policy for too long"),
        (scan_needed && !senses.scanner, "no clamd answers as it should"),
        (names_needed && !senses.name_servers, "no name server answers"),
        (!senses.openers, "no process that opens attachments can be started"),
    ];
    table.into_iter().filter_map(|(wrong, why)| wrong.then_some(why)).collect()
}

/// Whether any policy says so.
fn needed(view: &View, says: impl Fn(&Policy) -> bool) -> bool {
    says(&view.state_policy) || view.tenants().any(|tenant| says(&tenant.policy))
}

/// Whether a name server answers, whatever it says. The resolver is used for nothing else, so its cache may go.
async fn name_servers_answer(resolver: &TokioResolver) -> bool {
    resolver.clear_cache();
    matches!(resolver.lookup(".", RecordType::SOA).await, Ok(_) | Err(NetError::Dns(_)))
}

/// Looks at the name servers until nobody wants to know whether one answers.
async fn look(resolver: TokioResolver, seen: watch::Sender<bool>) {
    let mut turn = interval(LOOK_EVERY);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = turn.tick() => {}
            () = seen.closed() => return,
        }
        seen.send_replace(name_servers_answer(&resolver).await);
    }
}

/// Answers at `address` until the process ends: also while the node drains. Gives the address. `resolver` must be one of its own.
///
/// # Errors
/// When the port is taken.
pub async fn serve(
    address: SocketAddr,
    node: &str,
    cluster: &Cluster,
    (scanner, openers, learnt, resolver): (VirusScanner, Openers, watch::Receiver<InUse>, TokioResolver),
    stopping: watch::Receiver<bool>,
) -> anyhow::Result<SocketAddr> {
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("listen on {address} (health in the settings)"))?;
    let address = listener.local_addr().context("ask for the address of the health service")?;
    let (seen, name_servers) = watch::channel(true);
    tokio::spawn(look(resolver, seen));
    let (node, cluster) = (node.to_owned(), cluster.clone());
    let judge = move || {
        let view = Arc::clone(&cluster.view().borrow());
        let scan_needed = needed(&view, |policy| policy.virus_scan.value == VirusScan::Required);
        let faults = faults(Facts {
            stopping: *stopping.borrow(),
            drained: view.is_drained(&node),
            policy: view.policy_version > 0,
            stale: cluster.view_age() > Duration::from_millis(view.settings.view_age_max_ms),
            scan_needed,
            names_needed: needed(&view, |policy| policy.authentication_unavailable.value == AuthUnavailable::Defer),
            senses: Senses {
                scanner: scanner.is_alive(),
                name_servers: *name_servers.borrow(),
                openers: openers.can_start(),
            },
        });
        let mut warnings = if scan_needed { scanner.warnings() } else { Vec::new() };
        warnings.extend(view.rules.warning());
        warnings.extend(openers.warnings());
        warnings.extend(learnt.borrow().warning());
        Judged { faults, warnings }
    };
    tokio::spawn(answer(listener, judge));
    Ok(address)
}

async fn answer(listener: TcpListener, judge: impl Fn() -> Judged + Clone + Send + Sync + 'static) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((socket, _)) => {
                let judge = judge.clone();
                tokio::spawn(async move {
                    let _place = place;
                    // Who is late or breaks off asks again.
                    drop(timeout(CONNECTION_TIME_MAX, converse(socket, judge)).await);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept a load balancer's question; next try in 100 ms");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(socket: TcpStream, judge: impl Fn() -> Judged) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let response = match request.uri().path() {
            "/health" => health(&judge()),
            _ => said(StatusCode::NOT_FOUND, String::new()),
        };
        std::future::ready(Ok::<_, std::convert::Infallible>(response))
    });
    http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(socket), service).await
}

fn health(Judged { faults, warnings }: &Judged) -> Response<Full<Bytes>> {
    let code = if faults.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    said(code, json!({ "healthy": faults.is_empty(), "why": faults, "warnings": warnings }).to_string())
}

fn said(code: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = code;
    response
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream, UdpSocket},
    };

    use super::{Facts, Judged, Senses, answer, faults, name_servers_answer};
    use crate::checks::authentication::resolver;

    #[test]
    fn each_fault_alone_is_a_reason() {
        let senses = Senses { scanner: true, name_servers: true, openers: true };
        let well = Facts {
            stopping: false,
            drained: false,
            policy: true,
            stale: false,
            scan_needed: true,
            names_needed: true,
            senses,
        };
        assert_eq!(faults(well), Vec::<&str>::new());
        let blind = |scanner, name_servers| Senses { scanner, name_servers, openers: true };
        let table = [
            (Facts { stopping: true, ..well }, "stopping"),
            (Facts { drained: true, ..well }, "drained"),
            (Facts { policy: false, ..well }, "no policy"),
            (Facts { stale: true, ..well }, "confirmed"),
            (Facts { senses: blind(false, true), ..well }, "clamd"),
            (Facts { senses: blind(true, false), ..well }, "name server"),
            (Facts { senses: Senses { openers: false, ..senses }, ..well }, "attachments"),
        ];
        for (facts, why) in table {
            let told = faults(facts);
            assert!(told.len() == 1 && told[0].contains(why), "{why}: {told:?}");
        }
        let unneeded = Facts { scan_needed: false, names_needed: false, senses: blind(false, false), ..well };
        assert_eq!(faults(unneeded), Vec::<&str>::new(), "nobody misses what no policy needs");
    }

    #[tokio::test]
    async fn a_name_server_that_says_no_answers_and_a_silent_one_does_not() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let unanswered = resolver(&[silent.local_addr().expect("an address")]).expect("a resolver");
        assert!(!name_servers_answer(&unanswered).await);
        let refusing = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = refusing.local_addr().expect("an address");
        tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((length, from)) = refusing.recv_from(&mut question).await {
                // An answer, REFUSED (RFC 1035 section 4.1.1).
                (question[2], question[3]) = (0x80 | question[2], 5);
                refusing.send_to(&question[..length], from).await.expect("sent");
            }
        });
        let refused = resolver(&[address]).expect("a resolver");
        assert!(name_servers_answer(&refused).await);
    }

    #[tokio::test]
    async fn a_balancer_is_told_over_http() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let drained = Arc::new(AtomicBool::new(false));
        let state = Arc::clone(&drained);
        let judge = move || Judged {
            faults: if state.load(Ordering::SeqCst) { vec!["drained"] } else { Vec::new() },
            warnings: vec!["old signatures".to_owned()],
        };
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
        assert!(told.contains(r#""warnings":["old signatures"]"#), "a warning sends no mail elsewhere: {told}");
        drained.store(true, Ordering::SeqCst);
        let told = ask("/health").await;
        assert!(told.starts_with("HTTP/1.1 503") && told.contains(r#""why":["drained"]"#), "{told}");
        assert!(ask("/").await.starts_with("HTTP/1.1 404"));
    }
}
