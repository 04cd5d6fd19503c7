//! The controller's process.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use axum::http::HeaderValue;
use axum::http::header::USER_AGENT;
use clap::Parser;
use kube::{Client, Config};
use landfall_controller::config::{Cli, Command, LogFormat, Options};
use landfall_controller::exposing::mind::{self as exposing, Exposer};
use landfall_controller::external_name::lint::Manifests;
use landfall_controller::external_name::mind as external;
use landfall_controller::external_name::resolv_conf::ResolvConf;
use landfall_controller::mind::{self, Mind};
use landfall_controller::minds::Minds;
use landfall_controller::trouble::in_short;
use landfall_controller::{lease, run, uninstall};
use landfall_crds::names::managers;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// How long reaching the API server may take.
const CONNECT: Duration = Duration::from_secs(5);

// One thread is enough for what waits for the network nearly always, and it keeps the memory small.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Some(Command::Lint { files }) => lint(&cli.options, files),
        _ => serve(&cli).await.map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("landfall-controller: {}", in_short(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn serve(cli: &Cli) -> anyhow::Result<()> {
    log(&cli.options)?;
    let client = client().await?;
    match cli.command {
        Some(Command::Uninstall) => uninstall::uninstall(client).await,
        Some(Command::Expose) => {
            let default_deny = cli.options.default_deny;
            let mind = |names: external::Config, queries, metrics| {
                let external::Config { domain, resolution, .. } = names;
                Exposer::new(exposing::Config { domain, resolution, default_deny }, queries, metrics)
            };
            run::run(client, &cli.options, managers::EXPOSER, mind).await
        }
        _ => {
            let granting = mind(&cli.options);
            let minds = |names, queries, metrics| Minds::new(granting, names, queries, metrics);
            run::run(client, &cli.options, lease::driver::NAME, minds).await
        }
    }
}

/// Prints what is wrong in these manifests.
fn lint(options: &Options, files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut manifests = Manifests::default();
    for file in files {
        let text = match file.as_os_str() == "-" {
            true => std::io::read_to_string(std::io::stdin()),
            false => std::fs::read_to_string(file),
        };
        let name = file.display().to_string();
        manifests.read(&name, &text.with_context(|| format!("{name} cannot be read"))?);
    }
    // Not this machine's own domain: the manifests are for a cluster.
    let domain = options.external_names.domain(&ResolvConf::default()).map_err(anyhow::Error::msg)?;
    let (findings, checked) = manifests.lint(&domain);
    for finding in &findings {
        println!("{finding}");
    }
    println!("{checked} Services of type ExternalName checked, {} findings", findings.len());
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn client() -> anyhow::Result<Client> {
    let mut config = Config::infer()
        .await
        .context("no way to the API server: set KUBECONFIG, or run in a pod with a ServiceAccount")?;
    config.connect_timeout = Some(CONNECT);
    // Whatever fails is told to the mind, which knows better when and whether to try again.
    config.default_retry = false;
    // So that an audit log tells who it was.
    let user_agent = concat!("landfall-controller/", env!("CARGO_PKG_VERSION"));
    config.headers.push((USER_AGENT, HeaderValue::from_static(user_agent)));
    Client::try_from(config).context("the credentials for the API server cannot be used")
}

fn log(options: &Options) -> anyhow::Result<()> {
    // A single word is about us. Of the libraries one then hears what is wrong, save of kube, which tells
    // of every request that fails: what a person should know of those we say in our own words, once.
    let level: Result<LevelFilter, _> = options.log_level.parse();
    let directives = match level {
        Ok(level) => format!("warn,kube_client=off,kube_runtime=off,landfall_controller={level}"),
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

fn mind(options: &Options) -> Mind {
    Mind::new(mind::Config {
        default_class: options.default_class,
        default_deny: options.default_deny,
        exposing: options.exposing,
        withdrawal_bound: options.withdrawal_bound,
        rebalance_interval: options.rebalance_interval,
        rebalance_settle: options.rebalance_settle,
        ..mind::Config::default()
    })
}
