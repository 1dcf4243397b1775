//! What nodes tell each other of the content of mail, and what they ask others about it, with real nodes and a real DNS server.

use std::{ffi::OsString, net::IpAddr, path::Path};

use anyhow::{Context as _, ensure};
use chaos_tests::{
    cluster::{Cluster, Options, Side, operator::until},
    letters::{Letter, SPAM},
    runtime::run,
    smtp_client::Envelope,
    zones,
};

const ANNA: &str = "anna@interior.gov.test";
const FRIEND: &str = "friend@good.example";
/// Copies that are enough to be known: each has something of its own.
const COPIES: usize = 12;

/// What a node finds in a message: its rules.
async fn rules(cluster: &Cluster, node: usize, path: &Path) -> anyhow::Result<Vec<String>> {
    let server = cluster.nodes.get(node).context("a node")?.inspect;
    let words: [OsString; 10] = [
        "scan".into(),
        path.into(),
        "--node".into(),
        server.to_string().into(),
        "--rcpt".into(),
        ANNA.into(),
        "--client-ip".into(),
        zones::GOOD.to_string().into(),
        "--mail-from".into(),
        FRIEND.into(),
    ];
    let told = cluster.posternctl_ok(words).await?;
    let told: serde_json::Value = serde_json::from_str(told.lines().next().context("a line")?).context("JSON")?;
    println!("{told}");
    Ok(told
        .to_string()
        .split('"')
        .filter(|word| word.len() > 5 && !word.contains(char::is_lowercase))
        .map(str::to_owned)
        .collect())
}

#[test]
fn what_one_site_has_met_is_known_at_another_and_lists_and_guarded_names_count() -> anyhow::Result<()> {
    run(async {
        let cluster = Cluster::start(Options::default()).await?;
        let state = cluster.policy.join("state.yaml");
        let text = std::fs::read_to_string(&state).context("read the state's policy")?;
        let content = "content: {domain_lists: [{zone: names.test, points: 3}, {zone: everything.test, points: 3}], \
                       officials: [Anna Muster]}\npolicy:";
        std::fs::write(&state, text.replacen("policy:", content, 1))?;
        cluster.apply_policy(&cluster.policy, "lists of names").await?;
        for node in &cluster.nodes {
            cluster.operator.in_use(node.name, 2).await?;
        }

        let copy = |number: usize| format!("Dear {}th friend, http://s{number}.example/{number}\r\n{SPAM}", number + 1);
        let sample = cluster.directory.join("copy.eml");
        let from = "Somebody <somebody@lottery-claims.example>";
        std::fs::write(&sample, Letter::new(from, ANNA, "For you").text(&copy(99)).bytes())?;
        ensure!(!rules(&cluster, 1, &sample).await?.contains(&"CAMPAIGN_BAD".to_owned()), "nothing is known yet");
        let envelope = Envelope { from: "somebody@lottery-claims.example".to_owned(), to: vec![ANNA.to_owned()] };
        for number in 0..COPIES {
            // Those of one net count once.
            let client = IpAddr::from([127, 0, 100 + u8::try_from(number)?, 1]);
            let letter = Letter::new(from, ANNA, "Claim your prize today").text(&copy(number)).bytes();
            cluster.send(cluster.smtp(0, Side::Internet), client, &envelope, &letter).await?;
        }
        until("the other site knows the campaign", || async {
            rules(&cluster, 1, &sample).await.ok().filter(|rules| rules.contains(&"CAMPAIGN_BAD".to_owned()))
        })
        .await?;

        let named = cluster.directory.join("named.eml");
        let letter = Letter::new("Anna Muster <a@good.example>", ANNA, "A link");
        let letter = letter.text("See https://www.shop.bad.example/x and https://interior-gov.test/\r\n").bytes();
        std::fs::write(&named, letter)?;
        let found = rules(&cluster, 0, &named).await?;
        for rule in ["DOMAIN_LIST", "OFFICIAL_IMITATED", "LINK_IMITATED"] {
            ensure!(found.iter().any(|found| found == rule), "{rule}: {found:?}");
        }
        let answer = cluster.directory.join("answer.eml");
        std::fs::write(&answer, Letter::new("A Friend <friend@good.example>", ANNA, "Re: Minutes").bytes())?;
        let known = |rules: &Vec<String>| rules.contains(&"CORRESPONDENT".to_owned());
        ensure!(!known(&rules(&cluster, 1, &answer).await?), "nobody has written to him");
        let letter = Letter::new(ANNA, FRIEND, "Minutes").bytes();
        let envelope = Envelope { from: ANNA.to_owned(), to: vec![FRIEND.to_owned()] };
        cluster.send(cluster.smtp(0, Side::Departments), zones::INTERIOR, &envelope, &letter).await?;
        until("the other site knows the correspondent", || async {
            rules(&cluster, 1, &answer).await.ok().filter(known)
        })
        .await?;
        let log = std::fs::read_to_string(cluster.log("mx1")?)?;
        ensure!(log.contains("lists everything"), "the list of everything is left out: {log}");
        cluster.stop().await
    })
}
