//! What DNS says of a name, as values, and how the records of an answer are read.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use landfall_crds::address::Family;

/// So many CNAMEs may follow each other. Resolvers have limits of 11 to 16.
pub const LONGEST_CHAIN: usize = 16;

/// What was said of a name in both families, asked for at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// To the question for A records.
    pub v4: FamilyAnswer,
    /// To the question for AAAA records.
    pub v6: FamilyAnswer,
}

/// What was said of a name in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FamilyAnswer {
    /// These addresses, at least one, for as long as the shortest TTL among the records that lead there.
    Addresses {
        /// The addresses.
        addresses: BTreeSet<IpAddr>,
        /// For how long that may be kept.
        ttl: Duration,
    },
    /// There is none.
    Absent {
        /// Of what.
        absence: Absence,
        /// For how long that may be kept (RFC 2308), where it was said.
        ttl: Option<Duration>,
    },
    /// No answer that says anything of the name.
    Failed(Failure),
}

/// What does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Absence {
    /// The name (NXDOMAIN).
    NoSuchName,
    /// An address of that family (no data).
    NoAddress,
}

/// Why there was no answer. The variant's name is a metric label and the reason of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Failure {
    /// No server answered in time.
    #[error("no DNS server answers in time")]
    Timeout,
    /// A server could not be reached, by UDP or TCP.
    #[error("no DNS server can be reached")]
    Unreachable,
    /// SERVFAIL, or another code that says nothing of the name.
    #[error("the DNS server fails to find out (SERVFAIL)")]
    ServerFailure,
    /// REFUSED.
    #[error("the DNS server refuses to answer (REFUSED)")]
    Refused,
    /// An answer that makes no sense.
    #[error("the DNS server's answer makes no sense")]
    Malformed,
    /// More CNAMEs follow each other than [`LONGEST_CHAIN`].
    #[error("more than {LONGEST_CHAIN} CNAMEs follow each other")]
    ChainTooLong,
    /// The CNAMEs lead in a circle.
    #[error("the CNAMEs lead in a circle")]
    ChainLoops,
}

impl Failure {
    /// Every failure, for metrics.
    pub const ALL: [Self; 7] = [
        Self::Timeout,
        Self::Unreachable,
        Self::ServerFailure,
        Self::Refused,
        Self::Malformed,
        Self::ChainTooLong,
        Self::ChainLoops,
    ];

    /// CamelCase, one word.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Timeout => "Timeout",
            Self::Unreachable => "Unreachable",
            Self::ServerFailure => "ServerFailure",
            Self::Refused => "Refused",
            Self::Malformed => "Malformed",
            Self::ChainTooLong => "ChainTooLong",
            Self::ChainLoops => "ChainLoops",
        }
    }
}

/// One record of an answer: whose, what, and its TTL. Names are absolute, and in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The owner.
    pub owner: String,
    /// What it says.
    pub data: Data,
    /// Its TTL.
    pub ttl: Duration,
}

/// What a record says, as far as anybody here wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// CNAME: the owner's other name.
    Alias(String),
    /// A or AAAA.
    Address(IpAddr),
}

/// Reads the records of an answer to a question for the addresses of `name` in one family, whatever their order.
/// Records of names that `name` does not lead to are not believed.
pub fn read(name: &str, family: Family, records: &[Record]) -> FamilyAnswer {
    let spelt = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let mut ttl = Duration::MAX;
    let mut at = spelt(name);
    let mut passed = Vec::new();
    loop {
        let here = || records.iter().filter(|record| spelt(&record.owner) == at);
        let addresses = here().filter_map(|record| match record.data {
            Data::Address(address) if Family::of(address) == family => Some((address, record.ttl)),
            _ => None,
        });
        let (addresses, ttls): (BTreeSet<IpAddr>, Vec<Duration>) = addresses.unzip();
        if !addresses.is_empty() {
            let ttl = ttls.into_iter().chain([ttl]).min().unwrap_or(ttl);
            return FamilyAnswer::Addresses { addresses, ttl };
        }
        let alias = here().find_map(|record| match &record.data {
            Data::Alias(target) => Some((spelt(target), record.ttl)),
            Data::Address(_) => None,
        });
        let Some((target, kept)) = alias else {
            let ttl = Some(ttl).filter(|ttl| *ttl != Duration::MAX);
            return FamilyAnswer::Absent { absence: Absence::NoAddress, ttl };
        };
        ttl = ttl.min(kept);
        passed.push(std::mem::replace(&mut at, target));
        if passed.contains(&at) {
            return FamilyAnswer::Failed(Failure::ChainLoops);
        }
        if passed.len() > LONGEST_CHAIN {
            return FamilyAnswer::Failed(Failure::ChainTooLong);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(owner: &str, target: &str, ttl: u64) -> Record {
        Record { owner: owner.into(), data: Data::Alias(target.into()), ttl: Duration::from_secs(ttl) }
    }

    fn address(owner: &str, address: &str, ttl: u64) -> Record {
        let data = Data::Address(address.parse().unwrap());
        Record { owner: owner.into(), data, ttl: Duration::from_secs(ttl) }
    }

    fn v4(records: &[Record]) -> FamilyAnswer {
        read("db.example.com", Family::IPv4, records)
    }

    fn addresses(all: &[&str], ttl: u64) -> FamilyAnswer {
        let addresses = all.iter().map(|text| text.parse().unwrap()).collect();
        FamilyAnswer::Addresses { addresses, ttl: Duration::from_secs(ttl) }
    }

    #[test]
    fn a_chain_is_followed_in_any_order_and_lasts_as_long_as_its_shortest_link() {
        let records = [
            address("X.cloud.example.", "192.0.2.1", 60),
            alias("cdn.example.", "x.cloud.example.", 20),
            address("x.cloud.example.", "192.0.2.2", 30),
            address("x.cloud.example.", "2001:db8::1", 5),
            alias("DB.example.com.", "cdn.example.", 300),
        ];
        assert_eq!(v4(&records), addresses(&["192.0.2.1", "192.0.2.2"], 20));
        assert_eq!(read("db.example.com.", Family::IPv6, &records), addresses(&["2001:db8::1"], 5));
    }

    #[test]
    fn records_that_the_name_does_not_lead_to_are_not_believed() {
        let records =
            [address("db.example.com.", "192.0.2.1", 60), address("other.example.com.", "192.0.2.66", 60)];
        assert_eq!(v4(&records), addresses(&["192.0.2.1"], 60));
        let nothing = FamilyAnswer::Absent { absence: Absence::NoAddress, ttl: None };
        assert_eq!(v4(&records[1..]), nothing);
        assert_eq!(v4(&[]), nothing);
    }

    #[test]
    fn a_chain_that_loops_or_never_ends_is_given_up() {
        let circle = [alias("db.example.com", "a.example", 9), alias("a.example", "db.example.com", 9)];
        assert_eq!(v4(&circle), FamilyAnswer::Failed(Failure::ChainLoops));
        let own = [alias("db.example.com", "DB.example.com.", 9)];
        assert_eq!(v4(&own), FamilyAnswer::Failed(Failure::ChainLoops));
        let chain = |links: usize| {
            let mut records = vec![alias("db.example.com", "n1", 9)];
            records.extend((1..links).map(|at| alias(&format!("n{at}"), &format!("n{}", at + 1), 9)));
            records.push(address(&format!("n{links}"), "192.0.2.1", 9));
            records
        };
        assert_eq!(v4(&chain(LONGEST_CHAIN)), addresses(&["192.0.2.1"], 9));
        assert_eq!(v4(&chain(LONGEST_CHAIN + 1)), FamilyAnswer::Failed(Failure::ChainTooLong));
    }
}
