//! What a Service of type ExternalName is told: its conditions and Events.

use k8s_openapi::api::core::v1::Service;
use landfall_crds::names::conditions::{NAME_VALID, RESOLVED};

use super::answer::Absence;
use super::cluster::{MOST_STEPS, Route, Way};
use super::name::Fault;
use super::resolution::{Standing, State};
use crate::conditions::{Wanted, find};
use crate::effects::Note;
use crate::granting::named;
use crate::granting::wait::some_of;
use crate::status::conditions_of;
use crate::teller::note;

/// The condition types on a Service that are ours to say of its external name.
pub const OURS: [&str; 2] = [NAME_VALID, RESOLVED];

/// So many addresses are named.
const MOST_ADDRESSES: usize = 4;

/// Reasons of `landfall.dev/NameValid` and `landfall.dev/Resolved`, beside the names of flaws and failures.
pub mod reasons {
    /// The name is good.
    pub const VALID: &str = "Valid";
    /// The name is one of the cluster; or it leads to a Service there.
    pub const IN_CLUSTER_NAME: &str = "InClusterName";
    /// DNS knows addresses.
    pub const RESOLVED: &str = "Resolved";
    /// DNS has not answered yet.
    pub const RESOLVING: &str = "Resolving";
    /// DNS says that there is no such name.
    pub const NO_SUCH_NAME: &str = "NoSuchName";
    /// DNS says that the name has no address.
    pub const NO_ADDRESS: &str = "NoAddress";
    /// The name is no good.
    pub const NAME_INVALID: &str = "NameInvalid";
    /// It leads to a Service that is not there.
    pub const SERVICE_NOT_FOUND: &str = "ServiceNotFound";
    /// It leads to an ExternalName Service whose name is no good.
    pub const LEADS_NOWHERE: &str = "LeadsNowhere";
    /// It leads through too many Services.
    pub const TOO_MANY_STEPS: &str = "TooManySteps";

    /// All of `landfall.dev/NameValid`: the flaws among them are those that the API server lets pass.
    pub const OF_NAME_VALID: [&str; 10] = [
        VALID,
        IN_CLUSTER_NAME,
        "IpAddress",
        "NumericTopLevelDomain",
        "LabelTooLong",
        "SingleLabel",
        "SpecialUseName",
        "IncompleteClusterName",
        "SelfReference",
        "Circle",
    ];

    /// All of `landfall.dev/Resolved`.
    pub const OF_RESOLVED: [&str; 16] = [
        RESOLVED,
        IN_CLUSTER_NAME,
        RESOLVING,
        NO_SUCH_NAME,
        NO_ADDRESS,
        NAME_INVALID,
        SERVICE_NOT_FOUND,
        LEADS_NOWHERE,
        TOO_MANY_STEPS,
        "Timeout",
        "Unreachable",
        "ServerFailure",
        "Refused",
        "Malformed",
        "ChainTooLong",
        "ChainLoops",
    ];
}

/// `landfall.dev/NameValid`.
pub fn name_valid(text: &str, way: &Way) -> Wanted {
    let fault = match &way.route {
        Route::Nowhere(fault) => Some(fault),
        _ => way.fault.as_ref(),
    };
    match fault {
        Some(fault) => Wanted::new(NAME_VALID, false, fault.flaw.reason(), about(text, fault)),
        None if way.is_inside => {
            let message = format!("{text} is a name of this cluster");
            Wanted::new(NAME_VALID, true, reasons::IN_CLUSTER_NAME, message)
        }
        None => Wanted::new(
            NAME_VALID,
            true,
            reasons::VALID,
            format!("{text} is a name that DNS can be asked for"),
        ),
    }
}

fn about(text: &str, fault: &Fault) -> String {
    format!("{text} is no name that pods can use: {fault}")
}

/// `landfall.dev/Resolved` of a Service whose route is known without DNS.
pub fn without_dns(text: &str, way: &Way) -> Option<Wanted> {
    let wanted = |is, reason, message| Some(Wanted::new(RESOLVED, is, reason, message));
    match &way.route {
        Route::Dns(_) => None,
        Route::Service(key) => {
            wanted(true, reasons::IN_CLUSTER_NAME, format!("{text} is Service {}", named(key)))
        }
        Route::Missing(key) => wanted(
            false,
            reasons::SERVICE_NOT_FOUND,
            format!(
                "{text} leads to Service {}, which does not exist: correct the name, or create it",
                named(key)
            ),
        ),
        Route::Nowhere(_) => {
            wanted(false, reasons::NAME_INVALID, format!("DNS is not asked for {text}: see {NAME_VALID}"))
        }
        Route::NowhereBy(key, fault) => wanted(
            false,
            reasons::LEADS_NOWHERE,
            format!("{text} leads to Service {}, whose own name is no good: {fault}", named(key)),
        ),
        Route::TooLong => wanted(
            false,
            reasons::TOO_MANY_STEPS,
            format!(
                "{text} leads through more than {MOST_STEPS} Services of type ExternalName: shorten the way"
            ),
        ),
    }
}

/// `landfall.dev/Resolved` by what DNS says of `name`, to which `text` leads. Nothing while that is in doubt: what
/// was said before stays, and where nothing was, [`resolving`] comes.
pub fn by_dns(text: &str, name: &str, state: &State, was_resolved: bool) -> Option<Wanted> {
    let last = match &state.addresses[..] {
        [] => String::new(),
        addresses => format!("; the last answer was {}", some_of(addresses, MOST_ADDRESSES)),
    };
    // Where a name leads through other Services, DNS is asked for what stands at the end of the way.
    let asked = if text.trim_end_matches('.') == name { String::new() } else { format!(" (by {name})") };
    match state.standing {
        Standing::Unknown => None,
        Standing::Resolved => {
            let message = format!("{text}{asked} has {}", some_of(&state.addresses, MOST_ADDRESSES));
            Some(Wanted::new(RESOLVED, true, reasons::RESOLVED, message))
        }
        Standing::Absent { confirmed, .. } if was_resolved && !confirmed => None,
        Standing::Absent { absence: Absence::NoSuchName, .. } => {
            let message = format!(
                "DNS says that {text}{asked} does not exist: correct the name, or have it created in its zone{last}"
            );
            Some(Wanted::new(RESOLVED, false, reasons::NO_SUCH_NAME, message))
        }
        Standing::Absent { absence: Absence::NoAddress, .. } => {
            let message =
                format!("{text}{asked} exists in DNS but has neither an IPv4 nor an IPv6 address{last}");
            Some(Wanted::new(RESOLVED, false, reasons::NO_ADDRESS, message))
        }
        Standing::Failing { confirmed: false, .. } => None,
        Standing::Failing { failure, .. } => {
            let message = format!("{failure}, asked for {text}{asked}: look at the cluster DNS{last}");
            Some(Wanted::new(RESOLVED, false, failure.reason(), message))
        }
    }
}

/// `landfall.dev/Resolved` while DNS has not answered yet.
pub fn resolving(text: &str) -> Wanted {
    let message = format!("no answer yet for {text}");
    Wanted { status: "Unknown", ..Wanted::new(RESOLVED, false, reasons::RESOLVING, message) }
}

/// What to tell when the conditions change from what the Service says to what is wanted: one Event for each
/// condition that changes, save that an invalid name is told once.
pub fn notes(service: &Service, wanted: &[Wanted]) -> Vec<Note> {
    let known = conditions_of(service);
    let told = |wanted: &&Wanted| {
        let before = find(known, wanted.type_);
        let is_news =
            before.is_none_or(|before| before.status != wanted.status || before.reason != wanted.reason);
        let is_worth_it = match wanted.status {
            "False" => wanted.reason != reasons::NAME_INVALID,
            // That something is well is news only after it was not.
            "True" => before.is_some_and(|before| before.status == "False"),
            _ => false,
        };
        is_news && is_worth_it
    };
    wanted.iter().filter(told).map(|wanted| note(service, wanted, wanted.status == "False")).collect()
}
