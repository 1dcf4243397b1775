//! A message as rules see it.

use std::collections::BTreeMap;

use super::place::{Evidenced, Place, Word};

/// The texts of a message, by place, within their bounds.
#[derive(Clone, Debug, Default)]
pub struct Content {
    texts: BTreeMap<Place, (Vec<String>, usize)>,
}

impl Content {
    /// Adds a text to a place, as far as there is room.
    pub fn add(&mut self, place: &Place, text: &str) {
        if !self.texts.contains_key(place) {
            self.texts.insert(place.clone(), Default::default());
        }
        let Some((texts, bytes)) = self.texts.get_mut(place) else { return };
        let room = place.bytes_max() - *bytes;
        let text = &text[..text.floor_char_boundary(room)];
        // An empty text counts, too, so that their number is bounded.
        *bytes = (*bytes + text.len().max(1)).min(place.bytes_max());
        if room > 0 {
            let text = if place.is_lower_case() { text.to_ascii_lowercase() } else { text.to_owned() };
            texts.push(text);
        }
    }

    /// The texts of a place.
    #[must_use]
    pub fn of(&self, place: &Place) -> &[String] {
        self.texts.get(place).map_or(&[], |(texts, _)| texts.as_slice())
    }
}

/// What the checks found; of what is not named there was nothing to check.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    words: BTreeMap<Evidenced, Word>,
}

impl Evidence {
    /// Sets what one check found, by the word for it; another word than those of the check is taken for nothing.
    pub fn set(&mut self, of: Evidenced, word: &str) {
        if let Some((_, word)) = of.words().iter().find(|(known, _)| *known == word) {
            self.words.insert(of, *word);
        }
    }

    /// What one check found.
    #[must_use]
    pub fn of(&self, of: Evidenced) -> Word {
        let nothing = if of == Evidenced::Tls { Word::No } else { Word::None };
        self.words.get(&of).copied().unwrap_or(nothing)
    }
}
