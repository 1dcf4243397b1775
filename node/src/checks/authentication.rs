//! Asks DNS who sent a message: SPF, DKIM, DMARC, ARC and the client's name, by mail-auth under our own limits. What cannot
//! be found out in time is a temporary error, never a pass; and a slow answer about one identity does not hide what
//! is known about another.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
};
use mail_auth::{
    ArcOutput, AuthenticatedMessage, DkimOutput, DkimResult, DmarcResult, DnsError, Error, IprevResult,
    MessageAuthenticator, SpfOutput, SpfResult,
    common::crypto::HashAlgorithm,
    dkim::{Canonicalization, DkimError},
    dmarc::{Policy as DmarcPolicy, verify::DmarcParameters},
    spf::verify::SpfParameters,
};
use proto::address::{Domain, ReversePath};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    limits::Limits,
    message::{Defect, Message, fields::Header},
    policy::evidence::{Asked, AuthResult, Authentication, Signature},
    smtp::transaction::{Client, Transaction},
};

/// A message of at most so many bytes is hashed without a thread of its own, which would cost more than that.
const SHORT_BYTES_MAX: usize = 32 * 1024;
/// Sets of ARC fields that are looked at; RFC 8617 section 4.2.1 allows 50, real chains have below five.
const ARC_SETS_MAX: usize = 20;

/// A resolver that asks only these servers, over UDP and TCP, without the hosts file and search domains.
///
/// # Errors
/// When it cannot be set up; there is no I/O yet.
pub fn resolver(name_servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let servers = name_servers.iter().map(|server| {
        let mut config = NameServerConfig::udp_and_tcp(server.ip());
        config.connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        config.connections.iter_mut().for_each(|connection| connection.port = server.port());
        config
    });
    let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
    let mut options = ResolverOpts::default();
    options.timeout = Duration::from_secs(2);
    options.attempts = 2;
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = 8192;
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build()
}

/// Finds out who sent a message.
#[derive(Clone)]
pub struct Authenticator {
    asking: Arc<MessageAuthenticator>,
    host: Arc<str>,
    time_max: Duration,
    signatures_max: usize,
    header_bytes_max: usize,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").field("host", &self.host).finish_non_exhaustive()
    }
}

/// What the checks need of a message, so that they can run in a task of their own.
struct Question {
    bytes: Bytes,
    client: Client,
    reverse_path: ReversePath,
    authors: BTreeSet<Domain>,
    one_author: bool,
    trusted_sealers: Vec<Domain>,
}

impl Authenticator {
    /// `host` is our own name.
    #[must_use]
    pub fn new(host: &str, resolver: TokioResolver, limits: &Limits) -> Self {
        Self {
            asking: Arc::new(MessageAuthenticator(resolver)),
            host: host.into(),
            time_max: limits.authentication_time_max,
            signatures_max: limits.dkim_signatures_max,
            header_bytes_max: limits.header_bytes_max,
        }
    }

    /// What it asks.
    #[must_use]
    pub fn resolver(&self) -> TokioResolver {
        self.asking.0.clone()
    }

    /// Finds out what can be found out within `Limits::authentication_time_max`.
    pub async fn check(&self, message: &Message, transaction: &Transaction) -> Authentication {
        let asked = Question {
            bytes: message.bytes.clone(),
            client: transaction.client.clone(),
            reverse_path: transaction.reverse_path.clone(),
            authors: message.from.iter().filter_map(|mailbox| mailbox.domain.clone()).collect(),
            one_author: ![Defect::MultipleFrom, Defect::UnclearAuthor].iter().any(|one| message.defects.contains(one)),
            trusted_sealers: transaction.view.settings.arc_sealers.clone(),
        };
        // A task of its own, so that a panic over hostile bytes is a failed check and nothing more.
        let mut task = JoinSet::new();
        let this = self.clone();
        task.spawn(async move { this.ask(&asked).await });
        match timeout(self.time_max, task.join_next()).await {
            Ok(Some(Ok(found))) => found,
            Ok(Some(Err(_)) | None) => Authentication::unavailable("the check failed on the message"),
            Err(_) => Authentication::unavailable("DNS did not answer in time"),
        }
    }

    /// Each look-up has not quite half of the time, so that DMARC still has the other half.
    fn share(&self) -> Duration {
        self.time_max * 9 / 20
    }

    async fn ask(&self, asked: &Question) -> Authentication {
        let (bytes, header_bytes_max, signatures_max) =
            (asked.bytes.clone(), self.header_bytes_max, self.signatures_max);
        let hash = move || Hashed::new(&bytes, header_bytes_max, signatures_max);
        let hashed = if asked.bytes.len() <= SHORT_BYTES_MAX {
            hash()
        } else {
            match tokio::task::spawn_blocking(hash).await {
                Ok(hashed) => hashed,
                Err(_) => return Authentication::unavailable("the check failed on the message"),
            }
        };
        let parsed = hashed.as_ref().and_then(|hashed| hashed.parsed(self.signatures_max)).map(with_ascii_authors);
        let ip = asked.client.address;
        let (spf_helo, spf, reverse, signed) = tokio::join!(
            self.spf_helo(&asked.client),
            self.spf(&asked.client, &asked.reverse_path),
            timeout(self.share(), self.asking.verify_iprev(ip)),
            self.signed(parsed.as_ref(), asked),
        );
        let mut found = Authentication {
            spf: spf.as_ref().map_or(AuthResult::TempError, |output| spf_result(output.result())),
            spf_helo,
            reverse: reverse.map_or(AuthResult::TempError, |output| reverse_result(output.result())),
            from_domain: asked.authors.first().filter(|_| asked.authors.len() == 1).cloned(),
            ..signed
        };
        let Some(parsed) = parsed else {
            // A header that is not read vouches for nobody.
            found.dmarc = AuthResult::PermError;
            return found;
        };
        if !asked.one_author || authors(&parsed) != asked.authors || asked.authors.len() > 1 {
            // Readers may show another author than the one that is vouched for: nobody vouches.
            found.dmarc = AuthResult::Fail;
            found.dmarc_asks = Asked::Quarantine;
            return found;
        }
        (found.dmarc, found.dmarc_asks) = self.dmarc(&parsed, asked, spf, &found.dkim).await;
        found
    }

    async fn spf_helo(&self, client: &Client) -> AuthResult {
        if Domain::parse(&client.helo).is_err() {
            return AuthResult::None;
        }
        let asked = SpfParameters::verify_ehlo(client.address, &client.helo, &self.host);
        let output = timeout(self.share(), self.asking.verify_spf(asked)).await;
        output.map_or(AuthResult::TempError, |output| spf_result(output.result()))
    }

    /// `None` when there was no answer in time.
    async fn spf(&self, client: &Client, reverse_path: &ReversePath) -> Option<SpfOutput> {
        let sender = match reverse_path {
            ReversePath::Address(address) => address.to_string(),
            ReversePath::Null if Domain::parse(&client.helo).is_ok() => format!("postmaster@{}", client.helo),
            ReversePath::Null => return Some(SpfOutput::default()),
        };
        let asked = SpfParameters::verify_mail_from(client.address, &client.helo, &self.host, &sender);
        timeout(self.share(), self.asking.verify_spf(asked)).await.ok()
    }

    /// DKIM and ARC. Each signature is asked about by itself, so that a slow one does not hide a good one.
    async fn signed(&self, parsed: Option<&AuthenticatedMessage<'_>>, asked: &Question) -> Authentication {
        let Some(parsed) = parsed else { return Authentication::default() };
        let alone: Vec<_> = (0..parsed.dkim_headers.len()).map(|index| alone(parsed, index)).collect();
        let dkim = join_all(alone.iter().map(|one| async move {
            let output = timeout(self.share(), self.asking.verify_dkim(one)).await;
            let result = output.ok().and_then(|outputs| outputs.first().map(|output| dkim_result(output.result())));
            (one, result.unwrap_or(AuthResult::TempError))
        }));
        let arc = timeout(self.share(), self.asking.verify_arc(parsed));
        let (dkim, arc) = tokio::join!(dkim, arc);
        let malformed = parsed.errors.iter().filter(|error| matches!(error.header, Error::Dkim(_))).take(1);
        let malformed = malformed.map(|_| Signature {
            result: AuthResult::PermError,
            domain: String::new(),
            selector: String::new(),
        });
        let signatures = dkim.into_iter().filter_map(|(one, result)| {
            let signature = &one.dkim_headers.first()?.header;
            Some(Signature { result, domain: signature.d.clone(), selector: signature.s.clone() })
        });
        Authentication {
            dkim: signatures.chain(malformed).collect(),
            arc: arc.as_ref().map_or(AuthResult::TempError, |output| dkim_result(output.result())),
            arc_vouches: arc.is_ok_and(|output| vouches(&output, &asked.trusted_sealers)),
            ..Authentication::default()
        }
    }

    async fn dmarc(
        &self,
        parsed: &AuthenticatedMessage<'_>,
        asked: &Question,
        spf: Option<SpfOutput>,
        dkim: &[Signature],
    ) -> (AuthResult, Asked) {
        let open = || Error::Dns(DnsError::Resolver("time-out".to_owned()));
        let outputs: Vec<DkimOutput<'_>> = parsed
            .dkim_headers
            .iter()
            .zip(dkim)
            .map(|(header, signature)| {
                let output = match signature.result {
                    AuthResult::Pass => DkimOutput::pass(),
                    AuthResult::TempError => DkimOutput::temp_err(open()),
                    AuthResult::None
                    | AuthResult::Neutral
                    | AuthResult::SoftFail
                    | AuthResult::Fail
                    | AuthResult::PermError => DkimOutput::fail(Error::NotAligned),
                };
                output.with_signature(&header.header)
            })
            .collect();
        let sender = match &asked.reverse_path {
            ReversePath::Address(address) => address.domain().as_str(),
            ReversePath::Null => asked.client.helo.as_str(),
        };
        let spf_open = spf.as_ref().is_none_or(|output| output.result() == SpfResult::TempError);
        let spf = spf.unwrap_or_default();
        let asking = self.asking.verify_dmarc(DmarcParameters::new(parsed, &outputs, sender, &spf));
        let Ok(output) = timeout(self.share(), asking).await else { return (AuthResult::TempError, Asked::Nothing) };
        let asks = match output.policy() {
            DmarcPolicy::Reject => Asked::Reject,
            DmarcPolicy::Quarantine => Asked::Quarantine,
            DmarcPolicy::None | DmarcPolicy::Unspecified => Asked::Nothing,
        };
        let mut result = match output.result() {
            DmarcResult::Pass => AuthResult::Pass,
            DmarcResult::Fail(_) => AuthResult::Fail,
            DmarcResult::TempError(_) => AuthResult::TempError,
            DmarcResult::PermError(_) => AuthResult::PermError,
            DmarcResult::None => AuthResult::None,
        };
        // An SPF answer that never came might have been the aligned pass.
        let aligned = asked.authors.iter().any(|author| {
            Domain::parse(sender).is_ok_and(|sender| sender.is_within(author) || author.is_within(&sender))
        });
        if result == AuthResult::Fail && spf_open && aligned {
            result = AuthResult::TempError;
        }
        (result, asks)
    }
}

fn alone<'x>(parsed: &AuthenticatedMessage<'x>, index: usize) -> AuthenticatedMessage<'x> {
    let mut one = parsed.clone();
    one.dkim_headers = one.dkim_headers.into_iter().skip(index).take(1).collect();
    one.errors.clear();
    one
}

/// Domains of authors that are written in UTF-8 are asked about in ASCII (RFC 8616 section 6).
fn with_ascii_authors(mut parsed: AuthenticatedMessage<'_>) -> AuthenticatedMessage<'_> {
    for author in parsed.from.iter_mut().filter(|author| !author.is_ascii()) {
        let split = author.rsplit_once('@');
        let ascii = split.and_then(|(local, domain)| Some((local, Domain::parse(domain.trim_end_matches('.')).ok()?)));
        if let Some((local, domain)) = ascii {
            *author = format!("{local}@{domain}");
        }
    }
    parsed
}

fn authors(parsed: &AuthenticatedMessage<'_>) -> BTreeSet<Domain> {
    let domains = parsed.from.iter().filter_map(|address| address.rsplit_once('@'));
    domains.filter_map(|(_, domain)| Domain::parse(domain.trim_end_matches('.')).ok()).collect()
}

/// A message's header and the hashes of its body, which are worked out on a thread: of a large body they take long.
struct Hashed {
    header: Bytes,
    body_hashes: Vec<(Canonicalization, HashAlgorithm, u64, Vec<u8>)>,
}

impl Hashed {
    /// `None` when the header is longer than the limit: what it holds is not bounded.
    fn new(bytes: &Bytes, header_bytes_max: usize, signatures_max: usize) -> Option<Self> {
        let (header, body) = bounded(bytes, header_bytes_max, signatures_max)?;
        // The parser itself has no bounds: it sees the header alone.
        let mut body_hashes = AuthenticatedMessage::parse(&header)?.body_hashes;
        for (canonicalization, algorithm, length, hash) in &mut body_hashes {
            *hash = algorithm.hash(canonicalization.canonical_body(&body, *length)).as_ref().to_vec();
        }
        Some(Self { header, body_hashes })
    }

    fn parsed(&self, signatures_max: usize) -> Option<AuthenticatedMessage<'_>> {
        let mut parsed = AuthenticatedMessage::parse(&self.header)?;
        parsed.body_hashes.clone_from(&self.body_hashes);
        // Whatever the parser took for a signature: each is verified by itself with a copy of the header.
        parsed.dkim_headers.truncate(signatures_max);
        Some(parsed)
    }
}

/// The header with no more signatures and seals than are verified, for each costs a hash over the body and a look-up, and
/// the body. `None` when the header is too long.
fn bounded(bytes: &Bytes, header_bytes_max: usize, signatures_max: usize) -> Option<(Bytes, Bytes)> {
    let header = Header::split(bytes, header_bytes_max);
    if header.too_long {
        return None;
    }
    let too_many_seals = ["arc-seal", "arc-message-signature"].iter().any(|name| header.count(name) > ARC_SETS_MAX);
    let mut signatures = 0;
    let surplus = header.fields.iter().filter(|field| match field.name.as_str() {
        "dkim-signature" => {
            signatures += 1;
            signatures > signatures_max
        }
        // We do not verify the successor of DKIM yet: it need not be parsed.
        "dkim2-signature" | "message-instance" => true,
        name => too_many_seals && name.starts_with("arc-"),
    });
    let mut kept: Vec<u8> = Vec::new();
    let mut at = 0;
    for field in surplus {
        kept.extend_from_slice(&bytes[at..field.span.start]);
        at = field.span.end;
    }
    kept.extend_from_slice(&bytes[at..header.body_at]);
    Some((kept.into(), bytes.slice(header.body_at..)))
}

/// Whether a passing chain was sealed by hosts that we trust, all of them, and says that DMARC passed at its start.
fn vouches(output: &ArcOutput<'_>, trusted: &[Domain]) -> bool {
    let sets = output.sets();
    let all_trusted =
        sets.iter().all(|set| Domain::parse(&set.seal.header.d).is_ok_and(|sealer| trusted.contains(&sealer)));
    let passed_first = sets.first().is_some_and(|set| {
        let text = String::from_utf8_lossy(set.results.value).to_ascii_lowercase();
        let results = text.split(';').map(str::trim);
        results.filter_map(|result| result.split_ascii_whitespace().next()).any(|word| word == "dmarc=pass")
    });
    *output.result() == DkimResult::Pass && all_trusted && passed_first
}

const fn spf_result(result: SpfResult) -> AuthResult {
    match result {
        SpfResult::Pass => AuthResult::Pass,
        SpfResult::Fail => AuthResult::Fail,
        SpfResult::SoftFail => AuthResult::SoftFail,
        SpfResult::Neutral => AuthResult::Neutral,
        SpfResult::TempError => AuthResult::TempError,
        SpfResult::PermError => AuthResult::PermError,
        SpfResult::None => AuthResult::None,
    }
}

fn dkim_result(result: &DkimResult) -> AuthResult {
    match result {
        DkimResult::Pass => AuthResult::Pass,
        // RFC 8601 section 2.7.1: a signature that was there and does not fit has failed.
        DkimResult::Neutral(Error::Dkim(DkimError::FailedBodyHashMatch)) | DkimResult::Fail(_) => AuthResult::Fail,
        DkimResult::Neutral(_) => AuthResult::Neutral,
        DkimResult::PermError(_) => AuthResult::PermError,
        DkimResult::TempError(_) => AuthResult::TempError,
        DkimResult::None => AuthResult::None,
    }
}

const fn reverse_result(result: &IprevResult) -> AuthResult {
    match result {
        IprevResult::Pass => AuthResult::Pass,
        IprevResult::Fail(_) => AuthResult::Fail,
        IprevResult::TempError(_) => AuthResult::TempError,
        IprevResult::PermError(_) => AuthResult::PermError,
        IprevResult::None => AuthResult::None,
    }
}

#[cfg(test)]
#[path = "authentication_tests.rs"]
mod tests;
