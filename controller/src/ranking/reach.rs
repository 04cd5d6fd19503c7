//! Which nodes can announce an address at all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::world::nodes::{Interface, NodeFacts, Nodes, SpeakerFacts};

/// Where an address may be announced.
#[derive(Clone, Debug)]
pub struct Reach<'a> {
    /// The address.
    pub address: IpAddr,
    /// Names or globs of interfaces; empty means those on the address's subnet.
    pub interfaces: &'a [String],
    /// Labels of the nodes; absent means all.
    pub selector: Option<&'a LabelSelector>,
    /// The nodes with endpoints, where only those count.
    pub local: Option<BTreeSet<&'a str>>,
}

/// A node that can announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eligible<'a> {
    /// Its name.
    pub node: &'a str,
    /// Whether it may be added; one whose link is down only stays where it is already.
    pub may_join: bool,
    /// Whether it comes after all others.
    pub cordoned: bool,
    /// Whether most peers take it for dead.
    pub dead: bool,
}

/// The nodes that can announce, by name.
pub fn eligible<'a>(nodes: &'a Nodes, reach: &Reach<'_>) -> Vec<Eligible<'a>> {
    let unlabelled = BTreeMap::new();
    let fits = |interface: &&Interface| {
        if reach.interfaces.is_empty() {
            interface.has_on_link(reach.address)
        } else {
            interface.is_named_by(reach.interfaces)
        }
    };
    let of_node = |(node, speaker, facts, dead): (&'a str, &SpeakerFacts, Option<&NodeFacts>, bool)| {
        let labels = facts.map_or(&unlabelled, |facts| &facts.labels);
        let selected = reach.selector.is_none_or(|selector| selects(selector, labels));
        let has_endpoint = reach.local.as_ref().is_none_or(|local| local.contains(node));
        if facts.is_some_and(|facts| facts.excluded) || !selected || !has_endpoint {
            return None;
        }
        let mut fitting = speaker.interfaces.iter().filter(fits).peekable();
        fitting.peek()?;
        let may_join = fitting.any(|interface| interface.up);
        Some(Eligible { node, may_join, cordoned: facts.is_some_and(|facts| facts.cordoned), dead })
    };
    // All at once, since this is asked for each address.
    let mut eligible = Vec::with_capacity(nodes.number());
    eligible.extend(nodes.iter().filter_map(of_node));
    eligible
}

/// Whether a label selector selects an object with these labels (k8s.io/apimachinery
/// pkg/apis/meta/v1 helpers; an operator that is none selects nothing).
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|rule| {
            let value = labels.get(&rule.key);
            let listed =
                || value.is_some_and(|value| rule.values.iter().flatten().any(|known| known == value));
            match rule.operator.as_str() {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Node;
    use landfall_crds::Speaker;
    use serde_json::json;

    fn world() -> Nodes {
        let mut nodes = Nodes::default();
        for (name, carrier, subnet, labels, cordoned) in [
            ("a", "Up", "10.0.0.0/24", json!({"rack": "1"}), false),
            ("b", "Down", "10.0.0.0/24", json!({"rack": "2"}), false),
            ("c", "Up", "10.9.0.0/24", json!({}), false),
            (
                "d",
                "Up",
                "10.0.0.0/24",
                json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""}),
                false,
            ),
            (
                "e",
                "Up",
                "10.0.0.0/24",
                json!({"node.kubernetes.io/exclude-from-external-load-balancers": "false"}),
                true,
            ),
        ] {
            let interface =
                json!({"name": format!("eth-{name}"), "mac": "", "carrier": carrier, "subnets": [subnet]});
            let speaker: Speaker = serde_json::from_value(json!({
                "apiVersion": "landfall.dev/v1alpha1", "kind": "Speaker", "metadata": {"name": name},
                "spec": {}, "status": {"interfaces": [interface]},
            }))
            .unwrap();
            let node: Node = serde_json::from_value(
                json!({"metadata": {"name": name, "labels": labels}, "spec": {"unschedulable": cordoned}}),
            )
            .unwrap();
            nodes.put_speaker(&speaker);
            nodes.put_node(&node);
        }
        nodes
    }

    fn names(
        interfaces: &[&str],
        selector: Option<serde_json::Value>,
        local: Option<&[&str]>,
    ) -> Vec<String> {
        let nodes = world();
        let interfaces: Vec<String> = interfaces.iter().map(ToString::to_string).collect();
        let selector: Option<LabelSelector> = selector.map(|json| serde_json::from_value(json).unwrap());
        let reach = Reach {
            address: "10.0.0.50".parse().unwrap(),
            interfaces: &interfaces,
            selector: selector.as_ref(),
            local: local.map(|nodes| nodes.iter().copied().collect()),
        };
        let flags = |node: &Eligible<'_>| {
            let join = if node.may_join { "" } else { "(stays)" };
            format!("{}{join}{}", node.node, if node.cordoned { "(last)" } else { "" })
        };
        eligible(&nodes, &reach).iter().map(flags).collect()
    }

    #[test]
    fn nodes_on_the_subnet_or_with_a_named_interface_can_announce() {
        assert_eq!(names(&[], None, None), ["a", "b(stays)", "e(last)"]);
        assert_eq!(names(&["eth-c"], None, None), ["c"]);
        assert_eq!(names(&["eth-*"], None, None), ["a", "b(stays)", "c", "e(last)"]);
        assert_eq!(names(&["wlan*"], None, None), [""; 0]);
    }

    #[test]
    fn selectors_and_endpoints_narrow_it_down() {
        assert_eq!(names(&[], Some(json!({"matchLabels": {"rack": "1"}})), None), ["a"]);
        let expression =
            |operator| json!({"matchExpressions": [{"key": "rack", "operator": operator, "values": ["2"]}]});
        assert_eq!(names(&[], Some(expression("In")), None), ["b(stays)"]);
        assert_eq!(names(&[], Some(expression("NotIn")), None), ["a", "e(last)"]);
        assert_eq!(names(&[], Some(expression("Exists")), None), ["a", "b(stays)"]);
        assert_eq!(names(&[], Some(expression("DoesNotExist")), None), ["e(last)"]);
        assert_eq!(names(&[], None, Some(&["a", "c"])), ["a"]);
        assert_eq!(names(&[], None, Some(&[])), [""; 0]);
    }
}
