//! Spool files as smtpserver writes them and as the router reads them.

/// A mail as a client hands it in.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Empty: the null sender.
    pub sender: String,
    /// At least one.
    pub recipients: Vec<String>,
    /// With LF at its line ends.
    pub message: Vec<u8>,
}

impl Mail {
    /// From a stranger.
    pub fn new(sender: &str, recipients: &[&str], message: &[u8]) -> Self {
        let recipients = recipients.iter().map(|to| (*to).to_owned()).collect();
        Self { sender: sender.into(), recipients, message: message.to_vec() }
    }

    /// The octets of its spool file.
    pub fn spooled(&self) -> Vec<u8> {
        let mut text = String::from(
            "external\nrcvdfrom client.remote.test ([203.0.113.5]:37443 \"EHLO client.remote.test\" rhost-flags-OK-OK-OK-OK)\n\
             bodytype 8BITMIME\nwith ESMTP\n",
        );
        match &*self.sender {
            "" => text.push_str("channel error\n"),
            sender => text.push_str(&format!("from <{sender}>\n")),
        }
        for to in &self.recipients {
            text.push_str(&format!(
                "todsn ORCPT=rfc822;{to} INRCPT=rfc822;{to} INFROM=rfc822;{}\nto <{to}>\n",
                self.sender
            ));
        }
        [text.as_bytes(), b"env-end\n", &self.message].concat()
    }

    /// What the router makes of a spool file.
    pub fn routed(file: &[u8]) -> Option<Self> {
        let mut mail = Self { sender: String::new(), recipients: Vec::new(), message: Vec::new() };
        let mut rest = file;
        let mut belongs = false;
        loop {
            let end = rest.iter().position(|octet| *octet == b'\n')?;
            let line = std::str::from_utf8(&rest[..end]).ok()?;
            rest = &rest[end + 1..];
            let (word, value) = line.split_once(' ').unwrap_or((line, ""));
            let address = value.trim_start_matches('<').trim_end_matches('>').to_owned();
            // A line about reports is of the recipient right behind it, or of nobody.
            if belongs && word != "to" {
                return None;
            }
            belongs = word == "todsn";
            match word {
                "env-end" => break,
                "from" => mail.sender = address,
                "to" => mail.recipients.push(address),
                "external" | "rcvdfrom" | "bodytype" | "with" | "channel" | "todsn" | "comment" => {}
                _ => return None,
            }
        }
        mail.message = rest.to_vec();
        Some(mail)
    }
}
