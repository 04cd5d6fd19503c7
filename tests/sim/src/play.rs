//! Plays a script, mends everything, and sees that all ends well.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;
use std::time::Duration;

use landfall_crds::Fallback;
use landfall_speaker::lan::{NodeName, Vip};

use crate::fault::Undo;
use crate::invariants::{Broken, Closest};
use crate::node::Families;
use crate::script::{Script, Step};
use crate::world::{World, ms, vip_address, vip_address6};

/// Before anything goes wrong all has come to rest.
const SETTLES: Duration = Duration::from_millis(4000);
/// After everything is mended all comes to rest again within this time: the longest that anything is waited for
/// is the handover of an announcer that may not announce any more (3 s), while the API's news come late.
const COMES_TO_REST: Duration = Duration::from_secs(9);
/// What the objects say follows when the longest wait after failed writes is over (`queue.rs`).
const IS_WRITTEN: Duration = Duration::from_secs(45);

/// What came of a run.
#[derive(Default)]
pub struct Played {
    pub broken: Option<Broken>,
    /// How many faults there were, by kind.
    pub faults: BTreeMap<String, u64>,
    pub events: u64,
    pub sent: u64,
    pub lost: u64,
    pub writes: u64,
    pub lasted: Duration,
    pub closest: Closest,
    /// What happened, if it was to be told.
    pub story: Vec<String>,
}

/// Plays a script from beginning to end, or until an invariant is broken.
pub fn play(script: &Script, is_told: bool) -> Played {
    let mut world = World::with(script.setting.clone());
    world.judge.panics = false;
    if is_told {
        world.story.begin();
    }
    furnish(&mut world, script);
    world.run(SETTLES);
    let mut played = Played::default();
    perform(&mut world, &script.steps, &mut played.faults);
    if !world.judge.is_broken() {
        world.story.tell(world.now, || "everything is mended".into());
        come_to_rest(&mut world, script.setting.seed.is_multiple_of(8));
    }
    played.broken = world.judge.broken().cloned();
    (played.events, played.sent, played.lost) = (world.events, world.sent, world.lost);
    (played.writes, played.lasted) = (world.writes, world.elapsed());
    played.closest = std::mem::take(&mut world.judge.closest);
    if is_told {
        played.story = world.story.lines(world.start);
        for address in world.judge.addresses.iter().map(|address| address.address) {
            played.story.push(format!("At the end:{}", world.describe(address)));
        }
    }
    played
}

/// The addresses of a script.
pub fn addresses(script: &Script) -> Vec<IpAddr> {
    let address = |number| match script.setting.families {
        Families::V6 => vip_address6(number),
        Families::Both if number % 2 == 0 && !script.controller => vip_address6(number),
        _ => vip_address(number),
    };
    (1..=script.vips).map(address).collect()
}

fn furnish(world: &mut World, script: &Script) {
    let addresses = addresses(script);
    for number in 0..world.nodes.len() {
        world.start_node(number);
        let pause = world.random.below(40);
        world.run(ms(pause));
    }
    if script.controller {
        let (first, last) = (addresses[0], addresses[addresses.len() - 1]);
        world.furnish_cluster(&format!("{first}-{last}"));
        world.start_controller();
        for number in 0..script.vips {
            world.create_service(&format!("s{number}"));
        }
    } else {
        let nodes = world.nodes.len();
        for (number, address) in addresses.iter().enumerate() {
            let candidates = (0..nodes).map(|place| world.nodes[(number + place) % nodes].name.clone());
            let candidates: Vec<NodeName> = candidates.collect();
            world.write_vip(&Vip {
                address: *address,
                claimed: true,
                epoch: 1,
                candidates,
                interfaces: Vec::new(),
                fallback: Fallback::None,
                health_checks: Vec::new(),
                last_term: 0,
                guard: None,
                announced_before: number % 2 == 0,
            });
        }
    }
    for address in addresses {
        world.watch(address);
    }
}

/// Begins and ends each fault at its time.
fn perform(world: &mut World, steps: &[Step], faults: &mut BTreeMap<String, u64>) {
    let from = world.now;
    let mut agenda: BinaryHeap<Reverse<(u64, bool, usize)>> =
        steps.iter().enumerate().map(|(number, step)| Reverse((step.at, true, number))).collect();
    let mut undos: BTreeMap<usize, Undo> = BTreeMap::new();
    while let Some(Reverse((at, begins, number))) = agenda.pop() {
        world.run_to(from + ms(at));
        if world.judge.is_broken() {
            return;
        }
        let Step { lasts, fault, .. } = &steps[number];
        if begins {
            if let Some(undo) = world.begin(fault, ms(*lasts)) {
                *faults.entry(fault.name()).or_default() += 1;
                undos.insert(number, undo);
                agenda.push(Reverse((at + lasts, false, number)));
            }
        } else if let Some(undo) = undos.get_mut(&number)
            && !world.end(fault, undo)
        {
            agenda.push(Reverse((at + 100, false, number)));
        }
    }
}

/// Everything is mended: all comes to rest, and what the API says follows.
fn come_to_rest(world: &mut World, is_written: bool) {
    world.run(COMES_TO_REST);
    for at in 0..world.judge.addresses.len() {
        let address = world.judge.addresses[at].address;
        let Some(vip) = world.vip(address) else { continue };
        let answering = world.answering(address);
        let wanted = usize::from(vip.claimed && !vip.candidates.is_empty());
        if answering.len() != wanted {
            let who: Vec<String> = answering.iter().map(|node| format!("n{}", node + 1)).collect();
            let what = format!(
                "{COMES_TO_REST:?} after everything was mended {address} is answered by [{}]: {}",
                who.join(", "),
                world.describe(address)
            );
            world.judge.found("comes_to_rest", world.now, what);
        }
    }
    if !is_written || world.judge.is_broken() {
        return;
    }
    world.run(IS_WRITTEN);
    for at in 0..world.judge.addresses.len() {
        let address = world.judge.addresses[at].address;
        let Some(object) = world.api.vip(address) else { continue };
        let announcer = object.status.as_ref().and_then(|status| status.announcer.as_ref());
        let said = announcer.map(|announcer| announcer.node.clone());
        let is = world.owner(address).map(|owner| world.nodes[owner].name.to_string());
        if said != is {
            let what = format!("the object of {address} says that {said:?} announces it, and {is:?} does");
            world.judge.found("is_written", world.now, what);
        }
    }
}
