//! Wire formats that more than one part of Checkpost speaks: bytes in, values out.
//! No sockets, no clocks, no runtime: whoever owns the connection drives these codecs.

pub mod check;
pub mod clamd;
pub mod head;
pub mod mbox;
pub mod milter;
pub mod rspamd;
pub mod smtp;
pub mod spamd;
