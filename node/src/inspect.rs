//! The Inspect service: the check pipeline without delivery, and the view that the node works under.

mod listed;

use std::{net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::Stream;
use mail_parser::parsers::MessageStream;
use proto::{
    address::{Address, Domain, ReversePath},
    codec,
    envelope::{Handling, Notification},
    held::TransactionId,
    identity::{Credentials, Role},
    time::UnixMs,
    verdict::{Disposition, Verdict},
    view::View,
    wire::inspect::{
        Authentication as AuthenticationWire, Reason as ReasonWire, RulesRequest, RulesResponse, ScanRequest,
        ScanResponse, ViewInUseRequest, ViewInUseResponse,
        inspect_server::{Inspect, InspectServer},
    },
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    checks::learnt,
    examine::Examined,
    message::fields::Header,
    pipeline::Pipeline,
    smtp::transaction::{Client, ClientName, Listener, Recipient, Route, Transaction, TrustClass},
};

/// Who may look into a node.
const ALLOWED: [Role; 2] = [Role::Operator, Role::Control];
/// What a request may hold beside its message.
const ENVELOPE_BYTES_MAX: usize = 64 * 1024;
/// Answers that wait for a slow reader.
const ANSWERS_MAX: usize = 16;
/// How long `ViewInUse` waits.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The service.
#[derive(Clone, Debug)]
pub struct Inspector {
    pipeline: Pipeline,
    credentials: Credentials,
    site: Arc<str>,
}

impl Inspector {
    /// Callers are judged by the node's own credentials.
    #[must_use]
    pub fn new(pipeline: Pipeline, credentials: Credentials, site: &str) -> Self {
        Self { pipeline, credentials, site: site.into() }
    }

    /// As a gRPC service that takes messages as large as SMTP does.
    #[must_use]
    pub fn into_server(self) -> InspectServer<Self> {
        let bytes_max = self.pipeline.examiner.limits.message_bytes_max + ENVELOPE_BYTES_MAX;
        InspectServer::new(self).max_decoding_message_size(bytes_max)
    }

    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.credentials.caller(request, &ALLOWED, UnixMs::now()).map(drop).map_err(|refusal| {
            tracing::warn!(from = ?request.remote_addr(), reason = refusal.reason(), "a caller was turned away");
            refusal.into()
        })
    }

    async fn scan_one(&self, request: ScanRequest) -> ScanResponse {
        let label = request.label.clone();
        if request.message.len() > self.pipeline.examiner.limits.message_bytes_max {
            return ScanResponse {
                label,
                error: "the message is larger than the node takes".into(),
                ..Default::default()
            };
        }
        let view = self.pipeline.cluster.view().borrow().clone();
        let bytes = with_crlf(&request.message);
        match transaction(&request, &bytes, view) {
            Err(error) => ScanResponse { label, error, ..Default::default() },
            Ok(transaction) => {
                let began = tokio::time::Instant::now();
                let examined = self.pipeline.examine(&transaction, bytes.clone()).await;
                let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                let answer = answer(label, &examined, took_us);
                if request.lesson { self.with_lesson(answer, &examined, transaction, bytes).await } else { answer }
            }
        }
    }
}

impl Inspector {
    /// The answer with what the message teaches. Of what it is, the control servers hear from the operator who reports it.
    async fn with_lesson(
        &self,
        answer: ScanResponse,
        examined: &Examined,
        transaction: Transaction,
        bytes: Bytes,
    ) -> ScanResponse {
        let first = examined.verdicts.first().and_then(|(group, verdict)| Some((group.first()?, verdict)));
        let Some((recipient, verdict)) = first.filter(|(first, _)| first.class == TrustClass::Internet) else {
            return ScanResponse { error: "only mail from the Internet teaches anything".into(), ..answer };
        };
        let over = learnt::over(verdict, recipient.policy.quarantine_at.value);
        match self.pipeline.examiner.lesson(transaction, bytes, over).await {
            Some(lesson) => ScanResponse { lesson: codec::encode(&lesson), ..answer },
            None => ScanResponse { error: "nothing can be learnt from it: it cannot be read".into(), ..answer },
        }
    }
}

#[tonic::async_trait]
impl Inspect for Inspector {
    type ScanStream = Pin<Box<dyn Stream<Item = Result<ScanResponse, Status>> + Send>>;

    async fn scan(&self, request: Request<Streaming<ScanRequest>>) -> Result<Response<Self::ScanStream>, Status> {
        self.check(&request)?;
        let mut requests = request.into_inner();
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let this = self.clone();
        tokio::spawn(async move {
            // Ends with the requests, or when nobody reads the answers any more.
            while let Some(request) = requests.next().await {
                let answer = match request {
                    Ok(request) => Ok(this.scan_one(request).await),
                    Err(status) => Err(status),
                };
                let is_last = answer.is_err();
                if answers.send(answer).await.is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn view_in_use(&self, request: Request<ViewInUseRequest>) -> Result<Response<ViewInUseResponse>, Status> {
        self.check(&request)?;
        let wanted = request.into_inner().policy_version;
        let mut views = self.pipeline.cluster.view();
        let waited = timeout(WAIT_MAX, views.wait_for(|view| view.policy_version >= wanted)).await;
        let view = match waited {
            Ok(Ok(view)) => view.clone(),
            Ok(Err(_)) => return Err(Status::unavailable("the node is stopping")),
            Err(_) => return Err(Status::deadline_exceeded(format!("the node has no policy version {wanted} yet"))),
        };
        let learnt = self.pipeline.examiner.learnt.borrow().clone();
        Ok(Response::new(ViewInUseResponse {
            node: self.pipeline.node.to_string(),
            site: self.site.to_string(),
            index: view.index,
            policy_version: view.policy_version,
            drained: view.is_drained(&self.pipeline.node),
            learnt_version: learnt.model.as_ref().map_or(0, |_| learnt.version),
            learnt_problem: learnt.problem.unwrap_or_default(),
            age_ms: u64::try_from(self.pipeline.cluster.view_age().as_millis()).unwrap_or(u64::MAX),
        }))
    }

    async fn rules(&self, request: Request<RulesRequest>) -> Result<Response<RulesResponse>, Status> {
        self.check(&request)?;
        let view = Arc::clone(&self.pipeline.cluster.view().borrow());
        Ok(Response::new(listed::all(&view)))
    }
}

/// A stored message may have LF line ends; SMTP would have brought CRLF.
fn with_crlf(message: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(message.len() + message.len() / 40);
    let mut before = 0;
    for byte in message {
        if *byte == b'\n' && before != b'\r' {
            bytes.push(b'\r');
        }
        bytes.push(*byte);
        before = *byte;
    }
    Bytes::from(bytes)
}

/// The transaction that SMTP would have built up, with the defaults of `posternctl scan` for what is empty.
fn transaction(request: &ScanRequest, bytes: &[u8], view: Arc<View>) -> Result<Transaction, String> {
    let address: IpAddr = match request.client_ip.as_str() {
        "" => IpAddr::from([192, 0, 2, 1]),
        text => text.parse().map_err(|_| format!("client_ip: {text:?} is not an IP address"))?,
    };
    let reverse_path = match request.mail_from.as_str() {
        "" => return_path(bytes),
        "<>" => ReversePath::Null,
        text => ReversePath::Address(Address::parse(text).map_err(|error| format!("mail_from: {error}"))?),
    };
    let to = match request.rcpt.as_str() {
        "" => first_postmaster(&view).ok_or("rcpt: there is no department yet: apply a policy first")?,
        text => Address::parse(text).map_err(|error| format!("rcpt: {error}"))?,
    };
    let department = view.tenant_at(address).map(|tenant| tenant.department.id.clone());
    let helo = if request.helo.is_empty() { "unknown".to_owned() } else { request.helo.chars().take(255).collect() };
    let recipient = recipient(to, &view, department.is_some())?;
    Ok(Transaction {
        id: TransactionId::fresh(),
        client: Client {
            address,
            listener: if department.is_some() { Listener::Departments } else { Listener::Internet },
            helo,
            extended: true,
            tls: false,
            declined_tls: false,
            name: ClientName::default(),
            department,
            reasons: Vec::new(),
        },
        reverse_path,
        handling: Handling::default(),
        recipients: vec![recipient],
        view,
    })
}

fn recipient(address: Address, view: &View, from_department: bool) -> Result<Recipient, String> {
    match (view.tenant_of(address.domain()), from_department) {
        (Some(tenant), _) => Ok(Recipient {
            address,
            policy: tenant.policy.clone(),
            route: Route::Department {
                id: tenant.department.id.clone(),
                next_hops: tenant.department.next_hops.clone(),
            },
            class: if from_department { TrustClass::Interdepartmental } else { TrustClass::Internet },
            notification: Notification::default(),
        }),
        (None, true) => Ok(Recipient {
            policy: view.state_policy.clone(),
            route: Route::Internet { domain: address.domain().clone(), relays: view.settings.internet_relays.clone() },
            class: TrustClass::Outbound,
            address,
            notification: Notification::default(),
        }),
        (None, false) => Err(format!("rcpt: {} is no department's domain", address.domain())),
    }
}

fn first_postmaster(view: &View) -> Option<Address> {
    let domain: &Domain = view.tenants().find_map(|tenant| tenant.department.domains.first())?;
    Address::parse(&format!("postmaster@{domain}")).ok()
}

fn return_path(bytes: &[u8]) -> ReversePath {
    let header = Header::split(bytes, crate::limits::Limits::default().header_bytes_max);
    let written = header.named("return-path").next().and_then(|field| {
        let parsed = MessageStream::new(field.value(bytes)).parse_address().into_address()?;
        parsed.first()?.address.as_deref().map(str::to_owned)
    });
    written.and_then(|text| Address::parse(&text).ok()).map_or(ReversePath::Null, ReversePath::Address)
}

fn answer(label: String, examined: &Examined, took_us: u64) -> ScanResponse {
    let Some((_, verdict)) = examined.verdicts.first() else {
        return ScanResponse { label, error: "nobody to decide for".into(), ..Default::default() };
    };
    let Verdict { disposition, score, reasons, policy_version, .. } = verdict;
    let found = &examined.evidence.authentication;
    let disposition: &Disposition = disposition;
    ScanResponse {
        label,
        disposition: disposition.to_string(),
        score: score.0,
        reasons: reasons
            .iter()
            .map(|reason| ReasonWire { rule: reason.rule.clone(), score: reason.score.0, text: reason.text.clone() })
            .collect(),
        authentication: Some(AuthenticationWire {
            spf: found.spf.as_str().into(),
            dkim: found.dkim_best().as_str().into(),
            dmarc: found.dmarc.as_str().into(),
            arc: found.arc.as_str().into(),
            virus: examined.evidence.virus.as_str().into(),
        }),
        policy_version: *policy_version,
        took_us,
        error: String::new(),
        lesson: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::{address::ReversePath, policy::PolicyLayer, view::View, wire::inspect::ScanRequest};

    use super::{transaction, with_crlf};
    use crate::{
        policy::samples::view,
        smtp::transaction::{Listener, TrustClass},
    };

    fn view_in_force() -> Arc<View> {
        Arc::new(view(PolicyLayer::default()))
    }

    #[test]
    fn an_empty_request_is_internet_mail_to_the_first_departments_postmaster() {
        let bytes = b"Return-Path: <bounce@sender.test>\r\nFrom: a@b.test\r\n\r\nx\r\n";
        let transaction = transaction(&ScanRequest::default(), bytes, view_in_force()).expect("a transaction");
        assert_eq!(transaction.client.address.to_string(), "192.0.2.1");
        assert_eq!((transaction.client.helo.as_str(), transaction.client.listener), ("unknown", Listener::Internet));
        assert_eq!(transaction.reverse_path.to_string(), "bounce@sender.test");
        assert_eq!(transaction.recipients[0].address.to_string(), "postmaster@health.gov.test");
        assert_eq!(transaction.recipients[0].class, TrustClass::Internet);
    }

    #[test]
    fn a_departments_address_scans_as_that_departments_mail() {
        let mut request = ScanRequest { client_ip: "127.0.0.9".into(), ..ScanRequest::default() };
        let inside = transaction(&request, b"", view_in_force()).expect("a transaction");
        assert_eq!(inside.recipients[0].class, TrustClass::Interdepartmental);
        assert!(inside.client.department.is_some() && inside.reverse_path == ReversePath::Null);
        request.rcpt = "x@elsewhere.test".into();
        let outside = transaction(&request, b"", view_in_force()).expect("a transaction");
        assert_eq!(outside.recipients[0].class, TrustClass::Outbound);
    }

    #[test]
    fn a_wrong_field_is_named_and_nothing_is_scanned() {
        let cases = [
            (ScanRequest { client_ip: "x".into(), ..ScanRequest::default() }, "client_ip"),
            (ScanRequest { mail_from: "x".into(), ..ScanRequest::default() }, "mail_from"),
            (ScanRequest { rcpt: "x".into(), ..ScanRequest::default() }, "rcpt"),
            (ScanRequest { rcpt: "x@elsewhere.test".into(), ..ScanRequest::default() }, "rcpt"),
        ];
        for (request, field) in cases {
            let error = transaction(&request, b"", view_in_force()).expect_err("an error");
            assert!(error.starts_with(field), "{error}");
        }
        let error = transaction(&ScanRequest::default(), b"", Arc::new(View::empty())).expect_err("an error");
        assert!(error.contains("apply a policy first"), "{error}");
    }

    #[test]
    fn stored_line_ends_become_those_of_smtp() {
        assert_eq!(&with_crlf(b"a\nb\r\nc")[..], b"a\r\nb\r\nc");
    }
}
