//! Message content on its way in: DATA with dot-stuffing (RFC 5321 section 4.5.2) and BDAT (RFC 3030).
//! Nothing but CRLF.CRLF ends DATA. Not a parser of the message; see `stuff` for the way out.
//!
//! Speed is the point: octets are found with vector instructions and handed on in runs as long as possible.

use bytes::BytesMut;

use super::stuff::LF_DOT;

/// What to do with a CR or LF that is not part of a CRLF.
///
/// Passed on as it is, a next hop that reads LF as a line end would end the message early and take the rest for
/// commands (SMTP smuggling). So it is never passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BareNewline {
    /// Keep nothing more, go on to the true end, then refuse the message (550 5.5.2).
    #[default]
    Reject,
    /// Each becomes CRLF in the decoded content. A dot after it is content and stays; [`super::Stuffer`] doubles it.
    Normalize,
}

/// The first thing that [`BareNewline::Reject`] met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// LF without CR before it.
    BareLf,
    /// CR without LF after it.
    BareCr,
}

/// What [`DataDecoder::decode`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataEvent {
    /// All input is consumed, the end was not in it.
    More,
    /// The end was met; what follows it (commands) is still in the input.
    End,
}

/// Decodes the content of DATA, from after the 354 to the final dot.
#[derive(Debug, Clone)]
pub struct DataDecoder {
    content: Content,
    state: State,
}

/// Where in a line the decoder stands. Only CRLF begins a new line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    LineStart,
    Mid,
    /// A CR came last; it is content yet to be written.
    Cr,
    /// A dot came first on the line: stuffing or the end.
    Dot,
    /// `.` CR at the beginning of the line; only an LF makes it the end.
    DotCr,
    Ended,
}

impl DataDecoder {
    /// For one message. `limit` is in octets of decoded content, 0 for none.
    #[must_use]
    pub fn new(policy: BareNewline, limit: u64) -> Self {
        Self { content: Content::new(policy, limit), state: State::LineStart }
    }

    /// Consumes input up to the end of the message and appends the content (dots unstuffed, CRLF line ends) to `out`.
    ///
    /// All input is consumed unless the end comes first. Memory stays bounded by what the caller lets in: after a
    /// violation or over the limit nothing is appended any more.
    pub fn decode(&mut self, input: &mut BytesMut, out: &mut BytesMut) -> DataEvent {
        let (consumed, event) = self.decode_into(input, &mut |run| out.extend_from_slice(run));
        let _ = input.split_to(consumed);
        event
    }

    /// As [`Self::decode`], without copying: `sink` gets the content as slices of the input (and of a constant).
    /// Returns how many octets were consumed.
    pub fn decode_into(&mut self, input: &[u8], sink: &mut impl FnMut(&[u8])) -> (usize, DataEvent) {
        // `from..at` is content seen but not yet handed to the sink.
        let (mut from, mut at) = (0, 0);
        let mut block = Block::default();
        while at < input.len() {
            let octet = input[at];
            match self.state {
                State::Mid => {
                    (from, at) = self.content.lines(input, from, at, sink, &mut self.state, &mut block);
                }
                State::LineStart if octet == b'.' => {
                    self.content.emit(&input[from..at], sink);
                    at += 1;
                    from = at;
                    self.state = State::Dot;
                }
                State::LineStart => self.state = State::Mid,
                State::Dot if octet == b'\r' => {
                    at += 1;
                    from = at;
                    self.state = State::DotCr;
                }
                // RFC 5321 section 4.5.2: the first dot goes when more follows it.
                State::Dot => self.state = State::Mid,
                State::DotCr if octet == b'\n' => {
                    self.state = State::Ended;
                    return (at + 1, DataEvent::End);
                }
                State::Cr if octet == b'\n' => {
                    self.content.emit(b"\r\n", sink);
                    at += 1;
                    from = at;
                    self.state = State::LineStart;
                }
                State::DotCr | State::Cr => {
                    self.content.bare(Violation::BareCr, sink);
                    self.state = State::Mid;
                }
                State::Ended => return (at, DataEvent::End),
            }
        }
        self.content.emit(&input[from..at], sink);
        (at, if self.state == State::Ended { DataEvent::End } else { DataEvent::More })
    }

    /// Under [`BareNewline::Reject`]: the first bare CR or LF. The message must be refused.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        self.content.violation
    }

    /// Under [`BareNewline::Normalize`]: how many were made into CRLF.
    #[must_use]
    pub fn normalized(&self) -> u64 {
        self.content.normalized
    }

    /// The content is over the limit. The message must be refused (552 5.3.4).
    #[must_use]
    pub fn oversize(&self) -> bool {
        self.content.oversize()
    }

    /// Octets of content so far, counted also where they were dropped over the limit.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.content.octets
    }

    /// Keeps nothing from here on, but finds the end as before: for a message already refused for another reason.
    pub fn discard(&mut self) {
        self.content.discard = true;
    }

    /// The final dot was met.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.state == State::Ended
    }
}

/// Why a BDAT command cannot be taken (503 5.5.1). Its octets follow all the same: see [`BdatDecoder::skip`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BdatError {
    /// The last chunk of this message was there already.
    #[error("BDAT after BDAT LAST")]
    AfterLast,
    /// The chunk before has not been read to its end.
    #[error("BDAT within a chunk")]
    WithinChunk,
}

/// What [`BdatDecoder::decode`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BdatEvent {
    /// All input is consumed, the chunk needs more.
    More,
    /// The chunk is whole: answer it. What follows it is still in the input.
    ChunkEnd,
    /// The last chunk is whole: the message is.
    End,
}

/// Decodes the chunks of one message sent with BDAT.
#[derive(Debug, Clone)]
pub struct BdatDecoder {
    content: Content,
    left: u64,
    in_chunk: bool,
    last: bool,
    /// The octets of this chunk do not belong to the message.
    skipping: bool,
    /// A CR ended the input; an LF may follow, also in the next chunk.
    cr: bool,
}

impl BdatDecoder {
    /// For one message. `limit` is in octets over all chunks, 0 for none.
    #[must_use]
    pub fn new(policy: BareNewline, limit: u64) -> Self {
        let content = Content::new(policy, limit);
        Self { content, left: 0, in_chunk: false, last: false, skipping: false, cr: false }
    }

    /// A BDAT command was read and is accepted. Then call [`Self::decode`], also for a chunk of no octets.
    pub fn begin(&mut self, size: u64, last: bool) -> Result<(), BdatError> {
        if self.in_chunk {
            return Err(BdatError::WithinChunk);
        }
        if self.last {
            return Err(BdatError::AfterLast);
        }
        (self.left, self.last, self.in_chunk, self.skipping) = (size, last, true, false);
        Ok(())
    }

    /// A BDAT command was read and is refused: its octets must be consumed and dropped (RFC 3030 section 2).
    /// [`Self::decode`] then says [`BdatEvent::ChunkEnd`], never `End`.
    pub fn skip(&mut self, size: u64) {
        (self.left, self.in_chunk, self.skipping) = (size, true, true);
        self.content.discard = true;
    }

    /// Keeps nothing from here on; chunks are still counted to their ends.
    pub fn discard(&mut self) {
        self.content.discard = true;
    }

    /// Consumes input up to the end of the chunk and appends the content to `out`. Without a chunk begun it says
    /// [`BdatEvent::ChunkEnd`] and consumes nothing.
    pub fn decode(&mut self, input: &mut BytesMut, out: &mut BytesMut) -> BdatEvent {
        let (consumed, event) = self.decode_into(input, &mut |run| out.extend_from_slice(run));
        let _ = input.split_to(consumed);
        event
    }

    /// As [`Self::decode`], without copying. Returns how many octets were consumed.
    pub fn decode_into(&mut self, input: &[u8], sink: &mut impl FnMut(&[u8])) -> (usize, BdatEvent) {
        if !self.in_chunk {
            return (0, BdatEvent::ChunkEnd);
        }
        let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
        self.left -= take as u64;
        if !self.skipping {
            self.octets(&input[..take], sink);
        }
        if self.left > 0 {
            return (take, BdatEvent::More);
        }
        self.in_chunk = false;
        if self.skipping || !self.last {
            return (take, BdatEvent::ChunkEnd);
        }
        if std::mem::take(&mut self.cr) {
            self.content.bare(Violation::BareCr, sink);
        }
        (take, BdatEvent::End)
    }

    fn octets(&mut self, input: &[u8], sink: &mut impl FnMut(&[u8])) {
        let (mut from, mut at) = (0, 0);
        let mut block = Block::default();
        if self.cr && !input.is_empty() {
            self.cr = false;
            if input[0] == b'\n' {
                self.content.emit(b"\r\n", sink);
                (from, at) = (1, 1);
            } else {
                self.content.bare(Violation::BareCr, sink);
            }
        }
        while at < input.len() {
            // Dots mean nothing here, so a line start is like any other place.
            let mut state = State::Mid;
            (from, at) = self.content.lines(input, from, at, sink, &mut state, &mut block);
            self.cr = state == State::Cr;
        }
        self.content.emit(&input[from..at], sink);
    }

    /// Under [`BareNewline::Reject`]: the first bare CR or LF in any chunk.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        self.content.violation
    }

    /// Under [`BareNewline::Normalize`]: how many were made into CRLF.
    #[must_use]
    pub fn normalized(&self) -> u64 {
        self.content.normalized
    }

    /// The sum of the chunks is over the limit.
    #[must_use]
    pub fn oversize(&self) -> bool {
        self.content.oversize()
    }

    /// Octets of content so far.
    #[must_use]
    pub fn octets_so_far(&self) -> u64 {
        self.content.octets
    }

    /// Octets of the current chunk still to come.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The last chunk was announced and read.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.last && !self.in_chunk
    }
}

/// Input octets looked at before: up to `end`, and whether all newlines there are CRLF.
#[derive(Debug, Clone, Copy, Default)]
struct Block {
    end: usize,
    clean: bool,
}

impl Block {
    /// Small enough to stay in the first-level cache for the second pass.
    const SIZE: usize = if cfg!(test) { 8 } else { 4096 };

    /// The octet before `at` is not a CR.
    fn new(input: &[u8], at: usize) -> Self {
        let end = input.len().min(at + Self::SIZE);
        // A CR at the end is decided with what follows it.
        let end = if input[end - 1] == b'\r' && end - at > 1 { end - 1 } else { end };
        let octets = &input[at..end];
        let mut wrong = octets[0] == b'\n' || octets[octets.len() - 1] == b'\r';
        // Without a branch, so that the compiler uses vector instructions.
        for (octet, next) in octets.iter().zip(&octets[1..]) {
            wrong |= (*octet == b'\r') != (*next == b'\n');
        }
        Self { end, clean: !wrong }
    }
}

/// What both decoders share: line ends, policy, limit.
#[derive(Debug, Clone)]
struct Content {
    policy: BareNewline,
    limit: u64,
    octets: u64,
    violation: Option<Violation>,
    normalized: u64,
    discard: bool,
}

impl Content {
    fn new(policy: BareNewline, limit: u64) -> Self {
        let limit = if limit == 0 { u64::MAX } else { limit };
        Self { policy, limit, octets: 0, violation: None, normalized: 0, discard: false }
    }

    fn oversize(&self) -> bool {
        self.octets > self.limit
    }

    /// The hot loop. Goes on from `at`; stops after a line end that a dot or nothing follows, at the end of the
    /// input, or after a bare newline. Returns the new `(from, at)`.
    ///
    /// Block by block: one pass proves that every CR and LF belongs to a CRLF, one looks for dots at line starts. Only
    /// a block with a fault is searched line by line.
    fn lines(
        &mut self,
        input: &[u8],
        from: usize,
        mut at: usize,
        sink: &mut impl FnMut(&[u8]),
        state: &mut State,
        block: &mut Block,
    ) -> (usize, usize) {
        *state = State::Mid;
        while at < input.len() {
            if at >= block.end {
                *block = Block::new(input, at);
            }
            if !block.clean {
                return self.line(input, from, at, sink, state, block.end);
            }
            if let Some(lf) = LF_DOT.find(&input[at..block.end]) {
                *state = State::LineStart;
                return (from, at + lf + 1);
            }
            at = block.end;
            if input[at - 1] == b'\n' && input.get(at).is_none_or(|next| *next == b'.') {
                *state = State::LineStart;
                return (from, at);
            }
        }
        (from, at)
    }

    /// The same, newline by newline, up to the first one at or after `end`.
    fn line(
        &mut self,
        input: &[u8],
        from: usize,
        mut at: usize,
        sink: &mut impl FnMut(&[u8]),
        state: &mut State,
        end: usize,
    ) -> (usize, usize) {
        while at < end {
            let Some(found) = memchr::memchr2(b'\r', b'\n', &input[at..end]) else { return (from, end) };
            at += found;
            let kind = match (input[at], input.get(at + 1)) {
                (b'\r', Some(b'\n')) => {
                    at += 2;
                    if input.get(at).is_none_or(|next| *next == b'.') {
                        *state = State::LineStart;
                        return (from, at);
                    }
                    continue;
                }
                (b'\r', None) => {
                    self.emit(&input[from..at], sink);
                    *state = State::Cr;
                    return (input.len(), input.len());
                }
                (b'\r', Some(_)) => Violation::BareCr,
                _ => Violation::BareLf,
            };
            self.emit(&input[from..at], sink);
            self.bare(kind, sink);
            return (at + 1, at + 1);
        }
        (from, at)
    }

    #[cold]
    fn bare(&mut self, kind: Violation, sink: &mut impl FnMut(&[u8])) {
        match self.policy {
            BareNewline::Reject => {
                self.violation.get_or_insert(kind);
                self.discard = true;
                self.octets = self.octets.saturating_add(1);
            }
            BareNewline::Normalize => {
                self.normalized += 1;
                self.emit(b"\r\n", sink);
            }
        }
    }

    fn emit(&mut self, run: &[u8], sink: &mut impl FnMut(&[u8])) {
        if run.is_empty() {
            return;
        }
        let room = usize::try_from(self.limit.saturating_sub(self.octets)).unwrap_or(usize::MAX);
        self.octets = self.octets.saturating_add(run.len() as u64);
        if !self.discard && room > 0 {
            sink(&run[..run.len().min(room)]);
        }
    }
}

#[cfg(test)]
#[path = "data_tests.rs"]
mod tests;
