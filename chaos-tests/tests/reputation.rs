//! What one node has learnt of a sender, the node of another site uses; and what an operator says counts more.

use std::{ffi::OsString, net::IpAddr};

use anyhow::Context as _;
use chaos_tests::{
    cases,
    cluster::{Cluster, Options, Side, operator::until},
    runtime::run,
    smtp_client::Conversation,
    zones,
};

/// Messages that are enough to be kept out, by the policy of this scenario.
const SPAM: usize = 30;

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.into_iter().map(OsString::from).collect()
}

/// What a node says to a client first: nothing when it is let in.
async fn turned_away(cluster: &Cluster, node: usize, client: IpAddr) -> Option<String> {
    let server = cluster.smtp(node, Side::Internet);
    match Conversation::open(server, Some(client), "mail.test").await {
        Ok(conversation) => {
            // Nobody waits for the answer.
            let _ = conversation.quit().await;
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

async fn greets_with(cluster: &Cluster, node: usize, client: IpAddr, wanted: Option<&str>) -> anyhow::Result<()> {
    until("the greeting changes", || async {
        let said = turned_away(cluster, node, client).await;
        let as_wanted = match (&said, wanted) {
            (None, None) => true,
            (Some(said), Some(wanted)) => said.contains(wanted),
            (None, Some(_)) | (Some(_), None) => false,
        };
        as_wanted.then_some(())
    })
    .await
}

#[test]
fn a_spammer_that_one_node_has_met_is_sent_away_by_the_node_of_another_site() -> anyhow::Result<()> {
    run(async {
        let cluster = Cluster::start(Options::default()).await?;
        let state = cluster.policy.join("state.yaml");
        let text = std::fs::read_to_string(&state).context("read the state's policy")?;
        std::fs::write(&state, text.replacen("policy:", "client_score_max: 600\npolicy:", 1))?;
        let told = cluster.apply_policy(&cluster.policy, "a low bar").await?;
        assert!(told.contains("client_score_max 950 -> 600"), "{told}");

        let spam = cases::spam();
        assert_eq!(turned_away(&cluster, 1, spam.client).await, None, "nothing is known yet");
        let mut refused = 0;
        for _ in 0..SPAM {
            // By then it may be kept out here too.
            let sent = cluster.send(cluster.smtp(0, Side::Internet), spam.client, &spam.envelope, &spam.message).await;
            refused += u32::from(sent.is_err());
        }
        greets_with(&cluster, 1, spam.client, Some("421 4.7.0")).await?;
        assert!(refused < SPAM as u32, "it was let in at first");
        assert_eq!(turned_away(&cluster, 1, zones::GOOD).await, None, "others are let in");
        let subject = format!("ip:{}", spam.client);
        let shown = cluster.posternctl_ok(words(["reputation", "show", &subject])).await?;
        assert!(shown.contains(&subject), "{shown}");

        let set = |stance: &str| words(["reputation", "set", &subject, stance, "--until", "1h", "--why", "a test"]);
        cluster.posternctl_ok(set("allow")).await?;
        greets_with(&cluster, 1, spam.client, None).await?;
        cluster.posternctl_ok(set("block")).await?;
        greets_with(&cluster, 1, spam.client, Some("554 5.7.1")).await?;
        greets_with(&cluster, 0, spam.client, Some("554 5.7.1")).await?;
        cluster.stop().await
    })
}
