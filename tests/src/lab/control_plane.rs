//! etcd, the API server, the controller-manager and the scheduler, in the switch's namespace.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{
    audit::AuditLog,
    namespace::Namespace,
    pki::{Pair, Pki},
    plan,
    process::Process,
    waiting::eventually,
};

/// The cluster's brain. The API server can be killed and started again.
#[derive(Debug)]
pub struct ControlPlane {
    programs: PathBuf,
    audit: AuditLog,
    api_server_arguments: Vec<String>,
    controllers: [(&'static str, Vec<String>); 2],
    etcd: Mutex<Process>,
    etcd_folder: PathBuf,
    api_server: Mutex<Process>,
    others: Mutex<Vec<Process>>,
}

/// What etcd held at some moment.
#[derive(Clone, Debug)]
pub struct Backup(PathBuf);

impl ControlPlane {
    /// Starts etcd and the API server; they answer a few seconds later.
    pub(crate) fn start(programs: &Path, folder: &Path, pki: &Pki, kubelets: bool) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let etcd_folder = folder.join("etcd");
        let etcd = Mutex::new(start_etcd(programs, &etcd_folder)?);
        let [gateway, gateway6] = [plan::GATEWAY_V4.to_string(), plan::GATEWAY_V6.to_string()];
        let [service, service6] = plan::SERVICE_OF_API;
        let names =
            ["localhost", "127.0.0.1", "::1", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let mut answers_on: Vec<String> = names.map(str::to_owned).to_vec();
        answers_on.extend([gateway, gateway6, service.to_owned(), service6.to_owned()]);
        let server = pki.server("kube-apiserver", &answers_on)?;
        let kubelet_client = pki.user("kube-apiserver-kubelet-client", Some("system:masters"))?;
        write_audit_policy(folder)?;

        let api_server_arguments = api_server_arguments(folder, pki, &server, &kubelet_client);
        let mut manager = manager_arguments(pki, &pki.kubeconfig("system:kube-controller-manager", None)?);
        if !kubelets {
            // Nobody renews the nodes' leases, so nobody may judge by them.
            manager.push("--controllers=*,-node-lifecycle-controller".to_owned());
        }
        let scheduler = scheduler_arguments(&pki.kubeconfig("system:kube-scheduler", None)?);
        Ok(Self {
            programs: programs.to_owned(),
            audit: AuditLog::new(folder.join("audit.log")),
            etcd,
            etcd_folder,
            api_server: Mutex::new(start(programs, "kube-apiserver", &api_server_arguments)?),
            api_server_arguments,
            controllers: [("kube-controller-manager", manager), ("kube-scheduler", scheduler)],
            others: Mutex::default(),
        })
    }

    /// Starts what needs an API server that answers.
    pub(crate) fn start_controllers(&self) -> Result<()> {
        let started: Result<Vec<Process>> =
            self.controllers.iter().map(|(name, arguments)| start(&self.programs, name, arguments)).collect();
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = started?;
        Ok(())
    }

    /// Kills the API server as a crash would. Everything else goes on without it.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill_api_server(&self) -> Result<()> {
        self.api_server().kill()
    }

    /// Starts the API server again; [`super::Lab::api_server_answers`] waits until it is ready.
    ///
    /// # Errors
    /// When it still runs, or cannot be started.
    pub fn start_api_server(&self) -> Result<()> {
        if self.api_server().ended().is_none() {
            bail!("the API server runs");
        }
        let started = start(&self.programs, "kube-apiserver", &self.api_server_arguments)?;
        *self.api_server() = started;
        Ok(())
    }

    /// Keeps what etcd holds at this moment, for [`ControlPlane::restore`].
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn back_up(&self) -> Result<Backup> {
        let copy = self.etcd_folder.with_file_name("etcd-backup");
        let _none_yet = fs::remove_dir_all(&copy);
        // Files of a process that stands still are what a crash at that moment would leave behind: whole.
        let etcd = self.etcd();
        etcd.signal(Signal::SIGSTOP);
        let copied = copy_folder(&self.etcd_folder, &copy);
        etcd.signal(Signal::SIGCONT);
        copied.map(|()| Backup(copy)).context("copying what etcd keeps")
    }

    /// Kills API server and etcd, and starts both with what was kept earlier: all that was written since is gone.
    /// [`super::Lab::api_server_answers`] waits until they answer.
    ///
    /// # Errors
    /// When something cannot be killed, copied or started.
    pub fn restore(&self, backup: &Backup) -> Result<()> {
        self.kill_api_server()?;
        let mut etcd = self.etcd();
        etcd.kill()?;
        fs::remove_dir_all(&self.etcd_folder)?;
        copy_folder(&backup.0, &self.etcd_folder)?;
        *etcd = start_etcd(&self.programs, &self.etcd_folder)?;
        drop(etcd);
        self.start_api_server()
    }

    /// Whether the API server runs; it may not answer yet.
    pub fn api_server_runs(&self) -> bool {
        self.api_server().ended().is_none()
    }

    /// Lets the API server neither answer nor close its connections, or go on.
    pub fn freeze_api_server(&self, frozen: bool) {
        self.api_server().signal(if frozen { Signal::SIGSTOP } else { Signal::SIGCONT });
    }

    pub(crate) fn mend(&self) -> Result<()> {
        self.freeze_api_server(false);
        if self.api_server().ended().is_some() {
            self.start_api_server()?;
        }
        Ok(())
    }

    /// The record of every write request.
    pub fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// Waits until the API server says that it is ready.
    pub(crate) async fn ready(&self, client: &kube::Client) -> Result<()> {
        eventually(Duration::from_secs(60), "the API server is ready", async || {
            if let Some(status) = self.etcd().ended() {
                bail!("etcd has ended: {status}");
            }
            if let Some(status) = self.api_server().ended() {
                bail!("the API server has ended: {status}");
            }
            let request = http_get("/readyz")?;
            client.request_text(request).await.context("asking /readyz").map(|_| ())
        })
        .await
    }

    fn etcd(&self) -> MutexGuard<'_, Process> {
        self.etcd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn api_server(&self) -> MutexGuard<'_, Process> {
        self.api_server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names and logs of the programs, and how they ended where they have.
    pub(crate) fn state(&self) -> Vec<super::explain::ProcessState> {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let mut states = vec![(&*self.etcd()).into(), (&*self.api_server()).into()];
        states.extend(others.iter().map(Into::into));
        states
    }
}

fn http_get(path: &str) -> Result<http::Request<Vec<u8>>> {
    Ok(http::Request::get(path).body(Vec::new())?)
}

fn flag(name: &str, value: &Path) -> String {
    format!("--{name}={}", value.display())
}

fn start(programs: &Path, name: &str, arguments: &[String]) -> Result<Process> {
    let mut command = Namespace::of_the_lab().command(programs.join(name));
    command.args(arguments);
    Process::start(name, command)
}

/// Copies a folder with all below it.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &copy)?;
        } else {
            fs::copy(entry.path(), copy)?;
        }
    }
    Ok(())
}

fn start_etcd(programs: &Path, folder: &Path) -> Result<Process> {
    let arguments = [
        flag("data-dir", folder),
        "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
        "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--log-level=warn".to_owned(),
        // What it keeps lies in memory anyway.
        "--unsafe-no-fsync".to_owned(),
    ];
    start(programs, "etcd", &arguments)
}

fn api_server_arguments(folder: &Path, pki: &Pki, server: &Pair, kubelet_client: &Pair) -> Vec<String> {
    let mut arguments = vec![
        format!("--advertise-address={}", plan::GATEWAY_V4),
        format!("--service-cluster-ip-range={}", plan::SERVICES),
        flag("service-account-key-file", &pki.token_public_key()),
        flag("service-account-signing-key-file", &pki.token_key()),
        flag("client-ca-file", &pki.authority_file()),
        flag("tls-cert-file", &server.certificate),
        flag("tls-private-key-file", &server.key),
        flag("kubelet-client-certificate", &kubelet_client.certificate),
        flag("kubelet-client-key", &kubelet_client.key),
        flag("audit-policy-file", &folder.join("audit-policy.json")),
        flag("audit-log-path", &folder.join("audit.log")),
    ];
    let fixed = [
        "--etcd-servers=http://127.0.0.1:2379",
        "--bind-address=0.0.0.0",
        "--secure-port=6443",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--kubelet-preferred-address-types=InternalIP",
        // An event is written before its request ends, and the file is never rotated away.
        "--audit-log-mode=blocking",
        "--audit-log-maxsize=100000",
    ];
    arguments.extend(fixed.map(str::to_owned));
    arguments
}

fn manager_arguments(pki: &Pki, kubeconfig: &Path) -> Vec<String> {
    let mut arguments = vec![
        flag("service-account-private-key-file", &pki.token_key()),
        flag("root-ca-file", &pki.authority_file()),
        "--use-service-account-credentials".to_owned(),
        // The lab gives nodes their pod ranges itself, so that they match the plan.
        "--allocate-node-cidrs=false".to_owned(),
    ];
    arguments.extend(scheduler_arguments(kubeconfig));
    arguments
}

fn scheduler_arguments(kubeconfig: &Path) -> Vec<String> {
    let fixed =
        ["--leader-elect=false", "--bind-address=127.0.0.1", "--kube-api-qps=200", "--kube-api-burst=400"];
    [flag("kubeconfig", kubeconfig)].into_iter().chain(fixed.map(str::to_owned)).collect()
}

/// Every write is recorded once, when it is done; nothing else is.
fn write_audit_policy(folder: &Path) -> Result<()> {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [
            {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
            {"level": "None"},
        ],
    });
    fs::write(folder.join("audit-policy.json"), serde_json::to_vec_pretty(&policy)?)?;
    Ok(())
}
