//! The speaker's process.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use landfall_speaker::config::{Command, LogFormat, Options};
use landfall_speaker::drivers::cleanup::{self, Cleanup};
use landfall_speaker::drivers::process;
use landfall_speaker::metrics::Metrics;
use landfall_speaker::mind::{Config, Mind};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

// One thread for everything but the LAN, which has its own: both wait nearly always.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("landfall-speaker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<()> {
    log(&options)?;
    if let Some(Command::Cleanup) = options.command {
        match cleanup::run()? {
            Cleanup::Removed => tracing::info!("the table of the packet filter is removed"),
            Cleanup::Nothing => tracing::info!("there is nothing to clean up"),
        }
        return Ok(());
    }
    let node = options.node_name()?;
    tracing::info!(node, version = env!("CARGO_PKG_VERSION"), "landfall-speaker starts");
    let (metrics, registry) = Metrics::new();
    process::run(&options, node, mind(&options, node), metrics, registry).await?;
    Ok(())
}

fn mind(options: &Options, node: &str) -> Mind {
    // The standard library's hash keys are random for each process, which is all that is asked for.
    let random = || RandomState::new().build_hasher().finish();
    Mind::new(Config {
        node: node.into(),
        instance: random(),
        interval: options.heartbeat_interval,
        multiplier: options.detect_multiplier,
        drain: Duration::ZERO,
        seed: random(),
    })
}

fn log(options: &Options) -> anyhow::Result<()> {
    // A single word is about us. Of the libraries one then hears what is wrong, save of kube: what a person
    // should know of its failures we say in our own words.
    let level: Result<LevelFilter, _> = options.log_level.parse();
    let directives = match level {
        Ok(level) => format!("warn,kube_client=off,kube_runtime=off,landfall_speaker={level}"),
        Err(_) => options.log_level.clone(),
    };
    let filter = EnvFilter::try_new(directives)
        .with_context(|| format!("--log-level {} is not understood", options.log_level))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match options.log_format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    Ok(())
}
