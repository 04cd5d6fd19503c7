//! What users are told is what the code says.

use std::collections::BTreeSet;

use landfall_controller::backing::judge;
use landfall_controller::exposing;
use landfall_controller::external_name::telling;
use landfall_controller::granting::wait::reasons;

/// The page for users.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/services.md");
/// The page on external names.
const EXTERNAL_NAMES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/external-name.md");

/// The cells of the first table below a heading, row by row, without the table's own heading.
fn table<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let section = page.lines().skip_while(|line| *line != heading).skip(1);
    let section = section.take_while(|line| !line.starts_with("## "));
    let rows = section.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |row: &'a str| row.trim_matches('|').split('|').map(str::trim).collect();
    rows.skip(2).map(cells).collect()
}

#[test]
fn the_page_on_services_lists_every_reason_for_waiting_and_no_others() {
    let page = std::fs::read_to_string(PAGE).unwrap_or_else(|error| panic!("{PAGE}: {error}"));
    let rows = table(&page, "## Reasons");
    let named = |row: &Vec<&str>| row[0].trim_matches('`').to_owned();
    let listed: Vec<String> = rows.iter().map(named).collect();
    let documented: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    assert_eq!(documented, BTreeSet::from(reasons::ALL), "the table below '## Reasons' of {PAGE}");
    assert_eq!(listed.len(), documented.len(), "a reason is listed twice: {listed:?}");
    for row in &rows {
        let [reason, means, advice] = row[..] else { panic!("not three cells: {row:?}") };
        assert!(!means.is_empty(), "{reason} has no meaning");
        // Who has what it asked for need do nothing.
        assert_eq!(
            advice.is_empty(),
            named(row) == reasons::GRANTED,
            "what to do about {reason}: '{advice}'"
        );
    }
}

#[test]
fn the_page_on_external_names_lists_every_reason_and_no_others() {
    let page =
        std::fs::read_to_string(EXTERNAL_NAMES).unwrap_or_else(|error| panic!("{EXTERNAL_NAMES}: {error}"));
    for (heading, reasons) in [
        ("## Reasons of NameValid", &telling::reasons::OF_NAME_VALID[..]),
        ("## Reasons of Resolved", &telling::reasons::OF_RESOLVED),
        ("## Reasons of Exposed", &exposing::mind::reasons::ALL),
        ("## Reasons of ManualEndpoints", &judge::reasons::OF_MANUAL_ENDPOINTS),
    ] {
        let rows = table(&page, heading);
        let listed: Vec<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
        let documented: BTreeSet<&str> = listed.iter().copied().collect();
        assert_eq!(
            documented,
            reasons.iter().copied().collect(),
            "the table below '{heading}' of {EXTERNAL_NAMES}"
        );
        assert_eq!(listed.len(), documented.len(), "a reason is listed twice: {listed:?}");
    }
}
