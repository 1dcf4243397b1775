//! `audit`: the newest records, and whether each follows the one before.

use proto::wire::operator::{AuditEntry, AuditRequest};
use serde_json::json;

use super::{
    Ended,
    connect::{Reach, explain},
    output::{self, Output, table, time},
};

/// Shows the records, newest first, and checks their chain.
///
/// # Errors
/// When no server answers.
pub async fn run(reach: &Reach, output: Output, max: u32) -> anyhow::Result<Ended> {
    let mut control = reach.control().await?;
    let answer = control.audit(AuditRequest { max }).await.map_err(|status| explain(&status))?;
    let mut entries = answer.into_inner().entries;
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.seq));
    let broken = breaks(&entries);
    let as_json = |it: &AuditEntry| {
        json!({"seq": it.seq, "at": time(it.at_ms), "by": it.by, "what": it.what, "why": it.why, "ticket": it.ticket,
            "hash": it.hash, "previous": it.previous})
    };
    let as_row = |it: &AuditEntry| {
        let hash: String = it.hash.chars().take(12).collect();
        vec![
            it.seq.to_string().into(),
            time(it.at_ms).into(),
            (&it.by).into(),
            (&it.what).into(),
            (&it.why).into(),
            (&it.ticket).into(),
            hash.into(),
        ]
    };
    output.print(
        || json!({"entries": entries.iter().map(as_json).collect::<Vec<_>>(), "breaks": broken}),
        || match entries.is_empty() {
            true => "No change yet.".into(),
            false => table(&["NO", "WHEN", "WHO", "WHAT", "WHY", "TICKET", "HASH"], entries.iter().map(as_row)),
        },
    )?;
    for problem in &broken {
        output::note(&format!("posternctl: {problem}"));
    }
    Ok(if broken.is_empty() { Ended::Well } else { Ended::WithFaults })
}

/// Where records, newest first, do not follow each other.
fn breaks(entries: &[AuditEntry]) -> Vec<String> {
    let mut problems = Vec::new();
    for pair in entries.windows(2) {
        let [later, earlier] = pair else { continue };
        if later.seq != earlier.seq + 1 {
            problems.push(format!("audit records between {} and {} are missing", earlier.seq, later.seq));
        } else if later.previous != earlier.hash {
            problems.push(format!(
                "audit record {} does not hold the hash of record {}: one of them was altered",
                later.seq, earlier.seq
            ));
        }
    }
    if let Some(first) = entries.last().filter(|entry| entry.seq == 1 && !entry.previous.is_empty()) {
        problems.push(format!("audit record {} is not the first: it names one before it", first.seq));
    }
    if let Some(nameless) = entries.iter().find(|entry| entry.hash.is_empty()) {
        problems.push(format!("audit record {} has no hash", nameless.seq));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::{AuditEntry, breaks};

    fn chain() -> Vec<AuditEntry> {
        let entry = |seq: u64| AuditEntry {
            seq,
            hash: format!("h{seq}"),
            previous: if seq == 1 { String::new() } else { format!("h{}", seq - 1) },
            ..AuditEntry::default()
        };
        (1..=4).rev().map(entry).collect()
    }

    #[test]
    fn an_altered_or_missing_record_breaks_the_chain() {
        assert!(breaks(&chain()).is_empty());
        assert!(breaks(&chain()[..2]).is_empty(), "the newest records alone are a chain");
        let mut altered = chain();
        altered[2].hash = "x".into();
        assert_eq!(breaks(&altered), ["audit record 3 does not hold the hash of record 2: one of them was altered"]);
        let mut missing = chain();
        missing.remove(1);
        assert_eq!(breaks(&missing), ["audit records between 2 and 4 are missing"]);
        let mut cut = chain();
        cut[3].previous = "h0".into();
        assert_eq!(breaks(&cut).len(), 1);
    }
}
