//! `backup` and `backup verify`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use proto::{
    time::UnixMs,
    wire::operator::{BackupBegin, BackupRequest, backup_part::Part},
};
use serde_json::json;

use super::{
    Ended,
    args::reason,
    connect::{Reach, explain},
    output::{self, Output, size, table},
};
use crate::archive::{Manifest, read::Archive, write::Writer};

/// `backup`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  posternctl backup /backup/2026-11-21.tar --why nightly
  posternctl backup verify /backup/2026-11-21.tar
  posternctl restore /backup/2026-11-21.tar --why 'the data centre burnt down'

THE FILE HOLDS CITIZENS' MAIL: the bodies of all held messages, and who wrote to whom. Only its owner may read it; keep it on an
encrypted disk, or encrypt it before it leaves the host (age, gpg). Keys and certificates are not in it.

Everything is as of one moment, with the record of this backup in the audit log. `tar tf FILE` lists what is inside. Exit code 1
when a body could not be had from any control server; all others are there then."
)]
pub struct Backup {
    /// A new file. It has its name only once it is whole.
    #[arg(required = true)]
    pub file: Option<PathBuf>,
    /// Why, in words, for the audit log.
    #[arg(long, value_name = "TEXT", value_parser = reason, required = true)]
    pub why: Option<String>,
    /// Number in your ticket system.
    #[arg(long, value_name = "T", default_value = "", hide_default_value = true)]
    pub ticket: String,
    /// Or look at one that was made.
    #[command(subcommand)]
    pub verify: Option<BackupCommand>,
}

/// What else is done with backups.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Read a backup from end to end, without a cluster: is it whole, and what is in it?
    Verify {
        /// The file.
        file: PathBuf,
    },
}

/// `restore`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example, after the three hosts of a new cluster were set up with `posternctl cluster init` and `cluster form`:
  posternctl --config prod2/operators/anna/posternctl.yaml restore /backup/2026-11-21.tar --why 'the data centre burnt down'

The cluster must be new: nothing but `cluster form` was done. The whole file is checked before anything is changed. Policy,
quarantine, reputation and audit log come into force together at the end, when each body is on two servers in two sites again; until
then nothing else can be changed, and no mail is accepted. When it breaks off, repeat it with the same file.

What was delivered or released after the backup was made is not known to it: deferred mail of then is delivered again."
)]
pub struct Restore {
    /// A file of `posternctl backup`.
    pub file: PathBuf,
    /// Why, in words, for the audit log.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub why: String,
    /// Number in your ticket system.
    #[arg(long, value_name = "T", default_value = "", hide_default_value = true)]
    pub ticket: String,
}

/// A bar over bytes.
pub(super) fn bar(bytes: u64, what: &'static str) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}")?;
    Ok(ProgressBar::new(bytes).with_style(style).with_message(what))
}

/// Makes a backup.
///
/// # Errors
/// When no server answers, the stream breaks or the file cannot be written; then there is no file.
pub async fn run(reach: &Reach, output: Output, backup: &Backup) -> anyhow::Result<Ended> {
    let (Some(file), Some(why)) = (&backup.file, &backup.why) else { bail!("a file and --why are needed") };
    let writer = Writer::create(file).with_context(|| format!("backup to {}", file.display()))?;
    let request = BackupRequest { why: why.clone(), ticket: backup.ticket.clone() };
    let mut control = reach.control().await?;
    let mut parts =
        control.backup(request).await.map_err(|status| explain(&status)).context("begin a backup")?.into_inner();
    let mut receiving = Receiving::new(writer)?;
    let part = async |parts: &mut tonic::Streaming<_>| {
        parts.message().await.map_err(|status| explain(&status)).context("receive the backup")
    };
    while let Some(answer) = part(&mut parts).await? {
        let answer: proto::wire::operator::BackupPart = answer;
        if receiving.take(answer.part.context("an empty part came")?)? {
            let (manifest, sum) = receiving.finish()?;
            output.print(|| as_json(&manifest, &sum, file), || as_text(&manifest, &sum))?;
            return Ok(told(&manifest, file));
        }
    }
    bail!("the server ended the backup before its end: try again, or another one with --server")
}

/// The parts on their way into the file.
struct Receiving {
    writer: Writer,
    manifest: Manifest,
    /// What was announced.
    begin: Option<BackupBegin>,
    /// Digest of the body under way; empty: the state.
    body: Option<String>,
    bar: ProgressBar,
}

impl Receiving {
    fn new(writer: Writer) -> anyhow::Result<Self> {
        Ok(Self { writer, manifest: Manifest::default(), begin: None, body: None, bar: bar(0, "backup")? })
    }

    /// True with the last part.
    fn take(&mut self, part: Part) -> anyhow::Result<bool> {
        match part {
            Part::Begin(begin) if self.begin.is_none() => {
                self.bar.set_length(begin.state_bytes + begin.body_bytes);
                self.writer.state(begin.state_bytes)?;
                self.body = Some(String::new());
                self.manifest = Manifest {
                    cluster: begin.cluster.clone(),
                    index: begin.index,
                    at_ms: begin.at_ms,
                    at: UnixMs(begin.at_ms).to_string(),
                    made_by: env!("CARGO_PKG_VERSION").to_owned(),
                    policy_version: begin.policy_version,
                    held: begin.held,
                    state_bytes: begin.state_bytes,
                    ..Manifest::default()
                };
                self.begin = Some(begin);
            }
            Part::State(bytes) | Part::BodyBytes(bytes) => {
                self.bar.inc(bytes.len() as u64);
                self.writer.bytes(&bytes)?;
            }
            Part::Body(body) => {
                self.end_of_entry()?;
                self.manifest.bodies += 1;
                self.manifest.body_bytes += body.size_bytes;
                self.writer.body(&body.digest, body.size_bytes)?;
                self.body = Some(body.digest);
            }
            Part::Missing(body) => self.manifest.missing.push(body.digest),
            Part::End(_) => {
                self.end_of_entry()?;
                let announced = self.begin.as_ref().map(|begin| begin.bodies);
                if announced != Some(self.manifest.bodies + self.manifest.missing.len() as u64) {
                    bail!("other bodies came than were announced: make the backup again");
                }
                return Ok(true);
            }
            Part::Begin(_) => bail!("the backup began twice: make it again"),
        }
        Ok(false)
    }

    fn end_of_entry(&mut self) -> anyhow::Result<()> {
        let Some(digest) = self.body.take() else { return Ok(()) };
        let found = self.writer.end()?;
        if digest.is_empty() {
            self.manifest.state_sha256 = found;
        } else if found != digest {
            bail!("a body came damaged: make the backup again");
        }
        Ok(())
    }

    /// Names the file once it is whole, and says what is in it.
    fn finish(mut self) -> anyhow::Result<(Manifest, String)> {
        self.manifest.audit_records = self.begin.map_or(0, |begin| begin.audit_records);
        let sum = self.writer.finish(&self.manifest)?;
        self.bar.finish_and_clear();
        Ok((self.manifest, sum))
    }
}

fn told(manifest: &Manifest, file: &Path) -> Ended {
    if manifest.missing.is_empty() {
        return Ended::Well;
    }
    output::note(&format!(
        "posternctl: {} bodies are missing in {}: no control server has them right now. Start those that are down and make \
         another backup; see `posternctl doctor`",
        manifest.missing.len(),
        file.display()
    ));
    Ended::WithFaults
}

/// Checks a backup without a cluster.
///
/// # Errors
/// When it is damaged or cannot be read.
pub fn verify(output: Output, file: &Path) -> anyhow::Result<Ended> {
    let archive = open(file)?;
    output.print(|| as_json(&archive.manifest, &archive.sum, file), || as_text(&archive.manifest, &archive.sum))?;
    Ok(told(&archive.manifest, file))
}

/// Opens a backup and reads it from end to end.
pub(super) fn open(file: &Path) -> anyhow::Result<Archive> {
    let length = std::fs::metadata(file).map_or(0, |meta| meta.len());
    let bar = bar(length * 2, "check")?;
    let archive = Archive::open(file, |bytes| bar.inc(bytes)).with_context(|| file.display().to_string());
    bar.finish_and_clear();
    archive
}

fn as_json(manifest: &Manifest, sum: &str, file: &Path) -> serde_json::Value {
    json!({"file": file.display().to_string(), "sha256": sum, "whole": true, "manifest": manifest})
}

fn as_text(manifest: &Manifest, sum: &str) -> String {
    let rows = [
        ("cluster", manifest.cluster.clone()),
        ("as of", format!("{}, log index {}", manifest.at, manifest.index)),
        ("policy", format!("version {}", manifest.policy_version)),
        ("held messages", manifest.held.to_string()),
        ("audit records", manifest.audit_records.to_string()),
        ("state", size(manifest.state_bytes)),
        ("bodies", format!("{}, {}", manifest.bodies, size(manifest.body_bytes))),
        ("bodies missing", manifest.missing.len().to_string()),
        ("sha256", sum.to_owned()),
    ];
    table(&["BACKUP", "whole"], rows.map(|(key, value)| vec![key.into(), value.into()]))
}
