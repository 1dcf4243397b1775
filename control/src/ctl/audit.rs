//! `audit`: records newest first, page by page, and whether each follows the one before, up to the head of the chain.

use anyhow::bail;
use proto::wire::operator::{AuditEntry, AuditRequest};
use serde_json::json;

use super::{
    Ended,
    connect::{Control, Reach, explain},
    escape,
    output::{self, Output, table, time},
};

/// Most records that a server gives in one answer.
const PAGE: usize = 1000;

/// Records, newest first, and the head of the chain that they belong to.
#[derive(Debug, Default)]
struct Log {
    entries: Vec<AuditEntry>,
    head_seq: u64,
    head_hash: String,
    /// Number that the newest of the entries should have; zero: there should be none.
    newest: u64,
    /// Whether older ones were not asked for.
    cut: bool,
}

/// Shows the `max` newest records (`before` that number, unless it is zero) and checks their chain.
///
/// # Errors
/// When no server answers.
pub async fn run(reach: &Reach, output: Output, max: u32, before: u64) -> anyhow::Result<Ended> {
    let log = read(&mut reach.control().await?, max as usize, before).await?;
    let (entries, broken) = (&log.entries, breaks(&log));
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
        || {
            json!({"entries": entries.iter().map(as_json).collect::<Vec<_>>(), "breaks": broken, "more": log.cut,
                "head": {"seq": log.head_seq, "hash": log.head_hash}})
        },
        || match (entries.is_empty(), log.head_seq) {
            (true, 0) => "No change yet.".into(),
            (true, head) => format!("No record there; the newest is {head}."),
            (false, head) => {
                let rows = entries.iter().map(as_row);
                let records = table(&["NO", "WHEN", "WHO", "WHAT", "WHY", "TICKET", "HASH"], rows);
                format!("{records}\n\nHead of the chain: record {head}, {}", escape::cell(&log.head_hash))
            }
        },
    )?;
    if let Some(oldest) = entries.last().filter(|_| log.cut) {
        let seq = oldest.seq;
        output::note(&format!(
            "posternctl: the list is cut: records 1 to {} are older; --max N shows more, --before {seq} those before",
            seq - 1
        ));
    }
    for problem in &broken {
        output::note(&format!("posternctl: {problem}"));
    }
    Ok(if broken.is_empty() { Ended::Well } else { Ended::WithFaults })
}

/// Asks for page after page. The head comes with the first, out of one look at the state.
async fn read(control: &mut Control, max: usize, before: u64) -> anyhow::Result<Log> {
    let mut log = Log::default();
    let mut before_seq = before;
    loop {
        let wanted = PAGE.min(max - log.entries.len());
        let request = AuditRequest { max: u32::try_from(wanted)?, before_seq };
        let page = control.audit(request).await.map_err(|status| explain(&status))?.into_inner();
        if before_seq == before {
            log.newest = if before == 0 { page.head_seq } else { page.head_seq.min(before - 1) };
            (log.head_seq, log.head_hash) = (page.head_seq, page.head_hash);
        }
        let Some(oldest) = page.entries.iter().map(|entry| entry.seq).min() else { break };
        // Or we would ask for ever.
        if page.entries.len() > wanted || (before_seq != 0 && oldest >= before_seq) {
            bail!("the control server answers with other audit records than were asked for");
        }
        log.entries.extend(page.entries);
        before_seq = oldest;
        log.cut = oldest > 1 && log.entries.len() >= max;
        if oldest <= 1 || log.cut {
            break;
        }
    }
    log.entries.sort_by_key(|entry| std::cmp::Reverse(entry.seq));
    Ok(log)
}

/// Where records do not follow each other, from the head on.
fn breaks(log: &Log) -> Vec<String> {
    let entries = &log.entries;
    let mut problems = Vec::new();
    let newest = entries.first().map_or(0, |entry| entry.seq);
    if newest != log.newest {
        problems.push(format!("the newest audit record should be {}, but it is {newest}", log.newest));
    }
    if entries.first().is_some_and(|entry| entry.seq == log.head_seq && entry.hash != log.head_hash) {
        problems.push(format!("audit record {newest} does not have the hash of the chain's head: it was altered"));
    }
    if let Some(oldest) = entries.last().filter(|entry| entry.seq > 1 && !log.cut) {
        problems.push(format!("audit records before {} are missing", oldest.seq));
    }
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
    use super::{AuditEntry, Log, breaks};

    fn chain() -> Log {
        let entry = |seq: u64| AuditEntry {
            seq,
            hash: format!("h{seq}"),
            previous: if seq == 1 { String::new() } else { format!("h{}", seq - 1) },
            ..AuditEntry::default()
        };
        let entries = (1..=4).rev().map(entry).collect();
        Log { entries, head_seq: 4, head_hash: "h4".into(), newest: 4, cut: false }
    }

    #[test]
    fn an_altered_or_missing_record_breaks_the_chain() {
        assert!(breaks(&chain()).is_empty() && breaks(&Log::default()).is_empty());
        let mut newest = chain();
        newest.entries.truncate(2);
        assert_eq!(breaks(&newest), ["audit records before 3 are missing"]);
        newest.cut = true;
        assert!(breaks(&newest).is_empty(), "the newest records alone are a chain");
        let mut altered = chain();
        altered.entries[2].hash = "x".into();
        assert_eq!(breaks(&altered), ["audit record 3 does not hold the hash of record 2: one of them was altered"]);
        let mut missing = chain();
        missing.entries.remove(1);
        assert_eq!(breaks(&missing), ["audit records between 2 and 4 are missing"]);
        let mut named = chain();
        named.entries[3].previous = "h0".into();
        assert_eq!(breaks(&named).len(), 1);
    }

    #[test]
    fn the_newest_record_must_be_the_head_of_the_chain() {
        let mut altered = chain();
        altered.entries[0].hash = "x".into();
        assert!(breaks(&altered)[0].contains("the chain's head"), "{:?}", breaks(&altered));
        let mut gone = chain();
        gone.entries.remove(0);
        assert_eq!(breaks(&gone), ["the newest audit record should be 4, but it is 3"]);
        let emptied = Log { entries: Vec::new(), ..chain() };
        assert_eq!(breaks(&emptied), ["the newest audit record should be 4, but it is 0"]);
    }
}
