use hickory_resolver::proto::rr::Name;
use proptest::prelude::*;

use super::*;
use crate::external_name::telling::reasons;

/// What is said of a text: the reason and what to write instead, or the name.
fn said(text: &str) -> (String, Option<String>) {
    match read(text) {
        Ok(name) => (String::new(), Some(name.to_string())),
        Err(fault) => (fault.flaw.reason().to_owned(), fault.instead),
    }
}

#[test]
fn what_people_paste_is_refused_with_what_to_write_instead() {
    let long = format!("{}.example.com", ["a"; 122].join("."));
    let db = Some("db.example.com");
    let table: &[(&str, &str, Option<&str>)] = &[
        ("", "Empty", None),
        (".", "Empty", None),
        ("[https://db.example.com](https://db.example.com/)", "Markdown", db),
        ("[db.example.com](http://db.example.com)", "Markdown", db),
        ("<https://db.example.com>", "Markdown", db),
        ("https://db.example.com", "Url", db),
        ("https://db.example.com:5432/path?query#part", "Url", db),
        ("mongodb://user:secret@db.example.com:27017/prod", "Url", db),
        ("jdbc:postgresql://db.example.com:5432/prod", "Url", db),
        ("//db.example.com", "Url", db),
        ("db.example.com/", "Url", db),
        ("user@db.example.com", "Url", db),
        ("a.example.com,b.example.com", "SeveralNames", None),
        ("a.example.com b.example.com", "SeveralNames", None),
        ("mongodb://a.example.com:27017,b.example.com:27017/prod", "SeveralNames", None),
        ("https://db.example.com/?hosts=a,b", "Url", db),
        (" db.example.com", "Space", db),
        ("db.example.com\n", "Space", db),
        ("db.example.com:5432", "Port", db),
        ("*.example.com", "Wildcard", None),
        ("my_db.example.com", "Underscore", None),
        ("_mongodb._tcp.example.com", "Underscore", None),
        ("bücher.example.com", "NotAscii", Some("xn--bcher-kva.example.com")),
        ("例え.テスト.example", "NotAscii", Some("xn--r8jz45g.xn--zckzah.example")),
        ("DB.Example.COM", "UpperCase", db),
        ("db..example.com", "EmptyLabel", db),
        (".db.example.com", "EmptyLabel", db),
        ("db.example.com..", "EmptyLabel", db),
        ("..", "EmptyLabel", None),
        ("-db.example.com", "Hyphen", None),
        ("db-.example.com", "Hyphen", None),
        ("db.example.com\\", "Character", None),
        ("'db.example.com'", "Character", db),
        ("db.example.com\u{7f}", "Character", None),
        (&long, "NameTooLong", None),
        ("::1", "IpAddress", None),
        ("fd00::10", "IpAddress", None),
        ("[fd00::10]:5432", "IpAddress", None),
        ("https://[fd00::10]/", "IpAddress", None),
        ("10.0.0.1:5432", "IpAddress", None),
        ("http://10.0.0.1/", "IpAddress", None),
    ];
    for (text, reason, instead) in table {
        assert_eq!(said(text), ((*reason).to_owned(), instead.map(str::to_owned)), "{text:?}");
        assert!(read(text).unwrap_err().is_refused, "{text:?}");
    }
}

#[test]
fn what_passes_the_api_server_and_helps_nobody_is_named() {
    let label = "a".repeat(64);
    let table: &[(&str, &str)] = &[
        ("10.0.0.1", "IpAddress"),
        ("10.0.0.1.", "IpAddress"),
        ("127.1", "IpAddress"),
        ("0x7f.1", "IpAddress"),
        ("0177.0.0.1", "IpAddress"),
        ("2130706433", "IpAddress"),
        ("1.2.3.4.5", "NumericTopLevelDomain"),
        ("10.0.0.256", "NumericTopLevelDomain"),
        ("db.example.0x1f", "NumericTopLevelDomain"),
        ("08.1", "NumericTopLevelDomain"),
        (&format!("{label}.example.com"), "LabelTooLong"),
        ("mongodb", "SingleLabel"),
        ("mongodb.", "SingleLabel"),
        ("localhost", "SpecialUseName"),
        ("db.localhost", "SpecialUseName"),
        ("db.invalid", "SpecialUseName"),
        ("db.prod.svc", "IncompleteClusterName"),
    ];
    for (text, reason) in table {
        let fault = read(text).unwrap_err();
        assert_eq!((fault.flaw.reason(), fault.is_refused), (*reason, false), "{text:?}");
        assert!(reasons::OF_NAME_VALID.contains(reason), "{reason}");
    }
}

#[test]
fn good_names_are_taken_as_they_are_without_the_dot_at_their_end() {
    let longest = format!("{}.example.com", ["a"; 120].join("."));
    let label = format!("{}.example.com", "a".repeat(63));
    for text in [
        "db.example.com",
        "db.prod.svc.cluster.local",
        "7.example.com",
        "xn--bcher-kva.example",
        "a-b.c--d.e",
        &label,
    ] {
        assert_eq!(read(text).unwrap().as_str(), text);
        assert_eq!(read(&format!("{text}.")).unwrap().as_str(), text);
    }
    assert_eq!(longest.len(), 251);
    assert!(
        read(&longest).is_ok()
            && read(&format!("aa{longest}")).is_ok()
            && read(&format!("aaa{longest}")).is_err()
    );
    let single = read_leniently("mongodb.").unwrap();
    assert_eq!(single.as_str(), "mongodb", "somebody may serve it");
    assert!(read_leniently("10.0.0.1").is_err());
}

#[test]
fn a_fault_reads_as_a_sentence_about_the_name() {
    let text = |text: &str| format!("{text}: {}", read(text).unwrap_err());
    assert_eq!(
        text("db.example.com:5432"),
        "db.example.com:5432: it names a port, which belongs to spec.ports and to the client's own settings: write db.example.com"
    );
    assert_eq!(
        text("10.1"),
        "10.1: it is an IP address, and a CNAME leads to a name, so pods are told that there is no such name: for \
         10.0.0.1 take a Service without a selector, and an EndpointSlice that holds the address"
    );
    let secret = read("mongodb://user:secret@db.example.com").unwrap_err().to_string();
    assert!(!secret.contains("secret") && secret.ends_with("write db.example.com"), "{secret}");
}

/// The rule of the API server in the words of its own source, to compare with.
fn is_accepted_by_the_api_server(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    !name.is_empty() && name.len() <= 253 && {
        let mut labels = name.split('.');
        labels.all(|label| {
            let bytes = label.as_bytes();
            let edge = |byte: Option<&u8>| {
                byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            };
            edge(bytes.first())
                && edge(bytes.last())
                && bytes
                    .iter()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_makes_the_reader_panic_and_what_it_says_to_write_is_good(text in any::<String>()) {
        if let Err(Fault { instead: Some(instead), .. }) = read(&text) {
            prop_assert!(read(&instead).is_ok(), "{text:?} becomes {instead:?}");
        }
    }

    #[test]
    fn names_and_near_misses_are_refused_as_by_the_api_server(
        text in "[a-zA-Z0-9._:/@*ü -]{0,12}(\\.[a-z0-9-]{0,70}){0,4}\\.?",
    ) {
        let refused = read(&text).is_err_and(|fault| fault.is_refused);
        prop_assert_eq!(refused, !is_accepted_by_the_api_server(&text), "{:?}", text);
    }

    #[test]
    fn a_good_name_is_one_to_a_resolver_too(text in "[a-z0-9-]{1,70}(\\.[a-z0-9-]{1,70}){0,5}\\.?") {
        let theirs = Name::from_ascii(&text);
        match read(&text) {
            Ok(name) => {
                let mut theirs = theirs.unwrap();
                theirs.set_fqdn(true);
                prop_assert_eq!(theirs.to_ascii(), format!("{name}."));
            }
            // What only people or programs are led astray by is a name all the same.
            Err(fault) => {
                let is_no_name = matches!(
                    fault.flaw,
                    Flaw::LabelTooLong(_) | Flaw::EmptyLabel | Flaw::NameTooLong(_)
                );
                prop_assert!(!is_no_name || theirs.is_err(), "{}: {:?}", text, theirs);
            }
        }
    }
}
