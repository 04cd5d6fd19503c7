//! What a node lacks to serve what it announces. Such gates are soft: they only order the candidates, and where
//! none passes, the best announces all the same.

use std::fmt;

/// The gates that do not pass at a node. Fewer are better; which ones does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gates(u16);

impl Gates {
    /// All pass.
    pub const NONE: Self = Self(0);
    /// kube-proxy is not known to be well, so what comes in may lead nowhere.
    pub const PROXY: Self = Self(1);
    /// What there is to announce is known from an earlier time only.
    pub const COLD: Self = Self(2);
    /// The API server was not heard for a while.
    pub const STALE: Self = Self(4);

    /// What is lacked for want of the API server.
    pub const API: Self = Self(Self::COLD.0 | Self::STALE.0);

    const NAMES: [(Self, &'static str); 3] =
        [(Self::PROXY, "ProxyNotHealthy"), (Self::COLD, "Cold"), (Self::STALE, "Stale")];

    /// From the bits in which speakers tell each other. Those of later versions count like ours.
    pub fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The bits in which speakers tell each other.
    pub fn bits(self) -> u16 {
        self.0
    }

    /// These and those of `other`.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without those of `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` are among these.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// How many there are.
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// The names of those that this version knows: metric labels, and reasons in conditions.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(gate, _)| self.contains(*gate)).map(|(_, name)| name)
    }
}

impl fmt::Display for Gates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.names().enumerate() {
            write!(f, "{}{name}", if at > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_counted_and_named() {
        let gates = Gates::PROXY.with(Gates::STALE);
        assert_eq!((gates.count(), gates.to_string().as_str()), (2, "ProxyNotHealthy, Stale"));
        assert!(gates.contains(Gates::STALE) && !gates.contains(Gates::COLD));
        assert_eq!(Gates::from_bits(gates.bits()), gates);
        let later = Gates::from_bits(0x8001);
        assert_eq!((later.count(), later.to_string().as_str()), (2, "ProxyNotHealthy"));
    }
}
