//! Two network namespaces and a wire between them, for tests against a real kernel.
//!
//! Needs root; without, each test says that it is skipped.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;

use futures::TryStreamExt;
use landfall_speaker::lan::MacAddr;
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{Handle, LinkUnspec, LinkVeth};

pub(crate) const OUR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub(crate) const OTHER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
/// No wait for the kernel, or for whoever is at the other end, is longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// One end of the wire.
pub(crate) struct End {
    namespace: File,
    pub(crate) handle: Handle,
    pub(crate) link: u32,
}

/// Two namespaces and the wire between them: `lan0` at our end, `lan1` at the other.
pub(crate) struct Wire {
    pub(crate) ours: End,
    pub(crate) theirs: End,
}

/// Whether namespaces can be made; if not, it says that the test is skipped.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: this test makes network namespaces and needs root");
    }
    root
}

fn new_namespace() -> File {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    File::open("/proc/thread-self/ns/net").unwrap()
}

impl End {
    /// Takes the calling thread into the namespace of this end.
    pub(crate) fn enter(&self) {
        setns(&self.namespace, CloneFlags::CLONE_NEWNET).unwrap();
    }

    async fn up(&mut self, name: &str, mac: MacAddr, addresses: &[&str]) {
        let mut found = self.handle.link().get().match_name(name).execute();
        self.link = found.try_next().await.unwrap().unwrap().header.index;
        let link = LinkUnspec::new_with_index(self.link).address(mac.0.to_vec()).build();
        self.handle.link().set(link).execute().await.unwrap();
        // No detection of duplicates: the addresses are usable at once.
        self.enter();
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_dad"), "0").unwrap();
        for address in addresses {
            let net: ipnet::IpNet = address.parse().unwrap();
            self.handle.address().add(self.link, net.addr(), net.prefix_len()).execute().await.unwrap();
        }
        self.set_up(true).await;
    }

    /// Switches the link on or off.
    pub(crate) async fn set_up(&self, up: bool) {
        let link = LinkUnspec::new_with_index(self.link);
        let link = if up { link.up() } else { link.down() };
        self.handle.link().set(link.build()).execute().await.unwrap();
    }
}

impl Wire {
    /// Lays it. The calling thread is in our namespace then.
    pub(crate) async fn new() -> Self {
        let open = || {
            let namespace = new_namespace();
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            End { namespace, handle, link: 0 }
        };
        let (mut ours, mut theirs) = (open(), open());
        ours.handle.link().add(LinkVeth::new("lan0", "lan1").build()).execute().await.unwrap();
        let far = LinkUnspec::new_with_name("lan1").setns_by_fd(theirs.namespace.as_raw_fd()).build();
        ours.handle.link().set(far).execute().await.unwrap();
        ours.up("lan0", OUR_MAC, &["192.168.10.11/24", "fd00::11/64"]).await;
        theirs.up("lan1", OTHER_MAC, &["192.168.10.99/24", "fd00::99/64"]).await;
        ours.enter();
        Self { ours, theirs }
    }
}
