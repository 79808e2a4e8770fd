//! A daemon that answers as a test wants: one mail on each connection, the message as a descriptor. For tests.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use checkpost_wire::check::{Finder, HELLO, List, Request, Response};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// What it is asked.
#[derive(Debug)]
pub struct Asked {
    /// The request.
    pub request: Request,
    /// The message.
    pub content: Vec<u8>,
    /// The descriptor that came.
    pub file: File,
}

/// What it says.
#[derive(Debug, Clone)]
pub enum Said {
    /// Nothing, and it hangs up.
    Nothing,
    /// Nothing, until the client hangs up.
    Silence,
    /// This.
    Response(Response),
    /// This, and a descriptor with a changed content.
    Changed(Response, Vec<u8>),
    /// This, and the octets of its pieces.
    Pieces(Response, Vec<u8>),
    /// These octets, whatever they are; then it hangs up.
    Octets(Vec<u8>),
}

/// Listens until the test ends.
pub fn listen(socket: &Path, judge: impl Fn(&Asked) -> Said + Send + Sync + 'static) {
    let listener = UnixListener::bind(socket).unwrap();
    let judge = Arc::new(judge);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let judge = Arc::clone(&judge);
            std::thread::spawn(move || serve(stream.unwrap(), &*judge));
        }
    });
}

fn serve(mut stream: UnixStream, judge: &dyn Fn(&Asked) -> Said) {
    let Some(asked) = receive(&stream) else { return };
    let hello = |response: &Response| [HELLO, &response.encode()].concat();
    match judge(&asked) {
        Said::Nothing => return,
        Said::Silence => {}
        // The client may be gone already, as a test may want it.
        Said::Octets(octets) => return stream.write_all(&octets).unwrap_or_default(),
        Said::Response(response) => stream.write_all(&hello(&response)).unwrap_or_default(),
        Said::Pieces(response, octets) => {
            stream.write_all(&[hello(&response), octets].concat()).unwrap_or_default();
        }
        Said::Changed(response, content) => {
            let file = crate::spool::in_memory().unwrap();
            crate::spool::write_all(file.as_fd(), &content).unwrap();
            let descriptors = [file.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
            sendmsg(&stream, &[IoSlice::new(&hello(&response))], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
        }
    }
    // To the client's last word.
    while stream.read(&mut [0; 100]).is_ok_and(|count| count > 0) {}
}

/// `None`: the client went away.
fn receive(stream: &UnixStream) -> Option<Asked> {
    let mut heard = Vec::new();
    let mut content = None;
    loop {
        let mut block = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let count = {
            let mut slices = [IoSliceMut::new(&mut block)];
            recvmsg(stream, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?.bytes
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
                content = descriptors.next();
            }
        }
        heard.extend_from_slice(&block[..count]);
        if count == 0 {
            return None;
        }
        let Some(list) = heard.strip_prefix(HELLO) else { continue };
        if let Some(length) = Finder::default().find(list, 1 << 20).unwrap() {
            let request = Request::decode(List::new(&list[..length])).unwrap();
            let file = File::from(content.expect("a descriptor with the request"));
            let mut content = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
            file.read_exact_at(&mut content, 0).unwrap();
            return Some(Asked { request, content, file });
        }
    }
}
