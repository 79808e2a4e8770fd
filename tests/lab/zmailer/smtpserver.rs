//! smtpserver as a program: it reads its configuration once, at its start, and listens at port 25.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Access, access};

use super::driver::Driver;
use super::filter::{Filter, Limits};
use super::spool::Mail;
use super::stand_in::{OFFICE, SHARE, write_pid};
use crate::dialogue;

/// `smtpserver -V`, as ZMailer 3.0.1 says it.
#[allow(clippy::print_stdout)]
pub fn version() -> io::Result<()> {
    println!("ZMailer smtpserver (3.0.1 #1: stand-in)");
    Ok(())
}

/// Serves until it is ended.
pub fn smtpserver() -> io::Result<()> {
    let conf = fs::read_to_string(format!("{SHARE}/smtpserver.conf"))?;
    let (path, most) = content_filter(&conf, |path| access(path, Access::EXEC_OK).is_ok());
    let path = path.unwrap_or_else(|| "/nonexistent".into());
    let filter = Arc::new(Filter::find(Path::new(&path), most, Limits::default(), &[]));
    // The one before it may hold the port for a moment.
    let listener = loop {
        match TcpListener::bind("0.0.0.0:25") {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => std::thread::sleep(Duration::from_millis(20)),
            listener => break listener?,
        }
    };
    write_pid("smtpserver")?;
    for client in listener.incoming().map_while(Result::ok) {
        let filter = Arc::clone(&filter);
        // A client that breaks off is nobody's fault.
        std::thread::spawn(move || session(&client, &filter).ok());
    }
    Ok(())
}

fn session(client: &TcpStream, filter: &Filter) -> io::Result<()> {
    let driver = Driver::at(OFFICE);
    let mut connection = filter.session();
    let knows = |to: &str| to.to_ascii_lowercase().ends_with("@example.test");
    dialogue::serve(client, "mail.example.test", &knows, &mut |taken| {
        let recipients: Vec<&str> = taken.recipients.iter().map(String::as_str).collect();
        // Lines end with LF in a spool file.
        let text: Vec<u8> = taken.mail.split_inclusive(|&octet| octet == b'\n').flat_map(with_lf).collect();
        let told = driver.mail(&Mail::new(&taken.sender, &recipients, &text), |path| connection.ask(path))?;
        Ok(told.reply)
    })
}

fn with_lf(line: &[u8]) -> Vec<u8> {
    line.strip_suffix(b"\r\n").map_or_else(|| line.to_vec(), |line| [line, b"\n"].concat())
}

/// `PARAM contentfilter` and `PARAM contentfilter-maxpar` as cfgread.c reads them: in the first column, keywords in any
/// case, the last that counts. A filter that may not be executed is as if it were not there, without a word; one copy
/// unless another number is said.
fn content_filter(conf: &str, may_execute: impl Fn(&str) -> bool) -> (Option<String>, usize) {
    let (mut filter, mut most) = (None, 1);
    for line in conf.lines().filter(|line| line.starts_with("PARAM")) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, name, value, ..] = words[..] else { continue };
        let value = value.replace("$MAILBIN", "/opt/zmailer/lib").replace("$MAILSHARE", SHARE);
        match name.to_ascii_lowercase().as_str() {
            "contentfilter" if may_execute(&value) => filter = Some(value),
            "contentfilter-maxpar" => most = value.parse().unwrap_or(0).clamp(1, 20),
            _ => {}
        }
    }
    (filter, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_executed_is_not_there() {
        let conf = "#PARAM contentfilter /a\n PARAM contentfilter /b\nPARAM  ContentFilter $MAILBIN/c # x\nPARAM contentfilter /gone\nPARAM contentfilter-maxpar 30\n";
        let read = |conf: &str| content_filter(conf, |path| path != "/gone");
        assert_eq!(read(conf), (Some("/opt/zmailer/lib/c".into()), 20));
        assert_eq!(read("PARAM contentfilter /gone\n"), (None, 1));
    }
}
