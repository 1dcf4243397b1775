//! What a reader sees of a message: only the content rules need it.

use super::{
    Message,
    html::{self, Link},
};

/// Text that the content rules look at, in bytes; what comes after it only the virus scanner sees.
pub const TEXT_BYTES_MAX: usize = 512 * 1024;

/// The text of the parts that are shown in the message itself.
#[derive(Clone, Debug, Default)]
pub struct Text {
    /// What a reader sees of the text parts, the HTML ones apart.
    pub plain: String,
    /// What was read out of the HTML parts.
    pub html: html::Read,
    /// Whether there is an HTML part.
    pub has_html: bool,
    /// Whether there is a text part that is not HTML.
    pub has_plain: bool,
}

impl Text {
    /// Reads it out of a message.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        let (mut text, mut html) = (Self::default(), String::new());
        for part in message.parts.iter().filter(|part| !part.attached) {
            let Some(converted) = part.text() else { continue };
            let is_html = part.declared == "text/html";
            text.has_html |= is_html;
            text.has_plain |= !is_html;
            push_capped(if is_html { &mut html } else { &mut text.plain }, &converted);
        }
        text.html = html::read(&html);
        text
    }

    /// The HTML of a message as it is written, in lower case, at most 256 KiB.
    #[must_use]
    pub fn html_raw(&self, message: &Message) -> String {
        let mut html = String::new();
        let parts = message.parts.iter().filter(|part| !part.attached && part.declared == "text/html");
        for text in parts.filter_map(|part| part.text()) {
            let room = (256_usize * 1024).saturating_sub(html.len());
            html.push_str(&text[..text.floor_char_boundary(room)]);
        }
        html.make_ascii_lowercase();
        html
    }

    /// What a reader sees: of the plain text and of the HTML. Where more of it seems hidden than shown, that too: we may be wrong, or are
    /// meant to be.
    pub fn shown(&self) -> impl Iterator<Item = &str> {
        let html::Read { text, hidden, .. } = &self.html;
        let hidden = if hidden.len() > text.len() { hidden.as_str() } else { "" };
        [self.plain.as_str(), text.as_str(), hidden].into_iter().filter(|text| !text.is_empty())
    }

    /// Links of the text and the HTML.
    #[must_use]
    pub fn links(&self) -> Vec<Link> {
        let mut links = self.html.links.clone();
        links.extend(html::links_in_text(&self.plain));
        links
    }
}

fn push_capped(into: &mut String, text: &str) {
    let room = TEXT_BYTES_MAX.saturating_sub(into.len());
    into.push_str(&text[..text.floor_char_boundary(room)]);
    if into.len() < TEXT_BYTES_MAX {
        into.push('\n');
    }
}
