//! BFD Control packets (RFC 5880 section 4.1), which a UDP payload begins with (RFC 5881 section 4).
//!
//! ```text
//!  0  version 1 (3 bits), diagnostic (5 bits)    12  desired min TX interval, in microseconds
//!  1  state (2 bits), flags P F C A D M          16  required min RX interval
//!  2  detect mult                                20  required min echo RX interval
//!  3  length                                     24  with flag A: the authentication section
//!  4  my discriminator
//!  8  your discriminator
//! ```
//!
//! A packet may be shorter than its payload (RFC 5880 section 6.8.6 only forbids that it is longer). What
//! follows it is handed out as its trailer, **which no authentication section covers**.

use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use super::bfd_auth::AuthRepr;

/// The length of a packet without an authentication section.
pub const HEADER_LEN: usize = 24;
/// The length of the longest packet that is sent: one with a hash of SHA1.
pub const MAX_LEN: usize = 52;

const VERSION: u8 = 1;
const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION_PRESENT: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// Whether a datagram can be a Control packet: its version is in the highest three bits. No message of the
/// speakers' own protocol begins like that.
pub fn is_bfd(payload: &[u8]) -> bool {
    payload.first().is_some_and(|first| first >> 5 == VERSION)
}

/// Tells sessions of one system apart; unique there and never zero (RFC 5880 section 6.8.1).
pub type Discriminator = NonZeroU32;

/// Why a packet is refused whatever the session (RFC 5880 section 6.8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// The payload ends within the fields that every packet has.
    #[error("truncated")]
    Truncated,
    /// A version other than 1.
    #[error("not version 1")]
    Version,
    /// The length is less than 24, or than 26 with an authentication section.
    #[error("a length that is too short")]
    Length,
    /// The length is greater than the payload.
    #[error("longer than its payload")]
    LongerThanPayload,
    /// Detect mult is zero.
    #[error("detect mult is zero")]
    DetectMult,
    /// The multipoint bit is set.
    #[error("the multipoint bit is set")]
    Multipoint,
    /// Poll and Final are both set (RFC 5880 section 6.5 forbids it).
    #[error("both Poll and Final are set")]
    PollAndFinal,
    /// My discriminator is zero.
    #[error("my discriminator is zero")]
    MyDiscriminator,
    /// Your discriminator is zero although the state is Init or Up.
    #[error("your discriminator is zero in state Init or Up")]
    YourDiscriminator,
    /// The authentication section is of no known type.
    #[error("an unknown type of authentication")]
    AuthType,
    /// The authentication section has a length that its type forbids, or is cut off by the packet's end.
    #[error("an authentication section of a wrong length")]
    AuthLength,
}

/// The state of a session as its owner sees it (RFC 5880 section 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// It is switched off by its owner.
    AdminDown,
    /// It is down, or was just made.
    Down,
    /// The other end is heard and does not hear this one yet, as far as is known.
    Init,
    /// Both ends hear each other.
    Up,
}

impl State {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::AdminDown, Self::Down, Self::Init, Self::Up];

    fn number(self) -> u8 {
        match self {
            Self::AdminDown => 0,
            Self::Down => 1,
            Self::Init => 2,
            Self::Up => 3,
        }
    }
}

/// Why a session changed its state last (RFC 5880 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Diagnostic {
    /// 0: nothing to tell.
    NoDiagnostic,
    /// 1: nothing was heard for the detection time.
    ControlDetectionTimeExpired,
    /// 2: packets did not come back.
    EchoFunctionFailed,
    /// 3: the other end said that the session is down.
    NeighborSignaledSessionDown,
    /// 4: the forwarding plane was reset.
    ForwardingPlaneReset,
    /// 5: somebody else knows that the path is down.
    PathDown,
    /// 6: a path behind is down.
    ConcatenatedPathDown,
    /// 7: it was switched off.
    AdministrativelyDown,
    /// 8: a path behind is down in the other direction.
    ReverseConcatenatedPathDown,
    /// 9 to 31: a code without a meaning yet. Only the low five bits are sent.
    Other(u8),
}

impl Diagnostic {
    /// What a code means; of its bits only the low five count.
    pub fn from_code(code: u8) -> Self {
        match code & 0x1f {
            0 => Self::NoDiagnostic,
            1 => Self::ControlDetectionTimeExpired,
            2 => Self::EchoFunctionFailed,
            3 => Self::NeighborSignaledSessionDown,
            4 => Self::ForwardingPlaneReset,
            5 => Self::PathDown,
            6 => Self::ConcatenatedPathDown,
            7 => Self::AdministrativelyDown,
            8 => Self::ReverseConcatenatedPathDown,
            other => Self::Other(other),
        }
    }

    /// Its code.
    pub fn code(self) -> u8 {
        match self {
            Self::NoDiagnostic => 0,
            Self::ControlDetectionTimeExpired => 1,
            Self::EchoFunctionFailed => 2,
            Self::NeighborSignaledSessionDown => 3,
            Self::ForwardingPlaneReset => 4,
            Self::PathDown => 5,
            Self::ConcatenatedPathDown => 6,
            Self::AdministrativelyDown => 7,
            Self::ReverseConcatenatedPathDown => 8,
            Self::Other(code) => code & 0x1f,
        }
    }
}

/// An interval as packets carry it, in microseconds. What zero means depends on the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Micros(pub u32);

impl Micros {
    /// The same as a duration.
    pub fn duration(self) -> Duration {
        Duration::from_micros(self.0.into())
    }
}

/// The part that a packet plays in a Poll Sequence (RFC 5880 section 6.5). No packet plays two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Polling {
    /// None.
    None,
    /// It asks for an answer at once.
    Poll,
    /// It is that answer.
    Final,
}

/// A view of a packet: the version is right, and so is the length for what its flags promise.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    control: &'a [u8],
    trailer: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Views a datagram's payload as a packet and its trailer.
    ///
    /// # Errors
    /// The payload is too short, or version or length are wrong (RFC 5880 section 6.8.6).
    pub fn new_checked(payload: &'a [u8]) -> Result<Self, Malformed> {
        if payload.len() < HEADER_LEN {
            return Err(Malformed::Truncated);
        }
        if payload[0] >> 5 != VERSION {
            return Err(Malformed::Version);
        }
        let length = usize::from(payload[3]);
        let shortest = if payload[1] & AUTHENTICATION_PRESENT == 0 { HEADER_LEN } else { HEADER_LEN + 2 };
        if length < shortest {
            return Err(Malformed::Length);
        }
        let (control, trailer) = payload.split_at_checked(length).ok_or(Malformed::LongerThanPayload)?;
        Ok(Self { control, trailer })
    }

    /// The packet itself, as long as its length field says.
    pub fn control(&self) -> &'a [u8] {
        self.control
    }

    /// What follows the packet in its payload. No authentication section covers it.
    pub fn trailer(&self) -> &'a [u8] {
        self.trailer
    }

    /// Your discriminator, by which alone a datagram is led to its session unless it is zero.
    pub fn your_discriminator(&self) -> Option<Discriminator> {
        NonZeroU32::new(self.u32_at(8))
    }

    /// My discriminator, which is the sender's; nothing where it is zero, which is malformed.
    pub fn my_discriminator(&self) -> Option<Discriminator> {
        NonZeroU32::new(self.u32_at(4))
    }

    fn u32_at(&self, at: usize) -> u32 {
        let bytes = self.control;
        u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    }
}

/// A packet as a value. The fields have the names of RFC 5880 section 4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRepr {
    /// Why the sender changed the state of its session last.
    pub diagnostic: Diagnostic,
    /// The state of the sender's session.
    pub state: State,
    /// Flags P and F.
    pub polling: Polling,
    /// Flag C: the sender's BFD lives on when its control plane dies.
    pub control_plane_independent: bool,
    /// Flag D: the sender wants no periodic packets while both ends are up.
    pub demand: bool,
    /// The sender is dead after so many of its intervals of silence.
    pub detect_mult: NonZeroU8,
    /// The sender's session.
    pub my_discriminator: Discriminator,
    /// The receiver's session as far as the sender knows it.
    pub your_discriminator: Option<Discriminator>,
    /// The sender would like to send no faster than this.
    pub desired_min_tx: Micros,
    /// The sender can receive no faster than this; zero: it wants no periodic packets at all.
    pub required_min_rx: Micros,
    /// The same of Echo packets; zero: it sends none back.
    pub required_min_echo_rx: Micros,
    /// The authentication section, which flag A promises.
    pub auth: Option<AuthRepr>,
}

impl ControlRepr {
    /// Reads the value out of a view.
    ///
    /// # Errors
    /// It breaks a rule of RFC 5880 section 6.8.6, or its authentication section is none.
    pub fn parse(packet: &Packet<'_>) -> Result<Self, Malformed> {
        let bytes = packet.control;
        let flags = bytes[1];
        let detect_mult = NonZeroU8::new(bytes[2]).ok_or(Malformed::DetectMult)?;
        if flags & MULTIPOINT != 0 {
            return Err(Malformed::Multipoint);
        }
        let my_discriminator = NonZeroU32::new(packet.u32_at(4)).ok_or(Malformed::MyDiscriminator)?;
        let state = State::ALL[usize::from(flags >> 6)];
        let your_discriminator = packet.your_discriminator();
        if your_discriminator.is_none() && matches!(state, State::Init | State::Up) {
            return Err(Malformed::YourDiscriminator);
        }
        let polling = match (flags & POLL != 0, flags & FINAL != 0) {
            (false, false) => Polling::None,
            (true, false) => Polling::Poll,
            (false, true) => Polling::Final,
            (true, true) => return Err(Malformed::PollAndFinal),
        };
        let has_auth = flags & AUTHENTICATION_PRESENT != 0;
        let auth = has_auth.then(|| AuthRepr::parse(&bytes[HEADER_LEN..])).transpose()?;
        Ok(Self {
            diagnostic: Diagnostic::from_code(bytes[0]),
            state,
            polling,
            control_plane_independent: flags & CONTROL_PLANE_INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            detect_mult,
            my_discriminator,
            your_discriminator,
            desired_min_tx: Micros(packet.u32_at(12)),
            required_min_rx: Micros(packet.u32_at(16)),
            required_min_echo_rx: Micros(packet.u32_at(20)),
            auth,
        })
    }

    /// Reads the value out of a datagram's payload, which may have a trailer.
    ///
    /// # Errors
    /// As [`Packet::new_checked`] and [`ControlRepr::parse`].
    pub fn parse_payload(payload: &[u8]) -> Result<Self, Malformed> {
        Self::parse(&Packet::new_checked(payload)?)
    }

    /// The bytes that carry the value.
    pub fn emit(&self) -> ControlBytes {
        let mut bytes = [0; MAX_LEN];
        let auth_len = self.auth.as_ref().map_or(0, |auth| auth.emit(&mut bytes[HEADER_LEN..]));
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        // At most MAX_LEN.
        let length = (HEADER_LEN + auth_len) as u8;
        bytes[0] = VERSION << 5 | self.diagnostic.code();
        bytes[1] = self.state.number() << 6
            | flag(self.polling == Polling::Poll, POLL)
            | flag(self.polling == Polling::Final, FINAL)
            | flag(self.control_plane_independent, CONTROL_PLANE_INDEPENDENT)
            | flag(self.auth.is_some(), AUTHENTICATION_PRESENT)
            | flag(self.demand, DEMAND);
        bytes[2] = self.detect_mult.get();
        bytes[3] = length;
        bytes[4..8].copy_from_slice(&self.my_discriminator.get().to_be_bytes());
        bytes[8..12].copy_from_slice(&self.your_discriminator.map_or(0, NonZeroU32::get).to_be_bytes());
        bytes[12..16].copy_from_slice(&self.desired_min_tx.0.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.required_min_rx.0.to_be_bytes());
        bytes[20..24].copy_from_slice(&self.required_min_echo_rx.0.to_be_bytes());
        ControlBytes { bytes, length }
    }
}

/// A packet that is ready to be sent, without a place on the heap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ControlBytes {
    bytes: [u8; MAX_LEN],
    length: u8,
}

impl AsRef<[u8]> for ControlBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl std::fmt::Debug for ControlBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match ControlRepr::parse_payload(self.as_ref()) {
            Ok(repr) => repr.fmt(f),
            Err(_) => self.as_ref().fmt(f),
        }
    }
}

#[cfg(test)]
#[path = "bfd_tests.rs"]
mod tests;
