//! The lab for people: a shell in it, and what is shown or measured with it.

#![allow(clippy::print_stdout)]

use std::{
    ffi::OsString,
    io::{IsTerminal, Write},
    process::{Command, ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use landfall_tests::lab::{Lab, LabOptions, ProxyMode, isolation, landfall};
use landfall_tests::{bench::Bench, demo::Demo};
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
        if !self.bare {
            runtime.block_on(landfall::install(&lab)).inspect_err(|_| lab.explain())?;
        }
        self.welcome(&lab)?;
        if std::io::stdin().is_terminal() {
            return open_shell(&lab);
        }
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }

    fn welcome(&self, lab: &Lab) -> Result<()> {
        let client = lab.lan_clients().first().map_or("c1", |client| client.name());
        let landfall =
            if self.bare { "" } else { "  kubectl get ippools,virtualips,speakers    what Landfall says\n" };
        print!(
            "\nexport KUBECONFIG={}\n\n\
             \x20 kubectl get nodes,pods -A -o wide          what runs\n{landfall}\
             \x20 nsenter --net=/run/netns/{client} curl 192.168.10.150   be a client on the LAN\n\
             \x20 ip link set p-n1 down                      pull the plug of node n1\n\
             \x20 ls /run/landfall-lab/logs                  the logs of all programs\n\
             \x20 nsenter --target {} --all                  come in from another terminal\n\n\
             All of it ends with this program.\n",
            lab.kubeconfig().display(),
            lab.inside().init(),
        );
        std::io::stdout().flush()?;
        Ok(())
    }
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
