//! What users are told is what the code says.

#![allow(clippy::panic)]

use std::collections::BTreeSet;

use landfall_controller::granting::guard;
use landfall_controller::granting::wait::reasons;
use landfall_controller::status::announced;

/// The page for users.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/services.md");

/// The cells of the first table below a heading, row by row, without the table's own heading.
fn table<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let section = page.lines().skip_while(|line| *line != heading).skip(1);
    let section = section.take_while(|line| !line.starts_with("## "));
    let rows = section.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |row: &'a str| row.trim_matches('|').split('|').map(str::trim).collect();
    rows.skip(2).map(cells).collect()
}

/// The table below a heading lists these reasons and no others, each once, with its meaning and what to do. Who
/// has `all_well` need do nothing.
fn assert_lists(heading: &str, reasons: &[&str], all_well: &str) {
    let page = std::fs::read_to_string(PAGE).unwrap_or_else(|error| panic!("{PAGE}: {error}"));
    let rows = table(&page, heading);
    let named = |row: &Vec<&str>| row[0].trim_matches('`').to_owned();
    let listed: Vec<String> = rows.iter().map(named).collect();
    let documented: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    let reasons: BTreeSet<&str> = reasons.iter().copied().collect();
    assert_eq!(documented, reasons, "the table below '{heading}' of {PAGE}");
    assert_eq!(listed.len(), documented.len(), "a reason is listed twice: {listed:?}");
    for row in &rows {
        let [reason, means, advice] = row[..] else { panic!("not three cells: {row:?}") };
        assert!(!means.is_empty(), "{reason} has no meaning");
        assert_eq!(advice.is_empty(), named(row) == all_well, "what to do about {reason}: '{advice}'");
    }
}

#[test]
fn the_page_on_services_lists_every_reason_for_waiting_and_no_others() {
    assert_lists("## Reasons", &reasons::ALL, reasons::GRANTED);
}

#[test]
fn the_page_on_services_lists_every_reason_for_which_one_is_not_announced_and_no_others() {
    assert_lists("## When it is not announced", &announced::ALL, announced::ANNOUNCED);
}

#[test]
fn the_page_on_services_lists_all_that_is_said_of_who_may_connect() {
    assert_lists(
        "## When nobody gets in, or more than should",
        &guard::reasons::ALL,
        guard::reasons::GUARDED,
    );
}
