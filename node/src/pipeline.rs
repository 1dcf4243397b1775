//! A message's whole trip: parse, gather, decide, act, resolve, report.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use futures::future::join_all;
use proto::{
    held::{HeldId, HeldKind},
    mutation::{Change, Outcome},
    policy::VirusScan,
    time::UnixMs,
    verdict::{Disposition, Verdict},
};
use tokio::time::timeout;
use tracing::Instrument as _;

use crate::{
    actions::{
        headers,
        hold::{self, Keep},
        relay::{Handed, Relay},
    },
    checks::{attachments, authentication::Authenticator, content, virus::VirusScanner},
    cluster::Cluster,
    limits::Limits,
    message::Message,
    policy::{
        decide::{decide, settled},
        evidence::{Authentication, Evidence, Virus},
        resolve::{self, End, Fate, Resolution, resolve},
    },
    smtp::{
        reply::Reply,
        transaction::{Recipient, Transaction, TrustClass},
    },
};

/// What the trip needs. Shared by all connections.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Our own name: in Received and as the authserv-id of Authentication-Results.
    pub host: Arc<str>,
    /// The node's name in the cluster.
    pub node: Arc<str>,
    /// The bounds.
    pub limits: Arc<Limits>,
    /// Where bodies, records and the audit trail go.
    pub cluster: Cluster,
    /// Where accepted mail goes.
    pub relay: Arc<Relay>,
    /// Asks DNS.
    pub authenticator: Authenticator,
    /// Asks clamd.
    pub virus: VirusScanner,
}

/// A message that was looked at, and what was decided about it.
#[derive(Clone, Debug)]
pub struct Examined {
    /// As it was read.
    pub message: Arc<Message>,
    /// What was found out.
    pub evidence: Evidence,
    /// Each recipient in exactly one group.
    pub verdicts: Vec<(Vec<Recipient>, Verdict)>,
}

impl Pipeline {
    /// Takes a message through all stages and gives the one reply for it. `bytes` is the message as it came after DATA,
    /// dots unstuffed, lines ended by CRLF.
    pub async fn run(&self, transaction: Transaction, bytes: Bytes) -> Reply {
        let began = Instant::now();
        let span = tracing::info_span!(
            "transaction",
            id = %transaction.id,
            class = class(&transaction).map_or("none", TrustClass::as_str),
            listener = ?transaction.client.listener,
            recipients = transaction.recipients.len(),
            size = bytes.len(),
        );
        async {
            let examined = self.examine(&transaction, bytes).await;
            let fates = self.act(&transaction, &examined).instrument(stage("act")).await;
            let (fates, reply) = self.settle(&transaction, &examined, fates).instrument(stage("resolve")).await;
            self.report(&transaction, &examined, &fates, &reply, began);
            reply
        }
        .instrument(span)
        .await
    }

    /// Reads, checks and decides: what `run` acts upon, and all that a scan asks for.
    pub async fn examine(&self, transaction: &Transaction, bytes: Bytes) -> Examined {
        let message = Arc::new(self.parse(bytes).instrument(stage("parse")).await);
        let evidence = if settled(&message, transaction) {
            Evidence { analysed: true, ..Evidence::nothing() }
        } else {
            self.gather(&message, transaction).instrument(stage("gather")).await
        };
        let verdicts = stage("decide").in_scope(|| decide(&message, &evidence, transaction));
        Examined { message, evidence, verdicts }
    }

    /// Hostile bytes are parsed on a thread where a panic is a failed parse.
    async fn parse(&self, bytes: Bytes) -> Message {
        let limits = self.limits.clone();
        let whole = bytes.clone();
        let parsing = tokio::task::spawn_blocking(move || Message::parse(bytes, &limits));
        match timeout(self.limits.checks_time_max, parsing).await {
            Ok(Ok(message)) => message,
            Ok(Err(_)) | Err(_) => Message::unparsable(whole),
        }
    }

    /// All checks at once, each with its own time, all of them under one.
    async fn gather(&self, message: &Arc<Message>, transaction: &Transaction) -> Evidence {
        let scan = transaction.recipients.iter().any(|to| to.policy.virus_scan.value == VirusScan::Required);
        let virus = async { if scan { self.virus.scan(&message.bytes).await } else { Virus::NotScanned } };
        let authentication = async {
            match class(transaction) {
                Some(TrustClass::Internet) => self.authenticator.check(message, transaction).await,
                // The private network tells who sent it.
                Some(TrustClass::Outbound | TrustClass::Interdepartmental) | None => Authentication::default(),
            }
        };
        let time_max = self.limits.checks_time_max;
        let (virus, authentication, analyses) = tokio::join!(
            timeout(time_max, virus),
            timeout(time_max, authentication),
            timeout(time_max, analyses(message.clone(), transaction.clone())),
        );
        let late = "the checks did not end in time";
        let mut evidence = analyses.unwrap_or_else(|_| Evidence::nothing());
        evidence.virus = virus.unwrap_or_else(|_| Virus::Unavailable { why: late.to_owned() });
        evidence.authentication = authentication.unwrap_or_else(|_| Authentication::unavailable(late));
        evidence
    }

    /// Does what the verdicts say. What must be kept is made safe before anything is handed on: when that fails, nothing is
    /// handed on either, and the sender's next attempt makes no duplicates.
    async fn act(&self, transaction: &Transaction, examined: &Examined) -> Vec<Fate> {
        let mut fates = first_fates(transaction, &examined.verdicts);
        if !self.keep(transaction, examined, &mut fates).await {
            for fate in fates.iter_mut().filter(|fate| fate.verdict.disposition == Disposition::Accept) {
                fate.end = End::Deferred(resolve::unheld(transaction.id));
            }
            return fates;
        }
        let accepted = examined.verdicts.iter().filter(|(_, verdict)| verdict.disposition == Disposition::Accept);
        let handing = accepted.map(|(group, verdict)| self.hand_on(transaction, examined, group, verdict));
        for (recipient, end) in join_all(handing).await.into_iter().flatten() {
            let theirs = |fate: &&mut Fate| {
                fate.recipient.address == recipient.address && fate.verdict.disposition == Disposition::Accept
            };
            fates.iter_mut().filter(theirs).for_each(|fate| fate.end = end.clone());
        }
        fates
    }

    /// Holds what is to be quarantined and leaves the trace of what is thrown away; false when either failed.
    async fn keep(&self, transaction: &Transaction, examined: &Examined, fates: &mut [Fate]) -> bool {
        for (group, verdict) in
            examined.verdicts.iter().filter(|(_, verdict)| verdict.disposition == Disposition::Discard)
        {
            let change = Change::Discard {
                transaction: transaction.id,
                recipients: u32::try_from(group.len()).unwrap_or(u32::MAX),
                verdict: verdict.clone(),
            };
            if !self.commit(change).await {
                return false;
            }
        }
        let is_kept = |fate: &Fate| fate.verdict.disposition == Disposition::Quarantine;
        let keeps = hold::keeps(fates.iter().filter(|fate| is_kept(fate)).map(|fate| (fate, HeldKind::Quarantined)));
        if !self.hold(transaction, examined, keeps).await {
            return false;
        }
        for fate in fates {
            match fate.verdict.disposition {
                Disposition::Quarantine => fate.end = End::Held(HeldKind::Quarantined),
                Disposition::Discard => fate.end = End::Discarded,
                Disposition::Accept | Disposition::Reject | Disposition::Defer => {}
            }
        }
        true
    }

    async fn hand_on(
        &self,
        transaction: &Transaction,
        examined: &Examined,
        group: &[Recipient],
        verdict: &Verdict,
    ) -> Vec<(Recipient, End)> {
        let Some(first) = group.first() else { return Vec::new() };
        let body = self.stamped(transaction, examined, verdict, first.class);
        let to: Vec<_> = group.iter().map(|recipient| recipient.address.clone()).collect();
        let handed = self.relay.deliver(&first.route, &transaction.reverse_path, &to, &body).await;
        let silent = || End::Deferred(resolve::unheld(transaction.id));
        let ends = handed.into_iter().map(end).chain(std::iter::repeat_with(silent));
        group.iter().cloned().zip(ends).collect()
    }

    /// Holds what `resolve` asks for and gives the reply that is then true.
    async fn settle(&self, transaction: &Transaction, examined: &Examined, mut fates: Vec<Fate>) -> (Vec<Fate>, Reply) {
        let Resolution { hold, reply } = resolve(transaction.id, &fates);
        let keeps = hold::keeps(hold.iter().filter_map(|(at, kind)| Some((fates.get(*at)?, *kind))));
        if !self.hold(transaction, examined, keeps).await {
            return (fates, resolve::unheld(transaction.id));
        }
        for (at, kind) in hold {
            if let Some(fate) = fates.get_mut(at) {
                fate.end = End::Held(kind);
            }
        }
        (fates, reply)
    }

    /// Makes the bodies durable and commits all records at once; true when there is nothing to hold.
    async fn hold(&self, transaction: &Transaction, examined: &Examined, keeps: Vec<Keep>) -> bool {
        let now = UnixMs::now();
        let mut records = Vec::with_capacity(keeps.len());
        for keep in keeps {
            let bytes = self.stamped(transaction, examined, &keep.verdict, keep.class);
            let body = match self.cluster.put_body(bytes).await {
                Ok(body) => body,
                Err(error) => {
                    tracing::warn!(%error, "store the body of a message to hold: it is left with its sender (451)");
                    return false;
                }
            };
            records.push(hold::record(HeldId::fresh(), keep, body, &examined.message, transaction, now));
        }
        records.is_empty() || self.commit(Change::Hold { records }).await
    }

    async fn commit(&self, change: Change) -> bool {
        match self.cluster.propose(change).await {
            Ok(Outcome::Done) => true,
            Ok(outcome @ (Outcome::PolicyApplied { .. } | Outcome::Leased(_) | Outcome::Refused(_))) => {
                tracing::warn!(
                    ?outcome,
                    "commit a record: the cluster did not take it, the message is left with its sender (451)"
                );
                false
            }
            Err(error) => {
                tracing::warn!(%error, "commit a record: the message is left with its sender (451)");
                false
            }
        }
    }

    fn stamped(&self, transaction: &Transaction, examined: &Examined, verdict: &Verdict, class: TrustClass) -> Bytes {
        let Examined { message, evidence, .. } = examined;
        headers::stamped(message, evidence, verdict, transaction, class, &self.host, UnixMs::now())
    }

    /// One line for each trip, without addresses.
    fn report(&self, transaction: &Transaction, examined: &Examined, fates: &[Fate], reply: &Reply, began: Instant) {
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

fn stage(name: &'static str) -> tracing::Span {
    tracing::info_span!("stage", otel.name = name, stage = name)
}

/// How the message is trusted. A client is on one side only, so recipients differ by no more than where they are.
fn class(transaction: &Transaction) -> Option<TrustClass> {
    transaction.recipients.iter().map(|recipient| recipient.class).min()
}

/// The pure analyses, on a thread where a panic is a failed analysis.
async fn analyses(message: Arc<Message>, transaction: Transaction) -> Evidence {
    let analysing = tokio::task::spawn_blocking(move || {
        let attachments = attachments::analyse(&message);
        let mut content = content::analyse(&message, &transaction);
        content.extend(attachments.reasons);
        let kinds = attachments.found;
        Evidence { kinds, opaque: attachments.opaque, content, analysed: true, ..Evidence::nothing() }
    });
    analysing.await.unwrap_or_else(|_| Evidence::nothing())
}

/// Before anything is done nobody is safe; who is refused or put off by a verdict stays so.
fn first_fates(transaction: &Transaction, verdicts: &[(Vec<Recipient>, Verdict)]) -> Vec<Fate> {
    let each = verdicts.iter().flat_map(|(group, verdict)| group.iter().map(move |recipient| (recipient, verdict)));
    each.map(|(recipient, verdict)| {
        let reply = resolve::reply_of(verdict, transaction.id);
        let end = match (verdict.disposition, reply) {
            (Disposition::Reject, Some(reply)) => End::Refused(reply),
            (Disposition::Defer, Some(reply)) => End::Deferred(reply),
            (Disposition::Accept | Disposition::Quarantine | Disposition::Discard, _)
            | (Disposition::Reject | Disposition::Defer, None) => End::Deferred(resolve::unheld(transaction.id)),
        };
        Fate { recipient: recipient.clone(), verdict: verdict.clone(), end }
    })
    .collect()
}

fn end(handed: Handed) -> End {
    match handed {
        Handed::Accepted { next_hop, reply } => End::Delivered { next_hop, reply },
        Handed::Refused(reply) => End::Refused(reply),
        Handed::Deferred(reply) => End::Deferred(reply),
    }
}
