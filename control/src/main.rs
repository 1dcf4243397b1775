//! postern-control: one of the servers that agree upon policy, quarantine and reputation.

use std::{io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use control::{config::Config, raft::Rules, server, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

const EXAMPLE: &str = "\
Example of FILE (YAML; folders are relative to the file's own):

  id: 1                       # Raft id, never used again after the server is lost
  name: control-1             # the name in the certificate
  site: north                 # bodies are kept in two sites
  data: data                  # Raft log, state and message bodies
  listen: 10.1.0.5:7001       # gRPC with mTLS
  advertise: control-1.north.example:7001   # how others reach it; default: listen
  credentials: credentials    # ca.pem, certificate.pem, key.pem of posternctl cluster init

When it answers it prints one line on stdout: {\"ready\":{\"grpc\":\"10.1.0.5:7001\"}}
Its log is JSON on stderr; traces, metrics and logs go where OTEL_EXPORTER_OTLP_ENDPOINT says. SIGHUP: it looks for new
certificates at once, not within 30 s. SIGTERM or SIGINT ends it. Exit code 1: the reason is on stderr.

  postern-control --config FILE --check     # would it start? Stop it first";

/// What is logged without --log and RUST_LOG.
const LOG_DEFAULT: &str = "info,openraft=warn,sled=warn,h2=warn,hyper=warn,tower=warn";

/// A control server of a Postern cluster: one of the three or five, one a site, that agree upon policy, quarantine and
/// reputation, and keep the bodies of held messages.
#[derive(Debug, Parser)]
#[command(name = "postern-control", version, after_help = EXAMPLE)]
struct Arguments {
    /// The server's YAML file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What to log: error, warn, info, debug, trace, or directives such as control=debug,openraft=info [default: the
    /// variable RUST_LOG, else info].
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// Starts nothing, but looks at what a stopped server holds: exit code 0 and one line of JSON with what is there, when it
    /// would start; exit code 1 and the reason and the way out, when it would not.
    #[arg(long)]
    check: bool,
    /// How long opening and checking the data folder may take before this server gives up.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    open_within: u64,
}

fn main() -> ExitCode {
    match start(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // When even stderr is gone, the exit code still tells.
            drop(writeln!(std::io::stderr(), "postern-control: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> anyhow::Result<()> {
    let filter = filter(arguments.log.as_deref())?;
    let config = Config::load(&arguments.config).context("the configuration is not usable")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let telemetry = telemetry::init(&config.name, &config.site, filter)?;
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let end = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let rules = Rules { open_within: Duration::from_secs(arguments.open_within), ..Rules::default() };
        let ended = if arguments.check {
            server::look(&config, rules).await.and_then(|found| {
                print(&serde_json::to_value(found)?);
                Ok(())
            })
        } else {
            server::run_with(config, rules, end, |address, _| ready(address)).await
        };
        telemetry.shutdown().await;
        ended
    })
}

fn filter(level: Option<&str>) -> anyhow::Result<EnvFilter> {
    Ok(match level {
        Some(directives) => EnvFilter::try_new(directives).context("--log")?,
        None => match EnvFilter::try_from_default_env() {
            Ok(filter) => filter,
            Err(_) => EnvFilter::try_new(LOG_DEFAULT)?,
        },
    })
}

/// The one line on stdout. Whoever started us may have closed it; that is no reason to end.
fn ready(address: SocketAddr) {
    print(&serde_json::json!({ "ready": { "grpc": address.to_string() } }));
}

fn print(line: &serde_json::Value) {
    let mut stdout = std::io::stdout();
    drop(writeln!(stdout, "{line}").and_then(|()| stdout.flush()));
}
