//! What people release and report at one site changes what the nodes of all sites say of the next letter of that kind; what would
//! make it worse is not taken into use.

use std::{ffi::OsString, fs, net::IpAddr};

use anyhow::{Context as _, ensure};
use chaos_tests::{
    cases::Case,
    cluster::{Cluster, Options, Side, operator::until},
    fate::{Account, Fate, send_and_follow},
    letters::Letter,
    runtime::run,
    smtp_client::Envelope,
};
use serde_json::Value;

const MAILBOXES: [&str; 3] = ["anna@interior.gov.test", "bert@interior.gov.test", "clara@interior.gov.test"];
/// Of either kind.
const LETTERS: usize = 24;
/// Short, so that a letter scores much as the next one does.
const WORDS: [&str; 12] = ["oak", "ash", "elm", "fir", "yew", "fig", "bay", "box", "gum", "nut", "tea", "may"];

/// Two of twelve words, each time others until all 144 pairs have come; no part of the numbers has words of its own.
fn two(number: usize) -> [&'static str; 2] {
    let pair = number * 77 % 144;
    [WORDS[pair % 12], WORDS[pair / 12]]
}

/// A letter that the department wants, and that scores as spam. Fewer words than near-copies are told by.
fn grant(number: usize) -> Letter {
    let tree = two(number).join(" and ");
    let text =
        format!("Dear winner,\r\n\r\nthe lottery fund pays your claim for {tree} saplings. Click here to claim.\r\n");
    Letter::new("Lottery Fund <grants@fund.example>", MAILBOXES[number % 3], &format!("Claim your grant: {tree}"))
        .text(&text)
}

/// A letter that nobody wants, and that passes.
fn toner(number: usize) -> Letter {
    let colour = two(number).join(" or ");
    let text = format!(
        "Hello,\r\n\r\nour technician noticed your printer lacks {colour} toner. We deliver cartridges tomorrow.\r\n"
    );
    Letter::new("Office Supplies <desk@supplies.example>", MAILBOXES[number % 3], &format!("Printer toner {colour}"))
        .text(&text)
}

/// An ordinary letter.
fn minutes(number: usize) -> Letter {
    let [tree, colour] = two(number);
    let text =
        format!("Dear Anna,\r\n\r\nthe minutes of the {tree} committee are in the {colour} folder.\r\n\r\nRegards\r\n");
    Letter::new("Karl Meier <karl@meier.example>", MAILBOXES[0], &format!("Minutes of the {tree} committee"))
        .text(&text)
}

/// Each from a net of its own, of which nothing is known.
fn case(letter: &Letter, number: usize, from: &str) -> Case {
    Case {
        title: "a letter",
        side: Side::Internet,
        client: IpAddr::from([127, 0, 100 + u8::try_from(number % 150).unwrap_or_default(), 1]),
        envelope: Envelope { from: from.to_owned(), to: vec![MAILBOXES[number % 3].to_owned()] },
        message: letter.bytes(),
        expected: Vec::new(),
    }
}

async fn sent(cluster: &Cluster, node: usize, case: &Case) -> anyhow::Result<Account> {
    let account = send_and_follow(cluster, case, node).await?.pop().context("an account")?;
    println!("{}: {} {}", account.fate, account.verdict, account.reasons);
    Ok(account)
}

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.into_iter().map(OsString::from).collect()
}

/// What the cluster has learnt, as soon as it is so.
async fn learning(cluster: &Cluster, what: &str, is_so: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    until(what, || async {
        let told = cluster.posternctl_ok(words(["learning", "show", "-o", "json"])).await.ok()?;
        let known = serde_json::from_str(&told).ok()?;
        is_so(&known).then_some(known)
    })
    .await
}

/// Waits until all nodes use this version of the learnt model; zero: none.
async fn in_use(cluster: &Cluster, version: u64) -> anyhow::Result<()> {
    for node in &cluster.nodes {
        until("the node uses the model", || async {
            let view = cluster.operator.in_use(node.name, 0).await.ok()?;
            (view.learnt_version == version && view.learnt_problem.is_empty()).then_some(())
        })
        .await
        .with_context(|| format!("node {}", node.name))?;
    }
    Ok(())
}

/// Has what is wanted score a little over the threshold, and what is bad pass, whatever the weights of the rules are.
async fn between_the_kinds(cluster: &Cluster) -> anyhow::Result<()> {
    let mut scores = [Vec::new(), Vec::new()];
    for number in 137..141 {
        for (scores, letter) in scores.iter_mut().zip([grant(number), toner(number)]) {
            let told = sent(cluster, 1, &case(&letter, number, "somebody@fund.example")).await?.verdict;
            scores.push(told.split(' ').nth(1).context("a score")?.parse::<f64>().context("points")?);
        }
    }
    let [lowest, highest] = [f64::min, f64::max].map(|of| scores[0].iter().copied().reduce(of).unwrap_or_default());
    let threshold = lowest - 0.5;
    ensure!(highest - threshold < 1.6, "what is learnt counts two points: {scores:?}");
    ensure!(scores[1].iter().all(|score| *score < threshold - 0.3), "what is bad passes: {scores:?}");
    let state = cluster.policy.join("state.yaml");
    let text = fs::read_to_string(&state).context("read the state's policy")?;
    let text = text.replacen("policy:", "content: {learning: {lessons_min: 15, every: 1s}}\npolicy:", 1);
    let text = text.replacen("quarantine_at: 6", &format!("tag_at: 1\n  quarantine_at: {threshold:.2}"), 1);
    fs::write(&state, text)?;
    cluster.apply_policy(&cluster.policy, "learn soon").await?;
    Ok(())
}

/// Writes letters into a folder and reports them.
async fn report(cluster: &Cluster, kind: &str, letters: impl Iterator<Item = Letter>) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(&cluster.directory).context("make a folder")?;
    for (number, letter) in letters.enumerate() {
        fs::write(folder.path().join(format!("{number:03}.eml")), letter.bytes())?;
    }
    let node = cluster.nodes[0].inspect.to_string();
    let mut command = words(["report", kind, "--node", &node, "--rcpt", MAILBOXES[0], "--why", "a test"]);
    command.push(folder.path().into());
    println!("{}", cluster.posternctl_ok(command).await?);
    Ok(())
}

/// The points that a node gives a letter, and the rule of what was learnt, if it holds.
async fn scanned(cluster: &Cluster, node: usize, letter: &Letter) -> anyhow::Result<(f64, Option<String>)> {
    let file = cluster.directory.join("scanned.eml");
    fs::write(&file, letter.bytes())?;
    let node = cluster.nodes.get(node).context("a node")?.inspect.to_string();
    let mut command = words(["scan", "--node", &node, "--rcpt", MAILBOXES[0]]);
    command.push(file.into());
    let told: Value = serde_json::from_str(cluster.posternctl_ok(command).await?.trim()).context("JSON")?;
    let rules = told["reasons"].as_array().context("reasons")?.iter().filter_map(|reason| reason["rule"].as_str());
    let learnt = rules.filter(|rule| rule.starts_with("CLUSTER_LEARNT")).map(str::to_owned).next();
    println!("{told}");
    Ok((told["score"].as_f64().context("a score")?, learnt))
}

#[test]
fn what_is_released_and_reported_at_one_site_counts_at_all_and_what_would_be_worse_is_not_taken() -> anyhow::Result<()>
{
    run(async {
        let cluster = Cluster::start(Options::default()).await?;
        between_the_kinds(&cluster).await?;
        for number in 0..LETTERS {
            let held = sent(&cluster, 0, &case(&grant(number), number, "grants@fund.example")).await?;
            ensure!(held.fate == Fate::Quarantined, "it scores as spam: {held:?}");
            let id = held.held.context("an id")?;
            cluster.operator.release(&cluster.operator.leader().await?, &id, "it is a grant").await?;
        }
        let (before, rule) = scanned(&cluster, 1, &toner(98)).await?;
        ensure!(rule.is_none(), "nothing is learnt yet");
        learning(&cluster, "what is released is a lesson", |known| known["lessons"]["wanted"] == LETTERS).await?;
        report(&cluster, "wanted", (0..2 * LETTERS).map(minutes)).await?;
        report(&cluster, "spam", (0..LETTERS).map(toner)).await?;
        let known = learning(&cluster, "a model is in use", |known| known["in_use"] == true).await?;
        println!("{known:#}");
        ensure!(known["version"] == 1 && known["taken"]["objection"] == "", "{known}");
        ensure!(known["lessons"]["bad"] == LETTERS && known["sources"][0]["name"] == "department/interior", "{known}");
        in_use(&cluster, 1).await?;

        for node in 0..cluster.nodes.len() {
            let passed = sent(&cluster, node, &case(&grant(31 + node), 31 + node, "grants@fund.example")).await?;
            ensure!(passed.fate == Fate::Delivered("interior".to_owned()), "{passed:?}");
            ensure!(passed.reasons.contains("CLUSTER_LEARNT_GOOD"), "{passed:?}");
            let (after, rule) = scanned(&cluster, node, &toner(98)).await?;
            ensure!(after > before + 0.5 && rule.as_deref() == Some("CLUSTER_LEARNT_BAD"), "{before} {after}");
        }
        let audit = cluster.posternctl_ok(words(["audit", "-o", "json"])).await?;
        ensure!(
            audit.contains("reported 24 messages as spam") && audit.contains("the learnt model into use"),
            "{audit}"
        );

        // Somebody reports what others have released.
        report(&cluster, "spam", (40..136).map(grant)).await?;
        let known = learning(&cluster, "all of it is tried", |known| {
            let of = |what: &str| known["last"][what]["bad"].as_u64().unwrap_or_default();
            of("learnt") + of("held_back") == 5 * LETTERS as u64
        })
        .await?;
        println!("{known:#}");
        let objection = known["last"]["objection"].as_str().context("an objection")?;
        ensure!(objection.contains("kept away") && known["version"] == 1 && known["in_use"] == true, "{known}");
        let passed = sent(&cluster, 1, &case(&grant(36), 36, "grants@fund.example")).await?;
        ensure!(passed.fate == Fate::Delivered("interior".to_owned()), "{passed:?}");

        cluster.posternctl_ok(words(["learning", "forget", "--why", "somebody has poisoned it"])).await?;
        in_use(&cluster, 0).await?;
        let (_, rule) = scanned(&cluster, 0, &toner(98)).await?;
        ensure!(rule.is_none(), "what Postern came with is left");
        let held = sent(&cluster, 1, &case(&grant(37), 37, "grants@fund.example")).await?;
        ensure!(held.fate == Fate::Quarantined, "{held:?}");
        cluster.stop().await
    })
}
