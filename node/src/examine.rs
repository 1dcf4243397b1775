//! Reads a message, checks it and decides about it, without doing anything: the part of the trip that mail over SMTP and a
//! scan have in common.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use proto::{
    policy::VirusScan,
    reputation::Subject,
    score::Score,
    time::UnixMs,
    verdict::{Reason, Verdict},
};
use tokio::{sync::Semaphore, time::timeout};
use tracing::info_span;

use crate::{
    checks::{
        attachments::{self, Analysis},
        authentication::Authenticator,
        content, history,
        listing::Entry,
        lists::Lists,
        opener::{Openers, Unopened},
        virus::VirusScanner,
        volume::Volume,
    },
    limits::Limits,
    message::{Defect, Message},
    policy::{
        decide::{decide, settled},
        evidence::{Analysed, Authentication, Evidence, Virus},
        standing,
    },
    reception::ASKING_TIME_MAX,
    smtp::transaction::{Recipient, Transaction, TrustClass},
    telemetry::stage,
};

/// A message of at most so many bytes is read, and its text analysed, without a thread of its own.
const SHORT_BYTES_MAX: usize = 32 * 1024;
/// Encoded parts that are scanned one by one.
const DECODED_PARTS_MAX: usize = 64;

/// What examining needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Examiner {
    /// The bounds.
    pub limits: Arc<Limits>,
    /// Asks DNS.
    pub authenticator: Authenticator,
    /// Asks clamd.
    pub virus: VirusScanner,
    /// Open attachments.
    pub openers: Openers,
    /// Counts what comes from whom.
    pub volume: Volume,
    lists: Lists,
    host: Arc<str>,
    places: Arc<Semaphore>,
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

impl Examiner {
    /// `host` is our own name, as it stands in our Received fields.
    #[must_use]
    pub fn new(
        host: &str,
        limits: &Limits,
        authenticator: Authenticator,
        virus: VirusScanner,
        openers: Openers,
    ) -> Self {
        let places = Arc::new(Semaphore::new(limits.analyses_max));
        let lists = Lists::of_names(authenticator.resolver(), ASKING_TIME_MAX);
        Self {
            limits: Arc::new(limits.clone()),
            authenticator,
            virus,
            openers,
            volume: Volume::default(),
            lists,
            host: host.into(),
            places,
        }
    }

    /// Reads, checks and decides. Ends within twice `Limits::checks_time_max`.
    pub async fn examine(&self, transaction: &Transaction, bytes: Bytes) -> Examined {
        let message = Arc::new(stage("parse", info_span!("parse"), self.parse(bytes)).await);
        let evidence = if settled(&message, transaction) {
            Evidence { analysed: Analysed::Whole, ..Evidence::nothing() }
        } else {
            stage("gather", info_span!("gather"), self.gather(&message, transaction)).await
        };
        let verdicts = stage("decide", info_span!("decide"), async { decide(&message, &evidence, transaction) }).await;
        Examined { message, evidence, verdicts }
    }

    async fn parse(&self, bytes: Bytes) -> Message {
        let (limits, host, whole) = (self.limits.clone(), self.host.clone(), bytes.clone());
        let parsing = self.on_a_thread(whole.len(), move || read(bytes, &limits, &host));
        let parsed = timeout(self.limits.checks_time_max, parsing).await;
        parsed.ok().flatten().unwrap_or_else(|| Message::unparsable(whole))
    }

    /// Hostile bytes are read on a thread, where a panic is a failed attempt: `None`. One that is given up goes on to its end
    /// and keeps its place until then, so that slow messages cannot take more than `Limits::analyses_max` threads.
    ///
    /// Of a short one the thread would cost more than the work: it is read here, where a panic is as much as there.
    async fn on_a_thread<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let place = self.places.clone().acquire_owned().await.ok()?;
        if bytes <= SHORT_BYTES_MAX {
            return catch_unwind(AssertUnwindSafe(work)).ok();
        }
        let working = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        working.await.ok()
    }

    /// The pure analyses: of the text here, of attachments in an opener. A message that opens nothing needs none.
    async fn analyses(&self, message: Arc<Message>, transaction: Transaction) -> Evidence {
        let recipients = transaction.recipients.iter();
        let fingerprints: BTreeSet<_> =
            recipients.flat_map(|to| to.policy.fingerprints.value.iter().cloned()).collect();
        let (length, now) = (message.bytes.len(), UnixMs::now());
        if attachments::is_plain(&message) {
            let both = move || (content(&message, &transaction, now), attachments::analyse(&message, &fingerprints));
            let found = self.on_a_thread(length, both).await;
            return found.map_or_else(Evidence::nothing, |(content, found)| evidence(Some(content), Ok(found)));
        }
        let of_attachments = self.openers.analyse(&message, fingerprints);
        let (of_message, of_transaction) = (message.clone(), transaction);
        let of_content = self.on_a_thread(length, move || content(&of_message, &of_transaction, now));
        let (content, attachments) = tokio::join!(of_content, of_attachments);
        evidence(content, attachments)
    }

    /// The pure analyses, and what lists say of the names that they find.
    async fn analyses_and_lists(&self, message: &Arc<Message>, transaction: &Transaction) -> Evidence {
        let mut evidence = self.analyses(message.clone(), transaction.clone()).await;
        let Some(rules) = transaction.view.settings.content.as_ref() else { return evidence };
        let entries: Vec<Entry> = evidence.hosts.iter().filter_map(|host| Entry::of_host(host)).collect();
        let found = self.lists.reasons(("DOMAIN_LIST", "DOMAIN_ALLOW_LIST"), &entries, &rules.domain_lists).await;
        evidence.content.extend(capped(found));
        evidence
    }

    /// Scans each part that we decode, and the message as it came: the scanner and a mail program may take an odd encoding
    /// differently. What is too broken for us is not handed to a scanner that might spend minutes on it.
    async fn scan(&self, message: &Message) -> Virus {
        if message.defects.iter().any(|defect| defect.breaks()) {
            return Virus::Unscannable { why: "the message is broken or too complex".to_owned() };
        }
        let decoded = decoded(message);
        if decoded.len() > DECODED_PARTS_MAX {
            return Virus::Unscannable { why: "the message has too many encoded parts".to_owned() };
        }
        self.virus.scan(&message.bytes, &decoded).await
    }

    /// Scans a message that was held: it is read anew, so that its parts are seen as they were the first time.
    pub async fn scan_held(&self, bytes: Bytes) -> Virus {
        let message = self.parse(bytes).await;
        match self.scan(&message).await {
            // Somebody may have released it all the same: then what can be looked at is.
            Virus::Unscannable { why } => match self.virus.scan(&message.bytes, &[]).await {
                Virus::Clean => Virus::Unscannable { why },
                found @ (Virus::Infected { .. }
                | Virus::Unavailable { .. }
                | Virus::Unscannable { .. }
                | Virus::NotScanned) => found,
            },
            found @ (Virus::Clean | Virus::Infected { .. } | Virus::Unavailable { .. } | Virus::NotScanned) => found,
        }
    }

    /// All checks at once, each with its own time, all of them under one.
    async fn gather(&self, message: &Arc<Message>, transaction: &Transaction) -> Evidence {
        let scan = transaction.recipients.iter().any(|to| to.policy.virus_scan.value == VirusScan::Required);
        let virus = async { if scan { self.scan(message).await } else { Virus::NotScanned } };
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
            timeout(time_max, self.analyses_and_lists(message, transaction)),
        );
        let late = "the checks did not end in time";
        let mut evidence = analyses.unwrap_or_else(|_| Evidence::nothing());
        evidence.virus = virus.unwrap_or_else(|_| Virus::Unavailable { why: late.to_owned() });
        if let Virus::Unavailable { why } = &evidence.virus {
            tracing::warn!(%why, "a message could not be scanned for malware: see that clamd runs and answers");
        }
        evidence.authentication = authentication.unwrap_or_else(|_| Authentication::unavailable(late));
        if class(transaction) == Some(TrustClass::Internet) {
            let senders = senders(transaction, &evidence.authentication);
            evidence.client.clone_from(&transaction.client.reasons);
            let now = UnixMs::now();
            evidence.senders = standing::known(&transaction.view.reputation, &senders, now);
            evidence.content.extend(history::correspondent(message, transaction, &senders, now));
            evidence.content.extend(self.volume.reason(&senders, evidence.senders));
        }
        evidence
    }
}

/// Lists together count no more than any other group, either way.
fn capped(found: Vec<Reason>) -> Vec<Reason> {
    let mut so_far = 0;
    let most = content::GROUP_MAX.0;
    let cap = |mut reason: Reason| {
        let sum = (so_far + reason.score.0).clamp(-most, most);
        reason.score = Score(sum - so_far);
        so_far = sum;
        (reason.score != Score::ZERO).then_some(reason)
    };
    found.into_iter().filter_map(cap).collect()
}

/// Who answers for a message from the Internet.
#[must_use]
pub fn senders(transaction: &Transaction, found: &Authentication) -> Vec<Subject> {
    standing::senders(transaction.client.address, &transaction.reverse_path, found)
}

/// What the text says: only what comes from the Internet is scored.
fn content(message: &Message, transaction: &Transaction, now: UnixMs) -> Evidence {
    let mut evidence = Evidence::nothing();
    if class(transaction) == Some(TrustClass::Internet) {
        let found = content::analyse(message, transaction);
        evidence.content = found.reasons;
        evidence.content.extend(found.copies.reason(&transaction.view.reputation, now));
        (evidence.copies, evidence.hosts) = (found.copies.into_subjects(), found.hosts);
    }
    evidence
}

/// What the analyses found; whatever could not be found out is said to be so.
fn evidence(content: Option<Evidence>, attachments: Result<Analysis, Unopened>) -> Evidence {
    let of_content = if content.is_some() { Analysed::Whole } else { Analysed::BrokeOff };
    let of_attachments = match &attachments {
        Ok(_) => Analysed::Whole,
        Err(Unopened::BrokeOff(_)) => Analysed::BrokeOff,
        Err(Unopened::NotNow(_)) => Analysed::NotNow,
    };
    let Analysis { found: kinds, fingerprints, opaque, reasons } = attachments.unwrap_or_default();
    let mut evidence = content.unwrap_or_else(Evidence::nothing);
    evidence.content.extend(reasons);
    Evidence { kinds, fingerprints, opaque, analysed: of_content.max(of_attachments), ..evidence }
}

/// The parts whose bytes do not stand in the message as it came.
fn decoded(message: &Message) -> Vec<&Bytes> {
    let raw = message.bytes.as_ptr_range();
    let parts = message.parts.iter().map(|part| &part.content);
    parts.filter(|part| !part.is_empty() && !raw.contains(&part.as_ptr())).collect()
}

/// How the message is trusted. A client is on one side only, so recipients differ by no more than where they are.
#[must_use]
pub fn class(transaction: &Transaction) -> Option<TrustClass> {
    transaction.recipients.iter().map(|recipient| recipient.class).min()
}

/// Reads a message. It is in a loop also when it was here too often (RFC 5321 section 6.3).
fn read(bytes: Bytes, limits: &Limits, host: &str) -> Message {
    let mut message = Message::parse(bytes, limits);
    if message.received_by(host) > limits.own_hops_max && !message.defects.contains(&Defect::TooManyHops) {
        message.defects.push(Defect::TooManyHops);
    }
    message
}

#[cfg(test)]
#[path = "examine_tests.rs"]
mod tests;
