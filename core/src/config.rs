//! Configuration files: reading, merging, typed sections, problems with their places.
//!
//! It knows no section but those of the core ([`Lists`], [`Origins`], the rules in
//! [`crate::policy`]): every part of the program takes its own section out of a [`Document`] and
//! owns its defaults.
//!
//! One file, `checkpost.toml`, and beside it one folder, `conf.d`, whose `*.toml` are read after it
//! in the order of their names. One rule merges them: lists append, a key may be set once. A
//! program reads the whole of it in these steps, and collects what is wrong on the way:
//!
//! ```
//! use checkpost_core::config::{Document, Problems, Size};
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Limits {
//!     message: Size,
//! }
//!
//! let mut problems = Problems::default();
//! let mut document = Document::parse("x.toml", "[limits]\nmessage = \"10 MiB\"\n", &mut problems);
//! let limits: Option<Limits> = document.take_section("limits", &mut problems);
//! document.finish(&mut problems);
//! problems.into_result().expect("nothing is wrong");
//! assert_eq!(limits.expect("it is there").message, Size::mebibytes(10));
//! ```

mod document;
pub(crate) mod glob;
mod lists;
mod origins;
mod problem;
mod read;
mod render;
mod tree;
mod units;

pub use document::{Document, Item};
pub use lists::{AddressSet, List, Lists};
pub use origins::{Network, Origins};
pub use problem::{Place, Problem, Problems, suggestion};
pub use read::{Located, OneOrMany};
pub use units::{Size, Time};
