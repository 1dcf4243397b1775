//! `postern-node`: one SMTP node of the cluster, until SIGTERM or SIGINT.

use std::{io::Write, net::SocketAddr, path::PathBuf, pin::pin, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use clap::Parser;
use futures::FutureExt;
use hickory_resolver::TokioResolver;
use node::{
    actions::relay::{Relay, roots_from_pem},
    checks::{
        authentication::{self, Authenticator},
        opener::{self, Openers, Program},
        virus::{Standing, VirusScanner},
    },
    cluster::Cluster,
    config::Config,
    door,
    examine::Examiner,
    health,
    inspect::Inspector,
    learning::{self, InUse},
    open_files,
    pipeline::Pipeline,
    reception::{Reception, Recipients},
    redelivery::Redelivery,
    reputation::{self, Outcomes},
    smtp::{
        connection::{Deliver, Service, ViewAge},
        server::Server,
        step::Settings,
        tls::ServerCertificate,
        transaction::Listener,
    },
    telemetry::{self, ClamdSeen},
};
use proto::{
    identity::{Credentials, Renewable as _, keep_fresh},
    time::UnixMs,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tonic::transport::Server as GrpcServer;
use tracing::{info, warn};

/// How often a node that cannot start yet says what it waits for.
const WAITING_TOLD_EVERY: Duration = Duration::from_secs(10);

/// A node of Postern: takes mail in over SMTP, finds out what it is, and hands it on.
#[derive(Debug, Parser)]
#[command(name = "postern-node", version)]
struct Arguments {
    /// The settings file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    // Not for people, so no command that the help tells of: the node starts itself anew to open attachments.
    if std::env::args_os().nth(1).is_some_and(|first| first == opener::ARGUMENT) {
        return opener::run();
    }
    match start(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // When even stderr is gone, the exit code still tells.
            drop(writeln!(std::io::stderr(), "postern-node: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> anyhow::Result<()> {
    let config = Config::load(&arguments.config)?;
    let credentials = config.load_credentials()?;
    // gRPC and SMTP speak TLS with the same provider; the first to be installed stays.
    tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(run(config, credentials))
}

async fn run(config: Config, credentials: Credentials) -> anyhow::Result<()> {
    let telemetry = telemetry::init("postern-node", &config.name, &config.site)?;
    let ended = serve(&config, credentials).await;
    telemetry.shutdown().await;
    ended
}

async fn serve(config: &Config, credentials: Credentials) -> anyhow::Result<()> {
    open_files::allow(&config.limits);
    let mut stopping = stop_on_signal()?;
    info!(node = %credentials.identity, "starting");
    keep_fresh(credentials.clone(), stopping.clone()).context("listen for SIGHUP")?;
    let cluster = Cluster::connect(credentials.clone(), config.control.clone(), &config.site, &config.limits)?;
    let of_cluster = cluster.clone();
    telemetry::observe_view_age(move || of_cluster.view_age());
    let of_cluster = cluster.clone();
    telemetry::observe_rules(move || of_cluster.view().borrow().rules.counts());
    let resolver = authentication::resolver(&config.dns).context("set up DNS")?;
    let pipeline = pipeline(config, &cluster, resolver.clone())?;
    watch_clamds(&pipeline.examiner.virus, &stopping);
    prove(&pipeline.examiner.openers, &stopping).await?;
    // A wrong file is told now, not after a long wait for a view.
    let certificate = certificate(config, &credentials, &stopping)?;
    tokio::select! {
        () = first_view(&cluster) => {}
        _ = stopping.wait_for(|stop| *stop) => return Ok(()),
    }
    let (relay, examiner) = (Relay::clone(&pipeline.relay), pipeline.examiner.clone());
    let resolver_of_health = authentication::resolver(&config.dns).context("set up DNS")?;
    let senses = (examiner.virus.clone(), examiner.openers.clone(), examiner.learnt.clone(), resolver_of_health);
    let health = match config.health {
        Some(address) => Some(health::serve(address, &config.name, &cluster, senses, stopping.clone()).await?),
        None => None,
    };
    let redelivery = Redelivery::new(&config.name, cluster.clone(), relay, examiner, &config.limits);
    let redelivering = tokio::spawn(redelivery.run(stopping.clone()));
    let (report_stop, reported) = watch::channel(false);
    let recipients = Recipients::new(Arc::clone(&pipeline.relay), config.directories.clone());
    let reception = Reception::new(config.hostname.clone(), resolver, pipeline.outcomes.clone(), recipients);
    let (outcomes, tries) = (pipeline.outcomes.clone(), reception.tries.clone());
    let reporting = tokio::spawn(reputation::report(outcomes, tries, cluster.clone(), reported));
    let inspect = inspect(config, &credentials, &pipeline, stopping.clone()).await?;
    let service = service(config, &cluster, reception, Arc::new(pipeline));
    let server = Server::bind(&config.listeners, certificate, service).await?;
    say_ready(&server, inspect, health)?;
    server.serve(stopping).await;
    report_stop.send_replace(true);
    reporting.await.context("report what was learnt of senders")?;
    redelivering.await.context("end the deliveries under way")
}

/// Has the clamds looked at until the node stops, and tells the metrics how they stand.
fn watch_clamds(virus: &VirusScanner, stopping: &watch::Receiver<bool>) {
    let (of_clamds, of_scans) = (virus.clone(), virus.clone());
    let seen = move || {
        let one = |standing: Standing| ClamdSeen {
            clamd: standing.clamd,
            in_service: standing.in_service,
            database: standing.database,
            database_age_s: standing.database_age_s,
        };
        of_clamds.standing().into_iter().map(one).collect()
    };
    telemetry::observe_clamds(&telemetry::meter(), seen);
    telemetry::observe_scans(&telemetry::meter(), move || of_scans.counts());
    tokio::spawn(virus.clone().keep_watch(stopping.clone()));
}

/// A node that could open no attachment, or only where a bad one harms it, does not start.
async fn prove(openers: &Openers, stopping: &watch::Receiver<bool>) -> anyhow::Result<()> {
    let of_openers = openers.clone();
    telemetry::observe_openers(&telemetry::meter(), move || of_openers.counts());
    openers.prove().await.map_err(|why| anyhow!("start a process that opens attachments: {why}"))?;
    for warning in openers.warnings() {
        warn!("{warning}");
    }
    tokio::spawn(openers.clone().keep_watch(stopping.clone()));
    Ok(())
}

/// The certificate of the listeners, where they have one, kept fresh.
fn certificate(
    config: &Config,
    credentials: &Credentials,
    stopping: &watch::Receiver<bool>,
) -> anyhow::Result<Option<ServerCertificate>> {
    let certificate = config.tls.as_ref().map(ServerCertificate::load).transpose()?;
    if let Some(certificate) = &certificate {
        keep_fresh(certificate.clone(), stopping.clone()).context("listen for SIGHUP")?;
    }
    let (credentials, listeners) = (credentials.clone(), certificate.clone());
    telemetry::observe_lifetimes(move || {
        let now = UnixMs::now().0.cast_signed();
        let left_s = |end: UnixMs| (end.0.cast_signed() - now) / 1000;
        let listeners = listeners.as_ref().map(|listeners| ("listeners", left_s(listeners.not_after())));
        listeners.into_iter().chain([("cluster", left_s(credentials.not_after()))]).collect()
    });
    Ok(certificate)
}

/// Waits for the first view and says so now and then.
async fn first_view(cluster: &Cluster) {
    let mut reminder = tokio::time::interval(WAITING_TOLD_EVERY);
    let mut waiting = pin!(cluster.first_view());
    let view = loop {
        tokio::select! {
            view = &mut waiting => break view,
            _ = reminder.tick() => info!(
                "waiting for a control server that is in touch with its quorum: see posternctl cluster status"
            ),
        }
    };
    if view.policy_version == 0 {
        warn!("there is no policy yet, so mail is answered with 451: posternctl policy apply");
    }
}

/// The stages of a message's trip with what they ask: DNS, clamd, next hops, the cluster.
fn pipeline(config: &Config, cluster: &Cluster, resolver: TokioResolver) -> anyhow::Result<Pipeline> {
    let roots = match &config.next_hop_roots {
        None => None,
        Some(path) => {
            let pem = std::fs::read(path).with_context(|| format!("read next_hop_roots {}", path.display()))?;
            Some(roots_from_pem(&pem).map_err(|problem| anyhow!("next_hop_roots {}: {problem}", path.display()))?)
        }
    };
    let hostname = config.hostname.as_str();
    let (in_use, learnt) = watch::channel(InUse::default());
    tokio::spawn(learning::follow(cluster.clone(), in_use));
    Ok(Pipeline {
        host: hostname.into(),
        node: config.name.as_str().into(),
        cluster: cluster.clone(),
        relay: Arc::new(Relay::new(hostname, &config.limits, resolver.clone(), roots)),
        examiner: Examiner::new(
            hostname,
            &config.limits,
            Authenticator::new(hostname, resolver, &config.limits),
            VirusScanner::new(config.clamd.clone(), &config.limits),
            Openers::new(Program::own(), &config.limits),
        )
        .with_learnt(learnt),
        outcomes: Outcomes::default(),
    })
}

/// Starts the gRPC service that operators look into the node with, where the settings name an address for it.
async fn inspect(
    config: &Config,
    credentials: &Credentials,
    pipeline: &Pipeline,
    mut stopping: watch::Receiver<bool>,
) -> anyhow::Result<Option<SocketAddr>> {
    let Some(address) = config.inspect else { return Ok(None) };
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("listen on {address} (inspect in the settings)"))?;
    let address = listener.local_addr().context("ask for the address of the inspect service")?;
    let service = Inspector::new(pipeline.clone(), credentials.clone(), &config.site);
    let server = GrpcServer::builder().concurrency_limit_per_connection(64).add_service(service.into_server());
    let credentials = credentials.clone();
    tokio::spawn(async move {
        let stop = async move { drop(stopping.wait_for(|stop| *stop).await) };
        let incoming = door::incoming(listener, credentials);
        if let Err(error) = server.serve_with_incoming_shutdown(incoming, stop).await {
            tracing::error!(%error, "serve the inspect service");
        }
    });
    Ok(Some(address))
}

fn service(config: &Config, cluster: &Cluster, reception: Reception, pipeline: Arc<Pipeline>) -> Service {
    let settings = Settings {
        node: config.name.clone(),
        hostname: config.hostname.clone(),
        xclient: config.listeners.xclient.clone(),
        limits: config.limits.clone(),
    };
    let deliver: Deliver = Arc::new(move |transaction, bytes| {
        let pipeline = Arc::clone(&pipeline);
        async move { pipeline.run(transaction, bytes).await }.boxed()
    });
    let of_cluster = cluster.clone();
    let view_age: ViewAge = Arc::new(move || of_cluster.view_age());
    Service::new(settings, cluster.view(), view_age, reception, deliver)
}

/// One line of JSON for whoever started this process: the ports are open.
fn say_ready(server: &Server, inspect: Option<SocketAddr>, health: Option<SocketAddr>) -> anyhow::Result<()> {
    let ready = serde_json::json!({ "ready": {
        "internet": server.address(Listener::Internet),
        "departments": server.address(Listener::Departments),
        "inspect": inspect,
        "health": health,
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
