//! The test DNS: authoritative for the top-level domains `example`, `test` and `arpa`, over UDP and TCP. What is not in its
//! records gets NXDOMAIN below these three and REFUSED elsewhere. Each question is reported.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use hickory_server::{
    Server,
    net::runtime::Time,
    proto::rr::{
        LowerName, Name, RData, Record as Resource,
        rdata::{A, AAAA, MX, PTR, SOA, TXT},
    },
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    store::in_memory::InMemoryZoneHandler,
    zone_handler::{AxfrPolicy, Catalog, ZoneHandler, ZoneType},
};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UdpSocket};

/// One record of the test world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Owner, without the trailing dot.
    pub name: String,
    /// `A`, `AAAA`, `MX` (`10 host`), `TXT` or `PTR`.
    pub kind: String,
    /// In the presentation form of its type, without quotes.
    pub value: String,
}

/// A question that came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// In lower case, without the trailing dot.
    pub name: String,
    /// `MX` and the like.
    pub kind: String,
}

const ZONES: [&str; 3] = ["example.", "test.", "arpa."];
const TTL_S: u32 = 60;

fn name(text: &str) -> anyhow::Result<Name> {
    Name::from_ascii(format!("{}.", text.trim_end_matches('.'))).with_context(|| format!("{text:?} is no DNS name"))
}

fn data(record: &Record) -> anyhow::Result<RData> {
    let address = || record.value.parse::<IpAddr>().with_context(|| format!("{:?} is no address", record.value));
    Ok(match record.kind.as_str() {
        "A" | "AAAA" => match address()? {
            IpAddr::V4(v4) => RData::A(A(v4)),
            IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
        },
        "MX" => {
            let (preference, host) = record.value.split_once(' ').context("an MX value is PREFERENCE HOST")?;
            RData::MX(MX::new(preference.parse().context("an MX preference is a number")?, name(host)?))
        }
        // A character-string holds 255 octets at most (RFC 1035 section 3.3).
        "TXT" => {
            let parts = record.value.as_bytes().chunks(255);
            RData::TXT(TXT::new(parts.map(|part| String::from_utf8_lossy(part).into_owned()).collect()))
        }
        "PTR" => RData::PTR(PTR(name(&record.value)?)),
        other => bail!("records of type {other:?} are not served"),
    })
}

fn catalog(records: &[Record]) -> anyhow::Result<Catalog> {
    let mut zones = BTreeMap::new();
    for origin in ZONES {
        let root = name(origin)?;
        let mut zone: InMemoryZoneHandler =
            InMemoryZoneHandler::empty(root.clone(), ZoneType::Primary, AxfrPolicy::Deny);
        let soa = SOA::new(name("ns.test")?, name("hostmaster.test")?, 1, 3600, 600, 86400, 1);
        zone.upsert_mut(Resource::from_rdata(root, TTL_S, RData::SOA(soa)), 1);
        zones.insert(origin, zone);
    }
    for record in records {
        let owner = name(&record.name)?;
        let zone = zones.iter_mut().find(|(origin, _)| format!("{}.", record.name).ends_with(&format!(".{origin}")));
        let (_, zone) = zone.with_context(|| format!("{} lies in none of {ZONES:?}", record.name))?;
        if !zone.upsert_mut(Resource::from_rdata(owner, TTL_S, data(record)?), 1) {
            bail!("{record:?} is there twice");
        }
    }
    let mut catalog = Catalog::new();
    for (origin, zone) in zones {
        catalog.upsert(LowerName::new(&name(origin)?), vec![Arc::new(zone) as Arc<dyn ZoneHandler>]);
    }
    Ok(catalog)
}

struct Reporting<F> {
    catalog: Catalog,
    report: F,
}

#[tonic::async_trait]
impl<F: Fn(Question) + Send + Sync + Unpin + 'static> RequestHandler for Reporting<F> {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, response: R) -> ResponseInfo {
        if let Ok(info) = request.request_info() {
            let name = info.query.name().to_string().trim_end_matches('.').to_ascii_lowercase();
            (self.report)(Question { name, kind: info.query.query_type().to_string() });
        }
        self.catalog.handle_request::<R, T>(request, response).await
    }
}

/// Serves the records on `at` (port 0: any) and gives back where; ends with the program.
///
/// # Errors
/// When a record is not well-formed or the port is taken.
pub async fn serve<F: Fn(Question) + Send + Sync + Unpin + 'static>(
    at: SocketAddr,
    records: &[Record],
    report: F,
) -> anyhow::Result<(SocketAddr, impl Future<Output = ()> + use<F>)> {
    let tcp = TcpListener::bind(at).await.with_context(|| format!("listen for DNS on {at}"))?;
    let at = tcp.local_addr().context("a listener has an address")?;
    let udp = UdpSocket::bind(at).await.with_context(|| format!("listen for DNS over UDP on {at}"))?;
    let mut server = Server::new(Reporting { catalog: catalog(records)?, report });
    server.register_socket(udp);
    server.register_listener(tcp, Duration::from_secs(10), 4096);
    Ok((at, async move {
        // It only ends when its sockets break.
        let _ = server.block_until_done().await;
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use hickory_server::proto::{
        op::{Message, MessageType, OpCode, Query, ResponseCode},
        rr::{Name, RecordType},
    };
    use tokio::net::UdpSocket;

    use super::{Record, serve};

    async fn ask(server: std::net::SocketAddr, name: &str, kind: RecordType) -> Message {
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        question.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        socket.send_to(&question.to_vec().expect("encoded"), server).await.expect("sent");
        let mut buffer = [0; 4096];
        let (length, _) = socket.recv_from(&mut buffer).await.expect("an answer");
        Message::from_vec(&buffer[..length]).expect("well-formed")
    }

    #[tokio::test]
    async fn known_names_are_answered_and_unknown_ones_refused() {
        let record =
            |kind: &str, value: &str| Record { name: "good.example".into(), kind: kind.into(), value: value.into() };
        let long = format!("v=DKIM1; p={}", "A".repeat(400));
        let records = [record("A", "127.0.10.1"), record("MX", "10 mail.good.example"), record("TXT", &long)];
        let asked = Arc::new(Mutex::new(Vec::new()));
        let report = {
            let asked = asked.clone();
            move |question| asked.lock().expect("a lock").push(question)
        };
        let (at, serving) = serve("127.0.0.1:0".parse().expect("an address"), &records, report).await.expect("serves");
        let serving = tokio::spawn(serving);
        let mx = ask(at, "Good.Example.", RecordType::MX).await;
        assert_eq!(mx.answers.len(), 1, "{mx:?}");
        let txt = ask(at, "good.example.", RecordType::TXT).await;
        assert!(txt.answers[0].to_string().contains(&"A".repeat(200)));
        let none = ask(at, "nobody.example.", RecordType::TXT).await;
        assert_eq!(none.metadata.response_code, ResponseCode::NXDomain);
        let foreign = ask(at, "good.invalid.", RecordType::A).await;
        assert_eq!(foreign.metadata.response_code, ResponseCode::Refused);
        assert_eq!(asked.lock().expect("a lock")[0].kind, "MX");
        assert_eq!(asked.lock().expect("a lock")[0].name, "good.example");
        serving.abort();
    }
}
