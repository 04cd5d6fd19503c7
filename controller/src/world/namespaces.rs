//! What is known of namespaces: their labels, by which pools select them, and which one it is.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Namespace;

/// What a Namespace object says, read once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// `metadata.uid`: another one of the same name is another namespace.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// All namespaces, by name.
#[derive(Debug, Default)]
pub struct Namespaces {
    known: BTreeMap<String, NamespaceFacts>,
    pub(crate) listed: bool,
}

impl Namespaces {
    /// Takes in a namespace. Returns whether anything that matters has changed.
    pub fn put(&mut self, namespace: &Namespace) -> bool {
        let name = namespace.metadata.name.clone().unwrap_or_default();
        let facts = NamespaceFacts {
            uid: namespace.metadata.uid.clone().unwrap_or_default(),
            labels: namespace.metadata.labels.clone().unwrap_or_default(),
        };
        if self.known.get(&name) == Some(&facts) {
            return false;
        }
        self.known.insert(name, facts);
        true
    }

    /// Forgets a namespace. Returns whether it was known.
    pub fn remove(&mut self, name: &str) -> bool {
        self.known.remove(name).is_some()
    }

    /// A namespace by name.
    pub fn get(&self, name: &str) -> Option<&NamespaceFacts> {
        self.known.get(name)
    }

    /// The names of all.
    pub fn names(&self) -> BTreeSet<String> {
        self.known.keys().cloned().collect()
    }

    /// Whether the namespace with this name and uid has ended. Nothing has before all are known.
    pub fn has_ended(&self, name: &str, uid: &str) -> bool {
        self.listed && self.get(name).is_none_or(|known| known.uid != uid)
    }
}
