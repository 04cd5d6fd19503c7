//! Why a packet is not taken in.

use super::auth::AuthError;
use crate::wire::bfd::Malformed;

/// Why a packet is not taken in. Nothing of the session changes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Discard {
    /// The TTL or hop limit is not 255: a router has passed it on (RFC 5881 section 5).
    #[error("a router has passed it on")]
    Ttl,
    /// It breaks a rule whatever the session.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// It names a session other than this one.
    #[error("for another session")]
    OtherSession,
    /// Its sender has the discriminator of this very session, so it was sent from here. Keys are shared,
    /// so its hash is right; taken in, it would make a dead peer look alive.
    #[error("sent by this session itself")]
    Reflected,
    /// It is not believed.
    #[error("{0}")]
    Auth(#[from] AuthError),
}

impl Discard {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::Ttl,
        Self::Malformed(Malformed::Truncated),
        Self::Malformed(Malformed::Version),
        Self::Malformed(Malformed::Length),
        Self::Malformed(Malformed::LongerThanPayload),
        Self::Malformed(Malformed::DetectMult),
        Self::Malformed(Malformed::Multipoint),
        Self::Malformed(Malformed::PollAndFinal),
        Self::Malformed(Malformed::MyDiscriminator),
        Self::Malformed(Malformed::YourDiscriminator),
        Self::Malformed(Malformed::AuthType),
        Self::Malformed(Malformed::AuthLength),
        Self::OtherSession,
        Self::Reflected,
        Self::Auth(AuthError::Missing),
        Self::Auth(AuthError::Unexpected),
        Self::Auth(AuthError::WrongType),
        Self::Auth(AuthError::UnknownKey),
        Self::Auth(AuthError::Replayed),
        Self::Auth(AuthError::OutOfWindow),
        Self::Auth(AuthError::WrongHash),
    ];

    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ttl => "Ttl",
            Self::Malformed(Malformed::Truncated) => "Truncated",
            Self::Malformed(Malformed::Version) => "Version",
            Self::Malformed(Malformed::Length) => "Length",
            Self::Malformed(Malformed::LongerThanPayload) => "LongerThanPayload",
            Self::Malformed(Malformed::DetectMult) => "DetectMult",
            Self::Malformed(Malformed::Multipoint) => "Multipoint",
            Self::Malformed(Malformed::PollAndFinal) => "PollAndFinal",
            Self::Malformed(Malformed::MyDiscriminator) => "MyDiscriminator",
            Self::Malformed(Malformed::YourDiscriminator) => "YourDiscriminator",
            Self::Malformed(Malformed::AuthType) => "AuthType",
            Self::Malformed(Malformed::AuthLength) => "AuthLength",
            Self::OtherSession => "OtherSession",
            Self::Reflected => "Reflected",
            Self::Auth(AuthError::Missing) => "AuthMissing",
            Self::Auth(AuthError::Unexpected) => "AuthUnexpected",
            Self::Auth(AuthError::WrongType) => "AuthWrongType",
            Self::Auth(AuthError::UnknownKey) => "AuthUnknownKey",
            Self::Auth(AuthError::Replayed) => "AuthReplayed",
            Self::Auth(AuthError::OutOfWindow) => "AuthOutOfWindow",
            Self::Auth(AuthError::WrongHash) => "AuthWrongHash",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_a_label_of_its_own() {
        let labels: BTreeSet<_> = Discard::ALL.iter().map(|discard| discard.label()).collect();
        assert_eq!(labels.len(), Discard::ALL.len());
    }
}
