//! For how long anything may not hold, and why. Times of the world, at the usual pace of 100 ms, three times.

use std::time::Duration;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// I1: what nothing excuses. A handover between two that live has no void at all; only the order in which one
/// instant's events are looked at is forgiven.
pub const NOTHING: Duration = ms(1);
/// I1: the node of the announcer is silent. Its last heartbeat is as good as new, the next is late after 105 ms,
/// ten probes take 50 ms and the last has 5 ms; the rest is the way of frames and the drift of clocks.
pub const VERIFIED: Duration = ms(170);
/// I1: nobody answers at the moment in which a new process of another node goes on in place of a former one. What
/// that one had found out of a silent peer is found out anew, from a heartbeat that is late by then.
pub const UPGRADED: Duration = ms(100);
/// I1: its process is gone, and its kernel says so: three heartbeats.
pub const SILENT: Duration = ms(315);
/// I1: its process is not run and its kernel answers: a second, in which its node still forwards.
pub const STARVED: Duration = ms(1030);
/// I1: it hears nobody, though it is heard. It is isolated after three heartbeats, says so with the next, and is
/// not waited for any more when it has said so for three.
pub const DEAF: Duration = ms(800);
/// I1: who is left hears nobody at all, no station either: three heartbeats, a second, and the last question.
pub const ALONE: Duration = ms(1600);
/// I1: an announcer that heard no other speaker for a while hears one again, which comes within 100 ms: it keeps
/// silent until it knows what that one announces, and for 120 ms where others might yet be heard.
pub const HUSHED: Duration = ms(260);
/// I1: a better candidate was never heard, so it is not known to be dead: it is given 100 ms, and the LAN is asked.
pub const RANK: Duration = ms(100);
/// I1: an address is new, or claimed again: the best that was told claims at once; the next waits 100 ms longer for
/// each place that it ranks behind, and one that was never announced is probed for 150 ms.
pub const CLAIMED: Duration = ms(700);
/// I1: more than one thing went wrong within [`SETTLED`]: all that waits for anything has waited by then, one after
/// the other: three heartbeats, a second that a kernel answers or that an isolated node waits, half a second of
/// hush, and the places in the ranking.
pub const RECOVERY: Duration = ms(2500);

/// I2: the new announcer speaks first and the old one stops when it has heard of it: both forward meanwhile.
pub const HANDOVER: Duration = ms(50);
/// I2: two that could not hear each other can again: the first heartbeat comes within 100 ms, and by 100 ms after
/// it the one that yields has learned of the other's claim.
pub const AFTER_HEAL: Duration = ms(200);

/// I2: two that do not hear each other are heard by a third. It hears a heartbeat of each within 100 ms, waits for
/// 25 ms and its turn whether one of them stops by itself, and then tells the one that is to yield, twice if need be.
pub const WITNESSED: Duration = ms(350);

/// So often in so long anybody may begin to answer for an address, whatever goes wrong meanwhile.
pub const MOST_BEGUN: usize = 20;
pub const A_WHILE: Duration = ms(2000);

/// I6: a node that nothing happened to for as long has no excuse to lose an address to another one.
pub const SETTLED: Duration = ms(2000);
/// I6: an address is at home with the only node that has answered for it for as long.
pub const AT_HOME: Duration = ms(500);
