//! A message's whole trip: parse, gather, decide, act, resolve, report.

use std::{borrow::Borrow, sync::Arc, time::Instant};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use proto::{
    held::{BodyRef, HeldId, HeldKind},
    mutation::{Change, Outcome},
    time::UnixMs,
    verdict::{Disposition, Verdict},
};
use tracing::{Instrument as _, info_span};

use crate::{
    actions::{
        headers, hold,
        relay::{Envelope, Handed, Relay},
    },
    checks::history,
    cluster::Cluster,
    examine::{Examined, Examiner, class, senders},
    policy::{
        decide::is_scanned_again,
        resolve::{self, Edit, End, Fate, Resolution, is_same_edit, resolve},
        standing,
    },
    reputation::Outcomes,
    smtp::{
        reply::{Class, Reply},
        transaction::{Recipient, Transaction, TrustClass},
    },
    telemetry::{metrics, stage},
};

/// Groups of one message that are handed on at once: each is a connection to a next hop.
const HANDED_ON_AT_ONCE: usize = 16;

/// What the trip needs. Shared by all connections.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Our own name: in Received and as the authserv-id of Authentication-Results.
    pub host: Arc<str>,
    /// The node's name in the cluster.
    pub node: Arc<str>,
    /// Where bodies, records and the audit trail go.
    pub cluster: Cluster,
    /// Where accepted mail goes.
    pub relay: Arc<Relay>,
    /// Reads, checks and decides.
    pub examiner: Examiner,
    /// Where what was learnt of senders goes.
    pub outcomes: Outcomes,
}

impl Pipeline {
    /// Takes a message through all stages and gives the one reply for it. `bytes` is the message as it came after DATA or BDAT,
    /// dots unstuffed, lines ended by CRLF.
    pub async fn run(&self, transaction: Transaction, bytes: Bytes) -> Reply {
        let began = Instant::now();
        let span = info_span!(
            "transaction",
            id = %transaction.id,
            class = class(&transaction).map_or("none", TrustClass::as_str),
            listener = ?transaction.client.listener,
            recipients = transaction.recipients.len(),
            size = bytes.len(),
        );
        async {
            let examined = self.examine(&transaction, bytes).await;
            let fates = stage("act", info_span!("act"), self.act(&transaction, &examined)).await;
            let (fates, reply) =
                stage("resolve", info_span!("resolve"), self.settle(&transaction, &examined, fates)).await;
            self.report(&transaction, &examined, &fates, &reply, began);
            reply
        }
        .instrument(span)
        .await
    }

    /// Reads, checks and decides: what `run` acts upon, and all that a scan asks for.
    pub async fn examine(&self, transaction: &Transaction, bytes: Bytes) -> Examined {
        self.examiner.examine(transaction, bytes).await
    }

    /// Does what the verdicts say. What must be kept is made safe before anything is handed on: when that fails, nothing is
    /// handed on either, so that the sender's next attempt makes no duplicates.
    async fn act(&self, transaction: &Transaction, examined: &Examined) -> Vec<Fate> {
        let mut fates = first_fates(transaction, examined);
        if !self.keep(transaction, examined, &mut fates).await {
            return fates;
        }
        let began = Instant::now();
        let bodies = self.bodies(transaction, examined);
        let handing: Vec<_> = examined
            .verdicts
            .iter()
            .enumerate()
            .map(|(at, (group, verdict))| {
                let edit = examined.edit(at);
                let body = group.first().and_then(|first| made(&bodies, verdict, first.class, edit));
                self.hand_on(transaction, group, body.cloned(), began)
            })
            .collect();
        // Fates are in the order of the groups.
        let ends: Vec<_> = stream::iter(handing).buffered(HANDED_ON_AT_ONCE).collect().await;
        for (fate, end) in fates.iter_mut().zip(ends.into_iter().flatten()) {
            if let Some(end) = end {
                fate.end = end;
            }
        }
        fates.iter_mut().for_each(keep_once);
        fates
    }

    /// Holds what is to be quarantined or scanned again, and leaves the trace of what is thrown away; false when either failed.
    /// What goes on without something is held as it came too, for its recipients.
    async fn keep(&self, transaction: &Transaction, examined: &Examined, fates: &mut Vec<Fate>) -> bool {
        let kept = |(at, fate): (usize, &Fate)| match fate.verdict.disposition {
            Disposition::Quarantine => Some((at, HeldKind::Quarantined)),
            Disposition::Accept if is_scanned_again(&fate.verdict) => Some((at, HeldKind::Deferred)),
            Disposition::Accept | Disposition::Reject | Disposition::Defer | Disposition::Discard => None,
        };
        let mut picks: Vec<_> = fates.iter().enumerate().filter_map(kept).collect();
        let count = fates.len();
        let originals: Vec<_> = fates.iter().filter(|fate| fate.edit.is_some()).map(hold::original).collect();
        picks.extend((0..originals.len()).map(|at| (count + at, HeldKind::Quarantined)));
        fates.extend(originals);
        let is_kept = self.hold_as(transaction, examined, fates, picks).await;
        fates.truncate(count);
        if !is_kept {
            return false;
        }
        let thrown_away = |(_, verdict): &&(_, Verdict)| verdict.disposition == Disposition::Discard;
        for (group, verdict) in examined.verdicts.iter().filter(thrown_away) {
            let recipients = u32::try_from(group.len()).unwrap_or(u32::MAX);
            let change = Change::Discard { transaction: transaction.id, recipients, verdict: verdict.clone() };
            if !self.commit(change).await {
                return false;
            }
        }
        for fate in fates.iter_mut().filter(|fate| fate.verdict.disposition == Disposition::Discard) {
            fate.end = End::Discarded;
        }
        true
    }

    /// What is handed on, once for each verdict, class and edit among the accepted groups: a copy for each group would need the
    /// memory of as many messages.
    fn bodies<'e>(&self, transaction: &Transaction, examined: &'e Examined) -> Vec<Made<&'e Verdict, Bytes>> {
        let mut bodies = Vec::new();
        for (at, (group, verdict)) in examined.verdicts.iter().enumerate() {
            let goes_on = verdict.disposition == Disposition::Accept && !is_scanned_again(verdict);
            let Some(first) = group.first().filter(|_| goes_on) else { continue };
            let (class, edit) = (first.class, examined.edit(at));
            if made(&bodies, verdict, class, edit).is_none() {
                let body = self.stamped(transaction, examined, verdict, class, edit);
                bodies.push(Made { verdict, class, edit: edit.clone(), made: body });
            }
        }
        bodies
    }

    /// What the next hop said about each of a group; nothing without a body to hand on.
    async fn hand_on(
        &self,
        transaction: &Transaction,
        group: &[Recipient],
        body: Option<Bytes>,
        acting_since: Instant,
    ) -> Vec<Option<End>> {
        let (Some(first), Some(body)) = (group.first(), body) else { return vec![None; group.len()] };
        if acting_since.elapsed() >= self.examiner.limits.relay_time_max {
            let late = Reply::temporary(51, (4, 7), "other next hops took too long, this one was not asked yet");
            return vec![Some(End::Deferred(late)); group.len()];
        }
        let (to, notifications): (Vec<_>, Vec<_>) =
            group.iter().map(|recipient| (recipient.address.clone(), recipient.notification.clone())).unzip();
        let Transaction { reverse_path: from, handling, .. } = transaction;
        let envelope = Envelope { from, handling, to: &to, notifications: &notifications };
        let began = Instant::now();
        let handed = self.relay.deliver(&first.route, envelope, &body).await;
        metrics().relayed(outcome(&handed), began.elapsed());
        // A recipient without an answer has not been delivered to.
        let ends = handed.into_iter().map(|handed| Some(end(handed))).chain(std::iter::repeat(None));
        ends.take(group.len()).collect()
    }

    /// Holds what `resolve` asks for and gives the reply that is then true.
    async fn settle(&self, transaction: &Transaction, examined: &Examined, mut fates: Vec<Fate>) -> (Vec<Fate>, Reply) {
        let Resolution { hold, reply } = resolve(transaction.id, &fates);
        if !self.hold_as(transaction, examined, &mut fates, hold).await {
            return (fates, resolve::unheld(transaction.id));
        }
        (fates, reply)
    }

    /// Makes the bodies of these fates durable, commits their records all at once and puts that down; true when there is
    /// nothing to hold.
    async fn hold_as(
        &self,
        transaction: &Transaction,
        examined: &Examined,
        fates: &mut [Fate],
        picks: Vec<(usize, HeldKind)>,
    ) -> bool {
        let now = UnixMs::now();
        let delay = self.examiner.limits.redelivery_delay.as_millis();
        let retry_at = now.plus_ms(u64::try_from(delay).unwrap_or(u64::MAX));
        let keeps = hold::keeps(picks.iter().filter_map(|(at, kind)| Some((fates.get(*at)?, *kind))));
        let mut bodies: Vec<Made<Verdict, BodyRef>> = Vec::new();
        let mut records = Vec::with_capacity(keeps.len());
        for keep in keeps {
            let body = if let Some(body) = made(&bodies, &keep.verdict, keep.class, &keep.edit) {
                body.clone()
            } else {
                let bytes = self.stamped(transaction, examined, &keep.verdict, keep.class, &keep.edit);
                let body = match self.cluster.put_body(bytes).await {
                    Ok(body) => body,
                    Err(error) => {
                        tracing::warn!(%error, "store the body of a message to hold: it is left with its sender (451)");
                        return false;
                    }
                };
                let (verdict, edit) = (keep.verdict.clone(), keep.edit.clone());
                bodies.push(Made { verdict, class: keep.class, edit, made: body.clone() });
                body
            };
            records.push(hold::record(HeldId::fresh(), keep, body, &examined.message, transaction, now, retry_at));
        }
        let kinds: Vec<HeldKind> = records.iter().map(|record| record.kind).collect();
        if !(records.is_empty() || self.commit(Change::Hold { records }).await) {
            return false;
        }
        for kind in kinds {
            metrics().held(match kind {
                HeldKind::Quarantined => "quarantined",
                HeldKind::Deferred => "deferred",
            });
        }
        for (at, kind) in picks {
            if let Some(fate) = fates.get_mut(at) {
                fate.end = End::Held(kind);
            }
        }
        true
    }

    async fn commit(&self, change: Change) -> bool {
        match self.cluster.propose(change).await {
            Ok(Outcome::Done) => true,
            Ok(Outcome::Refused(refused)) => {
                tracing::warn!(%refused, "commit a record: the message is left with its sender (451)");
                false
            }
            Ok(Outcome::PolicyApplied { .. } | Outcome::Leased(_)) => {
                tracing::warn!(
                    "commit a record: the cluster answered another question, the message is left with its sender (451)"
                );
                false
            }
            Err(error) => {
                tracing::warn!(%error, "commit a record: the message is left with its sender (451)");
                false
            }
        }
    }

    fn stamped(
        &self,
        transaction: &Transaction,
        examined: &Examined,
        verdict: &Verdict,
        class: TrustClass,
        edit: &Edit,
    ) -> Bytes {
        let Examined { message, evidence, .. } = examined;
        let message = edit.as_ref().unwrap_or(message);
        headers::stamped(message, evidence, verdict, transaction, class, &self.host, UnixMs::now())
    }

    /// What the message says of its senders; nothing yet when it comes again.
    fn count(&self, transaction: &Transaction, examined: &Examined, fates: &[Fate], reply: &Reply) {
        let is_sent = fates.iter().any(|fate| fate.verdict.disposition == Disposition::Accept);
        if is_sent && class(transaction) == Some(TrustClass::Outbound) {
            self.outcomes.wrote(history::pairs(&examined.message, transaction));
        }
        let ends_here = class(transaction) == Some(TrustClass::Internet) && reply.class() != Class::Temporary;
        // What no next hop took for anybody, such as mail for mailboxes that do not exist, was not good.
        let delivered = fates.iter().any(|fate| matches!(fate.end, End::Delivered { .. }));
        let outcome = standing::outcome(&examined.verdicts, &transaction.view.state_policy);
        if let Some(good) = outcome.filter(|good| ends_here && (delivered || !good)) {
            let senders = senders(transaction, &examined.evidence.authentication);
            self.examiner.volume.saw(&standing::answerable(senders.clone(), false));
            self.outcomes.saw(&standing::answerable(senders, good), good);
            self.outcomes.saw_copy(&examined.evidence.copies, transaction.client.address, good);
        }
    }

    /// One line for each trip, without addresses.
    fn report(&self, transaction: &Transaction, examined: &Examined, fates: &[Fate], reply: &Reply, began: Instant) {
        self.count(transaction, examined, fates, reply);
        for (group, verdict) in &examined.verdicts {
            let class = group.first().map_or("none", |recipient| recipient.class.as_str());
            metrics().transaction(verdict.disposition, class);
        }
        let count = |disposition| fates.iter().filter(|fate| fate.verdict.disposition == disposition).count();
        let ends = |is: fn(&End) -> bool| fates.iter().filter(|fate| is(&fate.end)).count();
        let verdicts = examined.verdicts.iter().map(|(_, verdict)| verdict);
        let worst = verdicts.max_by_key(|verdict| (verdict.disposition != Disposition::Accept, verdict.score));
        let rules: Vec<&str> = worst
            .map(|verdict| verdict.reasons.iter().map(|reason| reason.rule.as_str()).collect())
            .unwrap_or_default();
        tracing::info!(
            target: "trip",
            id = %transaction.id,
            node = %self.node,
            class = class(transaction).map_or("none", TrustClass::as_str),
            size = examined.message.bytes.len(),
            policy = transaction.view.policy_version,
            accept = count(Disposition::Accept),
            quarantine = count(Disposition::Quarantine),
            reject = count(Disposition::Reject),
            defer = count(Disposition::Defer),
            discard = count(Disposition::Discard),
            delivered = ends(|end| matches!(end, End::Delivered { .. })),
            held = ends(|end| matches!(end, End::Held(_))),
            score = worst.map_or(0, |verdict| verdict.score.0),
            rules = %rules.join(","),
            virus = examined.evidence.virus.as_str(),
            reply = reply.code(),
            took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            "message"
        );
    }
}

/// What was made for a verdict, class and edit: the header fields that we add, and what stands below them, depend on nothing else.
struct Made<V, T> {
    verdict: V,
    class: TrustClass,
    edit: Edit,
    made: T,
}

/// The one that was made already.
fn made<'m, V: Borrow<Verdict>, T>(
    all: &'m [Made<V, T>],
    verdict: &Verdict,
    class: TrustClass,
    edit: &Edit,
) -> Option<&'m T> {
    let fits =
        |one: &&Made<V, T>| (one.verdict.borrow(), one.class) == (verdict, class) && is_same_edit(&one.edit, edit);
    all.iter().find(fits).map(|one| &one.made)
}

/// A message whose original is held is not left with its sender: each time that it came again another one would be held.
fn keep_once(fate: &mut Fate) {
    if let (Some(_), End::Deferred(reply)) = (&fate.edit, &fate.end) {
        fate.end = End::Unknown(reply.clone());
    }
}

/// Before anything is done nobody is safe; who is refused or put off by a verdict stays so.
fn first_fates(transaction: &Transaction, examined: &Examined) -> Vec<Fate> {
    let groups = examined.verdicts.iter().enumerate();
    let each = groups.flat_map(|(at, (group, verdict))| group.iter().map(move |recipient| (at, recipient, verdict)));
    each.map(|(at, recipient, verdict)| {
        let reply = resolve::reply_of(verdict, transaction.id);
        let end = match (verdict.disposition, reply) {
            (Disposition::Reject, Some(reply)) => End::Refused(reply),
            (Disposition::Defer, Some(reply)) => End::Deferred(reply),
            (Disposition::Accept | Disposition::Quarantine | Disposition::Discard, _)
            | (Disposition::Reject | Disposition::Defer, None) => End::Deferred(resolve::unheld(transaction.id)),
        };
        Fate { recipient: recipient.clone(), verdict: verdict.clone(), edit: examined.edit(at).clone(), end }
    })
    .collect()
}

/// What the next hops said, in a word for metrics.
fn outcome(handed: &[Handed]) -> &'static str {
    let word = |handed: &Handed| match handed {
        Handed::Accepted { .. } => "accepted",
        Handed::Refused(_) => "refused",
        Handed::Deferred(_) => "deferred",
        Handed::Unknown(_) => "unknown",
    };
    let first = handed.first().map_or("deferred", word);
    if handed.iter().all(|handed| word(handed) == first) { first } else { "mixed" }
}

fn end(handed: Handed) -> End {
    match handed {
        Handed::Accepted { next_hop, reply } => End::Delivered { next_hop, reply },
        Handed::Refused(reply) => End::Refused(reply),
        Handed::Deferred(reply) => End::Deferred(reply),
        Handed::Unknown(reply) => End::Unknown(reply),
    }
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
