//! A way to the API server on which requests, answers and watches go wrong as a test wishes.
//!
//! It stands between one program and the API server: plain HTTP on the switch's address, TLS behind it.
//! Credentials pass through, so whoever comes this way is to the API server who it always is. What goes
//! wrong is said by [`Rule`]s, which hold from one moment to the next, for watches that run too:
//!
//! ```no_run
//! # use landfall_tests::lab::{Lab, seconds, api_proxy::{ApiProxy, Fault, Rule, Verb}};
//! # async fn story(lab: &Lab) -> anyhow::Result<()> {
//! let proxy = ApiProxy::start(lab, 1)?;
//! let kubeconfig = proxy.kubeconfig(lab, "landfall-controller", "n1").await?;
//! proxy.set(vec![
//!     Rule::new(Fault::LoseAnswer(500), 0.1).to(&[Verb::Create]).of(&["virtualips"]),
//!     Rule::new(Fault::Lag(seconds(5)), 1.0),
//! ]);
//! // …
//! proxy.set(Vec::new());
//! eprintln!("{:?}", proxy.counts());
//! # Ok(()) }
//! ```

mod asked;
mod relay;
mod rules;

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot};

pub use self::asked::Verb;
pub use self::rules::{Fault, Rule};
use self::{asked::Asked, rules::Faults};
use super::{lab::Lab, landfall, plan, waiting::seconds};

/// A proxy in front of the API server, on a thread of its own; it ends when it is dropped.
#[derive(Debug)]
pub struct ApiProxy {
    address: SocketAddr,
    faults: Arc<Faults>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ApiProxy {
    /// Starts a proxy that passes everything on. Equal seeds and equal requests make equal faults.
    ///
    /// # Errors
    /// When it cannot listen, or the lab's authority cannot be read.
    pub fn start(lab: &Lab, seed: u64) -> Result<Self> {
        let listener = std::net::TcpListener::bind((plan::GATEWAY_V4, 0)).context("listening")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let upstream = nobody(lab.kubeconfig())?;
        let faults = Arc::new(Faults::new(seed));
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let for_thread = Arc::clone(&faults);
        // Stories block their own thread at times; the way to the API server must not wait for them.
        let thread = thread::Builder::new().name("api-proxy".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    served = serve(listener, upstream, for_thread) => {
                        if let Err(error) = served {
                            super::say(&format!("the proxy of the API server has ended: {error:#}"));
                        }
                    }
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { address, faults, stop: Some(stop), thread: Some(thread) })
    }

    /// From now on these rules hold and no others. Each request, and each running watch, draws anew.
    pub fn set(&self, rules: Vec<Rule>) {
        self.faults.set(rules);
    }

    /// Swallows everything, or lets it go on. While it does, nobody gets an answer and watches are silent,
    /// but no connection breaks. What was asked meanwhile reaches the API server afterwards, whether or
    /// not somebody still waits for the answer, as it would from a network that was cut.
    pub fn swallow(&self, everything: bool) {
        self.faults.swallow(everything);
    }

    /// As [`ApiProxy::swallow`], from the next request of this kind on, which is swallowed too: whoever
    /// makes it has work in its hands then.
    pub fn swallow_from(&self, verb: Verb, resource: &str) {
        self.faults.swallow_from(Asked { verb, resource: resource.to_owned() });
    }

    /// Whether everything is swallowed now.
    pub fn swallows(&self) -> bool {
        self.faults.swallows()
    }

    /// How often each kind of fault was played, by its name ([`Fault::name`]); also how many `requests` came,
    /// and of them how many `writes held`, `reads held` and `answers held` while everything was swallowed.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.faults.counts()
    }

    /// How often this kind was played.
    pub fn count(&self, name: &str) -> u64 {
        self.counts().get(name).copied().unwrap_or(0)
    }

    /// Writes a kubeconfig of one of Landfall's ServiceAccounts that leads here.
    ///
    /// # Errors
    /// When the API server gives no token.
    pub async fn kubeconfig(&self, lab: &Lab, account: &str, suffix: &str) -> Result<PathBuf> {
        let file = landfall::kubeconfig(lab, account, None, &format!("{suffix}-by-proxy")).await?;
        let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
        config["clusters"][0]["cluster"] = json!({"server": format!("http://{}", self.address)});
        fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
        Ok(file)
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        // The thread may have ended already.
        let _ended = self.stop.take().map(|stop| stop.send(()));
        let _panicked = self.thread.take().map(JoinHandle::join);
    }
}

/// How to reach the API server as nobody: whoever comes brings credentials.
fn nobody(kubeconfig: &Path) -> Result<Kubeconfig> {
    let mut config = Kubeconfig::read_from(kubeconfig)?;
    let users = config.auth_infos.iter_mut();
    users.for_each(|user| user.auth_info = Some(kube::config::AuthInfo::default()));
    Ok(config)
}

async fn serve(listener: std::net::TcpListener, upstream: Kubeconfig, faults: Arc<Faults>) -> Result<()> {
    let mut config = Config::from_custom_kubeconfig(upstream, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(seconds(5));
    // What fails is for the program behind us to try again.
    config.default_retry = false;
    let upstream = Client::try_from(config)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // Many small answers: none waits for the next.
        stream.set_nodelay(true)?;
        let (upstream, faults) = (upstream.clone(), Arc::clone(&faults));
        let service = service_fn(move |request| relay::relay(upstream.clone(), Arc::clone(&faults), request));
        // Connections end in all ways, many of them on our own wish.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
