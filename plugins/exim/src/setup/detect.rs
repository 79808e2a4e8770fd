//! What there is of Exim on a machine.

use checkpost_setup::{Found, Look, LookError};

use super::debian::Debian;
use super::local_scan::LIBRARY;
use super::{BY_HAND, UPDATE};

const PID: &str = "/run/exim4/exim.pid";
/// Where filters are set.
const FILTERS: [&str; 3] = ["local_scan_path", "av_scanner", "spamd_address"];

/// Nothing if there is no Exim of Debian's.
pub(super) fn found(look: &dyn Look) -> Result<Vec<Found>, LookError> {
    if !look.exists(UPDATE)? && !look.exists(BY_HAND)? {
        return Ok(Vec::new());
    }
    let mut found = Found::new("exim");
    let said = look.run(&["exim4", "-bV"])?.map(|said| said.out).unwrap_or_default();
    found.version = said.lines().next().and_then(|line| line.split_ascii_whitespace().nth(2)).map(str::to_owned);
    let pid = look.text(PID)?.map(|text| text.trim().to_owned());
    found.running = Some(match pid {
        Some(pid) => look.exists(&format!("/proc/{pid}"))?,
        None => false,
    });
    found.knows("content scanning", if said.contains("Content_Scanning") { "yes" } else { "no" });
    match Debian::read(look) {
        // A plan says more of it.
        Err(error) => found.doubts.push(error.to_string()),
        Ok(None) => {
            found.knows("layout", "by hand");
            found.doubts.push(format!("{BY_HAND} is there, so Debian's own files are not read"));
        }
        Ok(Some(debian)) => {
            found.knows("layout", if debian.split { "split" } else { "one file" });
            let addresses = debian.dc("dc_local_interfaces").unwrap_or_default();
            found.knows("addresses", addresses);
            found.knows("address", address(addresses));
            let set = FILTERS.iter().flat_map(|name| debian.settings(name));
            found.filters = set.map(|set| set.line.text.clone()).filter(|line| !is_ours(line)).collect();
        }
    }
    let mailname = look.text("/etc/mailname")?.unwrap_or_default().trim().to_owned();
    found.domain = Some(mailname).filter(|name| !name.is_empty());
    Ok(vec![found])
}

/// Entered by hand, as the recipes have it.
fn is_ours(line: &str) -> bool {
    let ours = ["127.0.0.1 13310", "127.0.0.1 13311", "127.0.0.1 13312", LIBRARY];
    ours.iter().any(|ours| line.contains(ours))
}

/// Where this host's own mail gets in, of Debian's list of addresses.
fn address(addresses: &str) -> String {
    let mut items = addresses.split(';').map(str::trim).filter(|item| !item.is_empty());
    // With a port of its own it may be another service.
    let is_plain = |item: &&str| item.split('.').count() == 4 && item.parse::<std::net::Ipv4Addr>().is_ok();
    let all: Vec<&str> = items.by_ref().filter(is_plain).collect();
    let local = all.is_empty() || all.contains(&"127.0.0.1") || all.contains(&"0.0.0.0");
    format!("{}:25", if local { "127.0.0.1" } else { all[0] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_to_try_it_gets_in_where_exim_listens() {
        for (addresses, expected) in [
            ("", "127.0.0.1:25"),
            ("127.0.0.1 ; ::1", "127.0.0.1:25"),
            ("192.0.2.1 ; 192.0.2.2", "192.0.2.1:25"),
            ("0.0.0.0 ; ::0 ; 127.0.0.1.10026", "127.0.0.1:25"),
            ("192.0.2.1 ; 127.0.0.1.10026", "192.0.2.1:25"),
        ] {
            assert_eq!(address(addresses), expected, "{addresses}");
        }
    }

    #[test]
    fn a_filter_of_others_is_told_of() {
        assert!(is_ours("local_scan_path = /usr/lib/exim4/local_scan/checkpost.so"));
        assert!(!is_ours("av_scanner = clamd:/run/clamav/clamd.ctl"));
    }
}
