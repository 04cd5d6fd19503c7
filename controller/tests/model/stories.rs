//! One controller, one thing at a time.

use crate::cluster::Cluster;
use crate::objects::{pool, service, speaker};

fn ingress(cluster: &Cluster, name: &str) -> Vec<String> {
    let service = &cluster.api.services[&format!("shop/{name}")];
    let entries = landfall_controller::granting::verdict::ingress(service);
    entries.iter().filter_map(|entry| entry.ip.clone()).collect()
}

#[test]
fn a_service_gets_an_address() {
    let mut cluster = Cluster::new(1);
    cluster.api.put_speaker(speaker("n1", 1));
    cluster.api.put_pool(pool("lan", &["10.0.0.0/24"]));
    cluster.api.put_service(service("web"));
    cluster.quiet();
    assert_eq!(ingress(&cluster, "web"), ["10.0.0.2"]);
}
