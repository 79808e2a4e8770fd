//! The daemon killed again and again under load: what a client was told 250 for is delivered, what it
//! was refused is not. No root is needed: the next hop is the lab's sink.

#![allow(clippy::unwrap_used)]

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use checkpost_tests::{CrashLoad, Daemon, Sink, program, send};

#[test]
fn killed_at_random_moments_it_loses_nothing() {
    let sink = Sink::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), port, &sink.address().to_string());
    let connect = || TcpStream::connect(("127.0.0.1", port));
    let load = CrashLoad {
        mails: 1000,
        lives: 5..65,
        start: || Daemon::start_in(Command::new(program("checkpostd")), folder.path(), &config, connect).unwrap(),
        send: |from: &str, to: &[&str], mail: &[u8]| send(connect()?, from, to, mail),
    };
    load.run();
    load.check(&sink.mailbox("alice"), true);
}

fn config(folder: &Path, port: u16, next_hop: &str) -> String {
    let folder = folder.display();
    format!(
        r#"
[daemon]
state = "{folder}/state"

[[way]]
kind = "smtp-proxy"
listen = "127.0.0.1:{port}"
next_hop = "{next_hop}"
"#
    )
}
