//! `cargo bench-spread`: how long it takes until the node of another site uses what one has learned of a client.

use std::{
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use chaos_tests::{
    command::{self, Form},
    load::Percentiles,
    runtime,
    sites::{Options, Sites, doors::Doors},
    smtp_client::Conversation,
};
use clap::Parser;
use indicatif::ProgressBar;
use proto::wire::operator::{ApplyRequest, HistoryRequest, PolicyFile, PolicyFiles};
use serde_json::json;
use tokio::time::{sleep, timeout};

/// Times that a client looks for addresses until its score is above the bar of this policy.
const STRIKES: usize = 40;
/// Between two looks at what the other node says; the figures are too long by up to this.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// After this time a node has not heard of it at all.
const SPREAD_MAX: Duration = Duration::from_secs(30);
const STATE: &str = "state: The State of Test\nclient_score_max: 600\nclients:\n  points: {no_reverse_name: 0, \
                     generic_reverse_name: 0, unknown_helo: 0}\n  rates: {unknown_recipients: 1}\npolicy: {virus_scan: off, \
                     greylist_at: 50}\n";
const INTERIOR: &str = "department: interior\nname: Department of the Interior\ndomains: [interior.gov.test]\n\
                        next_hops: [{host: \"127.0.0.1\", port: 25, tls: opportunistic}]\nrecipients: [anna]\n";

/// Measures how long it takes until the node of another site turns away a client that one node has found out: three control
/// servers far apart, two real nodes. Needs the rights of root, for network namespaces.
#[derive(Parser)]
#[command(name = "spread", bin_name = "cargo bench-spread")]
struct Arguments {
    /// How often it is measured, each time with another client, in turn from either node.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u8).range(1..=250))]
    rounds: u8,
    /// Between any two sites, in milliseconds each way.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=1000))]
    delay_ms: u64,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    command::ended(runtime::run(measure(arguments)))
}

async fn measure(arguments: Arguments) -> anyhow::Result<()> {
    let progress = command::bar();
    progress.set_length(arguments.rounds.into());
    let delay_ms = arguments.delay_ms..=arguments.delay_ms;
    let sites = Sites::start(&Options { delay_ms, progress: progress.clone(), ..Options::default() }).await?;
    let measured = rounds(&sites, &arguments, &progress).await;
    sites.finish().await?;
    let spread = measured?;
    progress.finish_and_clear();
    let [p50, longest] = [50, 100].map(|p| spread.ms(p));
    match arguments.output {
        Form::Json => println!(
            "{}",
            json!({"rounds": spread.count(), "delay_ms": arguments.delay_ms, "p50_ms": p50, "longest_ms": longest})
        ),
        Form::Text => println!(
            "{} rounds, {} ms each way between sites: from the first bad deed at one node to the 421 of the other: p50 {p50:.0} ms, \
             longest {longest:.0} ms",
            spread.count(),
            arguments.delay_ms,
        ),
    }
    Ok(())
}

async fn rounds(sites: &Sites, arguments: &Arguments, progress: &ProgressBar) -> anyhow::Result<Percentiles> {
    apply(&sites.doors[0]).await?;
    // Two sites of three, so that the leader is at either, or at neither.
    let nodes = [sites.start_node(0, 0).await?, sites.start_node(1, 1).await?];
    let mut spread = Vec::new();
    for round in 0..arguments.rounds {
        progress.set_message("a client looks for addresses");
        let client = IpAddr::from(Ipv4Addr::new(127, 0, 90, round + 1));
        let learns = usize::from(round % 2);
        let hears = 1 - learns;
        ensure!(!turned_away(sites, hears, client).await?, "nothing is known of {client} yet");
        let since = Instant::now();
        for _ in 0..STRIKES {
            look_for_addresses(sites, learns, client).await?;
        }
        let heard = async {
            while !turned_away(sites, hears, client).await? {
                sleep(LOOK_EVERY).await;
            }
            anyhow::Ok(())
        };
        timeout(SPREAD_MAX, heard).await.with_context(|| format!("{client} is let in for {SPREAD_MAX:?}"))??;
        spread.push(since.elapsed());
        progress.inc(1);
    }
    for node in nodes {
        node.stop().await?;
    }
    Ok(Percentiles::of(spread))
}

/// Puts the policy of this measurement in force.
async fn apply(doors: &Doors) -> anyhow::Result<()> {
    let mut operator = doors.operator(0);
    let history = operator.policy_history(HistoryRequest { max: 1 }).await?.into_inner();
    let file = |name: &str, text: &str| PolicyFile { name: name.to_owned(), text: text.to_owned() };
    let request = ApplyRequest {
        files: Some(PolicyFiles { files: vec![file("interior.yaml", INTERIOR), file("state.yaml", STATE)] }),
        base_version: history.entries.first().map_or(0, |entry| entry.version),
        why: "to measure".to_owned(),
        ticket: String::new(),
    };
    let applied = operator.policy_apply(request).await?.into_inner();
    ensure!(applied.faults.is_empty(), "the policy was refused: {:?}", applied.faults);
    Ok(())
}

/// Names recipients that nobody knows until the node has enough, or does not greet any more.
async fn look_for_addresses(sites: &Sites, site: usize, client: IpAddr) -> anyhow::Result<()> {
    let Ok(mut harvester) = Conversation::over(sites.connect(site, client).await?, "mail.test").await else {
        return Ok(());
    };
    ensure!(harvester.say("MAIL FROM:<a@forger.example>").await?.is_yes(), "MAIL was refused");
    for number in 0..9 {
        if harvester.say(&format!("RCPT TO:<nobody{number}@interior.gov.test>")).await?.code == 421 {
            return Ok(());
        }
    }
    bail!("nobody minds who looks for addresses")
}

/// Whether the node of a site does not let a client in, for what is known of it.
async fn turned_away(sites: &Sites, site: usize, client: IpAddr) -> anyhow::Result<bool> {
    match Conversation::over(sites.connect(site, client).await?, "mail.test").await {
        Ok(conversation) => {
            conversation.quit().await?;
            Ok(false)
        }
        Err(error) if error.to_string().contains("421 4.7.0 much bad mail") => Ok(true),
        Err(error) => Err(error),
    }
}
