//! Accepting connections: which sockets are open, and one loop for each. What is spoken on them is
//! the ways' business.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use checkpost_adapter::SocketAddress;
use checkpost_adapter::listen::Listener;
use checkpost_adapter::stream::Connection;
use checkpost_adapter::way::Listen;
use tokio::task::JoinHandle;

/// Out of descriptors or memory: accepting again at once would spin.
const PAUSE: Duration = Duration::from_millis(100);

/// The open sockets of the program. A socket whose address stays in the configuration is kept over a
/// reload, with the connections that wait in its queue.
#[derive(Default)]
pub(crate) struct Listeners {
    open: HashMap<SocketAddress, Open>,
}

struct Open {
    listener: Arc<Listener>,
    accepting: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A socket that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {address}: {cause}{advice}", advice = advice(cause))]
pub(crate) struct BindError {
    /// Where.
    pub(crate) address: SocketAddress,
    /// What the system said.
    pub(crate) cause: io::Error,
}

impl Listeners {
    /// Binds those of the wanted addresses that are not open yet, and changes nothing else. All
    /// failures, not only the first.
    pub(crate) async fn bind_missing(&self, wanted: &[Listen]) -> Result<Vec<Listener>, Vec<BindError>> {
        let mut bound = Vec::new();
        let mut failed = Vec::new();
        for listen in wanted.iter().filter(|listen| !self.open.contains_key(&listen.address)) {
            match Listener::bind(listen).await {
                Ok(listener) => bound.push(listener),
                Err(cause) => failed.push(BindError { address: listen.address.clone(), cause }),
            }
        }
        if failed.is_empty() { Ok(bound) } else { Err(failed) }
    }

    /// Closes what is no longer wanted and accepts on what was bound. `serve` is called for each
    /// connection with the address it came to, and must not block.
    pub(crate) fn switch<F>(&mut self, wanted: &[Listen], bound: Vec<Listener>, serve: &Arc<F>)
    where
        F: Fn(&SocketAddress, Connection) + Send + Sync + 'static,
    {
        self.open.retain(|address, _| {
            let kept = wanted.iter().any(|listen| listen.address == *address);
            if !kept {
                tracing::info!(%address, "listener closed");
            }
            kept
        });
        for listener in bound {
            let address = listener.listen().address.clone();
            match listener.local_address() {
                Some(local) => tracing::info!(%address, %local, "listening"),
                None => tracing::info!(%address, "listening"),
            }
            let listener = Arc::new(listener);
            let accepting = tokio::spawn(accept(Arc::clone(&listener), Arc::clone(serve)));
            self.open.insert(address, Open { listener, accepting });
        }
    }

    /// The addresses as configured, each with the one it is really bound to where that may differ.
    pub(crate) fn addresses(&self) -> Vec<(SocketAddress, Option<SocketAddr>)> {
        self.open.iter().map(|(address, open)| (address.clone(), open.listener.local_address())).collect()
    }

    /// Closes all.
    pub(crate) fn close(&mut self) {
        self.open.clear();
    }
}

async fn accept<F: Fn(&SocketAddress, Connection)>(listener: Arc<Listener>, serve: Arc<F>) {
    let address = &listener.listen().address;
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok(connection) => {
                failing = false;
                serve(address, connection);
            }
            // The client was gone before we had it.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                if !failing {
                    tracing::error!(%address, %error, "connections cannot be accepted; trying again every 100 ms");
                }
                failing = true;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => "; another program (or another checkpostd) listens there: ss -lntxp shows it",
        io::ErrorKind::PermissionDenied => {
            "; a port below 1024 needs CAP_NET_BIND_SERVICE, a Unix socket a directory that this user may write"
        }
        io::ErrorKind::NotFound => "; its directory does not exist",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(directory: &tempfile::TempDir, name: &str) -> Listen {
        Listen {
            address: SocketAddress::Unix(directory.path().join(name)),
            mode: 0o660,
            quick_ack: false,
            descriptors: false,
        }
    }

    #[tokio::test]
    async fn a_reload_keeps_opens_and_closes() {
        let directory = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| at(&directory, name));
        let serve = Arc::new(|_: &SocketAddress, _: Connection| {});
        let mut listeners = Listeners::default();
        for wanted in [vec![a.clone(), b.clone()], vec![b.clone(), c.clone()]] {
            let bound = listeners.bind_missing(&wanted).await.unwrap();
            listeners.switch(&wanted, bound, &serve);
            let mut open: Vec<_> = listeners.addresses().into_iter().map(|(address, _)| address.to_string()).collect();
            open.sort();
            assert_eq!(open, wanted.iter().map(|listen| listen.address.to_string()).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn all_failures_are_told_and_nothing_stays_bound() {
        let directory = tempfile::tempdir().unwrap();
        let wanted = [at(&directory, "fine"), at(&directory, "no/such"), at(&directory, "nor/this")];
        let listeners = Listeners::default();
        let Err(failed) = listeners.bind_missing(&wanted).await else { panic!("bound") };
        assert_eq!(failed.len(), 2);
        assert!(failed[0].to_string().ends_with("its directory does not exist"), "{}", failed[0]);
        assert!(!directory.path().join("fine").exists());
    }
}
