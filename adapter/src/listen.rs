//! Listening sockets: bound once, kept over a reload, with a real backlog.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket, UnixListener};

use crate::address::SocketAddress;
use crate::descriptors::Passing;
use crate::stream::{BoxStream, Connection, Process, QuickAck};
use crate::way::Listen;

/// What the kernel may queue for us: under a burst of connections a short queue drops SYNs, and the
/// client waits a second.
const BACKLOG: u32 = 1024;

/// A bound socket.
pub struct Listener {
    kind: Bound,
    listen: Listen,
}

enum Bound {
    Tcp(Vec<TcpListener>),
    Unix(UnixListener),
}

impl Listener {
    /// Binds. A Unix socket left over by a process that is gone is replaced; one that still answers
    /// is an error.
    pub async fn bind(listen: &Listen) -> io::Result<Self> {
        let kind = match &listen.address {
            SocketAddress::Tcp(host, port) => Bound::Tcp(bind_tcp(host, *port).await?),
            SocketAddress::Unix(path) => {
                match std::fs::symlink_metadata(path) {
                    Ok(found) if found.file_type().is_socket() => {
                        if std::os::unix::net::UnixStream::connect(path).is_ok() {
                            return Err(io::ErrorKind::AddrInUse.into());
                        }
                        std::fs::remove_file(path)?;
                    }
                    Ok(_) => {
                        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is there"));
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
                let listener = UnixListener::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(listen.mode))?;
                Bound::Unix(listener)
            }
        };
        Ok(Self { kind, listen: listen.clone() })
    }

    /// What it listens at.
    pub fn listen(&self) -> &Listen {
        &self.listen
    }

    /// The first TCP address it is bound to: with port 0 in the configuration, the one chosen.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.kind {
            Bound::Tcp(listeners) => listeners.first()?.local_addr().ok(),
            Bound::Unix(_) => None,
        }
    }

    /// The next connection. Errors (out of descriptors, for example) are the caller's to wait out.
    pub async fn accept(&self) -> io::Result<Connection> {
        match &self.kind {
            Bound::Tcp(listeners) => {
                let (stream, peer) = accept_any(listeners).await?;
                stream.set_nodelay(true)?;
                let plain = |address: SocketAddr| (address.ip().to_canonical(), address.port());
                let local = stream.local_addr().ok().map(plain);
                let stream: BoxStream =
                    if self.listen.quick_ack { Box::new(QuickAck(stream)) } else { Box::new(stream) };
                Ok(Connection { stream, peer: Some(plain(peer)), local, process: None, descriptors: None })
            }
            Bound::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let process = stream.peer_cred().ok().map(|peer| Process { user: peer.uid(), id: peer.pid() });
                let (stream, descriptors): (BoxStream, _) = if self.listen.descriptors {
                    let (passing, descriptors) = Passing::new(stream);
                    (Box::new(passing), Some(descriptors))
                } else {
                    (Box::new(stream), None)
                };
                Ok(Connection { stream, peer: None, local: None, process, descriptors })
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let SocketAddress::Unix(path) = &self.listen.address {
            // Left over, it would be replaced at the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn bind_tcp(host: &Arc<str>, port: u16) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in tokio::net::lookup_host((&**host, port)).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        listeners.push(socket.listen(BACKLOG)?);
    }
    if listeners.is_empty() { Err(io::ErrorKind::AddrNotAvailable.into()) } else { Ok(listeners) }
}

async fn accept_any(listeners: &[TcpListener]) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
    match listeners {
        [only] => only.accept().await,
        several => {
            let accepts = several.iter().map(|listener| Box::pin(listener.accept()));
            futures_util::future::select_all(accepts).await.0
        }
    }
}
