//! What a listener demands of the TLS of those who send: one rule, and another one for some networks.

use std::net::IpAddr;

use ipnet::IpNet;

use super::reply::Reply;

/// How a client's mail must come; the later the stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsDemand {
    /// In the clear: STARTTLS is not offered.
    None,
    /// As the client likes. A server that everybody may send to must not demand more (RFC 3207 section 4).
    Offered,
    /// Under TLS.
    Required,
    /// Under TLS, and the client has shown a certificate of a CA that is trusted for this.
    ClientCertificate,
}

/// What a connection's bytes are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channel {
    /// The clear.
    #[default]
    Clear,
    /// TLS.
    Tls {
        /// The client has shown a certificate of a CA that is trusted for this.
        certified: bool,
    },
}

impl TlsDemand {
    /// Whether STARTTLS is there to be asked for.
    #[must_use]
    pub fn offers(self) -> bool {
        self != Self::None
    }

    /// Why no mail is taken over such a channel; nothing when it is. 530 is RFC 3207 section 4.
    #[must_use]
    pub fn refusal(self, channel: Channel) -> Option<Reply> {
        match (self, channel) {
            (Self::None | Self::Offered, _)
            | (Self::Required, Channel::Tls { .. })
            | (Self::ClientCertificate, Channel::Tls { certified: true }) => None,
            (Self::Required | Self::ClientCertificate, Channel::Clear) => {
                Some(Reply::permanent(30, (7, 0), "STARTTLS first: mail is taken under TLS only"))
            }
            (Self::ClientCertificate, Channel::Tls { certified: false }) => {
                Some(Reply::permanent(50, (7, 0), "show a client certificate in the TLS handshake: none came"))
            }
        }
    }
}

/// The demands of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsDemands {
    /// Of everybody else.
    pub rule: TlsDemand,
    /// Of these networks; the most specific one counts, of two equal ones the first.
    pub networks: Vec<(IpNet, TlsDemand)>,
}

impl TlsDemands {
    /// The same demand of everybody.
    #[must_use]
    pub fn all(rule: TlsDemand) -> Self {
        Self { rule, networks: Vec::new() }
    }

    /// What is demanded of a client.
    #[must_use]
    pub fn of(&self, client: IpAddr) -> TlsDemand {
        let mut best: Option<&(IpNet, TlsDemand)> = None;
        for entry in self.networks.iter().filter(|(network, _)| network.contains(&client)) {
            if best.is_none_or(|(network, _)| network.prefix_len() < entry.0.prefix_len()) {
                best = Some(entry);
            }
        }
        best.map_or(self.rule, |(_, demand)| *demand)
    }

    /// Whether anybody must show a certificate.
    #[must_use]
    pub fn ask_for_certificates(&self) -> bool {
        let all = self.networks.iter().map(|(_, demand)| *demand).chain([self.rule]);
        all.into_iter().any(|demand| demand == TlsDemand::ClientCertificate)
    }
}

#[cfg(test)]
mod tests {
    use super::{Channel, TlsDemand, TlsDemands};

    #[test]
    fn the_most_specific_network_counts() {
        let network = |text: &str| text.parse().expect("a network");
        let demands = TlsDemands {
            rule: TlsDemand::Required,
            networks: vec![
                (network("10.0.0.0/8"), TlsDemand::Offered),
                (network("10.7.0.0/16"), TlsDemand::ClientCertificate),
                (network("10.7.0.0/16"), TlsDemand::Offered),
                (network("10.7.7.7/32"), TlsDemand::None),
                (network("2001:db8::/32"), TlsDemand::Offered),
            ],
        };
        let of = |text: &str| demands.of(text.parse().expect("an address"));
        assert_eq!(of("192.0.2.1"), TlsDemand::Required);
        assert_eq!(of("10.1.0.1"), TlsDemand::Offered);
        assert_eq!(of("10.7.0.1"), TlsDemand::ClientCertificate);
        assert_eq!(of("10.7.7.7"), TlsDemand::None);
        assert_eq!(of("2001:db8::1"), TlsDemand::Offered);
        assert!(demands.ask_for_certificates());
        assert!(!TlsDemands::all(TlsDemand::Required).ask_for_certificates());
    }

    #[test]
    fn each_demand_is_met_by_what_it_names_and_by_more() {
        let channels = [Channel::Clear, Channel::Tls { certified: false }, Channel::Tls { certified: true }];
        let codes = |demand: TlsDemand| channels.map(|channel| demand.refusal(channel).map_or(0, |reply| reply.code()));
        assert_eq!(codes(TlsDemand::None), [0, 0, 0]);
        assert_eq!(codes(TlsDemand::Offered), [0, 0, 0]);
        assert_eq!(codes(TlsDemand::Required), [530, 0, 0]);
        assert_eq!(codes(TlsDemand::ClientCertificate), [530, 550, 0]);
    }
}
