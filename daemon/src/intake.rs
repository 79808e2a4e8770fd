//! Takes a message file as it lies on disk into a content: line ends become CRLF. It is for files an
//! administrator has checked; the ways in have rules of their own for line ends.

use std::io::{self, Read};
use std::sync::Arc;

use checkpost_core::{Content, ContentWriter, Spool};

/// Collects a message file.
pub struct Intake {
    content: ContentWriter,
    after_cr: bool,
    line: Vec<u8>,
}

impl Intake {
    /// An empty one.
    pub fn new(spool: Arc<Spool>) -> Self {
        Self { content: ContentWriter::new(spool), after_cr: false, line: Vec::new() }
    }

    /// Takes more bytes: each LF without a CR before it gets one. Errors are the spool's.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.line.clear();
        for &byte in bytes {
            if byte == b'\n' && !self.after_cr {
                self.line.push(b'\r');
            }
            self.line.push(byte);
            self.after_cr = byte == b'\r';
        }
        self.content.append(&self.line)
    }

    /// The content.
    pub fn finish(self) -> Content {
        self.content.finish()
    }

    /// All of a reader.
    pub fn read(mut reader: impl Read, spool: Arc<Spool>) -> io::Result<Content> {
        let mut intake = Self::new(spool);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(intake.finish()),
                Ok(count) => intake.append(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_become_crlf_in_any_slicing() {
        let spool = Arc::new(Spool::new("/nonexistent"));
        for (written, expected) in [
            ("a\nb\n", "a\r\nb\r\n"),
            ("a\r\nb\r\n", "a\r\nb\r\n"),
            ("\n\n\r\n", "\r\n\r\n\r\n"),
            ("a\rb\r\r\n", "a\rb\r\r\n"),
            ("", ""),
        ] {
            for size in 1..4 {
                let mut intake = Intake::new(Arc::clone(&spool));
                written.as_bytes().chunks(size).for_each(|chunk| intake.append(chunk).unwrap());
                assert_eq!(intake.finish().as_slice().unwrap(), expected.as_bytes(), "{written:?} by {size}");
            }
        }
    }
}
