//! Reads a message, checks it and decides about it, without doing anything: the part of the trip that mail over SMTP and a
//! scan have in common.

mod strip;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use proto::{
    learning::{lesson::Lesson, model::Model},
    policy::{Policy, VirusScan},
    reputation::Subject,
    rules::engine::Found,
    score::Score,
    time::UnixMs,
    verdict::{Reason, Verdict},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, timeout, timeout_at},
};
use tracing::info_span;

use crate::{
    checks::{
        attachments::{self, Analysis, Unwanted},
        authentication::Authenticator,
        content,
        facts::Facts,
        history, learnt,
        lists::Lists,
        opener::{Openers, Unopened},
        own_rules,
        virus::VirusScanner,
        volume::Volume,
    },
    learning::InUse,
    limits::Limits,
    message::{Defect, Message},
    policy::{
        decide::{decide, settled},
        evidence::{Analysed, Authentication, Evidence, Virus},
        resolve::Edit,
        score::within,
        standing,
    },
    reception::{ASKING_TIME_MAX, net},
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
    /// What the cluster has learnt.
    pub learnt: watch::Receiver<InUse>,
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
    /// What each group gets in the place of the message, in their order.
    pub edits: Vec<Edit>,
}

impl Examined {
    /// What the group at this place gets in the place of the message.
    #[must_use]
    pub fn edit(&self, at: usize) -> &Edit {
        self.edits.get(at).unwrap_or(&None)
    }
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
            learnt: watch::channel(InUse::default()).1,
            lists,
            host: host.into(),
            places,
        }
    }

    /// The same with what the cluster has learnt.
    #[must_use]
    pub fn with_learnt(self, learnt: watch::Receiver<InUse>) -> Self {
        Self { learnt, ..self }
    }

    /// What a message teaches that was so far over the threshold; nothing when it cannot be read.
    pub async fn lesson(&self, transaction: Transaction, bytes: Bytes, over: Score) -> Option<Lesson> {
        let message = self.parse(bytes).await;
        let length = message.bytes.len();
        self.in_time(length, move || learnt::lesson(&Facts::of(&message, &transaction), over)).await.ok().flatten()
    }

    /// Reads, checks and decides. Ends within twice `Limits::checks_time_max`.
    pub async fn examine(&self, transaction: &Transaction, bytes: Bytes) -> Examined {
        let message = Arc::new(stage("parse", info_span!("parse"), self.parse(bytes)).await);
        let evidence = if settled(&message, transaction) {
            Evidence { analysed: Analysed::Whole, ..Evidence::nothing() }
        } else {
            stage("gather", info_span!("gather"), self.gather(&message, transaction)).await
        };
        let deciding = async {
            let mut verdicts = decide(&message, &evidence, transaction);
            let edits = self.strip(&message, &evidence, transaction, &mut verdicts).await;
            (verdicts, edits)
        };
        let (verdicts, edits) = stage("decide", info_span!("decide"), deciding).await;
        Examined { message, evidence, verdicts, edits }
    }

    /// A message that nobody had time for is not read; one on which the parser failed, or is too slow, is not to be read.
    async fn parse(&self, bytes: Bytes) -> Message {
        let ends = Instant::now() + self.limits.checks_time_max;
        let Ok(place) = timeout_at(ends, self.place()).await else { return Message::unread(bytes) };
        let (limits, host, whole) = (self.limits.clone(), self.host.clone(), bytes.clone());
        let parsing = on_a_thread(place, whole.len(), move || read(bytes, &limits, &host));
        let parsed = timeout_at(ends, parsing).await;
        parsed.ok().flatten().unwrap_or_else(|| Message::unparsable(whole))
    }

    /// A place among the analyses; `None` when there is none any more.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().acquire_owned().await.ok()
    }

    /// The pure analyses: of the text here, of attachments in an opener, which a message that opens nothing does not need; beside them
    /// what the rules that people have written look for, which they judge when the other checks have ended.
    async fn analyses(&self, message: Arc<Message>, transaction: Transaction) -> (Evidence, Option<Found>) {
        let recipients = transaction.recipients.iter();
        let unwanted = unwanted(recipients.map(|to| &*to.policy));
        let (length, now) = (message.bytes.len(), UnixMs::now());
        // Who has a /48 has 65,536 clients (RFC 6177).
        let client = [(32, 64), (24, 48)].map(|(v4, v6)| net(transaction.client.address, v4, v6));
        let own = self.learnt.borrow().model.clone();
        if attachments::is_plain(&message) {
            let both = move || {
                (content(&message, &transaction, own.as_deref(), now), attachments::analyse(&message, &unwanted))
            };
            return match self.in_time(length, both).await {
                Ok((content, found)) => evidence(Ok(content), Ok(found)),
                Err(analysed) => evidence(Err(analysed), Ok(Analysis::default())),
            };
        }
        let of_attachments = self.openers.analyse(&message, unwanted, client);
        let of_message = message.clone();
        let of_content = self.in_time(length, move || content(&of_message, &transaction, own.as_deref(), now));
        let (content, attachments) = tokio::join!(of_content, of_attachments);
        evidence(content, attachments)
    }

    /// What the work comes to within `Limits::checks_time_max`, the wait for a place among it; else how far it came.
    async fn in_time<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Analysed> {
        let ends = Instant::now() + self.limits.checks_time_max;
        let place = timeout_at(ends, self.place()).await.map_err(|_| Analysed::NotNow)?;
        timeout_at(ends, on_a_thread(place, bytes, work)).await.ok().flatten().ok_or(Analysed::BrokeOff)
    }

    /// The pure analyses, and what lists say of the names that they find.
    async fn analyses_and_lists(&self, message: &Arc<Message>, transaction: &Transaction) -> (Evidence, Option<Found>) {
        let (mut evidence, searched) = self.analyses(message.clone(), transaction.clone()).await;
        let Some(rules) = transaction.view.settings.content.as_ref() else { return (evidence, searched) };
        let found = self.lists.reasons(|_| "DOMAIN_LIST", &evidence.domains, &rules.domain_lists).await;
        // Lists together count no more than any other group.
        let mut so_far = Score::ZERO;
        evidence.content.extend(found.into_iter().filter_map(|one| within(content::GROUP_MAX, &mut so_far, one)));
        (evidence, searched)
    }

    /// Scans each part that we decode, and the message as it came: the scanner and a mail program may take an odd encoding
    /// differently. What is too broken for us is not handed to a scanner that might spend minutes on it.
    async fn scan(&self, message: &Message) -> Virus {
        if message.defects.contains(&Defect::Unread) {
            return Virus::Unavailable { why: "there was no room to read the message".to_owned() };
        }
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
        let (virus, authentication, (mut evidence, found)) = tokio::join!(
            timeout(time_max, virus),
            timeout(time_max, authentication),
            self.analyses_and_lists(message, transaction),
        );
        let late = "the checks did not end in time";
        evidence.virus = virus.unwrap_or_else(|_| Virus::Unavailable { why: late.to_owned() });
        if let Virus::Unavailable { why } = &evidence.virus {
            tracing::warn!(%why, "a message could not be scanned for malware: see that clamd runs and answers");
        }
        evidence.authentication = authentication.unwrap_or_else(|_| Authentication::unavailable(late));
        if class(transaction) == Some(TrustClass::Internet) {
            if let Some(found) = &found {
                evidence.content.extend(by_rules(found, &evidence.authentication, transaction));
            }
            let senders = senders(transaction, &evidence.authentication);
            evidence.client.clone_from(&transaction.client.reasons);
            let now = UnixMs::now();
            evidence.senders = standing::known(&transaction.view.reputation, &senders, now);
            evidence.content.extend(history::correspondent(message, transaction, &senders, now));
            evidence.content.extend(self.volume.reason(&standing::answerable(senders, false), evidence.senders));
        }
        evidence
    }
}

/// What the text says, and what rules look for in it: only what comes from the Internet is scored.
fn content(
    message: &Message,
    transaction: &Transaction,
    own: Option<&Model>,
    now: UnixMs,
) -> (Evidence, Option<Found>) {
    let mut evidence = Evidence::nothing();
    if class(transaction) != Some(TrustClass::Internet) {
        return (evidence, None);
    }
    let facts = Facts::of(message, transaction);
    let found = content::analyse(&facts, own);
    evidence.content = found.reasons;
    evidence.content.extend(found.copies.reason(&transaction.view.reputation, now));
    (evidence.copies, evidence.domains) = (found.copies.into_subjects(), found.domains);
    (evidence, Some(own_rules::search(&transaction.view.rules, &facts)))
}

/// What the analyses found; whatever could not be found out is said to be so.
fn evidence(
    content: Result<(Evidence, Option<Found>), Analysed>,
    attachments: Result<Analysis, Unopened>,
) -> (Evidence, Option<Found>) {
    let of_attachments = match &attachments {
        Ok(_) => Analysed::Whole,
        Err(Unopened::BrokeOff(_)) => Analysed::BrokeOff,
        Err(Unopened::NotNow(_)) => Analysed::NotNow,
    };
    let of_content = match &content {
        // What was not looked through to its end was not analysed.
        Ok((_, Some(found))) if found.is_cut => Analysed::BrokeOff,
        Ok(_) => Analysed::Whole,
        Err(analysed) => *analysed,
    };
    let Analysis { found: kinds, fingerprints, names, barred, opaque, reasons } = attachments.unwrap_or_default();
    let (mut evidence, found) = content.unwrap_or_else(|_| (Evidence::nothing(), None));
    evidence.content.extend(reasons);
    let analysed = of_content.max(of_attachments);
    (Evidence { kinds, fingerprints, names, barred, opaque, analysed, ..evidence }, found)
}

/// What any of these policies does not let in, beside kinds.
fn unwanted<'p>(policies: impl Iterator<Item = &'p Policy>) -> Unwanted {
    let mut unwanted = Unwanted::default();
    for policy in policies {
        unwanted.fingerprints.extend(policy.fingerprints.value.iter().cloned());
        unwanted.names.extend(policy.blocked_names.value.iter().cloned());
    }
    unwanted
}

/// What the rules that people have written say of a message.
fn by_rules(found: &Found, checked: &Authentication, transaction: &Transaction) -> Vec<Reason> {
    if found.is_cut {
        tracing::warn!(id = %transaction.id, "a message was too complex for the rules of the policy: it counts as unparsable");
    }
    own_rules::reasons(&transaction.view.rules, found, checked, &transaction.client)
}

/// Hostile bytes are read on a thread, where a panic is a failed attempt: `None`. One that is given up goes on to its end
/// and keeps its place until then, so that slow messages cannot take more than `Limits::analyses_max` threads.
///
/// Of a short one the thread would cost more than the work: it is read here, where a panic is as much as there.
async fn on_a_thread<T: Send + 'static>(
    place: Option<OwnedSemaphorePermit>,
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let place = place?;
    if bytes <= SHORT_BYTES_MAX {
        return catch_unwind(AssertUnwindSafe(work)).ok();
    }
    let working = tokio::task::spawn_blocking(move || {
        let _place = place;
        work()
    });
    working.await.ok()
}

/// Who answers for a message from the Internet.
#[must_use]
pub fn senders(transaction: &Transaction, found: &Authentication) -> Vec<Subject> {
    standing::senders(transaction.client.address, &transaction.reverse_path, found)
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
