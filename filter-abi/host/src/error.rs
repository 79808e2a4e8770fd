//! Why a library is refused. Each reason reads as one clause about the file that the caller names.

use std::path::PathBuf;

use checkpost_filter_abi::raw;

/// Why a library was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file or a folder on the way to it.
    #[error(transparent)]
    File(#[from] FileError),
    /// The dynamic linker refused: no ELF file, another machine's, a missing library or symbol.
    #[error("the dynamic linker refuses it: {0}")]
    Link(String),
    /// No such symbol.
    #[error("it has no symbol \"{}\", so it is no filter for Checkpost", raw::SYMBOL)]
    NoSymbol,
    /// There is such a symbol, and it is something else.
    #[error("its symbol \"{symbol}\" does not begin with CHECKPOST_FILTER_MAGIC but with {0:#018x}", symbol = raw::SYMBOL)]
    Magic(u64),
    /// Made for another version of the contract.
    #[error("it was made for version {0} of the filter ABI; this program has version {ours}", ours = raw::ABI)]
    Abi(u32),
    /// Version and size do not fit.
    #[error("its descriptor says it has {0} octets; version {ours} has {size}", ours = raw::ABI, size = size_of::<raw::Descriptor>())]
    Size(u32),
    /// A function is not there.
    #[error("its function \"{0}\" is NULL")]
    NoFunction(&'static str),
    /// A pointer without what it should lead to.
    #[error("its {0} is NULL with a length")]
    NullText(Field),
    /// Nothing is there.
    #[error("its {0} is empty")]
    EmptyText(Field),
    /// Over the bound.
    #[error("its {0} has {1} octets; at most 64 are allowed")]
    LongText(Field, usize),
    /// Not what people can read.
    #[error("its {0} is not UTF-8 without control characters")]
    GarbledText(Field),
    /// No kind of finding, or one that there is not.
    #[error("the kinds of finding that it declares are {0:#x}; that is none, or has unknown ones")]
    Finds(u32),
    /// What must be 0 is not.
    #[error("the reserved member of its descriptor is {0}, not 0")]
    Reserved(u32),
}

/// A text in the descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The product's name.
    Name,
    /// Its version.
    Version,
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Name => "name",
            Self::Version => "version",
        })
    }
}

/// Why a file is not trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Where it is would depend on where we are.
    #[error("not an absolute path")]
    Relative,
    /// Another file may be meant tomorrow.
    #[error("the path goes through a symbolic link or is not in its shortest form; write {0:?}")]
    Indirect(PathBuf),
    /// The kernel's word.
    #[error("cannot open it: {0}")]
    Open(std::io::Error),
    /// A folder, a device …
    #[error("not a regular file")]
    NotRegular,
    /// Somebody else's.
    #[error("it belongs to user {0}; accepted: root and the user that the program runs as")]
    Owner(u32),
    /// Others can write it.
    #[error("group or others can write it (mode {0:04o}); chmod go-w it")]
    Writable(u32),
    /// A folder on the way is somebody else's, who can put another file there.
    #[error("the folder {0:?} belongs to user {1}; accepted: root and the user that the program runs as")]
    FolderOwner(PathBuf, u32),
    /// Others can write a folder on the way, and so put another file there.
    #[error("group or others can write the folder {0:?} (mode {1:04o}); chmod go-w it")]
    FolderWritable(PathBuf, u32),
    /// The kernel's word on a folder.
    #[error("cannot look at the folder {0:?}: {1}")]
    Folder(PathBuf, std::io::Error),
    /// The loaded file was written over in place.
    #[error("the file was changed in place since it was loaded; restart, and replace it by renaming next time")]
    Changed,
}

/// Why there is no instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// It said why.
    #[error("{0}")]
    Refused(String),
    /// It did not.
    #[error("it refuses its settings and does not say why (code {0})")]
    Silent(i32),
    /// A code that the contract does not know.
    #[error("it answered with the unknown code {0} when it got its settings")]
    UnknownCode(i32),
    /// It caught a crash of its own.
    #[error("it crashed over its settings: {0}")]
    Panicked(String),
    /// What cannot be passed on.
    #[error("the setting {0:?} has a NUL octet")]
    Nul(String),
}
