//! What must come of a mail, whoever asks: in a session by what the client is told and by what arrives.

use checkpost_tests::mails;
use checkpost_tests::zmailer::Mail;

pub(crate) const ALICE: &str = "alice@example.test";
pub(crate) const BOB: &str = "bob@example.test";
pub(crate) const SENDER: &str = "sender@remote.test";

/// An smtpserver with our filter.
pub(crate) trait Server {
    /// One session: the replies to the final dots, without ZMailer's id of the mail.
    fn session(&self, mails: &[Mail]) -> Vec<String>;
    /// What has arrived since, when so many mails have: the user and the message.
    fn delivered(&self, mails: usize) -> Vec<(String, String)>;
    /// What is in the freezer, which is emptied.
    fn frozen(&self) -> Vec<String>;
    /// For a test that fails.
    fn said(&self) -> String;
}

pub(crate) fn mail(subject: &str, recipients: &[&str]) -> Mail {
    Mail::new(SENDER, recipients, message(subject, "text").as_bytes())
}

pub(crate) fn message(subject: &str, body: &str) -> String {
    format!("From: <{SENDER}>\nTo: <{ALICE}>\nSubject: {subject}\n\n{body}\n")
}

pub(crate) fn body(message: &str) -> &str {
    message.split_once("\n\n").map_or("", |(_, body)| body).trim_end()
}

/// The id at a reply's end is each mail's own.
pub(crate) fn without_id(reply: &str) -> String {
    reply.rsplit_once("; ").map_or(reply, |(reply, _)| reply).to_owned()
}

/// One mail: what was told, and who got it.
fn check(server: &dyn Server, mail: &Mail, reply: &str, users: &[&str]) -> Vec<String> {
    let told = server.session(std::slice::from_ref(mail));
    let shown = || format!("{:?}\n{}", String::from_utf8_lossy(&mail.message), server.said());
    assert_eq!(told, [reply], "{}", shown());
    let mut delivered = server.delivered(users.len());
    delivered.sort();
    assert_eq!(delivered.iter().map(|(user, _)| &**user).collect::<Vec<_>>(), users, "{}", shown());
    delivered.into_iter().map(|(_, message)| message).collect()
}

pub(crate) fn every_answer(server: &dyn Server) {
    let accepted = "250 2.0.0 Ok";
    let check = |mail: &Mail, reply: &str, users: &[&str]| check(server, mail, reply, users);
    let both = [ALICE, BOB];

    let clean = check(&mail("clean", &[ALICE]), accepted, &["alice"]);
    assert_eq!(body(&clean[0]), "text");
    let eicar =
        Mail { message: message("x", &String::from_utf8(mails::eicar()).unwrap()).into_bytes(), ..mail("", &both) };
    let told = server.session(&[eicar]);
    assert!(told[0].starts_with("550 5.7.1 Content-Policy reject msg: Message contains malware ("), "{told:?}");
    let spam = Mail { message: message("x", &mails::gtube()).into_bytes(), ..mail("", &[ALICE]) };
    check(&spam, "550 5.7.1 Content-Policy reject msg: Spam is not taken", &[]);
    check(&mail("no thanks", &[ALICE]), "550 5.7.0 Content-Policy reject msg: No thanks", &[]);
    check(&mail("come later", &both), "451 4.7.5 Content-Policy reject msg: Not now", &[]);
    check(&mail("for nobody", &[ALICE]), "250 2.7.1 Content-Policy reject msg: Ok", &[]);
    // None of these left anything.
    assert_eq!(server.frozen(), [""; 0], "{}", server.said());

    check(&mail("look at it", &both), "250 2.7.1 Content-Policy accept-into-freezer-1 msg: Ok", &[]);
    let frozen = server.frozen();
    assert_eq!(frozen.len(), 1, "{}", server.said());
    assert!(
        frozen[0].contains("to <bob@example.test>\nenv-end\n") && frozen[0].ends_with("\n\ntext\n"),
        "{}",
        frozen[0]
    );

    let alone = check(&mail("not for bob", &both), accepted, &["alice"]);
    assert_eq!(body(&alone[0]), "text");
    check(&mail("not for bob", &[BOB]), "250 2.7.1 Content-Policy reject msg: Ok", &[]);
    for message in check(&mail("new body", &both), accepted, &["alice", "bob"]) {
        assert_eq!(body(&message), "It was taken away.");
        assert!(message.contains("Subject: new body\n"), "{message}");
    }
    let long = Mail { message: message("new body", &"long line\n".repeat(20_000)).into_bytes(), ..mail("", &[ALICE]) };
    assert_eq!(body(&check(&long, accepted, &["alice"])[0]), "It was taken away.");
    let field = check(&mail("new field", &[ALICE]), accepted, &["alice"]);
    assert!(field[0].contains("X-Checked: yes\n") && body(&field[0]) == "text", "{}", field[0]);
    check(&mail("copy to bob", &[ALICE]), accepted, &["alice", "bob"]);
    // With other content, for one of them less.
    let one = check(&mail("new body, not for bob", &both), accepted, &["alice"]);
    assert_eq!(body(&one[0]), "It was taken away.");

    let bounce = |subject: &str| Mail { sender: String::new(), ..mail(subject, &[ALICE]) };
    check(&bounce("clean"), accepted, &["alice"]);
    check(&bounce("come later"), "451 4.7.5 Content-Policy reject msg: Not now", &[]);
}

/// Several mails in a session, each with its own fate.
pub(crate) fn one_session(server: &dyn Server) {
    let mails =
        ["clean", "come later", "new field", "for nobody", "clean", "no thanks", "clean"].map(|s| mail(s, &[ALICE]));
    let told = server.session(&mails);
    let codes: Vec<&str> = told.iter().map(|reply| &reply[..9]).collect();
    assert_eq!(
        codes,
        ["250 2.0.0", "451 4.7.5", "250 2.0.0", "250 2.7.1", "250 2.0.0", "550 5.7.0", "250 2.0.0"],
        "{told:?} {}",
        server.said()
    );
    assert_eq!(server.delivered(4).len(), 4, "{}", server.said());
}
