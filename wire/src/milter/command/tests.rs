use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::super::take_packet;
use super::*;

fn parse(code: u8, data: &'static [u8]) -> Result<Command, CommandError> {
    Command::parse(Packet { code, data: Bytes::from_static(data) })
}

fn connected(data: &'static [u8]) -> Peer {
    match parse(b'C', data).unwrap() {
        Command::Connect { peer, .. } => peer,
        other => panic!("{other:?}"),
    }
}

fn inet(address: &str, port: u16) -> Peer {
    Peer::Inet { address: address.parse().unwrap(), port }
}

#[test]
fn every_form_of_a_client_is_read() {
    assert_eq!(connected(b"mx\x004\x00\x19192.0.2.1\0"), inet("192.0.2.1", 25));
    assert_eq!(connected(b"[::1]\x006\x00\x19::1\0"), inet("::1", 25));
    // Sendmail.
    assert_eq!(connected(b"[IPv6:0:0:0:0:0:0:0:1]\x006\x00\x19IPv6:0:0:0:0:0:0:0:1\0"), inet("::1", 25));
    assert_eq!(connected(b"x\x006\x00\x19::ffff:192.0.2.1\0"), inet("192.0.2.1", 25));
    // Postfix for sendmail(1).
    assert_eq!(connected(b"localhost\x004\x00\x00127.0.0.1\0"), inet("127.0.0.1", 0));
    // sendmail -bs.
    assert_eq!(connected(b"localhost\0U"), Peer::Unknown);
    assert_eq!(connected(b"localhost\0L\0\0/run/x\0"), Peer::Local(Bytes::from_static(b"/run/x")));
    assert_eq!(connected(b"localhost\0L\0\0"), Peer::Local(Bytes::new()));
    assert_eq!(connected(b"x\x006\x00\x19fe80::1%eth0"), inet("fe80::1", 25));
    assert_eq!(connected(b"x\x004\x00\x19ipv6:::1\0more"), inet("::1", 25));
    // None of these may pass for a client that the mail server calls its own.
    for odd in [
        &b"4\0\0nonsense\0"[..],
        b"4\0\0\0",
        b"4\0",
        b"6",
        b"L\0",
        b"X\0\x19192.0.2.1\0",
        b"u",
        b"\0",
        b"",
        b"4\0\0\xff",
    ] {
        let whole = Bytes::from([b"x\0", odd].concat());
        let Ok(Command::Connect { host, peer }) = Command::parse(Packet { code: b'C', data: whole }) else {
            panic!("{odd:?}");
        };
        assert_eq!((&host[..], peer), (&b"x"[..], Peer::Unreadable(Bytes::from(odd))));
    }
    assert_eq!(connected(b""), Peer::Unreadable(Bytes::new()));
}

#[test]
fn every_form_of_an_address_is_read() {
    let path = |data: &'static [u8]| match parse(b'M', data).unwrap() {
        Command::Mail(path) => path,
        other => panic!("{other:?}"),
    };
    let mail = path(b"<a@example.org>\0SIZE=12\0BODY=8BITMIME\0SMTPUTF8\0");
    assert_eq!(mail.address(), b"a@example.org");
    assert_eq!(mail.parameter("size"), Some(&b"12"[..]));
    assert_eq!(mail.parameter("SMTPUTF8"), Some(&b""[..]));
    assert_eq!(mail.parameter("RET"), None);
    assert_eq!(path(b"a@example.org\0").address(), b"a@example.org");
    assert_eq!(path(b"<>\0").address(), b"");
    // Postfix: the null sender of sendmail(1).
    assert_eq!(path(b"\0").address(), b"");
    assert_eq!(path(b" <a@b> ").address(), b"a@b");
    assert_eq!(path(b"<@relay:a@b>\0").address(), b"@relay:a@b");
    assert_eq!(path(b"<\0").address(), b"<");
    assert_eq!(path(b"< a@b >").address(), b"a@b");
    assert_eq!(path(b"").address(), b"");
    assert_eq!(path(b"\0\0\0A=1\0\0B").parameters, [&b"A=1"[..], b"B"]);
    // The first of a name counts; a name is not the beginning of another.
    let twice = path(b"<>\0SIZES=3\0size=1\0SIZE=2=3\0");
    assert_eq!((twice.parameter("Size"), twice.parameter("")), (Some(&b"1"[..]), None));
}

#[test]
fn many_parameters_cost_little() {
    for flood in [b"\0".to_vec(), b"a\0".to_vec()] {
        let data = Bytes::from(flood.repeat(500_000));
        let Ok(Command::Recipient(path)) = Command::parse(Packet { code: b'R', data }) else { panic!() };
        assert!(path.parameters.len() <= MAX_PARAMETERS && path.parameters.capacity() <= 2 * MAX_PARAMETERS);
    }
}

#[test]
fn nothing_is_copied() {
    let mut input = BytesMut::with_capacity(70_000);
    write_packet(b'B', &[&[b'x'; 65_535]], &mut input);
    write_packet(b'L', &[b"Subject\0 value\0"], &mut input);
    let (body, name) = (input[5..].as_ptr(), input[5 + 65_535 + 5..].as_ptr());
    let mut next = || Command::parse(take_packet(&mut input, super::super::MAX_PACKET).unwrap().unwrap()).unwrap();
    assert!(matches!(next(), Command::Body(octets) if octets.as_ptr() == body && octets.len() == 65_535));
    assert!(matches!(next(), Command::Header { name: found, .. } if found.as_ptr() == name));
}

#[test]
fn header_fields_and_the_rest() {
    let field = |name: &'static [u8], value: &'static [u8]| Command::Header {
        name: Bytes::from_static(name),
        value: Bytes::from_static(value),
    };
    assert_eq!(parse(b'L', b"Subject\0 a\n b\0"), Ok(field(b"Subject", b" a\n b")));
    assert_eq!(parse(b'L', b"X\0\0"), Ok(field(b"X", b"")));
    assert_eq!(parse(b'L', b"X\0"), Ok(field(b"X", b"")));
    assert_eq!(parse(b'E', b"last"), Ok(Command::EndOfMessage(Bytes::from_static(b"last"))));
    assert_eq!(parse(b'L', b"X\0 a"), Ok(field(b"X", b" a")));
    assert_eq!(parse(b'L', b"X"), Ok(field(b"X", b"")));
    assert_eq!(parse(b'L', b""), Ok(field(b"", b"")));
    assert_eq!(parse(b'L', b"X\0a\0more\0"), Ok(field(b"X", b"a")));
    assert_eq!(parse(b'H', b"me"), Ok(Command::Helo(Bytes::from_static(b"me"))));
    assert_eq!(parse(b'H', b""), Ok(Command::Helo(Bytes::new())));
    assert_eq!(parse(b'U', b""), Ok(Command::Unknown(Bytes::new())));
    assert_eq!(parse(b'E', b""), Ok(Command::EndOfMessage(Bytes::new())));
    assert_eq!(parse(b'A', b"surplus"), Ok(Command::Abort));
    assert_eq!(parse(b'U', b"FOO\0"), Ok(Command::Unknown(Bytes::from_static(b"FOO"))));
    assert_eq!(parse(b'K', b""), Ok(Command::QuitNewConnection));
    assert_eq!(parse(b'x', b""), Err(CommandError::Unknown(b'x')));
    assert_eq!(parse(b'O', b"\0\0\0\x06"), Err(CommandError::Malformed(b'O')));
    assert_eq!(parse(b'D', b""), Err(CommandError::Malformed(b'D')));
}

fn text() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(1u8.., 0..20).prop_map(Bytes::from)
}

fn path() -> impl Strategy<Value = Path> {
    (text(), proptest::collection::vec(text().prop_filter("not empty", |text| !text.is_empty()), 0..4))
        .prop_map(|(raw, parameters)| Path { raw, parameters })
}

fn peers() -> impl Strategy<Value = Peer> {
    prop_oneof![
        Just(Peer::Unknown),
        text().prop_map(Peer::Local),
        (any::<u32>(), any::<u16>()).prop_map(|(a, port)| Peer::Inet { address: Ipv4Addr::from(a).into(), port }),
        (any::<u128>(), any::<u16>())
            .prop_map(|(a, port)| Peer::Inet { address: IpAddr::from(Ipv6Addr::from(a)).to_canonical(), port }),
    ]
}

fn commands() -> impl Strategy<Value = Command> {
    prop_oneof![
        (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(version, actions, steps)| Command::Options(Offer {
            version,
            actions: super::super::Actions::from_bits_retain(actions),
            steps: super::super::Steps::from_bits_retain(steps),
        })),
        Just(Command::Macros(Macros::new(b'M', &[("i", "4711"), ("{auth_authen}", "")]))),
        (text(), peers()).prop_map(|(host, peer)| Command::Connect { host, peer }),
        text().prop_map(Command::Helo),
        path().prop_map(Command::Mail),
        path().prop_map(Command::Recipient),
        (text(), text()).prop_map(|(name, value)| Command::Header { name, value }),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(|octets| Command::Body(octets.into())),
        proptest::collection::vec(any::<u8>(), 0..30).prop_map(|octets| Command::EndOfMessage(octets.into())),
        text().prop_map(Command::Unknown),
        prop_oneof![
            Just(Command::Data),
            Just(Command::EndOfHeader),
            Just(Command::Abort),
            Just(Command::Quit),
            Just(Command::QuitNewConnection)
        ],
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_in_any_slicing(all in proptest::collection::vec(commands(), 1..8), slice in 1usize..50) {
        let mut wire = BytesMut::new();
        all.iter().for_each(|command| command.encode(&mut wire));
        let mut input = BytesMut::new();
        let mut read = Vec::new();
        for part in wire.chunks(slice) {
            input.extend_from_slice(part);
            while let Some(packet) = take_packet(&mut input, super::super::MAX_PACKET).unwrap() {
                read.push(Command::parse(packet).unwrap());
            }
        }
        prop_assert_eq!(read, all);
    }

    #[test]
    fn no_octets_make_it_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut input = BytesMut::from(&octets[..]);
        while let Ok(Some(packet)) = take_packet(&mut input, 150) {
            if let Ok(Command::Macros(macros)) = Command::parse(packet) {
                macros.iter().for_each(drop);
            }
        }
        for code in 0..=255 {
            let _ = Command::parse(Packet { code, data: Bytes::copy_from_slice(&octets) });
        }
    }
}
