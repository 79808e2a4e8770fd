//! Times, as Exim's files have them.

/// A time of Exim's: numbers, each with a letter.
pub(super) fn seconds(time: &str) -> Option<u64> {
    let (mut sum, mut number) = (0_u64, None);
    for letter in time.chars() {
        let unit = match letter {
            '0'..='9' => {
                let digit = u64::from(letter.to_digit(10)?);
                number = Some(number.unwrap_or(0_u64).checked_mul(10)?.checked_add(digit)?);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            'w' => 604_800,
            _ => return None,
        };
        sum = sum.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    // Without a letter these are seconds.
    sum.checked_add(number.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (time, expected) in
            [("5m", Some(300)), ("1h30m", Some(5400)), ("90", Some(90)), ("0s", Some(0)), ("x", None)]
        {
            assert_eq!(seconds(time), expected, "{time}");
        }
    }
}
