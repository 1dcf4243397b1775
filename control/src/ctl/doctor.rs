//! `doctor`: gathers how everything is, and prints what is wrong, how bad it is, and what to do.

use std::path::Path;

use anyhow::Context;
use proto::{
    time::UnixMs,
    wire::operator::{NodeListRequest, StatusRequest},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    Ended,
    connect::{Reach, explain},
    diagnosis::{Finding, Level, Seen, diagnose},
    output::{Output, table},
    settings::Settings,
};

/// Looks at everything. Exit code 1 when anything is not as it should be.
///
/// # Errors
/// When no control server answers, or your own credentials cannot be read.
pub async fn run(reach: &Reach, output: Output, config: &Path) -> anyhow::Result<Ended> {
    let cas = cas(&Settings::load(config)?.credentials)?;
    let mut control = reach.control().await?;
    let begun = UnixMs::now();
    let status = control.members(StatusRequest {}).await.map_err(|status| explain(&status))?.into_inner();
    let ended = UnixMs::now();
    // Without a quorum the nodes cannot be listed; that is a finding, not the end.
    let nodes = control.node_list(NodeListRequest {}).await;
    let nodes = nodes.map(tonic::Response::into_inner).map_err(|status| format!("{:#}", explain(&status)));
    let own = reach.credentials().leaf();
    let findings = diagnose(&Seen { status, nodes, begun, ended, own: (own.identity.to_string(), own.not_after), cas });
    output.print(|| as_json(&findings), || as_text(&findings))?;
    let well = findings.iter().all(|finding| finding.level == Level::Ok);
    Ok(if well { Ended::Well } else { Ended::WithFaults })
}

/// The last second of each CA that this operator trusts.
fn cas(folder: &Path) -> anyhow::Result<Vec<UnixMs>> {
    let path = folder.join("ca.pem");
    let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    CertificateDer::pem_slice_iter(&text)
        .map(|der| {
            let der = der.with_context(|| format!("read {}", path.display()))?;
            let (_, ca) = X509Certificate::from_der(&der).with_context(|| format!("read {}", path.display()))?;
            let seconds = u64::try_from(ca.validity().not_after.timestamp()).unwrap_or_default();
            Ok(UnixMs(seconds.saturating_mul(1_000)))
        })
        .collect()
}

fn as_json(findings: &[Finding]) -> serde_json::Value {
    let finding =
        |it: &Finding| json!({"level": it.level.to_string(), "about": it.about, "what": it.what, "todo": it.todo});
    let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    json!({"worst": worst.to_string(), "findings": findings.iter().map(finding).collect::<Vec<_>>()})
}

fn as_text(findings: &[Finding]) -> String {
    let mut findings: Vec<&Finding> = findings.iter().collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let rows = findings
        .iter()
        .map(|it| vec![it.level.to_string().into(), (&it.about).into(), (&it.what).into(), (&it.todo).into()]);
    table(&["LEVEL", "ABOUT", "WHAT", "TO DO"], rows)
}
