//! What the C library is asked for by hand: the only `unsafe` code of the controller.

/// Gives memory that is free, but between what is in use, back to the kernel (`malloc_trim(3)`). A rush of
/// Services leaves much of it, and of itself the C library returns only what lies at the heap's end.
#[allow(unsafe_code)]
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time, and touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
