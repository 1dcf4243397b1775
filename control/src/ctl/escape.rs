//! Makes text from mail, nodes and servers safe for a terminal: no control characters, nothing that turns the order of
//! letters around or hides them (CWE-117, CVE-2021-42574).

/// Characters of a text that are shown in a table cell at most.
const CELL_CHARS_MAX: usize = 200;

/// Whether a terminal, or the eye, could be deceived by it.
fn is_deceiving(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// One line for a cell: deceiving characters as `\u{…}`, and no longer than a cell may be.
#[must_use]
pub fn cell(text: &str) -> String {
    let mut safe = String::new();
    for (number, c) in text.chars().enumerate() {
        if number == CELL_CHARS_MAX {
            safe.push('…');
            break;
        }
        push(&mut safe, c);
    }
    safe
}

/// Several lines, as in an error: line ends stay.
#[must_use]
pub fn lines(text: &str) -> String {
    let mut safe = String::new();
    for c in text.chars() {
        if c == '\n' { safe.push(c) } else { push(&mut safe, c) }
    }
    safe
}

/// JSON text, in which such characters can stand only inside strings: they become `\uXXXX`, which means the same.
#[must_use]
pub fn json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_deceiving(c) && c != '\n' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

fn push(safe: &mut String, c: char) {
    if is_deceiving(c) { safe.extend(c.escape_unicode()) } else { safe.push(c) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{cell, json, lines};

    #[test]
    fn what_moves_the_cursor_or_turns_text_around_is_shown_as_its_number() {
        assert_eq!(cell("\u{1b}[2Jinvoice\r\n"), "\\u{1b}[2Jinvoice\\u{d}\\u{a}");
        assert_eq!(cell("gpj\u{202e}.exe \u{9b}31m"), "gpj\\u{202e}.exe \\u{9b}31m");
        assert_eq!(cell("Grüße, 日本"), "Grüße, 日本");
        assert_eq!(cell(&"x".repeat(300)).chars().count(), 201);
        assert_eq!(lines("a\nb\u{7}"), "a\nb\\u{7}");
    }

    #[test]
    fn escaped_json_means_the_same() {
        let value = serde_json::json!({"subject": "a\u{202e}b\u{9b}c\u{e0041}\u{1b}\n"});
        let text = json(&value.to_string());
        assert!(text.is_ascii(), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
    }

    proptest! {
        #[test]
        fn no_control_character_passes(text in any::<String>()) {
            prop_assert!(!cell(&text).chars().any(char::is_control));
            let value = serde_json::Value::String(text);
            let safe = json(&value.to_string());
            prop_assert!(!safe.chars().any(char::is_control));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).expect("JSON"), value);
        }
    }
}
