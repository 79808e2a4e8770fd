//! A daemon that answers as a test wants, and sees to it that it could not have written to the mail.

use std::io::Write;
use std::path::Path;

use checkpost_client::fake;
use checkpost_wire::check::{Request, Response};

/// Its answer, and the changed content that goes with it. Nothing: it hangs up.
pub type Said = Option<(Response, Option<Vec<u8>>)>;

/// Listens until the test ends.
pub fn listen(socket: &Path, judge: impl Fn(&Request, &[u8]) -> Said + Send + Sync + 'static) {
    fake::listen(socket, move |asked| {
        assert!((&asked.file).write_all(b"x").is_err(), "the mail is not to be written by the daemon");
        match judge(&asked.request, &asked.content) {
            None => fake::Said::Nothing,
            Some((response, None)) => fake::Said::Response(response),
            Some((response, Some(changed))) => fake::Said::Changed(response, changed),
        }
    });
}
