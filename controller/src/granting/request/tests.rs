use super::*;
use k8s_openapi::api::core::v1::ServiceSpec;
use proptest::prelude::*;

const IPS: &str = "landfall.dev/ips";
const POOL: &str = "landfall.dev/pool";
const KEY: &str = "landfall.dev/sharing-key";
const RESERVE: &str = "landfall.dev/reserve";
const METALLB_IPS: &str = "metallb.io/loadBalancerIPs";
const METALLB_POOL: &str = "metallb.io/address-pool";
const METALLB_KEY: &str = "metallb.io/allow-shared-ip";
const UNIVERSE_IPS: &str = "metallb.universe.tf/loadBalancerIPs";
const UNIVERSE_POOL: &str = "metallb.universe.tf/address-pool";
const UNIVERSE_KEY: &str = "metallb.universe.tf/allow-shared-ip";
const CILIUM_IPS: &str = "lbipam.cilium.io/ips";
const CILIUM_KEY: &str = "lbipam.cilium.io/sharing-key";
const KUBE_VIP_IPS: &str = "kube-vip.io/loadbalancerIPs";

const DUAL: &[&str] = &["IPv4", "IPv6"];

fn service(families: &[&str], pairs: &[(&str, &str)]) -> Service {
    let mut spec = ServiceSpec {
        ip_families: Some(families.iter().map(ToString::to_string).collect()),
        ..ServiceSpec::default()
    };
    let mut service = Service::default();
    for (key, value) in pairs {
        if *key == FIELD {
            spec.load_balancer_ip = Some((*value).to_owned());
        } else {
            let annotations = service.metadata.annotations.get_or_insert_default();
            annotations.insert((*key).to_owned(), (*value).to_owned());
        }
    }
    service.spec = Some(spec);
    service
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn names(texts: &[&str]) -> Option<Vec<String>> {
    (!texts.is_empty()).then(|| texts.iter().map(ToString::to_string).collect())
}

/// The Service is refused for the reason, with a short message that holds the sentence and ends when
/// somebody edits it.
fn refused(service: &Service, reason: &str, sentence: &str) {
    let wait = read(service).unwrap_err();
    assert_eq!(wait.reason, reason, "{}", wait.message);
    assert_eq!(wait.until, Until::Edited, "{}", wait.message);
    assert!(wait.message.contains(sentence), "{} does not say: {sentence}", wait.message);
    assert!(wait.message.len() < 400, "{} characters: {}", wait.message.len(), wait.message);
    assert!(!wait.message.chars().any(char::is_control), "{}", wait.message);
}

/// Everything that names addresses, each of which is read alike.
fn address_sources() -> impl Iterator<Item = &'static str> {
    [FIELD, IPS].into_iter().chain(foreign::IPS)
}

#[test]
fn a_service_that_says_nothing_takes_what_there_is() {
    assert_eq!(read(&Service::default()), Ok(Request::default()));
    assert_eq!(read(&service(DUAL, &[])), Ok(Request::default()));
    for source in address_sources().chain([POOL, METALLB_POOL, KEY, METALLB_KEY, RESERVE]) {
        for blank in ["", " ", "\n", "\t \r\n", "\u{a0}\u{3000}"] {
            assert_eq!(read(&service(DUAL, &[(source, blank)])), Ok(Request::default()), "{source}");
        }
    }
}

#[test]
fn one_address_is_read_alike_from_the_field_and_every_annotation() {
    for source in address_sources() {
        for (text, address) in [
            ("10.0.0.1", "10.0.0.1"),
            (" \t10.0.0.1\n", "10.0.0.1"),
            ("\u{a0}10.0.0.1\u{3000}", "10.0.0.1"),
            ("fd00::1", "fd00::1"),
            ("FD00:0:0::0001", "fd00::1"),
        ] {
            let request = read(&service(DUAL, &[(source, text)])).unwrap();
            assert_eq!(request, Request { addresses: ips(&[address]), ..Request::default() }, "{source}");
        }
        let long = "1".repeat(100_000);
        for (text, reason, sentence) in [
            ("web", "AddressInvalid", "says 'web', which is not an IPv4 or IPv6 address"),
            ("web.example.com", "AddressInvalid", "says 'web.example.com', which is not"),
            ("10.0.0.1;10.0.0.2", "AddressInvalid", "says '10.0.0.1;10.0.0.2'"),
            ("10.0.0.1 10.0.0.2", "AddressInvalid", "separated by commas"),
            ("10.0.0.1\nfd00::1", "AddressInvalid", "says '10.0.0.1\\nfd00::1'"),
            ("10.0.0.0/24", "AddressInvalid", "says '10.0.0.0/24'"),
            ("10.0.0.1-10.0.0.9", "AddressInvalid", "says '10.0.0.1-10.0.0.9'"),
            ("010.0.0.1", "AddressInvalid", "says '010.0.0.1'"),
            ("10.0.0.256", "AddressInvalid", "says '10.0.0.256'"),
            ("10.0.0.1:80", "AddressInvalid", "says '10.0.0.1:80'"),
            ("[fd00::1]", "AddressInvalid", "says '[fd00::1]'"),
            ("fe80::1%eth0", "AddressInvalid", "says 'fe80::1%eth0'"),
            ("\u{661}\u{660}.0.0.1", "AddressInvalid", "says '\u{661}\u{660}.0.0.1'"),
            ("10\u{ff0e}0.0.1", "AddressInvalid", "says '10\u{ff0e}0.0.1'"),
            ("10.0.0.1\u{200b}", "AddressInvalid", "says '10.0.0.1\\u{200b}'"),
            ("10.0.0.1\u{0}", "AddressInvalid", "says '10.0.0.1\\0'"),
            ("\u{202e}1.0.0.01", "AddressInvalid", "says '\\u{202e}1.0.0.01'"),
            ("::ffff:10.0.0.1", "AddressInvalid", "::ffff:10.0.0.1 is an IPv4-mapped"),
            ("0.0.0.0", "AddressInvalid", "Landfall does not lease addresses by DHCP"),
            ("::", "AddressInvalid", "says ::, by which kube-vip leases an address by DHCP"),
            (&long, "AddressInvalid", "111...', which is not"),
        ] {
            refused(&service(DUAL, &[(source, text)]), reason, sentence);
            refused(&service(DUAL, &[(source, text)]), reason, &format!("{source} says "));
        }
        refused(
            &service(&["IPv4"], &[(source, "fd00::1")]),
            "FamilyMismatch",
            &format!("{source} asks for fd00::1, but the Service has no IPv6 address"),
        );
        refused(&service(&["IPv6"], &[(source, "10.0.0.1")]), "FamilyMismatch", "spec.ipFamilies (IPv6)");
        // Whether an address can be leased does not hang on the family.
        refused(&service(&["IPv6"], &[(source, "0.0.0.0")]), "AddressInvalid", "by DHCP");
    }
}

#[test]
fn a_list_of_addresses_is_read_alike_from_every_annotation() {
    let sixteen = vec!["10.0.0.1"; 16].join(",");
    for source in address_sources().filter(|source| *source != FIELD) {
        for (text, addresses) in [
            ("10.0.0.1,fd00::1", &["10.0.0.1", "fd00::1"][..]),
            ("fd00::1 ,\n\t10.0.0.1", &["fd00::1", "10.0.0.1"]),
            (",, 10.0.0.1 ,", &["10.0.0.1"]),
            ("10.0.0.1, 10.0.0.1", &["10.0.0.1"]),
            ("fd00::1,FD00:0::1", &["fd00::1"]),
            (sixteen.as_str(), &["10.0.0.1"]),
            (", ,", &[]),
        ] {
            assert_eq!(read(&service(DUAL, &[(source, text)])).unwrap().addresses, ips(addresses), "{text}");
        }
        let same = vec!["10.0.0.1"; 1000].join(",");
        let others = (0..1000).map(|n| format!("10.0.{}.{}", n / 250, n % 250)).collect::<Vec<_>>().join(",");
        let twice = format!("{source} asks for 10.0.0.1 and for 10.0.0.2: ask for one IPv4 address");
        let many = format!("{source} names 1000 addresses: name at most one of each family");
        for (text, reason, sentence) in [
            ("10.0.0.1,10.0.0.2", "RequestContradictory", twice.as_str()),
            ("fd00::1,10.0.0.1,fd00::2", "RequestContradictory", "ask for one IPv6 address"),
            ("10.0.0.1,web", "AddressInvalid", "says 'web'"),
            ("10.0.0.1,0.0.0.0", "AddressInvalid", "by DHCP"),
            (&same, "RequestContradictory", &many),
            (&others, "RequestContradictory", &many),
            (&format!("{sixteen},10.0.0.1"), "RequestContradictory", "names 17 addresses"),
        ] {
            refused(&service(DUAL, &[(source, text)]), reason, sentence);
        }
    }
    // The field holds one address and no list.
    refused(&service(DUAL, &[(FIELD, "10.0.0.1,fd00::1")]), "AddressInvalid", "says '10.0.0.1,fd00::1'");
}

#[test]
fn several_sources_of_addresses_must_agree() {
    for (pairs, addresses) in [
        (&[(FIELD, "10.0.0.1"), (IPS, "fd00::1")][..], &["10.0.0.1", "fd00::1"][..]),
        (&[(FIELD, "fd00::1"), (IPS, "10.0.0.1, fd00::1")], &["fd00::1", "10.0.0.1"]),
        (&[(METALLB_IPS, "10.0.0.1"), (UNIVERSE_IPS, " 10.0.0.1")], &["10.0.0.1"]),
        (&[(METALLB_IPS, "10.0.0.1"), (CILIUM_IPS, "fd00::1")], &["10.0.0.1", "fd00::1"]),
        (
            &[(FIELD, "10.0.0.1"), (IPS, "10.0.0.1,fd00::1"), (CILIUM_IPS, "fd00::1"), (KUBE_VIP_IPS, "")],
            &["10.0.0.1", "fd00::1"],
        ),
    ] {
        assert_eq!(read(&service(DUAL, pairs)).unwrap().addresses, ips(addresses), "{pairs:?}");
    }
    for first in address_sources() {
        for second in address_sources().skip_while(|source| *source != first).skip(1) {
            refused(
                &service(DUAL, &[(second, "10.0.0.2"), (first, "10.0.0.1")]),
                "RequestContradictory",
                &format!("{first} asks for 10.0.0.1 and {second} for 10.0.0.2: ask for one IPv4 address"),
            );
        }
    }
    // One family agreeing does not excuse the other.
    let pairs = [(IPS, "10.0.0.1,fd00::1"), (CILIUM_IPS, "10.0.0.1,fd00::2")];
    refused(&service(DUAL, &pairs), "RequestContradictory", "lbipam.cilium.io/ips for fd00::2");
    // A source that is not understood is not passed over for one that is.
    let pairs = [(IPS, "10.0.0.1"), (KUBE_VIP_IPS, "0.0.0.0")];
    refused(&service(DUAL, &pairs), "AddressInvalid", "kube-vip.io/loadbalancerIPs says 0.0.0.0");
}

#[test]
fn pools_are_read_in_order_and_any_text_is_a_name() {
    let long = "p".repeat(100_000);
    let most: Vec<String> = (0..16).map(|n| format!("p{n}")).collect();
    let in_order: Vec<&str> = most.iter().map(String::as_str).collect();
    for (text, expected) in [
        ("a", &["a"][..]),
        (" b, a ,,b ", &["b", "a"]),
        ("a\n,\tb\u{a0}", &["a", "b"]),
        (",", &[]),
        ("a b", &["a b"]),
        ("a\nb", &["a\nb"]),
        ("A_\u{1f980};../x", &["A_\u{1f980};../x"]),
        ("\u{661}", &["\u{661}"]),
        ("10.0.0.1", &["10.0.0.1"]),
        (&long, &[&long]),
        (&most.join(","), &in_order),
    ] {
        let service = service(DUAL, &[(POOL, text)]);
        let expected = Request { pools: names(expected), ..Request::default() };
        assert_eq!(read(&service).as_ref(), Ok(&expected), "{text:.80}");
        assert_eq!(pools(&service), expected.pools);
    }
    for number in [17, 1000] {
        let many: Vec<String> = (0..number).map(|n| format!("p{n}")).collect();
        let wait = read(&service(DUAL, &[(POOL, &many.join(","))])).unwrap_err();
        assert_eq!(wait.reason, "AnnotationInvalid");
        assert_eq!(wait.message, format!("landfall.dev/pool names {number} pools: name at most 16"));
    }
}

#[test]
fn the_pool_of_metallb_is_one_name() {
    for source in foreign::POOL {
        for (text, name) in [
            ("a", "a"),
            (" a\n", "a"),
            ("a,b", "a,b"),
            ("a b", "a b"),
            (",", ","),
            ("\u{1f980}", "\u{1f980}"),
        ] {
            let service = service(DUAL, &[(source, text)]);
            assert_eq!(read(&service).unwrap().pools, names(&[name]), "{source} {text}");
            assert_eq!(pools(&service), names(&[name]), "{source} {text}");
        }
    }
}

#[test]
fn several_sources_of_pools_must_mean_the_same() {
    let long = "p".repeat(100_000);
    for pairs in [
        &[(POOL, "a"), (METALLB_POOL, "a")][..],
        &[(POOL, " a,,a "), (METALLB_POOL, "a "), (UNIVERSE_POOL, "a")],
        &[(METALLB_POOL, "a"), (UNIVERSE_POOL, " a")],
        &[(POOL, ","), (UNIVERSE_POOL, "a")],
    ] {
        assert_eq!(read(&service(DUAL, pairs)).unwrap().pools, names(&["a"]), "{pairs:?}");
    }
    // Who decides whether an address in hand is what was asked for gets an answer all the same: ours
    // counts before MetalLB's, and its present spelling before the old one.
    for (pairs, sentence, in_effect) in [
        (
            &[(POOL, "a"), (METALLB_POOL, "b")][..],
            "/pool names 'a' and metallb.io/address-pool names 'b'",
            "a",
        ),
        (&[(POOL, "a"), (UNIVERSE_POOL, "A")], "metallb.universe.tf/address-pool names 'A'", "a"),
        (&[(METALLB_POOL, "b"), (UNIVERSE_POOL, "a")], "says 'b' and metallb.universe.tf/address-pool", "b"),
        (&[(POOL, &long), (METALLB_POOL, "b\n\u{7}b")], "names 'b\\n\\u{7}b'", &long),
    ] {
        refused(&service(DUAL, pairs), "RequestContradictory", sentence);
        assert_eq!(pools(&service(DUAL, pairs)), names(&[in_effect]));
    }
    let pairs = [(POOL, "a,b"), (METALLB_POOL, "a")];
    refused(
        &service(DUAL, &pairs),
        "RequestContradictory",
        "names 'a,b' and metallb.io/address-pool names 'a'",
    );
    assert_eq!(pools(&service(DUAL, &pairs)), names(&["a", "b"]));
}

#[test]
fn a_sharing_key_is_any_text_of_bounded_length() {
    let longest = "k".repeat(256);
    let wide = "\u{1f980}".repeat(256);
    let too_wide = "\u{1f980}".repeat(257);
    for source in sharing_keys() {
        for (text, key) in [
            ("web", "web"),
            (" web\n", "web"),
            ("a,b", "a,b"),
            ("a b", "a b"),
            ("true", "true"),
            ("\u{661} \u{1f980}", "\u{661} \u{1f980}"),
            ("a\nb", "a\nb"),
            (&longest, &longest),
            (&format!("{longest}\n"), &longest),
            (&wide, &wide),
        ] {
            let service = service(DUAL, &[(source, text)]);
            let expected = Request { sharing_key: Some(key.to_owned()), ..Request::default() };
            assert_eq!(read(&service), Ok(expected), "{source} {text}");
            assert!(has_sharing_key(&service), "{source} {text}");
        }
        for (text, sentence) in [
            (format!("{longest}k"), format!("{source} says 'kkk")),
            (format!("{longest}k"), "which has 257 characters: write at most 256".to_owned()),
            (too_wide.clone(), "which has 257 characters".to_owned()),
            ("k".repeat(100_000), "kkk...', which has 100000 characters".to_owned()),
        ] {
            refused(&service(DUAL, &[(source, &text)]), "AnnotationInvalid", &sentence);
            assert!(has_sharing_key(&service(DUAL, &[(source, &text)])));
        }
        assert!(!has_sharing_key(&service(DUAL, &[(source, " \n")])));
    }
    let same: Vec<(&str, &str)> = sharing_keys().map(|source| (source, " web ")).collect();
    assert_eq!(read(&service(DUAL, &same)).unwrap().sharing_key.as_deref(), Some("web"));
    for (first, second) in [(KEY, METALLB_KEY), (METALLB_KEY, UNIVERSE_KEY), (UNIVERSE_KEY, CILIUM_KEY)] {
        for other in ["Web", "web2", &longest, "a\nb"] {
            let sentence = format!("{first} says 'web' and {second} says {}: let both", quoted(other));
            refused(&service(DUAL, &[(first, "web"), (second, other)]), "RequestContradictory", &sentence);
        }
    }
    assert!(!has_sharing_key(&service(DUAL, &[(IPS, "10.0.0.1"), (POOL, "a")])));
}

#[test]
fn to_reserve_is_true_or_false() {
    for (text, reserve) in [("true", true), (" true\n", true), ("false", false), ("\tfalse", false)] {
        let expected = Request { reserve, ..Request::default() };
        assert_eq!(read(&service(DUAL, &[(RESERVE, text)])), Ok(expected), "{text}");
    }
    let long = "true".repeat(50_000);
    for (text, sentence) in [
        ("True", "landfall.dev/reserve says 'True': write 'true' to keep"),
        ("TRUE", "says 'TRUE'"),
        ("ture", "says 'ture'"),
        ("yes", "or 'false'"),
        ("1", "says '1'"),
        ("no", "says 'no'"),
        ("true,true", "says 'true,true'"),
        ("'true'", "says '\\'true\\''"),
        ("tr\nue", "says 'tr\\nue'"),
        ("\u{ff54}rue", "says '\u{ff54}rue'"),
        ("true\u{200b}", "says 'true\\u{200b}'"),
        ("10.0.0.1", "says '10.0.0.1'"),
        (&long, "truetrue...': write"),
    ] {
        refused(&service(DUAL, &[(RESERVE, text)]), "AnnotationInvalid", sentence);
    }
}

#[test]
fn the_wish_for_an_internal_address_is_part_of_the_request() {
    let azure = annotations::internal::AZURE;
    assert!(read(&service(DUAL, &[(azure, "true")])).unwrap().internal);
    assert!(!read(&service(DUAL, &[(azure, "false")])).unwrap().internal);
    refused(&service(DUAL, &[(azure, "ture")]), "AnnotationInvalid", "says 'ture'");
}

#[test]
fn all_wishes_stand_together() {
    let pairs = [
        (FIELD, "10.0.0.1"),
        (CILIUM_IPS, "fd00::1"),
        (POOL, "a,b"),
        (UNIVERSE_KEY, "web"),
        (RESERVE, "true"),
        (annotations::internal::GKE, "Internal"),
    ];
    let expected = Request {
        addresses: ips(&["10.0.0.1", "fd00::1"]),
        pools: names(&["a", "b"]),
        internal: true,
        sharing_key: Some("web".to_owned()),
        reserve: true,
    };
    assert_eq!(read(&service(DUAL, &pairs)), Ok(expected));
}

#[test]
fn an_address_in_hand_is_accepted_unless_another_is_asked_for() {
    let held: IpAddr = "10.0.0.5".parse().unwrap();
    for (ips, pools, accepted) in [
        ("", "", true),
        ("10.0.0.5", "", true),
        ("10.0.0.6", "", false),
        ("", "a,b", true),
        ("", "b", false),
        ("10.0.0.5", "b", true),
        ("fd00::1", "", true),
    ] {
        let request = read(&service(DUAL, &[(IPS, ips), (POOL, pools)])).unwrap();
        assert_eq!(request.accepts(held, Some("a")), accepted, "{ips} {pools}");
    }
}

fn any_source() -> impl Strategy<Value = &'static str> {
    let all: Vec<&str> =
        address_sources().chain([POOL, RESERVE]).chain(foreign::POOL).chain(sharing_keys()).collect();
    prop::sample::select(all)
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        ".{200,400}",
        "[0-9a-f.:, ]{0,40}",
        "(10.0.0.[12]|fd00::[12]|a|b|true|,){1,3}"
    ]
}

proptest! {
    /// Whatever users write, the answer is a request that can be followed or a short message; and what
    /// holds an address in place is never less than what is asked for.
    #[test]
    fn any_annotations_are_answered_in_few_words(
        pairs in prop::collection::vec((any_source(), any_value()), 0..4),
        dual in any::<bool>(),
    ) {
        let families = if dual { DUAL } else { &DUAL[..1] };
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let service = service(families, &pairs);
        match read(&service) {
            Ok(request) => {
                let of: BTreeSet<Family> = request.addresses.iter().map(|address| Family::of(*address)).collect();
                prop_assert_eq!(of.len(), request.addresses.len());
                prop_assert!(request.addresses.iter().all(|address| !address.is_unspecified()));
                prop_assert!(dual || !of.contains(&Family::IPv6));
                prop_assert_eq!(&request.pools, &pools(&service));
                prop_assert_eq!(request.sharing_key.is_some(), has_sharing_key(&service));
            }
            Err(wait) => {
                prop_assert!(wait.message.len() < 2_000, "{}", wait.message);
                prop_assert!(!wait.message.chars().any(char::is_control), "{}", wait.message);
                prop_assert_eq!(wait.until, Until::Edited);
            }
        }
    }
}
