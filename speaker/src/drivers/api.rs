//! The way to the API server, and its errors in words.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::client::ClientBuilder;
use kube::{Api, Client, Config};
use tokio::sync::watch;
use tower::ServiceBuilder;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// There is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a kubeconfig nor a ServiceAccount is there.
    #[error("no way to the API server: set KUBECONFIG, or run in a pod with a ServiceAccount ({0})")]
    NoConfig(#[source] Box<kube::config::InferConfigError>),
    /// The credentials are unusable.
    #[error("the credentials for the API server cannot be used: {}", in_words(.0))]
    Credentials(#[source] Box<kube::Error>),
}

/// A client that follows `KUBECONFIG`, or else the pod's ServiceAccount. Nothing is sent yet. `heard` is told
/// whenever the API server answers anything, whatever that is: watches are left open for less time than it
/// may be silent.
///
/// # Errors
/// Neither is there, or it cannot be used.
pub async fn client(heard: watch::Sender<Option<Instant>>) -> Result<Client, Error> {
    let mut config = Config::infer().await.map_err(|error| Error::NoConfig(Box::new(error)))?;
    config.connect_timeout = Some(CONNECT);
    // The queue of writes and the watches know better when to try again.
    config.default_retry = false;
    let builder = ClientBuilder::try_from(config).map_err(|error| Error::Credentials(Box::new(error)))?;
    let listening = ServiceBuilder::new().map_response(move |response| {
        heard.send_replace(Some(Instant::now()));
        response
    });
    Ok(builder.with_layer(&listening.into_inner()).build())
}

/// The reference that makes the Node the owner of its Speaker, so that it goes with it.
///
/// # Errors
/// The API server does not answer, there is no such Node, or it may not be read.
pub async fn node_owner(client: &Client, node: &str) -> kube::Result<OwnerReference> {
    let object = Api::<Node>::all(client.clone()).get_metadata(node).await?;
    Ok(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: object.metadata.uid.unwrap_or_default(),
        ..OwnerReference::default()
    })
}

/// An error with its causes, each said once, and what to do about the usual ones.
pub fn in_words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        // kube's own text for a refusal repeats the whole answer in debug form.
        if let Some(kube::Error::Api(status)) = error.downcast_ref() {
            let hint = match status.code {
                404 if status.details.as_ref().is_none_or(|details| details.name.is_empty()) => {
                    "; install the definitions: kubectl apply -f crds/"
                }
                403 => "; check the speaker's ClusterRole and that its token is the one of its pod",
                _ => "",
            };
            let said = format!("{} ({}){hint}", status.message.trim(), status.code);
            return if text.is_empty() { said } else { format!("{text}: {said}") };
        }
        let said = error.to_string();
        // A wrapper's text may hold that of its cause already.
        let own = said.split("ApiError: ").next().unwrap_or_default().trim_end_matches(": ");
        if text.is_empty() {
            text = own.to_owned();
        } else if !text.contains(own) {
            text = format!("{text}: {own}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn a_refusal_is_said_once_with_what_to_do() {
        let status = Status { message: "404 page not found".into(), code: 404, ..Status::default() };
        let error = kube::runtime::watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)));
        assert_eq!(
            in_words(&error),
            "failed to perform initial object list: 404 page not found (404); install the definitions: \
             kubectl apply -f crds/"
        );
    }
}
