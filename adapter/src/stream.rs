//! One type for TCP, Unix and TLS streams.

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::address::SocketAddress;

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
