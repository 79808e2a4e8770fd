use super::*;
use crate::smtp::Stuffer;
use proptest::prelude::*;

/// What came of some input: content, whether the end was met, what was left over.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    content: Vec<u8>,
    ended: bool,
    rest: Vec<u8>,
    violation: Option<Violation>,
    octets: u64,
    oversize: bool,
    normalized: u64,
}

fn data<'a>(policy: BareNewline, limit: u64, slices: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = DataDecoder::new(policy, limit);
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    for slice in slices {
        input.extend_from_slice(slice);
        if !decoder.ended() && decoder.decode(&mut input, &mut out) == DataEvent::More {
            assert!(input.is_empty(), "not consumed: {input:?}");
        }
    }
    Outcome {
        content: out.to_vec(),
        ended: decoder.ended(),
        rest: input.to_vec(),
        violation: decoder.violation(),
        octets: decoder.octets(),
        oversize: decoder.oversize(),
        normalized: decoder.normalized(),
    }
}

fn bdat(policy: BareNewline, limit: u64, chunks: &[&[u8]], slice: usize) -> Outcome {
    let mut decoder = BdatDecoder::new(policy, limit);
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    for (index, chunk) in chunks.iter().enumerate() {
        decoder.begin(chunk.len() as u64, index + 1 == chunks.len()).unwrap();
        if chunk.is_empty() {
            decoder.decode(&mut input, &mut out);
        }
        for piece in chunk.chunks(slice) {
            input.extend_from_slice(piece);
            decoder.decode(&mut input, &mut out);
            assert!(input.is_empty());
        }
    }
    Outcome {
        content: out.to_vec(),
        ended: decoder.ended(),
        rest: input.to_vec(),
        violation: decoder.violation(),
        octets: decoder.octets_so_far(),
        oversize: decoder.oversize(),
        normalized: decoder.normalized(),
    }
}

/// Whole and byte by byte: the content, or `None` when the end was not met; and what follows the end.
fn check(policy: BareNewline, input: &str, content: Option<&str>, rest: &str) {
    let whole = data(policy, 0, [input.as_bytes()]);
    assert_eq!(data(policy, 0, input.as_bytes().chunks(1)), whole, "{input:?}");
    assert_eq!(whole.ended, content.is_some(), "{input:?}");
    if let Some(content) = content {
        assert_eq!(String::from_utf8_lossy(&whole.content), content, "{input:?}");
        assert_eq!(String::from_utf8_lossy(&whole.rest), rest, "{input:?}");
        assert_eq!(whole.octets, content.len() as u64);
    }
}

#[test]
fn only_crlf_dot_crlf_ends_data() {
    use BareNewline::Reject;
    check(Reject, ".\r\n", Some(""), "");
    check(Reject, ".\r\nQUIT\r\n", Some(""), "QUIT\r\n");
    check(Reject, "a\r\n.\r\nMAIL", Some("a\r\n"), "MAIL");
    check(Reject, "\r\n.\r\n", Some("\r\n"), "");
    check(Reject, "..\r\n...\r\n.a\r\n.\r\n", Some(".\r\n..\r\na\r\n"), "");
    check(Reject, "a.\r\n.b.\r\n \r\n.\r\n", Some("a.\r\nb.\r\n \r\n"), "");
    check(Reject, "a\0b\r\n.\r\n", Some("a\0b\r\n"), "");
    check(Reject, "a\r\n.", None, "");
    check(Reject, "a\r\n.\r", None, "");
    check(Reject, "a.\r\n", None, "");
}

/// Everything that some server has taken for the end of data.
const SMUGGLING: [&str; 16] = [
    "\n.\n",
    "\n.\r\n",
    "\r\n.\n",
    "\r.\r",
    "\r\n.\r",
    "\r.\r\n",
    "\n.\r",
    "\r.\n",
    "\r\n\0.\r\n",
    "\r\n.\0\r\n",
    "\r\r\n.\r\r\n",
    "\r\n.\r\r\n",
    "\n\n.\n\n",
    "\r\n.\n\r\n",
    "\r\n.\r.\r\n",
    "\n.\r\r\n",
];

#[test]
fn smuggling_is_content_or_refused() {
    for sequence in SMUGGLING {
        let body = format!("a{sequence}MAIL FROM:<x@y>\r\nb\r\n");
        let wire = format!("{body}.\r\nRSET\r\n");
        let strict = data(BareNewline::Reject, 0, [wire.as_bytes()]);
        assert!(strict.ended, "{sequence:?}");
        assert_eq!(strict.rest, b"RSET\r\n", "{sequence:?}");
        assert_eq!(strict, data(BareNewline::Reject, 0, wire.as_bytes().chunks(1)), "{sequence:?}");
        let only_nul = sequence.contains('\0');
        assert_eq!(strict.violation.is_some(), !only_nul, "{sequence:?}");

        let trusted = data(BareNewline::Normalize, 0, [wire.as_bytes()]);
        assert_eq!(trusted, data(BareNewline::Normalize, 0, wire.as_bytes().chunks(1)), "{sequence:?}");
        assert_eq!((trusted.violation, &trusted.rest[..]), (None, &b"RSET\r\n"[..]), "{sequence:?}");
        safe_on_the_wire(&trusted.content, sequence);

        let strict = bdat(BareNewline::Reject, 0, &[body.as_bytes()], 1000);
        assert_eq!(strict, bdat(BareNewline::Reject, 0, &[body.as_bytes()], 1));
        assert_eq!((strict.ended, strict.violation.is_some()), (true, !only_nul), "{sequence:?}");
        for cut in 0..body.len() {
            let (head, tail) = body.as_bytes().split_at(cut);
            let trusted = bdat(BareNewline::Normalize, 0, &[head, tail], 1000);
            assert_eq!(trusted.violation, None);
            safe_on_the_wire(&trusted.content, sequence);
        }
    }
}

/// No bare CR or LF is left, and stuffed again even a lax server sees one lone dot, the last.
fn safe_on_the_wire(content: &[u8], sequence: &str) {
    let text = String::from_utf8_lossy(content).replace("\r\n", "");
    assert!(!text.contains(['\r', '\n']), "{sequence:?} {text:?}");
    let mut stuffer = Stuffer::new();
    let mut wire: Vec<u8> = stuffer.stuff(content).flatten().copied().collect();
    wire.extend_from_slice(stuffer.finish());
    let lone = String::from_utf8_lossy(&wire).replace("\r\n", "\n").replace('\r', "\n");
    assert_eq!(lone.split('\n').filter(|line| *line == ".").count(), 1, "{sequence:?} {lone:?}");
    assert!(wire.ends_with(b"\r\n.\r\n"));
}

#[test]
fn normalized_line_ends() {
    use BareNewline::Normalize;
    check(Normalize, "a\nb\rc\r\n.\r\n", Some("a\r\nb\r\nc\r\n"), "");
    check(Normalize, "a\r\r\n.\r\n", Some("a\r\n\r\n"), "");
    // A dot after a bare newline was not stuffed by the sender, whose lines end with CRLF.
    check(Normalize, "a\n.\nb\r\n.\r\n", Some("a\r\n.\r\nb\r\n"), "");
    check(Normalize, "a\n..b\r\n.\r\n", Some("a\r\n..b\r\n"), "");
    check(Normalize, "a\n.\r\n.\r\n", Some("a\r\n.\r\n"), "");
    check(Normalize, ".\nb\r\n.\r\n", Some("\r\nb\r\n"), "");
    check(Normalize, ".\rb\r\n.\r\n", Some("\r\nb\r\n"), "");
    assert_eq!(data(Normalize, 0, [&b"\n\r.\r\n"[..]]).normalized, 2);
}

#[test]
fn the_first_violation_is_told_and_nothing_more_is_kept() {
    let first = |input: &str| data(BareNewline::Reject, 0, [input.as_bytes()]);
    assert_eq!(first("a\nb\rc\r\n.\r\n").violation, Some(Violation::BareLf));
    assert_eq!(first("a\rb\nc\r\n.\r\n").violation, Some(Violation::BareCr));
    let outcome = first("a\r\nb\nc\r\n.\r\nQUIT\r\n");
    assert_eq!((&outcome.content[..], outcome.ended), (&b"a\r\nb"[..], true));
}

#[test]
fn over_the_limit_the_end_is_still_found() {
    let wire = format!("{}.\r\nQUIT\r\n", "0123456789\r\n".repeat(100));
    let outcome = data(BareNewline::Reject, 1000, [wire.as_bytes()]);
    assert_eq!(outcome, data(BareNewline::Reject, 1000, wire.as_bytes().chunks(7)));
    assert!(outcome.ended && outcome.oversize);
    assert_eq!((outcome.content.len(), outcome.octets), (1000, 1200));
    assert!(!data(BareNewline::Reject, 1200, [wire.as_bytes()]).oversize);
    let chunks: Vec<&[u8]> = wire.as_bytes().chunks(50).collect();
    let outcome = bdat(BareNewline::Reject, 1000, &chunks, 9);
    assert!(outcome.ended && outcome.oversize);
    assert_eq!(outcome.content.len(), 1000);
}

#[test]
fn after_the_end_nothing_is_consumed() {
    let mut decoder = DataDecoder::new(BareNewline::Reject, 0);
    let (mut input, mut out) = (BytesMut::from(&b".\r\nQUIT\r\n"[..]), BytesMut::new());
    assert_eq!(decoder.decode(&mut input, &mut out), DataEvent::End);
    assert_eq!(decoder.decode(&mut input, &mut out), DataEvent::End);
    assert_eq!(&input[..], b"QUIT\r\n");
}

#[test]
fn chunks() {
    let outcome = bdat(BareNewline::Reject, 0, &[b"a\r", b"\nb", b"", b"\r\n..c"], 1000);
    assert_eq!((&outcome.content[..], outcome.violation, outcome.ended), (&b"a\r\nb\r\n..c"[..], None, true));
    assert_eq!(bdat(BareNewline::Reject, 0, &[b"a\r", b"b"], 1).violation, Some(Violation::BareCr));
    assert_eq!(bdat(BareNewline::Reject, 0, &[b"a\r"], 1).violation, Some(Violation::BareCr));
    assert_eq!(bdat(BareNewline::Normalize, 0, &[b"a\r"], 1).content, b"a\r\n");
    assert_eq!(bdat(BareNewline::Normalize, 0, &[b"a\r", b""], 1).content, b"a\r\n");
    assert_eq!(bdat(BareNewline::Reject, 0, &[b""], 1).content, b"");
}

#[test]
fn chunks_in_the_wrong_order() {
    let (mut input, mut out) = (BytesMut::from(&b"abcdeNOOP"[..]), BytesMut::new());
    let mut decoder = BdatDecoder::new(BareNewline::Reject, 0);
    assert_eq!(decoder.decode(&mut input, &mut out), BdatEvent::ChunkEnd);
    decoder.begin(3, true).unwrap();
    assert_eq!(decoder.begin(3, true), Err(BdatError::WithinChunk));
    assert_eq!(decoder.decode(&mut input, &mut out), BdatEvent::End);
    assert_eq!(decoder.begin(2, false), Err(BdatError::AfterLast));
    decoder.skip(2);
    assert_eq!(decoder.decode(&mut input, &mut out), BdatEvent::ChunkEnd);
    assert_eq!((&out[..], &input[..]), (&b"abc"[..], &b"NOOP"[..]));
}

/// The slow, obvious decoder to compare with.
fn reference(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut content = Vec::new();
    let (mut at, mut line_start) = (0, true);
    while at < input.len() {
        let rest = &input[at..];
        if line_start && rest.starts_with(b".\r\n") {
            return Some((content, at + 3));
        }
        if line_start && rest[0] == b'.' {
            at += 1;
            line_start = false;
        } else if rest.starts_with(b"\r\n") {
            content.extend_from_slice(b"\r\n");
            at += 2;
            line_start = true;
        } else {
            match rest[0] {
                b'\r' | b'\n' => content.extend_from_slice(b"\r\n"),
                octet => content.push(octet),
            }
            at += 1;
            line_start = false;
        }
    }
    None
}

proptest! {
    #[test]
    fn equals_the_reference_in_any_slicing(
        input in "([.\r\na\0]|\r\n){0,40}",
        cuts in proptest::collection::vec(1usize..9, 0..40),
        limit in 0u64..30,
        reject: bool,
    ) {
        let wire = [input.as_bytes(), b"\r\n.\r\nQUIT"].concat();
        let (content, end) = reference(&wire).unwrap();
        let outcome = data(BareNewline::Normalize, 0, [&wire[..]]);
        prop_assert_eq!(&outcome.content, &content);
        prop_assert_eq!(&outcome.rest[..], &wire[end..]);

        let policy = if reject { BareNewline::Reject } else { BareNewline::Normalize };
        let mut slices = Vec::new();
        let mut rest = &wire[..];
        for cut in cuts {
            let (head, tail) = rest.split_at(cut.min(rest.len()));
            slices.push(head);
            rest = tail;
        }
        slices.push(rest);
        let whole = data(policy, limit, [&wire[..]]);
        prop_assert_eq!(data(policy, limit, slices.iter().copied()), whole);

        let joined = bdat(policy, limit, &[&wire], 1000);
        prop_assert_eq!(bdat(policy, limit, &slices, 1000), joined);
    }

    #[test]
    fn any_octets_are_safe(input: Vec<u8>, slice in 1usize..9) {
        data(BareNewline::Normalize, 0, input.chunks(slice));
        bdat(BareNewline::Normalize, 100, &[&input], slice);
    }
}
