//! Checks manifests for Services of type ExternalName whose name is no good, before they are applied. Pure; DNS is
//! not asked.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::Service;
use landfall_crds::ClaimRef;
use landfall_crds::names::annotations::CHECK_NAME;
use serde_json::Value;
use serde_saphyr::options;

use super::cluster::{Route, external_name, way};
use super::name::{DnsName, Fault};
use super::telling::{self, reasons};
use crate::granting::named;

/// The namespace of an object that names none, as for kubectl.
const DEFAULT_NAMESPACE: &str = "default";

/// Something that is wrong in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// The Service, where the file could be read that far.
    pub service: Option<ClaimRef>,
    /// CamelCase, one word: the reason of the condition that the Service would have, or `NotYaml`.
    pub reason: &'static str,
    /// What is wrong, and what to write instead.
    pub message: String,
    /// Whether the API server would refuse the Service.
    pub is_refused: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        if let Some(service) = &self.service {
            write!(f, "Service {}: ", named(service))?;
        }
        let whose = if self.is_refused { " (the API server refuses it)" } else { "" };
        write!(f, "{}: {}{whose}", self.reason, self.message)
    }
}

/// Manifests that belong together: Services may lead to one another.
#[derive(Debug, Default)]
pub struct Manifests {
    services: BTreeMap<ClaimRef, (String, Service)>,
    findings: Vec<Finding>,
}

impl Manifests {
    /// Reads a file of one or more objects in YAML or JSON, lists of objects among them. What is no Service is
    /// passed over.
    pub fn read(&mut self, file: &str, text: &str) {
        let documents: Vec<Value> = match serde_json::from_str(text) {
            Ok(document) => vec![document],
            // As many objects as there are: a cluster's whole list may be piped in.
            Err(_) => match serde_saphyr::from_multiple_with_options(text, options! { budget: None }) {
                Ok(documents) => documents,
                Err(error) => {
                    let message = format!("it cannot be read: {error}");
                    return self.find(file, None, "NotYaml", message, true);
                }
            },
        };
        for document in &documents {
            self.take(file, document);
        }
    }

    /// Everything that is wrong, and how many Services of type ExternalName there are.
    pub fn lint(mut self, domain: &DnsName) -> (Vec<Finding>, usize) {
        let services = std::mem::take(&mut self.services);
        let mut checked = 0;
        for (key, (file, service)) in &services {
            let annotations = service.metadata.annotations.as_ref();
            let is_excepted =
                annotations.and_then(|all| all.get(CHECK_NAME)).is_some_and(|value| value == "false");
            let Some(text) = external_name(service).filter(|_| !is_excepted) else { continue };
            checked += 1;
            let found = |key: &ClaimRef| services.get(key).map(|(_, service)| service);
            let way = way(key, text, domain, found);
            // Without the text itself, which may hold a password.
            let faulty = |fault: &Fault| (fault.flaw.reason(), fault.to_string(), fault.is_refused);
            let by_way = |reason| {
                let told = telling::without_dns(text, &way).map(|told| told.message);
                (reason, told.unwrap_or_default(), false)
            };
            let found = match (&way.route, &way.fault) {
                (Route::Nowhere(fault), _) | (_, Some(fault)) => Some(faulty(fault)),
                // What is not among the manifests may well be in the cluster.
                (Route::Missing(_) | Route::Service(_) | Route::Dns(_), None) => None,
                (Route::NowhereBy(..), None) => Some(by_way(reasons::LEADS_NOWHERE)),
                (Route::TooLong, None) => Some(by_way(reasons::TOO_MANY_STEPS)),
            };
            if let Some((reason, message, is_refused)) = found {
                self.find(file, Some(key.clone()), reason, message, is_refused);
            }
        }
        (self.findings, checked)
    }

    fn take(&mut self, file: &str, object: &Value) {
        if let Some(items) = object.get("items").and_then(Value::as_array) {
            for item in items {
                self.take(file, item);
            }
            return;
        }
        if object.get("kind").and_then(Value::as_str) != Some("Service") {
            return;
        }
        let text = |path: &str| object.pointer(path).and_then(Value::as_str);
        let key = ClaimRef {
            namespace: text("/metadata/namespace").unwrap_or(DEFAULT_NAMESPACE).to_owned(),
            name: text("/metadata/name").unwrap_or_default().to_owned(),
        };
        match serde_json::from_value(object.clone()) {
            Ok(service) => {
                self.services.insert(key, (file.to_owned(), service));
            }
            Err(error) => {
                let message = format!("it cannot be read as a Service: {error}");
                self.find(file, Some(key), "NotAService", message, true);
            }
        }
    }

    fn find(
        &mut self,
        file: &str,
        service: Option<ClaimRef>,
        reason: &'static str,
        message: String,
        is_refused: bool,
    ) {
        self.findings.push(Finding { file: file.to_owned(), service, reason, message, is_refused });
    }
}

#[cfg(test)]
mod tests {
    use super::super::name::read;
    use super::*;

    fn lint(files: &[(&str, &str)]) -> (Vec<String>, usize) {
        let mut manifests = Manifests::default();
        for (file, text) in files {
            manifests.read(file, text);
        }
        let (findings, checked) = manifests.lint(&read("cluster.local").unwrap());
        (findings.iter().map(ToString::to_string).collect(), checked)
    }

    fn service(name: &str, external_name: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec:\n  type: ExternalName\n  externalName: {external_name}\n---\n"
        )
    }

    #[test]
    fn good_names_and_other_objects_are_passed_over() {
        let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n";
        let files =
            service("db", "db.example.com") + &service("in", "db.prod.svc.cluster.local") + deployment;
        assert_eq!(lint(&[("a.yaml", &files)]), (vec![], 2));
    }

    #[test]
    fn each_mistake_is_told_with_its_place_and_who_would_have_told_it_otherwise() {
        let url = service("db", "https://db.example.com");
        let (said, _) = lint(&[("a.yaml", &url), ("b.yaml", &service("ip", "10.0.0.1"))]);
        assert_eq!(
            said[0],
            "a.yaml: Service shop/db: Url: it is a URL, or a part of one, and not a name alone: write db.example.com (the \
             API server refuses it)"
        );
        assert!(said[1].starts_with("b.yaml: Service shop/ip: IpAddress: it is an IP address"), "{said:?}");
        assert!(said[1].ends_with("that holds the address"), "{said:?}");
    }

    #[test]
    fn what_is_no_yaml_as_it_stands_is_told_too() {
        let pasted = service("db", "[https://db.example.com](https://db.example.com/)");
        let (said, checked) = lint(&[("a.yaml", &pasted)]);
        assert!(said.len() == 1 && checked == 0 && said[0].starts_with("a.yaml: NotYaml: "), "{said:?}");
        let (said, _) = lint(&[("a.yaml", &service("db", "7"))]);
        assert!(said[0].starts_with("a.yaml: Service shop/db: NotAService: "), "{said:?}");
    }

    #[test]
    fn services_of_several_files_and_of_a_list_lead_to_one_another() {
        let list = r#"{"apiVersion": "v1", "kind": "List", "items": [
            {"kind": "Service", "metadata": {"name": "x", "namespace": "shop"},
             "spec": {"type": "ExternalName", "externalName": "y.shop.svc.cluster.local"}},
            {"kind": "Service", "metadata": {"name": "quiet", "namespace": "shop",
                "annotations": {"landfall.dev/check-name": "false"}},
             "spec": {"type": "ExternalName", "externalName": "10.0.0.1"}}]}"#;
        let files = service("y", "x.shop.svc.cluster.local") + &service("z", "bad.shop.svc.cluster.local");
        let bad = service("bad", "10.0.0.1");
        let (said, checked) = lint(&[("list.json", list), ("b.yaml", &files), ("c.yaml", &bad)]);
        let reasons: Vec<&str> = said.iter().map(|said| said.split(": ").nth(2).unwrap()).collect();
        assert_eq!((reasons, checked), (vec!["IpAddress", "Circle", "Circle", "LeadsNowhere"], 4));
    }
}
