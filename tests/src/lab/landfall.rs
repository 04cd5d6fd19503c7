//! Landfall in the lab: installed as a user would, or run by hand.
//!
//! Installed: images built from `deploy/Containerfile`, `kubectl apply -f crds/`,
//! `kubectl apply -k deploy/`. By hand (for labs without kubelets): the same
//! ServiceAccounts, rights and policies from `deploy/`, and the binaries as
//! processes with the capabilities that the manifests declare and no others.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{Node as NodeObject, ServiceAccount},
};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use super::{
    image::{self, Image},
    isolation::RUN,
    lab::Lab,
    node::Node,
    pki, process, programs, say,
    waiting::eventually,
};

/// The namespace that `deploy/` installs into.
pub const NAMESPACE: &str = "landfall-system";
/// Deployment, ServiceAccount and binary of the controller.
pub const CONTROLLER: &str = "landfall-controller";
/// Deployment and ServiceAccount of the one that exposes ExternalName Services; its binary is the controller's.
pub const EXPOSER: &str = "landfall-exposer";
/// DaemonSet, ServiceAccount and binary of the speaker.
pub const SPEAKER: &str = "landfall-speaker";

const ROLLOUT: Duration = Duration::from_secs(90);

/// Installs Landfall as a user would, and waits until all of it is rolled out.
/// Where it is installed already, that is all this does.
///
/// # Errors
/// When a binary or an image cannot be had, the API server refuses a manifest,
/// or a rollout does not end within 90 s.
pub async fn install(lab: &Lab) -> Result<()> {
    if lab.kubectl(&["-n", NAMESPACE, "get", "daemonset", SPEAKER]).is_err() {
        import_images(lab)?;
        apply_crds(lab)?;
        lab.kubectl(&["apply", "-k", &deploy_folder()])?;
    }
    rolled_out(lab)?;
    say("Landfall is installed and ready");
    Ok(())
}

/// Waits until both parts of Landfall are rolled out.
///
/// # Errors
/// When that takes longer than 90 s each.
pub fn rolled_out(lab: &Lab) -> Result<()> {
    for workload in [format!("deployment/{CONTROLLER}"), format!("daemonset/{SPEAKER}")] {
        let limit = format!("--timeout={}s", ROLLOUT.as_secs());
        lab.kubectl_within(
            ROLLOUT + Duration::from_secs(5),
            &["-n", NAMESPACE, "rollout", "status", &workload, &limit],
        )?;
    }
    Ok(())
}

/// Builds both images and imports them on all nodes.
fn import_images(lab: &Lab) -> Result<()> {
    let containerfile = programs::repository().join("deploy/Containerfile");
    let build = |binary: &'static str, target: &'static str| -> Result<PathBuf> {
        let context = Path::new(RUN).join("images").join(binary);
        fs::create_dir_all(&context)?;
        fs::copy(programs::ours(binary)?, context.join(binary))?;
        let name = format!("landfall.dev/{target}:dev");
        image::build(&Image {
            name: &name,
            containerfile: &containerfile,
            target: Some(target),
            context: &context,
        })
    };
    let archives = thread::scope(|scope| {
        let controller = scope.spawn(|| build(CONTROLLER, "controller"));
        let speaker = build(SPEAKER, "speaker")?;
        Ok::<_, anyhow::Error>([controller.join().map_err(|_| anyhow!("a build panicked"))??, speaker])
    })?;
    image::import(lab.nodes(), &archives)
}

/// Installs the CRDs and waits until the API server serves them.
///
/// # Errors
/// When the API server refuses one, or does not serve it within 20 s.
pub fn apply_crds(lab: &Lab) -> Result<()> {
    let folder = programs::repository().join("crds");
    let folder = folder.to_string_lossy();
    lab.kubectl(&["apply", "-f", &folder])?;
    lab.kubectl(&["wait", "--for=condition=Established", "--timeout=20s", "-f", &folder]).map(|_| ())
}

/// Applies what a folder of manifests holds beside what would start pods.
fn apply_rights(lab: &Lab, folder: &str) -> Result<()> {
    let manifests = lab.kubectl(&["kustomize", folder])?;
    let started_by_kubelets =
        |document: &&str| document.lines().any(|line| matches!(line, "kind: Deployment" | "kind: DaemonSet"));
    let others: Vec<&str> =
        manifests.split("\n---\n").filter(|document| !started_by_kubelets(document)).collect();
    lab.apply_yaml(&others.join("\n---\n")).map(|_| ())
}

fn deploy_folder() -> String {
    programs::repository().join("deploy").to_string_lossy().into_owned()
}

/// Landfall's binaries as processes on the nodes, with the rights of `deploy/`.
#[derive(Debug)]
pub struct ByHand {
    binaries: PathBuf,
}

impl ByHand {
    /// Installs CRDs, ServiceAccounts, rights and policies; starts nothing yet.
    ///
    /// # Errors
    /// When a binary is absent or the API server refuses a manifest.
    pub fn prepare(lab: &Lab) -> Result<Self> {
        let binaries = Path::new(RUN).join("bin");
        fs::create_dir_all(&binaries)?;
        for binary in [CONTROLLER, SPEAKER] {
            let copy = binaries.join(binary);
            // A file that a process still runs cannot be written, but its name can be given to another.
            let _absent_the_first_time = fs::remove_file(&copy);
            fs::copy(programs::ours(binary)?, &copy)?;
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
        }
        apply_crds(lab)?;
        apply_rights(lab, &deploy_folder())?;
        Ok(Self { binaries })
    }

    /// As [`ByHand::prepare`], with accounts, rights and policies of `deploy/expose` as well.
    ///
    /// # Errors
    /// As [`ByHand::prepare`].
    pub fn prepare_exposing(lab: &Lab) -> Result<Self> {
        let prepared = Self::prepare(lab)?;
        apply_rights(lab, &format!("{}/expose", deploy_folder()))?;
        Ok(prepared)
    }

    /// Starts an exposer in a node's network namespace, on which no controller may run.
    ///
    /// # Errors
    /// When its token cannot be had, or it cannot be started.
    pub async fn start_exposer(&self, lab: &Lab, node: &Node, environment: &[(&str, &str)]) -> Result<()> {
        self.start_as_controller(lab, node, EXPOSER, environment, &["expose"]).await
    }

    /// Starts a speaker on a node. [`Node::kill`] and [`Node::restart`] know it as `landfall-speaker`.
    ///
    /// # Errors
    /// When its token cannot be had, or it cannot be started.
    pub async fn start_speaker(&self, lab: &Lab, node: &Node, environment: &[(&str, &str)]) -> Result<()> {
        self.start_speaker_with(lab, node, environment, "net_admin,net_raw").await
    }

    /// As [`ByHand::start_speaker`], with these capabilities, in the words of `setpriv`: those that
    /// `deploy/speaker/precedence` adds, for example.
    ///
    /// # Errors
    /// When its token cannot be had, or it cannot be started.
    pub async fn start_speaker_with(
        &self,
        lab: &Lab,
        node: &Node,
        environment: &[(&str, &str)],
        capabilities: &str,
    ) -> Result<()> {
        let kubeconfig = kubeconfig(lab, SPEAKER, Some(node.name()), node.name()).await?;
        let mut all = vec![
            format!("KUBECONFIG={}", kubeconfig.display()),
            format!("NODE_NAME={}", node.name()),
            "LANDFALL_STATE_DIR=/var/lib/landfall".to_owned(),
        ];
        all.extend(environment.iter().map(|(name, value)| format!("{name}={value}")));
        fs::create_dir_all(node.file("/var/lib/landfall")?)?;
        let added: String = capabilities.split(',').map(|capability| format!(",+{capability}")).collect();
        let bounds = format!("--bounding-set=-all{added}");
        self.start(node, SPEAKER, SPEAKER, all, &[&bounds, "--inh-caps=-all", "--no-new-privs"], &[])
    }

    /// Starts a controller in a node's network namespace (two on one node would want the same port).
    /// [`Node::kill`] and [`Node::restart`] know it as `landfall-controller`.
    ///
    /// # Errors
    /// When its token cannot be had, or it cannot be started.
    pub async fn start_controller(&self, lab: &Lab, node: &Node, environment: &[(&str, &str)]) -> Result<()> {
        self.start_as_controller(lab, node, CONTROLLER, environment, &[]).await
    }

    async fn start_as_controller(
        &self,
        lab: &Lab,
        node: &Node,
        account: &str,
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> Result<()> {
        let name = format!("{account}-{}", node.name());
        let kubeconfig = kubeconfig(lab, account, None, node.name()).await?;
        let mut all = vec![
            format!("KUBECONFIG={}", kubeconfig.display()),
            format!("POD_NAME={name}"),
            format!("POD_NAMESPACE={NAMESPACE}"),
        ];
        all.extend(environment.iter().map(|(name, value)| format!("{name}={value}")));
        let rights = [
            "--reuid=65532",
            "--regid=65532",
            "--clear-groups",
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--no-new-privs",
        ];
        self.start(node, account, CONTROLLER, all, &rights, arguments)
    }

    fn start(
        &self,
        node: &Node,
        name: &str,
        binary: &str,
        environment: Vec<String>,
        rights: &[&str],
        arguments: &[&str],
    ) -> Result<()> {
        let mut words = environment;
        words.push("setpriv".to_owned());
        words.extend(rights.iter().map(|right| (*right).to_owned()));
        words.push(self.binaries.join(binary).to_string_lossy().into_owned());
        words.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        node.start(name, Path::new("env"), words)
    }
}

/// Writes a kubeconfig with a token of a ServiceAccount of Landfall; bound to
/// a Node, the token says so (`authentication.kubernetes.io/node-name`), as a pod's token does.
///
/// # Errors
/// When the API server does not give a token.
pub async fn kubeconfig(lab: &Lab, account: &str, bound_to: Option<&str>, suffix: &str) -> Result<PathBuf> {
    let mut spec = json!({"audiences": ["https://kubernetes.default.svc"], "expirationSeconds": 86400});
    if let Some(name) = bound_to {
        let node = Api::<NodeObject>::all(lab.client()).get(name).await?;
        spec["boundObjectRef"] =
            json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": node.metadata.uid});
    }
    let request: TokenRequest = serde_json::from_value(json!({"metadata": {}, "spec": spec}))?;
    let accounts: Api<ServiceAccount> = Api::namespaced(lab.client(), NAMESPACE);
    let granted = eventually(Duration::from_secs(10), &format!("a token of {account}"), async || {
        let granted: TokenRequest =
            accounts.create_subresource("token", account, &PostParams::default(), &request).await?;
        Ok(granted)
    })
    .await?;
    let token = granted.status.context("a TokenRequest without status")?.token;
    let file = Path::new(RUN).join("pki").join(format!("{account}-{suffix}.kubeconfig"));
    pki::write_kubeconfig(&file, &Path::new(RUN).join("pki/ca.crt"), &json!({"token": token}))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    Ok(file)
}

/// Asks the API as one of Landfall's accounts, for example to see that it may
/// not do what it need not do: the arguments of kubectl, and what it printed.
///
/// # Errors
/// When kubectl fails; its words say what the API server refused.
pub fn kubectl_as(lab: &Lab, kubeconfig: &Path, arguments: &[&str], input: Option<&Value>) -> Result<String> {
    let mut command = super::Namespace::of_the_lab().command(lab.inside().programs().join("kubectl"));
    command.arg("--kubeconfig").arg(kubeconfig).args(arguments);
    process::output(command, input.map(Value::to_string).as_deref())
}
