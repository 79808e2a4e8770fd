//! Between the engine's types and the protocol's: what a client can do, whom a request is about, a verdict as an answer.
//!
//! It decides nothing.

use std::sync::Arc;

use checkpost_adapter::{Judged, Piece, edited};
use checkpost_core::abilities::{Refusal, Replies};
use checkpost_core::config::Origins;
use checkpost_core::content::header::Header;
use checkpost_core::fit::Answer as Fit;
use checkpost_core::mail::OriginClass;
use checkpost_core::{Abilities, Address, Disposition, Edit, Envelope, Origin, Outcome as Judgement};
use checkpost_wire::check::{Answer, Can, Changed, Class, Content, Decision, Form, Outcome, Part, Request};

/// What this client can do, within what its way can.
pub(crate) fn abilities(can: Can, way: &Abilities) -> Abilities {
    let both = |way: bool, flag: Can| way && can.contains(flag);
    Abilities {
        replies: if both(way.replies == Replies::PerRecipient, Can::REPLY_PER_RECIPIENT) {
            Replies::PerRecipient
        } else {
            Replies::PerMessage
        },
        refusal: if both(way.refusal == Refusal::InSession, Can::REFUSE_IN_SESSION) {
            Refusal::InSession
        } else {
            Refusal::Bounces
        },
        edit_headers: both(way.edit_headers, Can::EDIT_HEADERS),
        edit_body: both(way.edit_body, Can::EDIT_BODY),
        add_recipients: both(way.add_recipients, Can::ADD_RECIPIENTS),
        change_sender: both(way.change_sender, Can::CHANGE_SENDER),
        hold: both(way.hold, Can::HOLD),
        drop_recipients: both(way.drop_recipients, Can::DROP_RECIPIENTS),
        discard: way.discard,
        contents_by_recipient: both(way.contents_by_recipient, Can::CONTENTS_BY_RECIPIENT),
    }
}

/// The envelope. Octets that are not UTF-8 become replacement characters: the client keeps its own.
pub(crate) fn envelope(request: &Request) -> Envelope {
    let address = |octets: &Vec<u8>| Address::new(&*String::from_utf8_lossy(octets));
    Envelope { sender: address(&request.sender), recipients: request.recipients.iter().map(address).collect() }
}

/// Where the mail came from. The client's word for the direction comes before the way's own.
pub(crate) fn origin(
    request: &Request,
    way: &Arc<str>,
    default: OriginClass,
    origins: &Origins,
    sender: &Address,
) -> Origin {
    let said = request.class.map_or(default, |class| match class {
        Class::Inbound => OriginClass::Inbound,
        Class::Submission => OriginClass::Submission,
        Class::Internal => OriginClass::Internal,
    });
    let text = |text: &Option<String>| text.as_deref().map(Into::into);
    Origin {
        way: Arc::clone(way),
        class: origins.classify(request.client, request.user.is_some(), sender, Some(said)),
        client: request.client,
        client_name: text(&request.client_name),
        helo: text(&request.helo),
        user: text(&request.user),
        tls: request.tls,
        queue_id: text(&request.queue_id),
    }
}

/// An answer, and what goes over with it.
pub(crate) struct Prepared {
    pub(crate) answer: Answer,
    /// Whole contents, each to go as a descriptor.
    pub(crate) enclosed: Vec<Vec<Piece>>,
    /// Octets behind the answer's list.
    pub(crate) octets: Vec<u8>,
}

/// What the client is told of a mail that was judged.
pub(crate) fn prepare(judged: &Judged, header: Option<&Header>, changed: Changed) -> Prepared {
    let fitted = &judged.fitted;
    let mut prepared = Prepared {
        answer: Answer {
            id: judged.mail.id.to_string(),
            decision: decision(&fitted.answer),
            outcomes: Vec::new(),
            contents: Vec::new(),
        },
        enclosed: Vec::new(),
        octets: Vec::new(),
    };
    if matches!(fitted.answer, Fit::Refuse(_)) {
        return prepared;
    }
    let mut known: Vec<&Arc<[Edit]>> = Vec::new();
    for outcome in &fitted.outcomes {
        let content = outcome.disposition.is_handed_on().then(|| {
            known.iter().position(|edits| **edits == outcome.edits).unwrap_or_else(|| {
                known.push(&outcome.edits);
                prepared.add(judged, header, &outcome.edits, changed);
                known.len() - 1
            })
        });
        prepared.answer.outcomes.push(written(outcome, content));
    }
    prepared
}

impl Prepared {
    fn add(&mut self, judged: &Judged, header: Option<&Header>, edits: &[Edit], changed: Changed) {
        let form = match header {
            None => Form::Same,
            Some(header) => self.form(judged, header, edits, changed),
        };
        let (mut sender, mut added) = (None, Vec::new());
        let recipients = &judged.mail.envelope.recipients;
        for edit in edits {
            match edit {
                Edit::ChangeSender(address) => sender = Some(address.as_str().to_owned()),
                Edit::AddRecipient(address) => {
                    // Nobody is served twice, by another content or by another rule.
                    let mut all = self.answer.contents.iter().flat_map(|content| &content.added).chain(&added);
                    let is_there = judged.fitted.is_handed_to(address, recipients);
                    if !is_there && !all.any(|known| known == address.as_str()) {
                        added.push(address.as_str().to_owned());
                    }
                }
                _ => {}
            }
        }
        self.answer.contents.push(Content { form, sender, added });
    }

    fn form(&mut self, judged: &Judged, header: &Header, edits: &[Edit], changed: Changed) -> Form {
        let content = &judged.mail.content;
        let pieces = edited::pieces(content, header, edits, "", header.line_end().unwrap_or("\n"));
        let kept: u64 = pieces.iter().map(|piece| if let Piece::Range(..) = piece { piece.len() } else { 0 }).sum();
        if kept == content.len() && kept == pieces.iter().map(Piece::len).sum::<u64>() {
            return Form::Same;
        }
        match changed {
            Changed::Descriptor => {
                self.enclosed.push(pieces);
                Form::Descriptor
            }
            Changed::Pieces => {
                let part = |piece: &Piece| match piece {
                    Piece::Range(_, offset, length) => Part::Keep(*offset, *length),
                    Piece::Bytes(bytes) => {
                        self.octets.extend_from_slice(bytes);
                        Part::Put(bytes.len() as u64)
                    }
                };
                Form::Pieces(pieces.iter().map(part).collect())
            }
        }
    }
}

/// The same answer for everybody, without a verdict.
pub(crate) fn refusal(id: &str, disposition: &Disposition) -> Answer {
    let decision = decision(&Fit::Refuse(disposition.clone()));
    Answer { id: id.to_owned(), decision, outcomes: Vec::new(), contents: Vec::new() }
}

fn decision(answer: &Fit) -> Decision {
    match answer {
        Fit::ByRecipient => Decision::ByRecipient,
        Fit::Accept => Decision::Accept,
        Fit::Refuse(Disposition::Reject(rejection)) => Decision::Reject(rejection.to_string()),
        Fit::Refuse(Disposition::Defer(deferral)) => Decision::Defer(deferral.to_string()),
        // Only refusals refuse; said of anything else, it must not become "taken".
        Fit::Refuse(_) => Decision::Defer(checkpost_core::Deferral::local_problem().to_string()),
    }
}

fn written(outcome: &Judgement, content: Option<usize>) -> Outcome {
    match (&outcome.disposition, content) {
        (Disposition::Deliver, Some(content)) => Outcome::Deliver(content),
        (Disposition::Hold(reason), Some(content)) => Outcome::Hold(content, reason.as_str().to_owned()),
        (Disposition::Reject(rejection), _) => Outcome::Reject(rejection.to_string()),
        (Disposition::Defer(deferral), _) => Outcome::Defer(deferral.to_string()),
        (Disposition::Discard, _) if !outcome.quarantine => Outcome::Discard,
        _ => Outcome::Quarantine,
    }
}
