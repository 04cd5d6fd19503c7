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

/// The CNAMEs from a name to where its addresses are, as far as they have been followed.
#[derive(Clone, Debug)]
pub struct Chain {
    at: String,
    passed: Vec<String>,
    ttl: Duration,
}

/// What the records of one answer come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The whole answer.
    End(FamilyAnswer),
    /// They lead to [`Chain::at`] and do not say what is there.
    Ask,
}

impl Chain {
    /// At its beginning.
    pub fn new(name: &str) -> Self {
        Self { at: spelt(name), passed: Vec::new(), ttl: Duration::MAX }
    }

    /// The name to ask for next, without the dot at its end.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// How long all CNAMEs so far may be kept; nothing if there were none.
    pub fn ttl(&self) -> Option<Duration> {
        Some(self.ttl).filter(|_| !self.passed.is_empty())
    }

    /// Reads the records of an answer to a question for [`Chain::at`], whatever their order. Records of names that
    /// the chain does not lead to are not believed.
    pub fn follow(&mut self, family: Family, records: &[Record]) -> Step {
        let begun = self.passed.len();
        loop {
            let here = || records.iter().filter(|record| spelt(&record.owner) == self.at);
            let addresses = here().filter_map(|record| match record.data {
                Data::Address(address) if Family::of(address) == family => Some((address, record.ttl)),
                _ => None,
            });
            let (addresses, ttls): (BTreeSet<IpAddr>, Vec<Duration>) = addresses.unzip();
            if !addresses.is_empty() {
                let ttl = ttls.into_iter().fold(self.ttl, Duration::min);
                return Step::End(FamilyAnswer::Addresses { addresses, ttl });
            }
            let alias = here().find_map(|record| match &record.data {
                Data::Alias(target) => Some((spelt(target), record.ttl)),
                Data::Address(_) => None,
            });
            let Some((target, kept)) = alias else {
                let absence = Absence::NoAddress;
                return match self.passed.len() > begun {
                    true => Step::Ask,
                    false => Step::End(FamilyAnswer::Absent { absence, ttl: self.ttl() }),
                };
            };
            self.ttl = self.ttl.min(kept);
            self.passed.push(std::mem::replace(&mut self.at, target));
            if self.passed.contains(&self.at) {
                return Step::End(FamilyAnswer::Failed(Failure::ChainLoops));
            }
            if self.passed.len() > LONGEST_CHAIN {
                return Step::End(FamilyAnswer::Failed(Failure::ChainTooLong));
            }
        }
    }
}

/// A name as names are compared: in lower case, without the dot at its end.
fn spelt(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
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

    fn read(family: Family, records: &[Record]) -> FamilyAnswer {
        match Chain::new("db.example.com").follow(family, records) {
            Step::End(answer) => answer,
            Step::Ask => panic!("the records lead on: {records:?}"),
        }
    }

    fn v4(records: &[Record]) -> FamilyAnswer {
        read(Family::IPv4, records)
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
        assert_eq!(read(Family::IPv6, &records), addresses(&["2001:db8::1"], 5));
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
    fn an_answer_that_ends_in_a_cname_leads_on() {
        let mut chain = Chain::new("db.example.com.");
        assert_eq!((chain.at(), chain.ttl()), ("db.example.com", None));
        let first = [alias("db.example.com", "A.example.", 30), alias("a.example", "b.example", 90)];
        assert_eq!(chain.follow(Family::IPv4, &first), Step::Ask);
        assert_eq!((chain.at(), chain.ttl()), ("b.example", Some(Duration::from_secs(30))));
        let absent = FamilyAnswer::Absent { absence: Absence::NoAddress, ttl: Some(Duration::from_secs(30)) };
        assert_eq!(chain.clone().follow(Family::IPv4, &[]), Step::End(absent));
        let back = [alias("b.example", "db.example.com", 30)];
        assert_eq!(
            chain.clone().follow(Family::IPv4, &back),
            Step::End(FamilyAnswer::Failed(Failure::ChainLoops))
        );
        let second = [address("b.example", "192.0.2.1", 60)];
        assert_eq!(chain.follow(Family::IPv4, &second), Step::End(addresses(&["192.0.2.1"], 30)));
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
