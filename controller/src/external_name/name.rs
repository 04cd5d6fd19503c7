//! Whether the text of `spec.externalName` is a name that pods can use, and if not, why and what to write instead.
//!
//! The API server asks for little: lower-case letters, digits, hyphens and dots (k8s.io/kubernetes
//! pkg/apis/core/validation, `validateService`). An IP address passes, and so does a label that no DNS message
//! can hold; what pods then see is a name that does not exist. Both kinds of mistakes are told apart here
//! ([`Fault::is_refused`]), so that one table serves the conditions of a Service, which tell only of what has
//! passed, and a check of manifests, which tells of all.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::pasted;

/// The longest name in its usual text without the dot at its end: RFC 1035 section 2.3.4 gives 255 octets, of
/// which the length of the first label and the root take two. The API server's limit is the same.
pub const LONGEST_NAME: usize = 253;
/// The longest label (RFC 1035 section 2.3.4). The API server does not ask for it.
pub const LONGEST_LABEL: usize = 63;

/// An absolute name in DNS: lower case, without the dot at its end, of labels that a DNS message can hold.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(Arc<str>);

impl DnsName {
    /// The name as text, without the dot at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its labels, the nearest first.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }

    /// Whether it is `domain` or lies below it.
    pub fn is_within(&self, domain: &Self) -> bool {
        self.below(domain).is_some()
    }

    /// What stands before `domain`, without the dot between; empty if it is `domain` itself.
    pub(super) fn below(&self, domain: &Self) -> Option<&str> {
        let rest = self.0.strip_suffix(domain.as_str())?;
        if rest.is_empty() { Some("") } else { rest.strip_suffix('.') }
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What is wrong with a name. The name of the variant is the reason of the condition `landfall.dev/NameValid`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Flaw {
    // What the API server refuses.
    #[error("there is no name")]
    Empty,
    #[error("it is written as a link, as Markdown does")]
    Markdown,
    #[error("it is a URL, or a part of one, and not a name alone")]
    Url,
    #[error("it is more than one name, and an ExternalName leads to one")]
    SeveralNames,
    #[error("it has a space in it")]
    Space,
    #[error("it names a port, which belongs to spec.ports and to the client's own settings")]
    Port,
    #[error("it is a wildcard, and a CNAME leads to one name")]
    Wildcard,
    #[error(
        "it has an underscore, which no host name has and the API server refuses: have another name made for it in its zone"
    )]
    Underscore,
    #[error("it has letters beyond ASCII, which stand in DNS in their own spelling (IDNA)")]
    NotAscii,
    #[error(
        "it has upper-case letters, which DNS does not tell from lower-case ones and the API server refuses"
    )]
    UpperCase,
    #[error("it has a dot too many")]
    EmptyLabel,
    #[error("'{0}' begins or ends with a hyphen")]
    Hyphen(String),
    #[error("it has the character {0:?}, which no host name has")]
    Character(char),
    #[error("it has {0} characters, and a name has {LONGEST_NAME} at most")]
    NameTooLong(usize),

    // What the API server lets pass, but for addresses that are not written as four numbers.
    #[error("it is an IP address, and a CNAME leads to a name, so pods are told that there is no such name")]
    IpAddress(IpAddr),
    #[error(
        "'{0}' at its end is a number, as no top-level domain is: programs take such a name for an IPv4 address or refuse it"
    )]
    NumericTopLevelDomain(String),
    #[error("'{0}' has {len} characters, and a label has {LONGEST_LABEL} at most", len = .0.len())]
    LabelTooLong(String),
    #[error(
        "it is a single label, and the search domains of a pod do not apply to what a CNAME leads to, so it is taken for a top-level domain"
    )]
    SingleLabel,
    #[error("'{0}' is set apart for other uses (RFC 6761, RFC 7686) and leads no pod to another host")]
    SpecialUseName(&'static str),
    #[error("it is a part of a name of this cluster, and what a CNAME leads to must be whole")]
    IncompleteClusterName,
    #[error("it is the Service's own name")]
    SelfReference,
    #[error("it leads in a circle: {0}")]
    Circle(String),
}

impl Flaw {
    /// CamelCase, one word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Markdown => "Markdown",
            Self::Url => "Url",
            Self::SeveralNames => "SeveralNames",
            Self::Space => "Space",
            Self::Port => "Port",
            Self::Wildcard => "Wildcard",
            Self::Underscore => "Underscore",
            Self::NotAscii => "NotAscii",
            Self::UpperCase => "UpperCase",
            Self::EmptyLabel => "EmptyLabel",
            Self::Hyphen(_) => "Hyphen",
            Self::Character(_) => "Character",
            Self::NameTooLong(_) => "NameTooLong",
            Self::IpAddress(_) => "IpAddress",
            Self::NumericTopLevelDomain(_) => "NumericTopLevelDomain",
            Self::LabelTooLong(_) => "LabelTooLong",
            Self::SingleLabel => "SingleLabel",
            Self::SpecialUseName(_) => "SpecialUseName",
            Self::IncompleteClusterName => "IncompleteClusterName",
            Self::SelfReference => "SelfReference",
            Self::Circle(_) => "Circle",
        }
    }

    /// Whether the name can be asked for in DNS all the same. If so its addresses are looked for: somebody may
    /// serve it.
    pub fn can_be_asked(&self) -> bool {
        matches!(self, Self::SingleLabel)
    }
}

/// Why a text is no good name, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct Fault {
    /// What is wrong.
    pub flaw: Flaw,
    /// Whether the API server refuses a Service with this text, so that no condition can tell of it.
    pub is_refused: bool,
    /// A text to write instead, where one can be guessed.
    pub instead: Option<String>,
}

impl Fault {
    fn text(&self) -> String {
        let flaw = &self.flaw;
        match (&self.flaw, &self.instead) {
            (Flaw::IpAddress(address), _) => format!(
                "{flaw}: for {address} take a Service without a selector, and an EndpointSlice that holds the address"
            ),
            (_, Some(instead)) => format!("{flaw}: write {instead}"),
            (_, None) => flaw.to_string(),
        }
    }
}

/// Reads the text of `spec.externalName` by itself. What it means beside the Services of a cluster is judged by
/// [`super::cluster`].
///
/// # Errors
/// It is not a name that pods could use.
pub fn read(text: &str) -> Result<DnsName, Fault> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if !is_subdomain(name) {
        let flaw = pasted::flaw(text);
        return Err(Fault { instead: pasted::instead(text, &flaw), flaw, is_refused: true });
    }
    match flaw_of(name) {
        None => Ok(DnsName(name.into())),
        Some(flaw) => Err(Fault { flaw, is_refused: false, instead: None }),
    }
}

/// Reads a name that has one label, or another flaw that does not keep DNS from being asked.
pub fn read_leniently(text: &str) -> Result<DnsName, Fault> {
    read(text).or_else(|fault| match fault.flaw.can_be_asked() {
        true => Ok(DnsName(text.strip_suffix('.').unwrap_or(text).into())),
        false => Err(fault),
    })
}

/// Whether [`read`] takes the text as it is.
pub(super) fn is_good(name: &str) -> bool {
    is_subdomain(name) && flaw_of(name).is_none()
}

/// What the API server asks of `spec.externalName` once the dot at its end is taken off: a lower-case RFC 1123
/// subdomain (k8s.io/apimachinery pkg/util/validation, `IsDNS1123Subdomain`). It does not ask how long labels are.
fn is_subdomain(name: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= LONGEST_NAME && name.split('.').all(is_label)
}

/// What is wrong with a name that the API server accepts.
fn flaw_of(name: &str) -> Option<Flaw> {
    if let Some(label) = name.split('.').find(|label| label.len() > LONGEST_LABEL) {
        return Some(Flaw::LabelTooLong(label.to_owned()));
    }
    if let Some(address) = ipv4(name) {
        return Some(Flaw::IpAddress(address.into()));
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    if is_number(last) {
        return Some(Flaw::NumericTopLevelDomain(last.to_owned()));
    }
    // RFC 6761 section 6.3 and 6.4, RFC 7686. `test`, `example` and `local` are served in many a network.
    if let Some(special) = ["localhost", "invalid", "onion"].into_iter().find(|special| *special == last) {
        return Some(Flaw::SpecialUseName(special));
    }
    if last == "svc" {
        return Some(Flaw::IncompleteClusterName);
    }
    (last == name).then_some(Flaw::SingleLabel)
}

/// Whether a label is what programs take for a number: digits, or hexadecimal ones after `0x` (URL Standard, "ends
/// in a number").
fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x");
    label.bytes().all(|byte| byte.is_ascii_digit())
        || hexadecimal.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The address that `inet_aton` reads, of one to four numbers, decimal, octal or hexadecimal.
pub(super) fn ipv4(text: &str) -> Option<Ipv4Addr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let numbers: Option<Vec<u32>> = text.split('.').map(number).collect();
    let numbers = numbers.filter(|numbers| (1..=4).contains(&numbers.len()))?;
    let (last, first) = numbers.split_last()?;
    let room = 8 * (4 - u32::try_from(first.len()).ok()?);
    if first.iter().any(|number| *number > 255) || room < 32 && *last >= 1 << room {
        return None;
    }
    let high = first.iter().fold(0_u32, |all, number| all << 8 | number);
    Some(Ipv4Addr::from(if room < 32 { high << room | last } else { *last }))
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some("") => Some(0),
        Some(rest) => u32::from_str_radix(rest, 16).ok(),
        None if text.starts_with('+') => None,
        None if text.len() > 1 && text.starts_with('0') => u32::from_str_radix(text, 8).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
#[path = "name_tests.rs"]
mod tests;
