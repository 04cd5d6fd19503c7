//! What a request asks of the API, read from its method and path.

use hyper::{Method, Uri};

/// What is asked (Kubernetes documentation, "Kubernetes API Concepts", verbs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Verb {
    Get,
    List,
    /// Lists that are streamed are watches too.
    Watch,
    Create,
    Update,
    Patch,
    Delete,
}

impl Verb {
    /// Those that change something.
    pub const WRITES: [Self; 4] = [Self::Create, Self::Update, Self::Patch, Self::Delete];
}

/// A request, as far as rules look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) verb: Verb,
    /// `services`, `services/status`, `virtualips`; empty for what is no resource.
    pub(super) resource: String,
}

impl Asked {
    pub(super) fn read(method: &Method, uri: &Uri) -> Self {
        let mut parts: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
        // /api/v1/… and /apis/group/version/…
        let head = match parts.first() {
            Some(&"api") => 2,
            Some(&"apis") => 3,
            _ => parts.len(),
        };
        parts.drain(..head.min(parts.len()));
        if parts.first() == Some(&"namespaces") && parts.len() > 2 {
            parts.drain(..2);
        }
        let is_named = parts.len() > 1;
        let resource = match parts.as_slice() {
            [resource, _, subresource, ..] => format!("{resource}/{subresource}"),
            [resource, ..] => (*resource).to_owned(),
            [] => String::new(),
        };
        let query = uri.query().unwrap_or_default();
        let watches = query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1" | "watch"));
        let verb = match *method {
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE => Verb::Delete,
            _ if watches => Verb::Watch,
            _ if is_named => Verb::Get,
            _ => Verb::List,
        };
        Self { verb, resource }
    }
}

#[cfg(test)]
mod tests {
    use hyper::{Method, Uri};

    use super::{Asked, Verb};

    #[test]
    fn requests_are_read_as_the_api_server_reads_them() {
        for (method, path, verb, resource) in [
            ("GET", "/api/v1/services?&resourceVersion=0", Verb::List, "services"),
            ("GET", "/api/v1/services?&watch=true&timeoutSeconds=290", Verb::Watch, "services"),
            ("GET", "/api/v1/namespaces/default/services/web", Verb::Get, "services"),
            ("PATCH", "/api/v1/namespaces/default/services/web/status", Verb::Patch, "services/status"),
            ("GET", "/api/v1/namespaces/default", Verb::Get, "namespaces"),
            ("POST", "/apis/landfall.dev/v1alpha1/virtualips?", Verb::Create, "virtualips"),
            ("DELETE", "/apis/landfall.dev/v1alpha1/virtualips/192.0.2.1", Verb::Delete, "virtualips"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/a/leases/b", Verb::Update, "leases"),
            ("GET", "/readyz", Verb::List, ""),
        ] {
            let read = Asked::read(&method.parse::<Method>().unwrap(), &path.parse::<Uri>().unwrap());
            assert_eq!(read, Asked { verb, resource: resource.to_owned() }, "{method} {path}");
        }
    }
}
