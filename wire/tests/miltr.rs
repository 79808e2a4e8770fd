//! The codec against an independent one, `miltr`: what it writes as a mail server we read, and what we write it
//! reads. Not covered is what it does not know: ACCEPT, PROGRESS, ADDRCPT_PAR, CHGFROM.

#![allow(clippy::unwrap_used, reason = "a test may end by a panic")]

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use checkpost_wire::milter::{
    Actions, Choice, Command, MAX_DATA, MAX_PACKET, Macros, Offer, Path, Peer, Reply, Stage, Steps, take_packet,
};
use futures_util::io::{AsyncRead, AsyncWrite};
use miltr_client::{Client, Connection, ResponseError};
use miltr_common::actions::{Action, Replycode};
use miltr_common::commands::{self, Connect, Family, Header};
use miltr_common::decoding::{ClientCommand, ServerCommand};
use miltr_common::encoding::Writable;
use miltr_common::modifications::ModificationAction;
use miltr_common::optneg::{Capability, MacroStage, OptNeg, Protocol};

/// A filter made of our codec at the other end of the client's "socket": it notes what it reads, and answers
/// each command that wants an answer with the next of its replies, CONTINUE when there is none.
#[derive(Default)]
struct Filter {
    input: BytesMut,
    output: BytesMut,
    read: Vec<Command>,
    replies: Vec<BytesMut>,
}

impl Filter {
    fn take(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
        while let Some(packet) = take_packet(&mut self.input, MAX_PACKET).unwrap() {
            let command = Command::parse(packet).unwrap();
            match &command {
                Command::Options(offer) => {
                    let Offer { version, actions, steps } = offer.effective();
                    Choice { version, actions, steps, macros: Vec::new() }.encode(&mut self.output);
                }
                Command::Abort | Command::Quit | Command::QuitNewConnection | Command::Macros(_) => {}
                _ if self.replies.is_empty() => Reply::Continue.encode(&mut self.output),
                _ => self.output.extend_from_slice(&self.replies.remove(0)),
            }
            self.read.push(command);
        }
    }
}

impl AsyncWrite for &mut Filter {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, octets: &[u8]) -> Poll<std::io::Result<usize>> {
        self.take(octets);
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for &mut Filter {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, octets: &mut [u8]) -> Poll<std::io::Result<usize>> {
        // In small pieces, so that the client has to put packets together.
        let length = self.output.len().min(octets.len()).min(1000);
        octets[..length].copy_from_slice(&self.output.split_to(length));
        Poll::Ready(Ok(length))
    }
}

/// Nothing ever waits here.
fn now<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the client waits"),
    }
}

fn connect(filter: &mut Filter) -> Connection<&mut Filter> {
    let offer = OptNeg {
        protocol: Protocol::SMFIP_SKIP | Protocol::SMFIP_HDR_LEADSPC | Protocol::NR_BODY,
        ..OptNeg::default()
    };
    now(Client::new(offer).connect_via(filter)).unwrap()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn path(address: &str) -> Path {
    Path { raw: bytes(address), parameters: Vec::new() }
}

#[test]
fn what_miltr_says_is_read() {
    let mut filter = Filter::default();
    let mut client = connect(&mut filter);
    let long = [b'x'; MAX_DATA];
    now(async {
        client.connect(Connect::new(b"mx", Family::Inet, Some(25), b"192.0.2.1")).await.unwrap();
        client.connect(Connect::new(b"[::1]", Family::Inet6, Some(465), b"::1")).await.unwrap();
        client.connect(Connect::new(b"localhost", Family::Unix, None, b"/run/x")).await.unwrap();
        // It writes a port and an address behind the family that has none.
        client.connect(Connect::new(b"localhost", Family::Unknown, None, b"")).await.unwrap();
        client.helo(&b"me.example"[..]).await.unwrap();
        client.mail(&b"<a@b>"[..]).await.unwrap();
        client.recipient(&b"<c@d>"[..]).await.unwrap();
        client.data().await.unwrap();
        client.header(Header::new(b"Subject", b" a\n b")).await.unwrap();
        client.header(Header::new(b"X", b"")).await.unwrap();
        client.end_of_header().await.unwrap();
        client.body(&b"one\r\n"[..]).await.unwrap();
        client.body(&long[..]).await.unwrap();
        client.unknown(&b"FOO bar"[..]).await.unwrap();
        client.end_of_body().await.unwrap();
        client.abort().await.unwrap();
    });
    let inet = |address: &str, port| Peer::Inet { address: address.parse().unwrap(), port };
    let from = |host, peer| Command::Connect { host: bytes(host), peer };
    let field = |name, value| Command::Header { name: bytes(name), value: bytes(value) };
    let offer = Offer {
        version: 6,
        actions: Actions::all() - Actions::SET_MACROS,
        steps: Steps::SKIP | Steps::LEADING_SPACE | Steps::SILENT_BODY,
    };
    let expected = [
        Command::Options(offer),
        from("mx", inet("192.0.2.1", 25)),
        from("[::1]", inet("::1", 465)),
        from("localhost", Peer::Local(bytes("/run/x"))),
        from("localhost", Peer::Unknown),
        Command::Helo(bytes("me.example")),
        Command::Mail(path("<a@b>")),
        Command::Recipient(path("<c@d>")),
        Command::Data,
        field("Subject", " a\n b"),
        field("X", ""),
        Command::EndOfHeader,
        Command::Body(bytes("one\r\n")),
        Command::Body(Bytes::copy_from_slice(&long)),
        Command::Unknown(bytes("FOO bar")),
        Command::EndOfMessage(Bytes::new()),
        Command::Abort,
    ];
    assert_eq!(filter.read, expected);
    assert!(filter.input.is_empty());

    let mut filter = Filter::default();
    now(connect(&mut filter).quit()).unwrap();
    assert_eq!(filter.read.last(), Some(&Command::Quit));
}

fn written(replies: &[Reply<'_>]) -> BytesMut {
    let mut out = BytesMut::new();
    replies.iter().for_each(|reply| reply.encode(&mut out));
    out
}

#[test]
fn what_we_decide_is_read_by_miltr() {
    let refused = |reply| {
        let mut filter = Filter { replies: vec![written(&[reply])], ..Filter::default() };
        let mut client = connect(&mut filter);
        match now(client.mail(&b"<a@b>"[..])) {
            Err(ResponseError::Unexpected(command)) => command,
            other => panic!("{reply:?}: {other:?}"),
        }
    };
    assert!(matches!(refused(Reply::Reject), ServerCommand::Reject(_)));
    assert!(matches!(refused(Reply::TempFail), ServerCommand::Tempfail(_)));
    assert!(matches!(refused(Reply::Discard), ServerCommand::Discard(_)));
    assert!(matches!(refused(Reply::Skip), ServerCommand::Skip(_)));
    let code = |text| match refused(Reply::Code(text)) {
        ServerCommand::Replycode(code) => code,
        other => panic!("{other:?}"),
    };
    let parts = |code: &Replycode| {
        let enhanced = code.xcode().as_ref().map(|enhanced| enhanced.code().map(u32::from));
        (code.rcode().code(), enhanced, code.message().into_owned())
    };
    assert_eq!(parts(&code("550 5.7.1 no way")), ([5, 5, 0], Some([5, 7, 1]), "no way".to_owned()));
    assert_eq!(parts(&code("421 later, 100%")), ([4, 2, 1], None, "later, 100%%".to_owned()));
}

#[test]
fn what_we_change_is_read_by_miltr() {
    let body = b"0123456789".repeat(MAX_DATA / 10 + 10);
    let mut filter = Filter::default();
    filter.replies.push(written(&[
        Reply::AddHeader { name: b"X-A", value: b" one\r\ntwo" },
        Reply::InsertHeader { index: 1, name: b"X-B", value: b" three" },
        Reply::ChangeHeader { index: 2, name: b"Subject", value: b"" },
        Reply::AddRecipient { address: b"<c@d>", parameters: None },
        Reply::DeleteRecipient(b"<e@f>"),
        Reply::Quarantine(b"odd"),
        Reply::ReplaceBody(&body),
        Reply::Continue,
    ]));
    let mut client = connect(&mut filter);
    let response = now(client.end_of_body()).unwrap();
    assert!(matches!(response.final_action(), Action::Continue(_)));
    let read: Vec<String> = response
        .modifications()
        .iter()
        .map(|change| match change {
            ModificationAction::AddHeader(field) => format!("add {}:{}", field.name(), field.value()),
            ModificationAction::InsertHeader(field) => {
                format!("insert {} {}:{}", field.index(), field.name(), field.value())
            }
            ModificationAction::ChangeHeader(field) => {
                format!("change {} {}:{}", field.index(), field.name(), field.value())
            }
            ModificationAction::AddRecipient(to) => format!("to {}", to.recipient()),
            ModificationAction::DeleteRecipient(to) => format!("not to {}", to.recipient()),
            // It leaves the NUL on this one.
            ModificationAction::Quarantine(hold) => format!("hold {}", hold.reason().trim_end_matches('\0')),
            ModificationAction::ReplaceBody(piece) => format!("body {}", piece.body().len()),
        })
        .collect();
    let rest = body.len() - MAX_DATA;
    let expected =
        ["add X-A: one\n two", "insert 1 X-B: three", "change 2 Subject:", "to <c@d>", "not to <e@f>", "hold odd"];
    assert_eq!(read[..6], expected);
    assert_eq!(read[6..], [format!("body {MAX_DATA}"), format!("body {rest}")]);
}

/// Our mail server's side, which tests and the load generator use.
#[test]
fn what_we_say_as_a_mail_server_is_read_by_miltr() {
    let read = |command: Command| {
        let mut out = BytesMut::new();
        command.encode(&mut out);
        ClientCommand::parse(out.split_off(4)).unwrap()
    };
    let offer = Offer { version: 6, actions: Actions::ADD_HEADERS, steps: Steps::SKIP };
    assert!(matches!(read(Command::Options(offer)), ClientCommand::OptNeg(offer)
        if offer.version == 6 && offer.capabilities == Capability::SMFIF_ADDHDRS && offer.protocol == Protocol::SMFIP_SKIP));
    let ClientCommand::Macro(macros) = read(Command::Macros(Macros::new(b'M', &[("i", "1"), ("{x}", "")]))) else {
        panic!()
    };
    assert_eq!(macros.code, b'M');
    assert_eq!(macros.macros().collect::<Vec<_>>(), [(&b"i"[..], &b"1"[..]), (b"{x}", b"")]);
    let peer = Peer::Inet { address: "2001:db8::1".parse().unwrap(), port: 25 };
    let ClientCommand::Connect(client) = read(Command::Connect { host: bytes("mx"), peer }) else { panic!() };
    assert_eq!(client, Connect::new(b"mx", Family::Inet6, Some(25), b"2001:db8::1"));
    let parameters = vec![bytes("SIZE=1"), bytes("SMTPUTF8")];
    let ClientCommand::Mail(mail) = read(Command::Mail(Path { raw: bytes("<a@b>"), parameters })) else { panic!() };
    assert_eq!(mail.sender(), "<a@b>");
    assert_eq!(mail.esmtp_args()[..2], ["SIZE=1", "SMTPUTF8"]);
    let ClientCommand::Recipient(to) = read(Command::Recipient(path("c@d"))) else { panic!() };
    assert_eq!(to.recipient(), "c@d");
    let ClientCommand::Helo(helo) = read(Command::Helo(bytes("me"))) else { panic!() };
    assert_eq!(helo.helo(), "me");
    let field = Command::Header { name: bytes("X"), value: bytes(" a\n b") };
    assert!(matches!(read(field), ClientCommand::Header(field) if field == Header::new(b"X", b" a\n b")));
    assert!(matches!(read(Command::Body(bytes("x\0y"))), ClientCommand::Body(body) if body.as_bytes() == b"x\0y"));
    assert!(matches!(read(Command::Unknown(bytes("FOO"))), ClientCommand::Unknown(line) if line.as_bytes() == b"FOO"));
    assert!(matches!(read(Command::Data), ClientCommand::Data(commands::Data)));
    assert!(matches!(read(Command::EndOfHeader), ClientCommand::EndOfHeader(_)));
    assert!(matches!(read(Command::EndOfMessage(Bytes::new())), ClientCommand::EndOfBody(_)));
    assert!(matches!(read(Command::Abort), ClientCommand::Abort(_)));
    assert!(matches!(read(Command::Quit), ClientCommand::Quit(_)));
    assert!(matches!(read(Command::QuitNewConnection), ClientCommand::QuitNc(_)));
}

#[test]
fn the_wish_for_macros_is_written_alike() {
    let mut theirs = OptNeg { protocol: Protocol::SMFIP_SKIP, ..OptNeg::default() };
    theirs.macro_stages.with_stage(MacroStage::Connect, &["j", "{client_ptr}"]);
    theirs.macro_stages.with_stage(MacroStage::EndOfHeaders, &["i"]);
    let mut data = BytesMut::new();
    theirs.write(&mut data);
    let ours = Choice {
        version: 6,
        actions: Actions::all() - Actions::SET_MACROS,
        steps: Steps::SKIP,
        macros: vec![(Stage::Connect, "j {client_ptr}".to_owned()), (Stage::EndOfHeader, "i".to_owned())],
    };
    let mut written = BytesMut::new();
    ours.encode(&mut written);
    assert_eq!(&written[5..], &data[..]);
    assert_eq!(Choice::parse(&data.freeze()), Some(ours));
}
