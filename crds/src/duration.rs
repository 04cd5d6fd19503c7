//! Durations as pools write them: `30s`, `5m`, `1h30m` (Gateway API GEP-2257).

use std::time::Duration;

/// Reads a duration: up to four numbers of at most five digits, each with `h`, `m`, `s` or `ms`. The
/// API server refuses every other text, so nothing is returned only for objects that bypassed it.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > 5 {
            return None;
        }
        let (number, unit) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let letters = unit.bytes().take_while(u8::is_ascii_lowercase).count();
        let (unit, after) = unit.split_at(letters);
        total += match unit {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        rest = after;
        if rest.is_empty() {
            return Some(total);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_gateway_api_writes_them() {
        for (text, milliseconds) in
            [("30s", 30_000), ("1h", 3_600_000), ("1h30m", 5_400_000), ("1m1s500ms", 61_500), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "30", "s", "1d", "-1s", "1.5h", "123456s", "1s2s3s4s5s", "1h 30m"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
