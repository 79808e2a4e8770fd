//! The reference: a relay that copies bytes between two connections and understands nothing.
//! Not a proxy for mail: it shows what any process between two others costs on this machine.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};

use super::process::{Server, free_port};

/// Starts this program again as the relay, so that its CPU time and memory can be told from the load generator's.
pub(super) fn start(next_hop: SocketAddr) -> anyhow::Result<Server> {
    let address = free_port()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "--relay", &address.to_string(), &next_hop.to_string()]);
    let mut relay = Server::start("the reference relay", command, address)?;
    relay.greeting(Instant::now())?;
    Ok(relay)
}

/// Relays from `listen` to `next_hop` until the process is ended.
///
/// # Errors
/// When it cannot listen.
pub(super) fn run(listen: SocketAddr, next_hop: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await.with_context(|| listen.to_string())?;
        loop {
            // A client gone before it was accepted is not the relay's matter.
            if let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, next_hop));
            }
        }
    })
}

async fn relay(mut client: TcpStream, next_hop: SocketAddr) -> std::io::Result<()> {
    let mut server = TcpStream::connect(next_hop).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
