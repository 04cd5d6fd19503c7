//! What a session knows of its peer.

use std::num::NonZeroU8;
use std::time::Instant;

use super::timing::Interval;
use crate::wire::bfd::{ControlRepr, Diagnostic, Discriminator, Micros, State};

/// The state variables that come from the peer (RFC 5880 section 6.8.1).
#[derive(Clone, Debug)]
pub(super) struct Remote {
    /// bfd.RemoteDiscr: nothing until it is heard, and again after a detection time of silence.
    pub(super) discriminator: Option<Discriminator>,
    /// The discriminator that it had when it named ours last. Only its present process has that one.
    pub(super) proven: Option<Discriminator>,
    /// bfd.RemoteSessionState.
    pub(super) state: State,
    pub(super) diagnostic: Diagnostic,
    /// bfd.RemoteDemandMode.
    pub(super) demand: bool,
    pub(super) detect_mult: NonZeroU8,
    pub(super) desired_min_tx: Micros,
    /// bfd.RemoteMinRxInterval.
    pub(super) min_rx: Micros,
    /// When it was heard last.
    pub(super) heard: Option<Instant>,
}

impl Remote {
    /// A peer that was not heard yet.
    pub(super) fn new(detect_mult: NonZeroU8) -> Self {
        Self {
            discriminator: None,
            proven: None,
            state: State::Down,
            diagnostic: Diagnostic::NoDiagnostic,
            demand: false,
            detect_mult,
            desired_min_tx: Interval::SLOW.micros(),
            min_rx: Micros(1),
            heard: None,
        }
    }

    /// Takes in what a packet says that is believed.
    pub(super) fn learn(&mut self, now: Instant, repr: &ControlRepr) {
        let names_us = repr.your_discriminator.is_some();
        *self = Self {
            discriminator: Some(repr.my_discriminator),
            proven: if names_us { Some(repr.my_discriminator) } else { self.proven },
            state: repr.state,
            diagnostic: repr.diagnostic,
            demand: repr.demand,
            detect_mult: repr.detect_mult,
            desired_min_tx: repr.desired_min_tx,
            min_rx: repr.required_min_rx,
            heard: self.heard.max(Some(now)),
        };
    }
}
