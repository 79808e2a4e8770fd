//! What makes readers of mail differ, what makes archives endless, and what is only odd.

use std::io::{Cursor, Write};

use bytes::Bytes;
use zip::write::SimpleFileOptions;

use super::super::*;
use super::{base64, eicar, gtube};
use crate::config::{Document, Problems};
use crate::content::{ContentWriter, Spool};
use crate::mail::{Envelope, MailId, Origin};

fn context() -> Context {
    Context { deadline: Instant::now() + Duration::from_secs(60), unpacking: Unpacking::default() }
}

fn run(builtin: &Builtin, content: Content, context: &Context) -> Vec<Finding> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let envelope = Envelope { sender: "a@example.org".into(), recipients: vec!["b@example.org".into()] };
    let mail = Mail { id: MailId::new(), envelope, origin: Origin::inbound("test"), content };
    runtime.block_on(builtin.check(&mail, context)).unwrap()
}

/// In memory and spooled: both must find the same.
pub(super) fn findings_with(toml: &str, mail: &[u8]) -> Vec<Finding> {
    let mut problems = Problems::default();
    let mut document = Document::parse("test", toml, &mut problems);
    let config = document.take_section::<BuiltinConfig>("config", &mut problems);
    assert!(problems.is_empty(), "{problems}");
    let builtin = Builtin::new(config.unwrap_or_default()).unwrap();
    let memory = run(&builtin, Bytes::copy_from_slice(mail).into(), &context());
    let directory = tempfile::tempdir().unwrap();
    let spool = Arc::new(Spool { directory: directory.path().into(), memory_limit: 0 });
    let mut writer = ContentWriter::new(spool);
    writer.append(mail).unwrap();
    let spooled = run(&builtin, writer.finish(), &context());
    assert_eq!(memory, spooled);
    memory
}

pub(super) fn findings(mail: &[u8]) -> Vec<Finding> {
    findings_with("", mail)
}

pub(super) fn shown(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|f| format!("{} {} {}", f.kind.as_str(), f.name, f.part.as_deref().unwrap_or("-"))).collect()
}

pub(super) fn mixed(parts: &[String]) -> Vec<u8> {
    let mut mail =
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=_b\"\r\n\r\npreamble\r\n".to_owned();
    for part in parts {
        mail += &format!("--=_b\r\n{part}\r\n");
    }
    (mail + "--=_b--\r\n").into_bytes()
}

pub(super) fn attachment(name: &str, bytes: &[u8]) -> String {
    let body = base64(bytes);
    format!(
        "Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{body}"
    )
}

pub(super) fn text() -> String {
    "Content-Type: text/plain\r\n\r\nhello".to_owned()
}

pub(super) fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    zip_by(zip::CompressionMethod::Deflated, members)
}

fn zip_by(method: zip::CompressionMethod, members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        writer.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[track_caller]
fn check(mail: &[u8], expected: &[&str]) {
    assert_eq!(shown(&findings(mail)), expected, "{}", String::from_utf8_lossy(&mail[..mail.len().min(2000)]));
}

const EICAR: &str = "malware Eicar-Test-Signature";

#[test]
fn clean_mails_have_no_findings() {
    check(b"Subject: x\r\n\r\nhello\r\n", &[]);
    check(&mixed(&[text(), attachment("a.bin", &[7; 5000]), attachment("a.zip", &zip(&[("a", b"x")]))]), &[]);
    check(b"", &[]);
}

#[test]
fn the_test_strings_are_found_wherever_they_are() {
    let eicar = eicar();
    let gtube = gtube();
    check(format!("Subject: x\r\n\r\n{eicar}\r\n").as_bytes(), &[&format!("{EICAR} 1")]);
    check(format!("Subject: {gtube}\r\n\r\nx\r\n").as_bytes(), &["spam GTUBE -"]);
    check(eicar.as_bytes(), &[&format!("{EICAR} -")]);
    check(&mixed(&[text(), attachment("eicar.com", eicar.as_bytes())]), &[&format!("{EICAR} 2")]);
    let soft: String = eicar.bytes().map(|o| format!("={o:02X}=\r\n")).collect();
    let quoted = format!("Content-Transfer-Encoding: quoted-printable\r\n\r\n{soft}");
    check(&mixed(&[quoted]), &[&format!("{EICAR} 1")]);
    let one = zip(&[("folder/eicar.com", eicar.as_bytes())]);
    check(&mixed(&[text(), attachment("a.zip", &one)]), &[&format!("{EICAR} 2/a.zip/folder/eicar.com")]);
    let two = zip(&[("readme", b"x"), ("b.zip", &one)]);
    check(&mixed(&[text(), attachment("a.zip", &two)]), &[&format!("{EICAR} 2/a.zip/b.zip/folder/eicar.com")]);
    let stored = zip_by(zip::CompressionMethod::Stored, &[("b.zip", &zip(&[("e", eicar.as_bytes())]))]);
    check(&mixed(&[attachment("a", &stored)]), &[&format!("{EICAR} 1/a/b.zip/e")]);
    // Known by its octets, whatever its name, and behind another file.
    let mut prefixed = vec![b'M', b'Z', 0, 1];
    prefixed.resize(100_000, 3);
    prefixed.extend_from_slice(&one);
    check(&mixed(&[attachment("setup.exe", &prefixed)]), &[&format!("{EICAR} 1/setup.exe/folder/eicar.com")]);
    // Messages within messages, said so or not, encoded or not.
    let inner = String::from_utf8(mixed(&[text(), attachment("e", eicar.as_bytes())])).unwrap();
    check(
        &mixed(&[format!("Content-Type: message/rfc822\r\n\r\n{}", inner.replace("=_b", "=_c"))]),
        &[&format!("{EICAR} 1.2")],
    );
    check(&mixed(&[attachment("m", inner.as_bytes())]), &[&format!("{EICAR} 1.2")]);
    let lie = format!("Content-Type: text/plain\r\n\r\n{}", inner.replace("=_b", "=_c"));
    check(&mixed(&[lie]), &[&format!("{EICAR} 1.2")]);
    let in_zip = zip(&[("m.eml", inner.as_bytes())]);
    check(&mixed(&[attachment("a.zip", &in_zip)]), &[&format!("{EICAR} 1/a.zip/m.eml.2")]);
    let whole = base64(&inner.as_bytes()[inner.find("\r\n\r\n").unwrap() + 4..]);
    let encoded =
        format!("Content-Type: multipart/mixed; boundary=\"=_b\"\r\nContent-Transfer-Encoding: base64\r\n\r\n{whole}");
    check(encoded.as_bytes(), &[&format!("{EICAR} 1.2")]);
}

#[test]
fn what_readers_differ_in_hides_nothing() {
    let body = base64(eicar().as_bytes());
    let head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
    let part = format!("Content-Transfer-Encoding: base64\r\n\r\n{body}");
    for mail in [
        format!("{head}--b\r\n{part}"),
        format!("{head}--b   \r\n{part}--b--"),
        format!("{head}--b junk\r\n{part}--b--"),
        format!("{head}--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n--b\r\n{part}--b--\r\n"),
        format!("{head}--b\r\n{part}--b--").replace("\r\n", "\n"),
        format!("Content-Type: multipart/mixed\r\n\r\n--guess\r\n{part}--guess--"),
        format!("Content-Transfer-Encoding : BASE64 (really)\r\n\r\n{body}"),
        format!("Content-Transfer-Encoding: base64\r\n\r\n{}", body.replace('\n', "\n!*-\n")),
        format!("Content-Transfer-Encoding: base64\r\n\r\nYQ==\r\n{body}"),
        format!("Content-Transfer-Encoding: base64\r\n\r\n{body}\r\n-- \r\nlist footer\r\n"),
        format!("Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: base64\r\n\r\n{body}"),
    ] {
        let found = shown(&findings(mail.as_bytes()));
        assert!(found.iter().any(|f| f.starts_with(EICAR)), "{mail}: {found:?}");
    }
    let two = format!("Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64\r\n\r\n{body}");
    check(two.as_bytes(), &["policy two encodings -", &format!("{EICAR} 1")]);
    let two = format!("Content-Type: multipart/mixed; boundary=b\r\nContent-Type: text/html\r\n\r\n--b\r\n{part}");
    check(two.as_bytes(), &["policy two content types -", &format!("{EICAR} 1")]);
}

#[test]
fn base64_lines_of_any_length_are_read() {
    // 36 + 2 + 38 octets: a line end stands where that of a usual line would, and another before it.
    for lengths in [&[36, 38][..], &[4], &[1, 2, 3], &[76, 40], &[998], &[77]] {
        let bytes = [vec![b'y'; 3000], eicar().into_bytes(), vec![b'z'; 3000]].concat();
        let mut text = base64(&bytes).replace("\r\n", "");
        let mut body = String::new();
        for length in lengths.iter().cycle() {
            let rest = text.split_off(*length.min(&text.len()));
            body += &format!("{text}\r\n");
            text = rest;
            if text.is_empty() {
                break;
            }
        }
        let mail = format!("Content-Transfer-Encoding: base64\r\n\r\n{body}");
        check(mail.as_bytes(), &[&format!("{EICAR} 1")]);
    }
}

#[test]
fn uuencoded_files_are_found() {
    let eicar = eicar().into_bytes();
    let lines: String = eicar
        .chunks(45)
        .map(|line| {
            let mut text = String::from(char::from(line.len() as u8 + 32));
            for three in line.chunks(3) {
                let bits = (0..3).fold(0u32, |bits, at| bits << 8 | u32::from(*three.get(at).unwrap_or(&0)));
                text.extend((0..4).rev().map(|at| char::from((bits >> (6 * at) & 63) as u8 + 32)));
            }
            text + "\r\n"
        })
        .collect();
    let mail = format!("Subject: x\r\n\r\nbegin 644 fake\r\nbegin 644 eicar.com\r\n{lines}`\r\nend\r\nbye\r\n");
    check(mail.as_bytes(), &[&format!("{EICAR} 1/eicar.com")]);
}

const RULES: &str = r#"
    [[config.attachment]]
    name = "programs"
    file = ["*.exe", "*.scr"]
    type = ["executable"]
    [[config.attachment]]
    name = "macros"
    type = ["office-macro"]
    [[config.attachment]]
    name = "top"
    file = ["*.pdf.*"]
    type = ["application/pdf", "script"]
    in_archives = false
"#;

#[test]
fn attachments_are_found_by_name_and_by_type() {
    let program: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0";
    for (part, expected) in [
        (attachment("A.EXE", b"x"), &["policy programs 1"][..]),
        (attachment("a.txt", program), &["policy programs 1"]),
        (attachment("a.zip", &zip(&[("b/c.Exe", b"x")])), &["policy programs 1/a.zip/b/c.Exe"]),
        (attachment("a.zip", &zip(&[("c", program)])), &["policy programs 1/a.zip/c"]),
        (attachment("a.docx", &zip(&[("word/vbaProject.bin", b"x")])), &["policy macros 1"]),
        (attachment("a.pdf.txt", b"x"), &["policy top 1"]),
        (attachment("x", b"%PDF-1.7\n"), &["policy top 1"]),
        (attachment("x", b"#!/bin/sh\n"), &["policy top 1"]),
        (attachment("a.zip", &zip(&[("b.pdf.txt", b"%PDF-1.7\n")])), &[]),
        (attachment("a.txt", b"x"), &[]),
    ] {
        assert_eq!(shown(&findings_with(RULES, &mixed(std::slice::from_ref(&part)))), expected, "{part}");
    }
    let mut compound = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec();
    compound.resize(1024, 0);
    compound.extend("_VBA_PROJECT".encode_utf16().flat_map(u16::to_le_bytes));
    compound.resize(2048, 0);
    assert_eq!(shown(&findings_with(RULES, &mixed(&[attachment("a.doc", &compound)]))), ["policy macros 1"]);
}

#[test]
fn archives_that_cannot_be_trusted_are_never_clean() {
    let sound = zip(&[("a.txt", &[b'a'; 5000]), ("b.txt", b"bbbb")]);
    let central = memchr::memmem::find(&sound, b"PK\x01\x02").unwrap();
    let second = central + 4 + memchr::memmem::find(&sound[central + 4..], b"PK\x01\x02").unwrap();
    let change = |changes: &[(usize, u8)]| {
        let mut zip = sound.clone();
        for (at, octet) in changes {
            zip[*at] = *octet;
        }
        shown(&findings(&mixed(&[attachment("a.zip", &zip)])))
    };
    let unreadable = ["unscanned unreadable 1"];
    assert_eq!(change(&[]), [""; 0]);
    assert_eq!(
        change(&[(6, sound[6] | 1), (central + 8, sound[central + 8] | 1)]),
        ["encrypted encrypted-archive-member 1/a.zip/a.txt"]
    );
    assert_eq!(change(&[(8, 99), (central + 10, 99)]), ["unscanned unreadable 1/a.zip/a.txt"]);
    assert_eq!(change(&[(central + 24, 1)]), ["unscanned unreadable 1/a.zip/a.txt"], "lying size");
    assert_eq!(change(&[(central + 16, !sound[central + 16])]), ["unscanned unreadable 1/a.zip/a.txt"], "checksum");
    assert_eq!(change(&[(30, b'x')]), unreadable, "two names");
    // The second member's entry says it is where the first is.
    let offset = second + 42;
    assert_eq!(change(&[(offset, 0), (offset + 1, 0)]), unreadable, "overlap");
    let cut = shown(&findings(&mixed(&[attachment("a.zip", &sound[..sound.len() - 30])])));
    assert_eq!(cut, unreadable);
}

#[test]
fn bombs_meet_a_bound() {
    let zeros = zip(&[("zeros", &vec![0; 20 << 20])]);
    check(&mixed(&[attachment("a.zip", &zeros)]), &["limit grows-too-much 1/a.zip/zeros"]);
    let mut nested = eicar().into_bytes();
    for depth in 0..40 {
        nested = zip(&[(&format!("{depth}.zip"), &nested)]);
    }
    let found = shown(&findings(&mixed(&[attachment("a.zip", &nested)])));
    assert!(found.iter().any(|f| f.starts_with("limit nested-too-deep")), "{found:?}");
    let many: Vec<u8> = zip(&(0..10_010)
        .map(|_| "x")
        .enumerate()
        .map(|(n, _)| format!("{n}"))
        .collect::<Vec<_>>()
        .iter()
        .map(|name| (&**name, &b""[..]))
        .collect::<Vec<_>>());
    check(&mixed(&[attachment("a.zip", &many)]), &["limit too-many-parts -"]);
}

#[test]
fn odd_mails_take_bounded_time_and_are_told() {
    let eicar = eicar();
    let start = Instant::now();
    check(&vec![0; 1 << 20], &[]);
    check(&vec![b'x'; 1 << 20], &[]);
    check(format!("Subject: x\r\n\r\n{}", "y".repeat(1 << 20)).as_bytes(), &[]);
    check(format!("X: {}\r\n\r\n{eicar}", "y".repeat(10 << 20)).as_bytes(), &[&format!("{EICAR} 1")]);
    check(format!("{}\r\n{eicar}", "X: y\r\n".repeat(2 << 20)).as_bytes(), &[&format!("{EICAR} 1")]);
    check(b"X: \xff\xfe\0\r\nContent-Type: \xff\xff/\0; name=\xff\r\n\r\nx", &[]);
    let boundary = "b".repeat(1 << 20);
    let mail = format!("Content-Type: multipart/mixed; boundary={boundary}\r\n\r\n--{boundary}\r\n\r\nx\r\n");
    let found = shown(&findings(mail.as_bytes()));
    assert!(!found.is_empty(), "an overlong boundary is not clean");
    check(&mixed(&vec![text(); 10_000]), &["limit too-many-parts -"]);
    check(&mixed(&vec![text(); 9_000]), &[]);
    let nested = "Content-Type: message/rfc822\r\n\r\n".repeat(500) + &eicar;
    let found = shown(&findings(nested.as_bytes()));
    assert!(found.iter().any(|f| f.starts_with("limit nested-too-deep")), "{found:?}");
    assert!(found.iter().any(|f| f.starts_with(EICAR)), "{found:?}");
    let nested: String =
        (0..500).map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}x\r\n\r\n--b{n}x\r\n")).collect();
    let found = shown(&findings(nested.as_bytes()));
    assert!(found.iter().any(|f| f.starts_with("limit nested-too-deep")), "{found:?}");
    check("\n--".repeat(1 << 18).as_bytes(), &[]);
    check(&[b"Content-Type: multipart/x; boundary=b\n\n".to_vec(), b"\n--".repeat(1 << 18)].concat(), &[]);
    let mail = format!("Subject: x\r\n\r\n{}", "begin 644 x\r\n".repeat(5_000));
    check(mail.as_bytes(), &[]);
    // Generous: it is a bound against hanging, not a measurement.
    assert!(start.elapsed() < Duration::from_secs(50), "{:?}", start.elapsed());
}

#[test]
fn a_passed_deadline_is_told() {
    let builtin = Builtin::new(BuiltinConfig::default()).unwrap();
    let context = Context { deadline: Instant::now(), unpacking: Unpacking::default() };
    let found = run(&builtin, Bytes::from_static(b"Subject: x\r\n\r\nx\r\n").into(), &context);
    assert_eq!(shown(&found), ["unscanned timeout -"]);
}
