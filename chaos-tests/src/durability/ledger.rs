//! The oracle: what was proposed, and what the proposer was told about it. Everything follows from the numbers of life, cycle
//! and proposal, so that a record that comes back can be compared with what it must be.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use proto::{
    address::{Address, ReversePath},
    department::DepartmentId,
    held::{BodyRef, Held, HeldId, HeldKind, HeldStatus, MutationId, TransactionId},
    mutation::Change,
    score::Score,
    time::UnixMs,
    verdict::{Disposition, Reason, Verdict},
};
use sha2::{Digest as _, Sha256};

/// What a proposer was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was done: it must be there from now on.
    Acknowledged,
    /// It was refused: it must never be there.
    Refused,
    /// No answer: all of it may be there, or nothing.
    Unknown,
}

/// Names a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proposal {
    /// Between two faults.
    pub cycle: u32,
    /// Within its cycle.
    pub number: u32,
}

impl Proposal {
    /// Its mutation id.
    #[must_use]
    pub fn mutation(self) -> MutationId {
        MutationId(self.ulid(0xff))
    }

    fn ulid(self, part: u8) -> ulid::Ulid {
        ulid::Ulid((u128::from(self.cycle) << 64) | (u128::from(self.number) << 16) | (u128::from(part) + 1))
    }

    /// Whether the state must refuse it.
    #[must_use]
    pub fn is_invalid(self) -> bool {
        self.number % 16 == 7
    }

    /// Its records: one, two or three.
    #[must_use]
    pub fn records(self) -> Vec<Held> {
        let count = u8::try_from(self.number % 3 + 1).unwrap_or(1);
        (0..count).map(|part| self.record(part)).collect()
    }

    /// What the node proposes.
    #[must_use]
    pub fn change(self) -> Change {
        Change::Hold { records: self.records() }
    }

    /// A record that this proposal does not make, for the same recipient.
    #[must_use]
    pub fn stranger(self) -> Held {
        self.record(0x80)
    }

    fn record(self, part: u8) -> Held {
        let Self { cycle, number } = self;
        let id = HeldId(self.ulid(part));
        let digest = hex::encode(Sha256::digest(id.to_string()));
        let mut servers = vec!["solo".to_owned(), "other".to_owned()];
        if self.is_invalid() {
            // A body on one server only is no promise: the state refuses this.
            servers.truncate(1);
        }
        let reason =
            Reason { rule: "TEST".into(), score: Score::points(7, 0), text: "x".repeat(number as usize % 700) };
        Held {
            id,
            transaction: TransactionId(self.ulid(0xfe)),
            kind: HeldKind::Quarantined,
            status: HeldStatus::Waiting,
            department: DepartmentId::parse("interior").ok(),
            from_department: None,
            reverse_path: ReversePath::Null,
            recipients: vec![Address::parse(&recipient(cycle)).expect("a local part of letters and digits")],
            body: BodyRef { size_bytes: u64::from(number), servers, digest: digest.clone() },
            verdict: Verdict {
                disposition: Disposition::Quarantine,
                score: Score::points(7, 0),
                tagged: false,
                reasons: vec![reason],
                policy_version: 1,
            },
            client: std::net::IpAddr::from([192, 0, 2, 1]),
            subject: format!("{cycle}/{number}/{part} {digest}"),
            received_at: UnixMs(0),
            lease: None,
            attempts: 0,
            next_attempt: UnixMs(0),
            last_problem: String::new(),
            handling: Default::default(),
            notifications: Default::default(),
        }
    }
}

/// For whom the messages of a cycle are.
#[must_use]
pub fn recipient(cycle: u32) -> String {
    format!("cycle{cycle}@interior.gov.test")
}

/// A record without the time of receipt, which the state keeps near log time.
#[must_use]
pub fn timeless(held: Held) -> Held {
    Held { received_at: UnixMs(0), ..held }
}

/// All proposals of one data folder's life.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<BTreeMap<Proposal, Fate>>);

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Proposal, Fate>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a proposal is sent: unknown. Behind: what the answer was.
    pub fn note(&self, proposal: Proposal, fate: Fate) {
        self.lock().insert(proposal, fate);
    }

    /// The proposals of a cycle, in order.
    #[must_use]
    pub fn of_cycle(&self, cycle: u32) -> Vec<(Proposal, Fate)> {
        let (from, to) = (Proposal { cycle, number: 0 }, Proposal { cycle, number: u32::MAX });
        self.lock().range(from..=to).map(|(proposal, fate)| (*proposal, *fate)).collect()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<(Proposal, Fate)> {
        self.lock().iter().map(|(proposal, fate)| (*proposal, *fate)).collect()
    }

    /// Compares what came back of a cycle, by record id, with what its proposers were told: one sentence for each fault.
    /// `matches` says whether what came back is the record.
    pub fn faults<T>(
        &self,
        cycles: impl IntoIterator<Item = u32>,
        mut found: BTreeMap<String, T>,
        matches: impl Fn(&Held, &T) -> bool,
    ) -> Vec<String> {
        let mut faults = Vec::new();
        for (proposal, fate) in cycles.into_iter().flat_map(|cycle| self.of_cycle(cycle)) {
            let records = proposal.records();
            let there: Vec<Option<T>> = records.iter().map(|record| found.remove(&record.id.to_string())).collect();
            let count = there.iter().flatten().count();
            match fate {
                Fate::Acknowledged if count < records.len() => {
                    faults.push(format!("LOST: {proposal:?} was acknowledged; {count} of {} are there", records.len()));
                }
                Fate::Refused if count > 0 => faults.push(format!("{proposal:?} was refused and is there")),
                Fate::Unknown if count > 0 && (count < records.len() || proposal.is_invalid()) => {
                    faults.push(format!("{proposal:?} is there in part: {count} of {}", records.len()));
                }
                Fate::Acknowledged | Fate::Refused | Fate::Unknown => {}
            }
            for (record, there) in records.iter().zip(&there) {
                if there.as_ref().is_some_and(|there| !matches(record, there)) {
                    faults.push(format!("{proposal:?} is there with another content: {}", record.id));
                }
            }
        }
        faults.extend(found.keys().map(|id| format!("{id} is there and was never proposed")));
        faults
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proto::held::Held;

    use super::{Fate, Ledger, Proposal};

    fn found(proposals: &[Proposal]) -> BTreeMap<String, Held> {
        proposals.iter().flat_map(|each| each.records()).map(|record| (record.id.to_string(), record)).collect()
    }

    #[test]
    fn each_kind_of_fault_is_told_and_nothing_else() {
        let ledger = Ledger::default();
        let [acknowledged, refused, unknown] = [1, 7, 5].map(|number| Proposal { cycle: 3, number });
        ledger.note(acknowledged, Fate::Acknowledged);
        ledger.note(refused, Fate::Refused);
        ledger.note(unknown, Fate::Unknown);
        let faults = |found| ledger.faults([3], found, |one: &Held, other| one == other);
        assert_eq!(faults(found(&[acknowledged])), Vec::<String>::new());
        assert_eq!(faults(found(&[acknowledged, unknown])), Vec::<String>::new());

        assert!(faults(found(&[unknown]))[0].starts_with("LOST"));
        assert!(faults(found(&[acknowledged, refused]))[0].contains("was refused"));
        let mut part = found(&[acknowledged, unknown]);
        part.remove(&unknown.records()[0].id.to_string());
        assert!(faults(part)[0].contains("in part"));
        let mut other = found(&[acknowledged]);
        other.first_entry().expect("a record").get_mut().subject.clear();
        assert!(faults(other)[0].contains("another content"));
        let stranger = Proposal { cycle: 3, number: 9 };
        assert!(faults(found(&[acknowledged, stranger]))[0].contains("never proposed"));
    }
}
