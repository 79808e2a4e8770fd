//! One type for TCP, Unix and TLS streams.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::address::SocketAddress;
use crate::descriptors::Descriptors;

/// Any byte stream of ours.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A stream whose kind does not matter any more.
pub type BoxStream = Box<dyn Stream>;

/// A client's connection, just accepted.
pub struct Connection {
    /// The bytes.
    pub stream: BoxStream,
    /// The client's address; `None` over a Unix socket.
    pub peer: Option<(IpAddr, u16)>,
    /// Our own address, as the client reached it; `None` over a Unix socket.
    pub local: Option<(IpAddr, u16)>,
    /// Who it is, over a Unix socket.
    pub process: Option<Process>,
    /// Descriptors that come and go with the bytes, where [`crate::way::Listen::descriptors`] says so.
    pub descriptors: Option<Descriptors>,
}

/// The process at the other end of a Unix socket, when it connected (unix(7), SO_PEERCRED).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its effective user.
    pub user: u32,
    /// Its number, if the system tells.
    pub id: Option<i32>,
}

/// A stream whose peer hears at once that its bytes are here. Linux falls back to delaying
/// acknowledgements by itself, so it is said again before each read (tcp(7), TCP_QUICKACK).
pub(crate) struct QuickAck(pub(crate) TcpStream);

impl AsyncRead for QuickAck {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // A comfort: without it the peer only waits longer.
        let _ = rustix::net::sockopt::set_tcp_quickack(&self.0, true);
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for QuickAck {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// Connects, without TLS. Name look-up is the system's; all its addresses are tried.
pub async fn connect(address: &SocketAddress) -> io::Result<BoxStream> {
    match address {
        SocketAddress::Tcp(host, port) => {
            let stream = TcpStream::connect((&**host, *port)).await?;
            // One write per command or group is ours to see to: Nagle would hold it back until the
            // peer's delayed acknowledgement, 40 ms and more.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
        SocketAddress::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
    }
}
