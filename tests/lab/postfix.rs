//! The Postfix recipe's settings. The entries that put Checkpost around it are here as a test wants
//! them; what an administrator writes is in `plugins/postfix`.

use crate::{Queue, Recipe};

/// A Postfix for the domain `example.test` with users `alice` and `bob`, delivering to `~/Maildir`.
/// It listens on 127.0.0.1:25.
#[derive(Debug, Clone, Default)]
pub struct Postfix {
    main_cf: Vec<(String, String)>,
    master_cf: Vec<String>,
    aliases: String,
}

impl Postfix {
    /// Debian's settings, no filter.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a parameter of `main.cf`.
    #[must_use]
    pub fn main_cf(mut self, name: &str, value: &str) -> Self {
        self.main_cf.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a service to `master.cf`, or replaces the one of the same name and type. One line.
    #[must_use]
    pub fn master_cf(mut self, entry: &str) -> Self {
        self.master_cf.push(entry.to_owned());
        self
    }

    /// Adds a line to the aliases, as `staff: alice, bob`.
    #[must_use]
    pub fn alias(mut self, line: &str) -> Self {
        self.aliases.push_str(line);
        self.aliases.push('\n');
        self
    }

    /// Mail from outside goes through the filter at `filter` (as `127.0.0.1:10025`) while the client
    /// waits, and comes back on 127.0.0.1:10026.
    #[must_use]
    pub fn before_queue(self, filter: &str) -> Self {
        self.master_cf(&format!("smtp inet n - y - 20 smtpd -o smtpd_proxy_filter={filter}")).master_cf(&format!(
            "{BACK} -o smtpd_proxy_filter= -o receive_override_options=no_unknown_recipient_checks"
        ))
    }

    /// Queued mail goes through the filter at `filter` (as `[127.0.0.1]:10025`), by SMTP or, with
    /// `lmtp`, by LMTP, and comes back on 127.0.0.1:10026.
    #[must_use]
    pub fn after_queue(self, filter: &str, lmtp: bool) -> Self {
        let client = if lmtp { "lmtp" } else { "smtp" };
        let next_hop = if lmtp { format!("inet:{filter}") } else { filter.to_owned() };
        self.main_cf("content_filter", &format!("checkpost:{next_hop}"))
            .main_cf("receive_override_options", "no_address_mappings")
            .master_cf(&format!(
                "checkpost unix - - n - 10 {client} -o {client}_send_xforward_command=yes \
                 -o disable_mime_output_conversion=yes -o {client}_generic_maps="
            ))
            .master_cf(&format!(
                "{BACK} -o receive_override_options=no_unknown_recipient_checks,no_header_body_checks,no_milters"
            ))
    }

    /// Mail goes through the milter at `socket` (as [`Postfix::MILTER`] or `inet:127.0.0.1:12768`), that
    /// of clients and that of `/usr/sbin/sendmail`. `default_action` is what Postfix does without it.
    #[must_use]
    pub fn milter(self, socket: &str, default_action: &str) -> Self {
        self.main_cf("smtpd_milters", socket)
            .main_cf("non_smtpd_milters", socket)
            .main_cf("milter_default_action", default_action)
            .main_cf("milter_protocol", "6")
    }

    /// The socket that is `milter/milter.sock` in the root's shared folder. smtpd is chrooted in
    /// `/var/spool/postfix`, and paths count from there.
    pub const MILTER: &str = "unix:checkpost/milter.sock";
}

/// The listener that takes checked mail back.
const BACK: &str = "127.0.0.1:10026 inet n - n - 20 smtpd -o content_filter= \
     -o smtpd_authorized_xforward_hosts=127.0.0.0/8 -o mynetworks=127.0.0.0/8 \
     -o smtpd_client_restrictions= -o smtpd_helo_restrictions= -o smtpd_sender_restrictions= \
     -o smtpd_relay_restrictions= -o smtpd_recipient_restrictions=permit_mynetworks,reject \
     -o smtpd_data_restrictions= -o message_size_limit=0";

impl Recipe for Postfix {
    fn name(&self) -> &'static str {
        "postfix"
    }

    fn script(&self) -> &'static str {
        include_str!("recipes/postfix.sh")
    }

    fn setup(&self) -> Vec<(&'static str, String)> {
        let main_cf: String = self.main_cf.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        let master_cf: String = self.master_cf.iter().map(|entry| format!("{entry}\n")).collect();
        vec![("main.cf", main_cf), ("master.cf", master_cf), ("aliases", self.aliases.clone())]
    }

    fn queue(&self) -> Queue {
        Queue {
            waiting: &[
                "/var/spool/postfix/maildrop/",
                "/var/spool/postfix/incoming/",
                "/var/spool/postfix/active/",
                "/var/spool/postfix/deferred/",
            ],
            held: &["/var/spool/postfix/hold/"],
            ..Queue::default()
        }
    }
}
