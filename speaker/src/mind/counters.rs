//! What was received, sent and dropped, for metrics.

use std::collections::HashMap;
use std::time::Duration;

use super::failovers::Failovers;
use crate::bfd::discard::Discard;
use crate::seal::SealError;
use crate::wire::WireError;

/// Counts since the start. Every frame or datagram that is dropped is counted once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Ethernet frames that came in.
    pub frames_received: u64,
    /// Frames that this node had sent itself, or that claim to come from a group.
    pub frames_own: u64,
    /// Frames to another station.
    pub frames_not_for_us: u64,
    /// Frames cut short.
    pub frames_truncated: u64,
    /// Frames of other protocols, VLAN-tagged ones among them.
    pub frames_other_protocol: u64,
    /// Frames with a wrong checksum.
    pub frames_bad_checksum: u64,
    /// Neighbour discovery that a router had passed on.
    pub frames_routed: u64,
    /// Frames that break a rule of their protocol.
    pub frames_invalid: u64,
    /// Answers to ARP requests and neighbour solicitations.
    pub answers_sent: u64,
    /// Datagrams that came in.
    pub datagrams_received: u64,
    /// Datagrams with a TTL other than 255.
    pub datagrams_routed: u64,
    /// Datagrams from an address that is no known speaker's on that link.
    pub datagrams_unknown_sender: u64,
    /// Datagrams cut short, changed on the way, or of another protocol or version.
    pub datagrams_invalid: u64,
    /// Datagrams of a process that had left or was replaced.
    pub datagrams_stale: u64,
    /// Heartbeats that were not taken in, by reason.
    pub heartbeats_discarded: HashMap<Discard, u64>,
    /// Heartbeats that any speaker could have sent, or a recording.
    pub heartbeats_unproven: u64,
    /// Messages whose seal is wrong, by reason.
    pub seals_refused: HashMap<SealError, u64>,
    /// The interval at which heartbeats are sent to each peer.
    pub heartbeat_interval: Duration,
    /// Times that a BFD session came up.
    pub sessions_came_up: u64,
    /// Times that a BFD session went down.
    pub sessions_went_down: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Queries for everything that a peer has to say: something was missed.
    pub queries_sent: u64,
    /// Questions to the kernels of peers that were late.
    pub verification_probes: u64,
    /// Questions to peers whether they hear another one that was late.
    pub witnesses_asked: u64,
    /// Words to peers about claims of others.
    pub testimonies: u64,
    /// Times that this node began to answer for an address.
    pub takeovers: u64,
    /// How long it took to take addresses over from nodes that had died.
    pub failovers: Failovers,
    /// Times that this process itself was not run for longer than the detection time.
    pub gaps: u64,
}

impl Counters {
    /// Counts a heartbeat that is not taken in.
    pub fn discard(&mut self, discard: Discard) {
        *self.heartbeats_discarded.entry(discard).or_default() += 1;
    }

    /// Counts a message whose seal is not believed.
    pub fn refuse(&mut self, error: SealError) {
        *self.seals_refused.entry(error).or_default() += 1;
    }

    /// Counts a frame that is not understood.
    pub fn frame_ignored(&mut self, error: WireError) {
        *match error {
            WireError::Truncated => &mut self.frames_truncated,
            WireError::EtherType | WireError::NotNeighborDiscovery | WireError::NotArp => {
                &mut self.frames_other_protocol
            }
            WireError::Checksum => &mut self.frames_bad_checksum,
            WireError::HopLimit => &mut self.frames_routed,
            WireError::InvalidNeighborDiscovery | WireError::NotSpeech | WireError::InvalidSpeech => {
                &mut self.frames_invalid
            }
        } += 1;
    }
}
