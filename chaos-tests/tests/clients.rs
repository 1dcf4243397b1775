//! What a client from the Internet meets before its first message, with real nodes and a real DNS server.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use chaos_tests::{
    cluster::{Cluster, Options, Side, layout::BALANCER, operator::until},
    runtime::run,
    smtp_client::{Conversation, Reply},
    zones,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
    time::timeout,
};

/// A client that calls itself by a name that is nowhere.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 67, 1));

/// A cluster whose policy says this of clients.
async fn cluster(clients: &str, policy: &str) -> anyhow::Result<Cluster> {
    let cluster = Cluster::start(Options::default()).await?;
    let state = cluster.policy.join("state.yaml");
    let text = std::fs::read_to_string(&state).context("read the state's policy")?;
    let text = text.replacen("policy:\n", &format!("clients: {{{clients}}}\npolicy:\n  {policy}\n"), 1);
    let text = text.replacen("  greylist_at: 50\n", "", 1);
    std::fs::write(&state, text).context("write the state's policy")?;
    cluster.apply_policy(&cluster.policy, "what is asked of clients").await?;
    for node in &cluster.nodes {
        cluster.operator.in_use(node.name, 2).await?;
    }
    Ok(cluster)
}

/// What the first thing is that a client does not like, or the answer to RCPT.
async fn tried(cluster: &Cluster, node: usize, client: IpAddr, to: &str) -> anyhow::Result<Reply> {
    let helo = if client == STRANGER { "nowhere.good.example" } else { "mail.good.example" };
    let mut conversation = Conversation::open(cluster.smtp(node, Side::Internet), Some(client), helo).await?;
    let mail = conversation.say("MAIL FROM:<a@forger.example>").await?;
    ensure!(mail.is_yes(), "{mail}");
    let reply = conversation.say(&format!("RCPT TO:<{to}>")).await?;
    conversation.quit().await?;
    Ok(reply)
}

#[test]
fn who_is_listed_is_refused_with_the_reason_and_a_list_of_everything_is_left_out() -> anyhow::Result<()> {
    run(async {
        let lists = "dns_lists: [{zone: listed.test, points: 9}, {zone: everything.test, points: 9}, {zone: nothing.test, points: 9}]";
        let cluster = cluster(lists, "greylist_at: 50").await?;
        let listed = tried(&cluster, 0, zones::NAMELESS, "anna@interior.gov.test").await;
        let told = listed.err().context("it was let in")?.to_string();
        assert!(told.contains("554 5.7.1") && told.contains("127.0.66.6 is listed by listed.test"), "{told}");
        let good = tried(&cluster, 0, zones::GOOD, "anna@interior.gov.test").await?;
        assert_eq!(good.code, 250, "{good}");
        let log = std::fs::read_to_string(cluster.log("mx1")?)?;
        assert!(log.contains("lists everything") && log.contains("does not list its test entry"), "{log}");
        cluster.stop().await
    })
}

#[test]
fn who_was_put_off_at_one_site_passes_at_another() -> anyhow::Result<()> {
    run(async {
        // Names of loopback addresses are not asked for: all are "localhost".
        let rules = "greylist_delay: 12s, points: {no_reverse_name: 0, generic_reverse_name: 0}";
        let cluster = cluster(rules, "greylist_at: 1").await?;
        let to = "anna@interior.gov.test";
        let first = tried(&cluster, 0, STRANGER, to).await?;
        assert!(first.code == 450 && first.text.starts_with("4.7.1"), "{first}");
        assert_eq!(tried(&cluster, 0, zones::GOOD, to).await?.code, 250, "nothing speaks against this one");
        until("the second try passes", || async {
            tried(&cluster, 0, STRANGER, to).await.ok().filter(|reply| reply.code == 250)
        })
        .await?;
        // The other site's node has never seen it: by itself it would put it off for longer than is waited for here. The cluster
        // counts from the report, a second later.
        let elsewhere = until("the other site lets it in", || async {
            tried(&cluster, 1, STRANGER, to).await.ok().filter(|reply| reply.code == 250)
        });
        timeout(Duration::from_secs(8), elsewhere).await.context("the other site has not heard of it")??;
        let other = tried(&cluster, 1, STRANGER, "bert@interior.gov.test").await?;
        assert_eq!(other.code, 450, "another recipient is another try: {other}");
        cluster.stop().await
    })
}

#[test]
fn who_looks_for_addresses_or_comes_too_often_is_sent_away() -> anyhow::Result<()> {
    run(async {
        let rates = "rates: {unknown_recipients: 3, client_connections: 6}";
        let cluster = cluster(rates, "greylist_at: 50").await?;
        let server = cluster.smtp(0, Side::Internet);
        let mut harvester = Conversation::open(server, Some(STRANGER), "mail.good.example").await?;
        harvester.say("MAIL FROM:<a@forger.example>").await?;
        for number in 0..3 {
            let reply = harvester.say(&format!("RCPT TO:<nobody{number}@interior.gov.test>")).await?;
            assert_eq!(reply.code, 550, "{reply}");
        }
        let reply = harvester.say("RCPT TO:<nobody9@interior.gov.test>").await?;
        assert_eq!(reply.code, 421, "{reply}");
        for _ in 0..5 {
            Conversation::open(server, Some(STRANGER), "mail.good.example").await?.quit().await?;
        }
        let told = Conversation::open(server, Some(STRANGER), "mail.good.example").await.err();
        let told = told.context("it was let in")?.to_string();
        assert!(told.contains("421 4.7.0") && told.contains("6 connections a minute"), "{told}");
        Conversation::open(server, Some(zones::GOOD), "mail.good.example").await?.quit().await?;
        cluster.stop().await
    })
}

#[test]
fn more_at_once_than_policy_allows_is_put_off_until_one_has_ended() -> anyhow::Result<()> {
    run(async {
        let rules = "at_once: {net_connections: 3, sender_domain_messages: 1, department_messages: 2}";
        let cluster = cluster(rules, "greylist_at: 50").await?;
        let server = cluster.smtp(0, Side::Internet);
        let open = async || Conversation::open(server, Some(STRANGER), "mail.good.example").await;
        let (mut first, mut second, third) = (open().await?, open().await?, open().await?);
        let told = open().await.err().context("a fourth was let in")?.to_string();
        assert!(told.contains("421 4.7.0") && told.contains("3 connections at once from your network"), "{told}");
        Conversation::open(server, Some(zones::GOOD), "mail.good.example").await?.quit().await?;

        let mail = async |client: &mut Conversation, domain: &str, to: &str| {
            for line in [format!("MAIL FROM:<a@{domain}>"), format!("RCPT TO:<{to}@interior.gov.test>")] {
                let told = client.say(&line).await?;
                ensure!(told.is_yes(), "{told}");
            }
            client.say("DATA").await
        };
        assert_eq!(mail(&mut first, "forger.example", "anna").await?.code, 354);
        let told = mail(&mut second, "forger.example", "bert").await?;
        assert!(told.code == 451 && told.text.contains("1 messages at once from that domain"), "{told}");
        let told = mail(&mut second, "other.example", "bert").await?;
        assert!(told.code == 451 && told.text.contains("1 messages at once of one client"), "{told}");
        // Others have their own share, and all together the department's.
        let of_net = |last: u8| Conversation::open(server, Some([127, 0, 78, last].into()), "mail.good.example");
        let (mut other, mut late) = (of_net(1).await?, of_net(2).await?);
        assert_eq!(mail(&mut other, "other.example", "bert").await?.code, 354);
        let told = mail(&mut late, "third.example", "clara").await?;
        assert!(told.code == 451 && told.text.contains("2 messages at once of one department"), "{told}");

        first.raw(b"Subject: x\r\nFrom: a@forger.example\r\n\r\nx\r\n.\r\n").await?;
        first.reply().await?;
        assert_eq!(
            mail(&mut late, "forger.example", "clara").await?.code,
            354,
            "one has ended, and so has its domain's"
        );
        for client in [&mut other, &mut late] {
            client.raw(b".\r\n").await?;
            client.reply().await?;
        }
        other.quit().await?;
        late.quit().await?;
        second.quit().await?;
        until("one of the network has gone", || async { open().await.ok() }).await?.quit().await?;
        first.quit().await?;
        third.quit().await?;
        cluster.stop().await
    })
}

#[test]
fn who_has_no_name_or_one_made_of_its_address_is_refused_where_policy_says_so() -> anyhow::Result<()> {
    run(async {
        let cluster = cluster("points: {unknown_helo: 0.9}", "client_refuse_at: 0.8").await?;
        let server = cluster.smtp(0, Side::Internet);
        // Names of loopback addresses are not asked for: these clients come by a load balancer.
        let greeted = async |client: &str, helo: &str| {
            let socket = TcpSocket::new_v4()?;
            socket.bind((BALANCER, 0).into())?;
            let mut stream = socket.connect(server).await?;
            stream.write_all(format!("PROXY TCP4 {client} 127.0.0.1 4000 25\r\n").as_bytes()).await?;
            let mut conversation = Conversation::over(stream, helo).await?;
            ensure!(conversation.say("MAIL FROM:<a@forger.example>").await?.is_yes());
            let told = conversation.say("RCPT TO:<anna@interior.gov.test>").await?;
            conversation.quit().await?;
            anyhow::Ok(told)
        };
        let known = "host.partner.example";
        for (client, why) in [
            ("192.0.2.10", "its name leads back to it"),
            ("192.0.2.80", "somebody gave it one of its two names"),
            ("192.0.2.81", "the DNS of its name does not answer"),
        ] {
            let good = greeted(client, known).await.context(client)?;
            assert_eq!(good.code, 250, "{client}, {why}: {good}");
        }
        let told = greeted("192.0.2.10", "nowhere.good.example").await?;
        assert!(told.code == 554 && told.text.contains("nowhere.good.example has no address"), "{told}");
        // Nobody at all would take their mail, so they are not greeted.
        for (client, why) in [
            ("192.0.2.77", "77-2-0-192.dsl.example is made of the address"),
            ("192.0.2.78", "the name of the address does not lead back to it"),
            ("192.0.2.79", "192.0.2.79: the address has no name"),
        ] {
            let told = greeted(client, known).await.err().context(client)?.to_string();
            assert!(told.contains("554 5.7.1") && told.contains(why), "{client}: {told}");
        }
        cluster.stop().await
    })
}

#[test]
fn who_does_not_wait_for_the_greeting_is_refused_and_who_waits_is_not() -> anyhow::Result<()> {
    run(async {
        let cluster = cluster("greet_delay: 1s", "greylist_at: 50").await?;
        let server = cluster.smtp(0, Side::Internet);
        let socket = TcpSocket::new_v4()?;
        socket.bind((STRANGER, 0).into())?;
        let mut hasty = socket.connect(server).await?;
        hasty.write_all(b"EHLO mail.good.example\r\n").await?;
        let mut said = String::new();
        hasty.read_to_string(&mut said).await?;
        assert!(said.starts_with("554 5.7.1") && said.contains("before the greeting"), "{said}");
        let patient = tried(&cluster, 0, STRANGER, "anna@interior.gov.test").await?;
        assert_eq!(patient.code, 250, "{patient}");
        cluster.stop().await
    })
}
