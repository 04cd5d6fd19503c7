//! Exposing: an ExternalName Service gets a companion of type LoadBalancer, whose endpoints are what its name leads to.
//!
//! It runs as a process of its own, with an account of its own (`landfall-controller expose`, `deploy/expose/`): to
//! write EndpointSlices is a right that a cluster gives away with care (CVE-2021-25740).
//!
//! | Room | Mind or driver | What |
//! |---|---|---|
//! | [`request`] | pure | what an ExternalName Service asks for by its annotations |
//! | [`targets`] | pure | which addresses it may lead to |
//! | [`companion`] | pure | the companion and its EndpointSlices as they should be, and whether they are so |
//! | [`surroundings`] | picture | pools, and the addresses that are the cluster's own |
//! | [`mind`] | mind | what each companion still lacks, and what its owner is told |
//! | [`deeds`] | values + driver | what may be done to companions and slices, and doing it |

pub mod companion;
pub mod deeds;
pub mod mind;
pub mod request;
pub mod surroundings;
pub mod targets;
