//! To whom it says that it is addressed.

use super::{Criterion, Group, bad, hint};
use crate::checks::facts::Facts;

pub(super) const GROUP: Group =
    Group { name: "recipients", about: "To and Cc, and how the text addresses the reader", criteria: &CRITERIA };

const CRITERIA: [Criterion; 5] = [
    hint("MISSING_TO", "it is addressed to nobody", |f| {
        let to = f.message.field("to").unwrap_or_default();
        (to.is_empty() || to.to_ascii_lowercase().contains("undisclosed")) && !f.message.has("cc")
    }),
    hint("TO_IS_FROM", "it is addressed to its own author", |f| {
        let to = f.message.field("to").unwrap_or_default().to_ascii_lowercase();
        let from = f.message.from.first().map_or("", |mailbox| mailbox.written.as_str()).to_ascii_lowercase();
        from.len() > 3 && to.contains(&from)
    }),
    bad("READER_NAMED_BY_ADDRESS", "it calls the reader by the address", |f| {
        recipient(f).is_some_and(|address| f.raw_text.to_ascii_lowercase().contains(&address))
    }),
    bad("SUBJECT_NAMES_ADDRESS", "its subject names the reader's address", |f| {
        recipient(f).is_some_and(|address| {
            let local = address.split('@').next().unwrap_or_default();
            let subject = f.message.subject.to_ascii_lowercase();
            subject.contains(&address) || (local.len() > 3 && subject.contains(local))
        })
    }),
    bad("DEAR_NOBODY", "it calls the reader friend, customer or user", |f| {
        [
            " dear friend ",
            " dear customer ",
            " dear user ",
            " dear sir",
            " dear valued ",
            " dear client ",
            " dear member ",
            " dear beneficiary ",
            " dear account ",
            " attention ",
            " hello dear ",
            " dear winner ",
            " valued customer ",
            " dear email ",
            " dear beloved ",
            " dear homeowner ",
            " sehr geehrter kunde ",
            " estimado cliente ",
            " cher client ",
            " caro cliente ",
            " prezado cliente ",
        ]
        .iter()
        .any(|greeting| f.words.contains(greeting))
    }),
];

fn recipient(f: &Facts<'_>) -> Option<String> {
    let to = f.raw("to")?.to_ascii_lowercase();
    let word = to.split(|c: char| c.is_whitespace() || "<>,;\"".contains(c)).find(|word| word.contains('@'))?;
    (word.len() > 5).then(|| word.to_owned())
}
