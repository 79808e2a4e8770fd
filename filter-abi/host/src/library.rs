//! Libraries, each loaded once and never unloaded: the dynamic linker, and the list of what is loaded.

#![allow(unsafe_code, reason = "the dynamic linker runs foreign code")]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use checkpost_filter_abi::raw;
use libloading::os::unix::{Library as Linked, RTLD_LOCAL, RTLD_NOW};

use crate::answer::Kind;
use crate::descriptor::{self, Checked};
use crate::error::{FileError, LoadError};
use crate::file::{self, Identity, Stamp, Trusted};

/// A loaded library. Cheap to copy; it stays for as long as the process lives.
#[derive(Clone, Copy)]
pub struct Library(&'static Loaded);

struct Loaded {
    identity: Identity,
    checked: Checked,
    finds: &'static [&'static str],
}

/// A file that the linker has mapped, for good, be it a filter or not.
struct Mapped {
    stamp: Stamp,
    /// Open for good: the linker knows the library by the descriptor's number and would take the next file
    /// with the same number for this one.
    _file: File,
    linked: Linked,
    /// Once its descriptor was found right.
    loaded: Option<&'static Loaded>,
}

/// Nothing is ever taken out, so nothing is unloaded: a library may have threads and exit handlers.
static MAPPED: Mutex<BTreeMap<Identity, Mapped>> = Mutex::new(BTreeMap::new());

impl Library {
    /// Loads the library at this path, or finds it among those that are loaded: by file, not by name. A file that is refused
    /// after it was loaded stays loaded, too, and is not used.
    ///
    /// Its constructors run in here: they can crash the process. See the crate's documentation for which files are taken.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let trusted = file::open(path)?;
        let identity = trusted.identity;
        // Held while constructors run: two threads must not load the same file.
        let mut all = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
        let mapped = match all.entry(identity) {
            Entry::Occupied(known) if known.get().stamp != trusted.stamp => return Err(FileError::Changed.into()),
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(link(trusted)?),
        };
        if let Some(loaded) = mapped.loaded {
            return Ok(Self(loaded));
        }
        let checked = mapped.read()?;
        let kinds = Kind::ALL.iter().filter(|kind| checked.finds & kind.bit() != 0).map(|kind| kind.as_str());
        let finds: Vec<_> = kinds.chain(["unscanned"]).collect();
        let loaded: &'static Loaded = Box::leak(Box::new(Loaded { identity, checked, finds: finds.leak() }));
        mapped.loaded = Some(loaded);
        Ok(Self(loaded))
    }

    /// The product's name, for people.
    pub fn name(&self) -> &'static str {
        &self.0.checked.name
    }

    /// Its version, if it says one.
    pub fn version(&self) -> Option<&'static str> {
        Some(&*self.0.checked.version).filter(|version| !version.is_empty())
    }

    /// The names of the kinds that it can report, as rules write them, and `unscanned`.
    pub fn finds(&self) -> &'static [&'static str] {
        self.0.finds
    }

    /// Which file it is.
    pub fn identity(&self) -> Identity {
        self.0.identity
    }

    pub(crate) fn functions(&self) -> &'static Checked {
        &self.0.checked
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Library").field(&self.name()).field(&self.identity()).finish()
    }
}

fn link(trusted: Trusted) -> Result<Mapped, LoadError> {
    // By descriptor: what was looked at is what is loaded.
    let name = format!("/proc/self/fd/{}", trusted.file.as_raw_fd());
    // SAFETY: it runs the library's constructors. That is what the administrator asked for by naming a file that only
    // root and our own user could have written; see the crate's documentation.
    match unsafe { Linked::open(Some(&name), RTLD_NOW | RTLD_LOCAL) } {
        Ok(linked) => Ok(Mapped { stamp: trusted.stamp, _file: trusted.file, linked, loaded: None }),
        Err(error) => Err(LoadError::Link(complaint(&error, &name))),
    }
}

impl Mapped {
    fn read(&self) -> Result<Checked, LoadError> {
        // SAFETY: the type is only that of a pointer here; what it leads to is looked at by `descriptor::read`.
        let symbol = unsafe { self.linked.get::<*const raw::Descriptor>(raw::SYMBOL.as_bytes()) };
        let address = symbol.map_err(|_| LoadError::NoSymbol)?.into_raw().cast_const().cast::<raw::Descriptor>();
        if address.is_null() {
            return Err(LoadError::NoSymbol);
        }
        // SAFETY: it is the library's symbol, and the library stays.
        unsafe { descriptor::read(address) }
    }
}

/// The linker's words, without the name that nobody knows.
fn complaint(error: &libloading::Error, name: &str) -> String {
    let text = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    text.strip_prefix(name).map(|rest| rest.trim_start_matches([':', ' ']).to_owned()).unwrap_or(text)
}
