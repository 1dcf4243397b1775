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
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use proto::{
        policy::{PolicyLayer, VirusScan},
        verdict::Disposition,
    };

    use super::{Examined, Examiner, SHORT_BYTES_MAX, evidence};
    use crate::{
        checks::{
            attachments::Analysis,
            authentication::{Authenticator, resolver},
            opener::{Cause, Unopened, no_openers},
            virus::VirusScanner,
        },
        limits::Limits,
        policy::{
            evidence::{Analysed, AuthResult},
            samples::{from_department, transaction, view},
        },
        smtp::transaction::TrustClass,
    };

    const TO: [&str; 2] = ["anna@interior.gov.test", "karl@health.gov.test"];

    /// A name server that is never reached, no clamd, and nothing that opens attachments.
    async fn examiner() -> Examiner {
        let time = Duration::from_millis(300);
        let limits = Limits { authentication_time_max: time, checks_time_max: time * 2, ..Limits::default() };
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let resolver = resolver(&[silent.local_addr().expect("an address")]).expect("a resolver");
        let authenticator = Authenticator::new("mx.gov.test", resolver, &limits);
        let scanner = VirusScanner::new(Vec::new(), &limits);
        Examiner::new("mx.gov.test", &limits, authenticator, scanner, no_openers(&limits))
    }

    async fn examine(text: &str, class: TrustClass, policy: PolicyLayer) -> Examined {
        examine_by(&examiner().await, text, class, policy).await
    }

    async fn examine_by(examiner: &Examiner, text: &str, class: TrustClass, policy: PolicyLayer) -> Examined {
        let mut transaction = transaction(view(policy), &TO);
        if class != TrustClass::Internet {
            transaction = from_department(transaction, "health", class);
        }
        examiner.examine(&transaction, Bytes::from(text.replace('\n', "\r\n"))).await
    }

    #[tokio::test]
    async fn without_clamd_only_a_recipient_whose_policy_says_off_gets_it() {
        let off = PolicyLayer { virus_scan: Some(VirusScan::Off), ..PolicyLayer::default() };
        let examined = examine("From: a@sender.test\n\nx\n", TrustClass::Internet, off).await;
        let found: Vec<_> = examined.verdicts.iter().map(|(_, verdict)| verdict.disposition).collect();
        assert_eq!(found, [Disposition::Accept, Disposition::Defer]);
        assert_eq!(examined.evidence.virus.as_str(), "unavailable");
        assert_eq!(examined.evidence.authentication.spf, AuthResult::TempError);
    }

    #[tokio::test]
    async fn what_is_settled_is_not_checked() {
        let examined = examine("From: a@interior.gov.test\n\nx\n", TrustClass::Internet, PolicyLayer::default()).await;
        assert_eq!(examined.evidence.virus.as_str(), "not-scanned");
        assert!(examined.verdicts.iter().all(|(_, verdict)| verdict.disposition == Disposition::Reject));
    }

    #[tokio::test]
    async fn mail_between_departments_is_scanned_and_typed_but_nobody_asks_dns_or_scores_it() {
        let text = "From: a@health.gov.test\nSubject: YOU HAVE WON THE LOTTERY!!!\n\nMZ\u{1}\n";
        let examined = examine(text, TrustClass::Interdepartmental, PolicyLayer::default()).await;
        assert_eq!(examined.evidence.authentication.spf, AuthResult::None);
        let rules: Vec<_> = examined.verdicts[0].1.reasons.iter().map(|reason| reason.rule.as_str()).collect();
        assert_eq!(rules, ["VIRUS_UNAVAILABLE", "BLOCKED_TYPE"]);
    }

    #[tokio::test]
    async fn what_cannot_be_opened_now_is_put_off_and_text_goes_on() {
        let off = || PolicyLayer { virus_scan: Some(VirusScan::Off), ..PolicyLayer::default() };
        let file = "From: a@sender.test\nContent-Disposition: attachment; filename=a.txt\n\nx\n";
        let uuencoded = "From: a@sender.test\n\nbegin 644 a.txt\n#0V%T\n`\nend\n";
        for (text, expected) in [
            (file, Disposition::Defer),
            (uuencoded, Disposition::Defer),
            ("From: a@sender.test\n\nLet us begin.\n", Disposition::Accept),
        ] {
            let verdict = examine(text, TrustClass::Internet, off()).await.verdicts.remove(0).1;
            assert_eq!(verdict.disposition, expected, "{text}: {verdict:?}");
            let put_off = verdict.reasons.iter().any(|reason| reason.rule == "EXAMINATION_UNAVAILABLE");
            assert_eq!(put_off, expected == Disposition::Defer, "{text}: {verdict:?}");
        }
    }

    #[tokio::test]
    async fn a_message_that_no_thread_is_free_for_is_no_pass() {
        let examiner = examiner().await;
        let all = u32::try_from(examiner.limits.analyses_max).expect("few");
        let places = examiner.places.acquire_many(all).await.expect("places");
        let off = || PolicyLayer { virus_scan: Some(VirusScan::Off), ..PolicyLayer::default() };
        let text = "From: a@sender.test\n\nx\n";
        let examined = examine_by(&examiner, text, TrustClass::Internet, off()).await;
        assert_eq!(examined.verdicts[0].1.disposition, Disposition::Quarantine);
        assert_eq!(examined.verdicts[0].1.reasons[0].rule, "UNPARSABLE");
        drop(places);
        let examined = examine_by(&examiner, text, TrustClass::Internet, off()).await;
        assert_eq!(examined.verdicts[0].1.disposition, Disposition::Accept);
    }

    #[tokio::test]
    async fn a_panic_over_a_message_is_a_failed_attempt_however_short_it_is() {
        let examiner = examiner().await;
        for bytes in [1, SHORT_BYTES_MAX + 1] {
            assert_eq!(examiner.on_a_thread(bytes, || -> u8 { panic!("as told") }).await, None);
            assert_eq!(examiner.on_a_thread(bytes, || 7).await, Some(7));
        }
    }

    #[tokio::test]
    async fn a_thread_that_is_late_keeps_its_place() {
        let examiner = examiner().await;
        let (end, wait) = std::sync::mpsc::sync_channel::<()>(1);
        let late = examiner.on_a_thread(SHORT_BYTES_MAX + 1, move || wait.recv());
        assert!(tokio::time::timeout(Duration::from_millis(20), late).await.is_err());
        assert_eq!(examiner.places.available_permits(), examiner.limits.analyses_max - 1);
        end.send(()).expect("it waits");
        let all = u32::try_from(examiner.limits.analyses_max).expect("few");
        assert!(examiner.places.acquire_many(all).await.is_ok());
    }

    #[test]
    fn what_was_not_looked_at_is_said_to_be_so() {
        let analysed = |content, opened| evidence(content, opened).analysed;
        let (whole, broken) = (Some(Vec::new()), Err(Unopened::BrokeOff(Cause::Late)));
        assert_eq!(analysed(whole.clone(), Ok(Analysis::default())), Analysed::Whole);
        assert_eq!(analysed(None, Ok(Analysis::default())), Analysed::BrokeOff);
        assert_eq!(analysed(whole, broken), Analysed::BrokeOff);
        assert_eq!(analysed(None, Err(Unopened::NotNow(String::new()))), Analysed::NotNow);
    }

    #[tokio::test]
    async fn a_message_that_was_here_too_often_is_in_a_loop() {
        let own = "Received: from a (b)\n\tby MX.gov.test with ESMTP id 1;\n\tnow\n";
        let off = || PolicyLayer { virus_scan: Some(VirusScan::Off), ..PolicyLayer::default() };
        for (times, expected) in [(5, Disposition::Accept), (6, Disposition::Reject)] {
            let text = format!("{}From: a@sender.test\n\nx\n", own.repeat(times));
            let verdict = examine(&text, TrustClass::Internet, off()).await.verdicts.remove(0).1;
            assert_eq!(verdict.disposition, expected);
            assert_eq!(verdict.reasons.iter().any(|reason| reason.rule == "MAIL_LOOP"), times == 6);
        }
    }

    #[tokio::test]
    async fn bytes_that_are_no_message_get_a_verdict() {
        let off = PolicyLayer { virus_scan: Some(VirusScan::Off), ..PolicyLayer::default() };
        let examined = examine("\0\u{1}\u{2} no header at all", TrustClass::Internet, off).await;
        assert_eq!(examined.verdicts[0].1.disposition, Disposition::Quarantine);
        assert_eq!(examined.verdicts[0].1.reasons[0].rule, "UNPARSABLE");
    }
}
