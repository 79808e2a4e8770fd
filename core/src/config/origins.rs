//! The section `[origin]`: who counts as outside, as a submitting user, as one of our own hosts.
//! It trusts what it is told of a client; who may tell is the way's matter.

use std::net::IpAddr;

use ipnet::IpNet;

use super::document::Document;
use super::problem::Problems;
use super::read::OneOrMany;
use crate::mail::{Address, OriginClass};

/// Sorts mail into inbound, submission and internal. By default no network is special, not even
/// loopback: behind a local MTA everything comes from there.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Origins {
    /// Our own hosts: what comes from there is internal. Default: none.
    pub internal_networks: OneOrMany<Network>,
    /// Our users' networks: what comes from there without authentication, but with a sender of a
    /// local domain (or any, when none is listed), is a submission. Default: none.
    pub submission_networks: OneOrMany<Network>,
    /// Our domains; `*.example.org` stands for all below it. Default: none listed.
    pub local_domains: OneOrMany<String>,
}

/// `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Network(IpNet);

impl Network {
    /// Is this address in it? An IPv4 address mapped into IPv6 counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Is all of the other in this one?
    pub fn covers(&self, other: &Self) -> bool {
        self.0.contains(&other.0)
    }
}

impl std::str::FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address.to_canonical()),
            Err(_) => text.parse::<IpNet>().map_err(|_| {
                format!("not a network: {text:?}; accepted: an address or a network, as in \"192.0.2.0/24\"")
            })?,
        };
        if network.addr() == network.network() {
            Ok(Self(network))
        } else {
            let trunc = network.trunc();
            Err(format!("{text:?} has bits set behind its prefix; did you mean \"{trunc}\"?"))
        }
    }
}

impl TryFrom<String> for Network {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Origins {
    /// Takes the section `[origin]`.
    pub fn take(document: &mut Document, problems: &mut Problems) -> Self {
        document.take_section_or_default("origin", problems)
    }

    /// The class of a mail. The first that holds: authenticated: submission; from an internal
    /// network: internal; from a submission network with a sender of ours or the null sender:
    /// submission; what the way says of itself; inbound.
    pub fn classify(
        &self,
        client: Option<IpAddr>,
        authenticated: bool,
        sender: &Address,
        way_default: Option<OriginClass>,
    ) -> OriginClass {
        let within = |networks: &OneOrMany<Network>| {
            client.is_some_and(|client| networks.0.iter().any(|network| network.contains(client)))
        };
        if authenticated {
            OriginClass::Submission
        } else if within(&self.internal_networks) {
            OriginClass::Internal
        } else if within(&self.submission_networks) && (sender.is_null() || self.is_local(sender)) {
            OriginClass::Submission
        } else {
            way_default.unwrap_or(OriginClass::Inbound)
        }
    }

    /// Is the address one of ours? Any is, when no domain is listed.
    fn is_local(&self, address: &Address) -> bool {
        let domains = &self.local_domains.0;
        domains.is_empty() || domains.iter().any(|domain| super::glob::matches(domain, address.domain()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_is_sorted_by_who_sent_it() {
        let mut problems = Problems::default();
        let text = "[origin]\ninternal_networks = '10.0.0.1'\nsubmission_networks = ['192.0.2.0/24', '2001:db8::/32']\n\
                    local_domains = ['example.org', '*.example.org']\n";
        let origins = Origins::take(&mut Document::parse("x", text, &mut problems), &mut problems);
        assert_eq!(problems.to_string(), "");
        for (client, authenticated, sender, default, class) in [
            ("203.0.113.1", false, "a@example.org", None, OriginClass::Inbound),
            ("203.0.113.1", true, "a@example.net", None, OriginClass::Submission),
            ("203.0.113.1", false, "a@example.org", Some(OriginClass::Internal), OriginClass::Internal),
            ("10.0.0.1", false, "a@example.org", None, OriginClass::Internal),
            ("10.0.0.2", false, "a@example.org", None, OriginClass::Inbound),
            ("192.0.2.9", false, "a@Example.ORG", None, OriginClass::Submission),
            ("::ffff:192.0.2.9", false, "a@x.example.org", None, OriginClass::Submission),
            ("2001:db8::1", false, "", None, OriginClass::Submission),
            ("192.0.2.9", false, "a@example.net", None, OriginClass::Inbound),
        ] {
            let seen = origins.classify(client.parse().ok(), authenticated, &sender.into(), default);
            assert_eq!(seen, class, "{client} {sender}");
        }
        let nothing = Origins::default().classify(None, false, &Address::null(), None);
        assert_eq!(nothing, OriginClass::Inbound);
    }

    #[test]
    fn a_network_with_bits_behind_its_prefix_is_refused() {
        assert_eq!("192.0.2.1".parse::<Network>().unwrap().to_string(), "192.0.2.1/32");
        assert!("192.0.2.1/24".parse::<Network>().unwrap_err().contains("did you mean \"192.0.2.0/24\"?"));
        assert!("example.org".parse::<Network>().is_err());
    }
}
