//! A spool file of ZMailer's: lines of an envelope, then the message in the same file. Reads the envelope in any
//! slicing, to the border and no further, and writes another one.
//!
//! It opens no file. What is a line of the envelope and where it ends is decided as the router does (rfc822.c,
//! header.c); words that are not known here are left as they are.

use std::net::IpAddr;
use std::ops::Range;

/// The largest envelope, in octets. 300 recipients are 48 KiB.
pub const MAX_ENVELOPE: usize = 16 << 20;
/// The most recipients.
pub const MAX_RECIPIENTS: usize = 50_000;
/// The word for a mark of ours: a comment, which no other program looks at and which never leaves the machine.
const MARK: &str = "comment checkpost-mark ";

/// Reads an envelope.
#[derive(Debug, Default)]
pub struct Reader {
    octets: Vec<u8>,
    /// Where the line that is read begins.
    line: usize,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    word: Word,
    /// With its line end.
    whole: Range<usize>,
    value: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    From,
    Channel,
    To,
    ToDsn,
    ReceivedFrom,
    With,
    External,
    Comment,
    End,
    Other,
}

/// What a line turned out to be.
enum Seen {
    Envelope(Line),
    /// Of the message.
    Message,
}

/// An envelope to its border.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    octets: Vec<u8>,
    lines: Vec<Line>,
    recipients: Vec<usize>,
}

/// Why a file is none of ZMailer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// The file ends in its envelope.
    #[error("it ends in its envelope")]
    NoEnd,
    /// Larger than any.
    #[error("an envelope of more than {MAX_ENVELOPE} octets")]
    TooLarge,
    /// More recipients than any.
    #[error("more than {MAX_RECIPIENTS} recipients")]
    Recipients,
    /// A line that goes on with another one, which envelopes have not; or a NUL.
    #[error("a line that is of no envelope")]
    Grammar,
}

/// What is to be another one in an envelope.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change<'a> {
    /// Only recipients of these indices stay; `None`: all.
    pub keep: Option<&'a [usize]>,
    /// Comes to them; also recipients that stood in the header only.
    pub add: &'a [String],
}

impl Reader {
    /// Takes the next octets. True: the border was found, and [`Self::finish`] says where it is.
    ///
    /// # Errors
    /// Nothing that follows can make an envelope of it.
    pub fn take(&mut self, octets: &[u8]) -> Result<bool, SpoolError> {
        let mut from = self.octets.len();
        self.octets.extend_from_slice(octets);
        while let Some(end) = self.octets[from..].iter().position(|octet| *octet == b'\n') {
            let end = from + end + 1;
            match see(&self.octets[..end], self.line)? {
                Seen::Message => {
                    self.octets.truncate(self.line);
                    return Ok(true);
                }
                Seen::Envelope(line) => {
                    let is_end = line.word == Word::End;
                    self.lines.push(line);
                    self.line = end;
                    if is_end {
                        self.octets.truncate(end);
                        return Ok(true);
                    }
                }
            }
            from = end;
        }
        if self.octets.len() > MAX_ENVELOPE { Err(SpoolError::TooLarge) } else { Ok(false) }
    }

    /// The envelope, after [`Self::take`] has found its border.
    ///
    /// # Errors
    /// It did not, and the file is at its end.
    pub fn finish(self, found: bool) -> Result<Envelope, SpoolError> {
        if !found {
            return Err(SpoolError::NoEnd);
        }
        let of = |word| move |(index, line): (usize, &Line)| (line.word == word).then_some(index);
        let recipients: Vec<usize> = self.lines.iter().enumerate().filter_map(of(Word::To)).collect();
        if recipients.len() > MAX_RECIPIENTS {
            return Err(SpoolError::Recipients);
        }
        Ok(Envelope { octets: self.octets, lines: self.lines, recipients })
    }
}

/// The line of `octets` that begins at `start` and ends where they do.
fn see(octets: &[u8], start: usize) -> Result<Seen, SpoolError> {
    let whole = start..octets.len();
    let line = octets[whole.clone()].trim_ascii_end();
    if line.contains(&0) {
        return Err(SpoolError::Grammar);
    }
    // An empty line: a message without a header.
    let Some(first) = line.first() else { return Ok(Seen::Message) };
    if matches!(first, b' ' | b'\t') {
        return Err(SpoolError::Grammar);
    }
    let length = line.iter().position(|octet| !octet.is_ascii_graphic() || *octet == b':').unwrap_or(line.len());
    let (word, rest) = line.split_at(length);
    if !matches!(rest.first(), None | Some(b' ' | b'\t')) {
        return Ok(Seen::Message);
    }
    let skipped = rest.len() - rest.trim_ascii_start().len();
    let value = start + length + skipped..start + line.len();
    let word = match &*word.to_ascii_lowercase() {
        b"from" => Word::From,
        b"channel" => Word::Channel,
        b"to" => Word::To,
        b"todsn" => Word::ToDsn,
        b"rcvdfrom" => Word::ReceivedFrom,
        b"with" => Word::With,
        b"external" => Word::External,
        b"comment" => Word::Comment,
        b"env-end" | b"env-eof" => Word::End,
        _ => Word::Other,
    };
    Ok(Seen::Envelope(Line { word, whole, value }))
}

/// Where a mail came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client's name in the DNS.
    pub name: Option<String>,
    /// Its address.
    pub address: Option<IpAddr>,
    /// What it said at EHLO or HELO.
    pub helo: Option<String>,
    /// Who authenticated.
    pub user: Option<String>,
    /// Over TLS.
    pub tls: bool,
    /// A program of this machine handed it in.
    pub local: bool,
}

impl Envelope {
    /// Octets of the envelope: the message begins behind them.
    pub fn length(&self) -> u64 {
        self.octets.len() as u64
    }

    /// As it is.
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets
    }

    /// The sender without brackets. Empty: the null sender. `None`: the file's owner is.
    pub fn sender(&self) -> Option<&[u8]> {
        if self.value(Word::Channel).is_some_and(|channel| channel.eq_ignore_ascii_case(b"error")) {
            return Some(b"");
        }
        self.value(Word::From).map(address)
    }

    /// The recipients without brackets, in their order. There may be none: then those of the header are.
    pub fn recipients(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.recipients.iter().map(|&index| address(&self.octets[self.lines[index].value.clone()]))
    }

    /// Where it came from.
    pub fn origin(&self) -> Origin {
        let mut origin = self.value(Word::ReceivedFrom).map(origin_of).unwrap_or_default();
        let with = self.value(Word::With).unwrap_or_default().to_ascii_uppercase();
        // RFC 3848: ESMTPS, ESMTPSA, and the same of LMTP and SUBMIT.
        origin.tls = [&b"S"[..], b"SA"].iter().any(|end| with.ends_with(end));
        // A line of its own. What stands in brackets behind `rcvdfrom` a client can say at EHLO.
        let comments = self.lines.iter().filter(|line| line.word == Word::Comment);
        origin.user =
            comments.filter_map(|line| self.octets[line.value.clone()].strip_prefix(b"smtp-auth: ")).find_map(|user| {
                some(user.trim_ascii().strip_prefix(b"\"").unwrap_or(user).strip_suffix(b"\"").unwrap_or(user))
            });
        origin.local |= !self.lines.iter().any(|line| line.word == Word::External);
        origin
    }

    /// The mark in its first line, with where what it marks begins.
    pub fn mark(&self) -> Option<(&str, u64)> {
        let first = self.lines.first()?;
        let line = std::str::from_utf8(&self.octets[first.whole.clone()]).ok()?;
        Some((line.strip_prefix(MARK)?.trim_end(), first.whole.end as u64))
    }

    /// Another envelope, with an end of its own. `None`: an address that no line can carry.
    pub fn changed(&self, change: &Change<'_>) -> Option<Vec<u8>> {
        let mut octets = Vec::with_capacity(self.octets.len());
        let mut recipient = 0;
        for (index, line) in self.lines.iter().enumerate() {
            let whole = &self.octets[line.whole.clone()];
            let ours = index == 0 && self.mark().is_some();
            let stays = match line.word {
                Word::End => false,
                // What belongs to the next line goes with it.
                Word::ToDsn if self.lines.get(index + 1).is_some_and(|next| next.word == Word::To) => {
                    change.keep.is_none_or(|keep| keep.contains(&recipient))
                }
                Word::To => {
                    recipient += 1;
                    change.keep.is_none_or(|keep| keep.contains(&(recipient - 1)))
                }
                _ => !ours,
            };
            if stays {
                octets.extend_from_slice(whole);
            }
        }
        for added in change.add {
            octets.extend_from_slice(&to(added)?);
        }
        octets.extend_from_slice(b"env-end\n");
        Some(octets)
    }

    fn value(&self, word: Word) -> Option<&[u8]> {
        self.lines.iter().find(|line| line.word == word).map(|line| &self.octets[line.value.clone()])
    }
}

/// The line of a mark; what it marks begins right behind it.
pub fn mark_line(mark: &impl std::fmt::Display) -> String {
    format!("{MARK}{mark}\n")
}

/// The envelope of a mail of our own, without a sender.
pub fn null_sender(recipient: &[u8]) -> Option<Vec<u8>> {
    let recipient = std::str::from_utf8(recipient).ok()?;
    Some([&b"channel error\n"[..], &to(recipient)?, b"env-end\n"].concat())
}

/// The lines of a recipient whom no report of success is made for.
fn to(address: &str) -> Option<Vec<u8>> {
    let carried = !address.is_empty() && address.chars().all(|c| !c.is_control() && !matches!(c, '<' | '>'));
    carried.then(|| format!("to <{address}>\n").into_bytes())
}

fn address(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"<").and_then(|value| value.strip_suffix(b">")).unwrap_or(value)
}

/// `client.example ([192.0.2.1]:37443 "EHLO client.example" rhost-flags-OK-OK-OK-OK)`, or `STDIN (bob@host)`.
fn origin_of(value: &[u8]) -> Origin {
    let value = String::from_utf8_lossy(value);
    let (name, inner) = value.split_once(" (").unwrap_or((&value, ""));
    if name == "STDIN" {
        return Origin { local: true, ..Origin::default() };
    }
    // The port's colon stands behind the bracket; an IPv6 address has a word of its own before it.
    let literal = inner.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(literal, _)| literal);
    let address =
        literal.map(|literal| literal.strip_prefix("IPv6:").or(literal.strip_prefix("IPv6.")).unwrap_or(literal));
    let said = inner.split_once(" \"").and_then(|(_, rest)| rest.split_once('"')).map(|(said, _)| said);
    let helo = said.and_then(|said| said.split_once(' ')).map(|(_, helo)| helo);
    Origin {
        // Without a name in the DNS its address stands for it.
        name: some(name.as_bytes()).filter(|name| !name.starts_with('[')),
        address: address.and_then(|address| address.parse::<IpAddr>().ok()).map(|address| address.to_canonical()),
        helo: helo.and_then(|helo| some(helo.as_bytes())),
        ..Origin::default()
    }
}

fn some(value: &[u8]) -> Option<String> {
    let text: String = String::from_utf8_lossy(value).chars().filter(|c| !c.is_control()).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As ZMailer 3.0.1 writes it.
    const SEEN: &str = "external\n\
        rcvdfrom client.remote.test ([203.0.113.5]:37443 \"EHLO client.remote.test\" rhost-flags-OK-OK-OK-OK)\n\
        bodytype 8BITMIME\nwith ESMTP\nfrom <x@remote.test>\nenvid abc\nnotaryret HDRS\n\
        todsn NOTIFY=FAILURE,DELAY ORCPT=rfc822;alice@example.test INRCPT=rfc822;alice@example.test INFROM=rfc822;x@remote.test\n\
        to <alice@example.test>\n\
        todsn ORCPT=rfc822;bob@example.test INRCPT=rfc822;bob@example.test INFROM=rfc822;x@remote.test\n\
        to <bob@example.test>\nenv-end\n";

    fn read(pieces: &[&[u8]]) -> Result<Envelope, SpoolError> {
        let (mut reader, mut found) = (Reader::default(), false);
        for piece in pieces {
            found = reader.take(piece)?;
            if found {
                break;
            }
        }
        reader.finish(found)
    }

    fn envelope(text: &str) -> Envelope {
        let by_octet: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        let whole = read(&[text.as_bytes()]).unwrap();
        assert_eq!(read(&by_octet).as_ref(), Ok(&whole));
        whole
    }

    fn recipients(envelope: &Envelope) -> Vec<String> {
        envelope.recipients().map(|to| String::from_utf8_lossy(to).into_owned()).collect()
    }

    #[test]
    fn an_envelope_of_smtpserver_is_read() {
        let read = envelope(&format!("{SEEN}Subject: x\n\nto <body@x>\nenv-end\n"));
        assert_eq!(read.as_bytes(), SEEN.as_bytes());
        assert_eq!(read.sender(), Some(&b"x@remote.test"[..]));
        assert_eq!(recipients(&read), ["alice@example.test", "bob@example.test"]);
        let origin = read.origin();
        assert_eq!(
            (origin.name.as_deref(), origin.helo.as_deref()),
            (Some("client.remote.test"), Some("client.remote.test"))
        );
        assert_eq!((origin.address, origin.tls, origin.local), ("203.0.113.5".parse().ok(), false, false));
        assert_eq!((origin.user, read.mark()), (None, None));
    }

    #[test]
    fn where_it_came_from() {
        let check = |lines: &str| envelope(&format!("{lines}to a\nenv-end\n")).origin();
        let origin = check("external\nrcvdfrom [192.0.2.1] ([192.0.2.1]:5 \"HELO x\")\nwith SMTP\n");
        assert_eq!((origin.name, origin.address, origin.helo.as_deref()), (None, "192.0.2.1".parse().ok(), Some("x")));
        let origin = check("external\nrcvdfrom a.example ([IPv6:2001:db8::1]:5 \"EHLO a\" x)\nwith ESMTPS\n");
        assert_eq!((origin.address, origin.tls), ("2001:db8::1".parse().ok(), true));
        // Only the server's own comment tells who it was.
        let forged =
            check("external\nrcvdfrom a ([192.0.2.1]:5 \"EHLO smtp-auth: root\" smtp-auth: <none>)\nwith ESMTP\n");
        assert_eq!(forged.user, None);
        let known = check("external\ncomment smtp-auth: anna\nrcvdfrom a ([192.0.2.1]:5 \"EHLO x\" x)\nwith ESMTPSA\n");
        assert_eq!((known.user.as_deref(), known.tls), (Some("anna"), true));
        let local = check("rcvdfrom STDIN (bob@mail.example.test)\n");
        assert_eq!((local.local, local.name, local.address), (true, None, None));
        assert!(check("channel error\n").local);
    }

    #[test]
    fn the_border_is_the_routers() {
        let check = |text: &str, length: usize, to: &[&str]| {
            let read = envelope(text);
            assert_eq!(
                (read.length(), recipients(&read)),
                (length as u64, to.iter().map(|to| (*to).to_owned()).collect()),
                "{text}"
            );
        };
        check("to a\nenv-end\nSubject: x\n\n", 13, &["a"]);
        check("TO <a@x>\nEnv-EOF\n", 17, &["a@x"]);
        check("to a\r\nenv-end\r\nS: x\r\n", 15, &["a"]);
        // Older programs end it with an empty line, or with the header itself.
        check("to a\n\nbody\n", 5, &["a"]);
        check("to a\nSubject: x\n", 5, &["a"]);
        check("to a\nX-Y:z\n", 5, &["a"]);
        // What is neither is the body.
        check("to a\n\u{e4} b\n", 5, &["a"]);
        check("unknown thing\nverbose\nto a b\nenv-end\n", 37, &["a b"]);
        check("env-end\n", 8, &[]);
        check("\n", 0, &[]);
    }

    #[test]
    fn senders() {
        for (lines, sender) in [
            ("from <x@y>\n", Some("x@y")),
            ("from x@y\n", Some("x@y")),
            ("from <>\n", Some("")),
            ("channel error\n", Some("")),
            ("channel error\nfrom <x@y>\n", Some("")),
            ("channel smtp\nfrom <x@y>\n", Some("x@y")),
            ("", None),
        ] {
            assert_eq!(envelope(&format!("{lines}env-end\n")).sender(), sender.map(str::as_bytes), "{lines}");
        }
    }

    #[test]
    fn what_is_no_spool_file_is_refused() {
        let check = |text: &[u8], error| assert_eq!(read(&[text]), Err(error), "{}", text.escape_ascii());
        for text in [&b""[..], b"to a", b"to a\n", b"to a\nenv-end", &SEEN.as_bytes()[..SEEN.len() - 1]] {
            check(text, SpoolError::NoEnd);
        }
        check(b"to a\n more\nenv-end\n", SpoolError::Grammar);
        check(b"to a\0b\nenv-end\n", SpoolError::Grammar);
        check(&b"to a\n".repeat(MAX_RECIPIENTS + 1), SpoolError::NoEnd);
        check(&[&b"to a\n".repeat(MAX_RECIPIENTS + 1)[..], b"env-end\n"].concat(), SpoolError::Recipients);
        check(&[b'x'; MAX_ENVELOPE + 1], SpoolError::TooLarge);
        check(&b"comment x\n".repeat(MAX_ENVELOPE / 10 + 1), SpoolError::TooLarge);
    }

    #[test]
    fn recipients_go_with_what_belongs_to_them() {
        let read = envelope(SEEN);
        let added = ["c@x".to_owned(), "d e@x".to_owned()];
        let changed =
            |keep: Option<&[usize]>, add| String::from_utf8(read.changed(&Change { keep, add }).unwrap()).unwrap();
        assert_eq!(changed(None, &[]), SEEN);
        let without_bob = changed(Some(&[0]), &[]);
        assert!(!without_bob.contains("bob") && without_bob.ends_with("\nto <alice@example.test>\nenv-end\n"));
        let without_alice = changed(Some(&[1]), &[]);
        assert!(!without_alice.contains("alice") && without_alice.contains("HDRS\ntodsn ORCPT=rfc822;bob@"));
        assert!(changed(None, &added).ends_with("to <bob@example.test>\nto <c@x>\nto <d e@x>\nenv-end\n"));
        for wrong in ["", "a\nto <b@x>", "a>b", "a\0"] {
            assert_eq!(read.changed(&Change { keep: None, add: &[wrong.to_owned()] }), None, "{wrong}");
        }
        // One that had no end of its own has one then.
        assert_eq!(envelope("to a\nSubject: x\n").changed(&Change::default()).unwrap(), b"to a\nenv-end\n");
    }

    #[test]
    fn a_mark_is_the_first_line_or_none() {
        let line = mark_line(&"1-ab");
        let read = envelope(&format!("{line}{SEEN}"));
        assert_eq!(read.mark(), Some(("1-ab", line.len() as u64)));
        assert_eq!(read.changed(&Change::default()).unwrap(), SEEN.as_bytes(), "it is not kept");
        assert_eq!(envelope(&format!("external\n{line}to a\nenv-end\n")).mark(), None);
        assert_eq!(null_sender(b"a@x").unwrap(), b"channel error\nto <a@x>\nenv-end\n");
        assert_eq!(null_sender(b"\xff@x"), None);
    }

    proptest! {
        #[test]
        fn slices_do_not_matter(text in "((to|env-end|from|x|todsn|external)?[ :<>a\u{0}]{0,3}\r?\n?){0,9}", cut in 1usize..9) {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(cut).collect();
            let whole = read(&[text.as_bytes()]);
            prop_assert_eq!(&read(&pieces), &whole);
            if let Ok(envelope) = whole {
                prop_assert!(text.as_bytes().starts_with(envelope.as_bytes()));
                // What is written is read back, to its border.
                let changed = envelope.changed(&Change::default()).unwrap();
                let again = read(&[&changed[..], b"Subject: x\n"].map(|octets| octets)).unwrap();
                prop_assert_eq!(again.as_bytes(), &changed[..]);
                prop_assert_eq!(recipients(&again), recipients(&envelope));
                prop_assert_eq!(again.sender(), envelope.sender());
            }
        }

        #[test]
        fn no_octets_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(envelope) = read(&[&octets]) {
                let _ = (envelope.origin(), envelope.sender(), envelope.recipients().count(), envelope.mark());
            }
        }
    }
}
