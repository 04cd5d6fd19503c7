//! What a person meant who pasted more than a name: the flaw that explains best why the API server refuses a
//! text, and the name in it.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use super::name::{Flaw, LONGEST_NAME, ipv4, is_good};

/// What is wrong with a text that the API server refuses.
pub(super) fn flaw(text: &str) -> Flaw {
    let flaw = flaw_of_text(text);
    let wraps = matches!(flaw, Flaw::Markdown | Flaw::Url | Flaw::Port | Flaw::Space);
    // What an address is wrapped in is the lesser mistake.
    let address = wraps.then(|| address(text.trim())).flatten();
    address.map_or(flaw, Flaw::IpAddress)
}

fn flaw_of_text(text: &str) -> Flaw {
    let trimmed = text.trim();
    if trimmed.trim_matches('.').is_empty() {
        return if trimmed.len() > 1 { Flaw::EmptyLabel } else { Flaw::Empty };
    }
    if let Some(address) = ipv6(trimmed) {
        return Flaw::IpAddress(address.into());
    }
    if trimmed.contains("](") || trimmed.starts_with('[') || trimmed.starts_with('<') {
        return Flaw::Markdown;
    }
    if authority(trimmed).contains([',', ';']) || authority(trimmed).split_whitespace().count() > 1 {
        return Flaw::SeveralNames;
    }
    if trimmed.contains("://") || trimmed.starts_with("//") || trimmed.starts_with("jdbc:") {
        return Flaw::Url;
    }
    if text.contains(char::is_whitespace) {
        return Flaw::Space;
    }
    if trimmed.contains(['/', '@', '?', '#']) {
        return Flaw::Url;
    }
    if let Some((_, port)) = trimmed.rsplit_once(':')
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Flaw::Port;
    }
    let first_strange = |character: &char| !character.is_ascii_alphanumeric() && !"-.*_".contains(*character);
    match trimmed.chars().find(first_strange) {
        Some(character) if character.is_ascii() || character.is_control() => {
            return Flaw::Character(character);
        }
        Some(_) => return Flaw::NotAscii,
        None => {}
    }
    if trimmed.contains('*') {
        return Flaw::Wildcard;
    }
    if trimmed.contains('_') {
        return Flaw::Underscore;
    }
    let name = trimmed.strip_suffix('.').unwrap_or(trimmed);
    if name.split('.').any(str::is_empty) {
        return Flaw::EmptyLabel;
    }
    if let Some(label) = name.split('.').find(|label| label.starts_with('-') || label.ends_with('-')) {
        return Flaw::Hyphen(label.to_owned());
    }
    if name.len() > LONGEST_NAME {
        return Flaw::NameTooLong(name.len());
    }
    Flaw::UpperCase
}

/// The name in a text with this flaw, if there is one and it is good.
pub(super) fn instead(text: &str, flaw: &Flaw) -> Option<String> {
    if matches!(flaw, Flaw::Wildcard | Flaw::IpAddress(_) | Flaw::SeveralNames) {
        return None;
    }
    let host = host(text.trim());
    let labels = host.split('.').filter(|label| !label.is_empty()).collect::<Vec<_>>();
    let ascii = idna::domain_to_ascii(&labels.join(".")).ok()?;
    is_good(&ascii).then_some(ascii)
}

/// The host in what may be a link, a URL, or a part of one.
fn host(text: &str) -> Cow<'_, str> {
    let text = authority(link(text));
    text.split_once(':').map_or(text, |(host, _)| host).split_whitespace().collect()
}

/// What stands between the scheme and the path of a URL (RFC 3986 section 3.2), without the user and the password.
fn authority(text: &str) -> &str {
    let text = text.strip_prefix("jdbc:").unwrap_or(text);
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let text = text.trim_start_matches('/');
    let text = text.split(['/', '?', '#']).next().unwrap_or(text);
    text.rsplit_once('@').map_or(text, |(_, host)| host)
}

/// The address that stands where a host should.
fn address(text: &str) -> Option<IpAddr> {
    let after_scheme = text.split_once("://").map_or(text, |(_, rest)| rest);
    ipv6(after_scheme).map(IpAddr::from).or_else(|| ipv4(&host(text)).map(IpAddr::from))
}

/// What a link of Markdown leads to: `[text](target)`, `[target]`, `<target>`.
fn link(text: &str) -> &str {
    let target = text.split_once("](").map(|(_, rest)| rest.split([')', ' ']).next().unwrap_or(rest));
    target.unwrap_or(text).trim_matches(['[', ']', '(', ')', '<', '>', '`', '"', '\''])
}

/// An IPv6 address, also in brackets, with a port or a zone.
fn ipv6(text: &str) -> Option<Ipv6Addr> {
    let inner = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(inner, _)| inner),
        None => text,
    };
    let inner = inner.split(['%', '/']).next().unwrap_or(inner);
    inner.parse().ok()
}
