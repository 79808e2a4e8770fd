//! Mails and envelopes of every shape: on to the original to the byte, or not at all.

use super::*;

#[test]
fn mails_of_every_shape_go_on_to_the_byte() {
    let scene = Scene::new("");
    let caller = scene.caller();
    let one = to(&["b@x"]);
    for size in [0, 1, 65_535, 65_536, 65_537, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 10 << 20] {
        let line = b"Subject: x\n\n0123456789\n".repeat(size / 10 + 1);
        passes(&scene, &caller, &line[..size], &one);
    }
    passes(&scene, &caller, b"Subject: \xe4\xf6\n\n\0 NUL, CR \r, no end", &one);
    for (sender, recipients) in [
        (&b""[..], vec![&b"b@x"[..]]),
        (b"#@[]", vec![b"b@x"]),
        (b"list-@[]", vec![b"b@x", b"b@x", b"\xff\xfe@x"]),
        (b"a b\"@x", vec![b"<odd> \\@x"]),
    ] {
        passes(&scene, &caller, &mail(), &envelope(sender, &recipients));
    }
    let long = [&[b'a'; 1000][..], b"@x"].concat();
    assert_eq!(long.len(), 1002);
    passes(&scene, &caller, &mail(), &envelope(&long, &[&long]));
    let many: Vec<String> = (0..10_000).map(|number| format!("user{number}@x")).collect();
    passes(&scene, &caller, &mail(), &to(&many.iter().map(String::as_str).collect::<Vec<_>>()));
    // What stands behind the envelope is not looked at, and not handed on.
    let left = caller.deliver(&mail(), &[&one[..], b"more"].concat());
    assert_eq!(left.code, Some(0));
    assert_eq!(scene.home.calls()[0].envelope, one);
}

#[test]
fn what_is_taken_back_or_wrong_never_reaches_the_original() {
    let scene = Scene::new("");
    let caller = scene.caller();
    let longer = [&[b'a'; 1001][..], b"@x"].concat();
    for (message, envelope, code) in [
        (mail(), Vec::new(), 54),
        (Vec::new(), Vec::new(), 54),
        (mail()[..9].to_vec(), b"Fs@".to_vec(), 54),
        (mail(), b"Fs@x\0Tb@x\0".to_vec(), 54),
        (mail(), b"Fs@x\0Tb@".to_vec(), 54),
        (mail(), b"Xs@x\0Tb@x\0\0".to_vec(), 91),
        (mail(), b"Fs@x\0Bb@x\0\0".to_vec(), 91),
        (mail(), envelope(b"s@x", &[&longer]), 11),
        (mail(), envelope(&longer, &[b"b@x"]), 11),
    ] {
        let left = caller.deliver(&message, &envelope);
        assert_eq!(left.code, Some(code), "{envelope:?}: {left:?}");
        assert_eq!(scene.home.started(), 0);
    }
    // Gone in the middle of a message that has left the memory.
    let mut running = caller.start().unwrap();
    running.write(&b"x\n".repeat(2 << 20));
    running.kill();
    assert_eq!(running.finish().reply, "451 qq crashed (#4.3.0)");
    scene.clean();
    assert!(!scene.log().contains("mail done"), "nothing was asked: {}", scene.log());
}

#[test]
fn nobody_is_there_to_get_it() {
    let scene = Scene::new("");
    passes(&scene, &scene.caller(), &mail(), b"Fs@x\0\0");
}
