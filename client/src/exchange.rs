//! What both clients do: the words that are sent, and an answer as it comes in. One system call at a time; who waits for
//! the socket, and how, is not known here.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use checkpost_wire::check::{Answer, Carried, Changed, Finder, Form, HELLO, List, MAX_ANSWER, Request, Response};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use crate::AskError;

/// Descriptors taken with one read; the kernel closes those beyond it.
const DESCRIPTORS: usize = 16;
/// Read at once, in octets.
const BLOCK: usize = 4 << 10;
/// So much earlier than we give it up, or a quarter where that is less, the daemon is to answer.
const MARGIN: Duration = Duration::from_secs(2);
/// New octets behind an answer, at most.
const MAX_PUT: usize = 8 << 20;

/// What is said about a mail whose message goes as a descriptor.
pub(crate) fn words(mut request: Request, changed: Changed, within: Duration) -> Result<Vec<u8>, AskError> {
    request.content = Carried::Descriptor;
    request.changed = changed;
    // The daemon's word that a scanner hangs is worth more than our not waiting for it any more.
    request.within.get_or_insert(within.saturating_sub(MARGIN.min(within / 4)));
    let mut said = HELLO.to_vec();
    said.extend(request.encode().map_err(AskError::Request)?);
    Ok(said)
}

/// Sends the first of these octets, and the descriptor with them: how many went.
pub(crate) fn send(socket: BorrowedFd<'_>, octets: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let send = || sendmsg(socket, &[IoSlice::new(octets)], &mut ancillary, SendFlags::NOSIGNAL);
    Ok(rustix::io::retry_on_intr(send)?)
}

/// What has come of an answer.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    buffer: Vec<u8>,
    finder: Finder,
    /// The answer's list is understood: the octets behind it are waited for.
    response: Option<Response>,
    descriptors: VecDeque<OwnedFd>,
}

impl Heard {
    /// Takes octets that are there; 0 at the end.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let start = self.buffer.len();
        self.buffer.resize(start + BLOCK, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            let mut slices = [IoSliceMut::new(&mut self.buffer[start..])];
            recvmsg(socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        });
        let count = received.as_ref().map_or(0, |received| received.bytes);
        self.buffer.truncate(start + count);
        received?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        Ok(count)
    }

    /// The answer to a request for so many recipients and the octets that belong to it, once all is there. Nothing
    /// comes behind it.
    pub(crate) fn response(&mut self, recipients: usize) -> Result<Option<(Response, Vec<u8>)>, AskError> {
        if self.response.is_none() {
            let greeted = self.buffer.len().min(HELLO.len());
            if self.buffer[..greeted] != HELLO[..greeted] {
                return Err(AskError::Malformed("another protocol or version"));
            }
            let list = &self.buffer[greeted..];
            let Some(length) = self.finder.find(list, MAX_ANSWER).map_err(|_| AskError::Malformed("it is too long"))?
            else {
                return Ok(None);
            };
            self.response = Some(Response::decode(List::new(&list[..length]), recipients).map_err(AskError::Unclear)?);
            self.buffer.drain(..greeted + length);
        }
        let wanted = match &self.response {
            Some(Response::Answer(answer)) => answer.octets(),
            _ => 0,
        };
        let wanted = usize::try_from(wanted).ok().filter(|wanted| *wanted <= MAX_PUT);
        let wanted = wanted.ok_or(AskError::Malformed("more new octets than any"))?;
        match self.buffer.len() {
            come if come > wanted => Err(AskError::Malformed("more than one answer")),
            come if come < wanted => Ok(None),
            _ => Ok(self.response.take().map(|response| (response, std::mem::take(&mut self.buffer)))),
        }
    }

    /// The descriptors that came with an answer, in the places of its contents.
    pub(crate) fn contents(&mut self, answer: &Answer, changed: Changed) -> Result<Vec<Option<OwnedFd>>, AskError> {
        let mut contents = Vec::with_capacity(answer.contents.len());
        for content in &answer.contents {
            contents.push(match content.form {
                Form::Same => None,
                Form::Descriptor if changed == Changed::Descriptor => {
                    Some(self.descriptors.pop_front().ok_or(AskError::Malformed("a descriptor is missing"))?)
                }
                Form::Pieces(_) if changed == Changed::Pieces => None,
                Form::Descriptor => return Err(AskError::Malformed("descriptors were not asked for")),
                Form::Pieces(_) => return Err(AskError::Malformed("pieces were not asked for")),
            });
        }
        if self.descriptors.is_empty() { Ok(contents) } else { Err(AskError::Malformed("too many descriptors")) }
    }
}

#[cfg(test)]
mod tests {
    use checkpost_wire::check::{Content, Decision, Outcome, Part};

    use super::*;

    fn pieces(parts: Vec<Part>) -> Answer {
        Answer {
            id: "1".into(),
            decision: Decision::Accept,
            outcomes: vec![Outcome::Deliver(0)],
            contents: vec![Content { form: Form::Pieces(parts), sender: None, added: Vec::new() }],
        }
    }

    fn hear(octets: &[u8], slice: usize) -> Result<Option<(Response, Vec<u8>)>, AskError> {
        let mut heard = Heard::default();
        for slice in octets.chunks(slice) {
            heard.buffer.extend_from_slice(slice);
            if let Some(whole) = heard.response(1)? {
                return Ok(Some(whole));
            }
        }
        Ok(None)
    }

    #[test]
    fn octets_behind_an_answer_belong_to_it() {
        let answer = pieces(vec![Part::Put(3), Part::Keep(0, 10), Part::Put(2)]);
        let list = [HELLO, &Response::Answer(answer.clone()).encode()].concat();
        let whole = [&list[..], b"abcde"].concat();
        for slice in [1, 7, whole.len()] {
            let (response, octets) = hear(&whole, slice).unwrap().unwrap();
            assert_eq!((response, &octets[..]), (Response::Answer(answer.clone()), &b"abcde"[..]));
            assert!(hear(&whole[..whole.len() - 1], slice).unwrap().is_none());
        }
        let more = [&whole[..], b"f"].concat();
        assert!(matches!(hear(&more, more.len()), Err(AskError::Malformed("more than one answer"))));
        let large = Response::Answer(pieces(vec![Part::Put(u64::MAX), Part::Put(u64::MAX)]));
        let large = [HELLO, &large.encode()].concat();
        assert!(matches!(hear(&large, large.len()), Err(AskError::Malformed("more new octets than any"))));
    }
}
