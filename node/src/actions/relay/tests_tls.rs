//! What the relay makes of STARTTLS under each rule.

use std::sync::Arc;

use proto::{address::ReversePath, department::TlsRule};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::TlsAcceptor;

use super::{
    Relay, roots_from_pem,
    scripted::Scripted,
    tests::{addresses, department, fates, no_dns, plain},
};
use crate::limits::Limits;

pub(super) const IN_THE_CLEAR: &str = "
    S: 220 x
    C: EHLO
    S: 250-x
    S: 250 STARTTLS
    C: STARTTLS
    S: 220 go on
    TLS
";
pub(super) const TAKES: &str = "
    C: EHLO
    S: 250 x
    C: MAIL FROM:<>
    S: 250 ok
    C: RCPT
    S: 250 ok
    C: DATA
    S: 354 go on
    DATA
    S: 250 taken
    C: QUIT";

/// A server's certificate for 127.0.0.1 and the same as PEM.
pub(super) fn certificate() -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .expect("a key that fits");
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

/// The one recipient's fate, with the server's scripts, the rule, and the roots that the relay trusts.
async fn fate(scripts: &[&str], rule: TlsRule, acceptor: Option<TlsAcceptor>, roots: Option<&str>) -> String {
    let server = Scripted::start(scripts, rule, acceptor).await;
    let roots = roots.map(|pem| roots_from_pem(pem.as_bytes()).expect("roots"));
    let limits = Limits { relay_idle_max: 0, ..Limits::default() };
    let relay = Relay::new("node.test", &limits, no_dns(), roots);
    let route = department(vec![server.hop.clone()]);
    let answers = relay.deliver(&route, plain(&ReversePath::Null, &addresses(&["bob"])), b"x\r\n").await;
    server.heard().await;
    fates(&answers).remove(0)
}

#[tokio::test]
async fn where_tls_is_offered_it_is_used_with_any_certificate() {
    let (acceptor, _) = certificate();
    let script = format!("{IN_THE_CLEAR}{TAKES}");
    assert_eq!(fate(&[&script], TlsRule::Opportunistic, Some(acceptor), None).await, "accepted taken");
    let in_the_clear = format!("S: 220 x{TAKES}");
    assert_eq!(fate(&[&in_the_clear], TlsRule::Opportunistic, None, None).await, "accepted taken");
}

#[tokio::test]
async fn a_failed_handshake_leads_to_a_new_connection_in_the_clear_only_where_tls_is_optional() {
    let (acceptor, pem) = certificate();
    // The connection ends where the handshake should begin.
    let broken = "S: 220 x\nC: EHLO\nS: 250-x\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go on";
    let in_the_clear = format!("S: 220 x{TAKES}");
    let scripts = [broken, &in_the_clear];
    assert_eq!(fate(&scripts, TlsRule::Opportunistic, None, None).await, "accepted taken");
    let fate = fate(&[broken], TlsRule::Required, Some(acceptor), Some(&pem)).await;
    assert!(fate.starts_with("deferred 451 4.7.5 "), "{fate}");
}

#[tokio::test]
async fn required_tls_needs_an_offer_and_a_trusted_certificate_for_the_host() {
    let (acceptor, pem) = certificate();
    let (_, other_pem) = certificate();
    let whole = format!("{IN_THE_CLEAR}{TAKES}");
    assert_eq!(fate(&[&whole], TlsRule::Required, Some(acceptor.clone()), Some(&pem)).await, "accepted taken");
    let no_offer = "S: 220 x\nC: EHLO\nS: 250 x";
    let refused = "S: 220 x\nC: EHLO\nS: 250-x\nS: 250 STARTTLS\nC: STARTTLS\nS: 454 4.7.0 not now";
    let cases = [
        (no_offer, Some(pem.as_str()), "offers no STARTTLS"),
        (refused, Some(pem.as_str()), "454 not now"),
        (IN_THE_CLEAR, Some(other_pem.as_str()), "handshake failed"),
        ("S: 220 x\nC: EHLO\nS: 250-x\nS: 250 STARTTLS", None, "no roots"),
    ];
    for (script, roots, expected) in cases {
        let fate = fate(&[script], TlsRule::Required, Some(acceptor.clone()), roots).await;
        assert!(fate.starts_with("deferred 45") && fate.contains(expected), "{fate} without {expected}");
    }
}

#[tokio::test]
async fn plaintext_after_the_answer_to_starttls_ends_the_attempt() {
    let (acceptor, _) = certificate();
    // Said in one breath, so that both lines come in one segment.
    let injecting = "S: 220 x\nC: EHLO\nS: 250-x\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go on\\n250 injected\nSILENCE";
    let fate = fate(&[injecting], TlsRule::Opportunistic, Some(acceptor), None).await;
    assert!(fate.starts_with("deferred 451 4.7.5 ") && fate.contains("plaintext followed"), "{fate}");
}
