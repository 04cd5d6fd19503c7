//! Pieces of OpenAPI schema and CEL that several kinds share.
//!
//! The API server itself refuses a bad object, with a sentence that says what is
//! wrong, so configuration is checked even while nothing of ours runs. CEL has no
//! order on addresses; the rules here get by with prefixes, which it does have
//! (k8s.io/apiserver pkg/cel/library/{ip,cidr}.go).

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// Longest text of an address: `xxxx:xxxx:xxxx:xxxx:xxxx:xxxx:255.255.255.255`.
const ADDRESS_LENGTH: u32 = 45;
/// Longest text of a range: two addresses and a dash.
const RANGE_LENGTH: u32 = 2 * ADDRESS_LENGTH + 1;

/// A CEL rule as it stands in `x-kubernetes-validations`.
fn rule(expression: &str, message: &str) -> Value {
    json!({ "rule": expression, "message": message })
}

/// A list of address ranges, each a CIDR or `first-last`, none written twice.
pub(crate) fn ranges(_: &mut SchemaGenerator) -> Schema {
    let mut schema = json_schema!({
        "type": "array",
        "items": range(),
        "maxItems": 64,
        "x-kubernetes-list-type": "set",
    });
    schema.insert("description".into(), "Address ranges, each a CIDR or first-last".into());
    schema
}

/// As [`ranges`], with at least one entry.
pub(crate) fn some_ranges(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = ranges(generator);
    schema.insert("minItems".into(), 1.into());
    schema
}

/// One address range.
fn range() -> Value {
    // Splitting by position keeps the length of the parts known to the API server's cost estimate,
    // which takes the parts that `split()` returns for endless.
    let first = "self.substring(0, self.indexOf('-'))";
    let last = "self.substring(self.indexOf('-') + 1)";
    let is_pair = format!("self.contains('-') && isIP({first}) && isIP({last})");
    let is_run = format!("{is_pair} && ip({first}).family() == ip({last}).family()");
    // Of two different addresses the first is lower if, at the first bit in which they differ, its
    // own bit is 0: then masking it with one bit more leaves the network address as it was. The
    // prefix lengths are cut out of a constant, again because of the cost estimate.
    // Quarters keep that constant, which the estimate counts in full each time, short.
    let within = format!("cidr({first} + (ip({first}).family() == 4 ? '/8' : '/32')).containsIP(ip({last}))");
    let differ_upward = |family: u8, bits: std::ops::Range<u8>| {
        let lengths = (bits.start..=bits.end).map(|n| format!("{:<4}", format!("/{n}"))).collect::<String>();
        let steps = (0..bits.end - bits.start).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let network =
            |n: &str| format!("cidr({first} + '{lengths}'.substring(4 * ({n}), 4 * ({n}) + 4).trim())");
        format!(
            "ip({first}).family() == {family} && [{steps}].exists(n, {at}.containsIP(ip({last})) \
             && !{next}.containsIP(ip({last})) && {at}.masked().ip() == {next}.masked().ip())",
            at = network("n"),
            next = network("n + 1"),
        )
    };
    let ascending = format!(
        "!{within} || ip({first}) == ip({last}) || {} || {} || {} || {}",
        differ_upward(4, 8..32),
        differ_upward(6, 32..64),
        differ_upward(6, 64..96),
        differ_upward(6, 96..128),
    );
    json!({
        "type": "string",
        "maxLength": RANGE_LENGTH,
        "x-kubernetes-validations": [
            rule(
                &format!("isCIDR(self) || ({is_pair})"),
                "must be a CIDR such as 192.168.10.0/24 or a range such as 192.168.10.50-192.168.10.99; a single address is a /32 (IPv6: /128)",
            ),
            rule(
                "!isCIDR(self) || cidr(self) == cidr(self).masked()",
                "the address has bits beyond the prefix length: write the network's own address, or /32 (IPv6: /128) for one address",
            ),
            rule(
                &format!("isCIDR(self) || !({is_pair}) || ({is_run})"),
                "the first and the last address belong to different families: one range holds IPv4 or IPv6, not both",
            ),
            rule(&format!("isCIDR(self) || !({is_run}) || {ascending}"), "the first address is after the last"),
            rule(
                &format!(
                    "isCIDR(self) ? cidr(self).prefixLength() >= (cidr(self).ip().family() == 4 ? 8 : 32) \
                     : (!({is_run}) || {within})"
                ),
                "the range is too large to be meant: at most a /8 of IPv4 or a /32 of IPv6, within one such network",
            ),
            rule(
                &format!(
                    "isCIDR(self) ? cidr(self).ip().isGlobalUnicast() \
                     : (!({is_run}) || (ip({first}).isGlobalUnicast() && ip({last}).isGlobalUnicast()))"
                ),
                "unspecified, loopback, link-local, multicast and broadcast addresses cannot be granted",
            ),
        ],
    })
}

/// A list of CIDRs, none written twice.
pub(crate) fn cidrs(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {
            "type": "string",
            "maxLength": ADDRESS_LENGTH + 4,
            "x-kubernetes-validations": [rule("isCIDR(self)", "must be a CIDR such as 192.168.10.0/24 or fd00::/64")],
        },
        "maxItems": 64,
        "x-kubernetes-list-type": "set",
    })
}

/// Source ranges, each a CIDR in canonical form. They come from the controller; the pattern keeps out what no
/// speaker could read.
pub(crate) fn source_ranges(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": { "type": "string", "maxLength": ADDRESS_LENGTH + 4, "pattern": "^[0-9a-f.:]+/[0-9]{1,3}$" },
        "maxItems": crate::service_guard::MOST_SOURCE_RANGES,
        "x-kubernetes-list-type": "set",
    })
}

/// The address of a VirtualIP: canonical, grantable, never changed.
pub(crate) fn virtual_ip_address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": ADDRESS_LENGTH,
        "x-kubernetes-validations": [
            rule(
                "isIP(self) && ip.isCanonical(self)",
                "must be an IPv4 address, or an IPv6 address in its canonical form (RFC 5952), such as fd00::10",
            ),
            rule(
                "!isIP(self) || ip(self).isGlobalUnicast()",
                "unspecified, loopback, link-local, multicast and broadcast addresses cannot be announced",
            ),
            rule("self == oldSelf", "the address of a VirtualIP never changes: create another VirtualIP"),
        ],
    })
}

/// A duration such as `30s`, `5m` or `1h30m` (Gateway API GEP-2257).
pub(crate) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["string", "null"],
        "maxLength": 32,
        "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$",
    })
}

/// Interface names or globs (`eth0`, `enp*`), as long as Linux allows a name to be.
pub(crate) fn interface_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": { "type": "string", "minLength": 1, "maxLength": 15, "pattern": "^[^/\\s]+$" },
        "maxItems": 16,
    })
}

/// Kubernetes conditions, one of each type.
pub(crate) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let condition = generator.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>();
    json_schema!({
        "type": "array",
        "items": condition,
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}
