//! Transcripts: `C:` says a line, `S:` is the beginning of the next reply (all its lines in one).
//!
//! Neighbouring `C:` lines are one write. `{CR}`, `{LF}` and `{NOEND}` (no CRLF behind the line)
//! stand for what a line cannot show.

use checkpost_adapter::conformance::{Does, Slicing, Then};

use super::client::{Scripted, Turn};
use super::{Setup, Theatre};

/// Plays the transcript in every slicing.
pub fn check(name: &str, setup: impl Fn() -> Setup, transcript: &str, then: impl Fn(&Theatre)) {
    for slicing in Slicing::ALL {
        let mut theatre = setup().sliced(slicing).theatre();
        play(&format!("{name}, {slicing:?}"), &mut theatre, transcript);
        then(&theatre);
    }
}

/// Plays one session of a transcript.
pub fn play(name: &str, theatre: &mut Theatre, transcript: &str) {
    play_until(name, theatre, transcript, Then::Finish);
}

pub fn play_until(name: &str, theatre: &mut Theatre, transcript: &str, end: Then) {
    let mut turns: Vec<Turn> = Vec::new();
    let mut greeting = 0;
    let mut wanted = Vec::new();
    let mut after_reply = true;
    for line in transcript.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.split_at(2) {
            ("C:", said) => {
                let mut said = said.trim_start().replace("{CR}", "\r").replace("{LF}", "\n");
                match said.strip_suffix("{NOEND}") {
                    Some(rest) => said = rest.to_owned(),
                    None => said.push_str("\r\n"),
                }
                if after_reply {
                    turns.push(Turn { does: Does::default(), replies: 0 });
                }
                turns.last_mut().unwrap().does.say.extend(said.bytes());
                after_reply = false;
            }
            ("S:", reply) => {
                after_reply = true;
                wanted.push(reply.trim().to_owned());
                match turns.last_mut() {
                    Some(turn) => turn.replies += 1,
                    None => greeting += 1,
                }
            }
            _ => panic!("{name}: {line:?} is neither C: nor S:"),
        }
    }
    let (client, heard) = Scripted::new(turns, greeting, end);
    theatre.play(client);
    let heard = heard.lock().unwrap();
    let heard: Vec<String> = heard.replies.iter().map(|reply| format!("{} {}", reply.code, reply.text())).collect();
    let fits =
        heard.len() == wanted.len() && heard.iter().zip(&wanted).all(|(heard, wanted)| heard.starts_with(wanted));
    assert!(
        fits,
        "{name}\nheard:  {heard:#?}\nwanted: {wanted:#?}\nhop heard: {:#?}",
        theatre.hop.lock().unwrap().heard
    );
}
