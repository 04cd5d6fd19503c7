//! ExternalName Services: whether the name is good, what it leads to, and what is said of it.
//!
//! | Room | Mind or driver | What |
//! |---|---|---|
//! | [`name`], [`cluster`] | pure | the text of `spec.externalName`: a good name, or why not and what to write instead |
//! | [`answer`] | pure | what DNS says, as values, and how an answer is read |
//! | [`resolution`] | mind | when which name is asked for, and what is held to be true of it meanwhile |
//! | [`lead`] | pure | which name serves while `spec.externalName` changes |
//! | [`mind`], [`telling`] | mind | which Services lead to which name, and what is said of that in their conditions |
//! | [`lint`] | pure | the same check for manifests |
//! | [`resolver`] | driver | asks DNS |
//! | [`options`], [`resolv_conf`], [`driver`], [`metrics`] | | flags, and how all this is set up |

mod pasted;

pub mod answer;
pub mod cluster;
pub mod driver;
pub mod lead;
pub mod lint;
pub mod metrics;
pub mod mind;
pub mod name;
pub mod options;
pub mod resolution;
pub mod resolv_conf;
pub mod resolver;
pub mod telling;
