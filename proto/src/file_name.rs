//! Names of files as departments refuse them: patterns with `*` and `?`, and a name in each way that systems take it.

use std::fmt;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;

/// Longest pattern, in characters.
pub const CHARS_MAX: usize = 100;
/// Most patterns of one layer.
pub const PATTERNS_MAX: usize = 64;

/// A pattern: `*` stands for any characters, `?` for one, everything else for itself in either case. Made by
/// [`NamePattern::new`], which holds the bounds; one that was stored is taken as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NamePattern(String);

/// Why it is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamePatternError {
    /// Empty, too long, or with what no name keeps.
    #[error(
        "a pattern of 1 to {CHARS_MAX} characters such as *.iso is expected, without control characters and invisible ones"
    )]
    Length,
    /// It says too little.
    #[error("it needs a character beside *, ?, dots and blanks, or it would fit names of any sort")]
    Vague,
    /// Names are looked at without their folders.
    #[error("names are looked at without folders and streams: leave out / \\ and :")]
    Folder,
}

impl NamePattern {
    /// Reads one.
    ///
    /// # Errors
    /// The first bound that is broken.
    pub fn new(text: &str) -> Result<Self, NamePatternError> {
        let chars = text.chars().count();
        if !(1..=CHARS_MAX).contains(&chars) || text.chars().any(is_dropped) {
            return Err(NamePatternError::Length);
        }
        if text.contains(['/', '\\', ':']) {
            return Err(NamePatternError::Folder);
        }
        if text.chars().all(|c| matches!(c, '*' | '?' | '.') || c.is_whitespace()) {
            return Err(NamePatternError::Vague);
        }
        // A name has lost its last dots and blanks when it is compared.
        Ok(Self(folded(text.trim_end_matches(is_trailing))))
    }

    /// Whether a name fits. Takes no more than the product of both lengths.
    #[must_use]
    pub fn fits(&self, name: &FileName) -> bool {
        name.0.iter().any(|reading| is_like(&self.0, reading))
    }

    /// How long it is, in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name in each way that a system may take it: to a NUL or beyond it, without folders and a stream's name, without the dots and
/// blanks at its end, without what does not show, in compatible forms of letters, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName(Vec<String>);

impl FileName {
    /// Out of a name as it is written.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let until_nul = name.split('\0').next().unwrap_or_default();
        let mut readings = Vec::new();
        for written in [name, until_nul] {
            // Compatible forms of the separators are none to any system.
            let last = written.rsplit(['/', '\\']).next().unwrap_or_default();
            let bare = last.split(':').next().unwrap_or_default();
            for part in [written, last, bare] {
                let reading = folded(part);
                let reading = reading.trim_end_matches(is_trailing);
                if !reading.is_empty() && !readings.iter().any(|known| known == reading) {
                    readings.push(reading.to_owned());
                }
            }
        }
        Self(readings)
    }
}

fn folded(text: &str) -> String {
    text.chars().filter(|c| !is_dropped(*c)).nfkc().collect::<String>().to_lowercase().nfc().collect()
}

/// What Windows takes off the end of a name.
fn is_trailing(c: char) -> bool {
    c == '.' || c.is_whitespace()
}

/// What changes only how a name is shown.
fn is_dropped(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Whether all of a text is as the pattern says: where a star has taken too little it takes one character more, and only the last
/// one that was met can.
fn is_like(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    let mut last_star = None;
    loop {
        let mut after = pattern.clone();
        match after.next() {
            Some('*') => {
                pattern = after;
                last_star = Some((pattern.clone(), text.clone()));
                continue;
            }
            None if text.as_str().is_empty() => return true,
            wanted => {
                let mut rest = text.clone();
                if let (Some(wanted), Some(found)) = (wanted, rest.next())
                    && (wanted == '?' || wanted == found)
                {
                    (pattern, text) = (after, rest);
                    continue;
                }
            }
        }
        let Some((behind, from)) = &mut last_star else { return false };
        if from.next().is_none() {
            return false;
        }
        (pattern, text) = (behind.clone(), from.clone());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{FileName, NamePattern, NamePatternError, is_like};

    fn fits(pattern: &str, name: &str) -> bool {
        NamePattern::new(pattern).expect("a pattern").fits(&FileName::new(name))
    }

    #[test]
    fn stars_and_question_marks_stand_for_characters() {
        for (pattern, name) in [
            ("*.iso", "a.iso"),
            ("*.ISO", "a.b.Iso"),
            ("invoice*.z?p", "Invoice 4711.zip"),
            ("*a*b*c", "xaxxbxbxc"),
            ("r\u{fc}ckzahlung*", "RU\u{308}CKZAHLUNG.pdf"),
            ("????.exe", "\u{e4}\u{f6}\u{fc}x.exe"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("*.iso", "a.iso.pdf"), ("*.iso", "iso"), ("a?c", "ac"), ("*ab", "aba"), ("a.b", "axb")]
        {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_name_is_seen_in_each_way_that_systems_take_it() {
        for name in [
            "A.ISO. . ",
            "a.iso::$DATA",
            "c:\\x\\a.iso",
            "../../a.iso",
            "a.i\u{200b}so",
            "a.iso\0.pdf",
            "a.is\0o",
            "\u{ff41}.\u{ff49}so",
            "a\u{202e}.iso",
        ] {
            assert!(fits("a.iso", name), "{name:?}");
        }
        assert!(fits("a.iso. ", "a.iso") && !fits("a.iso", "b/a.iso/c") && !fits("a", ""));
    }

    #[test]
    fn what_would_fit_anything_or_nothing_is_no_pattern() {
        for (text, error) in [
            ("", NamePatternError::Length),
            (&*"x".repeat(101), NamePatternError::Length),
            ("a\n", NamePatternError::Length),
            ("a\u{200b}", NamePatternError::Length),
            ("*", NamePatternError::Vague),
            ("*.*", NamePatternError::Vague),
            ("? ?", NamePatternError::Vague),
            ("x/*.iso", NamePatternError::Folder),
        ] {
            assert_eq!(NamePattern::new(text), Err(error), "{text:?}");
        }
    }

    /// The meaning, told plainly and slowly.
    fn plainly(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', after @ ..] => (0..=text.len()).any(|taken| plainly(after, &text[taken..])),
            [b'?', after @ ..] => !text.is_empty() && plainly(after, &text[1..]),
            [wanted, after @ ..] => text.first() == Some(wanted) && plainly(after, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn any_pattern_means_what_it_says(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(is_like(&pattern, &text), plainly(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
