//! What may be done to the API, as values. The writer is the only one that does it.
//!
//! Every effect carries what makes it safe to be applied late or twice: the uid and the
//! resourceVersion that it was decided on, or the name that the API server keeps unique.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use landfall_crds::{
    IPPool, IPPoolStatus, ServiceGuard, ServiceGuardSpec, VirtualIP, VirtualIPSpec, VirtualIPStatus,
};

/// Which object, exactly as it was when the effect was decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Exactly {
    /// `metadata.namespace`; empty for cluster-scoped kinds.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`. Any change since makes the effect fail with
    /// [`Refusal::Conflict`].
    pub resource_version: String,
}

/// One thing to do to the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Adds both of our finalizers to a Service.
    AddFinalizers {
        /// The Service.
        service: Exactly,
    },
    /// Removes both of our finalizers from a Service.
    RemoveFinalizers {
        /// The Service.
        service: Exactly,
    },
    /// Creates a VirtualIP with our finalizer; its name makes the API server refuse a second grant.
    CreateVirtualIp {
        /// `metadata.name`.
        name: String,
        /// `spec`.
        spec: Box<VirtualIPSpec>,
    },
    /// Replaces a VirtualIP's spec. One with claims also gets our finalizer where it is missing; one
    /// without keeps what it has.
    UpdateVirtualIp {
        /// The VirtualIP.
        virtual_ip: Exactly,
        /// The new spec.
        spec: Box<VirtualIPSpec>,
    },
    /// Writes the controller's part of a VirtualIP's status (`lastHolders`), by server-side apply.
    SetVirtualIpStatus {
        /// The VirtualIP.
        virtual_ip: Exactly,
        /// The controller's part.
        status: Box<VirtualIPStatus>,
    },
    /// Takes our finalizer off a VirtualIP and deletes it if it is not being deleted already.
    DeleteVirtualIp {
        /// The VirtualIP.
        virtual_ip: Exactly,
    },
    /// Takes our finalizer off a VirtualIP that stays, because somebody has reserved it.
    UnclaimVirtualIp {
        /// The VirtualIP.
        virtual_ip: Exactly,
    },
    /// Creates a ServiceGuard; its name makes the API server refuse a second one of the same Service.
    CreateServiceGuard {
        /// `metadata.name`.
        name: String,
        /// `spec`.
        spec: Box<ServiceGuardSpec>,
    },
    /// Replaces a ServiceGuard's spec.
    UpdateServiceGuard {
        /// The ServiceGuard.
        guard: Exactly,
        /// The new spec.
        spec: Box<ServiceGuardSpec>,
    },
    /// Deletes a ServiceGuard.
    DeleteServiceGuard {
        /// The ServiceGuard.
        guard: Exactly,
    },
    /// Replaces `status.loadBalancer.ingress` of a Service and sets our conditions, in one write: a
    /// grant then costs one write of the Service's status, and addresses of ours never stand there
    /// without the condition that says so.
    SetIngress {
        /// The Service.
        service: Exactly,
        /// The whole list; empty takes all away.
        ingress: Vec<LoadBalancerIngress>,
        /// As in [`Effect::SetConditions`].
        conditions: Vec<Condition>,
    },
    /// Sets our conditions in a Service's status, merged by type: those given are the whole of ours, so
    /// an empty list takes ours away and leaves those of others.
    SetConditions {
        /// The Service.
        service: Exactly,
        /// The conditions, times included (a condition that did not change keeps its time).
        conditions: Vec<Condition>,
    },
    /// Writes a pool's status.
    SetPoolStatus {
        /// The pool.
        pool: Exactly,
        /// The whole status.
        status: Box<IPPoolStatus>,
    },
    /// Asks the API server for a Service anew, past every cache.
    GetService {
        /// `metadata.namespace`.
        namespace: String,
        /// `metadata.name`.
        name: String,
    },
    /// Asks the API server for a VirtualIP anew, past every cache.
    GetVirtualIp {
        /// `metadata.name`.
        name: String,
    },
    /// Tells people about an object.
    Publish(Note),
}

/// An Event to publish (events.k8s.io/v1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Note {
    /// `Service`, `IPPool` or `VirtualIP`.
    pub kind: &'static str,
    /// Namespace of the object; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// uid of the object.
    pub uid: String,
    /// Whether it is a warning.
    pub warning: bool,
    /// CamelCase, one word; the cloud providers' reasons where they have one.
    pub reason: &'static str,
    /// What happened and what to do, one or two sentences.
    pub message: String,
    /// It tells how things stand rather than what has happened, so that a controller that starts anew would tell
    /// it again: that is the same Event.
    pub standing: bool,
}

/// What became of an effect.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The Service as the API server now holds it.
    Service(Arc<Service>),
    /// The VirtualIP as the API server now holds it.
    VirtualIp(Arc<VirtualIP>),
    /// The ServiceGuard as the API server now holds it.
    ServiceGuard(Arc<ServiceGuard>),
    /// The pool as the API server now holds it.
    Pool(Arc<IPPool>),
    /// Done, and the object is gone or was gone already.
    Gone,
    /// Done; there is no object to tell of.
    Done,
    /// Not done.
    Refused(Refusal),
}

/// Why an effect was not applied. The variant's name is a metric label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The object has changed since (409 Conflict): look again.
    #[error("the object has changed since")]
    Conflict,
    /// The name is taken (409 AlreadyExists).
    #[error("the name is taken")]
    AlreadyExists,
    /// The API server says that the object can never be accepted (422, 403, 400).
    #[error("the API server refuses: {0}")]
    Invalid(String),
    /// The API server cannot be reached, is overloaded, or does not answer in time: try again.
    #[error("the API server is not available: {0}")]
    Unavailable(String),
    /// The API server has too much to do, and says when to try again.
    #[error("the API server is busy for {} s: {message}", after.as_secs())]
    Busy {
        /// What it says.
        message: String,
        /// How long to wait.
        after: Duration,
    },
    /// This process may not write now, because it does not hold the Lease.
    #[error("this process is not the leader")]
    NotLeading,
}
