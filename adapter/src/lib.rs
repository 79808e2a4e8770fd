//! What every way in shares: a [`Session`] without I/O, the [`Step`]s it asks for, the driver that
//! takes them on real sockets, and the conformance battery that each way passes.
//!
//! It knows no protocol: the words of SMTP, milter or a queue file are in the sessions.

pub mod address;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod descriptors;
pub mod driver;
pub mod edited;
pub mod files;
pub mod host;
pub mod listen;
pub mod pool;
pub mod report;
pub mod session;
pub mod stream;
pub mod tls;
pub mod way;

/// Recipes for those who set a way up by hand.
pub use checkpost_setup::recipe as setup;

pub use address::SocketAddress;
pub use driver::drive;
pub use host::{Host, Judged};
pub use session::{Answer, Opening, Outgoing, Piece, Session, Side, Step, Submission};
pub use way::{Kind, Way};
