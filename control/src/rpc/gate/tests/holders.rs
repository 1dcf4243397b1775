//! Certificates of all sorts × all methods: expired, not yet valid, revoked, nameless; and connections that outlive theirs.

use std::collections::BTreeMap;

use proto::{
    identity::{Credentials, Refusal, Role},
    time::UnixMs,
    wire::{edge, operator},
};
use rcgen::{CertificateParams, SanType, date_time_ymd};
use tempfile::TempDir;
use tonic::{Code, Request, transport::Channel};

use super::{Running, all_methods, code, nothing_works};
use crate::{rpc::admitted, test_pki::Ca};

fn counts(server: &Running) -> BTreeMap<&'static str, u64> {
    server.refusals.snapshot().into_iter().collect()
}

fn expired(params: &mut CertificateParams) {
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
}

fn of_tomorrow(params: &mut CertificateParams) {
    (params.not_before, params.not_after) = (date_time_ymd(2090, 1, 1), date_time_ymd(2091, 1, 1));
}

#[tokio::test]
async fn a_certificate_out_of_its_time_may_nothing() {
    let ca = Ca::new();
    let server = Running::start(&ca.credentials("c1", Role::Control, "control-1")).await;
    for role in [Role::Control, Role::Node, Role::Operator] {
        for (odd, reason) in [(expired as fn(&mut _), "expired"), (of_tomorrow, "not-yet-valid")] {
            let before = counts(&server).get(reason).copied().unwrap_or_default();
            nothing_works(server.connect(&ca.odd("c1", role, "caller", odd)).await).await;
            assert!(counts(&server)[reason] > before, "{role}: {reason}");
        }
    }
    server.end().await;
}

#[tokio::test]
async fn a_certificate_that_names_two_or_nobody_may_nothing() {
    let ca = Ca::new();
    let server = Running::start(&ca.credentials("c1", Role::Control, "control-1")).await;
    let folder = TempDir::new().expect("a folder");
    let second = |params: &mut CertificateParams| {
        let uri = "spiffe://c1/operator/anna".to_owned().try_into().expect("ASCII");
        params.subject_alt_names.push(SanType::URI(uri));
    };
    let nobody = |params: &mut CertificateParams| {
        params.subject_alt_names.retain(|name| !matches!(name, SanType::URI(_)));
    };
    for odd in [&second as &dyn Fn(&mut _), &nobody] {
        ca.write_odd(folder.path(), "c1", Role::Node, "n1", odd);
        assert!(Credentials::load(folder.path()).is_err(), "no process of ours runs with it");
        let pem = |file: &str| std::fs::read(folder.path().join(file)).expect("read");
        let tls = tonic::transport::ClientTlsConfig::new()
            .identity(tonic::transport::Identity::from_pem(pem("certificate.pem"), pem("key.pem")))
            .ca_certificate(tonic::transport::Certificate::from_pem(pem("ca.pem")))
            .domain_name(Role::Control.dns_name());
        let channel = server.endpoint(tls).connect().await.expect("TLS lets it in");
        for (method, _, code) in all_methods(&channel).await {
            assert_eq!(code, Code::Unauthenticated, "{method}");
        }
    }
    assert!(counts(&server)["nameless"] > 0);
    server.end().await;
}

/// A server whose folder can be written to while it runs.
async fn server_in(folder: &TempDir, ca: &Ca) -> (Running, Credentials) {
    ca.write(folder.path(), "c1", Role::Control, "control-1");
    let credentials = Credentials::load(folder.path()).expect("credentials");
    (Running::start(&credentials).await, credentials)
}

async fn status(channel: &Channel) -> Code {
    let mut people = operator::operator_client::OperatorClient::new(channel.clone());
    code(people.status(Request::new(operator::StatusRequest::default())).await)
}

#[tokio::test]
async fn a_revoked_certificate_may_nothing_from_the_moment_when_the_list_is_read() {
    let (ca, folder) = (Ca::new(), TempDir::new().expect("a folder"));
    let (server, credentials) = server_in(&folder, &ca).await;
    let (anna, bert) = (ca.credentials("c1", Role::Operator, "anna"), ca.credentials("c1", Role::Operator, "bert"));
    let annas = server.connect(&anna).await.expect("TLS lets her in");
    let berts = server.connect(&bert).await.expect("TLS lets him in");
    assert_eq!((status(&annas).await, status(&berts).await), (Code::Unimplemented, Code::Unimplemented));

    std::fs::write(folder.path().join("crl.pem"), ca.revoke(&anna)).expect("written");
    credentials.reread(UnixMs::now()).expect("a list");
    for (method, _, code) in all_methods(&annas).await {
        assert_eq!(code, Code::Unauthenticated, "{method} on a connection from before");
    }
    let before = counts(&server)["revoked"];
    nothing_works(server.connect(&anna).await).await;
    assert!(counts(&server)["revoked"] > before, "a new connection is refused by TLS");
    assert_eq!(status(&berts).await, Code::Unimplemented, "nobody else is");
    server.end().await;
}

#[tokio::test]
async fn a_server_with_a_revoked_certificate_is_not_talked_to() {
    let (ca, folder) = (Ca::new(), TempDir::new().expect("a folder"));
    let (server, credentials) = server_in(&folder, &ca).await;
    let ours = TempDir::new().expect("a folder");
    ca.write(ours.path(), "c1", Role::Operator, "anna");
    let connect = async || {
        let anna = Credentials::load(ours.path()).expect("credentials");
        let endpoint = anna.endpoint(&server.address.to_string(), Role::Control).expect("an address");
        endpoint.connect().await
    };
    assert_eq!(status(&connect().await.expect("a connection")).await, Code::Unimplemented);
    std::fs::write(ours.path().join("crl.pem"), ca.revoke(&credentials)).expect("written");
    assert!(connect().await.is_err(), "the server's certificate is revoked");
    server.end().await;
}

#[tokio::test]
async fn a_server_takes_a_new_certificate_while_it_runs_and_old_connections_go_on() {
    let (ca, folder) = (Ca::new(), TempDir::new().expect("a folder"));
    let (server, credentials) = server_in(&folder, &ca).await;
    let anna = ca.credentials("c1", Role::Operator, "anna");
    let before = server.connect(&anna).await.expect("TLS lets her in");
    let old = credentials.leaf().serial;
    ca.write(folder.path(), "c1", Role::Control, "control-1");
    credentials.reread(UnixMs::now()).expect("a renewed certificate");
    assert_ne!(credentials.leaf().serial, old);
    // Whoever would still be shown the old one would not connect: it is revoked for her.
    let ours = TempDir::new().expect("a folder");
    ca.write(ours.path(), "c1", Role::Operator, "anna");
    let old_holder = ca.odd("c1", Role::Control, "control-1", |params| {
        let digits = if old.len().is_multiple_of(2) { old.clone() } else { format!("0{old}") };
        params.serial_number = Some(hex::decode(digits).expect("hex").into());
    });
    std::fs::write(ours.path().join("crl.pem"), ca.revoke(&old_holder)).expect("written");
    let wary = Credentials::load(ours.path()).expect("credentials");
    let endpoint = wary.endpoint(&server.address.to_string(), Role::Control).expect("an address");
    assert_eq!(status(&endpoint.connect().await.expect("the new one")).await, Code::Unimplemented);
    assert_eq!(status(&before).await, Code::Unimplemented);
    server.end().await;
}

#[test]
fn nothing_but_the_three_services_is_there() {
    for service in ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", "", "x"] {
        assert_eq!(admitted(service), None, "{service}");
    }
}

#[tokio::test]
async fn reflection_is_not_answered() {
    let ca = Ca::new();
    let server = Running::start(&ca.credentials("c1", Role::Control, "control-1")).await;
    let channel = server.connect(&ca.credentials("c1", Role::Operator, "anna")).await.expect("TLS lets her in");
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("ready");
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".parse().expect("a path");
    let codec = tonic_prost::ProstCodec::<edge::WatchRequest, edge::ViewUpdate>::default();
    let answer = grpc.unary(Request::new(edge::WatchRequest::default()), path, codec).await;
    assert_eq!(code(answer), Code::Unimplemented);
    // Nor let in by a gate first: the answer is the router's, without a word.
    assert_eq!(server.refusals.snapshot(), []);
    server.end().await;
}

#[tokio::test]
async fn a_role_and_a_cluster_that_do_not_fit_are_counted() {
    let ca = Ca::new();
    let server = Running::start(&ca.credentials("c1", Role::Control, "control-1")).await;
    let node = server.connect(&ca.credentials("c1", Role::Node, "n1")).await.expect("TLS lets it in");
    assert_eq!(status(&node).await, Code::PermissionDenied);
    let foreign = server.connect(&ca.credentials("c2", Role::Operator, "anna")).await.expect("TLS lets her in");
    assert_eq!(status(&foreign).await, Code::Unauthenticated);
    assert_eq!(server.refusals.snapshot(), [(Refusal::Cluster.reason(), 1), ("role", 1)]);
    server.end().await;
}
