//! Rspamd's protocol, server side: HTTP/1.0 and 1.1 (rspamd.com/doc/developers/protocol.html; checked against rspamc
//! 3.4), and the older form that Exim's `variant=rspamd` speaks (Exim 4.96). What is answered in JSON is the front end's.
//!
//! The client tells about the envelope in its head; the body is the message.

use crate::head::{self, Finder, HeadError, MAX_LINES};
use crate::mbox::{address, addresses};
use crate::spamd::Tenths;

/// One request, without its body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// How it came, and so how it is answered.
    pub form: Form,
    /// What is wanted.
    pub wanted: Wanted,
    /// The body's length in octets; `None`: there is none.
    pub length: Option<u64>,
    /// The client waits for a word before it sends the body.
    pub expects: bool,
    /// What is known of the mail.
    pub about: About,
}

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// By HTTP: is the connection used again?
    Http {
        /// For another request.
        keep: bool,
    },
    /// `CHECK RSPAMC/1.3`.
    #[default]
    Old,
}

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// A message checked: `POST /checkv2`.
    #[default]
    Check,
    /// Is somebody there? `/ping`.
    Ping,
    /// Counts: `/stat`.
    Stat,
    /// Something that is not done here.
    Other,
    /// A body without a length before it (RFC 9112 section 6.3): refused.
    Chunked,
    /// The message is not in the body but in a file or in memory of the client's machine, or it is compressed.
    Elsewhere,
}

/// What the head tells about a mail.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// Envelope sender without `<>`.
    pub sender: String,
    /// Envelope recipients, in order.
    pub recipients: Vec<String>,
    /// The client's address.
    pub ip: Option<String>,
    /// Its name.
    pub hostname: Option<String>,
    /// Its greeting.
    pub helo: Option<String>,
    /// The authenticated user.
    pub user: Option<String>,
    /// The mail server's own id.
    pub queue_id: Option<String>,
    /// It came over TLS.
    pub tls: bool,
}

/// Looks for a request in a buffer that grows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reader(Finder);

impl Reader {
    /// The first request and the length of its head, once that is here whole.
    ///
    /// # Errors
    /// It is none.
    pub fn read(&mut self, buffer: &[u8]) -> Result<Option<(Request, usize)>, HeadError> {
        match self.0.find(buffer)? {
            None => Ok(None),
            Some(length) => {
                let head = &buffer[..length];
                let at = memchr::memchr(b'\n', head).ok_or(HeadError::Malformed)?;
                let old = memchr::memmem::find(&head[..at], b" RSPAMC/").is_some();
                Ok(Some((if old { old_form(head, at)? } else { http(head)? }, length)))
            }
        }
    }
}

fn old_form(head: &[u8], line: usize) -> Result<Request, HeadError> {
    let mut request = Request::default();
    match head[..line].split(|octet| *octet == b' ').next() {
        Some(b"CHECK" | b"SYMBOLS" | b"REPORT") => {}
        Some(b"PING") => request.wanted = Wanted::Ping,
        _ => return Err(HeadError::Malformed),
    }
    for (name, value) in head::lines(&head[line + 1..])? {
        request.take(name, value)?;
    }
    Ok(request)
}

fn http(head: &[u8]) -> Result<Request, HeadError> {
    let most = memchr::memchr_iter(b'\n', head).count().min(MAX_LINES);
    let mut space = vec![httparse::EMPTY_HEADER; most];
    let mut parsed = httparse::Request::new(&mut space);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) | Err(_) => return Err(HeadError::Malformed),
    }
    let path = parsed.path.unwrap_or_default().split('?').next().unwrap_or_default();
    let wanted = match path.trim_end_matches('/') {
        "/checkv2" | "/check" | "/symbols" => Wanted::Check,
        "/ping" => Wanted::Ping,
        "/stat" => Wanted::Stat,
        _ => Wanted::Other,
    };
    let keep = parsed.version == Some(1);
    let mut request = Request { form: Form::Http { keep }, wanted, ..Request::default() };
    for header in parsed.headers {
        request.take(header.name, header.value.trim_ascii())?;
    }
    if request.wanted == Wanted::Chunked && request.length.is_some() {
        // Whose end is where is what smugglers play with (RFC 9112 section 6.1).
        return Err(HeadError::Length);
    }
    Ok(request)
}

impl Request {
    fn take(&mut self, name: &str, value: &[u8]) -> Result<(), HeadError> {
        let text = || Some(String::from_utf8_lossy(value).into_owned()).filter(|text| !text.is_empty());
        let about = &mut self.about;
        match &*name.to_ascii_lowercase() {
            "content-length" if self.length.is_some() => return Err(HeadError::Length),
            "content-length" => self.length = Some(head::length(value)?),
            "transfer-encoding" => self.wanted = Wanted::Chunked,
            "expect" => self.expects = value.eq_ignore_ascii_case(b"100-continue"),
            "connection" => {
                if let Form::Http { keep } = &mut self.form {
                    if value.eq_ignore_ascii_case(b"close") {
                        *keep = false;
                    } else if value.eq_ignore_ascii_case(b"keep-alive") {
                        *keep = true;
                    }
                }
            }
            "from" => about.sender = address(&String::from_utf8_lossy(value)).to_owned(),
            "rcpt" => about.recipients.extend(addresses(&String::from_utf8_lossy(value))),
            // Whom the mail is delivered to, where that is known and the envelope is not.
            "deliver-to" if about.recipients.is_empty() => {
                about.recipients.extend(addresses(&String::from_utf8_lossy(value)));
            }
            "ip" => about.ip = text().map(|ip| ip.trim_matches(['[', ']']).to_owned()),
            "hostname" => about.hostname = text(),
            "helo" => about.helo = text(),
            "user" => about.user = text(),
            "queue-id" => about.queue_id = text(),
            "tls-cipher" | "tls-version" => about.tls = !value.is_empty(),
            "file" | "path" | "shm" | "compression" | "content-encoding" | "key"
                if self.wanted == Wanted::Check && !value.is_empty() =>
            {
                self.wanted = Wanted::Elsewhere;
            }
            _ => {}
        }
        Ok(())
    }
}

/// The word that lets a client send its body (RFC 9110 section 10.1.1).
pub const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// An answer by HTTP.
pub fn answer(status: u16, kind: &str, body: &str, keep: bool) -> String {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    };
    let connection = if keep { "keep-alive" } else { "close" };
    format!(
        "HTTP/1.1 {status} {reason}\r\nServer: checkpost\r\nConnection: {connection}\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// An answer in the older form: Exim wants `Metric` in the second line and `Action` in the third.
pub fn old_answer(spam: bool, score: Tenths, threshold: Tenths, action: &str, symbols: &[String]) -> String {
    let word = if spam { "True" } else { "False" };
    let mut answer = format!(
        "RSPAMD/1.3 0 EX_OK\r\nMetric: default; {word}; {score} / {threshold} / {threshold}\r\nAction: {action}\r\n"
    );
    for symbol in symbols {
        answer.push_str("Symbol: ");
        answer.extend(symbol.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }));
        answer.push_str("\r\n");
    }
    answer.push_str("\r\n");
    answer
}

/// The same when there is no verdict: a code of sysexits.h and why. Exim puts the mail off.
pub fn old_failure(code: u8, why: &str) -> String {
    let why: String = why.chars().map(|c| if c.is_ascii_control() { '?' } else { c }).collect();
    format!("RSPAMD/1.3 {code} {why}\r\n\r\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Option<(Request, usize)>, HeadError> {
        Reader::default().read(text.as_bytes())
    }

    fn good(text: &str) -> Request {
        let (request, length) = read(text).unwrap().unwrap();
        assert_eq!(length, text.len());
        request
    }

    #[test]
    fn a_check_by_http() {
        let request = good(
            "POST /checkv2 HTTP/1.1\r\nContent-Length: 12\r\nFrom: <a@x>\r\nRcpt: b@x\r\nRcpt: <c@x>, d@x\r\nIP: [2001:db8::1]\r\n\
             Helo: h\r\nHostname: n\r\nUser: u\r\nQueue-Id: q\r\nDeliver-To: e@x\r\nExpect: 100-continue\r\n\r\n",
        );
        let text = |text: &str| Some(text.to_owned());
        let about = About {
            sender: "a@x".into(),
            recipients: vec!["b@x".into(), "c@x".into(), "d@x".into()],
            ip: text("2001:db8::1"),
            hostname: text("n"),
            helo: text("h"),
            user: text("u"),
            queue_id: text("q"),
            tls: false,
        };
        let form = Form::Http { keep: true };
        assert_eq!(request, Request { form, wanted: Wanted::Check, length: Some(12), expects: true, about });
        let delivered = good("POST /checkv2 HTTP/1.0\r\nDeliver-To: e@x\r\n\r\n");
        assert_eq!(
            (delivered.form, &*delivered.about.recipients),
            (Form::Http { keep: false }, &["e@x".to_owned()][..])
        );
    }

    #[test]
    fn what_else_is_asked_by_http() {
        let wanted = |head: &str| good(&format!("{head}\r\n\r\n")).wanted;
        assert_eq!(wanted("GET /ping HTTP/1.1"), Wanted::Ping);
        assert_eq!(wanted("GET /stat?x HTTP/1.0"), Wanted::Stat);
        assert_eq!(wanted("POST /learnspam HTTP/1.1"), Wanted::Other);
        assert_eq!(wanted("POST /checkv2 HTTP/1.1\r\nTransfer-Encoding: chunked"), Wanted::Chunked);
        for header in
            ["File: /etc/passwd", "Path: x", "Shm: x", "Compression: zstd", "Content-Encoding: zstd", "Key: x"]
        {
            assert_eq!(wanted(&format!("POST /checkv2 HTTP/1.1\r\n{header}")), Wanted::Elsewhere, "{header}");
        }
        let both = "POST /checkv2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n";
        assert_eq!(read(both), Err(HeadError::Length));
        assert_eq!(read("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"), Err(HeadError::Length));
        assert_eq!(read("nonsense\r\n\r\n"), Err(HeadError::Malformed));
        assert_eq!(read("POST /checkv2 HTTP/1.1\r\n"), Ok(None));
    }

    #[test]
    fn the_form_of_exim() {
        let request = good(
            "CHECK RSPAMC/1.3\r\nContent-length: 5\r\nQueue-Id: 1abc\r\nFrom: <>\r\nRecipient-Number: 1\r\nRcpt: <b@x>\r\n\
             Helo: h\r\nIP: 192.0.2.1\r\n\r\n",
        );
        assert_eq!((request.form, request.wanted, request.length), (Form::Old, Wanted::Check, Some(5)));
        assert_eq!((&*request.about.sender, &*request.about.recipients), ("", &["b@x".to_owned()][..]));
        assert_eq!(request.about.ip.as_deref(), Some("192.0.2.1"));
        let symbols = ["GTUBE(10.0)".to_owned(), "a\r\nAction: x".to_owned()];
        assert_eq!(
            old_answer(true, Tenths(200), Tenths(150), "reject", &symbols),
            "RSPAMD/1.3 0 EX_OK\r\nMetric: default; True; 20.0 / 15.0 / 15.0\r\nAction: reject\r\n\
             Symbol: GTUBE(10.0)\r\nSymbol: a__Action:_x\r\n\r\n"
        );
    }

    proptest! {
        #[test]
        fn any_slicing_reads_alike(text in "(POST /checkv2 HTTP/1.1|CHECK RSPAMC/1.3)\r\n(Rcpt: [a-z,<>@\"]{0,9}\r\n){0,3}\r\n", cut in 1usize..30) {
            let whole = read(&text);
            let (mut reader, mut buffer, mut seen) = (Reader::default(), Vec::new(), Ok(None));
            for piece in text.as_bytes().chunks(cut) {
                buffer.extend_from_slice(piece);
                seen = reader.read(&buffer);
                if seen != Ok(None) {
                    break;
                }
            }
            prop_assert_eq!(seen, whole);
        }

        #[test]
        fn nothing_panics(octets in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Reader::default().read(&octets);
            let _ = Reader::default().read(&[&octets[..], b"\r\n\r\n"].concat());
        }
    }
}
