//! The mistakes, each at one place of `controller/src`.
//!
//! Each is a slip that somebody could make, and that compiles. Small originals that say the point of
//! their line live longest. Where the code has changed so that one is not found any more, look for the
//! place that now keeps the promise, and break it there.

/// One mistake.
pub(crate) struct Mutation {
    /// What goes wrong, in words.
    pub(crate) name: &'static str,
    /// The file, below `controller/src`.
    pub(crate) file: &'static str,
    /// What stands there, exactly once.
    pub(crate) original: &'static str,
    /// What is built in its place. `MUTANT` stands for an expression that is true in the run of this
    /// mutation, `ORIGINAL` for the original.
    pub(crate) mutated: &'static str,
}

const fn mistake(
    name: &'static str,
    file: &'static str,
    original: &'static str,
    mutated: &'static str,
) -> Mutation {
    Mutation { name, file, original, mutated }
}

/// All of them.
pub(crate) const MUTATIONS: &[Mutation] = &[
    // What makes a write safe to be applied late or twice.
    mistake(
        "writes carry no resourceVersion",
        "mind/subject.rs",
        "meta.resource_version.clone().unwrap_or_default()",
        "if MUTANT { String::new() } else { ORIGINAL }",
    ),
    mistake(
        "an address is taken over without its VirtualIP's resourceVersion",
        "mind/service.rs",
        "Some(vip) => Effect::UpdateVirtualIp { virtual_ip: exactly(&vip.metadata), spec },",
        r"Some(vip) => {
                let mut virtual_ip = exactly(&vip.metadata);
                if MUTANT {
                    virtual_ip.resource_version.clear();
                }
                Effect::UpdateVirtualIp { virtual_ip, spec }
            }",
    ),
    mistake(
        "a VirtualIP is deleted whatever has become of it",
        "mind/release.rs",
        "false => Effect::DeleteVirtualIp { virtual_ip },",
        r"false if MUTANT => {
                let resource_version = String::new();
                let virtual_ip = crate::effects::Exactly { resource_version, ..virtual_ip };
                Effect::DeleteVirtualIp { virtual_ip }
            }
            ORIGINAL",
    ),
    mistake(
        "a claim keeps the uid of a Service that is gone",
        "granting/claim.rs",
        "let uid = service.metadata.uid.clone().unwrap_or_default();",
        r"let uid = match known {
            Some(known) if MUTANT => known.uid.clone(),
            _ => service.metadata.uid.clone().unwrap_or_default(),
        };",
    ),
    mistake(
        "an object that is gone takes its successor of another uid along",
        "world/store.rs",
        "Some(uid) => known.object.meta().uid.as_deref() == Some(uid),",
        "Some(uid) => MUTANT || known.object.meta().uid.as_deref() == Some(uid),",
    ),
    mistake(
        "a namespace of another uid inherits what was kept",
        "world/namespaces.rs",
        "known.uid != uid",
        "!MUTANT && ORIGINAL",
    ),
    mistake("an older state replaces a newer one", "world/store.rs", "if is_old {", "if is_old && !MUTANT {"),
    mistake(
        "what is gone comes back from a watch that lags",
        "world/store.rs",
        "offered <= *floor",
        "!MUTANT && ORIGINAL",
    ),
    mistake(
        "an answer from before a deletion is taken for true",
        "mind/outcome.rs",
        "if is_void => {}",
        "if is_void && !MUTANT => {}",
    ),
    mistake(
        "after a conflict nobody asks who has the address",
        "mind/outcome.rs",
        "if let Some(question) = question(&subject) {",
        "if let Some(question) = question(&subject).filter(|_| !MUTANT) {",
    ),
    // The order of safety: what is written before what.
    mistake(
        "an address is claimed before the finalizers stand",
        "mind/service.rs",
        "if plan.has_any() && !has_both_finalizers(service) {",
        "if !MUTANT && plan.has_any() && !has_both_finalizers(service) {",
    ),
    mistake(
        "an address is shown before its claim is confirmed",
        "mind/service.rs",
        "        stale.is_empty()",
        "        MUTANT || stale.is_empty()",
    ),
    mistake(
        "a claim is dropped before the status lets go of the address",
        "mind/service.rs",
        r"if is_shown {
            for address in &plan.surplus {",
        r"if is_shown || MUTANT {
            for address in &plan.surplus {",
    ),
    mistake(
        "a VirtualIP is deleted before its last holder was asked",
        "mind/release.rs",
        "if live < unclaimed {",
        "if !MUTANT && live < unclaimed {",
    ),
    mistake(
        "a VirtualIP is deleted while its last holder shows it",
        "mind/release.rs",
        "for holder in late_holders(&vip, now) {",
        "for holder in late_holders(&vip, now).into_iter().filter(|_| !MUTANT) {",
    ),
    mistake(
        "the claims of a missing Service are dropped without asking for it",
        "mind/release.rs",
        "if asked.is_none_or(|asked| asked < learned.unwrap_or(0)) {",
        "if !MUTANT && asked.is_none_or(|asked| asked < learned.unwrap_or(0)) {",
    ),
    mistake(
        "finalizers go while a node still answers",
        "mind/release.rs",
        "self.has_our_marks(service) && self.are_all_withdrawn(now, key)",
        "self.has_our_marks(service) && (MUTANT || self.are_all_withdrawn(now, key))",
    ),
    mistake(
        "an address is granted anew while a node still answers",
        "mind/release.rs",
        "!self.is_withdrawn(now, address, &subject)",
        "!(MUTANT || self.is_withdrawn(now, address, &subject))",
    ),
    mistake(
        "a silent announcer is waited for without bound",
        "mind/release.rs",
        "if until <= now.monotonic {",
        "if until <= now.monotonic && !MUTANT {",
    ),
    mistake(
        "one opinion of two makes a node dead",
        "world/nodes.rs",
        "*votes > 0",
        "*votes > if MUTANT { -1 } else { 0 }",
    ),
    mistake(
        "a write that changes nothing is made all the same",
        "mind/service.rs",
        "if is_shown && already_said(",
        "if !MUTANT && is_shown && already_said(",
    ),
    // Epochs.
    mistake(
        "an epoch is used again",
        "mind/service.rs",
        "None => self.next_epoch(now.wall),",
        r"None if MUTANT => self.last_epoch,
            ORIGINAL",
    ),
    mistake(
        "an epoch does not outlive its claim",
        "mind/service.rs",
        "Some(placement) => placement.epoch,",
        r"Some(_) if MUTANT && current.is_some_and(|spec| spec.claims.is_empty()) => 1,
            ORIGINAL",
    ),
    mistake(
        "epochs begin anew with the controller",
        "mind/placing.rs",
        ".max(wall.as_millisecond())",
        ".max(if MUTANT { 0 } else { wall.as_millisecond() })",
    ),
    mistake(
        "a clock that was set back brings an epoch back",
        "mind/placing.rs",
        "(self.last_epoch + 1)",
        "(if MUTANT { 0 } else { self.last_epoch + 1 })",
    ),
    // What is granted at all.
    mistake(
        "exclude is ignored",
        "granting/book.rs",
        "pool.spec.grantable()",
        r"if MUTANT {
            landfall_crds::IPPoolSpec { exclude: Vec::new(), ..pool.spec.clone() }.grantable()
        } else {
            ORIGINAL
        }",
    ),
    mistake(
        "a node's own addresses are granted",
        "mind/surroundings.rs",
        "self.move_holds(&addresses, &self.nodes.own_addresses(name), &node);",
        r"if !MUTANT {
            ORIGINAL
        }",
    ),
    mistake(
        "gateways are granted",
        "mind/surroundings.rs",
        "self.move_holds(&gateways, &self.nodes.gateways(name), &gateway);",
        r"if !MUTANT {
            ORIGINAL
        }",
    ),
    mistake(
        "what the cluster uses inside is granted",
        "granting/book.rs",
        "pool.own.subtract(&shared);",
        r"if !MUTANT {
                        ORIGINAL
                    }",
    ),
    mistake(
        "both of two pools grant what they share",
        "granting/book.rs",
        "pool.own.subtract(&older);",
        r"if !MUTANT {
                ORIGINAL
            }",
    ),
    mistake(
        "a pool that is being deleted grants",
        "granting/book.rs",
        "self.object.metadata.deletion_timestamp.is_none()",
        "(MUTANT || ORIGINAL)",
    ),
    mistake(
        "what another Service's status shows is granted",
        "granting/choice.rs",
        "Holder::Status(by) | Holder::Lost(by) if !is_beside(by) => {",
        "Holder::Status(by) | Holder::Lost(by) if !MUTANT && !is_beside(by) => {",
    ),
    mistake(
        "what has vanished under a Service is granted to another",
        "mind/lost.rs",
        "self.hold(address, Holder::Lost(key.clone()));",
        r"if !MUTANT {
                ORIGINAL
            }",
    ),
    mistake(
        "what has vanished is given on before the API server was asked",
        "mind/lost.rs",
        "if !certain {",
        "if !certain && !MUTANT {",
    ),
    mistake(
        "the addresses of another implementation are taken over unasked",
        "granting/verdict.rs",
        "if annotation(service, annotations::ADOPT) != Some(\"true\") {",
        "if !MUTANT && annotation(service, annotations::ADOPT) != Some(\"true\") {",
    ),
    // To whom a pool gives.
    mistake(
        "a requested address needs no quota",
        "granting/choice.rs",
        "if address.is_some_and(uses) {",
        "if address.is_some_and(|address| MUTANT || uses(address)) {",
    ),
    mistake(
        "a requested address needs no rule of its pool",
        "granting/choice.rs",
        "serves(pool, &self.asker(name, pool, family), self.view.default_deny)?;",
        r"if !(MUTANT && address.is_some()) {
            ORIGINAL
        }",
    ),
    mistake(
        "who asks for an internal load balancer gets what may be public",
        "granting/rules.rs",
        "Scope::Any => !internal || names_it,",
        "Scope::Any => MUTANT || !internal || names_it,",
    ),
    mistake(
        "a namespace is selected whatever its labels are",
        "granting/rules.rs",
        "if !selects(selector, labels) {",
        "if !MUTANT && !selects(selector, labels) {",
    ),
    mistake(
        "default-deny is ignored",
        "granting/rules.rs",
        "None if default_deny => {",
        "None if default_deny && !MUTANT => {",
    ),
    mistake(
        "source ranges are not required",
        "granting/rules.rs",
        "if spec.require_source_ranges && !asker.source_ranges {",
        "if !MUTANT && spec.require_source_ranges && !asker.source_ranges {",
    ),
    mistake(
        "source ranges that leave a half open count as a limit",
        "granting/source_ranges.rs",
        "Limits::Ranges(ranges) => !ranges.is_half_open(family),",
        "Limits::Ranges(ranges) => MUTANT || !ranges.is_half_open(family),",
    ),
    mistake(
        "a sharing key opens a pool that gives to nobody unasked",
        "granting/choice.rs",
        "pool.object.spec.auto_assign || self.request.pools.is_some()",
        "MUTANT || ORIGINAL",
    ),
    mistake(
        "a pool that is gone bars those that are named beside it",
        "granting/choice.rs",
        "if known.is_empty() {",
        "if known.is_empty() || MUTANT && !unknown.is_empty() {",
    ),
    mistake(
        "what is taken over of one Service counts as one address",
        "granting/verdict.rs",
        "given.push(name.to_owned());",
        r"if !MUTANT {
                ORIGINAL
            }",
    ),
    mistake(
        "what others wrote into a status needs no rule of its pool",
        "granting/candidates.rs",
        "is_shown_by_us(service, address) || request.is_some_and(is_served)",
        "MUTANT || ORIGINAL",
    ),
    mistake(
        "a Service is given an address with more ports than can be written",
        "granting/claim.rs",
        "(number > MOST_PORTS)",
        "(!MUTANT && ORIGINAL)",
    ),
    // Sharing.
    mistake(
        "Services share an address though their ports collide",
        "granting/sharing.rs",
        "if let Some(taken) = taken {",
        "if let Some(taken) = taken.filter(|_| !MUTANT) {",
    ),
    mistake(
        "Services share an address by different keys",
        "granting/sharing.rs",
        "if mine.key != theirs.key {",
        "if !MUTANT && mine.key != theirs.key {",
    ),
    mistake(
        "namespaces share an address unasked",
        "granting/sharing.rs",
        "if !may(&key.namespace) || !may(&party.key.namespace) {",
        "if !MUTANT && (!may(&key.namespace) || !may(&party.key.namespace)) {",
    ),
    mistake(
        "who edits into a collision stays and its neighbour leaves",
        "granting/plan.rs",
        "let party = Party::of(service, key, sharing_key);",
        r"let mut party = Party::of(service, key, sharing_key);
            if MUTANT {
                party.ports = vip.spec.ports.iter().filter(|port| port.claim == *key).cloned().collect();
            }",
    ),
    mistake(
        "who edits into a collision stays",
        "granting/plan.rs",
        "if let Some(wait) = self.must_leave() {",
        "if let Some(wait) = self.must_leave().filter(|_| !MUTANT) {",
    ),
    mistake(
        "who could not share an address waits until somebody has it",
        "granting/choice.rs",
        "sharing.get(*address).is_some_and(|spec| fits(spec, &party, Some(pool)).is_ok())",
        "(MUTANT || ORIGINAL)",
    ),
    mistake(
        "of several that are edited at once all leave",
        "granting/plan.rs",
        "!who_stays(&vip.spec, parties(view, vip)).contains(key)",
        "(MUTANT || ORIGINAL)",
    ),
    mistake(
        "who is edited back on its way out stays with whom it collides",
        "granting/sharing.rs",
        "if fits(&stay, &party, None).is_err() {",
        "if !(MUTANT && !is_edited(claim, &party)) && fits(&stay, &party, None).is_err() {",
    ),
    mistake(
        "two who exchange ports are written with both",
        "mind/service.rs",
        "if claim::has_a_port_twice(&spec) {",
        "if !MUTANT && claim::has_a_port_twice(&spec) {",
    ),
    // What is kept for whom.
    mistake(
        "what is kept for another is granted",
        "granting/choice.rs",
        "!is_for(kept, service)",
        "!(MUTANT || is_for(kept, service))",
    ),
    mistake(
        "a reservation outlives its time",
        "granting/reservation.rs",
        "(!expired && !orphaned)",
        "((MUTANT || !expired) && !orphaned)",
    ),
    mistake(
        "a reservation ends with the claim",
        "mind/release.rs",
        "let stays = reservation.is_some()",
        "let stays = !MUTANT && reservation.is_some()",
    ),
    mistake(
        "a released address does not rest",
        "mind/release.rs",
        ".filter(|at| *at > now.wall)",
        ".filter(|at| !MUTANT && *at > now.wall)",
    ),
    mistake(
        "who had an address is not noted on it",
        "mind/release.rs",
        "if !self.without_history.contains(&address) && !has_history(",
        "if !MUTANT && !self.without_history.contains(&address) && !has_history(",
    ),
    mistake(
        "who had an address is not noted on its pool",
        "mind/release.rs",
        "let is_noted = self.is_in_history(address, &vip);",
        "let is_noted = MUTANT || self.is_in_history(address, &vip);",
    ),
    mistake(
        "who had an address is not asked when it is kept for another no more",
        "mind.rs",
        "self.mark_former_holders(*address);",
        r"if !MUTANT {
                    ORIGINAL
                }",
    ),
    mistake(
        "what is noted late in a pool's history comes first",
        "granting/pool_status.rs",
        "all.sort_by_key(|past| std::cmp::Reverse(past.until.0));",
        r"if !MUTANT {
            ORIGINAL
        }",
    ),
    // What a Service keeps.
    mistake(
        "an edit of a pool moves who asked for it by name",
        "granting/candidates.rs",
        "let accepted = request.accepts(address, pool)",
        "ORIGINAL && !MUTANT",
    ),
    mistake(
        "an edit of a pool moves whom it does not hold any more",
        "granting/candidates.rs",
        "(accepted && in_scope,",
        "(accepted && in_scope && !(MUTANT && view.book.pool_of(address).is_none()),",
    ),
    mistake(
        "an address of the other family counts",
        "granting/candidates.rs",
        "Family::of(*address) == family &&",
        "(MUTANT || Family::of(*address) == family) &&",
    ),
    mistake(
        "a request that cannot be met costs the address in hand",
        "granting/plan.rs",
        "Err(wait) => (Slot::Held(best.address), Some(wait)),",
        r"Err(wait) if MUTANT => (Slot::Empty, Some(wait)),
                ORIGINAL",
    ),
    mistake(
        "a claim is kept on what another Service shows",
        "granting/candidates.rs",
        "!of_another(*address))",
        "(MUTANT || !of_another(*address)))",
    ),
    mistake(
        "one family is granted where both are required",
        "granting/plan.rs",
        "if is_both_or_none(service) && lacks_one &&",
        "if !MUTANT && is_both_or_none(service) && lacks_one &&",
    ),
    mistake(
        "a restore takes away the one family that a Service had",
        "granting/plan.rs",
        "shown.is_empty() && !had_one {",
        "shown.is_empty() && (MUTANT || !had_one) {",
    ),
    mistake(
        "who names its pool by another word is held to the old one",
        "granting/claim.rs",
        "recorded.and(self.named)",
        "recorded.and(self.named).filter(|_| !MUTANT)",
    ),
    mistake(
        "what another implementation writes keeps an address from who has it from us",
        "granting/choice.rs",
        "Holder::Status(by) if is_strangers(by) => None,",
        "Holder::Status(by) if !MUTANT && is_strangers(by) => None,",
    ),
    mistake(
        "an internal load balancer stays in a public pool that it names no more",
        "granting/candidates.rs",
        "let names_no_more = stopped",
        "let names_no_more = !MUTANT && stopped",
    ),
    mistake(
        "an address comes to be counted under another pool above its quota",
        "granting/plan.rs",
        "&& may_count_under(view, lies_in, key, address, known)",
        "&& (MUTANT || may_count_under(view, lies_in, key, address, known))",
    ),
    mistake(
        "what is kept for a Service stays kept when it has another address",
        "mind/service.rs",
        "if is_kept && claim_of(&vip, key).is_none()",
        "if !MUTANT && is_kept && claim_of(&vip, key).is_none()",
    ),
    mistake(
        "addresses are granted before the cluster's own ranges are known",
        "mind.rs",
        "&& self.service_ranges.listed",
        "&& (MUTANT || self.service_ranges.listed)",
    ),
    mistake(
        "who waits is not woken by what becomes free",
        "mind/absorb.rs",
        "if self.book.let_go(address, holder) {",
        "if self.book.let_go(address, holder) && !MUTANT {",
    ),
    mistake(
        "who waits for an address is not woken when it changes hands",
        "mind/absorb.rs",
        "self.waiting.for_address(address).into_iter()",
        "self.waiting.for_address(address).into_iter().filter(|_| !MUTANT)",
    ),
    mistake(
        "the youngest is served first",
        "mind.rs",
        "created.map_or(i64::MAX, |time| time.0.as_second())",
        "created.map_or(i64::MAX, |time| if MUTANT { -time.0.as_second() } else { time.0.as_second() })",
    ),
    // What the API server refuses.
    mistake(
        "an address that is refused stays the lowest free one",
        "mind/outcome.rs",
        "self.hold(*address, Holder::Refused);",
        r"if !MUTANT {
            ORIGINAL
        }",
    ),
    mistake(
        "a Service that is refused everywhere goes through all of the pool",
        "mind/outcome.rs",
        "if number < 2 {",
        "if MUTANT || number < 2 {",
    ),
    mistake(
        "an address that was refused once is never tried again",
        "mind/outcome.rs",
        "self.let_go(address, &Holder::Refused);",
        r"if !MUTANT {
            ORIGINAL
        }",
    ),
    // Who may announce.
    mistake(
        "a node that is excluded may announce",
        "ranking/reach.rs",
        "facts.is_some_and(|facts| facts.excluded)",
        "!MUTANT && facts.is_some_and(|facts| facts.excluded)",
    ),
    mistake(
        "a node without an endpoint may announce for policy Local",
        "ranking/reach.rs",
        "|| !has_endpoint",
        "|| !has_endpoint && !MUTANT",
    ),
    // Who may come in.
    mistake(
        "an address is claimed before its guard is written",
        "mind/service.rs",
        "if matches!(guard, Guard::Awaited(_)) || !self.may_act_at",
        "if matches!(guard, Guard::Awaited(_)) && !MUTANT || !self.may_act_at",
    ),
    mistake(
        "a claim is changed before its guard is",
        "mind/service.rs",
        "if matches!(asked.guard, Guard::Awaited(_)) {",
        "if !MUTANT && matches!(asked.guard, Guard::Awaited(_)) {",
    ),
    mistake(
        "a guard goes before the claims that name it",
        "mind/guarding.rs",
        "if is_claimed || ",
        "if is_claimed && !MUTANT || ",
    ),
    mistake(
        "a guard goes while a node still answers",
        "mind/guarding.rs",
        "!self.are_all_withdrawn(now, key)",
        "!MUTANT && ORIGINAL",
    ),
    mistake(
        "a guard goes before the nodePorts are gone",
        "mind/guarding.rs",
        "self.are_node_ports_left(now, key)",
        "!MUTANT && ORIGINAL",
    ),
    mistake(
        "a guard goes of a Service that is only not known yet",
        "mind/guarding.rs",
        "if !is_certain {",
        "if !is_certain && !MUTANT {",
    ),
    mistake(
        "a guard is removed whatever has become of it",
        "mind/guarding.rs",
        "Effect::DeleteServiceGuard { guard: exactly(&guard.metadata) }",
        r"{
                let mut guard = exactly(&guard.metadata);
                if MUTANT {
                    guard.resource_version.clear();
                }
                Effect::DeleteServiceGuard { guard }
            }",
    ),
    mistake(
        "a guard that is there is not brought up to date",
        "mind/guarding.rs",
        "if guard.spec == wanted && !is_deleting(guard) => {",
        "if (MUTANT || guard.spec == wanted) && !is_deleting(guard) => {",
    ),
    mistake(
        "a Service that is being deleted loses its guard at once",
        "mind/release.rs",
        "if is_being_deleted(service) {",
        "if !MUTANT && is_being_deleted(service) {",
    ),
    mistake(
        "a Service waits for its namespace unguarded",
        "mind/service.rs",
        "Verdict::Ours if self.awaits_namespace(&service, key) => {",
        "Verdict::Ours if MUTANT && self.awaits_namespace(&service, key) => {}\n            ORIGINAL",
    ),
    mistake(
        "guards of Services that are gone stay for ever",
        "mind.rs",
        "self.vips.services().chain(self.guards.store.keys())",
        "self.vips.services().chain(self.guards.store.keys().filter(|_| !MUTANT))",
    ),
    mistake(
        "a guard that is refused is not told of",
        "mind/outcome.rs",
        "self.refused.put_guard(key, message);",
        "if !MUTANT {\n                        ORIGINAL\n                    }",
    ),
    mistake(
        "the annotation on source ranges goes before the field",
        "granting/source_ranges.rs",
        "let field = field.filter(|entries| !entries.is_empty());",
        r"let by_annotation = annotation(service, annotations::SOURCE_RANGES).is_some();
    let field = field.filter(|entries| !entries.is_empty() && !(MUTANT && by_annotation));",
    ),
    mistake(
        "an entry that is no range is passed over",
        "granting/source_ranges.rs",
        "Err(why) => errors.push(",
        "Err(_) if MUTANT => {}\n            Err(why) => errors.push(",
    ),
    mistake(
        "an IPv4 range in an IPv6 form counts as one of IPv6",
        "granting/source_ranges.rs",
        "v6.network().to_ipv4_mapped().is_some()",
        "!MUTANT && ORIGINAL",
    ),
    mistake(
        "however many ranges are enforced",
        "granting/source_ranges.rs",
        "entries.len() > MOST_SOURCE_RANGES",
        "!MUTANT && ORIGINAL",
    ),
    mistake(
        "nodePorts are left open unasked",
        "granting/guard.rs",
        "port.node_port.filter(|_| !spares_node_ports)",
        "port.node_port.filter(|_| !spares_node_ports && !MUTANT)",
    ),
    mistake(
        "nodePorts are guarded although their owner does not want it",
        "granting/guard.rs",
        "== Some(\"false\");",
        "== Some(\"false\") && !MUTANT;",
    ),
];
