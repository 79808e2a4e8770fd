//! Standard error leads nowhere: the server reads it only when the program has ended, and a full pipe would stop it.

use std::fs::OpenOptions;
use std::os::fd::AsFd;

/// To be called before anything else. What cannot be had is left: nothing here writes there.
pub(crate) fn quiet() {
    if let Ok(nowhere) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stderr(nowhere.as_fd());
    }
    std::panic::set_hook(Box::new(|fault| crate::log::note("", format_args!("fault: {fault}"))));
}
