//! Reads a message, checks it and decides about it, without doing anything: the part of the trip that mail over SMTP and a
//! scan have in common.

use std::sync::Arc;

use bytes::Bytes;
use proto::{policy::VirusScan, verdict::Verdict};
use tokio::time::timeout;
use tracing::info_span;

use crate::{
    checks::{attachments, authentication::Authenticator, content, virus::VirusScanner},
    limits::Limits,
    message::Message,
    policy::{
        decide::{decide, settled},
        evidence::{Authentication, Evidence, Virus},
    },
    smtp::transaction::{Recipient, Transaction, TrustClass},
    telemetry::stage,
};

/// What examining needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Examiner {
    /// The bounds.
    pub limits: Arc<Limits>,
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

impl Examiner {
    /// Reads, checks and decides. Ends within twice `Limits::checks_time_max`.
    pub async fn examine(&self, transaction: &Transaction, bytes: Bytes) -> Examined {
        let message = Arc::new(stage("parse", info_span!("parse"), self.parse(bytes)).await);
        let evidence = if settled(&message, transaction) {
            Evidence { analysed: true, ..Evidence::nothing() }
        } else {
            stage("gather", info_span!("gather"), self.gather(&message, transaction)).await
        };
        let verdicts = stage("decide", info_span!("decide"), async { decide(&message, &evidence, transaction) }).await;
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
}

/// How the message is trusted. A client is on one side only, so recipients differ by no more than where they are.
#[must_use]
pub fn class(transaction: &Transaction) -> Option<TrustClass> {
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

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use bytes::Bytes;
    use proto::{
        policy::{PolicyLayer, VirusScan},
        verdict::Disposition,
    };

    use super::{Examined, Examiner};
    use crate::{
        checks::{
            authentication::{Authenticator, resolver},
            virus::VirusScanner,
        },
        limits::Limits,
        policy::{
            evidence::AuthResult,
            samples::{from_department, transaction, view},
        },
        smtp::transaction::TrustClass,
    };

    const TO: [&str; 2] = ["anna@interior.gov.test", "karl@health.gov.test"];

    /// A name server that is never reached and no clamd.
    async fn examine(text: &str, class: TrustClass, policy: PolicyLayer) -> Examined {
        let time = Duration::from_millis(300);
        let limits = Limits { authentication_time_max: time, checks_time_max: time * 2, ..Limits::default() };
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let resolver = resolver(&[silent.local_addr().expect("an address")]).expect("a resolver");
        let examiner = Examiner {
            authenticator: Authenticator::new("mx.gov.test", resolver, &limits),
            virus: VirusScanner::new(None, &limits),
            limits: Arc::new(limits),
        };
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
        let text = "From: a@health.gov.test\nSubject: YOU HAVE WON THE LOTTERY!!!\nContent-Disposition: attachment; filename=a.exe\n\nMZ\n";
        let examined = examine(text, TrustClass::Interdepartmental, PolicyLayer::default()).await;
        assert_eq!(examined.evidence.authentication.spf, AuthResult::None);
        let rules: Vec<_> = examined.verdicts[0].1.reasons.iter().map(|reason| reason.rule.as_str()).collect();
        assert_eq!(rules, ["VIRUS_UNAVAILABLE", "BLOCKED_NAME"]);
    }

    #[tokio::test]
    async fn bytes_that_are_no_message_get_a_verdict() {
        let off = PolicyLayer { virus_scan: Some(VirusScan::Off), ..PolicyLayer::default() };
        let examined = examine("\0\u{1}\u{2} no header at all", TrustClass::Internet, off).await;
        assert_eq!(examined.verdicts[0].1.disposition, Disposition::Quarantine);
        assert_eq!(examined.verdicts[0].1.reasons[0].rule, "UNPARSABLE");
    }
}
