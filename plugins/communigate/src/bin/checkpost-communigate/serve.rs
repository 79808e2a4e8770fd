//! The server's lines in, ours out, and all mails at once on one thread. What a mail is about is not known here.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use checkpost_communigate::session::{Event, Number, Reply, Session};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, Sender, UnboundedSender, channel, unbounded_channel};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::desk::Desk;
use crate::log;

/// Read at once, in octets.
const BLOCK: usize = 4 << 10;
/// So many more mails than are checked may wait.
const WAITING: usize = 1000;
/// A mail that waits is put off so long before its time is over.
const SOON: Duration = Duration::from_secs(3);
/// Threads for files: a slow disk holds up these.
const FILE_THREADS: usize = 4;
/// How often the folder is looked through for mails that the server did not take.
const LOOK: Duration = Duration::from_secs(60);
/// And how often each of them is spoken of again.
const AGAIN: u32 = 60;

/// Serves until the server's lines end and all its mails have an answer. `requests` mails are checked at once.
///
/// # Errors
/// A thread or the runtime cannot be had.
pub(crate) fn serve(desk: &Arc<Desk>, requests: usize, timeout: Duration) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(FILE_THREADS)
        .thread_name("files")
        .build()?;
    let (heard, lines) = channel(16);
    // A thread of its own: what is read need not be a pipe, and its flags are not ours to change.
    std::thread::Builder::new().name("hear".into()).spawn(move || hear(&heard))?;
    runtime.block_on(run(desk, requests, timeout, lines));
    // A file operation that hangs is not waited for.
    runtime.shutdown_background();
    Ok(())
}

fn hear(heard: &Sender<Vec<u8>>) {
    let mut stdin = io::stdin().lock();
    let mut block = [0; BLOCK];
    loop {
        match stdin.read(&mut block) {
            Ok(0) => return,
            Ok(count) if heard.blocking_send(block[..count].to_vec()).is_err() => return,
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return,
            _ => {}
        }
    }
}

async fn run(desk: &Arc<Desk>, requests: usize, timeout: Duration, mut lines: Receiver<Vec<u8>>) {
    let mut session = Session::default();
    let (answer, mut answers) = unbounded_channel();
    let places = Arc::new(Semaphore::new(requests));
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut admitted, mut looks) = (0, 0);
    let mut ended = false;
    while !ended || session.open() > 0 {
        tokio::select! {
            octets = lines.recv(), if !ended => match octets {
                Some(octets) => {
                    for event in session.take(&octets) {
                        match event {
                            Event::Say(line) => log::say(line),
                            Event::Check(number, path) => {
                                if admitted >= requests + WAITING {
                                    session.answer(&number, &Reply::default()).into_iter().for_each(log::say);
                                } else {
                                    admitted += 1;
                                    let ticket = Ticket { number: Some(number), answer: answer.clone() };
                                    let (desk, places) = (Arc::clone(desk), Arc::clone(&places));
                                    tokio::spawn(check(desk, places, ticket, path, timeout));
                                }
                            }
                        }
                    }
                }
                None => ended = true,
            },
            Some((number, reply)) = answers.recv() => {
                admitted -= 1;
                session.answer(&number, &reply).into_iter().for_each(log::say);
            }
            _ = look.tick() => {
                tokio::task::spawn_blocking({
                    let desk = Arc::clone(desk);
                    let first = looks % AGAIN == 0;
                    move || look_for_bad(&desk, first)
                });
                looks += 1;
            }
        }
    }
}

async fn check(desk: Arc<Desk>, places: Arc<Semaphore>, ticket: Ticket, path: Vec<u8>, timeout: Duration) {
    let came = Instant::now();
    let reply = match tokio::time::timeout(timeout.saturating_sub(SOON), places.acquire()).await {
        Ok(Ok(_place)) => desk.reply(path, came).await,
        _ => {
            log::note(&checkpost_communigate::map::id(&path), "mail put off: too many mails at once");
            Reply::default()
        }
    };
    ticket.say(reply);
}

/// A mail that is owed an answer, and gets one.
struct Ticket {
    number: Option<Number>,
    answer: UnboundedSender<(Number, Reply)>,
}

impl Ticket {
    fn say(mut self, reply: Reply) {
        if let Some(number) = self.number.take() {
            let _ = self.answer.send((number, reply));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // After a fault of this program.
        if let Some(number) = self.number.take() {
            let _ = self.answer.send((number, Reply::default()));
        }
    }
}

fn look_for_bad(desk: &Desk, all: bool) {
    desk.bad(all).iter().for_each(|name| {
        log::note(
            "",
            format_args!("LOST unless somebody looks: the server did not take Submitted/{name}; see its log"),
        );
    });
}
