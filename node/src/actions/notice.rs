//! What stands in the place of a part that was taken out of a message: what it was, why it is gone, and where to ask for it.

use std::collections::{BTreeMap, BTreeSet};

use proto::held::TransactionId;
use sha2::{Digest as _, Sha256};

use crate::message::{Message, edit::Piece, mime::Part, quoted};

/// Files that one notice names.
const FILES_MAX: usize = 20;

/// The text, in lines that end with CRLF. `text` is what the policy has people told, `why` the words for each part.
#[must_use]
pub fn notice(
    text: &str,
    message: &Message,
    piece: &Piece,
    why: &BTreeMap<usize, BTreeSet<String>>,
    id: TransactionId,
) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for at in piece.parts.iter().take(FILES_MAX) {
        if let Some(part) = message.parts.get(*at) {
            lines.push(String::new());
            lines.extend(about(part, why.get(at)));
        }
    }
    if let Some(more) = piece.parts.len().checked_sub(FILES_MAX).filter(|more| *more > 0) {
        lines.push(format!("und {more} weitere / and {more} more"));
    }
    lines.push(String::new());
    lines.push(format!("Vorgang / transaction: {id}"));
    lines.into_iter().map(|line| line + "\r\n").collect()
}

/// A line for each thing that is known of it. Only what was seen of a message in the message has no bytes of its own.
fn about(part: &Part, why: Option<&BTreeSet<String>>) -> Vec<String> {
    let name = part.names.first().map_or_else(|| "-".to_owned(), |name| quoted(name));
    let declared: String = part.declared.chars().filter(char::is_ascii_graphic).take(80).collect();
    let mut lines = vec![format!("Datei / file: {name}"), format!("Typ / type: {declared}")];
    if !part.content.is_empty() {
        lines.push(format!("Gr\u{f6}\u{df}e / size: {} bytes", part.content.len()));
        lines.push(format!("SHA-256: {}", hex::encode(Sha256::digest(&part.content))));
    }
    if let Some(why) = why {
        let words: Vec<&str> = why.iter().map(String::as_str).collect();
        lines.push(format!("Grund / reason: {}", words.join(", ")));
    }
    lines
}
