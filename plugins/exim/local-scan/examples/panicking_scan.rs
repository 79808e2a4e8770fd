//! The library with a fault in it: its `panicking_scan` panics where `local_scan` would ask the daemon. For tests.

#![allow(unsafe_code, reason = "the function is for C")]

use std::ffi::c_int;

/// As `local_scan`.
///
/// # Safety
/// As for `local_scan`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn panicking_scan(_fd: c_int, return_text: *mut *mut u8) -> c_int {
    // SAFETY: what its own caller keeps.
    unsafe { checkpost_exim_local_scan::guarded(return_text, |_| panic!("as asked")) }
}
