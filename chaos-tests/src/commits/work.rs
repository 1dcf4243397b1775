//! What is written: the same mutation for Postern, and its encoded bytes for the others.

use std::net::{IpAddr, Ipv4Addr};

use proto::{
    address::{Address, ReversePath},
    codec,
    department::DepartmentId,
    held::{BodyRef, Held, HeldId, HeldKind, HeldStatus, MutationId, TransactionId},
    identity::Role,
    mutation::{Change, Mutation, Principal},
    score::Score,
    time::UnixMs,
    verdict::{Disposition, Reason, Verdict},
};

/// Kinds of mutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A message for one recipient is put into quarantine: the record, its place in six indexes, the remembered outcome.
    Hold,
    /// A message is thrown away: an audit record and the remembered outcome.
    Discard,
}

impl Work {
    /// A change that no other has made before; its outcome is `Done`.
    #[must_use]
    pub fn change(self) -> Change {
        match self {
            Self::Hold => Change::Hold { records: vec![held()] },
            Self::Discard => Change::Discard {
                transaction: TransactionId::fresh(),
                recipients: 1,
                verdict: verdict(Disposition::Discard, Vec::new()),
            },
        }
    }

    /// The change as a node proposes it.
    #[must_use]
    pub fn mutation(self) -> Mutation {
        let by = Principal { role: Role::Node, name: "mx1".into() };
        Mutation { id: MutationId::fresh(), by, change: self.change() }
    }

    /// What another store gets to keep: a new key of 26 bytes, and the encoded mutation.
    #[must_use]
    pub fn pair(self) -> (String, Vec<u8>) {
        let mutation = self.mutation();
        (mutation.id.to_string(), codec::encode(&mutation))
    }
}

fn verdict(disposition: Disposition, reasons: Vec<Reason>) -> Verdict {
    Verdict { disposition, score: Score::points(7, 0), tagged: false, reasons, policy_version: 1 }
}

fn held() -> Held {
    let id = HeldId::fresh();
    let reason = Reason { rule: "SUBJECT_ALL_CAPS".into(), score: Score::points(7, 0), text: "shouts".into() };
    let recipient = Address::parse("anna@interior.gov.test").into_iter().collect();
    Held {
        id,
        transaction: TransactionId::fresh(),
        kind: HeldKind::Quarantined,
        status: HeldStatus::Waiting,
        department: DepartmentId::parse("interior").ok(),
        from_department: None,
        reverse_path: ReversePath::Null,
        recipients: recipient,
        body: BodyRef {
            digest: format!("{:0>64}", hex::encode(id.0.to_bytes())),
            size_bytes: 10_000,
            servers: vec!["alpha".into(), "beta".into()],
        },
        verdict: verdict(Disposition::Quarantine, vec![reason]),
        client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        subject: "YOU HAVE WON".into(),
        received_at: UnixMs::now(),
        lease: None,
        attempts: 0,
        next_attempt: UnixMs(0),
        last_problem: String::new(),
        handling: Default::default(),
        notifications: Default::default(),
    }
}
