//! The lab for people: a shell in it, and what is shown or measured with it.

#![allow(clippy::print_stdout)]

use std::{
    ffi::OsString,
    io::{IsTerminal, Write},
    net::IpAddr,
    process::{Command, ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use landfall_tests::{
    backend::{Backends, Service},
    bench::Bench,
    demo::Demo,
    lab::{Lab, LabOptions, ProxyMode, eventually, isolation, landfall, probe::Request, seconds},
    services,
};
use serde_json::json;
use tokio::runtime::Runtime;

/// A real Kubernetes on this machine, in namespaces of its own. Needs root.
#[derive(Debug, Parser)]
#[command(name = "landfall-lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Open a shell in a lab with Landfall installed
    Shell(Shell),
    /// Run a command beside a bare control plane with the CRDs, named by LANDFALL_TEST_KUBECONFIG
    Exec(Exec),
    /// Show what Landfall does, with times
    Demo(Demo),
    /// Measure what the README states
    Bench(Bench),
}

#[derive(Debug, Args)]
struct Shell {
    /// Do not install Landfall
    #[arg(long)]
    bare: bool,
    /// How many nodes
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// How many hosts on the LAN that are not nodes
    #[arg(long, default_value_t = 1)]
    clients: u8,
    /// Let kube-proxy use iptables instead of nftables
    #[arg(long)]
    iptables: bool,
}

fn main() -> ExitCode {
    // First, because it needs no root: --help, --version, mistakes.
    let arguments = Arguments::parse();
    run(&arguments).unwrap_or_else(|error| {
        eprintln!("landfall-lab: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let Subcommands::Bench(bench) = &arguments.command
        && !bench.fits_one_lab()
    {
        return bench.run_each();
    }
    let inside = isolation::enter()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match &arguments.command {
        Subcommands::Shell(shell) => shell.run(&inside, &runtime),
        Subcommands::Exec(exec) => exec.run(&inside, &runtime),
        Subcommands::Demo(demo) => runtime.block_on(demo.run(&inside)).map(|()| ExitCode::SUCCESS),
        Subcommands::Bench(bench) => runtime.block_on(bench.run(&inside)).map(|()| ExitCode::SUCCESS),
    }
}

impl Shell {
    fn run(&self, inside: &isolation::Inside, runtime: &Runtime) -> Result<ExitCode> {
        let proxy = if self.iptables { ProxyMode::Iptables } else { ProxyMode::Nftables };
        let options = LabOptions { nodes: self.nodes, clients: self.clients, proxy, ..LabOptions::default() };
        let lab = runtime.block_on(Lab::up(inside, options))?;
        let granted = if self.bare {
            Vec::new()
        } else {
            runtime.block_on(something_to_see(&lab)).inspect_err(|_| lab.explain())?
        };
        welcome(&lab, &granted)?;
        if std::io::stdin().is_terminal() {
            return open_shell(&lab);
        }
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
}

/// Installs Landfall with a pool, two backends and the Service `web` in front of them, so that the next
/// command has something to show. Returns the addresses of `web`, which answer clients on the LAN then.
async fn something_to_see(lab: &Lab) -> Result<Vec<IpAddr>> {
    landfall::install(lab).await?;
    let pool = json!({"addresses": ["192.168.10.200-192.168.10.220", "fd10::200-fd10::220"]});
    services::pool(lab, "lan", &pool).await?;
    Backends::new("web", 2).deploy(lab).await?;
    Service::new("web", "web").load_balancer().apply(lab).await?;
    let granted = services::granted(lab, "web", 2).await?;
    if let Some(client) = lab.lan_clients().first() {
        for address in &granted {
            let request = Request::tcp((*address, 80).into());
            eventually(seconds(15), &format!("{address} answers"), async || client.ask(request)).await?;
        }
    }
    Ok(granted)
}

/// Prints the commands that are worth trying next; each works as it is printed.
fn welcome(lab: &Lab, granted: &[IpAddr]) -> Result<()> {
    let mut commands = vec![("kubectl get nodes,pods -A -o wide".to_owned(), "what runs")];
    if !granted.is_empty() {
        commands.push(("kubectl get services,ippools,virtualips,speakers".to_owned(), "what Landfall says"));
    }
    if let Some(client) = lab.lan_clients().first() {
        for address in granted {
            let url = match address {
                IpAddr::V4(v4) => format!("http://{v4}/"),
                IpAddr::V6(v6) => format!("'http://[{v6}]/'"),
            };
            let command = format!("nsenter --net=/run/netns/{} curl {url}", client.name());
            commands.push((command, "be a client on the LAN"));
        }
    }
    if let Some(node) = lab.nodes().first() {
        commands.push((format!("ip link set p-{} down", node.name()), "pull a node's plug"));
    }
    commands.push(("ls /run/landfall-lab/logs".to_owned(), "the logs of all programs"));
    let enter = format!("nsenter --target {} --all", lab.inside().init());
    commands.push((enter, "come in from another terminal"));
    // For who comes in from another terminal; in the shell that is opened here both are set.
    let (kubeconfig, programs) = (lab.kubeconfig().display(), lab.inside().programs().display());
    println!("\nexport KUBECONFIG={kubeconfig} PATH=$PATH:{programs}\n");
    for (command, what) in commands {
        println!("  {command:<58} {what}");
    }
    println!("\nAll of it ends with this program.");
    std::io::stdout().flush()?;
    Ok(())
}

#[derive(Debug, Args)]
struct Exec {
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<OsString>,
}

impl Exec {
    fn run(&self, inside: &isolation::Inside, runtime: &Runtime) -> Result<ExitCode> {
        let options = LabOptions { nodes: 0, clients: 0, kubelets: false, ..LabOptions::default() };
        let lab = runtime.block_on(Lab::up(inside, options))?;
        landfall::apply_crds(&lab)?;
        let (program, arguments) = self.command.split_first().context("no command")?;
        let status = Command::new(program)
            .args(arguments)
            .env("LANDFALL_TEST_KUBECONFIG", lab.kubeconfig())
            .status()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(exit_code(status))
    }
}

fn exit_code(status: ExitStatus) -> ExitCode {
    u8::try_from(status.code().unwrap_or(1)).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn open_shell(lab: &Lab) -> Result<ExitCode> {
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/bash".into());
    let path = std::env::var("PATH").unwrap_or_default();
    let status = Command::new(&shell)
        .env("KUBECONFIG", lab.kubeconfig())
        .env("KUBECACHEDIR", "/run/landfall-lab/kubectl")
        .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", lab.inside().programs().display()))
        .status()
        .with_context(|| format!("starting {}", shell.display()))?;
    Ok(exit_code(status))
}
