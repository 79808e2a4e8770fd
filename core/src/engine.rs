//! Filters under one deadline, then policy. It never fails outward.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::join_all;

use crate::filter::{Context, Filter, Unpacking};
use crate::finding::{Finding, Unscanned};
use crate::mail::Mail;
use crate::policy::{Policy, Trace};
use crate::verdict::Verdict;

/// Checks mails. One engine serves all ways in; a new configuration makes a new engine.
pub struct Engine {
    filters: Vec<Arc<dyn Filter>>,
    policy: Policy,
    unpacking: Unpacking,
}

impl Engine {
    /// An engine with these filters and this policy.
    pub fn new(filters: Vec<Arc<dyn Filter>>, policy: Policy, unpacking: Unpacking) -> Self {
        Self { filters, policy, unpacking }
    }

    /// The filters, in the order of the configuration.
    pub fn filters(&self) -> &[Arc<dyn Filter>] {
        &self.filters
    }

    /// The rules.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Every filter looks at the mail, all at once; who fails or is late by the deadline leaves an
    /// `unscanned` finding. Then policy decides, for each recipient.
    pub async fn check(&self, mail: &Mail, deadline: Instant) -> Verdict {
        let findings = self.findings(mail, deadline).await;
        self.policy.decide(mail, findings)
    }

    /// Like [`Engine::check`], and tells every rule tried and why it held or not.
    pub async fn explain(&self, mail: &Mail, deadline: Instant) -> (Verdict, Trace) {
        let findings = self.findings(mail, deadline).await;
        self.policy.explain(mail, findings)
    }

    async fn findings(&self, mail: &Mail, deadline: Instant) -> Vec<Finding> {
        let context = Context { deadline, unpacking: self.unpacking };
        match &*self.filters {
            [] => Vec::new(),
            [only] => run(&**only, mail, &context).await,
            several => join_all(several.iter().map(|filter| run(&**filter, mail, &context))).await.concat(),
        }
    }
}

async fn run(filter: &dyn Filter, mail: &Mail, context: &Context) -> Vec<Finding> {
    let start = Instant::now();
    let check = AssertUnwindSafe(filter.check(mail, context)).catch_unwind();
    let (reason, detail) = match tokio::time::timeout_at(context.deadline.into(), check).await {
        Ok(Ok(Ok(findings))) => return findings,
        Ok(Ok(Err(error))) => {
            let cause = error.source.as_ref().map(|source| format!(": {source}")).unwrap_or_default();
            (error.reason, format!("{}{cause}", error.detail))
        }
        Ok(Err(_panic)) => (Unscanned::Panicked, "the filter crashed".to_owned()),
        Err(_elapsed) => (Unscanned::Timeout, "no findings by the deadline".to_owned()),
    };
    let about = filter.about();
    tracing::warn!(mail = %mail.id, filter = %about.name, reason = reason.as_str(), detail, "filter did not look");
    vec![Finding::unscanned(&about.name, reason, start.elapsed(), &detail)]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use bytes::Bytes;

    use super::*;
    use crate::filter::{About, FilterError};
    use crate::finding::Kind;
    use crate::mail::{Envelope, MailId, Origin};
    use crate::verdict::Disposition;

    enum Behaviour {
        Finds,
        Fails,
        Hangs,
        Panics,
    }

    struct Scripted(Behaviour);

    #[async_trait]
    impl Filter for Scripted {
        fn about(&self) -> Arc<About> {
            Arc::new(About { name: "scripted".into(), version: None, data_version: None, finds: &["malware"] })
        }

        async fn check(&self, _mail: &Mail, _context: &Context) -> Result<Vec<Finding>, FilterError> {
            match self.0 {
                Behaviour::Finds => Ok(vec![Finding::new(Kind::Malware, &"scripted".into(), "Bad")]),
                Behaviour::Fails => Err(FilterError::new(Unscanned::ConnectRefused, "nobody there")),
                Behaviour::Hangs => std::future::pending().await,
                Behaviour::Panics => panic!("as scripted"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_filter_that_fails_is_a_finding_and_the_default_is_defer() {
        let mail = Mail {
            id: MailId::new(),
            envelope: Envelope { sender: "a@example.org".into(), recipients: vec!["b@example.org".into()] },
            origin: Origin::inbound("test"),
            content: Bytes::from_static(b"A: 1\r\n\r\nx\r\n").into(),
        };
        for (behaviour, reason) in [
            (Behaviour::Fails, Unscanned::ConnectRefused),
            (Behaviour::Hangs, Unscanned::Timeout),
            (Behaviour::Panics, Unscanned::Panicked),
        ] {
            let filters: Vec<Arc<dyn Filter>> =
                vec![Arc::new(Scripted(behaviour)), Arc::new(Scripted(Behaviour::Finds))];
            let engine = Engine::new(filters, Policy::default(), Unpacking::default());
            let deadline = Instant::now() + Duration::from_millis(200);
            let verdict = engine.check(&mail, deadline).await;
            assert_eq!(verdict.findings.len(), 2);
            assert_eq!(verdict.findings[0].kind, Kind::Unscanned(reason));
            assert!(matches!(verdict.outcomes[0].disposition, Disposition::Defer(_)), "{:?}", verdict.outcomes);
        }
    }
}
