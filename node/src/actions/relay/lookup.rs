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
            let records = lookup.answers().iter().filter_map(|record| match &record.data {
                RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii().trim_end_matches('.').to_owned())),
                _ => None,
            });
            let records: Vec<_> = records.collect();
            // Answers of another type are no answer (a CNAME that leads nowhere).
            if records.is_empty() { MxAnswer::Empty } else { MxAnswer::Records(records) }
        }
        Err(error) => negative(&error),
    }
}

fn negative(error: &NetError) -> MxAnswer {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => MxAnswer::NoSuchDomain,
            ResponseCode::NoError => MxAnswer::Empty,
            other => MxAnswer::Failed(other.to_string()),
        },
        other => MxAnswer::Failed(other.to_string()),
    }
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
        lookup
            .map(|lookup| lookup.iter().collect())
            .map_err(|error| Reply::temporary(51, (4, 3), format!("no address for next hop {}: {error}", hop.host)))?
    };
    let allowed: Vec<SocketAddr> = found
        .into_iter()
        .filter(|&address| !public_only || targets::is_public(address))
        .take(ADDRESSES_MAX)
        .map(|address| SocketAddr::new(address, hop.port))
        .collect();
    if allowed.is_empty() {
        let text = format!("MX host {} has no address on the public Internet", hop.host);
        return Err(Reply::temporary(51, (4, 4), text));
    }
    Ok(allowed)
}
