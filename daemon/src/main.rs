//! The program `checkpostd`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Checks mail for viruses and spam on its way: the daemon.
///
/// It logs to standard error. SIGHUP reads the configuration again, without dropping a session; when
/// something is wrong with it, the old one stays in force. SIGTERM and SIGINT finish the sessions under
/// way and end.
///
/// Exit codes: 0 ended as asked; 64 wrong usage; 71 the system refused something (an address, a directory, a
/// user); 78 the configuration is wrong, everything that is wrong was printed.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// The configuration file; the *.toml in the folder conf.d beside it are read after it
    #[arg(long, value_name = "FILE", default_value = checkpostd::settings::DEFAULT_CONFIG)]
    config: PathBuf,
}

fn main() -> ExitCode {
    if let Some(code) = checkpostd::filters::probe_main() {
        return code;
    }
    match Arguments::try_parse() {
        Ok(arguments) => checkpostd::run::run(&arguments.config),
        Err(error) => {
            // Nothing can be done about a closed terminal.
            let _ = error.print();
            if error.use_stderr() { 64.into() } else { ExitCode::SUCCESS }
        }
    }
}
