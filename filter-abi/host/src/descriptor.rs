//! The library's descriptor, checked. Nothing of the library is called here.

#![allow(unsafe_code, reason = "the library's structure is read")]

use checkpost_filter_abi::raw;

use crate::error::{Field, LoadError};

/// Kinds that there are, as bits.
const ALL: u32 = 0b1111_1110;

/// What a descriptor says, copied.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) finds: u32,
    pub(crate) create: raw::Create,
    pub(crate) check: raw::Check,
    pub(crate) destroy: raw::Destroy,
}

/// Reads it, the head first: only if that is right is the rest what we take it for.
///
/// # Safety
/// `descriptor` leads to the library's symbol, and the library is never unloaded. When its head is right, the
/// library keeps the contract's layout.
pub(crate) unsafe fn read(descriptor: *const raw::Descriptor) -> Result<Checked, LoadError> {
    // SAFETY: whatever the symbol is, these 8 octets are within its mapped pages: a data symbol has them, and the linker
    // maps whole pages. Unaligned, since it may be something else.
    let magic = unsafe { (&raw const (*descriptor).magic).read_unaligned() };
    if magic != raw::MAGIC {
        return Err(LoadError::Magic(magic));
    }
    // SAFETY: the magic says that the head is there.
    let (abi, size) =
        unsafe { ((&raw const (*descriptor).abi).read_unaligned(), (&raw const (*descriptor).size).read_unaligned()) };
    if abi != raw::ABI {
        return Err(LoadError::Abi(abi));
    }
    if size as usize != size_of::<raw::Descriptor>() {
        return Err(LoadError::Size(size));
    }
    // SAFETY: the head says that all of it is there.
    let all = unsafe { descriptor.read_unaligned() };
    let missing = LoadError::NoFunction;
    let (create, check, destroy) = (
        all.create.ok_or(missing("create"))?,
        all.check.ok_or(missing("check"))?,
        all.destroy.ok_or(missing("destroy"))?,
    );
    if all.finds == 0 || all.finds & !ALL != 0 {
        return Err(LoadError::Finds(all.finds));
    }
    if all.reserved != 0 {
        return Err(LoadError::Reserved(all.reserved));
    }
    // SAFETY: the contract has these valid for as long as the process lives.
    let (name, version) = unsafe { (text(all.name, Field::Name)?, text(all.version, Field::Version)?) };
    if name.is_empty() {
        return Err(LoadError::EmptyText(Field::Name));
    }
    Ok(Checked { name, version, finds: all.finds, create, check, destroy })
}

/// # Safety
/// The view is valid if it is not longer than 64 octets and not null.
unsafe fn text(view: raw::Str, field: Field) -> Result<String, LoadError> {
    if view.length == 0 {
        return Ok(String::new());
    }
    if view.data.is_null() {
        return Err(LoadError::NullText(field));
    }
    if view.length > 64 {
        return Err(LoadError::LongText(field, view.length));
    }
    // SAFETY: by the caller's word.
    let bytes = unsafe { std::slice::from_raw_parts(view.data, view.length) };
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err(LoadError::GarbledText(field)),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::c_void;

    use super::*;

    unsafe extern "C" fn create(_: *const raw::Host, _: *const raw::Setting, _: usize, _: *mut *mut c_void) -> i32 {
        0
    }
    unsafe extern "C" fn check(_: *mut c_void, _: *const raw::Mail) -> i32 {
        0
    }
    unsafe extern "C" fn destroy(_: *mut c_void) {}

    fn good() -> raw::Descriptor {
        raw::Descriptor {
            magic: raw::MAGIC,
            abi: raw::ABI,
            size: size_of::<raw::Descriptor>() as u32,
            name: raw::Str::of(b"name"),
            version: raw::Str::NONE,
            finds: 2,
            reserved: 0,
            create: Some(create),
            check: Some(check),
            destroy: Some(destroy),
        }
    }

    #[test]
    fn every_member_is_checked() {
        type Change = fn(&mut raw::Descriptor);
        let table: &[(&str, Change)] = &[
            ("", |_| {}),
            ("does not begin with CHECKPOST_FILTER_MAGIC but with 0x0000000000000001", |d| d.magic = 1),
            ("made for version 2 of the filter ABI; this program has version 1", |d| d.abi = 2),
            ("says it has 0 octets; version 1 has 80", |d| d.size = 0),
            ("\"create\" is NULL", |d| d.create = None),
            ("\"check\" is NULL", |d| d.check = None),
            ("\"destroy\" is NULL", |d| d.destroy = None),
            ("its name is empty", |d| d.name = raw::Str::NONE),
            ("its name is NULL with a length", |d| d.name = raw::Str { data: std::ptr::null(), length: 1 }),
            ("its name has 65 octets; at most 64", |d| d.name = raw::Str::of(&[b'a'; 65])),
            ("its version is not UTF-8", |d| d.version = raw::Str::of(b"\xff")),
            ("its version is not UTF-8", |d| d.version = raw::Str::of(b"1\n")),
            ("declares are 0x0", |d| d.finds = 0),
            ("declares are 0x100", |d| d.finds = 0x100),
            ("declares are 0x3", |d| d.finds = 3),
            ("the reserved member of its descriptor is 7", |d| d.reserved = 7),
        ];
        for (expected, change) in table {
            let mut descriptor = good();
            change(&mut descriptor);
            // SAFETY: it is a whole descriptor.
            let found = match unsafe { read(&descriptor) } {
                Ok(checked) => {
                    assert_eq!((&*checked.name, &*checked.version, checked.finds), ("name", "", 2));
                    String::new()
                }
                Err(error) => error.to_string(),
            };
            assert!(if expected.is_empty() { found.is_empty() } else { found.contains(expected) }, "{found}");
        }
    }
}
