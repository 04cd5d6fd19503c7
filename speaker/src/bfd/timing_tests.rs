//! When a change holds, and when the peer is told of it.

use super::*;
use Polling::{Final, None, Poll};

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn interval(milliseconds: u64) -> Interval {
    Interval::try_from(ms(milliseconds)).unwrap()
}

fn timing(tx: u64, rx: u64) -> Timing {
    let detect_mult = NonZeroU8::new(3).unwrap();
    Timing { desired_min_tx: interval(tx), required_min_rx: interval(rx), detect_mult }
}

/// What it sends by and what it expects, in milliseconds, where the peer asks for nothing slower.
fn valid(negotiation: &Negotiation) -> (u128, u128) {
    let transmit = negotiation.transmit_interval(Micros(1));
    let detection = negotiation.detection_time(NonZeroU8::MIN, Micros(1));
    (transmit.as_millis(), detection.as_millis())
}

fn told(negotiation: &Negotiation) -> (u32, u32) {
    let Intervals { desired_min_tx, required_min_rx } = negotiation.told();
    (desired_min_tx.micros().0 / 1000, required_min_rx.micros().0 / 1000)
}

fn want(negotiation: &mut Negotiation, tx: u64, rx: u64, is_up: bool) {
    negotiation.want(timing(tx, rx));
    negotiation.settle(is_up);
}

/// A session that has been up for long.
fn up(tx: u64, rx: u64) -> Negotiation {
    let mut negotiation = Negotiation::new(timing(tx, rx), true);
    negotiation.settle(true);
    assert!(!negotiation.is_polling());
    negotiation
}

#[test]
fn to_send_more_slowly_waits_for_the_answer() {
    let mut negotiation = up(100, 100);
    want(&mut negotiation, 500, 100, true);
    assert!(negotiation.is_polling());
    assert_eq!((told(&negotiation), valid(&negotiation)), ((500, 100), (100, 100)));
    negotiation.heard(Final);
    assert_eq!(valid(&negotiation), (100, 100), "nothing was asked yet that it could answer");
    negotiation.sent(Poll);
    for polling in [None, Poll] {
        negotiation.heard(polling);
        assert_eq!(valid(&negotiation), (100, 100));
    }
    negotiation.heard(Final);
    assert_eq!((valid(&negotiation), negotiation.is_polling()), ((500, 100), false));
}

#[test]
fn to_expect_faster_packets_waits_for_the_answer() {
    let mut negotiation = up(100, 500);
    want(&mut negotiation, 100, 100, true);
    assert_eq!((told(&negotiation), valid(&negotiation)), ((100, 100), (100, 500)));
    negotiation.sent(Poll);
    negotiation.heard(Final);
    assert_eq!(valid(&negotiation), (100, 100));
}

#[test]
fn to_send_faster_and_to_expect_slower_packets_holds_at_once() {
    let mut negotiation = up(100, 100);
    want(&mut negotiation, 20, 500, true);
    assert!(negotiation.is_polling());
    assert_eq!((told(&negotiation), valid(&negotiation)), ((20, 500), (20, 500)));
}

#[test]
fn a_second_change_waits_until_a_late_answer_cannot_be_taken_for_its_own() {
    let mut negotiation = up(100, 100);
    want(&mut negotiation, 500, 100, true);
    negotiation.sent(Poll);
    want(&mut negotiation, 900, 100, true);
    assert_eq!(told(&negotiation), (500, 100));
    negotiation.heard(Final);
    negotiation.settle(true);
    assert_eq!((told(&negotiation), negotiation.is_polling()), ((500, 100), false));
    negotiation.heard(Final);
    negotiation.settle(true);
    assert_eq!(told(&negotiation), (500, 100));
    negotiation.heard(None);
    negotiation.settle(true);
    assert_eq!((told(&negotiation), valid(&negotiation)), ((900, 100), (500, 100)));
    negotiation.sent(Poll);
    negotiation.heard(Final);
    assert_eq!(valid(&negotiation), (900, 100));
}

#[test]
fn changes_before_the_first_packet_of_a_poll_are_one_change() {
    let mut negotiation = up(100, 100);
    want(&mut negotiation, 500, 100, true);
    want(&mut negotiation, 300, 50, true);
    assert_eq!((told(&negotiation), valid(&negotiation)), ((300, 50), (100, 100)));
    negotiation.sent(Poll);
    negotiation.heard(Final);
    assert_eq!(valid(&negotiation), (300, 50));
}

#[test]
fn while_a_session_is_not_up_everything_holds_at_once() {
    let mut negotiation = up(100, 100);
    want(&mut negotiation, 500, 50, true);
    negotiation.sent(Poll);
    negotiation.settle(false);
    assert_eq!((told(&negotiation), valid(&negotiation)), ((500, 50), (500, 50)));
    want(&mut negotiation, 900, 20, false);
    assert_eq!((told(&negotiation), valid(&negotiation)), ((900, 20), (900, 20)));
    assert!(negotiation.is_polling());
}

#[test]
fn without_a_steady_pace_a_session_that_is_not_up_is_slow() {
    let mut negotiation = Negotiation::new(timing(100, 100), false);
    negotiation.settle(false);
    assert_eq!((told(&negotiation), valid(&negotiation)), ((1000, 100), (1000, 100)));
    assert!(!negotiation.is_polling(), "so it was from the first packet on");
    negotiation.settle(true);
    assert_eq!((told(&negotiation), valid(&negotiation)), ((100, 100), (100, 100)));
    assert!(negotiation.is_polling());
    negotiation.settle(false);
    assert_eq!((told(&negotiation), valid(&negotiation)), ((1000, 100), (1000, 100)));
    want(&mut negotiation, 3000, 100, false);
    assert_eq!(valid(&negotiation), (3000, 100), "what is slower by itself stays so");
}

#[test]
fn the_slower_end_decides() {
    let negotiation = up(100, 200);
    assert_eq!(negotiation.transmit_interval(Micros(50_000)), ms(100));
    assert_eq!(negotiation.transmit_interval(Micros(300_000)), ms(300));
    let mult = |mult| NonZeroU8::new(mult).unwrap();
    assert_eq!(negotiation.detection_time(mult(3), Micros(50_000)), ms(600));
    assert_eq!(negotiation.detection_time(mult(5), Micros(300_000)), ms(1500));
    let longest = negotiation.detection_time(mult(255), Micros(u32::MAX));
    assert_eq!(longest, Micros(u32::MAX).duration() * 255);
}

#[test]
fn intervals_are_what_a_packet_can_carry() {
    for wrong in [Duration::ZERO, Duration::from_nanos(999), Duration::from_micros(1 << 32)] {
        assert_eq!(Interval::try_from(wrong), Err(IntervalError(wrong)));
    }
    let longest = Duration::from_micros(u32::MAX.into());
    assert_eq!(Interval::try_from(longest).unwrap().micros(), Micros(u32::MAX));
}
