//! `/etc/resolv.conf`, as the kubelet writes it into a pod: which servers to ask, and the cluster's domain.

use std::net::IpAddr;

use super::name::{DnsName, read, read_leniently};

/// Where it is.
pub const PATH: &str = "/etc/resolv.conf";

/// So many servers are used, as by other resolvers (resolv.conf(5), MAXNS).
const MOST_SERVERS: usize = 3;

/// What is read of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// `nameserver` lines.
    pub servers: Vec<IpAddr>,
    /// The last `search` line.
    pub search: Vec<String>,
}

impl ResolvConf {
    /// Reads the text of the file; what is not understood is passed over, as by other resolvers.
    pub fn parse(text: &str) -> Self {
        let mut read = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| word.parse().ok());
                    let has_room = read.servers.len() < MOST_SERVERS;
                    read.servers.extend(server.filter(|_: &IpAddr| has_room));
                }
                Some("search") => read.search = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        read
    }

    /// The cluster domain: the kubelet writes `<namespace>.svc.<domain>`, `svc.<domain>` and `<domain>` as search
    /// domains.
    pub fn cluster_domain(&self) -> Option<DnsName> {
        let below_svc = self.search.iter().filter_map(|search| search.strip_prefix("svc."));
        below_svc.filter_map(|domain| read(domain).or_else(|_| read_leniently(domain)).ok()).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_file_tells_the_servers_and_the_domain_of_the_cluster() {
        let text = "search shop.svc.k8s.example. svc.k8s.example k8s.example example.com\n\
                    nameserver 10.96.0.10\n# nameserver 192.0.2.1\nnameserver fd00:96::10\noptions ndots:5\n";
        let read = ResolvConf::parse(text);
        assert_eq!(read.servers, ["10.96.0.10".parse::<IpAddr>().unwrap(), "fd00:96::10".parse().unwrap()]);
        assert_eq!(read.cluster_domain().unwrap().as_str(), "k8s.example");
        let single = ResolvConf::parse("search a.svc.internal svc.internal. internal");
        assert_eq!(single.cluster_domain().unwrap().as_str(), "internal");
    }

    #[test]
    fn a_file_of_another_kind_tells_no_domain() {
        let text = "nameserver 192.0.2.1\nnameserver nonsense\nnameserver fe80::1%eth0\nsearch example.com\n";
        let read = ResolvConf::parse(text);
        assert_eq!((read.servers.len(), read.cluster_domain()), (1, None));
        assert_eq!(ResolvConf::parse(&"nameserver 192.0.2.1\n".repeat(5)).servers.len(), MOST_SERVERS);
    }
}
