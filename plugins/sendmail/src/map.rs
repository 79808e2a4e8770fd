//! What Sendmail can be told.

use checkpost_core::Abilities;

/// All of the protocol (libmilter/docs); a held mail goes to the quarantined queue.
pub(crate) const MILTER: Abilities = checkpost_milter::MILTER;
