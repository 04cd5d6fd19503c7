//! Backends: servers that tell their pod's name and the client address that they saw.

/// The backend's image.
pub const IMAGE: &str = "lab.landfall.dev/backend:1";
