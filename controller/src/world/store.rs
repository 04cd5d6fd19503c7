//! The newest known state of each object of one kind.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher, Hash};
use std::sync::Arc;

use kube::Resource;

/// A map for many entries that are looked up more often than gone through. Its order is of no meaning,
/// but the same in every run.
pub(crate) type Index<Key, Value> = HashMap<Key, Value, BuildHasherDefault<DefaultHasher>>;

/// An object and how well it is known.
#[derive(Debug)]
pub(crate) struct Known<K> {
    /// The newest state that has been seen.
    pub(crate) object: Arc<K>,
    /// The mind's step in which this state was learned.
    pub(crate) learned: u64,
    /// The step in which the latest answer from the API server itself was asked for; a watch does not
    /// count, since it may lag behind. This state is that answer or a later one.
    pub(crate) live: u64,
}

/// What became of a state that was offered to a store.
#[derive(Debug)]
pub(crate) enum Offered<K> {
    /// It is not newer than what is known.
    Old,
    /// It is the API server's own answer, and older than what was known when it was asked: the API server holds an
    /// older state than it did, as after a restore of etcd.
    WentBack,
    /// It is the newest now, after this one.
    New(Option<Arc<K>>),
}

/// All objects of one kind, by key.
#[derive(Debug)]
pub(crate) struct Store<Key, K> {
    known: Index<Key, Known<K>>,
    /// Versions of objects that the API server told us are gone: a watch that still brings them, or
    /// older ones, lags behind.
    floors: Index<Key, u64>,
    /// Whether a complete list has been seen.
    pub(crate) listed: bool,
}

impl<Key, K> Default for Store<Key, K> {
    fn default() -> Self {
        Self { known: Index::default(), floors: Index::default(), listed: false }
    }
}

/// The resourceVersion as a number. The API calls it opaque but orders it since Kubernetes 1.35
/// (KEP-5504) and always has for objects in etcd; where it does not parse nothing is called old.
pub(crate) fn version<K: Resource>(object: &K) -> Option<u64> {
    object.meta().resource_version.as_ref()?.parse().ok()
}

impl<Key: Ord + Hash + Clone, K: Resource> Store<Key, K> {
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<K>> {
        self.known.get(key).map(|known| &known.object)
    }

    /// As `get`, and the key as it is kept here.
    pub(crate) fn get_key_value(&self, key: &Key) -> Option<(&Key, &Arc<K>)> {
        self.known.get_key_value(key).map(|(key, known)| (key, &known.object))
    }

    pub(crate) fn known(&self, key: &Key) -> Option<&Known<K>> {
        self.known.get(key)
    }

    /// All objects, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<K>)> {
        self.known.iter().map(|(key, known)| (key, &known.object))
    }

    /// All keys, in no order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.known.keys()
    }

    /// Takes in a state that was seen in `step`; `live` is the step in which it was asked for, where it
    /// is the API server's own answer.
    pub(crate) fn offer(&mut self, key: &Key, object: Arc<K>, step: u64, live: Option<u64>) -> Offered<K> {
        let offered = version(&*object);
        if let (Some(offered), Some(floor)) = (offered, self.floors.get(key))
            && offered <= *floor
        {
            return Offered::Old;
        }
        self.floors.remove(key);
        let Some(known) = self.known.get_mut(key) else {
            let live = live.unwrap_or(0);
            self.known.insert(key.clone(), Known { object, learned: step, live });
            return Offered::New(None);
        };
        known.live = known.live.max(live.unwrap_or(0));
        let is_old = match (version(&*known.object), offered) {
            (Some(known), Some(offered)) => offered <= known,
            _ => known.object.meta().resource_version == object.meta().resource_version,
        };
        if is_old {
            let was_known_before = live.is_some_and(|asked| known.learned < asked);
            let is_older =
                version(&*known.object).zip(offered).is_some_and(|(known, offered)| offered < known);
            return if was_known_before && is_older { Offered::WentBack } else { Offered::Old };
        }
        known.learned = step;
        Offered::New(Some(std::mem::replace(&mut known.object, object)))
    }

    /// Forgets an object that a watch says is gone, unless a newer one has taken its place.
    pub(crate) fn deleted(&mut self, key: &Key, last: &K) -> Option<Arc<K>> {
        self.floors.remove(key);
        let known = self.known.get(key)?;
        if let (Some(known), Some(deleted)) = (version(&*known.object), version(last))
            && deleted < known
        {
            return None;
        }
        self.known.remove(key).map(|known| known.object)
    }

    /// Forgets an object that the API server itself says is gone: the one with this uid, or where no
    /// uid was asked for, whatever was known in the step when it was asked. A successor that a watch
    /// has brought meanwhile stays.
    pub(crate) fn gone(&mut self, key: &Key, uid: Option<&str>, asked: u64) -> Option<Arc<K>> {
        let known = self.known.get(key)?;
        let is_meant = match uid {
            Some(uid) => known.object.meta().uid.as_deref() == Some(uid),
            None => known.learned <= asked,
        };
        if !is_meant {
            return None;
        }
        if let Some(version) = version(&*known.object) {
            self.floors.insert(key.clone(), version);
        }
        self.known.remove(key).map(|known| known.object)
    }

    /// The keys that a complete list does not name, in their order.
    pub(crate) fn missing_from(&mut self, listed: &BTreeSet<Key>) -> BTreeSet<Key> {
        self.listed = true;
        self.floors.clear();
        self.known.reserve(listed.len().saturating_sub(self.known.len()));
        self.known.keys().filter(|key| !listed.contains(*key)).cloned().collect()
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        self.known.remove(key).map(|known| known.object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;

    fn service(version: &str) -> Arc<Service> {
        let mut service = Service::default();
        service.metadata.resource_version = Some(version.into());
        Arc::new(service)
    }

    #[test]
    fn older_states_are_ignored_as_numbers_not_as_texts() {
        let mut store = Store::default();
        assert!(matches!(store.offer(&1, service("99"), 1, None), Offered::New(None)));
        assert!(matches!(store.offer(&1, service("100"), 2, Some(1)), Offered::New(Some(_))));
        assert!(matches!(store.offer(&1, service("99"), 3, None), Offered::Old));
        let known = store.known(&1).unwrap();
        assert_eq!((known.learned, known.live), (2, 1));
    }

    #[test]
    fn an_answer_that_a_watch_has_overtaken_still_confirms() {
        let mut store = Store::default();
        store.offer(&1, service("12"), 1, None);
        assert!(matches!(store.offer(&1, service("11"), 2, Some(1)), Offered::Old));
        assert_eq!(store.known(&1).unwrap().live, 1);
    }

    #[test]
    fn an_answer_older_than_what_was_known_when_it_was_asked_says_that_the_api_server_went_back() {
        let mut store = Store::default();
        store.offer(&1, service("12"), 1, None);
        assert!(matches!(store.offer(&1, service("11"), 4, Some(2)), Offered::WentBack));
        assert!(matches!(store.offer(&1, service("12"), 5, Some(2)), Offered::Old));
        store.offer(&1, service("15"), 6, None);
        assert!(matches!(store.offer(&1, service("14"), 7, Some(5)), Offered::Old), "overtaken by a watch");
    }

    #[test]
    fn what_is_gone_does_not_come_back_from_a_watch_that_lags() {
        let mut store = Store::default();
        store.offer(&1, service("10"), 1, None);
        assert!(store.gone(&1, Some("another"), 1).is_none());
        assert!(store.gone(&1, None, 0).is_none(), "it was learned after the question");
        assert!(store.gone(&1, None, 1).is_some());
        assert!(matches!(store.offer(&1, service("10"), 2, None), Offered::Old));
        assert!(matches!(store.offer(&1, service("11"), 3, None), Offered::New(None)));
    }

    #[test]
    fn the_deletion_of_an_older_object_leaves_its_successor() {
        let mut store = Store::default();
        store.offer(&1, service("20"), 1, None);
        assert!(store.deleted(&1, &service("19")).is_none());
        assert!(store.deleted(&1, &service("21")).is_some());
    }

    #[test]
    fn versions_that_are_no_numbers_are_never_called_old() {
        let mut store = Store::default();
        store.offer(&1, service("b"), 1, None);
        assert!(matches!(store.offer(&1, service("a"), 2, None), Offered::New(Some(_))));
    }
}
