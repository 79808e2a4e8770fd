//! Every kind of way in, in one list. A new one is one line here and a crate of its own.

use std::sync::{Arc, LazyLock};

use checkpost_adapter::{Kind, SocketAddress, Way};
use checkpost_check::CheckWay;
use checkpost_core::config::{Document, Item, Origins, Problem, Problems};
use checkpost_milter::MilterWay;
use checkpost_scan::ScanWay;
use checkpost_smtp::{Defaults, SmtpWay, WayError, Written};

/// A kind of way in, and how one is made of its `[[way]]`.
pub struct WayKind {
    /// What can be said of it.
    pub kind: Kind,
    build: Box<Build>,
}

/// `None`: it is wrong, and the problems say so.
type Build = dyn Fn(Item, &Arc<Origins>, &mut Problems) -> Option<Arc<dyn Way>> + Send + Sync;

/// All kinds, in the order of `checkpost ways`.
pub static KINDS: LazyLock<Vec<WayKind>> = LazyLock::new(|| {
    let mut all = Vec::new();
    // In front of any mail server.
    all.extend(checkpost_smtp::kinds().map(proxy));
    // Around a Postfix.
    all.extend(checkpost_postfix::kinds().map(proxy));
    all.push(milter(checkpost_postfix::MILTER, checkpost_postfix::MILTER_DEFAULTS));
    // Around an Exim.
    all.extend(checkpost_exim::transport::kinds().map(proxy));
    // Inside a Sendmail.
    all.push(milter(checkpost_sendmail::MILTER, checkpost_sendmail::MILTER_DEFAULTS));
    // Asked by a program beside a mail server.
    all.push(check(checkpost_check::CHECK));
    all.push(check(checkpost_qmail::QUEUE));
    all.push(check(checkpost_courier::COURIERFILTER));
    all.push(check(checkpost_zmailer::SMTP));
    all.push(check(checkpost_zmailer::ROUTER));
    all.push(check(checkpost_communigate::HELPER));
    all.push(check(checkpost_communigate::SYNCHRONOUS));
    // Asked by a library in Exim's own process.
    all.push(check(checkpost_exim::local_scan::LOCAL_SCAN));
    all.push(check(checkpost_exim::transport::PIPE));
    all.push(check(checkpost_postfix::PIPE));
    // Asked as a scanner is.
    all.extend(checkpost_scan::kinds().map(scan));
    all.extend(checkpost_exim::acl::kinds().map(scan));
    all
});

/// Takes every `[[way]]`. Wrong ones are left out, and `problems` says so; so are names and addresses
/// that two of them have.
pub fn take(document: &mut Document, origins: &Arc<Origins>, problems: &mut Problems) -> Vec<Arc<dyn Way>> {
    let mut ways: Vec<Arc<dyn Way>> = Vec::new();
    for item in document.take_items("way", problems) {
        let place = item.place().clone();
        let path = item.path().to_owned();
        let names = || KINDS.iter().map(|known| known.kind.name);
        let Some(kind) = item.peek("kind") else {
            let accepted = names().collect::<Vec<_>>().join(", ");
            problems.push(item.problem("kind", "no kind of way").hint(format!("accepted: {accepted}")));
            continue;
        };
        let Some(known) = KINDS.iter().find(|known| known.kind.name == kind) else {
            let place = item.problem("kind", "").place.unwrap_or(place);
            problems.push(Problem::unknown_name(&place, format!("{path}.kind"), "kind of way", kind, names()));
            continue;
        };
        let Some(way) = (known.build)(item, origins, problems) else { continue };
        if ways.iter().any(|other| other.name() == way.name()) {
            let message = format!("a second way is named {:?}", &**way.name());
            problems.push(Problem::at(&place, path.clone(), message).hint("give each its own `name`"));
        }
        let taken = |address: &SocketAddress| ways.iter().flat_map(|way| way.listen()).any(|l| l.address == *address);
        for listen in way.listen().iter().filter(|listen| taken(&listen.address)) {
            let message = format!("another way listens at {} already", listen.address);
            problems.push(Problem::at(&place, format!("{path}.listen"), message));
        }
        ways.push(way);
    }
    ways
}

/// A kind that is an SMTP proxy with defaults of its own.
fn proxy((kind, defaults): (Kind, Defaults)) -> WayKind {
    let build = move |item: Item, origins: &Arc<Origins>, problems: &mut Problems| {
        let written: Written = item.clone().finish(problems)?;
        match SmtpWay::new(kind, &defaults, &written, Arc::clone(origins)) {
            Ok(way) => Some(Arc::new(way) as Arc<dyn Way>),
            Err(WayError::Settings(error)) => {
                problems.push(item.problem(error.key, error.message));
                None
            }
            Err(error) => {
                problems.push(item.problem("", error.to_string()));
                None
            }
        }
    };
    WayKind { kind, build: Box::new(build) }
}

/// A kind that speaks milter with defaults of its own.
fn milter(kind: Kind, defaults: checkpost_milter::Defaults) -> WayKind {
    let build = move |item: Item, origins: &Arc<Origins>, problems: &mut Problems| {
        let written: checkpost_milter::Written = item.clone().finish(problems)?;
        match MilterWay::new(kind, &defaults, &written, Arc::clone(origins)) {
            Ok(way) => Some(Arc::new(way) as Arc<dyn Way>),
            Err(error) => {
                problems.push(item.problem(error.key, error.message));
                None
            }
        }
    };
    WayKind { kind, build: Box::new(build) }
}

/// A kind that is asked over the check socket.
fn check(kind: Kind) -> WayKind {
    let build = move |item: Item, origins: &Arc<Origins>, problems: &mut Problems| {
        let written: checkpost_check::Written = item.clone().finish(problems)?;
        match CheckWay::new(kind, &written, Arc::clone(origins)) {
            Ok(way) => Some(Arc::new(way) as Arc<dyn Way>),
            Err(error) => {
                problems.push(item.problem(error.key, error.message));
                None
            }
        }
    };
    WayKind { kind, build: Box::new(build) }
}

/// A kind that answers as a scanner does, with defaults of its own.
fn scan((kind, defaults): (Kind, checkpost_scan::Defaults)) -> WayKind {
    let build = move |item: Item, origins: &Arc<Origins>, problems: &mut Problems| {
        let written: checkpost_scan::Written = item.clone().finish(problems)?;
        match ScanWay::new(kind, &defaults, &written, Arc::clone(origins)) {
            Ok(way) => Some(Arc::new(way) as Arc<dyn Way>),
            Err(error) => {
                problems.push(item.problem(error.key, error.message));
                None
            }
        }
    };
    WayKind { kind, build: Box::new(build) }
}
