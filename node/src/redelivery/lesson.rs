//! What a held message teaches that somebody has released: it was wanted.

use proto::{
    envelope::Handling,
    held::{Held, HeldKind, HeldStatus},
    mutation::{Change, Outcome},
};

use super::{Attempt, Redelivery};
use crate::{
    checks::learnt,
    smtp::transaction::{Client, ClientName, Listener, Transaction},
};

/// Whether anything is learnt from it: mail from the Internet that somebody has released, and that all have got. What moves by itself
/// says nothing.
pub(super) fn teaches(held: &Held, attempt: &Attempt) -> bool {
    let is_released = matches!(held.status, HeldStatus::Due { released: Some(_) });
    let has_come = attempt.refused.is_empty() && attempt.delivered.len() == held.recipients.len();
    let is_from_outside = held.department.is_some() && held.from_department.is_none();
    held.kind == HeldKind::Quarantined && is_released && has_come && is_from_outside
}

impl Redelivery {
    /// Tells the cluster. What fails is not tried again: it is one lesson of many, and the message is delivered.
    pub(super) async fn teach(&self, held: &Held) {
        let view = self.cluster.view().borrow().clone();
        let tenant = held.department.as_ref().and_then(|id| view.tenant(id));
        let Some(threshold) = tenant.map(|tenant| tenant.policy.quarantine_at.value) else { return };
        if !view.settings.learning().enabled {
            return;
        }
        let body = match self.cluster.body(&held.body).await {
            Ok(body) => body,
            Err(error) => return tracing::info!(held = %held.id, %error, "nothing is learnt from a released message"),
        };
        let transaction = Transaction {
            id: held.transaction,
            view,
            client: Client {
                address: held.client,
                listener: Listener::Internet,
                helo: String::new(),
                extended: true,
                tls: false,
                declined_tls: false,
                name: ClientName::default(),
                department: None,
                reasons: Vec::new(),
            },
            reverse_path: held.reverse_path.clone(),
            handling: Handling::default(),
            recipients: Vec::new(),
        };
        let over = learnt::over(&held.verdict, threshold);
        let Some(lesson) = self.examiner.lesson(transaction, body, over).await else { return };
        match self.cluster.propose(Change::Learn { held: held.id, lesson }).await {
            Ok(Outcome::Done | Outcome::PolicyApplied { .. } | Outcome::Leased(_)) => {}
            Ok(Outcome::Refused(refused)) => {
                tracing::info!(held = %held.id, %refused, "nothing is learnt from a released message");
            }
            Err(error) => tracing::info!(held = %held.id, %error, "nothing is learnt from a released message"),
        }
    }
}
