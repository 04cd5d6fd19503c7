//! What stops a wrong `spec.externalName` where: YAML, the API server, or our condition. The real API server is
//! asked, and on ten thousands of generated names the checker must agree with it, and with a resolver.
//!
//! Runs where LANDFALL_TEST_KUBECONFIG names a throw-away cluster; nothing is stored there.
//! LANDFALL_NAMES is how many names are generated.

#![allow(clippy::unwrap_used, clippy::panic)] // A test; the lint knows only those in `#[test]` functions.

use futures::{StreamExt, stream};
use hickory_resolver::proto::rr::Name;
use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use landfall_controller::external_name::name::{Flaw, read};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;

const NAMES: usize = 100_000;

async fn client() -> Option<Client> {
    let Ok(path) = std::env::var("LANDFALL_TEST_KUBECONFIG") else {
        eprintln!("SKIPPED: LANDFALL_TEST_KUBECONFIG names no throw-away cluster");
        return None;
    };
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Some(Client::try_from(config).unwrap())
}

/// Where a Service is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// What was sent cannot be read.
    Yaml,
    /// The API server refuses it.
    ApiServer,
    Nowhere,
}

/// Tries to create a Service of this text, without storing it.
async fn create(client: &Client, content_type: &str, text: String) -> Stop {
    let request = Request::post("/api/v1/namespaces/default/services?dryRun=All")
        .header("Content-Type", content_type)
        .body(text.into_bytes())
        .unwrap();
    match client.request::<serde_json::Value>(request).await {
        Ok(_) => Stop::Nowhere,
        Err(kube::Error::Api(status)) => match status.code {
            400 => Stop::Yaml,
            422 => Stop::ApiServer,
            _ => panic!("{status:?}"),
        },
        Err(error) => panic!("{error}"),
    }
}

async fn create_yaml(client: &Client, external_name: &str) -> Stop {
    let head = "apiVersion: v1\nkind: Service\nmetadata: {name: table}\nspec:\n  type: ExternalName\n";
    create(client, "application/yaml", format!("{head}  externalName: {external_name}\n")).await
}

/// What a person writes behind `externalName:`, what stops it, and the reason that the checker gives; where YAML
/// makes another text of it than what is written, that text.
const TABLE: [(&str, Stop, &str, Option<&str>); 38] = [
    // A name copied with its link: an array, and more behind it.
    ("[https://db.example.com](https://db.example.com/)", Stop::Yaml, "Markdown", None),
    (
        "'[https://db.example.com](https://db.example.com/)'",
        Stop::ApiServer,
        "Markdown",
        Some("[https://db.example.com](https://db.example.com/)"),
    ),
    ("[db.example.com]", Stop::Yaml, "Markdown", None),
    ("*.example.com", Stop::Yaml, "Wildcard", None),
    ("'*.example.com'", Stop::ApiServer, "Wildcard", Some("*.example.com")),
    ("{{ .Values.db }}", Stop::Yaml, "Character", None),
    ("db.example.com: 5432", Stop::Yaml, "SeveralNames", None),
    ("10", Stop::Yaml, "IpAddress", None),
    ("10.1", Stop::Yaml, "IpAddress", None),
    ("true", Stop::Yaml, "SingleLabel", None),
    ("no", Stop::Yaml, "SingleLabel", None),
    ("", Stop::ApiServer, "Empty", None),
    ("~", Stop::ApiServer, "Empty", Some("")),
    ("''", Stop::ApiServer, "Empty", Some("")),
    ("db.example.com # the new one", Stop::Nowhere, "", Some("db.example.com")),
    ("https://db.example.com", Stop::ApiServer, "Url", None),
    ("mongodb://user:secret@db.example.com:27017/prod", Stop::ApiServer, "Url", None),
    ("db.example.com/prod", Stop::ApiServer, "Url", None),
    ("db.example.com:5432", Stop::ApiServer, "Port", None),
    ("a.example.com,b.example.com", Stop::ApiServer, "SeveralNames", None),
    ("' db.example.com'", Stop::ApiServer, "Space", Some(" db.example.com")),
    ("my_db.example.com", Stop::ApiServer, "Underscore", None),
    ("DB.example.com", Stop::ApiServer, "UpperCase", None),
    ("bücher.example.com", Stop::ApiServer, "NotAscii", None),
    ("db..example.com", Stop::ApiServer, "EmptyLabel", None),
    ("-db.example.com", Stop::ApiServer, "Hyphen", None),
    ("fd00::10", Stop::ApiServer, "IpAddress", None),
    ("'::1'", Stop::ApiServer, "IpAddress", Some("::1")),
    // From here on the API server has nothing to say.
    ("10.0.0.1", Stop::Nowhere, "IpAddress", None),
    ("'10.1'", Stop::Nowhere, "IpAddress", Some("10.1")),
    ("1.2.3.4.5", Stop::Nowhere, "NumericTopLevelDomain", None),
    ("mongodb", Stop::Nowhere, "SingleLabel", None),
    ("localhost", Stop::Nowhere, "SpecialUseName", None),
    ("db.prod.svc", Stop::Nowhere, "IncompleteClusterName", None),
    ("db.example.com.", Stop::Nowhere, "", None),
    ("db.prod.svc.cluster.local", Stop::Nowhere, "", None),
    ("xn--bcher-kva.example.com", Stop::Nowhere, "", None),
    ("7.example.com", Stop::Nowhere, "", None),
];

#[tokio::test]
async fn what_stops_where() {
    let Some(client) = client().await else { return };
    let label = format!("{}.example.com", "a".repeat(64));
    let name = format!("{}.example.com", vec!["a"; 121].join("."));
    let long = [
        (label.as_str(), Stop::Nowhere, "LabelTooLong", None),
        (name.as_str(), Stop::ApiServer, "NameTooLong", None),
    ];
    println!("| written | YAML | API server | our condition |");
    for (written, stop, reason, read_as) in TABLE.into_iter().chain(long) {
        let said = read(read_as.unwrap_or(written)).err();
        let known = said.as_ref().map_or("", |fault| fault.flaw.reason());
        assert_eq!(known, reason, "{written}");
        let stopped = create_yaml(&client, written).await;
        let mark = |here| if stopped == here { "stops" } else { "" };
        let condition = if stopped == Stop::Nowhere { known } else { "" };
        println!("| `{written}` | {} | {} | {condition} |", mark(Stop::Yaml), mark(Stop::ApiServer));
        assert_eq!(stopped, stop, "{written}");
        let is_refused = said.is_some_and(|fault| fault.is_refused);
        assert!(stopped == Stop::Yaml || is_refused == (stopped == Stop::ApiServer), "{written}");
    }
}

/// Names, and texts that are nearly names.
fn texts() -> impl Strategy<Value = String> {
    let label = "[a-z0-9]([a-z0-9-]{0,12}[a-z0-9])?";
    let names = proptest::collection::vec(label, 1..5).prop_map(|labels| labels.join("."));
    let spoilt =
        (names.clone(), any::<prop::sample::Index>(), "[A-Z_*:/@ .ü-]").prop_map(|(name, at, strange)| {
            let at = at.index(name.len() + 1);
            format!("{}{strange}{}", &name[..at], &name[at..])
        });
    // Around the limits of 63 and 253 characters.
    let long = (proptest::collection::vec("[a-z0-9-]{40,70}", 3..5), 0_usize..30)
        .prop_map(|(labels, more)| format!("{}.{}", labels.join("."), "x".repeat(more + 1)));
    let numbers = "[0-9]{1,3}(\\.[0-9x]{1,4}){0,4}\\.?";
    prop_oneof![
        3 => names.clone(),
        1 => names.prop_map(|name| format!("{name}.")),
        3 => spoilt,
        2 => long,
        1 => numbers,
        1 => "[a-zA-Z0-9._ -]{0,12}",
        1 => "\\PC{0,20}",
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn on_generated_names_the_checker_agrees_with_the_api_server_and_with_a_resolver() {
    let Some(client) = client().await else { return };
    let many = std::env::var("LANDFALL_NAMES").map_or(NAMES, |many| many.parse().unwrap());
    let mut runner = TestRunner::deterministic();
    let texts: Vec<String> = (0..many).map(|_| texts().new_tree(&mut runner).unwrap().current()).collect();
    let mut refused = 0;
    let mut reasons = std::collections::BTreeMap::<&str, u32>::new();
    let answers = stream::iter(&texts).map(|text| {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "generated"},
            "spec": {"type": "ExternalName", "externalName": text}});
        let client = client.clone();
        async move { (text, create(&client, "application/json", service.to_string()).await) }
    });
    let mut answers = answers.buffer_unordered(64);
    while let Some((text, stop)) = answers.next().await {
        let said = read(text);
        assert_eq!(
            said.as_ref().is_err_and(|fault| fault.is_refused),
            stop == Stop::ApiServer,
            "{text:?}: the API server and {said:?}"
        );
        refused += u32::from(stop == Stop::ApiServer);
        let theirs = Name::from_ascii(text);
        match &said {
            Ok(name) => {
                let theirs = theirs.unwrap_or_else(|error| panic!("{text:?}: {error}")).to_ascii();
                assert_eq!(theirs.trim_end_matches('.'), name.as_str());
            }
            Err(fault) => {
                *reasons.entry(fault.flaw.reason()).or_default() += 1;
                let is_no_name = matches!(fault.flaw, Flaw::LabelTooLong(_) | Flaw::EmptyLabel);
                assert!(!is_no_name || theirs.is_err(), "{text:?} is a name to the resolver");
            }
        }
    }
    println!("{many} names, of which the API server refuses {refused}; flaws: {reasons:?}");
    assert!(refused as usize > many / 4 && (refused as usize) < many * 3 / 4, "both kinds are common");
}
