//! The filter `clamd` against a real clamd that knows one signature, EICAR.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use checkpost_core::content::{ContentWriter, Spool};
use checkpost_core::filter::{Context, Unpacking};
use checkpost_core::filters::clamd::{Clamd as Filter, ClamdConfig, Transfer};
use checkpost_core::finding::Unscanned;
use checkpost_core::{Envelope, Filter as _, FilterError, Finding, Kind, Mail, MailId, Origin};
use checkpost_tests::{Clamd, Root, mails};

const TIME: Duration = Duration::from_secs(30);

fn config(address: &str, transfer: Transfer) -> ClamdConfig {
    ClamdConfig { address: address.parse().unwrap(), transfer, ..ClamdConfig::default() }
}

fn mail(bytes: &[u8], memory_limit: usize) -> Mail {
    let spool = Spool { directory: std::env::temp_dir(), memory_limit };
    let mut writer = ContentWriter::new(Arc::new(spool));
    writer.append(bytes).unwrap();
    Mail { id: MailId::new(), envelope: Envelope::default(), origin: Origin::inbound("test"), content: writer.finish() }
}

async fn check(filter: &Filter, bytes: &[u8], memory_limit: usize) -> Result<Vec<Finding>, FilterError> {
    let context = Context { deadline: Instant::now() + TIME, unpacking: Unpacking::default() };
    filter.check(&mail(bytes, memory_limit), &context).await
}

async fn finds_eicar_only(address: &str, transfers: &[Transfer]) {
    let bad = mails::eicar_in_nested_zip();
    let good = vec![b'x'; 3 << 20];
    for transfer in transfers {
        let filter = Filter::new("clamd", config(address, *transfer)).unwrap();
        for memory_limit in [0, 10 << 20] {
            let found = check(&filter, &bad, memory_limit).await.unwrap();
            assert_eq!(found.len(), 1, "{transfer:?}");
            assert_eq!((found[0].kind, &*found[0].class), (Kind::Malware, "test"), "{found:?}");
            assert_eq!(&*found[0].name, "Lab.Eicar-Test-Signature.UNOFFICIAL");
            assert_eq!(check(&filter, &good, memory_limit).await.unwrap(), [], "{transfer:?}");
            assert_eq!(check(&filter, b"x", memory_limit).await.unwrap(), [], "{transfer:?}");
        }
        // Told in the background since the first scan.
        let end = Instant::now() + TIME;
        while filter.about().version.is_none() {
            assert!(Instant::now() < end, "no version");
            tokio::task::yield_now().await;
        }
        assert!(filter.about().version.as_deref().is_some_and(|version| version.starts_with("ClamAV ")));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn eicar_is_found_over_both_sockets_each_way() {
    let Some(root) = Root::start_or_skip(&Clamd::new()) else { return };
    let unix = format!("unix:{}", root.shared().join("clamd.sock").display());
    runtime().block_on(finds_eicar_only(&unix, &[Transfer::Auto, Transfer::Descriptor, Transfer::Stream]));
    root.in_network(|| runtime().block_on(finds_eicar_only("127.0.0.1:3310", &[Transfer::Auto])));
}

#[test]
fn its_stream_limit_is_told_as_such() {
    let Some(root) = Root::start_or_skip(&Clamd::new().setting("StreamMaxLength 1M")) else { return };
    let unix = format!("unix:{}", root.shared().join("clamd.sock").display());
    runtime().block_on(async {
        let filter = Filter::new("clamd", config(&unix, Transfer::Stream)).unwrap();
        for memory_limit in [0, 10 << 20] {
            let error = check(&filter, &vec![b'x'; 5 << 20], memory_limit).await.unwrap_err();
            assert_eq!(error.reason, Unscanned::TooLarge, "{error}");
        }
        assert_eq!(check(&filter, &vec![b'x'; 1 << 19], 0).await.unwrap(), []);
    });
}

#[test]
fn many_at_once_are_all_scanned() {
    let Some(root) = Root::start_or_skip(&Clamd::new()) else { return };
    let unix = format!("unix:{}", root.shared().join("clamd.sock").display());
    runtime().block_on(async {
        let config = ClamdConfig { connections: 50, ..config(&unix, Transfer::Auto) };
        let filter = Arc::new(Filter::new("clamd", config).unwrap());
        let mail = [b"Subject: x\r\n\r\n", &*mails::eicar()].concat();
        let tasks: Vec<_> = (0..200)
            .map(|number| {
                let (filter, mail) = (Arc::clone(&filter), mail.clone());
                tokio::spawn(async move {
                    let (bytes, expected) = if number % 2 == 0 { (&mail[..], 1) } else { (&b"clean"[..], 0) };
                    assert_eq!(check(&filter, bytes, (number % 3) * 1000).await.unwrap().len(), expected);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}
