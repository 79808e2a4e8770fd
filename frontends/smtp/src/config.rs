//! The proxy's own section of the configuration: one `[[way]]` of an SMTP kind.
//!
//! What was written ([`Written`]) is turned into what it means ([`Settings`]); ranges are checked
//! there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use checkpost_adapter::SocketAddress;
use checkpost_adapter::way::SettingsError;
use checkpost_core::config::{OneOrMany, Size, Time};
use checkpost_core::mail::OriginClass;
use ipnet::IpNet;
use serde::Deserialize;

use crate::route::{Hop, HopTls, Protocol, Route, Router};

/// One `[[way]]` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The kind of way; read by the daemon before this struct is.
    pub kind: String,
    /// Its name in logs and rules. Default: the kind.
    pub name: Option<String>,
    /// Where to listen: one address or several.
    pub listen: OneOrMany<SocketAddress>,
    /// Permission bits of a Unix socket, octal, as text. Default "0660".
    pub socket_mode: Option<String>,
    /// `smtp` or `lmtp`, spoken to clients. Default smtp.
    #[serde(default)]
    pub protocol: Protocol,
    /// The next hop: address, `callback:PORT` (the host the mail came from, on that port), or several
    /// to be tried in order.
    pub next_hop: OneOrMany<String>,
    /// `smtp` or `lmtp`, spoken to the next hop. Default: as to clients.
    pub hop_protocol: Option<Protocol>,
    /// TLS to the next hop: `off`, `opportunistic`, `starttls` (needed), `implicit`. Default off.
    #[serde(default)]
    pub hop_tls: HopTls,
    /// Refuse a next hop whose certificate cannot be verified. Default true for `starttls` and
    /// `implicit`; opportunistic TLS never verifies.
    pub hop_tls_verify: Option<bool>,
    /// Other next hops for some recipients or clients; the first that fits is taken.
    #[serde(default)]
    pub route: Vec<WrittenRoute>,
    /// Direction of mail by this way, when networks and authentication do not tell. Default inbound.
    pub origin: Option<OriginClass>,
    /// What we call ourselves in the greeting and towards next hops. Default: `checkpost.` and the
    /// host's name; it must not be the MTA's own name, which takes that for a loop.
    pub hostname: Option<String>,
    /// Certificate chain (PEM) for TLS with clients; with `tls_key`.
    pub tls_certificate: Option<PathBuf>,
    /// Private key (PEM).
    pub tls_key: Option<PathBuf>,
    /// TLS from the first byte (port 465). Default false.
    #[serde(default)]
    pub implicit_tls: bool,
    /// Relay AUTH to the next hop. Default false.
    #[serde(default)]
    pub auth: bool,
    /// Offer AUTH without TLS. Default false.
    #[serde(default)]
    pub auth_without_tls: bool,
    /// Peers that may send XCLIENT and XFORWARD and a PROXY header. Peers on a Unix socket always may.
    #[serde(default)]
    pub trusted: Vec<IpNet>,
    /// Expect a PROXY protocol header (v1 or v2) from trusted peers. Default false.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Tell the next hop about the client by XCLIENT, where it offers it. Default false.
    #[serde(default)]
    pub xclient: bool,
    /// Tell the next hop about the client by XFORWARD, where it offers it. Default true.
    pub xforward: Option<bool>,
    /// Networks whose bare LF and CR are made CRLF instead of refused.
    #[serde(default)]
    pub normalize_newlines: Vec<IpNet>,
    /// Add a Received field. Default true; false for the ways around a Postfix, which adds its own.
    pub received: Option<bool>,
    /// Mails with more Received fields are loops. Default 50.
    pub max_hops: Option<u32>,
    /// Sessions at once. Default 500.
    pub max_sessions: Option<usize>,
    /// Sessions at once per client address, trusted peers excepted. Default 50.
    pub max_sessions_per_client: Option<usize>,
    /// Largest mail. Default 100 MiB.
    pub max_size: Option<Size>,
    /// Recipients of one mail. Default 1000; RFC 5321 section 4.5.3.1.8 asks for 100 at least.
    pub max_recipients: Option<usize>,
    /// Mistakes until a session is closed. Default 20.
    pub max_errors: Option<u32>,
    /// A client may say nothing for so long between commands. Default 5 min (RFC 5321 4.5.3.2.7).
    pub command_timeout: Option<Time>,
    /// A client may send nothing for so long within a content. Default 3 min (RFC 5321 4.5.3.2.5).
    pub data_timeout: Option<Time>,
    /// Least octets per second within a content, looked at after a minute. Default 100 B.
    pub min_rate: Option<Size>,
    /// Until the next hop must be connected. Default 10 s.
    pub hop_connect_timeout: Option<Time>,
    /// The next hop's time to answer a command. Default 2 min.
    pub hop_timeout: Option<Time>,
    /// The next hop's time to answer the end of a content. Default 10 min (RFC 5321 4.5.3.2.6).
    pub hop_final_timeout: Option<Time>,
    /// A mail must be judged so long after its last byte. Default 90 s.
    pub check_timeout: Option<Time>,
}

/// One entry of `route`: a next hop for some mails.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenRoute {
    /// For recipients in these domains; `.example.org` means all below it.
    #[serde(default)]
    pub domains: Vec<String>,
    /// For clients in these networks.
    #[serde(default)]
    pub clients: Vec<IpNet>,
    /// As in the way itself.
    pub next_hop: OneOrMany<String>,
    /// As in the way itself; default: the way's.
    pub hop_protocol: Option<Protocol>,
    /// As in the way itself; default: the way's.
    pub hop_tls: Option<HopTls>,
    /// As in the way itself.
    pub hop_tls_verify: Option<bool>,
}

/// What a session has to know, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The way's name.
    pub name: Arc<str>,
    /// Spoken to clients.
    pub protocol: Protocol,
    /// Our own name.
    pub hostname: Arc<str>,
    /// Next hops.
    pub router: Router,
    /// Direction when nothing else tells.
    pub origin: OriginClass,
    /// Can STARTTLS be offered?
    pub starttls: bool,
    /// Is AUTH relayed?
    pub auth: bool,
    /// Also without TLS?
    pub auth_without_tls: bool,
    /// See [`Written::trusted`].
    pub trusted: Vec<IpNet>,
    /// See [`Written::proxy_protocol`].
    pub proxy_protocol: bool,
    /// See [`Written::xclient`].
    pub xclient: bool,
    /// See [`Written::xforward`].
    pub xforward: bool,
    /// See [`Written::normalize_newlines`].
    pub normalize_newlines: Vec<IpNet>,
    /// See [`Written::received`].
    pub received: bool,
    /// See [`Written::max_hops`].
    pub max_hops: u32,
    /// See [`Written::max_sessions`].
    pub max_sessions: usize,
    /// See [`Written::max_sessions_per_client`].
    pub max_sessions_per_client: usize,
    /// Octets.
    pub max_size: u64,
    /// See [`Written::max_recipients`].
    pub max_recipients: usize,
    /// See [`Written::max_errors`].
    pub max_errors: u32,
    /// See [`Written::command_timeout`].
    pub command_timeout: Duration,
    /// See [`Written::data_timeout`].
    pub data_timeout: Duration,
    /// Octets per second.
    pub min_rate: u64,
    /// See [`Written::hop_timeout`].
    pub hop_timeout: Duration,
    /// See [`Written::hop_final_timeout`].
    pub hop_final_timeout: Duration,
    /// See [`Written::check_timeout`].
    pub check_timeout: Duration,
    /// Contents above this go to the spool, octets.
    pub memory_limit: usize,
}

/// What differs between the kinds of way that share this proxy.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// [`Written::received`].
    pub received: bool,
    /// [`Written::check_timeout`].
    pub check_timeout: Duration,
    /// [`Written::hop_final_timeout`].
    pub hop_final_timeout: Duration,
    /// Are loopback peers trusted without being listed?
    pub trust_loopback: bool,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            received: true,
            check_timeout: Duration::from_secs(90),
            hop_final_timeout: Duration::from_secs(600),
            trust_loopback: false,
        }
    }
}

impl Settings {
    /// Checks what was written.
    pub fn new(written: &Written, defaults: &Defaults) -> Result<Self, SettingsError> {
        let wrong = |key, message: String| SettingsError { key, message };
        let time = |given: &Option<Time>, default: Duration| given.as_ref().map_or(default, |time| time.duration());
        let connect_timeout = time(&written.hop_connect_timeout, Duration::from_secs(10));
        let hop =
            |key, protocol: Option<Protocol>, tls: Option<HopTls>, verify: Option<bool>, list: &OneOrMany<String>| {
                let tls = tls.unwrap_or(written.hop_tls);
                let protocol = protocol.or(written.hop_protocol).unwrap_or(written.protocol);
                let verify = verify.or(written.hop_tls_verify).unwrap_or(true);
                let list = list.0.clone();
                if list.is_empty() {
                    return Err(wrong(key, "no next hop; accepted: an address or a list of addresses".into()));
                }
                list.iter()
                    .map(|text| {
                        Hop::parse(text, protocol, tls, verify, connect_timeout).map_err(|error| wrong(key, error))
                    })
                    .collect::<Result<Vec<_>, _>>()
            };
        let mut routes = Vec::new();
        for route in &written.route {
            if route.domains.is_empty() && route.clients.is_empty() {
                return Err(wrong("route", "neither domains nor clients: this would be for all mail".into()));
            }
            routes.push(Route {
                domains: route.domains.iter().map(|domain| domain.to_ascii_lowercase()).collect(),
                clients: route.clients.clone(),
                hops: hop("route.next_hop", route.hop_protocol, route.hop_tls, route.hop_tls_verify, &route.next_hop)?,
            });
        }
        routes.push(Route {
            domains: Vec::new(),
            clients: Vec::new(),
            hops: hop("next_hop", None, None, None, &written.next_hop)?,
        });
        if written.tls_certificate.is_some() != written.tls_key.is_some() {
            return Err(wrong("tls_certificate", "needs tls_key beside it, and the other way round".into()));
        }
        if written.implicit_tls && written.tls_certificate.is_none() {
            return Err(wrong("implicit_tls", "needs tls_certificate and tls_key".into()));
        }
        let max_recipients = written.max_recipients.unwrap_or(1000);
        if max_recipients == 0 {
            return Err(wrong("max_recipients", "accepted: 1 and more".into()));
        }
        let hostname = match &written.hostname {
            Some(name) if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b)) => {
                return Err(wrong("hostname", "accepted: a host name of letters, digits, dots and hyphens".into()));
            }
            Some(name) => name.as_str().into(),
            None => default_hostname(),
        };
        let mut trusted = written.trusted.clone();
        if defaults.trust_loopback {
            trusted.extend(["127.0.0.0/8", "::1/128"].iter().filter_map(|network| network.parse::<IpNet>().ok()));
        }
        Ok(Self {
            name: written.name.as_deref().unwrap_or(&written.kind).into(),
            protocol: written.protocol,
            hostname,
            router: Router::new(routes),
            origin: written.origin.unwrap_or(OriginClass::Inbound),
            starttls: written.tls_certificate.is_some() && !written.implicit_tls,
            auth: written.auth,
            auth_without_tls: written.auth_without_tls,
            trusted,
            proxy_protocol: written.proxy_protocol,
            xclient: written.xclient,
            xforward: written.xforward.unwrap_or(true),
            normalize_newlines: written.normalize_newlines.clone(),
            received: written.received.unwrap_or(defaults.received),
            max_hops: written.max_hops.unwrap_or(50),
            max_sessions: written.max_sessions.unwrap_or(500),
            max_sessions_per_client: written.max_sessions_per_client.unwrap_or(50),
            max_size: written.max_size.as_ref().map_or(100 << 20, |size| size.as_u64()),
            max_recipients,
            max_errors: written.max_errors.unwrap_or(20),
            command_timeout: time(&written.command_timeout, Duration::from_secs(300)),
            data_timeout: time(&written.data_timeout, Duration::from_secs(180)),
            min_rate: written.min_rate.as_ref().map_or(100, |size| size.as_u64()),
            hop_timeout: time(&written.hop_timeout, Duration::from_secs(120)),
            hop_final_timeout: time(&written.hop_final_timeout, defaults.hop_final_timeout),
            check_timeout: time(&written.check_timeout, defaults.check_timeout),
            memory_limit: checkpost_core::Spool::MEMORY_LIMIT,
        })
    }

    /// Is this address in one of the networks?
    pub fn in_networks(networks: &[IpNet], address: Option<std::net::IpAddr>) -> bool {
        address.is_some_and(|address| networks.iter().any(|network| network.contains(&address)))
    }
}

fn default_hostname() -> Arc<str> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    format!("checkpost.{}", if name.is_empty() { "localhost" } else { name }).into()
}
