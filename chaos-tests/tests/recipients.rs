//! Recipients that nobody knows are refused before the message, by a real directory and by the next hop.

use anyhow::Context as _;
use chaos_tests::{
    binaries::programs,
    cluster::{
        Cluster, Options, Side,
        operator::until,
        slapd::{BASE, PASSWORD, Slapd, WHO},
    },
    janitor::Janitor,
    runtime::run,
    sink::Order,
    smtp_client::{Conversation, Reply},
    zones,
};
use indicatif::ProgressBar;

async fn rcpt(cluster: &Cluster, to: &str) -> anyhow::Result<Reply> {
    let server = cluster.smtp(0, Side::Internet);
    let mut conversation = Conversation::open(server, Some(zones::GOOD), "mail.good.example").await?;
    conversation.say("MAIL FROM:<a@good.example>").await?;
    let reply = conversation.say(&format!("RCPT TO:<{to}>")).await?;
    conversation.quit().await?;
    Ok(reply)
}

/// Puts more into a department's file and has it in force at the first node.
async fn says(cluster: &Cluster, department: &str, more: &str) -> anyhow::Result<()> {
    let file = cluster.policy.join(format!("{department}.yaml"));
    let text = std::fs::read_to_string(&file).context("read a department's file")?;
    std::fs::write(&file, more.to_owned() + &text).context("write a department's file")?;
    cluster.apply_policy(&cluster.policy, "who knows recipients").await?;
    cluster.operator.in_use("mx1", 2).await.map(drop)
}

#[test]
fn a_directory_tells_who_exists_and_policy_what_holds_while_it_is_away() -> anyhow::Result<()> {
    run(async {
        let folder = tempfile::tempdir().context("make a folder")?;
        let janitor = Janitor::start(&programs(&ProgressBar::hidden()).await?.peer, None)?;
        let people = ["dora@health.gov.test", "star*@health.gov.test"];
        let slapd = Slapd::start(folder.path(), &people, &janitor).await?;
        let password = folder.path().join("password");
        std::fs::write(&password, PASSWORD)?;
        let directory = format!(
            "directories:\n- {{name: people, url: \"ldap://{}\", base: \"{BASE}\", filter: \"(mail={{address}})\", \
             bind: \"{WHO}\", password_file: \"{}\"}}\n",
            slapd.address,
            password.display()
        );
        let cluster = Cluster::start(Options { node_settings: directory, ..Options::default() }).await?;
        says(&cluster, "health", "verify_recipients: directory:people\n").await?;
        for (to, expected) in [
            ("dora@health.gov.test", 250),
            ("Dora@HEALTH.gov.test", 250),
            ("nobody@health.gov.test", 550),
            ("postmaster@health.gov.test", 250),
            // What would be a filter of its own is only an address.
            ("*@health.gov.test", 550),
            ("star*@health.gov.test", 250),
            ("d*@health.gov.test", 550),
            ("anna@interior.gov.test", 250),
        ] {
            let reply = rcpt(&cluster, to).await?;
            assert_eq!(reply.code, expected, "{to}: {reply}");
        }
        slapd.kill9().await?;
        assert_eq!(rcpt(&cluster, "nobody@health.gov.test").await?.code, 550, "it is remembered");
        assert_eq!(rcpt(&cluster, "dora@health.gov.test").await?.code, 250, "it is remembered");
        assert_eq!(rcpt(&cluster, "new@health.gov.test").await?.code, 250, "away, and policy accepts");
        let file = cluster.policy.join("health.yaml");
        let text = std::fs::read_to_string(&file)?;
        std::fs::write(&file, text.replace("policy:\n", "policy:\n  recipient_unavailable: defer\n"))?;
        cluster.apply_policy(&cluster.policy, "wait for the directory").await?;
        until("the new policy is in use", || async {
            rcpt(&cluster, "new@health.gov.test").await.ok().filter(|reply| reply.code == 450)
        })
        .await?;
        cluster.stop().await
    })
}

#[test]
fn a_next_hop_tells_who_exists() -> anyhow::Result<()> {
    run(async {
        let cluster = Cluster::start(Options::default()).await?;
        cluster.health.order(&Order::Refuse("gone".into(), 550)).await?;
        says(&cluster, "health", "verify_recipients: next_hop\n").await?;
        let reply = rcpt(&cluster, "gone@health.gov.test").await?;
        assert_eq!(reply.code, 550, "{reply}");
        let reply = rcpt(&cluster, "dora@health.gov.test").await?;
        assert_eq!(reply.code, 250, "{reply}");
        cluster.stop().await
    })
}
