//! `node view`, and waiting for nodes to use a policy version.

use std::time::{Duration, Instant};

use anyhow::Context;
use proto::wire::inspect::{ViewInUseRequest, ViewInUseResponse};
use serde_json::{Value, json};

use super::{
    Ended,
    connect::{Inspect, Reach, explain},
    escape,
    output::{Output, table},
};

/// How long a node may take to use a version.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A node that uses a version.
#[derive(Clone, Debug)]
pub struct InUse {
    view: ViewInUseResponse,
    after: Duration,
}

impl InUse {
    /// For programs.
    #[must_use]
    pub fn as_json(&self) -> Value {
        json!({"node": self.view.node, "site": self.view.site, "policy_version": self.view.policy_version,
            "after_ms": millis(self.after)})
    }

    /// `mx1 (north) uses version 3 after 12.4 ms`.
    #[must_use]
    pub fn as_text(&self, version: u64) -> String {
        let (node, site) = (escape::cell(&self.view.node), escape::cell(&self.view.site));
        format!(
            "{node} ({site}) uses version {} after {:.1} ms",
            self.view.policy_version.max(version),
            millis(self.after)
        )
    }
}

fn millis(time: Duration) -> f64 {
    // Tenths are enough for people and programs.
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Waits until all these nodes use a version; times count from `begun`.
///
/// # Errors
/// When a node does not within a minute, or goes away.
pub async fn wait_all(nodes: Vec<(String, Inspect)>, version: u64, begun: Instant) -> anyhow::Result<Vec<InUse>> {
    let waits = nodes.into_iter().map(|(address, mut node)| async move {
        let view = in_use(&mut node, version).await.with_context(|| {
            format!("version {version} is in force, but node {address} does not use it (see `posternctl node view`)")
        })?;
        Ok::<_, anyhow::Error>(InUse { view, after: begun.elapsed() })
    });
    futures::future::try_join_all(waits).await
}

async fn in_use(node: &mut Inspect, policy_version: u64) -> anyhow::Result<ViewInUseResponse> {
    let answer = tokio::time::timeout(WAIT_MAX, node.view_in_use(ViewInUseRequest { policy_version })).await;
    let answer = answer.with_context(|| format!("no answer within {} s", WAIT_MAX.as_secs()))?;
    Ok(answer.map_err(|status| explain(&status))?.into_inner())
}

/// Shows what a node works under, once it uses `version` or a later one.
///
/// # Errors
/// When the node does not answer, or not in time.
pub async fn view(reach: &Reach, output: Output, address: &str, version: u64) -> anyhow::Result<Ended> {
    let view = in_use(&mut reach.node(address).await?, version).await.with_context(|| format!("node {address}"))?;
    output.print(
        || {
            json!({"node": view.node, "site": view.site, "policy_version": view.policy_version, "index": view.index,
                "age_ms": view.age_ms, "drained": view.drained, "learnt_version": view.learnt_version,
                "learnt_problem": view.learnt_problem})
        },
        || {
            let row = vec![
                (&view.node).into(),
                (&view.site).into(),
                view.policy_version.to_string().into(),
                view.index.to_string().into(),
                format!("{} ms", view.age_ms).into(),
                if view.drained { "none: drained" } else { "taken" }.into(),
                learnt(&view).into(),
            ];
            let heading = ["NODE", "SITE", "POLICY VERSION", "LOG INDEX", "CONFIRMED AGO", "NEW MAIL", "LEARNT MODEL"];
            table(&heading, [row])
        },
    )?;
    Ok(Ended::Well)
}

/// The learnt model that a node uses.
fn learnt(view: &ViewInUseResponse) -> String {
    match (view.learnt_version, view.learnt_problem.as_str()) {
        (0, "") => "none".to_owned(),
        (version, "") => format!("version {version}"),
        (_, problem) => problem.to_owned(),
    }
}
