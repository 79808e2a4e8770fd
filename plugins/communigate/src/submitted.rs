//! A mail as it is handed in by the folder `Submitted` (Guide/PIPE.html): the header says who gets it, and whoever says
//! that way is trusted. So what came in with a mail must not say it.
//!
//! No files: lines to be put on top, and a filter for what stands below them.

/// Fields by which a mail in `Submitted` chooses its envelope.
const CHOOSING: [&[u8]; 3] = [b"envelope-to", b"envelope-ignore", b"return-path"];
/// A field's name is known by then, in octets.
const NAME: usize = 256;
/// Stands before a message that begins in the middle of a field, so that it does not go on one of ours.
const CONTINUED: &[u8] = b"X-Checkpost-Continued:\n";

/// The lines that are the envelope. The server takes them out. Without a sender it finds one itself.
pub fn envelope_lines(sender: Option<&[u8]>, recipients: &[Vec<u8>]) -> Vec<u8> {
    let mut lines = Vec::new();
    let mut line = |name: &[u8], address: &[u8]| lines.extend([name, b": <", address, b">\n"].concat());
    sender.into_iter().for_each(|sender| line(b"Return-Path", sender));
    recipients.iter().for_each(|recipient| line(b"Envelope-To", recipient));
    lines
}

/// Leaves fields out of a message's header: those that choose an envelope, and those with these names. All the rest comes
/// out as it went in.
///
/// It is stricter than a reader of headers: whatever any server could take for such a field goes, be it behind a bare CR
/// or behind a line that holds nothing but one.
#[derive(Debug)]
pub struct Strip<'a> {
    names: &'a [&'a [u8]],
    in_body: bool,
    /// The start of a field, as long as its name is not known.
    start: Vec<u8>,
    deciding: bool,
    dropping: bool,
    /// This field stands behind a bare CR in the line of another.
    within_line: bool,
    /// The last CR stands at the start of its line.
    only_cr: bool,
    last: Option<u8>,
    /// The first line ended with CR LF, so others do.
    crlf: Option<bool>,
}

impl<'a> Strip<'a> {
    /// `names` in small letters.
    pub fn new(names: &'a [&'a [u8]]) -> Self {
        Self {
            names,
            in_body: false,
            start: Vec::new(),
            deciding: true,
            dropping: false,
            within_line: false,
            only_cr: false,
            last: None,
            crlf: None,
        }
    }

    /// Takes the next octets, and puts what stays of them behind `out`.
    pub fn take(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        for (at, &octet) in octets.iter().enumerate() {
            if self.in_body {
                return out.extend_from_slice(&octets[at..]);
            }
            self.octet(octet, out);
            self.last = Some(octet);
        }
    }

    /// Puts what is left behind `out`.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        self.decide(out);
    }

    fn octet(&mut self, octet: u8, out: &mut Vec<u8>) {
        match octet {
            b'\n' => {
                let line_start = matches!(self.last, None | Some(b'\n'));
                let crlf = *self.crlf.get_or_insert(self.last == Some(b'\r'));
                if line_start || (self.only_cr && self.last == Some(b'\r') && crlf) {
                    self.in_body = true;
                    return out.push(b'\n');
                }
                self.decide(out);
                // The line that a dropped field stands in goes on otherwise.
                if !self.dropping || self.within_line {
                    out.push(b'\n');
                }
                (self.deciding, self.within_line) = (true, false);
            }
            b'\r' => {
                self.decide(out);
                self.only_cr = matches!(self.last, None | Some(b'\n'));
                // Such a line belongs to no field.
                self.dropping &= !self.only_cr;
                if !self.dropping {
                    out.push(b'\r');
                }
                self.deciding = true;
            }
            b' ' | b'\t' if self.deciding && self.start.is_empty() => {
                // The field before goes on, and shares its lot.
                if self.last.is_none() {
                    out.extend_from_slice(CONTINUED);
                }
                self.deciding = false;
                if !self.dropping {
                    out.push(octet);
                }
            }
            _ if self.deciding => {
                if self.start.is_empty() {
                    self.within_line = self.last == Some(b'\r');
                }
                self.start.push(octet);
                if octet == b':' || self.start.len() == NAME {
                    self.decide(out);
                }
            }
            _ if !self.dropping => out.push(octet),
            _ => {}
        }
    }

    /// What has come of a field is enough to know what becomes of it.
    fn decide(&mut self, out: &mut Vec<u8>) {
        if !self.deciding || self.start.is_empty() {
            return;
        }
        let is_field = self.start.ends_with(b":") || self.start.len() == NAME;
        let name = self.start.iter().filter(|octet| octet.is_ascii_graphic() && **octet != b':');
        let name: Vec<u8> = name.map(u8::to_ascii_lowercase).collect();
        self.dropping = is_field && CHOOSING.iter().chain(self.names).any(|known| **known == name);
        self.deciding = false;
        if self.dropping {
            self.start.clear();
        } else {
            out.append(&mut self.start);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn strip(message: &str, slice: usize) -> String {
        let (mut strip, mut out) = (Strip::new(&[b"x-mark"]), Vec::new());
        message.as_bytes().chunks(slice).for_each(|octets| strip.take(octets, &mut out));
        strip.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn check(message: &str, wanted: &str) {
        for slice in [1, 3, 1000] {
            assert_eq!(strip(message, slice), wanted, "{message:?}");
        }
    }

    #[test]
    fn envelopes_are_written() {
        let lines = envelope_lines(Some(b"s@x"), &[b"a@x".to_vec(), b"\"b c\"@x".to_vec()]);
        let wanted = "Return-Path: <s@x>\nEnvelope-To: <a@x>\nEnvelope-To: <\"b c\"@x>\n";
        assert_eq!(String::from_utf8(lines).unwrap(), wanted);
        assert_eq!(envelope_lines(Some(b""), &[]), b"Return-Path: <>\n");
        assert_eq!(envelope_lines(None, &[b"a@x".to_vec()]), b"Envelope-To: <a@x>\n");
    }

    #[test]
    fn no_stranger_chooses_the_envelope() {
        let all =
            "A: 1\nEnvelope-To: <v@x>\nenvelope-ignore : x\n  y\n\tz\nRETURN-PATH: <s@x>\nX-Mark: 1\nB: 2\n 3\n\n";
        check(&format!("{all}Envelope-To: body\n\nX-Mark: 1\n"), "A: 1\nB: 2\n 3\n\nEnvelope-To: body\n\nX-Mark: 1\n");
        check("Envelope-To: v\n\nb", "\nb");
        check("Envelope-To\t \0: v\n\nb", "\nb");
        check("Envelope-To: v", "");
        check("Envelope-To:v\n", "");
        let blanks = format!("Envelope-To{}: v\nA: 1\n", " ".repeat(1000));
        check(&blanks, "A: 1\n");
        // What only looks like it.
        let others =
            "Envelope-Too: 1\nX-Envelope-To: 2\nEnvelope: 3\nEnvelope-To\nSubject: Envelope-To: x\n Return-Path: y\n\n";
        check(others, others);
    }

    #[test]
    fn a_bare_cr_hides_nothing() {
        check("A: 1\rEnvelope-To: v\nB: 2\n\n", "A: 1\r\nB: 2\n\n");
        check("A: 1\rEnvelope-To: v\rC: 3\nB: 2\n\n", "A: 1\rC: 3\nB: 2\n\n");
        check("Envelope-To: v\rA: 1\nB: 2\n\n", "A: 1\nB: 2\n\n");
        // A server could read on behind this line.
        check("A: 1\n\r\nEnvelope-To: v\n\nb", "A: 1\n\r\n\nb");
        check("\r\nEnvelope-To: v\n\nb", "\r\nEnvelope-To: v\n\nb");
        // But not where all lines are such.
        let windows = "A: 1\r\nB: 2\r\n\r\nReturn-Path: <in an attachment>\r\n";
        check(windows, windows);
        check("A: 1\r\nEnvelope-To: v\r\n w\r\nB: 2\r\n\r\nb\r\n", "A: 1\r\nB: 2\r\n\r\nb\r\n");
    }

    #[test]
    fn messages_of_odd_shape_stay_as_they_are() {
        for message in
            ["", "\n", "\n\nbody", "no header", "A: 1", "A: 1\n\n\nleading blank line\n", "\u{e4}: 1\n\0\n\n\0"]
        {
            check(message, message);
        }
        check(" <v@x>\nA: 1\n\nb", "X-Checkpost-Continued:\n <v@x>\nA: 1\n\nb");
    }

    proptest! {
        #[test]
        fn slices_do_not_matter(message in "((Envelope-To|Return-Path|X-Mark|A)? ?[: a\r\n\t]){0,20}", slice in 1usize..9) {
            prop_assert_eq!(strip(&message, slice), strip(&message, message.len().max(1)));
        }

        #[test]
        fn once_is_enough(message in "((Envelope-To|return-path|A)? ?[: a\r\n\t]){0,20}") {
            let once = strip(&message, 1000);
            prop_assert_eq!(strip(&once, 1000), once.clone());
            // As a simple reader of LF lines sees it.
            let header = once.split("\n\n").next().unwrap_or_default();
            if !once.starts_with('\n') && !once.contains('\r') {
                prop_assert!(!header.lines().any(|line| line.to_ascii_lowercase().starts_with("envelope-to:")), "{:?}", once);
            }
        }
    }
}
