//! From an author's type to the exported structure: the functions that the host calls.
//! Nothing of the author's is called without `catch_unwind`, for no panic may reach the host.

#![allow(unsafe_code, reason = "the host's pointers come in here")]

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::author::LibraryFilter;
use crate::mail::{Host, Mail, Settings};
use crate::raw;

/// Exports a type with [`LibraryFilter`] as the library's filter. Once in a library, at its root.
///
/// The author's crate can have `#![forbid(unsafe_code)]`: the one attribute that counts as unsafe code, on the
/// exported symbol, is in this macro's expansion, and rustc does not count what other crates' macros expand to.
#[macro_export]
macro_rules! export_filter {
    ($filter:ty) => {
        #[doc(hidden)]
        #[allow(non_upper_case_globals)]
        #[unsafe(no_mangle)]
        pub static checkpost_filter: $crate::raw::Descriptor = $crate::describe::<$filter>();
    };
}

/// The structure for [`export_filter!`]. It fails to compile when a name is longer than the contract allows, or
/// when the filter finds nothing.
pub const fn describe<F: LibraryFilter>() -> raw::Descriptor {
    assert!(!F::NAME.is_empty() && F::NAME.len() <= 64, "NAME has 1 to 64 octets");
    assert!(F::VERSION.len() <= 64, "VERSION has up to 64 octets");
    assert!(!F::FINDS.is_empty(), "FINDS is not empty");
    let mut finds = 0;
    let mut index = 0;
    while index < F::FINDS.len() {
        finds |= 1 << F::FINDS[index] as u32;
        index += 1;
    }
    raw::Descriptor {
        magic: raw::MAGIC,
        abi: raw::ABI,
        size: size_of::<raw::Descriptor>() as u32,
        name: raw::Str::of(F::NAME.as_bytes()),
        version: raw::Str::of(F::VERSION.as_bytes()),
        finds,
        reserved: 0,
        create: Some(create::<F>),
        check: Some(check::<F>),
        destroy: Some(destroy::<F>),
    }
}

unsafe extern "C" fn create<F: LibraryFilter>(
    host: *const raw::Host,
    settings: *const raw::Setting,
    setting_count: usize,
    instance: *mut *mut c_void,
) -> i32 {
    // SAFETY: the contract has these valid until this function returns.
    let (host, settings) = unsafe { (Host::new(host), Settings::new(settings, setting_count)) };
    match catch_unwind(AssertUnwindSafe(|| F::create(&settings, &host))) {
        Ok(Ok(filter)) => {
            let made = Box::into_raw(Box::new(filter)).cast();
            // SAFETY: the contract has a place for it there.
            unsafe { instance.write(made) };
            raw::OK
        }
        Ok(Err(text)) => {
            host.explain(&text);
            raw::ERROR
        }
        Err(panic) => panicked(&host, panic),
    }
}

unsafe extern "C" fn check<F: LibraryFilter>(instance: *mut c_void, mail: *const raw::Mail) -> i32 {
    // SAFETY: the contract has the mail valid until this function returns, and the instance is what `create` made;
    // `destroy` comes after all checks, and `F: Sync` allows several at once.
    let (filter, mail) = unsafe { (&*instance.cast::<F>(), Mail::new(mail)) };
    match catch_unwind(AssertUnwindSafe(|| filter.check(&mail))) {
        Ok(Ok(())) => raw::OK,
        Ok(Err(could_not)) => {
            mail.host().explain(&could_not.text);
            could_not.reason as i32
        }
        Err(panic) => panicked(&mail.host(), panic),
    }
}

unsafe extern "C" fn destroy<F: LibraryFilter>(instance: *mut c_void) {
    // SAFETY: `create` made it, and the contract has this called once, after all checks.
    let filter = unsafe { Box::from_raw(instance.cast::<F>()) };
    // There is nobody to tell; the panic hook has printed it.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(filter))) {
        std::mem::forget(panic);
    }
}

fn panicked(host: &Host<'_>, panic: Box<dyn Any + Send>) -> i32 {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    host.explain(text.unwrap_or("it panicked"));
    // Dropping what it carries could panic again.
    std::mem::forget(panic);
    raw::PANICKED
}
