//! What stands behind load balancers where people see to it by hand: Services without a selector, and
//! EndpointSlices of several makers.
//!
//! | Room | Mind or driver | What |
//! |---|---|---|
//! | [`slices`] | picture | who made which EndpointSlice, and what matters of what is in it |
//! | [`judge`] | pure | what is wrong with what stands behind a Service, and what to do about it |
//! | [`mind`] | mind | when it is said in the Service's conditions |

pub mod judge;
pub mod mind;
pub mod slices;
