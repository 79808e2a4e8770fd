//! A stand-in for clamd, after clamd(8): it reads requests as the manual describes them and can be slow,
//! cut off, silent, or lie. It shares no code with the client.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

/// What the fake finds, as `Fake.Marker-1`.
pub(super) const MARKER: &[u8] = b"<marker>";

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Behaviour {
    /// As the manual says.
    Honest,
    /// The answer in single octets.
    Pieces,
    /// These bytes instead of the answer to a scan.
    Say(&'static [u8]),
    /// The same, and closes.
    SayAndClose(&'static [u8]),
    /// Says this when a scan begins, before the content has come.
    SayEarly(&'static [u8]),
    /// Says this before it closes, without reading the content.
    SayEarlyAndClose(&'static [u8]),
    /// Closes as soon as there is a connection.
    CloseAtOnce,
    /// Never answers a scan.
    Hang,
    /// Never answers the first scan, is honest after it.
    HangOnce,
    /// Letters without end.
    Endless,
    /// Closes after each answer, session or not.
    CloseAfterAnswer,
    /// Cannot take descriptors.
    NoDescriptors,
    /// `StreamMaxLength`.
    Limit(usize),
}

#[derive(Debug, Default)]
pub(super) struct Log {
    pub connections: usize,
    /// `stream` or `descriptor`, and the content.
    pub scans: Vec<(&'static str, Vec<u8>)>,
    pub at_once: usize,
    pub most_at_once: usize,
}

pub(super) struct Fake {
    /// As in the configuration.
    pub address: String,
    pub log: Arc<Mutex<Log>>,
    stop: Arc<AtomicBool>,
    socket: Option<PathBuf>,
    _folder: tempfile::TempDir,
}

impl Fake {
    pub(super) fn unix(behaviour: Behaviour) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clamd.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let fake = Self::new(format!("unix:{}", path.display()), Some(path), folder);
        let (log, stop) = (Arc::clone(&fake.log), Arc::clone(&fake.stop));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (stream, log) = (stream.unwrap(), Arc::clone(&log));
                thread::spawn(move || Peer::new(stream, log, behaviour).serve());
            }
        });
        fake
    }

    pub(super) fn tcp(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake = Self::new(format!("tcp:{}", listener.local_addr().unwrap()), None, tempfile::tempdir().unwrap());
        let (log, stop) = (Arc::clone(&fake.log), Arc::clone(&fake.stop));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (stream, log) = (stream.unwrap(), Arc::clone(&log));
                thread::spawn(move || Peer::new(stream, log, behaviour).serve());
            }
        });
        fake
    }

    fn new(address: String, socket: Option<PathBuf>, folder: tempfile::TempDir) -> Self {
        Self { address, log: Arc::default(), stop: Arc::default(), socket, _folder: folder }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener.
        match &self.socket {
            Some(path) => drop(UnixStream::connect(path)),
            None => drop(TcpStream::connect(self.address.trim_start_matches("tcp:"))),
        }
    }
}

struct Peer<S> {
    stream: S,
    log: Arc<Mutex<Log>>,
    behaviour: Behaviour,
    buffer: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    session: Option<u32>,
}

impl<S: Write + AsFd> Peer<S> {
    fn new(stream: S, log: Arc<Mutex<Log>>, behaviour: Behaviour) -> Self {
        log.lock().unwrap().connections += 1;
        Self { stream, log, behaviour, buffer: Vec::new(), descriptors: VecDeque::new(), session: None }
    }

    /// Ends when the client goes, whatever it is doing.
    fn serve(mut self) {
        if self.behaviour != Behaviour::CloseAtOnce {
            while self.request().is_some() {}
        }
    }

    fn request(&mut self) -> Option<()> {
        let command = loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == 0) {
                let command: Vec<u8> = self.buffer.drain(..=end).collect();
                break String::from_utf8(command[..end].to_vec()).ok()?;
            }
            self.more()?;
        };
        match command.as_str() {
            "zIDSESSION" => {
                self.session = Some(0);
                return Some(());
            }
            "zVERSION" => return self.answer("ClamAV 9.8.7/27500/Mon Nov 23 09:26:35 2026"),
            _ => {}
        }
        if let Some(number) = &mut self.session {
            *number += 1;
        }
        match self.behaviour {
            Behaviour::SayEarly(text) => {
                self.stream.write_all(text).ok()?;
                return self.until_gone();
            }
            Behaviour::SayEarlyAndClose(text) => {
                self.stream.write_all(text).ok()?;
                return None;
            }
            _ => {}
        }
        let (way, answer_name, content) = match command.as_str() {
            "zINSTREAM" => ("stream", "stream", self.chunks()?),
            "zFILDES" => {
                while self.buffer.is_empty() {
                    self.more()?;
                }
                self.buffer.remove(0);
                let descriptor = self.descriptors.pop_front();
                let Some(descriptor) = descriptor.filter(|_| self.behaviour != Behaviour::NoDescriptors) else {
                    self.answer("No file descriptor received. ERROR");
                    return None;
                };
                let mut content = Vec::new();
                File::from(descriptor).read_to_end(&mut content).unwrap();
                ("descriptor", "fd[9]", content)
            }
            _ => {
                self.answer("UNKNOWN COMMAND");
                return None;
            }
        };
        let found = content.windows(MARKER.len()).any(|window| window == MARKER);
        let first = {
            let mut log = self.log.lock().unwrap();
            log.at_once += 1;
            log.most_at_once = log.most_at_once.max(log.at_once);
            log.scans.push((way, content));
            log.scans.len() == 1
        };
        let result = if found { "Fake.Marker-1 FOUND" } else { "OK" };
        let done = self.answer_scan(&format!("{answer_name}: {result}"), first);
        self.log.lock().unwrap().at_once -= 1;
        done
    }

    fn answer_scan(&mut self, honest: &str, first: bool) -> Option<()> {
        match self.behaviour {
            Behaviour::Hang => self.until_gone(),
            Behaviour::HangOnce if first => self.until_gone(),
            Behaviour::Say(text) => self.stream.write_all(text).ok(),
            Behaviour::SayAndClose(text) => {
                self.stream.write_all(text).ok()?;
                None
            }
            Behaviour::Endless => loop {
                self.stream.write_all(&[b'x'; 512]).ok()?;
            },
            Behaviour::Pieces => {
                for byte in self.line(honest) {
                    self.stream.write_all(&[byte]).ok()?;
                    thread::yield_now();
                }
                Some(())
            }
            Behaviour::CloseAfterAnswer => {
                self.answer(honest)?;
                None
            }
            _ => self.answer(honest),
        }
    }

    fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        loop {
            let head = self.take(4)?;
            let length = u32::from_be_bytes(head.try_into().unwrap()) as usize;
            if length == 0 {
                return Some(content);
            }
            if let Behaviour::Limit(limit) = self.behaviour
                && content.len() + length > limit
            {
                self.answer("INSTREAM size limit exceeded. ERROR");
                return None;
            }
            content.extend(self.take(length)?);
        }
    }

    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            self.more()?;
        }
        Some(self.buffer.drain(..count).collect())
    }

    fn line(&self, text: &str) -> Vec<u8> {
        let number = self.session.map(|number| format!("{number}: ")).unwrap_or_default();
        format!("{number}{text}\0").into_bytes()
    }

    fn answer(&mut self, text: &str) -> Option<()> {
        let line = self.line(text);
        self.stream.write_all(&line).ok()
    }

    fn until_gone(&mut self) -> Option<()> {
        loop {
            self.more()?;
            self.buffer.clear();
        }
    }

    fn more(&mut self) -> Option<()> {
        let mut bytes = vec![0; 64 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = rustix::net::recvmsg(&self.stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags).ok()?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        self.buffer.extend_from_slice(&bytes[..got.bytes]);
        (got.bytes > 0).then_some(())
    }
}
