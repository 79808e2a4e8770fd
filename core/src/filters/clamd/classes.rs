//! Sorts clamd's signature names into kinds and classes, so that rules can tell a virus from an unwanted
//! application or an encrypted archive.
//!
//! The names follow ClamAV's naming guidelines; those of third-party signatures end in
//! `.UNOFFICIAL` and are sorted alike.

use crate::finding::Kind;

/// Kind and class of a signature. What is not known to be milder is malware.
pub(super) fn classify(name: &str) -> (Kind, &'static str) {
    let name = name.to_ascii_lowercase();
    let mut words = name.split(['.', '-', '_']);
    let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if first == "heuristics" {
        return match second {
            "phishing" => (Kind::Phishing, "heuristic"),
            "encrypted" => (Kind::Encrypted, "encrypted"),
            "limits" => (Kind::Limit, "limit"),
            "ole2" | "structured" | "broken" => (Kind::Policy, "heuristic"),
            _ => (Kind::Malware, "heuristic"),
        };
    }
    if first == "pua" {
        return (Kind::Policy, "pua");
    }
    if name.split(['.', '-', '_']).any(|word| word == "eicar") {
        return (Kind::Malware, "test");
    }
    if name.split('.').any(|word| word.starts_with("phishing")) {
        return (Kind::Phishing, "phishing");
    }
    (Kind::Malware, "malware")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, kind: Kind, class: &str) {
        assert_eq!(classify(name), (kind, class), "{name}");
    }

    #[test]
    fn names_as_clamd_gives_them() {
        check("Win.Trojan.Agent-12345", Kind::Malware, "malware");
        check("Doc.Downloader.Emotet-7-0", Kind::Malware, "malware");
        check("Some.Thing.UNOFFICIAL", Kind::Malware, "malware");
        check("", Kind::Malware, "malware");
        check("Eicar-Test-Signature", Kind::Malware, "test");
        check("Win.Test.EICAR_HDB-1", Kind::Malware, "test");
        check("Lab.Eicar-Test-Signature.UNOFFICIAL", Kind::Malware, "test");
        check("Win.Trojan.Eicarus-1", Kind::Malware, "malware");
        check("PUA.Win.Packer.Upx-4", Kind::Policy, "pua");
        check("PUA.Pdf.Trojan.EmbeddedJavaScript-1", Kind::Policy, "pua");
        check("Email.Phishing.VOF1-6293855-0", Kind::Phishing, "phishing");
        check("Html.Phishing.Bank-532", Kind::Phishing, "phishing");
        check("Sanesecurity.Phishing.Fake.123.UNOFFICIAL", Kind::Phishing, "phishing");
        check("Heuristics.Phishing.Email.SpoofedDomain", Kind::Phishing, "heuristic");
        check("Heuristics.Encrypted.Zip", Kind::Encrypted, "encrypted");
        check("Heuristics.Encrypted.PDF", Kind::Encrypted, "encrypted");
        check("Heuristics.Limits.Exceeded.MaxFileSize", Kind::Limit, "limit");
        check("Heuristics.OLE2.ContainsMacros", Kind::Policy, "heuristic");
        check("Heuristics.Structured.CreditCardNumber", Kind::Policy, "heuristic");
        check("Heuristics.Broken.Executable", Kind::Policy, "heuristic");
        check("Heuristics.W32.Parite.B", Kind::Malware, "heuristic");
        check("HeuristicsX.Encrypted", Kind::Malware, "malware");
    }
}
