//! Connections with mTLS to control servers and nodes, and errors that say what to do next.

use std::{error::Error, path::Path, time::Duration};

use anyhow::{Context, anyhow, bail};
use proto::{
    identity::{Credentials, Role},
    wire::{
        inspect::inspect_client::InspectClient,
        operator::{StatusRequest, operator_client::OperatorClient},
    },
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use super::{
    output,
    settings::{self, Settings},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// An answer of a control server; a change waits there for its quorum.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer: a full list of held messages.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A client of the operator service.
pub type Control = OperatorClient<Channel>;
/// A client of a node's inspect service.
pub type Inspect = InspectClient<Channel>;

/// Who we are and whom we ask.
#[derive(Clone, Debug)]
pub struct Reach {
    credentials: Credentials,
    servers: Vec<String>,
}

impl Reach {
    /// Reads settings and credentials; `servers`, unless empty, take the place of those in the settings.
    ///
    /// # Errors
    /// When a file is missing or faulty.
    pub fn load(config: &Path, servers: &[String]) -> anyhow::Result<Self> {
        let Settings { credentials, servers: configured } = Settings::load(config)?;
        let credentials = Credentials::load(&credentials).context("load your credentials")?;
        let servers: anyhow::Result<Vec<String>> = servers.iter().map(|server| settings::address(server)).collect();
        let servers = Some(servers.context("--server")?).filter(|servers| !servers.is_empty());
        Ok(Self { credentials, servers: servers.unwrap_or(configured) })
    }

    /// Who we are.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The first control server that answers and knows a leader; when none knows one, the first that answers.
    ///
    /// # Errors
    /// When none answers, with what each one said.
    pub async fn control(&self) -> anyhow::Result<Control> {
        let mut leaderless = None;
        let mut silent = Vec::new();
        for server in &self.servers {
            match self.ask(server).await {
                Ok((control, true)) => {
                    for problem in silent {
                        output::note(&format!("posternctl: {problem}; asking {server}"));
                    }
                    return Ok(control);
                }
                Ok((control, false)) => leaderless = leaderless.or(Some(control)),
                Err(error) => silent.push(format!("control server {server}: {error:#}")),
            }
        }
        leaderless.ok_or_else(|| anyhow!("no control server can be asked:\n  {}", silent.join("\n  ")))
    }

    /// A connection, and whether the server knows a leader. The question also brings to light a refused certificate, which
    /// TLS 1.3 reports only after the handshake.
    async fn ask(&self, server: &str) -> anyhow::Result<(Control, bool)> {
        let channel = self.channel(server, Role::Control, Some(ANSWER_TIMEOUT)).await?;
        let mut control = OperatorClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let status = control.status(StatusRequest {}).await.map_err(|status| explain(&status))?.into_inner();
        Ok((control, status.leader != 0))
    }

    /// A node's inspect service.
    ///
    /// # Errors
    /// When the node does not answer or is none.
    pub async fn node(&self, address: &str) -> anyhow::Result<Inspect> {
        let address = settings::address(address)?;
        let channel = self
            .channel(&address, Role::Node, None)
            .await
            .with_context(|| format!("node {address} (its `inspect` address is wanted; is postern-node running?)"))?;
        Ok(InspectClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
    }

    async fn channel(&self, address: &str, role: Role, timeout: Option<Duration>) -> anyhow::Result<Channel> {
        let mut endpoint = Endpoint::from_shared(format!("https://{address}"))?
            .tls_config(self.credentials.client_tls(role))
            .context("your credentials: ca.pem, certificate.pem and key.pem must belong together")?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10));
        if let Some(timeout) = timeout {
            endpoint = endpoint.timeout(timeout);
        }
        match endpoint.connect().await {
            Ok(channel) => Ok(channel),
            Err(error) => match tls_problem(&error) {
                Some(problem) => bail!("{problem}"),
                None => bail!("does not answer: {}", innermost(&error)),
            },
        }
    }
}

/// What a failed call means and what to do next.
#[must_use]
pub fn explain(status: &Status) -> anyhow::Error {
    let message = status.message();
    let code = status.code();
    // A call that our own side gave up because its connection broke is `Cancelled` too, and has a source.
    if matches!(code, Code::DeadlineExceeded | Code::Cancelled) && status.source().is_none() {
        return anyhow!(
            "no answer in time ({message}). A change may or may not have come to be: see `posternctl audit` before trying again"
        );
    }
    if let Some(source) = status.source() {
        return anyhow!(tls_problem(source).unwrap_or_else(|| {
            if innermost(source).contains("refused") {
                return format!("it does not answer any more: {}", innermost(source));
            }
            // A server that turns a certificate away after the handshake of TLS 1.3 may be gone before its alert is read.
            format!(
                "the connection broke ({}); a change on its way may or may not have come to be. When it breaks each time, {}",
                innermost(source),
                refused("closed")
            )
        }));
    }
    if matches!(code, Code::Unauthenticated | Code::PermissionDenied) {
        return anyhow!("refused: {message}. Use an operator's credentials of this cluster (--config FILE)");
    }
    if matches!(code, Code::Unavailable) && message.contains("majority") {
        return anyhow!("{message}: see `posternctl cluster status`");
    }
    if matches!(code, Code::Unavailable) {
        return anyhow!(
            "{message}. A majority of the control servers must be up and reach each other: see `posternctl cluster status`"
        );
    }
    if matches!(code, Code::Unimplemented) {
        return anyhow!("{message}. The other side is of another version, or not what its address says");
    }
    if message.is_empty() { anyhow!("{code}") } else { anyhow!("{message}") }
}

/// What TLS says, when it was TLS.
fn tls_problem(error: &(dyn Error + 'static)) -> Option<String> {
    // HTTP/2 keeps the alert's text only.
    let alert = chain(error).map(ToString::to_string).find(|text| text.contains("fatal alert"));
    if let Some(alert) = alert {
        return Some(refused(&alert));
    }
    let error = chain(error).find_map(|cause| {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
        cause.downcast_ref::<rustls::Error>().or_else(|| inner.and_then(|inner| inner.downcast_ref()))
    })?;
    if let rustls::Error::AlertReceived(alert) = error {
        return Some(refused(&format!("{alert:?}")));
    }
    if let rustls::Error::InvalidCertificate(problem) = error {
        return Some(format!(
            "its certificate is not one of this cluster for this role ({problem:?}): is the address right, and ca.pem of \
             this cluster?"
        ));
    }
    Some(format!("TLS failed: {error}"))
}

fn refused(alert: &str) -> String {
    format!(
        "it refuses your certificate ({alert}): is it of this cluster and not expired? \
         `posternctl cluster issue` makes a new one"
    )
}

fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'e (dyn Error + 'static)| (*error).source())
}

/// The last cause says it shortest: "Connection refused".
fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}
