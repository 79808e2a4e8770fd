//! Milter, Sendmail's filter protocol (versions 2 to 6), both directions: packets, negotiation, commands of
//! the mail server, replies of the filter. It keeps no state: what may follow what is the session's.
//!
//! Sources: `mfdef.h` and `libmilter/docs` of Sendmail 8.17, `milter8.c` and MILTER_README of Postfix. Where
//! the two differ, what is read is what either sends, and what is written is what both take.

mod command;
mod frame;
mod macros;
mod options;
mod reply;

pub use command::{Command, CommandError, MAX_PARAMETERS, Path, Peer};
pub use frame::{FrameError, Packet, guess_protocol, take_packet};
pub use macros::Macros;
pub use options::{Actions, Choice, Offer, Stage, Steps};
pub use reply::{Reply, ReplyError, Said};

/// The most data in a packet of ours: libmilter's own limit (`MILTER_CHUNK_SIZE`).
pub const MAX_DATA: usize = 65_535;
/// The largest length that is accepted: 1 MiB of data (`SMFIP_MDS_1M`) and what goes with it.
pub const MAX_PACKET: usize = (1 << 20) + 64;
