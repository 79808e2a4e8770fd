//! Which next hop a mail goes to: by recipient domain, client network, or the way itself.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use checkpost_adapter::{SocketAddress, session::Target};
use ipnet::IpNet;
use serde::Deserialize;

/// SMTP or its sister for final delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 5321: one reply for all recipients.
    #[default]
    Smtp,
    /// RFC 2033: one reply for each recipient.
    Lmtp,
}

/// TLS to a next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HopTls {
    /// None.
    #[default]
    Off,
    /// STARTTLS where it is offered, any certificate.
    Opportunistic,
    /// STARTTLS, or no mail.
    Starttls,
    /// From the first byte.
    Implicit,
}

/// One next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Where.
    pub place: Place,
    /// What it speaks.
    pub protocol: Protocol,
    /// TLS.
    pub tls: HopTls,
    /// Is its certificate verified?
    pub verify: bool,
    /// Until it must be connected.
    pub connect_timeout: Duration,
}

/// Where a next hop is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At this address.
    Fixed(SocketAddress),
    /// On the host that the mail came from, at this port.
    Callback(u16),
}

impl Hop {
    /// Reads an address or `callback:PORT`.
    pub fn parse(
        text: &str,
        protocol: Protocol,
        tls: HopTls,
        verify: bool,
        connect_timeout: Duration,
    ) -> Result<Self, String> {
        let place = match text.strip_prefix("callback:") {
            Some(port) => match port.parse() {
                Ok(port) if port != 0 => Place::Callback(port),
                _ => return Err(format!("{text:?} has no port number; accepted: \"callback:10026\"")),
            },
            None => {
                Place::Fixed(text.parse().map_err(|error: checkpost_adapter::address::AddressError| error.to_string())?)
            }
        };
        Ok(Self { place, protocol, tls, verify, connect_timeout })
    }

    /// The target to connect to for a client at this address; `None` for a callback to a client
    /// without an address.
    pub fn target(&self, client: Option<IpAddr>, reuse: bool) -> Option<Target> {
        let address = match &self.place {
            Place::Fixed(address) => address.clone(),
            Place::Callback(port) => SocketAddress::Tcp(client?.to_string().into(), *port),
        };
        Some(Target {
            address,
            implicit_tls: self.tls == HopTls::Implicit,
            tls_name: None,
            tls_verify: self.verify && self.tls != HopTls::Opportunistic,
            reuse,
            farewell: b"QUIT\r\n",
            timeout: self.connect_timeout,
        })
    }
}

/// Next hops for the mails that fit: tried in order until one can be connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Lower case; `.example.org` for all below. Empty: any.
    pub domains: Vec<String>,
    /// Empty: any.
    pub clients: Vec<IpNet>,
    /// At least one.
    pub hops: Vec<Hop>,
}

/// All routes of a way; the last fits everything.
#[derive(Debug, Clone)]
pub struct Router(Arc<[Route]>);

/// A route's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteIndex(usize);

impl Router {
    /// The last route must have no conditions.
    pub fn new(routes: Vec<Route>) -> Self {
        debug_assert!(routes.last().is_some_and(|route| route.domains.is_empty() && route.clients.is_empty()));
        Self(routes.into())
    }

    /// The first route that fits a recipient's domain and a client.
    pub fn choose(&self, domain: &str, client: Option<IpAddr>) -> RouteIndex {
        let fits = |route: &Route| {
            (route.domains.is_empty() || route.domains.iter().any(|wanted| domain_fits(wanted, domain)))
                && (route.clients.is_empty()
                    || client.is_some_and(|client| route.clients.iter().any(|network| network.contains(&client))))
        };
        RouteIndex(self.0.iter().position(fits).unwrap_or(self.0.len() - 1))
    }

    /// The route for mails that no recipient is known of yet.
    pub fn default_for(&self, client: Option<IpAddr>) -> RouteIndex {
        self.choose("", client)
    }

    /// Its hops.
    pub fn hops(&self, index: RouteIndex) -> &[Hop] {
        &self.0[index.0].hops
    }

    /// Is every next hop an LMTP one, or every one an SMTP one?
    pub fn all_hops(&self) -> impl Iterator<Item = &Hop> {
        self.0.iter().flat_map(|route| &route.hops)
    }
}

fn domain_fits(wanted: &str, domain: &str) -> bool {
    let ends_with = |suffix: &str| {
        domain.len() > suffix.len()
            && domain.is_char_boundary(domain.len() - suffix.len())
            && domain[domain.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
    };
    if wanted.starts_with('.') { ends_with(wanted) } else { domain.eq_ignore_ascii_case(wanted) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(domains: &[&str], clients: &[&str], hop: &str) -> Route {
        let hop = Hop::parse(hop, Protocol::Smtp, HopTls::Off, true, Duration::from_secs(1)).unwrap();
        Route {
            domains: domains.iter().map(ToString::to_string).collect(),
            clients: clients.iter().map(|network| network.parse().unwrap()).collect(),
            hops: vec![hop],
        }
    }

    #[test]
    fn the_first_route_that_fits_is_taken() {
        let router = Router::new(vec![
            route(&["example.org", ".example.net"], &[], "a:1"),
            route(&[], &["10.0.0.0/8"], "b:1"),
            route(&[], &[], "callback:10026"),
        ]);
        let check = |domain: &str, client: Option<&str>, wanted: usize| {
            let client = client.map(|client| client.parse().unwrap());
            assert_eq!(router.choose(domain, client), RouteIndex(wanted), "{domain}");
        };
        check("Example.ORG", None, 0);
        check("sub.example.net", None, 0);
        check("example.net", None, 2);
        check("x.org", Some("10.1.1.1"), 1);
        check("x.org", Some("192.0.2.1"), 2);
        let hop = &router.hops(RouteIndex(2))[0];
        let target = hop.target(Some("192.0.2.1".parse().unwrap()), true).unwrap();
        assert_eq!(target.address.to_string(), "192.0.2.1:10026");
        assert_eq!(hop.target(None, true), None);
    }
}
