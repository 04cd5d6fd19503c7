//! The lab as a whole: how it comes up, and what it gives.

use std::{
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, ensure};
use k8s_openapi::api::core::v1::{Node as NodeObject, ServiceAccount};
use kube::{
    Api, Client, Config,
    api::{ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

use super::{
    client::LanClient,
    control_plane::ControlPlane,
    explain::print_logs,
    image,
    isolation::{Inside, RUN},
    namespace::Namespace,
    node::Node,
    pki::Pki,
    plan::{self, Lan},
    pods::{self, Pods},
    process, runtime,
    runtime::ProxyMode,
    say,
    switch::Switch,
    waiting::{eventually, seconds},
};

/// What a lab shall have.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// How many nodes, at most 89.
    pub nodes: u8,
    /// How many hosts on the LAN that are not nodes, at most 89.
    pub clients: u8,
    /// Whether each node has a real kubelet and containerd. Without, Node and
    /// Pod objects are written by hand and pods are plain processes: many nodes
    /// come up fast.
    pub kubelets: bool,
    /// How kube-proxy programs the kernel.
    pub proxy: ProxyMode,
    /// Whether every host has a second interface on a LAN of its own: 192.168.20.0/24 and fd20::/64.
    pub second_lan: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self { nodes: 3, clients: 1, kubelets: true, proxy: ProxyMode::Nftables, second_lan: false }
    }
}

/// A running lab. It ends with the process.
pub struct Lab {
    inside: Inside,
    options: LabOptions,
    switch: Switch,
    control_plane: ControlPlane,
    nodes: Vec<Node>,
    clients: Vec<LanClient>,
    pods: Pods,
    client: Client,
    kubeconfig: PathBuf,
}

impl Lab {
    /// Brings a lab up: nodes Ready, images imported. Prints progress to standard error.
    ///
    /// # Errors
    /// When it is not up within its limits; the logs that explain it have been printed then.
    pub async fn up(inside: &Inside, options: LabOptions) -> Result<Self> {
        ensure!(
            options.nodes <= plan::MOST && options.clients <= plan::MOST,
            "at most {} nodes or clients",
            plan::MOST
        );
        let stage = Stage::start();
        let lab = Self::start(inside, options, &stage).await?;
        match lab.wait_until_up(&stage).await {
            Ok(()) => Ok(lab),
            Err(error) => {
                lab.explain();
                Err(error)
            }
        }
    }

    async fn start(inside: &Inside, options: LabOptions, stage: &Stage) -> Result<Self> {
        let pki = Pki::create(&Path::new(RUN).join("pki"))?;
        let switch = Switch::create()?;
        let control_plane = ControlPlane::start(
            inside.programs(),
            &Path::new(RUN).join("control-plane"),
            &pki,
            options.kubelets,
        )?;
        let kubeconfig = pki.kubeconfig("admin", Some("system:masters"))?;
        let client = client_for(&kubeconfig).await?;
        stage.done("etcd and the API server started");

        let numbers = 1..=options.nodes;
        let nodes: Vec<Node> =
            numbers.map(|number| Node::create(number, inside.cgroup())).collect::<Result<_>>()?;
        for node in &nodes {
            switch.plug(node.namespace(), node.addresses())?;
            node.route(options.nodes)?;
        }
        let clients: Vec<LanClient> =
            (1..=options.clients).map(|number| LanClient::create(number, &switch)).collect::<Result<_>>()?;
        if options.second_lan {
            switch.add_second_lan()?;
            let hosts = nodes.iter().map(|node| (node.namespace(), node.addresses()));
            for (host, addresses) in
                hosts.chain(clients.iter().map(|host| (host.namespace(), host.addresses())))
            {
                switch.wire(host, &addresses.on(Lan::Second), Lan::Second)?;
            }
        }
        stage.done(&format!("{} nodes and {} clients plugged in", nodes.len(), clients.len()));
        let lab = Self {
            inside: inside.clone(),
            options,
            switch,
            control_plane,
            nodes,
            clients,
            pods: Pods::default(),
            client,
            kubeconfig,
        };
        let brought = lab.bring_nodes(&pki, stage).await;
        if brought.is_err() {
            lab.explain();
        }
        brought.map(|()| lab)
    }

    async fn bring_nodes(&self, pki: &Pki, stage: &Stage) -> Result<()> {
        // Images are built and imported while the API server comes up.
        let images = thread::scope(|scope| {
            let importing = self.options.kubelets.then(|| scope.spawn(|| self.import_own_images()));
            importing
                .map_or(Ok(()), |thread| thread.join().map_err(|_| anyhow!("importing images panicked"))?)
        });
        images?;
        if self.options.kubelets {
            stage.done("containerd answers on every node, images imported");
        }
        self.control_plane.ready(&self.client).await?;
        stage.done("the API server is ready");
        self.control_plane.start_controllers()?;
        self.write_nodes().await?;
        let proxy = pki.kubeconfig("system:kube-proxy", None)?;
        for node in &self.nodes {
            if self.options.kubelets {
                runtime::start_kubelet(node, self.inside.programs(), pki)?;
            }
            runtime::start_proxy(node, self.inside.programs(), &proxy, self.options.proxy)?;
        }
        Ok(())
    }

    fn import_own_images(&self) -> Result<()> {
        self.nodes.iter().try_for_each(runtime::start_containerd)?;
        let archives = image::build_own()?;
        self.nodes.iter().try_for_each(runtime::containerd_answers)?;
        image::import(&self.nodes, &archives)
    }

    /// Writes the Node objects, so that they have the plan's pod ranges from the start.
    async fn write_nodes(&self) -> Result<()> {
        let api: Api<NodeObject> = Api::all(self.client());
        for node in &self.nodes {
            let (v4, v6) = (plan::pods_v4(node.number()), plan::pods_v6(node.number()));
            let object = serde_json::from_value(json!({
                "metadata": {"name": node.name(), "labels": {"kubernetes.io/hostname": node.name(), "kubernetes.io/os": "linux"}},
                "spec": {"podCIDR": v4, "podCIDRs": [v4, v6]},
            }))?;
            api.create(&PostParams::default(), &object)
                .await
                .with_context(|| format!("creating Node {}", node.name()))?;
            if !self.options.kubelets {
                pods::make_ready(&api, node).await?;
            }
        }
        Ok(())
    }

    async fn wait_until_up(&self, stage: &Stage) -> Result<()> {
        self.nodes_ready().await?;
        stage.done("every node is Ready");
        for node in &self.nodes {
            runtime::proxy_answers(node).await?;
        }
        stage.done("every kube-proxy has synced");
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), "default");
        eventually(seconds(20), "the default ServiceAccount is there", async || {
            accounts.get("default").await.map(|_| ()).map_err(Into::into)
        })
        .await?;
        stage.done("up");
        Ok(())
    }

    /// Waits until every node is Ready.
    ///
    /// # Errors
    /// When one is not within 60 s.
    pub async fn nodes_ready(&self) -> Result<()> {
        let api: Api<NodeObject> = Api::all(self.client());
        eventually(seconds(60), "every node is Ready", async || {
            let nodes = api.list(&ListParams::default()).await?;
            let unready = nodes.iter().find(|node| !is_ready(node));
            match unready {
                None => Ok(()),
                Some(node) => Err(anyhow!(
                    "{:?} is not: {:?}",
                    node.metadata.name,
                    node.status.as_ref().and_then(|status| status.conditions.clone())
                )),
            }
        })
        .await
    }

    /// Waits until the API server answers, for example after [`ControlPlane::start_api_server`].
    ///
    /// # Errors
    /// When it does not within 60 s, or has ended.
    pub async fn api_server_answers(&self) -> Result<()> {
        self.control_plane.ready(&self.client).await
    }

    /// Undoes every fault that the lab can play: brings ports up, ends loss,
    /// thaws nodes, and starts the API server where it was killed.
    ///
    /// # Errors
    /// When something cannot be undone.
    pub async fn mend(&self) -> Result<()> {
        self.nodes.iter().for_each(Node::thaw);
        self.switch.mend()?;
        self.control_plane.mend()?;
        self.api_server_answers().await
    }

    /// What the lab was asked to have.
    pub fn options(&self) -> &LabOptions {
        &self.options
    }

    /// The lab's isolation from the machine.
    pub fn inside(&self) -> &Inside {
        &self.inside
    }

    /// The LAN's switch.
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// etcd, API server and the controllers.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// All nodes, in the order of their numbers.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes
            .iter()
            .find(|node| node.name() == name)
            .ok_or_else(|| anyhow!("the lab has no node {name}"))
    }

    /// All hosts on the LAN that are not nodes.
    pub fn lan_clients(&self) -> &[LanClient] {
        &self.clients
    }

    /// The host on the LAN of that name (`c1`).
    ///
    /// # Errors
    /// When there is none.
    pub fn lan_client(&self, name: &str) -> Result<&LanClient> {
        self.clients
            .iter()
            .find(|client| client.name() == name)
            .ok_or_else(|| anyhow!("the lab has no client {name}"))
    }

    pub(crate) fn pods(&self) -> &Pods {
        &self.pods
    }

    /// A client of the API with all rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A kubeconfig with all rights.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs kubectl with all rights and returns what it printed.
    ///
    /// # Errors
    /// When it fails, or takes longer than 30 s.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        process::output(self.kubectl_command(arguments), None)
    }

    /// As [`Lab::kubectl`], for what waits itself (`rollout status`, `wait`, `drain`).
    ///
    /// # Errors
    /// When it fails, or takes longer than `limit`.
    pub fn kubectl_within(&self, limit: std::time::Duration, arguments: &[&str]) -> Result<String> {
        process::output_within(limit, self.kubectl_command(arguments), None)
    }

    fn kubectl_command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = Namespace::of_the_lab().command(self.inside.programs().join("kubectl"));
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        command
    }

    /// `kubectl apply` of this YAML (or JSON).
    ///
    /// # Errors
    /// When the API server refuses it, in kubectl's words.
    pub fn apply_yaml(&self, yaml: &str) -> Result<String> {
        process::output(self.kubectl_command(&["apply", "-f", "-"]), Some(yaml))
    }

    /// Prints what explains a failure: pods and warnings as the API knows
    /// them, what Landfall's pods said last, and the ends of the logs of all programs.
    pub fn explain(&self) {
        let namespace = super::landfall::NAMESPACE;
        for arguments in [
            "get nodes,pods -A -o wide".to_owned(),
            "get events -A --field-selector=type=Warning --sort-by=.lastTimestamp".to_owned(),
            format!("-n {namespace} logs --prefix --tail=15 -l app.kubernetes.io/part-of=landfall"),
        ] {
            eprintln!("--- kubectl {arguments}");
            let mut command = self.kubectl_command(&arguments.split(' ').collect::<Vec<_>>());
            command.arg("--request-timeout=5s");
            let said = process::output_within(seconds(10), command, None)
                .unwrap_or_else(|error| format!("{error:#}"));
            let lines: Vec<&str> = said.lines().collect();
            lines.iter().skip(lines.len().saturating_sub(60)).for_each(|line| eprintln!("    {line}"));
        }
        let states = self.nodes.iter().flat_map(Node::state).chain(self.control_plane.state());
        print_logs(states.collect(), 8);
    }
}

/// A client of the API with the credentials of a kubeconfig.
pub(crate) async fn client_for(kubeconfig: &Path) -> Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(seconds(5));
    config.read_timeout = Some(seconds(30));
    Ok(Client::try_from(config)?)
}

fn is_ready(node: &NodeObject) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| {
        all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}

/// Progress with times.
struct Stage(Instant);

impl Stage {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn done(&self, what: &str) {
        say(&format!("{:5.1} s  {what}", self.0.elapsed().as_secs_f64()));
    }
}
