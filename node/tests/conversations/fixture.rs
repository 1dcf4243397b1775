//! The world of the conversations: two departments, their networks and policies.

use std::{collections::BTreeSet, sync::Arc};

use node::{limits::Limits, smtp::step::Settings};
use proto::{
    address::Domain,
    client_rules::{ClientPoints, ClientRules},
    department::{Department, DepartmentId, NextHop, TlsRule, Verification},
    policy::PolicyLayer,
    view::{StateSettings, View, ViewChange},
};

pub(crate) fn settings(limits: Limits) -> Settings {
    Settings {
        node: "mx1".into(),
        hostname: Domain::parse("mx.gov.test").expect("a domain"),
        xclient: vec!["192.0.2.100/32".parse().expect("a network")],
        limits,
    }
}

fn department(id: &str, domain: &str, source: &str) -> Department {
    Department {
        id: DepartmentId::parse(id).expect("an id"),
        name: id.to_owned(),
        domains: BTreeSet::from([Domain::parse(domain).expect("a domain")]),
        next_hops: vec![NextHop { host: "127.0.0.1".into(), port: 25, tls: TlsRule::None }],
        sources: vec![source.parse().expect("a network")],
        services: Vec::new(),
        recipients: None,
        verification: Verification::None,
        policy: PolicyLayer::default(),
    }
}

/// Interior (any recipient; one service on the Internet) and health (three recipients, small messages).
pub(crate) fn view() -> Arc<View> {
    let mut interior = department("interior", "interior.gov.test", "10.1.0.0/16");
    interior.services = vec!["192.0.2.50/32".parse().expect("a network")];
    let mut health = department("health", "health.gov.test", "10.2.0.0/16");
    health.recipients = Some(BTreeSet::from(["anna".to_owned(), "ben".to_owned(), "j\u{fc}rgen".to_owned()]));
    health.policy.message_bytes_max = Some(5000);
    Arc::new(View::empty().after(ViewChange {
        index: 3,
        policy_version: 1,
        whole: true,
        settings: Some(StateSettings {
            view_age_max_ms: 60_000,
            clients: Some(Box::new(ClientRules {
                points: ClientPoints { early_talk: ClientPoints::BUILT_IN.early_talk, ..ClientPoints::NONE },
                ..ClientRules::none()
            })),
            ..StateSettings::default()
        }),
        departments: vec![interior, health],
        ..ViewChange::default()
    }))
}

/// The next version, under which a view holds no longer than a moment: a department at 127.0.0.0/8.
pub(crate) fn view_with_local(view_age_max_ms: u64) -> Arc<View> {
    Arc::new(view().after(ViewChange {
        index: 5,
        policy_version: 3,
        whole: false,
        settings: Some(StateSettings { view_age_max_ms, ..(*view().settings).clone() }),
        departments: vec![department("local", "local.gov.test", "127.0.0.0/8")],
        ..ViewChange::default()
    }))
}

/// The next index: this node is drained.
pub(crate) fn view_with_drain() -> Arc<View> {
    Arc::new(view().after(ViewChange {
        index: 4,
        policy_version: 1,
        drained: Some(BTreeSet::from(["mx1".to_owned()])),
        ..ViewChange::default()
    }))
}

/// The next version: health is gone.
pub(crate) fn view_without_health() -> Arc<View> {
    Arc::new(view().after(ViewChange {
        index: 4,
        policy_version: 2,
        whole: false,
        settings: None,
        departments: Vec::new(),
        removed: vec![DepartmentId::parse("health").expect("an id")],
        ..ViewChange::default()
    }))
}
