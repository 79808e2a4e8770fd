//! The scenes of the battery, and what must come of each.

use std::sync::Arc;
use std::time::Duration;

use checkpost_core::abilities::Replies;
use checkpost_core::edit::{Body, HeaderField, HeaderName, HeaderText};
use checkpost_core::finding::Unscanned;
use checkpost_core::fit::Answer;
use checkpost_core::policy::Policy;
use checkpost_core::{Deferral, Disposition, Edit, Finding, Outcome, Rejection, Verdict, fit};

use super::{HandedOn, Played, Point, Scene, Slicing, TestMail, Told, Trouble, TroubleKind, Way, edited};

/// Plays every scene in every slicing.
///
/// # Panics
/// When the way does not do what it must: the message says in which scene.
pub fn run(way: &dyn Way) {
    for slicing in Slicing::ALL {
        for scene in scenes() {
            check(way, &scene, slicing);
        }
        // Each kind of trouble in one piece; the slicings share them, since they are many.
        let fits = |trouble: &Trouble| match slicing {
            Slicing::Whole => true,
            Slicing::Bytes => trouble.always,
            Slicing::Seeded(_) => !trouble.always,
        };
        for trouble in troubles(way).into_iter().filter(fits) {
            check_trouble(way, trouble, slicing);
        }
    }
}

/// Dots at line starts, 8-bit and a folded field: what goes wrong in careless hands.
fn content(subject: &str) -> Vec<u8> {
    format!(
        "From: a@example.org\r\nSubject: {subject}\r\nX-Old: 1\r\n 2\r\nx-old: 3\r\nTo: b@example.org\r\n\r\n\
         .\r\n..two\r\nlast \u{e9}\r\n.end\r\n"
    )
    .into_bytes()
}

fn mail(subject: &str, outcomes: Vec<Outcome>) -> TestMail {
    let recipients = (0..outcomes.len()).map(|index| format!("r{index}@example.org")).collect();
    let verdict = Verdict { outcomes, findings: Vec::new().into(), score: 0.0 };
    TestMail { sender: "s@example.net".into(), recipients, content: content(subject), verdict }
}

/// What the engine gives when a filter is late or down.
fn unscanned(reason: Unscanned) -> TestMail {
    let mut mail = mail("unscanned", vec![Outcome::deliver(), Outcome::deliver()]);
    let finding = Finding::unscanned(&"clamd".into(), reason, Duration::from_secs(90), "no answer");
    mail.verdict = Policy::default().decide(&mail.mail(), vec![finding]);
    assert!(matches!(mail.verdict.outcomes[0].disposition, Disposition::Defer(_)), "unscanned is not clean");
    mail
}

fn scene(title: &str, mails: Vec<TestMail>) -> Scene {
    Scene { title: title.into(), mails, max_size: 1 << 20, abort: None, trouble: None }
}

fn outcome(disposition: Disposition) -> Outcome {
    Outcome { disposition, ..Outcome::deliver() }
}

fn reject() -> Outcome {
    outcome(Disposition::Reject(Rejection::lossy(7, 1, "Message contains malware (Test.Virus)")))
}

fn defer() -> Outcome {
    outcome(Disposition::Defer(Deferral::lossy(7, 1, "Come back later, please")))
}

fn edits(edits: Vec<Edit>) -> Outcome {
    Outcome { edits: edits.into(), ..Outcome::deliver() }
}

fn scenes() -> Vec<Scene> {
    let add = |line: &str| Edit::AddHeader(HeaderField::parse(line).expect("a header field"));
    let set = |line: &str| Edit::SetHeader(HeaderField::parse(line).expect("a header field"));
    let append = |line: &str| Edit::AppendHeader(HeaderField::parse(line).expect("a header field"));
    let remove = Edit::RemoveHeader(HeaderName::new("X-Old").expect("a header name"));
    let tag = Edit::TagSubject(HeaderText::new("[SPAM]").expect("a header text"));
    let deliver = Outcome::deliver;
    let body = Edit::ReplaceBody(Body::new("It was removed.\n.\n").expect("a text"));
    let copy = Edit::AddRecipient("copy@example.org".into());
    let twice = Edit::AddRecipient("r0@example.org".into());
    let sender = Edit::ChangeSender("other@example.org".into());
    let hold = || outcome(Disposition::Hold(HeaderText::new("looks odd").expect("a header text")));
    let discard = || outcome(Disposition::Discard);
    let kept = || Outcome { quarantine: true, ..discard() };
    let accepted = || mail("fine", vec![deliver()]);
    let mut null = mail("bounce", vec![deliver()]);
    null.sender = String::new();
    let mut large = mail("large", vec![deliver()]);
    large.content.extend_from_slice("0123456789\r\n".repeat(400).as_bytes());
    let mut oversize = scene("too large, then a small one", vec![large.clone(), accepted()]);
    oversize.max_size = 4000;
    let abort = |index, mails| Scene { abort: Some(index), ..scene("the client goes within the content", mails) };
    vec![
        scene("accept", vec![accepted()]),
        scene("accept for three", vec![mail("three", vec![deliver(), deliver(), deliver()])]),
        scene("accept a bounce", vec![null]),
        scene("accept a larger one", vec![large]),
        scene("reject", vec![mail("virus", vec![reject()])]),
        scene("reject for two", vec![mail("virus", vec![reject(), reject()])]),
        scene("defer", vec![mail("later", vec![defer(), defer()])]),
        scene("discard", vec![mail("gone", vec![discard()])]),
        scene("quarantine", vec![mail("kept", vec![kept(), kept()])]),
        scene("add a field", vec![mail("add", vec![edits(vec![add("X-Spam: no"), add("X-Two: 2")])])]),
        scene("remove a field", vec![mail("remove", vec![edits(vec![remove.clone()])])]),
        scene("tag the subject", vec![mail("tag", vec![edits(vec![tag.clone(), add("X-Spam: yes"), remove])])]),
        scene("set a field", vec![mail("set", vec![edits(vec![set("X-Old: 9")])])]),
        scene("append a field", vec![mail("append", vec![edits(vec![append("X-Last: 1"), append("X-Last: 2")])])]),
        scene("replace the body", vec![mail("body", vec![edits(vec![body.clone(), add("X-Spam: yes")])])]),
        scene("replace the body for one of two", vec![mail("body", vec![edits(vec![body]), deliver()])]),
        scene("hold", vec![mail("held", vec![hold(), hold()]), accepted()]),
        scene("hold for one of two", vec![mail("held", vec![hold(), deliver()])]),
        scene("hold for one, reject another", vec![mail("held", vec![hold(), reject()])]),
        scene("add a recipient", vec![mail("copy", vec![edits(vec![copy.clone(), add("X-Two: 2")]), deliver()])]),
        scene("add one who is there", vec![mail("copy", vec![edits(vec![twice])])]),
        scene("change the sender", vec![mail("from", vec![edits(vec![sender, copy])]), accepted()]),
        scene("edits for one of two", vec![mail("some", vec![deliver(), edits(vec![tag])])]),
        scene("reject one, deliver another", vec![mail("mixed", vec![reject(), deliver()])]),
        scene("reject, deliver, defer", vec![mail("mixed", vec![reject(), deliver(), defer()])]),
        scene("discard one, deliver another", vec![mail("mixed", vec![deliver(), discard()])]),
        scene("reject one, discard another", vec![mail("mixed", vec![reject(), discard()])]),
        scene("two mails", vec![accepted(), mail("second", vec![deliver(), deliver()])]),
        scene("refused, then accepted", vec![mail("virus", vec![reject()]), accepted(), mail("x", vec![defer()])]),
        scene("discarded, then accepted", vec![mail("gone", vec![discard()]), accepted()]),
        scene("engine late", vec![unscanned(Unscanned::Timeout), accepted()]),
        scene("engine down", vec![unscanned(Unscanned::ConnectRefused), accepted()]),
        oversize,
        abort(0, vec![accepted()]),
        abort(1, vec![accepted(), mail("second", vec![deliver()])]),
    ]
}

fn check(way: &dyn Way, scene: &Scene, slicing: Slicing) {
    let place = format!("{}, {slicing:?}: {}", way.name(), scene.title);
    let played = way.play(scene, slicing);
    let mut expected = Played::default();
    for (index, mail) in scene.mails.iter().enumerate() {
        let aborted = scene.abort == Some(index);
        if aborted {
            expected.told.push(vec![Told::Nothing; mail.recipients.len()]);
            break;
        }
        if mail.content.len() as u64 > scene.max_size {
            expected.told.push(vec![Told::Rejected(String::new()); mail.recipients.len()]);
            continue;
        }
        let (told, handed_on) = by_fit(way, mail);
        expected.told.push(told);
        expected.handed_on.extend(handed_on);
    }
    assert_eq!(played.told.len(), expected.told.len(), "{place}: answers {:?}", played.told);
    for (told, wanted) in played.told.iter().flatten().zip(expected.told.iter().flatten()) {
        assert!(fits(told, wanted), "{place}: told {told:?} instead of {wanted:?}");
    }
    assert_eq!(played.handed_on.len(), expected.handed_on.len(), "{place}: handed on {:?}", played.handed_on);
    for (handed_on, wanted) in played.handed_on.iter().zip(&expected.handed_on) {
        let show = |content: &[u8]| String::from_utf8_lossy(content).into_owned();
        assert_eq!(show(&handed_on.content), show(&wanted.content), "{place}");
        assert_eq!(handed_on, wanted, "{place}");
    }
}

/// Same answer, and ours has the text that was wanted in it.
fn fits(told: &Told, wanted: &Told) -> bool {
    match (told, wanted) {
        (Told::Rejected(text), Told::Rejected(wanted)) | (Told::Deferred(text), Told::Deferred(wanted)) => {
            text.contains(wanted)
        }
        _ => told == wanted,
    }
}

fn by_fit(way: &dyn Way, mail: &TestMail) -> (Vec<Told>, Vec<HandedOn>) {
    let abilities = way.abilities();
    let fitted = fit(&mail.mail(), &mail.verdict, &abilities);
    let refused = matches!(fitted.answer, Answer::Refuse(_));
    let told = |disposition: &Disposition| match disposition {
        Disposition::Deliver | Disposition::Discard | Disposition::Hold(_) => Told::Accepted,
        Disposition::Reject(rejection) => Told::Rejected(rejection.reply().text().to_owned()),
        Disposition::Defer(deferral) => Told::Deferred(deferral.reply().text().to_owned()),
    };
    let by_recipient = fitted.outcomes.iter().map(|outcome| told(&outcome.disposition));
    let all = |told: Told| vec![told; mail.recipients.len()];
    let answers = match (&fitted.answer, abilities.replies) {
        (Answer::Refuse(disposition), _) => all(told(disposition)),
        (_, Replies::PerRecipient) => by_recipient.collect(),
        _ => all(Told::Accepted),
    };
    let handed_on = |(edits, members): (Arc<[Edit]>, Vec<usize>), held: bool| {
        let mut sender = mail.sender.clone();
        let mut recipients: Vec<String> = members.iter().map(|&index| mail.recipients[index].clone()).collect();
        for edit in edits.iter() {
            match edit {
                Edit::AddRecipient(to) if !recipients.iter().any(|known| known == to.as_str()) => {
                    recipients.push(to.as_str().to_owned());
                }
                Edit::ChangeSender(to) => sender = to.as_str().to_owned(),
                _ => {}
            }
        }
        HandedOn { sender, recipients, content: edited(&mail.content, &edits), held }
    };
    let deliveries = if refused { Vec::new() } else { fitted.deliveries() };
    let held = if refused { None } else { fitted.held() };
    let all = deliveries.into_iter().map(|group| handed_on(group, false));
    (answers, all.chain(held.map(|group| handed_on(group, true))).collect())
}

fn troubles(way: &dyn Way) -> Vec<Trouble> {
    use TroubleKind::{Garbage, Gone, Permanent, Silent, Temporary};
    let mut troubles = Vec::new();
    for at in way.points() {
        for kind in [Temporary, Permanent, Gone, Silent, Garbage] {
            for always in [true, false] {
                troubles.push(Trouble { at, kind, always });
            }
        }
    }
    troubles
}

/// Two mails while the next hop fails: nobody is told "accepted" for what was not handed on, nothing
/// comes twice that was answered for, and a refusal for good is only told when the hop gave one.
fn check_trouble(way: &dyn Way, trouble: Trouble, slicing: Slicing) {
    let two =
        vec![mail("first", vec![Outcome::deliver(), Outcome::deliver()]), mail("second", vec![Outcome::deliver()])];
    let refused = mail("refused", vec![reject()]);
    for mails in [two.clone(), vec![refused, two[1].clone()]] {
        let title = format!("{trouble:?}, first mail {:?}", mails[0].verdict.outcomes[0].disposition.as_str());
        let scene = Scene { trouble: Some(trouble), ..scene(&title, mails) };
        let place = format!("{}, {slicing:?}: {title}", way.name());
        let played = way.play(&scene, slicing);
        for (mail, told) in scene.mails.iter().zip(&played.told) {
            let refused = matches!(mail.verdict.outcomes[0].disposition, Disposition::Reject(_));
            for (recipient, told) in mail.recipients.iter().zip(told) {
                let times = played
                    .handed_on
                    .iter()
                    .filter(|handed_on| handed_on.content == mail.content && handed_on.recipients.contains(recipient))
                    .count();
                let place = format!("{place}: {recipient} told {told:?}, handed on {times} times");
                match told {
                    Told::Accepted => assert_eq!(times, 1, "{place}"),
                    Told::Rejected(_) if refused => assert_eq!(times, 0, "{place}"),
                    Told::Rejected(_) => assert_eq!(trouble.kind, TroubleKind::Permanent, "{place}"),
                    // With the answer to the content lost, the hop may have it: the sender's copy makes two.
                    Told::Deferred(_) | Told::Nothing => {
                        assert!(times <= usize::from(trouble.at == Point::Final), "{place}");
                    }
                }
            }
        }
        let missing = scene.mails.len() - played.told.len();
        assert_eq!(missing, 0, "{place}: {missing} mails without an answer");
        // A hop that failed once, at the first mail, must not keep the second from going through.
        let first_refused = matches!(scene.mails[0].verdict.outcomes[0].disposition, Disposition::Reject(_));
        if !first_refused && !trouble.always && trouble.kind != TroubleKind::Permanent && trouble.at != Point::Reset {
            let last = played.told.last().into_iter().flatten().all(|told| *told == Told::Accepted);
            assert!(last, "{place}: the second mail was {:?}", played.told.last());
        }
    }
}
