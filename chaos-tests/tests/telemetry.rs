//! Traces go to a collector, one span a transaction with a child for each stage; and a collector that hangs delays no mail.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use chaos_tests::{
    cluster::{Cluster, Options, Side},
    collector::{Collector, Seen},
    letters::Letter,
    runtime::run,
    smtp_client::{Answers, Envelope},
    zones,
};
use tokio::{sync::Mutex, time::timeout};

static ALONE: Mutex<()> = Mutex::const_new(());

async fn cluster_with(collector: &Collector) -> anyhow::Result<Cluster> {
    let setting = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let node_environment =
        vec![setting("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint()), setting("OTEL_BSP_SCHEDULE_DELAY", "100")];
    Cluster::start(Options { clamd: false, node_environment, ..Options::default() }).await
}

async fn send_ham(cluster: &Cluster, node: usize) -> anyhow::Result<Answers> {
    let to = "anna@interior.gov.test";
    let message = cluster.signing.sign(&Letter::new("friend@good.example", to, "Traced").bytes())?;
    let envelope = Envelope { from: "friend@good.example".into(), to: vec![to.into()] };
    cluster.send(cluster.smtp(node, Side::Internet), zones::GOOD, &envelope, &message).await
}

fn stages_of(spans: &[Seen], transaction: &str) -> Vec<String> {
    let names_it =
        |span: &&Seen| span.name == "transaction" && span.attributes.iter().any(|(_, value)| value == transaction);
    let Some(root) = spans.iter().find(names_it) else { return Vec::new() };
    let children = spans.iter().filter(|span| span.parent == root.span_id && span.trace_id == root.trace_id);
    children.map(|span| span.name.clone()).collect()
}

#[test]
fn a_transaction_is_a_span_with_a_child_for_each_stage() -> anyhow::Result<()> {
    run(async {
        let _alone = ALONE.lock().await;
        let collector = Collector::start().await?;
        let cluster = cluster_with(&collector).await?;
        for node in 0..2 {
            let answers = send_ham(&cluster, node).await?;
            let transaction = answers.transaction().with_context(|| format!("{answers:?}"))?.to_owned();
            let mut spans = collector.spans.clone();
            let complete = spans.wait_for(|spans| {
                let stages = stages_of(spans, &transaction);
                ["parse", "gather", "decide", "act", "resolve"].iter().all(|stage| stages.iter().any(|s| s == stage))
            });
            let complete = timeout(Duration::from_secs(20), complete).await.is_ok();
            assert!(complete, "for {transaction} there is {:?}", collector.spans.borrow());
        }
        cluster.stop().await
    })
}

#[test]
fn a_collector_that_hangs_delays_no_mail() -> anyhow::Result<()> {
    run(async {
        let _alone = ALONE.lock().await;
        let collector = Collector::hanging().await?;
        let cluster = cluster_with(&collector).await?;
        let start = Instant::now();
        for n in 0..50 {
            let answers = send_ham(&cluster, n).await?;
            assert_eq!(answers.last().code, 250, "{answers:?}");
        }
        assert!(start.elapsed() < Duration::from_secs(25), "50 messages took {:?}", start.elapsed());
        cluster.stop().await
    })
}
