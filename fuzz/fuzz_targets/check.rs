#![no_main]
use checkpost_wire::check::{Decision, Done, Finder, List, Outcome, Request, Response};
use libfuzzer_sys::fuzz_target;

mod slices;

fuzz_target!(|data: &[u8]| {
    let (input, pieces) = slices::cut(data);
    let whole = Finder::default().find(input, 4096);
    let (mut finder, mut buffer, mut found) = (Finder::default(), Vec::new(), Ok(None));
    for piece in pieces {
        buffer.extend_from_slice(piece);
        found = finder.find(&buffer, 4096);
        if found != Ok(None) {
            break;
        }
    }
    // A list that is too long is told as soon as it is, and a piece may end before the end that comes in time.
    if let (Ok(whole), Ok(found)) = (&whole, &found) {
        assert_eq!(whole, found);
    }
    let list = List::new(input);
    if let Ok(request) = Request::decode(list) {
        assert!(!request.recipients.is_empty());
        let written = request.encode().expect("what was read has no NUL");
        assert_eq!(Request::decode(List::new(&written)), Ok(request));
    }
    let _ = Done::decode(list);
    for recipients in 0..3 {
        if let Ok(Response::Answer(answer)) = Response::decode(list, recipients) {
            let refused = matches!(answer.decision, Decision::Reject(_) | Decision::Defer(_));
            assert!(refused || answer.outcomes.len() == recipients);
            for outcome in &answer.outcomes {
                if let Outcome::Deliver(content) | Outcome::Hold(content, _) = outcome {
                    assert!(*content < answer.contents.len());
                }
            }
        }
    }
});
