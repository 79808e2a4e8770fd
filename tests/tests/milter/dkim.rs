//! A signed mail goes through server and milter, gets a field on top, and its signature still holds.
//! The key is made for each run and the verifier gets it without DNS.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::HeaderWriter;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::dkim::{Canonicalization, DkimSigner};
use mail_auth::hickory_resolver::config::{ResolverConfig, ResolverOpts};
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator, Parameters, ResolverCache, Txt};

use crate::Server;
use crate::case::Prepared;

/// What the daemon of this check is told beside its way.
pub(crate) const RULES: &str = "[[rule]]\nthen = { add_header = \"X-Checked: yes\" }\n";

const ALICE: &str = "alice@example.test";

/// Sends a mail for each canonicalization and verifies what arrives.
pub(crate) fn check(server: &mut dyn Server) -> Result<()> {
    use Canonicalization::{Relaxed, Simple};
    let key = Ed25519Key::generate_pkcs8()?;
    let verifier = Verifier::new(&Ed25519Key::from_pkcs8_der(&key)?)?;
    let kinds = [(Relaxed, Relaxed), (Simple, Simple), (Relaxed, Simple), (Simple, Relaxed)];
    let mut mails = Vec::new();
    for (n, (header, body)) in kinds.into_iter().enumerate() {
        let id = format!("<{n}.dkim@client.example.net>");
        let mail = mail(&id);
        let signature = DkimSigner::from_key(Ed25519Key::from_pkcs8_der(&key)?)
            .domain("example.net")
            .selector("lab")
            .headers(["From", "To", "Subject", "Date", "Message-ID", "X-Folded", "Content-Type"])
            .header_canonicalization(header)
            .body_canonicalization(body)
            .sign(mail.as_bytes())?;
        let content = format!("{}{mail}", signature.to_header()).into_bytes();
        ensure!(verifier.passes(&content)?, "signed wrongly");
        ensure!(!verifier.passes(mail.replace("forty", "fifty").as_bytes())?, "an unsigned mail passes");
        let to = vec![ALICE.to_owned()];
        mails.push(Prepared { from: "signer@example.net".into(), to, content, id, rset: false });
    }
    let heard = server.session("client.example.net", &mails)?;
    ensure!(heard.mails.iter().all(checkpost_tests::Told::accepted), "{heard:?}");
    server.settle()?;
    let stored = server.mailbox("alice");
    ensure!(stored.len() == mails.len(), "{} of {} mails arrived", stored.len(), mails.len());
    for mail in stored {
        let mail = String::from_utf8(mail)?;
        ensure!(mail.contains("\nX-Checked: yes\n"), "not edited:\n{mail}");
        let content = mail.replace('\n', "\r\n");
        ensure!(verifier.passes(content.as_bytes())?, "the signature does not hold any more:\n{mail}");
        ensure!(!verifier.passes(content.replace("forty", "fifty").as_bytes())?, "it holds for another mail, too");
    }
    Ok(())
}

fn mail(id: &str) -> String {
    format!(
        "From: Somebody <signer@example.net>\r\nTo: <{ALICE}>\r\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?= and\r\n  more\r\n\
         Date: Tue, 24 Nov 2026 12:00:00 +0000\r\nMessage-ID: {id}\r\nX-Folded: one\r\n\ttwo  \r\n three\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
         forty-two  blanks\t \r\n.\r\n..\r\n\r\nFrom the last lines,\r\n\r\n\r\n"
    )
}

struct Verifier {
    authenticator: MessageAuthenticator,
    runtime: tokio::runtime::Runtime,
    keys: Keys,
}

impl Verifier {
    fn new(key: &Ed25519Key) -> Result<Self> {
        let public = base64_simd::STANDARD.encode_to_string(key.public_key());
        let record = format!("v=DKIM1; k=ed25519; p={public}");
        let record = Txt::DomainKey(Arc::new(DomainKey::parse(record.as_bytes())?));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _inside = runtime.enter();
        // It is never asked.
        let authenticator = MessageAuthenticator::new(ResolverConfig::default(), ResolverOpts::default())?;
        drop(_inside);
        Ok(Self {
            authenticator,
            runtime,
            keys: Keys(Mutex::new([("lab._domainkey.example.net.".into(), record)].into())),
        })
    }

    /// Is there a signature, and do all hold?
    fn passes(&self, content: &[u8]) -> Result<bool> {
        let message = AuthenticatedMessage::parse(content).context("no mail")?;
        let asked = Parameters::new(&message).with_txt_cache(&self.keys);
        let results = self.runtime.block_on(self.authenticator.verify_dkim(asked));
        Ok(!results.is_empty() && results.iter().all(|result| *result.result() == DkimResult::Pass))
    }
}

/// In place of DNS.
struct Keys(Mutex<HashMap<Box<str>, Txt>>);

impl ResolverCache<Box<str>, Txt> for Keys {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.lock().unwrap().get(name).cloned()
    }

    fn remove<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.lock().unwrap().remove(name)
    }

    fn insert(&self, key: Box<str>, value: Txt, _: Instant) {
        self.0.lock().unwrap().insert(key, value);
    }
}
