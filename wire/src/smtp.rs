//! SMTP and LMTP, both ends: lines, commands, replies, extensions, content (RFC 5321, 2033, 3030).
//! Not a session: the order of commands, time limits and policy belong to the caller.

pub mod attributes;
pub mod command;
pub mod data;
pub mod extensions;
pub mod line;
pub mod params;
pub mod path;
pub mod proxy_protocol;
pub mod received;
pub mod reply;
pub mod stuff;
pub mod xtext;

pub use attributes::{Attribute, AttributeSet, Attributes};
pub use command::{Command, CommandError};
pub use data::{BareNewline, BdatDecoder, BdatEvent, DataDecoder, DataEvent, Violation};
pub use extensions::{Extensions, Ours};
pub use line::{LineEvent, Lines, next_line};
pub use params::{Body, Params};
pub use path::Path;
pub use proxy_protocol::{ProxyError, ProxyHeader};
pub use received::Received;
pub use reply::{PeerReply, ReplyParser, ReplySyntax, write_ehlo, write_reply};
pub use stuff::Stuffer;
