//! Everything of the speaker that touches Linux or Kubernetes. Nothing here decides who announces.
//!
//! ```text
//!  netlink ──links, gateways──▶ ┌────────────┐
//!  watch ────vips, peers──────▶ │ lan_thread │ ◀──frames, datagrams──▶ sockets
//!  state_file ──at start──────▶ │   (Mind)   │
//!      │                        └─────┬──────┘
//!      │                           reports
//!  who may come in                    ▼
//!      │              report ──▶ Speaker and VirtualIP status, Events
//!      ▼                              ▲
//!  filter_thread (Filter) ──what is guarded
//!      ▲
//!      └──transactions, dumps──▶ nftables ──▶ the kernel
//! ```
//!
//! The mind and its sockets live on a thread of their own, which waits for nothing but the LAN and its
//! own deadline. So does the filter, which waits for the kernel. All else shares one other thread.

// Drivers are where the clock is read.
#![allow(clippy::disallowed_methods)]

pub mod announcement;
pub mod api;
pub mod books;
pub mod cleanup;
pub mod clerk;
pub mod conditions;
pub mod desk;
pub mod direct;
pub mod filter_thread;
pub mod fitness;
mod following;
pub mod gauges;
pub mod guards;
pub mod holding;
pub mod http;
pub mod interfaces;
pub mod keys;
pub mod lan_thread;
pub mod netlink;
pub mod nftables;
pub mod picture;
pub mod process;
pub mod queue;
pub mod readiness;
pub mod report;
pub mod sockets;
pub mod speaker_status;
pub mod state_file;
mod state_format;
pub mod succession;
pub mod virtual_ip_status;
pub mod watch;
