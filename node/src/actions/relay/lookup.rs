//! DNS for the relay: MX records and addresses, by the configured name servers.

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::{
    TokioResolver,
    net::{DnsError, NetError},
    proto::{op::ResponseCode, rr::RData},
};
use proto::department::NextHop;

use super::targets::{self, MxAnswer};
use crate::smtp::reply::Reply;

/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 4;

/// Asks for the MX records of a domain. The trailing dot keeps search lists out of it.
pub(super) async fn mx(resolver: &TokioResolver, domain: &str) -> MxAnswer {
    match resolver.mx_lookup(format!("{domain}.")).await {
        Ok(lookup) => {
            let records = lookup.answers().iter().filter_map(|record| {
                let RData::MX(mx) = &record.data else { return None };
                Some((mx.preference, mx.exchange.to_ascii().trim_end_matches('.').to_owned()))
            });
            let records: Vec<_> = records.collect();
            // Answers of another type are no answer (a CNAME that leads nowhere).
            if records.is_empty() { MxAnswer::Empty } else { MxAnswer::Records(records) }
        }
        Err(error) => negative(&error),
    }
}

fn negative(error: &NetError) -> MxAnswer {
    if let NetError::Dns(DnsError::NoRecordsFound(none)) = error {
        if none.response_code == ResponseCode::NXDomain {
            return MxAnswer::NoSuchDomain;
        }
        if none.response_code == ResponseCode::NoError {
            return MxAnswer::Empty;
        }
    }
    MxAnswer::Failed(error.to_string())
}

/// The socket addresses of a next hop, in the resolver's order. `public_only` refuses hosts that lie inside.
///
/// # Errors
/// A temporary reply: the host has no address now, or none that mail may go to.
pub(super) async fn addresses(
    resolver: &TokioResolver,
    hop: &NextHop,
    public_only: bool,
) -> Result<Vec<SocketAddr>, Reply> {
    let found: Vec<IpAddr> = if let Ok(address) = hop.host.parse() {
        vec![address]
    } else {
        let lookup = resolver.lookup_ip(format!("{}.", hop.host.trim_end_matches('.'))).await;
        lookup.map(|lookup| lookup.iter().collect()).map_err(|error| {
            let reply = Reply::temporary(51, (4, 3), "the next hop's name has no address now");
            reply.noted(format!("next hop {}: {error}", hop.host))
        })?
    };
    let allowed: Vec<SocketAddr> = found
        .into_iter()
        .filter(|&address| !public_only || targets::is_public(address))
        .take(ADDRESSES_MAX)
        .map(|address| SocketAddr::new(address, hop.port))
        .collect();
    if allowed.is_empty() {
        let reply = Reply::temporary(51, (4, 4), "the next hop has no address that mail may go to");
        return Err(reply.noted(format!("next hop {}: not on the public Internet", hop.host)));
    }
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use hickory_resolver::{
        TokioResolver,
        config::{ConnectionConfig, NameServerConfig, ResolverConfig},
        net::runtime::TokioRuntimeProvider,
        proto::{
            op::{Message, ResponseCode},
            rr::{
                Name, RData, Record, RecordType,
                rdata::{A, MX},
            },
        },
    };
    use proto::department::{NextHop, TlsRule};
    use tokio::net::UdpSocket;

    use super::{MxAnswer, addresses, mx};

    /// Answers over UDP by the first label of the name; the resolver asks nobody else.
    async fn resolver() -> TokioResolver {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let port = socket.local_addr().expect("an address").port();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
                let question = Message::from_vec(&buffer[..len]).expect("a question");
                let answer = answer(&question).to_vec().expect("an answer");
                socket.send_to(&answer, from).await.expect("sent");
            }
        });
        let mut connection = ConnectionConfig::udp();
        connection.port = port;
        let server = NameServerConfig::new(Ipv4Addr::LOCALHOST.into(), true, vec![connection]);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().timeout = Duration::from_secs(2);
        builder.build().expect("a resolver")
    }

    fn answer(question: &Message) -> Message {
        let query = question.queries[0].clone();
        let name = query.name().clone();
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_available = true;
        let label = name.to_ascii();
        let mut add = |data: RData| answer.answers.push(Record::from_rdata(name.clone(), 60, data));
        let root = |host: &str| Name::from_ascii(host).expect("a name");
        match (label.split('.').next(), query.query_type()) {
            (Some("mail"), RecordType::MX) => add(RData::MX(MX::new(10, root("inside.test.")))),
            (Some("null"), RecordType::MX) => add(RData::MX(MX::new(0, Name::root()))),
            (Some("inside"), RecordType::A) => add(RData::A(A::new(127, 0, 0, 1))),
            (Some("gone"), _) => answer.metadata.response_code = ResponseCode::NXDomain,
            (Some("broken"), _) => answer.metadata.response_code = ResponseCode::ServFail,
            (_, _) => {}
        }
        answer.add_query(query);
        answer
    }

    #[tokio::test]
    async fn mx_answers_are_told_apart() {
        let resolver = resolver().await;
        assert_eq!(mx(&resolver, "mail.test").await, MxAnswer::Records(vec![(10, "inside.test".to_owned())]));
        assert_eq!(mx(&resolver, "null.test").await, MxAnswer::Records(vec![(0, String::new())]));
        assert_eq!(mx(&resolver, "gone.test").await, MxAnswer::NoSuchDomain);
        assert_eq!(mx(&resolver, "bare.test").await, MxAnswer::Empty);
        assert!(matches!(mx(&resolver, "broken.test").await, MxAnswer::Failed(_)));
    }

    #[tokio::test]
    async fn a_host_on_the_internet_may_not_lie_inside_but_a_departments_may() {
        let resolver = resolver().await;
        let hop = NextHop { host: "inside.test".to_owned(), port: 25, tls: TlsRule::None };
        let refused = addresses(&resolver, &hop, true).await.expect_err("an inside address");
        assert!(refused.to_string().starts_with("451 4.4.4 "), "{refused}");
        let allowed = addresses(&resolver, &hop, false).await.expect("an address");
        assert_eq!(allowed, ["127.0.0.1:25".parse().expect("an address")]);
    }
}
