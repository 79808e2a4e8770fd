//! The proxy on real sockets: TLS on both sides, Unix sockets, the spool, sessions side by side.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use checkpost_adapter::conformance::{Peer, Point, Then, Trouble, TroubleKind};
use checkpost_adapter::pool::Pool;
use checkpost_adapter::session::Target;
use checkpost_adapter::stream::{BoxStream, Connection};
use checkpost_adapter::tls::{Connectors, acceptor};
use checkpost_adapter::{Host, Way};
use checkpost_core::config::{Document, Located, Problems};
use checkpost_core::filter::Unpacking;
use checkpost_core::policy::Policy;
use checkpost_core::{Engine, Spool};
use checkpost_smtp::{SmtpWay, Written, kinds};
use checkpost_wire::smtp::reply::{PeerReply, ReplyParser};
use common::hop::{HopLog, HopNetwork, HopScript};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

/// A proxy and its next hop.
struct Scene {
    way: Arc<SmtpWay>,
    host: Arc<Host>,
    hop: Arc<Mutex<HopLog>>,
    connectors: Connectors,
    _folder: tempfile::TempDir,
    // Dropped, it would mean "drain".
    _drain: tokio::sync::watch::Sender<bool>,
}

#[derive(Default)]
struct Options {
    lines: &'static str,
    hop: HopScript,
    hop_implicit_tls: bool,
    unix: bool,
    spool_missing: bool,
}

async fn scene(options: Options) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(folder.path());
    let hop_tls = acceptor(&certificate, &key).unwrap();
    let log = Arc::new(Mutex::new(HopLog::default()));
    let network = HopNetwork { script: Arc::new(options.hop), log: Arc::clone(&log) };
    let hop_address = if options.unix {
        let path = folder.path().join("hop.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_hop(Box::new(stream), network.peer(), hop_tls.clone(), false));
            }
        });
        format!("unix:{}", path.display())
    } else {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let implicit = options.hop_implicit_tls;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_hop(Box::new(stream), network.peer(), hop_tls.clone(), implicit));
            }
        });
        address
    };
    let text = format!(
        "[[way]]\nkind = \"smtp-proxy\"\nlisten = \"127.0.0.1:25\"\nreceived = false\nnext_hop = \"{hop_address}\"\n\
         tls_certificate = \"{}\"\ntls_key = \"{}\"\n{}",
        certificate.display(),
        key.display(),
        options.lines
    );
    let mut problems = Problems::default();
    let written: Vec<Located<Written>> =
        Document::parse("test.toml", &text, &mut problems).take_list("way", &mut problems);
    problems.into_result().unwrap();
    let (kind, defaults) = kinds()[0];
    let way = Arc::new(SmtpWay::new(kind, &defaults, &written[0].value, Arc::default()).unwrap());
    let spool = if options.spool_missing { folder.path().join("missing") } else { folder.path().to_owned() };
    let (drain, draining) = tokio::sync::watch::channel(false);
    let connectors = Connectors::new().unwrap();
    let host = Arc::new(Host {
        engine: Arc::new(Engine::new(Vec::new(), Policy::default(), Unpacking::default())),
        quarantine: None,
        spool: Arc::new(Spool::new(spool)),
        pool: Pool::new(4, Duration::from_secs(5)),
        connectors: connectors.clone(),
        drain: draining,
    });
    Scene { way, host, hop: log, connectors, _folder: folder, _drain: drain }
}

fn certificate(folder: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

/// The scripted next hop on a stream.
async fn serve_hop(mut stream: BoxStream, mut peer: common::hop::HopPeer, tls: TlsAcceptor, implicit: bool) {
    if implicit {
        stream = match tls.accept(stream).await {
            Ok(stream) => Box::new(stream),
            Err(_) => return,
        };
    }
    let mut buffer = vec![0; 64 << 10];
    let mut count = 0;
    loop {
        let does = peer.hear(&buffer[..count]);
        if stream.write_all(&does.say).await.is_err() || stream.flush().await.is_err() || does.then != Then::Stay {
            return;
        }
        if buffer[..count].ends_with(b"STARTTLS\r\n") {
            stream = match tls.accept(stream).await {
                Ok(stream) => Box::new(stream),
                Err(_) => return,
            };
        }
        count = match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
    }
}

impl Scene {
    /// A client's connection.
    async fn client(&self) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (theirs, peer) = theirs.unwrap();
        let connection = Connection {
            stream: Box::new(theirs),
            peer: Some((peer.ip(), peer.port())),
            local: None,
            process: None,
            descriptors: None,
        };
        tokio::spawn(Arc::clone(&self.way).serve(connection, Arc::clone(&self.host)));
        Client::new(Box::new(ours.unwrap()))
    }

    fn unix_client(&self) -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let connection =
            Connection { stream: Box::new(theirs), peer: None, local: None, process: None, descriptors: None };
        tokio::spawn(Arc::clone(&self.way).serve(connection, Arc::clone(&self.host)));
        Client::new(Box::new(ours))
    }

    async fn secure(&self, client: Client) -> Client {
        let target = Target {
            address: "localhost:25".parse().unwrap(),
            implicit_tls: true,
            tls_name: None,
            tls_verify: false,
            reuse: false,
            farewell: b"QUIT\r\n",
            timeout: Duration::from_secs(5),
        };
        Client::new(self.connectors.secure(&target, client.stream).await.unwrap())
    }

    fn contents(&self) -> Vec<Vec<u8>> {
        self.hop.lock().unwrap().mails.iter().map(|mail| mail.content.clone()).collect()
    }

    fn heard(&self, word: &str) -> usize {
        self.hop.lock().unwrap().heard.iter().filter(|line| line.starts_with(word)).count()
    }
}

struct Client {
    stream: BoxStream,
    parser: ReplyParser,
    buffer: BytesMut,
}

impl Client {
    fn new(stream: BoxStream) -> Self {
        Self { stream, parser: ReplyParser::new(), buffer: BytesMut::new() }
    }

    async fn reply(&mut self) -> PeerReply {
        loop {
            if let Some(reply) = self.parser.push(&mut self.buffer).unwrap() {
                return reply;
            }
            let read = tokio::time::timeout(Duration::from_secs(20), self.stream.read_buf(&mut self.buffer));
            assert_ne!(read.await.expect("a reply in time").unwrap(), 0, "closed: {:?}", self.buffer);
        }
    }

    async fn say(&mut self, words: impl AsRef<[u8]>, wanted: &[u16]) {
        self.stream.write_all(words.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
        for &code in wanted {
            let reply = self.reply().await;
            assert_eq!(reply.code, code, "{}", reply.text());
        }
    }

    /// One mail; the code of the answer to its content.
    async fn mail(&mut self, content: &[u8], chunks: bool) -> u16 {
        self.say("MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\n", &[250, 250]).await;
        if chunks {
            self.say(format!("BDAT {} LAST\r\n", content.len()), &[]).await;
            self.say(content, &[]).await;
        } else {
            self.say("DATA\r\n", &[354]).await;
            self.say(content, &[]).await;
            self.say(".\r\n", &[]).await;
        }
        self.reply().await.code
    }
}

const SMALL: &[u8] = b"Subject: small\r\n\r\nbody\r\n";

#[tokio::test]
async fn starttls_on_both_sides() {
    let mut hop = HopScript::default();
    hop.with("STARTTLS");
    let lines = "hop_tls = \"starttls\"\nhop_tls_verify = false\n";
    let scene = scene(Options { lines, hop, ..Options::default() }).await;
    let mut client = scene.client().await;
    client.say("", &[220]).await;
    client.say("EHLO c\r\n", &[250]).await;
    client.say("STARTTLS\r\n", &[220]).await;
    let mut client = scene.secure(client).await;
    client.say("EHLO c\r\n", &[250]).await;
    assert_eq!(client.mail(SMALL, false).await, 250);
    client.say("QUIT\r\n", &[221]).await;
    assert_eq!(scene.contents(), [SMALL]);
    assert_eq!(scene.heard("STARTTLS"), 1);
}

#[tokio::test]
async fn implicit_tls_on_both_sides() {
    let lines = "hop_tls = \"implicit\"\nhop_tls_verify = false\nimplicit_tls = true\n";
    let scene = scene(Options { lines, hop_implicit_tls: true, ..Options::default() }).await;
    let mut client = scene.secure(scene.client().await).await;
    client.say("", &[220]).await;
    client.say("EHLO c\r\n", &[250]).await;
    assert_eq!(client.mail(SMALL, true).await, 250);
    assert_eq!(scene.contents(), [SMALL]);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_verified_gets_no_mail() {
    let mut hop = HopScript::default();
    hop.with("STARTTLS");
    let scene = scene(Options { lines: "hop_tls = \"starttls\"\n", hop, ..Options::default() }).await;
    let mut client = scene.client().await;
    client.say("", &[220]).await;
    client.say("EHLO c\r\n", &[250]).await;
    client.say("MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\n", &[250, 451]).await;
    assert_eq!(scene.heard("MAIL"), 0);
}

#[tokio::test]
async fn unix_sockets_on_both_sides() {
    let scene = scene(Options { unix: true, ..Options::default() }).await;
    for _ in 0..3 {
        let mut client = scene.unix_client();
        client.say("", &[220]).await;
        client.say("EHLO c\r\n", &[250]).await;
        assert_eq!(client.mail(SMALL, false).await, 250);
        client.say("QUIT\r\n", &[221]).await;
    }
    assert_eq!(scene.contents(), [SMALL, SMALL, SMALL]);
    assert_eq!(scene.heard("EHLO"), 1, "the connection is kept from session to session");
}

/// Larger than what is kept in memory, with a dot at many line starts (never at the first of a write).
fn large() -> Vec<u8> {
    let mut content = b"Subject: large\r\n\r\n".to_vec();
    let mut line = 0_u32;
    while content.len() < 3 << 20 {
        content.extend_from_slice(format!("line {line} {}\r\n", "x".repeat(line as usize % 900)).as_bytes());
        line += 1;
    }
    content
}

#[tokio::test]
async fn a_spooled_content_arrives_to_the_byte() {
    let mut hop = HopScript::default();
    hop.with("CHUNKING");
    for hop in [HopScript::default(), hop] {
        let scene = scene(Options { hop, ..Options::default() }).await;
        let mut client = scene.client().await;
        client.say("", &[220]).await;
        client.say("EHLO c\r\n", &[250]).await;
        assert_eq!(client.mail(&large(), false).await, 250);
        // By BDAT dots stand as they are.
        let dotted = String::from_utf8(large()).unwrap().replace("line", ".").into_bytes();
        assert_eq!(client.mail(&dotted, true).await, 250);
        assert_eq!(client.mail(SMALL, false).await, 250);
        assert!(scene.contents() == [large(), dotted, SMALL.to_vec()], "a content differs");
    }
}

#[tokio::test]
async fn without_a_spool_a_large_mail_is_deferred_and_a_small_one_passes() {
    let scene = scene(Options { spool_missing: true, ..Options::default() }).await;
    for chunks in [false, true] {
        let mut client = scene.client().await;
        client.say("", &[220]).await;
        client.say("EHLO c\r\n", &[250]).await;
        assert_eq!(client.mail(&large(), chunks).await, 452);
        assert_eq!(client.mail(SMALL, chunks).await, 250);
    }
    assert_eq!(scene.contents(), [SMALL, SMALL]);
}

#[tokio::test]
async fn a_silent_hop_holds_up_nobody_else() {
    let trouble = Some(Trouble { at: Point::Final, kind: TroubleKind::Silent, always: false });
    let scene = scene(Options { hop: HopScript { trouble, ..HopScript::default() }, ..Options::default() }).await;
    let mut held = scene.client().await;
    held.say("", &[220]).await;
    held.say("EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n", &[250, 250, 250, 354]).await;
    held.say(SMALL, &[]).await;
    held.say(".\r\n", &[]).await;
    // It is held once the hop has its content; until then the other could take its place.
    while scene.hop.lock().unwrap().ended == 0 {
        tokio::task::yield_now().await;
    }
    let mut other = scene.client().await;
    other.say("", &[220]).await;
    other.say("EHLO c\r\n", &[250]).await;
    assert_eq!(other.mail(SMALL, false).await, 250);
    let mut nothing = [0; 1];
    let answered = tokio::time::timeout(Duration::from_millis(1), held.stream.read(&mut nothing)).await;
    assert!(answered.is_err(), "the first has no answer yet");
}

#[tokio::test]
async fn a_client_that_is_gone_before_its_mail_is_handed_on_does_not_have_it_handed_on() {
    // Its connection closes behind the final dot, at once, and no QUIT says that it is content.
    let scene = scene(Options::default()).await;
    let mut client = scene.client().await;
    client.say("", &[220]).await;
    client.say("EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n", &[250, 250, 250, 354]).await;
    client.say([SMALL, b".\r\n"].concat(), &[]).await;
    drop(client);
    while scene.heard("RSET") == 0 && scene.contents().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(scene.contents().is_empty());
}
