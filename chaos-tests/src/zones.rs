//! The test world: who sends from where, and what the DNS says about it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use mail_auth::{
    common::{crypto::Ed25519Key, headers::HeaderWriter as _},
    dkim::DkimSigner,
};

use crate::dns::Record;

/// A server that sends properly: SPF, DKIM, DMARC and PTR are right. Its domain is `good.example`.
pub const GOOD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 10, 1));
/// A server with SPF for `forger.example`, but whose mail claims other names.
pub const FORGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 11, 1));
/// A server without a name or an SPF record.
pub const NAMELESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 66, 6));
/// The mail server of the interior department, on the private network.
pub const INTERIOR: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 25));
/// The mail server of the health department, on the private network.
pub const HEALTH: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 2, 25));

/// The DNS calls this address a department's mail server, and it is none.
pub const LIAR: &str = "127.0.14.1";

const SELECTOR: &str = "k1";

/// The key of `good.example`.
pub struct SigningKey {
    pkcs8: Vec<u8>,
    public: Vec<u8>,
}

/// Without the key.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn fresh() -> anyhow::Result<Self> {
        let pkcs8 = Ed25519Key::generate_pkcs8().map_err(|error| anyhow::anyhow!("make a DKIM key: {error}"))?;
        let key = Ed25519Key::from_pkcs8_der(&pkcs8).map_err(|error| anyhow::anyhow!("read a DKIM key: {error}"))?;
        Ok(Self { public: key.public_key(), pkcs8 })
    }

    /// The message with a DKIM signature (RFC 6376, RFC 8463) of `good.example` on top.
    ///
    /// # Errors
    /// When the message has no header to sign.
    pub fn sign(&self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        let key = Ed25519Key::from_pkcs8_der(&self.pkcs8).ok().context("the key was read before")?;
        let signer = DkimSigner::from_key(key).domain("good.example").selector(SELECTOR);
        let signer = signer.headers(["From", "To", "Subject", "Date", "Message-ID"]);
        let signature = signer.sign(message).map_err(|error| anyhow::anyhow!("sign: {error}"))?;
        let mut signed = signature.to_header().into_bytes();
        signed.extend_from_slice(message);
        Ok(signed)
    }
}

/// What a client calls itself: one that has a name by that.
#[must_use]
pub fn own_name(client: IpAddr) -> &'static str {
    if client == GOOD {
        "mail.good.example"
    } else if client == FORGER {
        "mail.forger.example"
    } else {
        "mail.test"
    }
}

/// What the DNS of the test world says.
#[must_use]
pub fn records(key: &SigningKey) -> Vec<Record> {
    let record = |name: &str, kind: &str, value: &str| Record {
        name: name.to_owned(),
        kind: kind.to_owned(),
        value: value.to_owned(),
    };
    let mut records = vec![
        record("good.example", "MX", "10 mail.good.example"),
        record("good.example", "TXT", "v=spf1 ip4:127.0.10.1 -all"),
        record("mail.good.example", "A", "127.0.10.1"),
        record("_dmarc.good.example", "TXT", "v=DMARC1; p=reject"),
        record(
            &format!("{SELECTOR}._domainkey.good.example"),
            "TXT",
            &format!("v=DKIM1; k=ed25519; p={}", STANDARD.encode(&key.public)),
        ),
        record("1.10.0.127.in-addr.arpa", "PTR", "mail.good.example"),
        record("forger.example", "MX", "10 mail.forger.example"),
        record("forger.example", "TXT", "v=spf1 ip4:127.0.11.1 -all"),
        record("mail.forger.example", "A", "127.0.11.1"),
        record("1.11.0.127.in-addr.arpa", "PTR", "mail.forger.example"),
        record("bank.example", "MX", "10 mail.bank.example"),
        record("bank.example", "TXT", "v=spf1 -all"),
        record("_dmarc.bank.example", "TXT", "v=DMARC1; p=reject"),
        record("mail.bank.example", "A", "127.0.12.1"),
        // Mail to the Internet goes by a relay in the test world; this is what it would find otherwise.
        record("partner.example", "MX", "10 mail.partner.example"),
        record("mail.partner.example", "A", "127.0.13.1"),
        record("partner.example", "TXT", "v=spf1 ip4:127.0.13.1 -all"),
    ];
    // Clients behind a load balancer: a good one, a dial-up line, one with the name of another, 192.0.2.79 without any, one with two
    // names, and one whose name's own DNS does not answer.
    records.extend([
        record("10.2.0.192.in-addr.arpa", "PTR", "host.partner.example"),
        record("host.partner.example", "A", "192.0.2.10"),
        record("77.2.0.192.in-addr.arpa", "PTR", "77-2-0-192.dsl.example"),
        record("77-2-0-192.dsl.example", "A", "192.0.2.77"),
        record("78.2.0.192.in-addr.arpa", "PTR", "host.partner.example"),
        record("80.2.0.192.in-addr.arpa", "PTR", "80-2-0-192.dsl.example"),
        record("80-2-0-192.dsl.example", "A", "192.0.2.80"),
        record("80.2.0.192.in-addr.arpa", "PTR", "office.partner.example"),
        record("office.partner.example", "A", "192.0.2.80"),
        record("81.2.0.192.in-addr.arpa", "PTR", "mail.of-another.dns"),
    ]);
    for (domain, address) in [("interior.gov.test", "127.0.1.25"), ("health.gov.test", "127.0.2.25")] {
        records.push(record(domain, "MX", "10 mx1.gov.test"));
        records.push(record(domain, "TXT", &format!("v=spf1 ip4:{address} -all")));
        records.push(record(&format!("_dmarc.{domain}"), "TXT", "v=DMARC1; p=reject"));
    }
    // A list of addresses and one of names with their test entries, one that lists everything, and `nothing.test`, which lists nothing.
    for name in ["2.0.0.127.listed.test", "6.66.0.127.listed.test", "test.names.test", "bad.example.names.test"] {
        records.push(record(name, "A", "127.0.0.2"));
    }
    records.push(record("*.everything.test", "A", "127.0.0.2"));
    // A lie: nothing of a department is there.
    records.push(record("poisoned.gov.test", "A", LIAR));
    records.push(record("mx1.gov.test", "A", "127.0.0.1"));
    records.push(record("mx2.gov.test", "A", "127.0.0.1"));
    records
}

#[cfg(test)]
mod tests {
    use super::{SigningKey, records};

    #[test]
    fn a_signed_message_names_domain_and_selector() {
        let key = SigningKey::fresh().expect("a key");
        let signed = key.sign(b"From: a@good.example\r\nTo: b@x.example\r\nSubject: s\r\n\r\nhi\r\n").expect("signed");
        let text = String::from_utf8(signed).expect("ASCII");
        assert!(text.starts_with("DKIM-Signature: ") && text.contains("d=good.example") && text.contains("s=k1"));
        assert!(text.contains("\r\nFrom: a@good.example\r\n"), "{text}");
        assert!(records(&key).iter().any(|record| record.name == "k1._domainkey.good.example"));
    }
}
