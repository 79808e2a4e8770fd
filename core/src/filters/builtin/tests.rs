//! Mails that a sender makes to be found out, and those made not to be.

mod evasions;
mod properties;

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::content::{ContentWriter, Spool};
use crate::filter::Unpacking;
use crate::finding::Kind;
use crate::mail::{Envelope, MailId, Origin};

fn eicar() -> String {
    ["X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR", "-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat()
}

fn gtube() -> String {
    ["XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE", "-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"].concat()
}

/// Looks at a mail twice: in memory, and through a spool file.
fn look_with(config: &BuiltinConfig, mail: &[u8], unpacking: Unpacking) -> Vec<Finding> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let filter = Builtin::new(config.clone()).unwrap();
    let mut seen: Vec<Vec<Finding>> = Vec::new();
    for memory_limit in [usize::MAX, 16] {
        let directory = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool { directory: directory.path().into(), memory_limit });
        let mut writer = ContentWriter::new(spool);
        writer.append(mail).unwrap();
        let mail = Mail {
            id: MailId::new(),
            envelope: Envelope::default(),
            origin: Origin::inbound("test"),
            content: writer.finish(),
        };
        let context = Context { deadline: Instant::now() + Duration::from_secs(20), unpacking };
        seen.push(runtime.block_on(filter.check(&mail, &context)).unwrap());
    }
    assert_eq!(seen[0], seen[1], "memory and spool see different things");
    seen.remove(0)
}

fn look(mail: &[u8]) -> Vec<String> {
    let findings = look_with(&BuiltinConfig::default(), mail, Unpacking::default());
    findings.iter().map(|f| format!("{}:{}:{}", f.kind.as_str(), f.name, f.part.as_deref().unwrap_or("-"))).collect()
}

fn base64(bytes: &[u8]) -> String {
    let text = base64_simd::STANDARD.encode_to_string(bytes);
    let lines: Vec<&str> = text.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    lines.join("\r\n") + "\r\n"
}

fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn attached(name: &str, bytes: &[u8]) -> String {
    format!(
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n\
         text\r\n--b\r\nContent-Type: application/octet-stream; name=\"{name}\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}--b--\r\n",
        base64(bytes)
    )
}

#[test]
fn a_clean_mail_has_no_findings() {
    assert_eq!(look(b"Subject: x\r\n\r\nhello\r\n"), [""; 0]);
    assert_eq!(look(attached("a.bin", &[7; 5000]).as_bytes()), [""; 0]);
    assert_eq!(look(attached("a.zip", &zip(&[("a.txt", b"hello"), ("b/c.txt", b"")])).as_bytes()), [""; 0]);
}

#[test]
fn the_test_strings_are_found_wherever_they_are() {
    let plain = format!("Subject: x\r\n\r\n{}\r\n", eicar());
    assert_eq!(look(plain.as_bytes()), ["malware:Eicar-Test-Signature:1"]);
    assert_eq!(look(format!("Subject: x\r\n\r\n{}\r\n", gtube()).as_bytes()), ["spam:GTUBE:1"]);
    assert_eq!(look(attached("e.com", eicar().as_bytes()).as_bytes()), ["malware:Eicar-Test-Signature:2"]);
    let quoted = format!(
        "Content-Transfer-Encoding: quoted-printable\r\n\r\n{}=\r\n{}\r\n",
        eicar()[..30].replace('=', "=3D").replace('X', "=58"),
        &eicar()[30..]
    );
    assert_eq!(look(quoted.as_bytes()), ["malware:Eicar-Test-Signature:1"]);
    let within = format!("Content-Type: message/rfc822\r\n\r\n{}", attached("e.com", eicar().as_bytes()));
    assert_eq!(look(within.as_bytes()).len(), 1);
    // In the header, in the preamble, behind the end.
    assert_eq!(look(format!("X: {}\r\n\r\nx", eicar()).as_bytes()).len(), 1);
    let behind = attached("a", b"x") + &eicar() + "\r\n";
    assert_eq!(look(behind.as_bytes()).len(), 1);
    // Line ends of another system, no closing line, no empty line.
    assert_eq!(look(attached("e.com", eicar().as_bytes()).replace("\r\n", "\n").as_bytes()).len(), 1);
    assert_eq!(look(attached("e.com", eicar().as_bytes()).replace("--b--", "").as_bytes()).len(), 1);
    assert_eq!(look(eicar().as_bytes()).len(), 1);
}

#[test]
fn archives_are_looked_into() {
    let one = zip(&[("e.com", eicar().as_bytes())]);
    let two = zip(&[("one.zip", &one), ("readme.txt", b"x")]);
    assert_eq!(look(attached("two.zip", &two).as_bytes()), ["malware:Eicar-Test-Signature:2/two.zip/one.zip/e.com"]);
    // By what it is, not by what it is called.
    assert_eq!(look(attached("picture.png", &two).as_bytes()).len(), 1);
    let mut self_extracting = b"MZ this program cannot be run in DOS mode".to_vec();
    self_extracting.extend_from_slice(&one);
    assert_eq!(look(attached("setup.exe", &self_extracting).as_bytes()).len(), 1);
    let mut damaged = one.clone();
    damaged.truncate(one.len() - 30);
    let findings = look(attached("d.zip", &damaged).as_bytes());
    assert!(findings.iter().any(|f| f.starts_with("unscanned:unreadable")), "{findings:?}");
}

#[test]
fn an_archive_that_grows_without_end_is_stopped() {
    let zeros = vec![0; 40 << 20];
    let bomb = zip(&[("zeros", &zeros)]);
    let findings = look(attached("bomb.zip", &bomb).as_bytes());
    assert!(findings.iter().any(|f| f.starts_with("limit:grows-too-much")), "{findings:?}");
    let small = Unpacking { octets: 1 << 20, ratio: u32::MAX, ..Unpacking::default() };
    let findings = look_with(&BuiltinConfig::default(), attached("bomb.zip", &bomb).as_bytes(), small);
    assert!(findings.iter().any(|f| f.kind == Kind::Limit), "{findings:?}");
}

#[test]
fn an_encrypted_member_is_told() {
    let mut archive = zip(&[("secret.txt", b"x")]);
    // The flag in both headers says so; that the octets are not encrypted does not matter.
    let central = memchr::memmem::find(&archive, b"PK\x01\x02").unwrap();
    archive[6] |= 1;
    archive[central + 8] |= 1;
    let findings = look(attached("s.zip", &archive).as_bytes());
    assert_eq!(findings, ["encrypted:encrypted-archive-member:2/s.zip/secret.txt"]);
}

#[test]
fn malformed_mails_are_bounded() {
    let start = Instant::now();
    let mut many = String::from("Content-Type: multipart/mixed; boundary=b\r\n\r\n");
    for _ in 0..10_001 {
        many.push_str("--b\r\n\r\nx\r\n");
    }
    let findings = look(many.as_bytes());
    assert!(findings.iter().any(|f| f.starts_with("limit:too-many-parts")), "{findings:?}");
    let nested = "Content-Type: message/rfc822\r\n\r\n".repeat(500) + "Subject: x\r\n\r\nx\r\n";
    let findings = look(nested.as_bytes());
    assert!(findings.iter().any(|f| f.starts_with("limit:nested-too-deep")), "{findings:?}");
    let mut long_line = b"Subject: x\r\n\r\n".to_vec();
    long_line.extend(std::iter::repeat_n(b'x', 1 << 20));
    assert_eq!(look(&long_line), [""; 0]);
    look(&[0; 100_000]);
    look(&vec![b'\xff'; 100_000]);
    let mut header = b"Content-Type: ".to_vec();
    header.extend(std::iter::repeat_n(b'y', 10 << 20));
    let findings = look(&header);
    assert!(findings.iter().any(|f| f.starts_with("limit:")), "a header field of 10 MiB: {findings:?}");
    let boundary = format!("Content-Type: multipart/mixed; boundary=\"{}\"\r\n\r\nx", "b".repeat(1 << 20));
    look(boundary.as_bytes());
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
}

#[test]
fn attachments_are_found_by_name_and_by_type() {
    let mut problems = crate::config::Problems::default();
    let text = "[config]\nattachment = [{ name = 'programs', file = ['*.exe'], type = ['executable'] }]\n";
    let mut document = crate::config::Document::parse("test", text, &mut problems);
    let config = document.take_section::<BuiltinConfig>("config", &mut problems).unwrap();
    let names = |mail: &str| -> Vec<String> {
        let findings = look_with(&config, mail.as_bytes(), Unpacking::default());
        findings.iter().map(|f| format!("{}:{}", f.name, f.part.as_deref().unwrap_or("-"))).collect()
    };
    assert_eq!(names(&attached("invoice.pdf.exe", b"x")), ["programs:2"]);
    assert_eq!(names(&attached("invoice.pdf", b"MZ\x90\0\x03\0")), ["programs:2"]);
    assert_eq!(names(&attached("a.zip", &zip(&[("b.EXE", b"x")]))), ["programs:2/a.zip/b.EXE"]);
    let encoded = attached("=?utf-8?B?YS5leGU=?=", b"x");
    assert_eq!(names(&encoded), ["programs:2"]);
    assert!(names(&attached("exe.txt", b"x")).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_octets_are_safe(mail: Vec<u8>) {
        look(&mail);
    }

    #[test]
    fn any_mime_like_text_is_safe(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("--b\r\n"), Just("--b--\r\n"), Just("\r\n"), Just("\n"), Just("--"), Just("b"),
                Just("Content-Type: multipart/mixed; boundary=b\r\n"), Just("Content-Type: message/rfc822\r\n"),
                Just("Content-Transfer-Encoding: base64\r\n"), Just("Content-Transfer-Encoding: quoted-printable\r\n"),
                Just("UEsDBBQAAAAIAA=="), Just("=3D="), Just("begin 644 x\r\n"), Just("\0"), Just(": x\r\n"),
            ],
            0..60,
        ),
    ) {
        look(parts.concat().as_bytes());
    }

    #[test]
    fn what_is_hidden_is_found(before in 0usize..200_000, depth in 0u32..6, coding in 0u8..3) {
        let mut inner = "x\r\n".repeat(before / 3) + &eicar() + "\r\n";
        inner = match coding {
            0 => format!("Content-Type: text/plain\r\n\r\n{inner}"),
            1 => format!("Content-Transfer-Encoding: base64\r\n\r\n{}", base64(inner.as_bytes())),
            _ => format!("Content-Transfer-Encoding: quoted-printable\r\n\r\n{}", inner.replace('O', "=4F")),
        };
        for level in 0..depth {
            inner = if level % 2 == 0 {
                format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n{inner}\r\n--b{level}--\r\n")
            } else {
                format!("Content-Type: message/rfc822\r\n\r\n{inner}")
            };
        }
        let findings = look(inner.as_bytes());
        prop_assert!(findings.iter().any(|f| f.starts_with("malware:")), "{findings:?}");
    }
}

#[test]
fn a_flood_of_one_finding_keeps_no_other_out() {
    let mut mail = String::from("Content-Type: multipart/mixed; boundary=b\r\n\r\n");
    for _ in 0..200 {
        mail.push_str("--b\r\nContent-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64\r\n\r\nx\r\n");
    }
    mail.push_str("--b\r\n\r\n");
    mail.push_str(&eicar());
    let findings = look(mail.as_bytes());
    assert!(findings.iter().any(|f| f.starts_with("malware:")), "{findings:?}");
    assert!(findings.len() < 20, "{findings:?}");
}
