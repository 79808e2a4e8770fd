//! Who sent a mail, as far as the environment of its caller says: the variables of tcpserver, as qmail-smtpd itself
//! reads them (tcp-environ(5)).
//!
//! The process's own environment is not touched here; it comes in as a function.

use std::net::IpAddr;

use checkpost_wire::check::{Class, Request};

/// Puts into the request what the caller's environment says.
///
/// `RELAYCLIENT`, even empty, is how qmail marks a client that it trusts. `TCPREMOTEINFO` is the user's name after an
/// authentication, but also what any host says of its users (RFC 1413), so it counts for trusted ones only.
pub fn describe(request: &mut Request, variable: impl Fn(&str) -> Option<Vec<u8>>) {
    let text = |name: &str| {
        let value = String::from_utf8_lossy(&variable(name)?).into_owned();
        (!value.is_empty() && value != "unknown").then_some(value)
    };
    let trusted = variable("RELAYCLIENT").is_some();
    let address = text("TCPREMOTEIP").or_else(|| text("TCP6REMOTEIP"));
    request.client = address.as_deref().and_then(address_of);
    request.client_name = text("TCPREMOTEHOST").or_else(|| text("TCP6REMOTEHOST"));
    request.user = text("TCPREMOTEINFO").filter(|_| trusted);
    request.class = match (address, trusted) {
        (Some(_), true) => Some(Class::Submission),
        // The daemon knows our own networks.
        (Some(_), false) => None,
        // A program on this machine: sendmail, a forward.
        (None, _) => Some(Class::Submission),
    };
}

fn address_of(text: &str) -> Option<IpAddr> {
    let without_scope = text.split_once('%').map_or(text, |(address, _)| address);
    without_scope.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(variables: &[(&str, &str)]) -> (Option<Class>, Option<String>, Option<String>, Option<String>) {
        let mut request = Request::default();
        describe(&mut request, |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_bytes().to_vec())
        });
        (request.class, request.client.map(|client| client.to_string()), request.client_name, request.user)
    }

    #[test]
    fn clients_are_told_by_tcpservers_variables() {
        let some = |text: &str| Some(text.to_owned());
        let submission = Some(Class::Submission);
        for (variables, expected) in [
            (&[][..], (submission, None, None, None)),
            (
                &[("TCPREMOTEIP", "192.0.2.7"), ("TCPREMOTEHOST", "a.example")],
                (None, some("192.0.2.7"), some("a.example"), None),
            ),
            (&[("TCPREMOTEIP", "192.0.2.7"), ("TCPREMOTEHOST", "unknown")], (None, some("192.0.2.7"), None, None)),
            (&[("TCPREMOTEIP", "192.0.2.7"), ("TCPREMOTEINFO", "root")], (None, some("192.0.2.7"), None, None)),
            (
                &[("TCPREMOTEIP", "192.0.2.7"), ("RELAYCLIENT", ""), ("TCPREMOTEINFO", "anna")],
                (submission, some("192.0.2.7"), None, some("anna")),
            ),
            (&[("TCPREMOTEIP", "::ffff:192.0.2.7")], (None, some("192.0.2.7"), None, None)),
            (&[("TCP6REMOTEIP", "2001:db8::7%eth0")], (None, some("2001:db8::7"), None, None)),
            (&[("TCPREMOTEIP", "nonsense")], (None, None, None, None)),
        ] {
            assert_eq!(check(variables), expected, "{variables:?}");
        }
    }
}
