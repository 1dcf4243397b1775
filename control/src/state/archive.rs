//! The state as a whole: the trace of a backup, the steps of a restore, and what an archive's keys say of the bodies that they
//! need.
//!
//! A restore brings the keys of an archive in through the log. The mutation ids that are remembered, the members, and what nodes
//! were told at which log index stay those of the new cluster; the state's numbers are joined at the end.

use std::collections::BTreeMap;

use proto::{
    archive::{ArchiveAct, Origin, unpack},
    codec,
    mutation::{Change, Grounds, Mutation, Outcome, Refused},
    time::UnixMs,
};
use serde::{Deserialize, Serialize};

use super::{
    Meta, Step,
    audit::{check_grounds, clipped},
    held::{Record, has_ended},
    keys::{FIRST, Keys, Kind, LAST, PART_BYTES, behind, key},
    lessons, members,
};

/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 4 * 1024;
/// Longest record that is put together out of its parts, in bytes; a record has at most 1,000 recipients.
const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A restore that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoring {
    /// Of which archive.
    pub origin: Origin,
    /// The piece that comes next.
    pub next: u64,
}

/// The restore that is under way.
pub fn restoring(keys: &impl Keys) -> Option<Restoring> {
    Meta::of(keys).restoring
}

/// Whether a key of an archive comes into the new cluster as it is.
#[must_use]
pub fn is_restored(key: &[u8]) -> bool {
    const OWN: [Kind; 6] = [Kind::Meta, Kind::Remembered, Kind::RememberedAt, Kind::Member, Kind::Feed, Kind::Journal];
    key.first().is_some_and(|found| OWN.iter().all(|own| *own as u8 != *found)) && key >= FIRST && key < LAST
}

/// Whether a key is that of the state's own numbers.
#[must_use]
pub fn is_numbers(found: &[u8]) -> bool {
    found == key(Kind::Meta, &[])
}

fn invalid<T>(text: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Invalid(text.into()))
}

impl<K: Keys> Step<'_, K> {
    /// While a restore is under way nothing else may change: it would be lost, or be mixed with what comes.
    pub(super) fn check_restoring(&self, change: &Change) -> Result<(), Refused> {
        let Some(Restoring { origin, .. }) = &self.meta.restoring else { return Ok(()) };
        match change {
            Change::Archive {
                act: ArchiveAct::Begin(_) | ArchiveAct::Keys { .. } | ArchiveAct::End { .. }, ..
            } => Ok(()),
            Change::Archive { act: ArchiveAct::Backup, .. }
            | Change::ApplyPolicy { .. }
            | Change::Hold { .. }
            | Change::Discard { .. }
            | Change::Lease { .. }
            | Change::Attempted { .. }
            | Change::Release { .. }
            | Change::Delete { .. }
            | Change::Member { .. }
            | Change::DrainNode { .. }
            | Change::Report { .. }
            | Change::PutOff { .. }
            | Change::SetReputation { .. }
            | Change::ForgetReputation { .. }
            | Change::Learn { .. }
            | Change::ReportMail { .. }
            | Change::Learnt { .. }
            | Change::ForgetLearning { .. } => invalid(format!(
                "the cluster is being restored from the archive {}: wait for its end, or repeat `posternctl restore` with it",
                origin.archive
            )),
        }
    }

    pub(super) fn archive(
        &mut self,
        mutation: &Mutation,
        act: &ArchiveAct,
        grounds: &Grounds,
    ) -> Result<Outcome, Refused> {
        match act {
            ArchiveAct::Backup => {
                check_grounds(grounds)?;
                self.audit(mutation, "backup of the state and the bodies of held messages".into(), grounds);
            }
            ArchiveAct::Begin(origin) => {
                check_grounds(grounds)?;
                self.begin(origin)?;
            }
            ArchiveAct::Keys { archive, piece, pairs } => self.piece(archive, *piece, pairs)?,
            ArchiveAct::End { archive, numbers } => {
                check_grounds(grounds)?;
                self.end(mutation, archive, numbers, grounds)?;
            }
        }
        Ok(Outcome::Done)
    }

    fn begin(&mut self, origin: &Origin) -> Result<(), Refused> {
        if let Some(Restoring { origin: other, .. }) = &self.meta.restoring {
            if other == origin {
                return Ok(());
            }
            return invalid(format!(
                "a restore from another archive ({}) has begun here: repeat it with that one, or form a new cluster",
                other.archive
            ));
        }
        // The record of the first members is the only one that a new cluster has.
        let subjects = key(Kind::Subject, &[]);
        let heard = self.keys.range(&subjects, &behind(&subjects)).next().is_some();
        if heard || self.meta.policy_version > 0 || self.meta.held > 0 || self.meta.audit_seq > 1 {
            return invalid(
                "a restore needs a new cluster, with nothing done since `posternctl cluster form`: this one has a policy, held \
                 messages, an audit log or reputation",
            );
        }
        self.meta.restoring = Some(Restoring { origin: origin.clone(), next: 0 });
        Ok(())
    }

    /// The restore of this archive.
    fn under_way(&self, archive: &str) -> Result<&Restoring, Refused> {
        match &self.meta.restoring {
            Some(restoring) if restoring.origin.archive == archive => Ok(restoring),
            Some(_) | None => invalid("no restore of this archive is under way: begin with `posternctl restore`"),
        }
    }

    fn piece(&mut self, archive: &str, piece: u64, pairs: &[u8]) -> Result<(), Refused> {
        let Restoring { origin, next } = self.under_way(archive)?;
        if piece < *next {
            return Ok(());
        }
        if piece > *next || piece >= origin.pieces {
            return invalid(format!("piece {next} of {} comes next, not {piece}", origin.pieces));
        }
        let Some(pairs) = unpack(pairs) else { return invalid("the pairs of a piece break off") };
        let fits =
            |key: &[u8], value: &[u8]| is_restored(key) && key.len() <= KEY_BYTES_MAX && value.len() <= PART_BYTES;
        if !pairs.iter().all(|(key, value)| fits(key, value)) {
            return invalid("a piece holds a key that is not to be restored, or one beyond its bound");
        }
        for (key, value) in pairs {
            self.keys.put_bytes(key.to_vec(), value.to_vec());
        }
        if let Some(restoring) = &mut self.meta.restoring {
            restoring.next += 1;
        }
        Ok(())
    }

    fn end(&mut self, mutation: &Mutation, archive: &str, numbers: &[u8], grounds: &Grounds) -> Result<(), Refused> {
        let Restoring { origin, next } = self.under_way(archive)?.clone();
        if next != origin.pieces {
            return invalid(format!("{next} of {} pieces have come", origin.pieces));
        }
        let Ok(numbers) = codec::decode::<Meta>("the state's numbers", numbers) else {
            return invalid("the state's numbers cannot be read");
        };
        let now = self.meta.now.max(numbers.now);
        self.meta = Meta { now, remembered: self.meta.remembered, restoring: None, ..numbers };
        self.forget_journal();
        let members = members::all(&self.keys);
        let names: Vec<&str> = members.iter().map(|record| record.member.name.as_str()).collect();
        let what = format!(
            "restored cluster {} as of index {} and {} from the archive {} into a new cluster of {}",
            clipped(&origin.cluster, 100),
            origin.index,
            origin.at,
            clipped(&origin.archive, 100),
            names.join(", ")
        );
        self.audit(mutation, what, grounds);
        Ok(())
    }
}

/// What a state holds, found in its pairs, which come in the order of their keys.
#[derive(Debug, Default)]
pub struct Contents {
    /// The bodies that records which have not ended need, and that of the model: digest and length in bytes.
    pub bodies: BTreeMap<String, u64>,
    /// The state's own numbers, as they are stored.
    pub numbers: Vec<u8>,
    /// Policy version in force.
    pub policy_version: u64,
    /// Held messages that wait or are to be delivered.
    pub held: u64,
    /// Number of the newest audit record.
    pub audit_records: u64,
    /// Log time.
    pub at: UnixMs,
    base: Vec<u8>,
    parts: Vec<u8>,
}

/// Something in the state that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state cannot be read: it was made by a later version of Postern, or is damaged")]
pub struct Unreadable;

impl Contents {
    /// The next pair.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), Unreadable> {
        if is_numbers(key) {
            let numbers: Meta = codec::decode("the state's numbers", value).map_err(|_| Unreadable)?;
            self.numbers = value.to_vec();
            (self.policy_version, self.held, self.at) = (numbers.policy_version, numbers.open, numbers.now);
            self.audit_records = numbers.audit_seq;
        }
        if let Some(body) = lessons::body_in(key, value)? {
            self.bodies.insert(body.digest, body.size_bytes);
        }
        if key.first() != Some(&(Kind::Held as u8)) {
            return self.end_of_record();
        }
        let base = key.get(..key.len().saturating_sub(2)).unwrap_or_default();
        if base != self.base {
            self.end_of_record()?;
            self.base = base.to_vec();
        }
        if self.parts.len() + value.len() > RECORD_BYTES_MAX {
            return Err(Unreadable);
        }
        self.parts.extend_from_slice(value);
        Ok(())
    }

    /// To be called behind the last pair, too.
    ///
    /// # Errors
    /// When the last record cannot be read.
    pub fn end_of_record(&mut self) -> Result<(), Unreadable> {
        self.base.clear();
        if self.parts.is_empty() {
            return Ok(());
        }
        let record: Record = codec::decode("a held record", &self.parts).map_err(|_| Unreadable)?;
        self.parts.clear();
        if has_ended(&record.held.status).is_none() {
            self.bodies.insert(record.held.body.digest, record.held.body.size_bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
