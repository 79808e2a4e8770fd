//! Lists of attributes: `name=value` NUL, any number of them, and a NUL that ends the list.

use super::ListError;

/// Looks for the end of a list in a buffer that grows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Finder {
    /// There is no end in so many octets from the start.
    seen: usize,
}

/// A list without an end within the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a list of more than {0} octets")]
pub struct TooLong(pub usize);

impl Finder {
    /// The length of the first list in `buffer` with its end, once all of it is there. What was looked at before
    /// is not looked at again, so the buffer may only grow until a length is returned.
    ///
    /// # Errors
    /// The list is longer than `limit` octets.
    pub fn find(&mut self, buffer: &[u8], limit: usize) -> Result<Option<usize>, TooLong> {
        // An empty list is its end alone.
        if buffer.first() == Some(&0) {
            *self = Self::default();
            return Ok(Some(1));
        }
        let from = self.seen.saturating_sub(1).min(buffer.len());
        match memchr::memmem::find(&buffer[from..], b"\0\0") {
            Some(at) if from + at + 2 <= limit => {
                *self = Self::default();
                Ok(Some(from + at + 2))
            }
            Some(_) => Err(TooLong(limit)),
            None if buffer.len() > limit => Err(TooLong(limit)),
            None => {
                self.seen = buffer.len();
                Ok(None)
            }
        }
    }
}

/// The attributes of one whole list.
#[derive(Debug, Clone, Copy)]
pub struct List<'a>(&'a [u8]);

impl<'a> List<'a> {
    /// `octets` with or without the end.
    pub fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    /// Name and value of each attribute, in order.
    pub fn attributes(self) -> impl Iterator<Item = Result<(&'a str, &'a [u8]), ListError>> {
        self.0.split(|octet| *octet == 0).filter(|attribute| !attribute.is_empty()).map(|attribute| {
            let at = memchr::memchr(b'=', attribute).ok_or(ListError::NoName)?;
            let name = std::str::from_utf8(&attribute[..at]).map_err(|_| ListError::NoName)?;
            Ok((name, &attribute[at + 1..]))
        })
    }
}

/// Writes a list.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Adds an attribute of octets.
    ///
    /// # Errors
    /// [`ListError::Nul`].
    pub fn octets(&mut self, name: &'static str, value: &[u8]) -> Result<(), ListError> {
        if memchr::memchr(0, value).is_some() {
            return Err(ListError::Nul(name));
        }
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(0);
        Ok(())
    }

    /// Adds an attribute of text; a NUL in it becomes `?`.
    pub fn text(&mut self, name: &'static str, value: &str) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'=');
        self.0.extend(value.bytes().map(|octet| if octet == 0 { b'?' } else { octet }));
        self.0.push(0);
    }

    /// The list with its end.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.push(0);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_end_is_found_and_bounded() {
        for (buffer, found) in [
            (&b"a=1\0\0rest"[..], Ok(Some(5))),
            (b"a=1\0b=2\0\0\0", Ok(Some(9))),
            (b"\0", Ok(Some(1))),
            (b"a=1\0", Ok(None)),
            (b"a=123456789\0\0", Err(TooLong(10))),
            (b"a=123456789", Err(TooLong(10))),
        ] {
            assert_eq!(Finder::default().find(buffer, 10), found, "{buffer:?}");
        }
    }

    proptest! {
        #[test]
        fn slices_do_not_matter(octets in proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..60)) {
            let whole = Finder::default().find(&octets, 1000);
            let mut finder = Finder::default();
            let mut sliced = Ok(None);
            for end in 1..=octets.len() {
                sliced = finder.find(&octets[..end], 1000);
                if sliced != Ok(None) {
                    break;
                }
            }
            prop_assert_eq!(whole, sliced);
        }

        #[test]
        fn what_is_written_is_read(values in proptest::collection::vec(proptest::collection::vec(1u8.., 0..20), 0..9)) {
            let mut writer = Writer::default();
            for value in &values {
                writer.octets("name", value).unwrap();
            }
            let list = writer.finish();
            let read: Vec<&[u8]> = List::new(&list).attributes().map(|attribute| attribute.unwrap().1).collect();
            prop_assert_eq!(read, values.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
    }
}
