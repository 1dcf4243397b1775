//! The Date field: its form, and whether it agrees with what the servers on the way say.

use super::{Criterion, Group, bad, hint};
use crate::checks::facts::Facts;

pub(super) const GROUP: Group =
    Group { name: "date", about: "the Date field, and what servers on the way say", criteria: &CRITERIA };

const CRITERIA: [Criterion; 6] = [
    bad("MISSING_DATE", "it has no date", |f| !f.message.has("date")),
    bad("DATE_UNREADABLE", "its date cannot be read", |f| f.message.has("date") && f.date.is_none()),
    bad("DATE_AHEAD", "it was written after it was sent", |f| lag(f).is_some_and(|lag| lag < -3 * 3600)),
    bad("DATE_LONG_AGO", "it was written long before it was sent", |f| lag(f).is_some_and(|lag| lag > 2 * 86_400)),
    hint("DATE_HOURS_AWAY", "its clock differs by hours", |f| {
        lag(f).is_some_and(|lag| (-3 * 3600..-900).contains(&lag) || (2 * 3600..2 * 86_400).contains(&lag))
    }),
    hint("DATE_ZONE_ODD", "its time zone does not exist", |f| {
        f.raw("date").is_some_and(|raw| {
            let zone = raw.split_whitespace().find(|word| word.starts_with(['+', '-']) && word.len() == 5);
            zone.is_some_and(|zone| {
                let (hours, minutes) = (zone.get(1..3).unwrap_or_default(), zone.get(3..5).unwrap_or_default());
                hours.parse::<u8>().is_ok_and(|hours| hours > 14) || !["00", "30", "45"].contains(&minutes)
            })
        })
    }),
];

/// Seconds from what Date says to what the first server that saw it says.
fn lag(f: &Facts<'_>) -> Option<i64> {
    Some(f.received_at? - f.date?)
}
