//! `postern-node`: one SMTP node of the cluster, until SIGTERM or SIGINT.

use std::{io::Write, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::Parser;
use futures::FutureExt;
use node::{
    cluster::Cluster,
    config::Config,
    pipeline::Pipeline,
    smtp::{
        connection::{Deliver, Service, ViewAge},
        server::Server,
        session::Settings,
        transaction::Listener,
    },
};
use proto::identity::Credentials;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::info;

/// A node of Postern: takes mail in over SMTP, finds out what it is, and hands it on.
#[derive(Debug, Parser)]
#[command(name = "postern-node", version)]
struct Arguments {
    /// The settings file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let config = Config::load(&arguments.config)?;
    let credentials = config.load_credentials()?;
    // gRPC and SMTP speak TLS with the same provider; the first to be installed stays.
    tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(run(config, credentials))
}

async fn run(config: Config, credentials: Credentials) -> anyhow::Result<()> {
    let mut stopping = stop_on_signal()?;
    info!(node = %credentials.identity, "starting");
    let cluster = Cluster {};
    let pipeline = Arc::new(Pipeline {});
    tokio::select! {
        () = first_view(&cluster) => {}
        _ = stopping.wait_for(|stop| *stop) => return Ok(()),
    }
    let server = Server::bind(&config.listeners, config.tls.as_ref(), service(&config, &cluster, pipeline)).await?;
    say_ready(&server, config.inspect)?;
    server.serve(stopping).await;
    Ok(())
}

/// Without a view there are no departments, so mail would only be sent back.
async fn first_view(cluster: &Cluster) {
    info!("waiting for the first view; it comes when a control server can be reached");
    drop(cluster.view().wait_for(|view| view.index > 0).await);
}

fn service(config: &Config, cluster: &Cluster, pipeline: Arc<Pipeline>) -> Service {
    let settings = Settings {
        hostname: config.hostname.clone(),
        tls_offered: config.tls.is_some(),
        limits: config.limits.clone(),
    };
    let deliver: Deliver = Arc::new(move |transaction, bytes| {
        let pipeline = Arc::clone(&pipeline);
        async move { pipeline.run(transaction, bytes).await }.boxed()
    });
    let of_cluster = cluster.clone();
    let view_age: ViewAge = Arc::new(move || of_cluster.view_age());
    Service::new(settings, cluster.view(), view_age, deliver)
}

/// One line of JSON for whoever started this process: the ports are open.
fn say_ready(server: &Server, inspect: Option<SocketAddr>) -> anyhow::Result<()> {
    let ready = serde_json::json!({ "ready": {
        "internet": server.address(Listener::Internet),
        "departments": server.address(Listener::Departments),
        "inspect": inspect,
    }});
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{ready}").and_then(|()| stdout.flush()).context("say that the node is ready")
}

/// True after SIGTERM or SIGINT.
fn stop_on_signal() -> anyhow::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stopping: transactions under way may end");
        stop.send_replace(true);
    });
    Ok(stopping)
}
