//! Cuts an input into pieces whose lengths come from the input itself.

/// The first octet chooses the cuts, the rest is the input. Returns the input and its pieces.
pub fn cut(data: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let Some((&seed, input)) = data.split_first() else { return (data, Vec::new()) };
    let mut pieces = Vec::new();
    let (mut rest, mut length) = (input, usize::from(seed % 7) + 1);
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(length.min(rest.len()));
        pieces.push(head);
        rest = tail;
        length = (length * 5 + usize::from(seed)) % 11 + 1;
    }
    (input, pieces)
}
