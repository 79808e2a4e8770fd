//! A daemon that answers as a test wants: one mail on each connection, the message as a descriptor.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use checkpost_wire::check::{Finder, HELLO, List, Request, Response};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Its answer, and the changed content that goes with it. Nothing: it hangs up.
pub type Said = Option<(Response, Option<Vec<u8>>)>;

/// Listens until the test ends.
pub fn listen(socket: &Path, judge: impl Fn(&Request, &[u8]) -> Said + Send + Sync + 'static) {
    let listener = UnixListener::bind(socket).unwrap();
    let judge = Arc::new(judge);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let judge = Arc::clone(&judge);
            std::thread::spawn(move || serve(stream.unwrap(), &*judge));
        }
    });
}

fn serve(mut stream: UnixStream, judge: &dyn Fn(&Request, &[u8]) -> Said) {
    let mut heard = Vec::new();
    let mut content = None;
    let request = loop {
        let mut block = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let count = {
            let mut slices = [IoSliceMut::new(&mut block)];
            recvmsg(&stream, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap().bytes
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
                content = descriptors.next();
            }
        }
        heard.extend_from_slice(&block[..count]);
        if count == 0 {
            return;
        }
        let Some(list) = heard.strip_prefix(HELLO) else { continue };
        if let Some(length) = Finder::default().find(list, 1 << 20).unwrap() {
            break Request::decode(List::new(&list[..length])).unwrap();
        }
    };
    let mut file = File::from(content.expect("a descriptor with the request"));
    assert!(file.write_all(b"x").is_err(), "the mail is not to be written by the daemon");
    let mut mail = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut mail).unwrap();
    let Some((response, changed)) = judge(&request, &mail) else { return };
    let said = [HELLO, &response.encode()].concat();
    let Some(changed) = changed else {
        let _ = stream.write_all(&said);
        let _ = stream.read(&mut [0; 100]);
        return;
    };
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&changed).unwrap();
    let descriptors = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    sendmsg(&stream, &[IoSlice::new(&said)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
    let _ = stream.read(&mut [0; 100]);
}
