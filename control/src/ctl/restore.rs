//! `restore`: an archive into a new cluster. Each step may be repeated, so that a restore that broke off is begun again.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use proto::wire::operator::{
    BodyPart, RestoreBegin, RestoreEnd, RestoreKeys, RestoreStepRequest, restore_step_request::Step,
};
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    Ended,
    backup::{Restore, bar, open},
    connect::{Control, Reach, explain},
    output::{self, Output},
};
use crate::archive::{ArchiveError, read::Archive};

/// Bodies on their way at once.
const BODIES_AT_ONCE: usize = 4;
/// Bytes of a body in one message.
const CHUNK_BYTES: usize = 256 * 1024;

/// Checks the archive, brings the state in, then the bodies, and puts it in force.
///
/// # Errors
/// When the archive is damaged, the cluster is not new, or no server answers.
pub async fn run(reach: &Reach, output: Output, restore: Restore) -> anyhow::Result<Ended> {
    let Restore { file, why, ticket } = restore;
    let (archive, pieces) = check(file).await?;
    let mut control = reach.control().await?;
    let manifest = &archive.manifest;
    let begin = RestoreBegin {
        archive: archive.sum.clone(),
        cluster: manifest.cluster.clone(),
        index: manifest.index,
        at_ms: manifest.at_ms,
        pieces,
        why: why.clone(),
        ticket: ticket.clone(),
    };
    if !step(&mut control, Step::Begin(begin)).await? {
        return Ok(Ended::WithFaults);
    }
    state(&mut control, &archive).await?;
    bodies(&control, &archive).await?;
    let end = RestoreEnd { archive: archive.sum.clone(), numbers: archive.numbers.clone(), why, ticket };
    if !step(&mut control, Step::End(end)).await? {
        return Ok(Ended::WithFaults);
    }
    output.print(
        || json!({"restored": true, "sha256": archive.sum, "manifest": manifest}),
        || {
            format!(
                "Restored: cluster {} as of {}: policy version {}, {} held messages, {} bodies in two sites, {} audit \
                 records.\nNext: posternctl doctor; then start the nodes.",
                manifest.cluster,
                manifest.at,
                manifest.policy_version,
                manifest.held,
                manifest.bodies,
                manifest.audit_records
            )
        },
    )?;
    if manifest.missing.is_empty() {
        return Ok(Ended::Well);
    }
    output::note(&format!(
        "posternctl: {} held messages' bodies are not in the archive and cannot be delivered: {}",
        manifest.missing.len(),
        manifest.missing.join(", ")
    ));
    Ok(Ended::WithFaults)
}

/// Reads the whole archive, and counts its pieces.
async fn check(file: PathBuf) -> anyhow::Result<(Arc<Archive>, u64)> {
    let checked = tokio::task::spawn_blocking(move || {
        let archive = open(&file)?;
        let mut count = 0;
        archive.pieces(|_| -> Result<(), ArchiveError> {
            count += 1;
            Ok(())
        })?;
        anyhow::Ok((Arc::new(archive), count))
    });
    checked.await.context("read the archive")?
}

/// Whether a step was done; why not is printed.
async fn step(control: &mut Control, step: Step) -> anyhow::Result<bool> {
    let answer = control.restore_step(RestoreStepRequest { step: Some(step) }).await;
    let answer =
        answer.map_err(|status| explain(&status)).context("restore; repeat the command to go on")?.into_inner();
    if !answer.done {
        output::note(&format!("posternctl: refused: {}", answer.refused));
    }
    Ok(answer.done)
}

/// Why the reading of pieces ends early.
enum Stop {
    Archive(ArchiveError),
    /// The sending has failed, and says so itself.
    Left,
}

impl From<ArchiveError> for Stop {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

impl From<crate::state::store::StoreError> for Stop {
    fn from(error: crate::state::store::StoreError) -> Self {
        Self::Archive(error.into())
    }
}

async fn state(control: &mut Control, archive: &Arc<Archive>) -> anyhow::Result<()> {
    let bar = bar(archive.manifest.state_bytes, "state")?;
    let (sender, mut pieces) = mpsc::channel(4);
    let reading = Arc::clone(archive);
    let reader = tokio::task::spawn_blocking(move || {
        reading.pieces(|piece| sender.blocking_send(piece).map_err(|_| Stop::Left))
    });
    let mut piece = 0;
    while let Some(pairs) = pieces.recv().await {
        bar.inc(pairs.len() as u64);
        if !step(control, Step::Keys(RestoreKeys { archive: archive.sum.clone(), piece, pairs })).await? {
            bail!("the restore did not come to its end");
        }
        piece += 1;
    }
    bar.finish_and_clear();
    match reader.await.context("read the archive")? {
        Ok(()) | Err(Stop::Left) => Ok(()),
        Err(Stop::Archive(error)) => Err(error.into()),
    }
}

async fn bodies(control: &Control, archive: &Arc<Archive>) -> anyhow::Result<()> {
    let bar = bar(archive.manifest.body_bytes, "bodies")?;
    let sent = stream::iter(archive.bodies().map(str::to_owned).enumerate()).map(|(number, digest)| {
        let (mut control, archive, bar) = (control.clone(), Arc::clone(archive), bar.clone());
        async move {
            let bytes = tokio::task::spawn_blocking(move || archive.body(number)).await.context("read a body")??;
            let size_bytes = bytes.len() as u64;
            let first = BodyPart { digest: digest.clone(), size_bytes, data: Vec::new() };
            let rest: Vec<BodyPart> =
                bytes.chunks(CHUNK_BYTES).map(|data| BodyPart { data: data.to_vec(), ..BodyPart::default() }).collect();
            let parts = stream::iter(std::iter::once(first).chain(rest));
            let stored = control.restore_body(parts).await.map_err(|status| explain(&status));
            let stored = stored.with_context(|| format!("restore the body {digest}; repeat the command to go on"))?;
            anyhow::ensure!(stored.into_inner().servers.len() > 1, "the body {digest} is on one server only");
            bar.inc(size_bytes);
            anyhow::Ok(())
        }
    });
    sent.buffer_unordered(BODIES_AT_ONCE).try_collect::<()>().await?;
    bar.finish_and_clear();
    Ok(())
}
