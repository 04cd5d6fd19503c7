//! The controller's process.

use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use kube::{Client, Config};
use landfall_controller::config::{Cli, Command, LogFormat, Options};
use landfall_controller::{run, uninstall};
use tracing_subscriber::EnvFilter;

/// How long reaching the API server may take.
const CONNECT: Duration = Duration::from_secs(5);

// One thread is enough for what waits for the network nearly always, and it keeps the memory small.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    log(&cli.options)?;
    let client = client().await?;
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => run::run(client, &cli.options, Watching).await,
        Command::Uninstall => uninstall::uninstall(client).await,
    }
}

async fn client() -> anyhow::Result<Client> {
    let mut config = Config::infer()
        .await
        .context("no way to the API server: set KUBECONFIG, or run in a pod with a ServiceAccount")?;
    config.connect_timeout = Some(CONNECT);
    // Whatever fails is told to the mind, which knows better when and whether to try again.
    config.default_retry = false;
    Client::try_from(config).context("the credentials for the API server cannot be used")
}

fn log(options: &Options) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&options.log_level)
        .with_context(|| format!("--log-level {} is not understood", options.log_level))?;
    // kube tells of every failed watch itself; what a person should know of it we say in our own words.
    let quieter = if options.log_level.contains("kube") { None } else { Some("kube_runtime=error".parse()?) };
    let filter = quieter.into_iter().fold(filter, EnvFilter::add_directive);
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match options.log_format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Holds the place of the mind.
struct Watching;

impl run::Decide for Watching {
    fn handle(
        &mut self,
        _: landfall_controller::mind::Now,
        event: landfall_controller::mind::Event,
        _: &mut Vec<landfall_controller::effects::Effect>,
    ) {
        tracing::debug!(?event, "seen");
    }

    fn next_deadline(&self) -> Option<std::time::Instant> {
        None
    }
}
