//! The tokio driver: takes a session's steps on real sockets. It knows no protocol.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, BytesMut};
use checkpost_core::{Abilities, Content, ContentWriter, Mail};
use checkpost_wire::smtp::Stuffer;
use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::descriptors::{Descriptors, Incoming};
use crate::files;
use crate::host::Host;
use crate::session::{Answer, Heartbeat, Opening, Outgoing, Piece, Session, Side, Step, Submission, Target};
use crate::stream::{BoxStream, connect};

/// What a driver has to know of a way.
pub struct Terms {
    /// For `fit`.
    pub abilities: Abilities,
    /// A mail must be judged so long after its last byte.
    pub judge_within: std::time::Duration,
    /// A peer that takes no byte for so long is given up.
    pub write_stall: std::time::Duration,
    /// Our certificates, for [`Step::StartTls`] on the client's side.
    pub acceptor: Option<TlsAcceptor>,
    /// Those of the client's connection, for [`Step::Take`] and [`Step::Enclose`].
    pub descriptors: Option<Descriptors>,
}

/// Runs a session on a client's stream until it closes.
pub async fn drive<S: Session>(session: &mut S, stream: BoxStream, host: &Host, terms: &Terms) {
    let mut driver =
        Driver { client: Some(stream), hop: None, target: None, writer: None, host, terms, drained: false };
    loop {
        let step = session.step(Instant::now());
        let lost = driver.flush(session).await;
        match step {
            Step::Close => break,
            // To read from a peer that is gone would tell the session a second time; it asks anew.
            Step::Read { .. } | Step::Flush if lost.is_some() => {}
            step => {
                if let Some(answer) = driver.take(session, step).await {
                    session.resolve(answer, Instant::now());
                }
            }
        }
        if let Some(side) = lost {
            if side == Side::Client {
                // Nobody is left to talk to; the session still decides about the next hop.
                driver.client = None;
            }
            session.resolve(Answer::Closed(side), Instant::now());
        }
    }
    if let Some(mut client) = driver.client {
        let _ = tokio::time::timeout(terms.write_stall, client.shutdown()).await;
    }
}

struct Driver<'a> {
    client: Option<BoxStream>,
    hop: Option<BoxStream>,
    target: Option<Target>,
    writer: Option<ContentWriter>,
    host: &'a Host,
    terms: &'a Terms,
    drained: bool,
}

impl Driver<'_> {
    /// Writes what the session has to say, the next hop first: it has the longer way to go. The side
    /// that could not be written to is returned; what was meant for it is dropped.
    async fn flush<S: Session>(&mut self, session: &mut S) -> Option<Side> {
        for side in [Side::Hop, Side::Client] {
            let stall = self.terms.write_stall;
            let output = session.output(side);
            if output.is_empty() {
                continue;
            }
            let written = match self.stream(side) {
                Some(stream) => tokio::time::timeout(stall, write_out(stream, output)).await.is_ok_and(|r| r.is_ok()),
                None => false,
            };
            if !written {
                session.output(side).clear();
                return Some(side);
            }
        }
        None
    }

    async fn take<S: Session>(&mut self, session: &mut S, step: Step) -> Option<Answer> {
        match step {
            Step::Read { side, until, appetite } => self.read(session.input(side), side, until, appetite).await,
            Step::Connect(target) => Some(self.connect(*target).await),
            Step::StartTls(side) => Some(self.start_tls(side).await),
            Step::Store(bytes) => Some(self.store(bytes).await),
            Step::Take { skip, limit } => Some(self.take_descriptor(skip, limit).await),
            Step::Enclose(pieces) => Some(self.enclose(pieces).await),
            Step::Forget => {
                self.writer = None;
                None
            }
            Step::Judge(submission) => Some(self.judge(*submission).await),
            Step::Open(opening) => Some(self.open(*opening).await),
            Step::Send(outgoing) => Some(match self.send(&outgoing).await {
                Ok(()) => Answer::Sent,
                Err(_) => Answer::Closed(outgoing.to),
            }),
            Step::KeepHop(note) => {
                if let (Some(target), Some(stream)) = (self.target.take(), self.hop.take()) {
                    self.host.pool.keep(&target, stream, note);
                }
                None
            }
            Step::DropHop => {
                self.hop = None;
                self.target = None;
                None
            }
            Step::Flush => Some(Answer::Flushed),
            Step::Close => None,
        }
    }

    fn stream(&mut self, side: Side) -> Option<&mut BoxStream> {
        match side {
            Side::Client => self.client.as_mut(),
            Side::Hop => self.hop.as_mut(),
        }
    }

    async fn read(&mut self, input: &mut BytesMut, side: Side, until: Instant, appetite: usize) -> Option<Answer> {
        let drained = self.drained;
        let mut drain = self.host.drain.clone();
        let Some(stream) = self.stream(side) else { return Some(Answer::Closed(side)) };
        input.reserve(appetite);
        if until <= Instant::now() {
            // Only a look at what is there: tokio's timer would wait for its next millisecond. To
            // yield lets it hear from the kernel first, so that a close just now is not overlooked.
            tokio::task::yield_now().await;
            return match stream.read_buf(input).now_or_never() {
                None => Some(Answer::TimedOut(side)),
                Some(Ok(0) | Err(_)) => Some(Answer::Closed(side)),
                Some(Ok(_)) => None,
            };
        }
        tokio::select! {
            biased;
            read = stream.read_buf(input) => match read {
                Ok(0) | Err(_) => Some(Answer::Closed(side)),
                Ok(_) => None,
            },
            () = tokio::time::sleep_until(until.into()) => Some(Answer::TimedOut(side)),
            // The sender is never dropped before the last session ends, but an error means drain too.
            _ = drain.wait_for(|drain| *drain), if !drained => {
                self.drained = true;
                Some(Answer::Drain)
            }
        }
    }

    async fn connect(&mut self, target: Target) -> Answer {
        if target.reuse
            && let Some((stream, note)) = self.host.pool.take(&target)
        {
            self.hop = Some(stream);
            self.target = Some(target);
            return Answer::Connected { kept: Some(note) };
        }
        let attempt = async {
            let stream = connect(&target.address).await?;
            if target.implicit_tls { self.host.connectors.secure(&target, stream).await } else { Ok(stream) }
        };
        match tokio::time::timeout(target.timeout, attempt).await {
            Ok(Ok(stream)) => {
                self.hop = Some(stream);
                self.target = Some(target);
                Answer::Connected { kept: None }
            }
            Ok(Err(error)) => Answer::Unreachable(format!("{}: {error}", target.address)),
            Err(_) => Answer::Unreachable(format!("{}: no connection in {:?}", target.address, target.timeout)),
        }
    }

    async fn open(&mut self, opening: Opening) -> Answer {
        let opened = tokio::task::spawn_blocking(move || files::open(&opening)).await;
        match opened.unwrap_or_else(|crash| Err(io::Error::other(crash).into())) {
            Ok((file, length)) => {
                self.hop = Some(Box::new(tokio::fs::File::from_std(file)));
                self.target = None;
                Answer::Opened(length)
            }
            Err(why) => Answer::NotOpened(why),
        }
    }

    async fn start_tls(&mut self, side: Side) -> Answer {
        let timeout = std::time::Duration::from_secs(30);
        let secured = match side {
            Side::Client => match (self.client.take(), &self.terms.acceptor) {
                (Some(stream), Some(acceptor)) => tokio::time::timeout(timeout, acceptor.accept(stream))
                    .await
                    .map_err(io::Error::from)
                    .flatten()
                    .map(|stream| self.client = Some(Box::new(stream))),
                _ => Err(io::ErrorKind::NotConnected.into()),
            },
            Side::Hop => match (self.hop.take(), &self.target) {
                (Some(stream), Some(target)) => {
                    tokio::time::timeout(timeout, self.host.connectors.secure(target, stream))
                        .await
                        .map_err(io::Error::from)
                        .flatten()
                        .map(|stream| self.hop = Some(stream))
                }
                _ => Err(io::ErrorKind::NotConnected.into()),
            },
        };
        match secured {
            Ok(()) => Answer::Secured(side),
            Err(error) => {
                tracing::info!(?side, %error, "no TLS");
                Answer::Closed(side)
            }
        }
    }

    async fn store(&mut self, bytes: bytes::Bytes) -> Answer {
        let writer = self.writer.take().unwrap_or_else(|| ContentWriter::new(Arc::clone(&self.host.spool)));
        match append(writer, bytes).await {
            Ok(writer) => {
                self.writer = Some(writer);
                Answer::Stored
            }
            Err(error) => Answer::NotStored(error.to_string()),
        }
    }

    async fn take_descriptor(&mut self, skip: u64, limit: u64) -> Answer {
        self.writer = None;
        let Some(descriptor) = self.terms.descriptors.as_ref().and_then(Descriptors::take) else {
            return Answer::NotTaken(None);
        };
        let incoming = match Incoming::new(descriptor, skip, limit) {
            Ok(incoming) => incoming,
            Err(unfit) => return Answer::NotTaken(Some(unfit)),
        };
        let mut writer = ContentWriter::new(Arc::clone(&self.host.spool));
        let incoming_is_near = incoming.is_in_memory() && incoming.len() <= NEAR;
        let copy = move || incoming.copy(&mut writer).map(|()| writer);
        // To another thread and back takes longer than to copy a small mail out of memory.
        let copied = if incoming_is_near {
            copy()
        } else {
            tokio::task::spawn_blocking(copy).await.unwrap_or_else(|crash| Err(io::Error::other(crash).into()))
        };
        match copied {
            Ok(writer) => {
                self.writer = Some(writer);
                Answer::Stored
            }
            Err(unfit) => Answer::NotTaken(Some(unfit)),
        }
    }

    async fn enclose(&mut self, pieces: Vec<Piece>) -> Answer {
        let Some(descriptors) = &self.terms.descriptors else {
            return Answer::NotStored("descriptors do not go over this connection".into());
        };
        let writer = ContentWriter::new(Arc::clone(&self.host.spool));
        let written = tokio::task::spawn_blocking(move || write_pieces(writer, &pieces)?.descriptor()).await;
        match written.map_err(io::Error::other).flatten() {
            Ok(descriptor) => {
                descriptors.send(descriptor);
                Answer::Stored
            }
            Err(error) => Answer::NotStored(error.to_string()),
        }
    }

    async fn judge(&mut self, submission: Submission) -> Answer {
        let Submission { id, envelope, origin, tail, abilities, within, heartbeat } = submission;
        let writer = self.writer.take();
        let abilities = abilities.unwrap_or(self.terms.abilities);
        let host = self.host;
        let judge_within = within.map_or(self.terms.judge_within, |within| within.min(self.terms.judge_within));
        let deadline = Instant::now() + judge_within;
        let work = async move {
            let content = match writer {
                None => Content::from(tail),
                Some(writer) if tail.is_empty() => writer.finish(),
                Some(writer) => match append(writer, tail).await {
                    Ok(writer) => writer.finish(),
                    Err(error) => return Answer::NotStored(error.to_string()),
                },
            };
            let mail = Mail { id, envelope, origin, content };
            Answer::Judged(Box::new(host.judge(mail, &abilities, deadline).await))
        };
        match heartbeat {
            None => work.await,
            Some(heartbeat) => self.with_heartbeat(heartbeat, work).await,
        }
    }

    /// Most mails are judged long before the first beat, and then no timer is made.
    async fn with_heartbeat(&mut self, heartbeat: Heartbeat, work: impl Future<Output = Answer>) -> Answer {
        let mut work = std::pin::pin!(work);
        loop {
            if let Ok(answer) = tokio::time::timeout(heartbeat.every, &mut work).await {
                return answer;
            }
            let Some(client) = &mut self.client else { return Answer::Closed(Side::Client) };
            let beat = async {
                client.write_all(heartbeat.octets).await?;
                client.flush().await
            };
            if !tokio::time::timeout(self.terms.write_stall, beat).await.is_ok_and(|written| written.is_ok()) {
                self.client = None;
                return Answer::Closed(Side::Client);
            }
        }
    }

    async fn send(&mut self, outgoing: &Outgoing) -> io::Result<()> {
        let Some(stream) = self.stream(outgoing.to) else { return Err(io::ErrorKind::NotConnected.into()) };
        let mut stuffer = outgoing.dots.then(Stuffer::new);
        let mut gather = Gather { stream, stall: outgoing.stall, slices: Vec::with_capacity(8) };
        if !outgoing.head.is_empty() {
            gather.add(&outgoing.head).await?;
        }
        let mut block = Vec::new();
        for piece in &outgoing.pieces {
            match piece {
                Piece::Bytes(bytes) => gather.add_stuffed(bytes, &mut stuffer).await?,
                Piece::Range(content, offset, length) => {
                    if let Some(slice) = content.as_slice() {
                        let range = range_of(slice, *offset, *length)?;
                        gather.add_stuffed(range, &mut stuffer).await?;
                        continue;
                    }
                    // From the disk block by block: what is gathered goes out before the block is read over.
                    let mut position = *offset;
                    let end = offset + length;
                    while position < end {
                        gather.flush().await?;
                        let want = BLOCK.min(usize::try_from(end - position).unwrap_or(BLOCK));
                        block = read_block(content.clone(), position, want, block).await?;
                        position += block.len() as u64;
                        let mut now = Gather { stream: gather.stream, stall: gather.stall, slices: Vec::new() };
                        now.add_stuffed(&block, &mut stuffer).await?;
                        now.flush().await?;
                        gather = Gather { stream: now.stream, stall: outgoing.stall, slices: Vec::new() };
                    }
                }
            }
        }
        let end = stuffer.as_ref().map_or(&b""[..], Stuffer::finish);
        if !end.is_empty() {
            gather.add(end).await?;
        }
        gather.flush().await?;
        gather.stream.flush().await
    }
}

/// How much of a spooled content is read at once.
const BLOCK: usize = 256 << 10;
/// A file in memory of at most so many octets is read on the session's own thread.
const NEAR: u64 = 64 << 10;
/// How many slices go into one gathering write; the kernel takes 1024.
const SLICES: usize = 64;

/// Collects slices into few gathering writes: a write for each would be a packet for each.
struct Gather<'a, 's> {
    stream: &'s mut BoxStream,
    stall: std::time::Duration,
    slices: Vec<&'a [u8]>,
}

impl<'a> Gather<'a, '_> {
    async fn add(&mut self, slice: &'a [u8]) -> io::Result<()> {
        self.slices.push(slice);
        if self.slices.len() == SLICES { self.flush().await } else { Ok(()) }
    }

    async fn add_stuffed(&mut self, bytes: &'a [u8], stuffer: &mut Option<Stuffer>) -> io::Result<()> {
        match stuffer {
            Some(stuffer) => {
                for slice in stuffer.stuff(bytes) {
                    self.add(slice).await?;
                }
                Ok(())
            }
            None => self.add(bytes).await,
        }
    }

    /// Writes out what is gathered. The peer must take something in each `stall`.
    async fn flush(&mut self) -> io::Result<()> {
        let mut vectors: Vec<IoSlice<'_>> = self.slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut left = &mut vectors[..];
        while !left.is_empty() {
            let written = tokio::time::timeout(self.stall, self.stream.write_vectored(left)).await??;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut left, written);
        }
        self.slices.clear();
        Ok(())
    }
}

fn range_of(slice: &[u8], offset: u64, length: u64) -> io::Result<&[u8]> {
    let start = usize::try_from(offset).ok();
    let length = usize::try_from(length).ok();
    start
        .zip(length)
        .and_then(|(start, length)| slice.get(start..start.checked_add(length)?))
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn write_pieces(mut writer: ContentWriter, pieces: &[Piece]) -> io::Result<Content> {
    let mut block = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => writer.append(bytes)?,
            Piece::Range(content, offset, length) => {
                let end = offset + length;
                let mut position = *offset;
                while position < end {
                    block.resize(BLOCK.min(usize::try_from(end - position).unwrap_or(BLOCK)), 0);
                    if content.read_full_at(&mut block, position)? < block.len() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    writer.append(&block)?;
                    position += block.len() as u64;
                }
            }
        }
    }
    Ok(writer.finish())
}

/// Disks may be slow: reading happens on a thread that may wait. The buffer is used again.
async fn read_block(content: Content, offset: u64, want: usize, mut buffer: Vec<u8>) -> io::Result<Vec<u8>> {
    let read = tokio::task::spawn_blocking(move || {
        buffer.resize(want, 0);
        let count = content.read_full_at(&mut buffer, offset)?;
        if count == want { Ok(buffer) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    });
    read.await.map_err(io::Error::other)?
}

/// Disks may be slow: writing happens on a thread that may wait.
async fn append(mut writer: ContentWriter, bytes: bytes::Bytes) -> io::Result<ContentWriter> {
    let appended = tokio::task::spawn_blocking(move || writer.append(&bytes).map(|()| writer)).await;
    appended.map_err(io::Error::other).flatten()
}

async fn write_out(stream: &mut BoxStream, output: &mut BytesMut) -> io::Result<()> {
    while output.has_remaining() {
        if stream.write_buf(output).await? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    stream.flush().await
}
