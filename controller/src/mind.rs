//! The one mind of the controller, as its drivers and the tests see it: events and time in, effects out.
//!
//! It is level-triggered: every event updates a picture of the world, and for each Service that the
//! event touches the mind asks what is still missing. It wants at most one effect per object at a time
//! and takes the next step when it sees the outcome of the last, so it can be stopped between any two
//! writes and started again, or run twice, without harm.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector::ObjectRef;
use landfall_crds::{IPPool, Speaker, VirtualIP};

use crate::effects::{Effect, Outcome};

/// One change of one object.
#[derive(Clone, Debug)]
pub enum Change<K: Clone> {
    /// The object is new or changed.
    Applied(Arc<K>),
    /// The object is gone; this is its last known state.
    Deleted(Arc<K>),
    /// A complete list: what is missing here is gone.
    Listed(Vec<Arc<K>>),
}

/// What happens to a controller.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Event {
    Service(Change<Service>),
    Pool(Change<IPPool>),
    VirtualIp(Change<VirtualIP>),
    Speaker(Change<Speaker>),
    Node(Change<Node>),
    EndpointSlice(Change<EndpointSlice>),
    /// The writer has tried an effect. A success carries the object as the API server now holds it,
    /// so that the next step need not wait for the watch.
    Done {
        effect: Effect,
        outcome: Outcome,
    },
    /// This process has become the one that writes, or is it no more. Effects are only wanted while
    /// it is.
    Leading(bool),
    /// The time that `next_deadline` named has come.
    Deadline,
}

/// Names a Service.
pub type ServiceRef = ObjectRef<Service>;

/// The time, as the drivers read it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines and pacing; never goes back.
    pub monotonic: Instant,
    /// For what people read, and for epochs; may jump.
    pub wall: Timestamp,
}
