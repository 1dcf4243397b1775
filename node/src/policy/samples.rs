//! Departments, transactions and messages for the tests of this crate.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use proto::{
    address::{Address, Domain, ReversePath},
    department::{Department, DepartmentId, NextHop, TlsRule, Verification},
    envelope::{Handling, Notification},
    held::TransactionId,
    policy::PolicyLayer,
    view::{StateSettings, View, ViewChange},
};

use super::evidence::{Analysed, Evidence, Virus};
use crate::{
    limits::Limits,
    message::Message,
    smtp::transaction::{Client, ClientName, Listener, Recipient, Route, Transaction, TrustClass},
};

/// A department named `id` for `id.gov.test`; its servers are in 127.0.0.0/8, its service is 198.51.100.7.
pub(crate) fn department(id: &str, policy: PolicyLayer) -> Department {
    Department {
        id: DepartmentId::parse(id).expect("an id"),
        name: id.to_owned(),
        domains: BTreeSet::from([Domain::parse(&format!("{id}.gov.test")).expect("a domain")]),
        next_hops: vec![NextHop { host: "127.0.0.1".into(), port: 1, tls: TlsRule::None }],
        sources: vec!["127.0.0.0/8".parse().expect("a net")],
        services: vec!["198.51.100.7/32".parse().expect("a net")],
        recipients: None,
        verification: Verification::None,
        policy,
    }
}

/// Policy version 7 with departments interior and health; `policy` is interior's.
pub(crate) fn view(policy: PolicyLayer) -> View {
    View::empty().after(ViewChange {
        index: 9,
        policy_version: 7,
        whole: true,
        settings: Some(StateSettings::default()),
        departments: vec![department("interior", policy), department("health", PolicyLayer::default())],
        ..ViewChange::default()
    })
}

pub(crate) fn recipient(view: &View, address: &str, class: TrustClass) -> Recipient {
    let address = Address::parse(address).expect("an address");
    match view.tenant_of(address.domain()) {
        Some(tenant) => Recipient {
            policy: tenant.policy.clone(),
            route: Route::Department {
                id: tenant.department.id.clone(),
                next_hops: tenant.department.next_hops.clone(),
            },
            class,
            address,
            notification: Notification::default(),
        },
        None => Recipient {
            policy: view.state_policy.clone(),
            route: Route::Internet { domain: address.domain().clone(), relays: Vec::new() },
            class,
            address,
            notification: Notification::default(),
        },
    }
}

/// From an Internet client to these recipients.
pub(crate) fn transaction(view: View, to: &[&str]) -> Transaction {
    let recipients = to.iter().map(|address| recipient(&view, address, TrustClass::Internet)).collect();
    Transaction {
        id: TransactionId::parse("01ARZ3NDEKTSV4RRFFQ69G5FAV").expect("an id"),
        view: Arc::new(view),
        client: Client {
            address: "192.0.2.1".parse().expect("an address"),
            listener: Listener::Internet,
            helo: "mail.sender.test".into(),
            extended: true,
            tls: false,
            declined_tls: false,
            name: ClientName::default(),
            department: None,
            reasons: Vec::new(),
        },
        reverse_path: ReversePath::Address(Address::parse("a@sender.test").expect("an address")),
        handling: Handling::default(),
        recipients,
    }
}

/// The same from a department's own server.
pub(crate) fn from_department(mut transaction: Transaction, id: &str, class: TrustClass) -> Transaction {
    transaction.client.listener = Listener::Departments;
    transaction.client.department = Some(DepartmentId::parse(id).expect("an id"));
    transaction.reverse_path = ReversePath::Address(Address::parse(&format!("x@{id}.gov.test")).expect("an address"));
    for recipient in &mut transaction.recipients {
        recipient.class = class;
    }
    transaction
}

pub(crate) fn message(text: &str) -> Message {
    Message::parse(Bytes::from(text.replace('\n', "\r\n")), &Limits::default())
}

/// Scanned, examined, nothing found.
pub(crate) fn clean() -> Evidence {
    Evidence { virus: Virus::Clean, analysed: Analysed::Whole, ..Evidence::nothing() }
}
