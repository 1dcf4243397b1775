//! The section `tls` of the settings file.

use std::path::Path;

use ipnet::IpNet;
use proto::yaml::{Fault, Map, Node};

use super::network;
use crate::smtp::{
    demand::{TlsDemand, TlsDemands},
    tls::TlsSettings,
};

/// Networks with a rule of their own at one listener.
const NETWORKS_MAX: usize = 1000;

/// `certificate`, `key`, `clients`, and what is demanded at each listener. Where nothing is said TLS is offered.
pub(super) fn read(map: &mut Map<'_, '_>, folder: &Path) -> Option<TlsSettings> {
    let path = |node: &Node<'_, '_>| node.text().map(|text| folder.join(text));
    let (certificate, key) = (map.required("certificate", path), map.required("key", path));
    let clients = map.optional("clients", path);
    let demands = ["internet", "departments"]
        .map(|listener| map.section(listener, demands).unwrap_or_else(|| TlsDemands::all(TlsDemand::Offered)));
    if clients.is_none() && demands.iter().any(TlsDemands::ask_for_certificates) {
        map.fault("clients: is missing; who demands client certificates names the file with the CAs that they are of");
    }
    let [internet, departments] = demands;
    Some(TlsSettings { certificate: certificate?, key: key?, clients, internet, departments })
}

fn demands(map: &mut Map<'_, '_>) -> TlsDemands {
    let rule = map.optional("rule", demand).unwrap_or(TlsDemand::Offered);
    let networks = map.sections("networks", |entry| {
        let network: Option<IpNet> = entry.required("network", network);
        let rule = entry.required("rule", demand);
        network.zip(rule)
    });
    let networks: Vec<_> = networks.into_iter().flatten().flatten().collect();
    if networks.len() > NETWORKS_MAX {
        map.fault(format!("networks: at most {NETWORKS_MAX} are expected"));
    }
    TlsDemands { rule, networks }
}

fn demand(node: &Node<'_, '_>) -> Result<TlsDemand, Fault> {
    node.word(&[
        ("none", TlsDemand::None),
        ("offered", TlsDemand::Offered),
        ("required", TlsDemand::Required),
        ("client_certificate", TlsDemand::ClientCertificate),
    ])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proto::yaml;

    use super::{TlsDemand, TlsDemands, TlsSettings, read};

    fn parsed(text: &str) -> Result<Option<TlsSettings>, String> {
        let read = |map: &mut yaml::Map<'_, '_>| read(map, Path::new("/etc/postern"));
        yaml::read("node.yaml", text, read).map_err(|faults| faults.to_string())
    }

    #[test]
    fn without_a_word_tls_is_offered_and_networks_have_rules_of_their_own() {
        let text = "certificate: mx.pem\nkey: mx.key\nclients: ca.pem\ndepartments:\n  rule: client_certificate\n  \
                    networks:\n    - {network: 10.7.0.0/16, rule: required}\n    - {network: 10.7.7.7, rule: none}\n";
        let settings = parsed(text).expect("no fault").expect("settings");
        assert_eq!(settings.internet, TlsDemands::all(TlsDemand::Offered));
        assert_eq!(settings.clients.as_deref(), Some(Path::new("/etc/postern/ca.pem")));
        let of = |address: &str| settings.departments.of(address.parse().expect("an address"));
        assert_eq!(
            [of("10.1.1.1"), of("10.7.1.1"), of("10.7.7.7")],
            [TlsDemand::ClientCertificate, TlsDemand::Required, TlsDemand::None]
        );
    }

    #[test]
    fn what_cannot_be_met_is_a_fault() {
        let files = "certificate: a\nkey: b\n";
        for (text, fault) in [
            ("internet: {rule: always}\n", "internet.rule: one of none, offered, required, client_certificate"),
            ("departments: {rule: client_certificate}\n", "clients: is missing"),
            ("internet: {networks: [{network: 10.0.0.0/8, rule: client_certificate}]}\n", "clients: is missing"),
            (
                "internet: {networks: [{network: 10.0.0.0/33, rule: none}]}\n",
                "internet.networks[0].network: an address",
            ),
            ("internet: {networks: [{network: 10.0.0.0/8}]}\n", "internet.networks[0].rule: is missing"),
        ] {
            let told = parsed(&format!("{files}{text}")).expect_err(text);
            assert!(told.contains(fault), "{text}: {told}");
        }
        assert!(parsed("key: b\n").expect_err("no certificate").contains("certificate: is missing"));
    }
}
