//! Whether a Service asks for an internal load balancer, in the words of the clouds.
//!
//! A manifest that was internal in its cloud must not become public here, nor the other way round. So
//! each annotation is read as its own provider reads it, and where a provider would take a mistake
//! for "public", or two annotations differ, the Service waits and says so.

use k8s_openapi::api::core::v1::Service;
use landfall_crds::names::annotations::internal;

use super::request::{annotation, contradictory, invalid};
use super::wait::{Wait, quoted};

/// Whether the Service is to have an internal address. Values are trimmed; a blank one is none.
///
/// # Errors
/// An annotation says what its provider does not know, or two annotations differ.
pub fn asks_for_internal(service: &Service) -> Result<bool, Wait> {
    let mut yes = None;
    let mut no = None;
    for key in internal::ALL {
        let Some(value) = annotation(service, key) else { continue };
        match meaning(key, value) {
            Ok(true) => yes = yes.or(Some((key, value))),
            Ok(false) => no = no.or(Some((key, value))),
            Err(write) => return Err(invalid(format!("{key} says {}: {write}", quoted(value)))),
        }
    }
    if let (Some((yes, internal)), Some((no, public))) = (yes, no) {
        return Err(contradictory(format!(
            "{yes} says {}, which asks for an internal load balancer, and {no} says {}, which asks for a \
             public one: let both ask for the same, or remove one",
            quoted(internal),
            quoted(public)
        )));
    }
    Ok(yes.is_some())
}

/// Whether the value means "internal", or what to write instead.
fn meaning(key: &str, value: &str) -> Result<bool, &'static str> {
    const TRUE_OR_FALSE: &str = "write 'true' for an internal load balancer or 'false' for a public one";
    match key {
        // Azure compares with "true" and takes all else for public, "True" too (cloud-provider-azure
        // pkg/provider/azure_loadbalancer.go, requiresInternalLoadBalancer). OpenStack knows "true" and
        // "false" and falls back to its own default otherwise (cloud-provider-openstack
        // pkg/openstack/loadbalancer.go, getBoolFromServiceAnnotation). Baidu compares with "true"
        // (cloud-provider-baiducloud pkg/cloud-provider/load_balancer.go, GetLoadBalancer). All heed case.
        internal::AZURE | internal::OPENSTACK | internal::BAIDU => match value {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(TRUE_OR_FALSE),
        },
        // Oracle uses Go's strconv.ParseBool and refuses the rest (oci-cloud-controller-manager
        // pkg/cloudprovider/providers/oci/load_balancer_spec.go, isInternalLB). Which of its two keys it
        // heeds depends on the kind of load balancer; one alone is taken for what its owner means.
        internal::OCI | internal::OCI_NETWORK => go_bool(value).ok_or(TRUE_OR_FALSE),
        // "Internal" and the older "internal" are so and everything else is public (k8s.io/legacy-
        // cloud-providers gce/gce_annotations.go, GetLoadBalancerAnnotationType; ingress-gce
        // pkg/annotations/service.go, WantsL4ILB). "External" is what people write for the other.
        internal::GKE | internal::GKE_LEGACY => match value {
            "Internal" | "internal" => Ok(true),
            "External" | "external" => Ok(false),
            _ => Err("write 'Internal' for an internal load balancer or 'External' for a public one"),
        },
        internal::AWS => aws(value).ok_or(TRUE_OR_FALSE),
        // AWS Load Balancer Controller knows these two and refuses the rest (pkg/service/
        // model_build_load_balancer.go, buildLoadBalancerSchemeViaAnnotation).
        internal::AWS_SCHEME => match value {
            "internal" => Ok(true),
            "internet-facing" => Ok(false),
            _ => Err("write 'internal' for an internal load balancer or 'internet-facing' for a public one"),
        },
        // IBM documents these two and takes any other text for private (cloud-provider-vpc-controller
        // pkg/vpcctl/vpc_config.go, isServicePublic); which one a slip meant is not known.
        internal::IBM => match value {
            "private" => Ok(true),
            "public" => Ok(false),
            _ => Err("write 'private' for an internal load balancer or 'public' for a public one"),
        },
        // The subnet that the address comes from; to name one is to ask for an internal load balancer
        // (Tencent Kubernetes Engine, Service annotations). Which one it is means nothing here.
        internal::TENCENT => match value.strip_prefix("subnet-") {
            Some(id) if !id.is_empty() => Ok(true),
            _ => Err("write the id of a subnet, such as 'subnet-k57djpow', for an internal load balancer, \
                      or remove the annotation for a public one"),
        },
        // One of Alibaba's two controllers heeds the case and the other does not
        // (cloud-provider-alibaba-cloud pkg/model/load_balancer.go, AddressType; pkg/model/nlb/nlb.go,
        // GetAddressType).
        internal::ALIBABA => match value.to_ascii_lowercase().as_str() {
            "intranet" => Ok(true),
            "internet" => Ok(false),
            _ => Err("write 'intranet' for an internal load balancer or 'internet' for a public one"),
        },
        _ => Err("this annotation is not known"),
    }
}

/// What `aws-load-balancer-internal` means. The controller of Kubernetes' tree takes every text but
/// "false" for internal, such as "0.0.0.0/0", once the only one allowed (k8s.io/legacy-cloud-providers
/// aws/aws.go, EnsureLoadBalancer). AWS Load Balancer Controller reads the same key by Go's
/// `strconv.ParseBool`, and so takes "False" for public. Where the two differ, and where the text says
/// in words that it is not internal, neither is followed.
fn aws(value: &str) -> Option<bool> {
    if value == "false" {
        return Some(false);
    }
    let denies =
        ["0", "f", "false", "n", "no", "off", "external", "internet-facing", "public", "internet", "none"];
    let denied = denies.iter().any(|word| value.eq_ignore_ascii_case(word));
    (!denied).then_some(true)
}

/// A truth value as Go's `strconv.ParseBool` reads it.
fn go_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::granting::wait::{Until, reasons};

    fn service(pairs: &[(&str, &str)]) -> Service {
        let mut service = Service::default();
        let annotations = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        service.metadata.annotations = Some(annotations.collect());
        service
    }

    /// Every value in `yes` asks for an internal load balancer, also with white space around it, none in
    /// `no` does, and all in `refused` are answered with `write`.
    fn table(key: &str, yes: &[&str], no: &[&str], refused: &[&str], write: &str) {
        for (values, expected) in [(yes, true), (no, false), (&["", " ", "\n\t", "\u{3000}"][..], false)] {
            for value in values {
                assert_eq!(asks_for_internal(&service(&[(key, value)])), Ok(expected), "{value:?}");
                let padded = format!(" \t{value}\u{a0}\n");
                assert_eq!(asks_for_internal(&service(&[(key, &padded)])), Ok(expected), "{padded:?}");
            }
        }
        let long = "x".repeat(100_000);
        let always = ["tr\nue", "\u{ff54}\u{ff52}\u{ff55}\u{ff45}", "true,true", "'true'", "\u{200b}"];
        let and_always = always.into_iter().chain([long.as_str()]).filter(|_| key != internal::AWS);
        for value in refused.iter().copied().chain(and_always) {
            let wait = asks_for_internal(&service(&[(key, value)])).unwrap_err();
            assert_eq!(
                (wait.reason, &wait.until),
                (reasons::ANNOTATION_INVALID, &Until::Edited),
                "{value:?}"
            );
            assert!(wait.message.starts_with(&format!("{key} says {}: ", quoted(value))), "{}", wait.message);
            assert!(wait.message.contains(write), "{}", wait.message);
            assert!(wait.message.len() < 400, "{}", wait.message);
        }
    }

    /// What the other providers call it, and slips of the keyboard.
    const JUNK: [&str; 8] = ["ture", "yes", "no", "null", "2", "internall", "enabled", "0.0.0.0/0"];

    #[test]
    fn azure_openstack_and_baidu_know_true_and_false_in_lower_case() {
        for key in [internal::AZURE, internal::OPENSTACK, internal::BAIDU] {
            let others =
                ["True", "TRUE", "False", "1", "0", "t", "Internal", "internal", "External", "private"];
            table(key, &["true"], &["false"], &[&JUNK[..], &others].concat(), "'true' for an internal");
        }
    }

    #[test]
    fn oracle_knows_what_go_takes_for_a_truth_value() {
        let yes = ["1", "t", "T", "true", "TRUE", "True"];
        let no = ["0", "f", "F", "false", "FALSE", "False"];
        let others = ["tRUE", "fALSE", "internal", "External"];
        for key in [internal::OCI, internal::OCI_NETWORK] {
            table(key, &yes, &no, &[&JUNK[..], &others].concat(), "'true' for an internal");
        }
        let torn = service(&[(internal::OCI, "false"), (internal::OCI_NETWORK, "true")]);
        assert_eq!(asks_for_internal(&torn).unwrap_err().reason, reasons::REQUEST_CONTRADICTORY);
    }

    #[test]
    fn gke_knows_internal_with_a_capital_and_without() {
        for key in [internal::GKE, internal::GKE_LEGACY] {
            let others = ["INTERNAL", "EXTERNAL", "true", "false", "internet-facing", "public"];
            let refused = [&JUNK[..], &others].concat();
            table(key, &["Internal", "internal"], &["External", "external"], &refused, "'Internal' for an");
        }
    }

    #[test]
    fn aws_takes_every_text_for_internal_that_does_not_deny_it() {
        let yes = ["true", "True", "TRUE", "1", "t", "0.0.0.0/0", "internal", "yes", "ture", "tr\nue"];
        let refused = [
            "False",
            "FALSE",
            "fAlSe",
            "0",
            "f",
            "F",
            "no",
            "No",
            "off",
            "none",
            "External",
            "external",
            "internet-facing",
            "public",
            "internet",
        ];
        table(internal::AWS, &yes, &["false"], &refused, "'true' for an internal");
        let long = "x".repeat(100_000);
        assert_eq!(asks_for_internal(&service(&[(internal::AWS, &long)])), Ok(true));
    }

    #[test]
    fn the_scheme_of_aws_is_internal_or_internet_facing() {
        let others = ["Internal", "Internet-Facing", "internet", "public", "true", "false"];
        let refused = [&JUNK[..], &others].concat();
        table(internal::AWS_SCHEME, &["internal"], &["internet-facing"], &refused, "'internet-facing' for a");
    }

    #[test]
    fn ibm_knows_private_and_public() {
        let others = ["Private", "PUBLIC", "internal", "true", "false"];
        table(internal::IBM, &["private"], &["public"], &[&JUNK[..], &others].concat(), "'private' for an");
    }

    #[test]
    fn tencent_wants_the_id_of_a_subnet() {
        let others = ["false", "true", "subnet-", "Subnet-abc", "vpc-1", "public"];
        let yes = ["subnet-k57djpow", "subnet-xxxxx"];
        table(internal::TENCENT, &yes, &[], &[&JUNK[..], &others].concat(), "the id of a subnet");
    }

    #[test]
    fn alibaba_knows_intranet_and_internet_in_any_case() {
        let yes = ["intranet", "Intranet", "INTRANET"];
        let no = ["internet", "Internet", "INTERNET"];
        let others = ["internal", "true", "false", "inter\u{0130}net"];
        table(internal::ALIBABA, &yes, &no, &[&JUNK[..], &others].concat(), "'intranet' for an");
    }

    #[test]
    fn no_word_for_public_is_ever_taken_for_internal() {
        for key in internal::ALL {
            for value in ["false", "External", "internet-facing", "public", "internet", "", "  "] {
                assert_ne!(asks_for_internal(&service(&[(key, value)])), Ok(true), "{key}: {value}");
            }
        }
    }

    #[test]
    fn a_service_without_these_annotations_asks_for_nothing() {
        assert_eq!(asks_for_internal(&Service::default()), Ok(false));
        assert_eq!(asks_for_internal(&service(&[("landfall.dev/pool", "internal")])), Ok(false));
    }

    #[test]
    fn annotations_that_agree_are_as_good_as_one_and_others_are_named() {
        use internal::{AWS, AWS_SCHEME, AZURE, GKE, GKE_LEGACY};
        for (pairs, expected) in [
            (&[(AZURE, "true"), (GKE, "Internal"), (AWS, "0.0.0.0/0")][..], true),
            (&[(AZURE, "false"), (GKE, "External")], false),
            (&[(AZURE, "true"), (GKE, " ")], true),
        ] {
            assert_eq!(asks_for_internal(&service(pairs)), Ok(expected), "{pairs:?}");
        }
        for (first, second) in [
            ((AZURE, "true"), (GKE, "External")),
            ((GKE, "Internal"), (AZURE, "false")),
            ((GKE, "Internal"), (GKE_LEGACY, "External")),
            ((AWS, "true"), (AWS_SCHEME, "internet-facing")),
        ] {
            let wait = asks_for_internal(&service(&[second, first])).unwrap_err();
            assert_eq!((wait.reason, &wait.until), (reasons::REQUEST_CONTRADICTORY, &Until::Edited));
            let internal = format!("{} says '{}', which asks for an internal", first.0, first.1);
            let public = format!("{} says '{}', which asks for a public one", second.0, second.1);
            assert!(wait.message.contains(&internal) && wait.message.contains(&public), "{}", wait.message);
        }
        // What is not understood is said first, whatever else there is.
        let wait = asks_for_internal(&service(&[(AZURE, "true"), (GKE, "External"), (AWS_SCHEME, "?")]));
        assert_eq!(wait.unwrap_err().reason, reasons::ANNOTATION_INVALID);
    }

    proptest! {
        #[test]
        fn any_text_in_any_two_annotations_is_answered_in_few_words(
            keys in (0..internal::ALL.len(), 0..internal::ALL.len()),
            texts in (any::<String>(), ".{0,300}"),
        ) {
            let pairs = [(internal::ALL[keys.0], texts.0.as_str()), (internal::ALL[keys.1], texts.1.as_str())];
            if let Err(wait) = asks_for_internal(&service(&pairs)) {
                prop_assert!(wait.message.len() < 2_000, "{}", wait.message);
                prop_assert!(!wait.message.chars().any(char::is_control), "{}", wait.message);
            }
        }
    }
}
