//! What the parts of a message are, by content and by every name they have, and what is in their archives, however they lie in
//! each other: one walk under one budget. What cannot be looked into is said to be so; it is never taken for harmless.

mod budget;
mod bzip2;
mod compound;
mod disguise;
mod findings;
mod format;
mod mail;
mod markup;
mod office;
mod ole;
mod packed;
mod pdf;
mod pdf_filters;
mod pdf_tokens;
mod rtf;
mod seven_zip;
mod tar;
mod vba;
mod xml;
mod zip;

pub use budget::Budget;
use budget::length_of;
pub use findings::{Analysis, BARRED_MAX, Unwanted};
use format::Format;
use proto::{
    file_name::{FileName, NamePattern},
    policy::ContentKind,
    score::Score,
};

use super::kinds;
use crate::message::{Message, mime::Part, quoted};

/// Archives in archives, documents and mail in each other: so deep is looked.
const DEPTH_MAX: usize = 6;

/// Looks at every part, and in it at all that can be unpacked. `unwanted` is what recipients of the message refuse beside the
/// kinds that are known here.
#[must_use]
pub fn analyse(message: &Message, unwanted: &Unwanted) -> Analysis {
    analyse_parts(&message.parts, unwanted)
}

/// The same of parts alone: nothing else of a message counts.
#[must_use]
pub fn analyse_parts(parts: &[Part], unwanted: &Unwanted) -> Analysis {
    let bytes = parts.iter().map(|part| length_of(part.content.len())).sum();
    analyse_within(parts, unwanted, Budget::of(bytes))
}

/// The same with another budget. With less the analysis is the same or says that it holds more than is looked into.
#[must_use]
pub fn analyse_within(parts: &[Part], unwanted: &Unwanted, budget: Budget) -> Analysis {
    let mut whole = Analysis::default();
    let mut look = Look { analysis: Analysis::default(), budget, unwanted };
    for (at, part) in parts.iter().enumerate() {
        look.look(&Place::of(part), &part.content);
        whole.add(at, std::mem::take(&mut look.analysis));
    }
    if look.budget.is_spent() {
        // First, so that it is there whatever else was found.
        whole.opaque.insert(0, "it holds more than is looked into".to_owned());
    }
    whole
}

/// Whether it holds nothing but text that is shown in the message itself, and in that text no mark of anything that would be
/// opened: looking at it costs next to nothing.
#[must_use]
pub fn is_plain(message: &Message) -> bool {
    message.parts.iter().all(|part| Place::of(part).is_body && !format::is_marked(&part.content))
}

struct Look<'u> {
    /// Of the part that is looked at.
    analysis: Analysis,
    budget: Budget,
    unwanted: &'u Unwanted,
}

/// Where some content lies.
struct Place {
    /// In words.
    shown: String,
    /// The part of the message that it lies in, in words.
    part: String,
    /// Every name that it has.
    names: Vec<String>,
    /// The type that the message declares.
    declared: Option<String>,
    /// How many archives, documents and messages it lies in, within the part.
    depth: usize,
    /// Whether it is shown as text in the message itself, or a part of a document that does nothing alone.
    is_body: bool,
}

impl Place {
    fn of(part: &Part) -> Self {
        let shown = part.names.first().map_or_else(|| "a part".to_owned(), |name| quoted(name));
        Self {
            part: shown.clone(),
            shown,
            names: part.names.clone(),
            declared: Some(part.declared.clone()),
            depth: 0,
            is_body: part.is_body(),
        }
    }

    /// Something in this; what lies in an archive may have no name.
    fn inside(&self, name: Option<&str>) -> Self {
        let what = name.map_or_else(|| "what is".to_owned(), quoted);
        Self {
            shown: format!("{what} in {}", self.part),
            part: self.part.clone(),
            names: name.map(str::to_owned).into_iter().collect(),
            declared: None,
            depth: self.depth + 1,
            is_body: false,
        }
    }
}

impl Look<'_> {
    fn look(&mut self, place: &Place, content: &[u8]) {
        if self.budget.work(length_of(content.len())).is_err() {
            return;
        }
        for fingerprint in self.unwanted.fingerprints.iter().filter(|fingerprint| fingerprint.fits(content)) {
            self.analysis.fits(fingerprint, format!("{} is {}", place.shown, quoted(fingerprint.name())));
        }
        let by_content = kinds::of_content(content);
        // What is shown as text in the message itself is not run, whatever it begins with.
        let by_content = by_content.filter(|(kind, _)| !(place.is_body && *kind == ContentKind::Script));
        self.names(place, by_content.map(|(kind, _)| kind));
        let format = Format::of(content);
        if let Some((kind, words)) = by_content
            && format != Some(Format::Zip)
        {
            self.kind(place, kind, words);
            if format.is_none() && matches!(kind, ContentKind::Archive | ContentKind::Image) {
                self.analysis.opaque(format!("{} is {words}, which is not opened", place.shown));
            }
        }
        match format {
            Some(format) => {
                self.open(place, content, format);
                self.beside(place, content, format);
            }
            None => self.text(place, content),
        }
        self.hidden(place, content, format);
        if by_content.is_none_or(|(kind, _)| kind != ContentKind::Executable)
            && let Some(text) = disguise::disguise(content, &place.names, place.declared.as_deref())
        {
            self.analysis.reason("FALSE_TYPE", Score::points(2, 0), format!("{} {text}", place.shown));
        }
    }

    /// What has no signature.
    fn text(&mut self, place: &Place, content: &[u8]) {
        if !place.is_body {
            if mail::is_mail(content) {
                if place.depth < DEPTH_MAX {
                    self.mail(place, content);
                } else {
                    self.analysis.opaque(format!("{} lies too deep in archives", place.shown));
                }
                return;
            }
            if markup::is_markup(content, &place.names) {
                self.markup(place, content);
            } else if pdf::is_called_so(content, &place.names, place.declared.as_deref()) {
                self.pdf(place, content);
            } else {
                self.table(place, content);
            }
        }
        self.uuencoded(place, content);
    }

    /// What other programs may take it for: the mark of a PDF may stand anywhere near its beginning, those of RTF and
    /// `ActiveMime` are text that a page or mail may begin with.
    fn beside(&mut self, place: &Place, content: &[u8], format: Format) {
        if place.depth >= DEPTH_MAX {
            return;
        }
        if format != Format::Pdf && pdf::is_pdf(content) {
            self.pdf(place, content);
        }
        if matches!(format, Format::Pdf | Format::Rtf | Format::ActiveMime) && !place.is_body {
            if mail::is_mail(content) {
                self.mail(place, content);
            } else if markup::is_markup(content, &place.names) {
                self.markup(place, content);
            }
        }
    }

    fn open(&mut self, place: &Place, content: &[u8], format: Format) {
        if place.depth >= DEPTH_MAX {
            self.analysis.opaque(format!("{} lies too deep in archives", place.shown));
            return;
        }
        match format {
            Format::Zip => self.zip(place, content, true),
            Format::SevenZip => self.seven_zip(place, content),
            Format::Tar => self.tar(place, content),
            Format::Gzip | Format::Bzip2 | Format::Xz | Format::Zstd => self.packed(place, content, format),
            Format::Compound => self.ole(place, content),
            Format::ActiveMime => self.active_mime(place, content),
            Format::Rtf => self.rtf(place, content),
            Format::Pdf => self.pdf(place, content),
            Format::Notebook => self.notebook(place, content),
        }
    }

    /// Archives behind other bytes, as in programs that unpack themselves: unpackers look for them there. What lies behind a
    /// compound file is found once its streams are known.
    fn hidden(&mut self, place: &Place, content: &[u8], format: Option<Format>) {
        if !matches!(format, Some(Format::Zip | Format::Tar | Format::Compound)) && zip::is_hidden(content) {
            self.hidden_zip(place, content);
        }
        if format != Some(Format::SevenZip)
            && let Some(archive) = seven_zip::hidden(content)
        {
            self.analysis.found(ContentKind::Archive, "BLOCKED_TYPE", behind(place, "7z"));
            self.open(place, archive, Format::SevenZip);
        }
        let rest = content.get(1..).unwrap_or_default();
        if [&b"Rar!\x1a\x07\0"[..], b"Rar!\x1a\x07\x01\0"]
            .iter()
            .any(|magic| memchr::memmem::find(rest, magic).is_some())
        {
            self.analysis.found(ContentKind::Archive, "BLOCKED_TYPE", behind(place, "RAR"));
            self.analysis.opaque(format!("{}, which is not opened", behind(place, "RAR")));
        }
        if content.starts_with(b"MZ") && memchr::memmem::find(content, b"MSCF\0\0\0\0").is_some() {
            self.analysis.opaque(format!("{}, which is not opened", behind(place, "Windows cabinet")));
        }
    }

    fn hidden_zip(&mut self, place: &Place, content: &[u8]) {
        self.analysis.found(ContentKind::Archive, "BLOCKED_TYPE", behind(place, "ZIP"));
        if place.depth < DEPTH_MAX {
            self.zip(place, content, false);
        } else {
            self.analysis.opaque(format!("{} lies too deep in archives", place.shown));
        }
    }

    fn kind(&mut self, place: &Place, kind: ContentKind, words: &str) {
        match place.names.iter().find(|name| is_disguise(name, kind)) {
            Some(name) if place.depth == 0 => {
                self.analysis.found(kind, "FALSE_EXTENSION", format!("{} is {words}", quoted(name)));
            }
            Some(_) => self.analysis.found(kind, "FALSE_EXTENSION", format!("{} is {words}", place.shown)),
            None => self.analysis.found(kind, "BLOCKED_TYPE", format!("{} is {words}", place.shown)),
        }
    }

    /// Names that people have described. What it may cost is paid before.
    fn unwanted_names(&mut self, place: &Place) {
        let patterns: usize = self.unwanted.names.iter().map(NamePattern::len_bytes).sum();
        for name in &place.names {
            let cost = length_of(name.len()).saturating_mul(length_of(patterns));
            if self.budget.work(cost).is_err() {
                return;
            }
            let file = FileName::new(name);
            for pattern in self.unwanted.names.iter().filter(|pattern| pattern.fits(&file)) {
                let shown = if place.depth == 0 { quoted(name) } else { place.shown.clone() };
                self.analysis.named(pattern, format!("{shown} has a name that is not let in: {pattern}"));
            }
        }
    }

    fn names(&mut self, place: &Place, by_content: Option<ContentKind>) {
        if !self.unwanted.names.is_empty() {
            self.unwanted_names(place);
        }
        // Readers end a name at a NUL, or go on behind it.
        let until_nul = |name: &'_ String| name.split_once('\0').map(|(begin, _)| begin.to_owned());
        let cut: Vec<String> = place.names.iter().filter_map(until_nul).collect();
        for name in place.names.iter().chain(&cut) {
            if name.chars().any(crate::message::is_direction) {
                let text = format!("the name {} is written to be misread", quoted(name));
                self.analysis.reason("NAME_HIDES_EXTENSION", Score::points(4, 0), text);
            }
            if let Some(kind) = kinds::of_name(name).filter(|kind| Some(*kind) != by_content)
                && matches!(kind, ContentKind::Executable | ContentKind::Script)
            {
                let shown = if place.depth == 0 { quoted(name) } else { place.shown.clone() };
                self.analysis.found(kind, "BLOCKED_NAME", format!("{shown} would be run by its name"));
            }
        }
    }

    /// One more entry of an archive; `None` when there are too many, or when only its name is known.
    fn entry(&mut self, place: &Place, name: &str) -> Option<Place> {
        self.budget.entry().ok()?;
        Some(place.inside(Some(name)))
    }

    fn encrypted(&mut self, place: &Place) {
        let text = format!("{} is encrypted: what is in it is not known", place.shown);
        self.analysis.found(ContentKind::Encrypted, "ENCRYPTED", text.clone());
        self.analysis.reason("UNREADABLE_ARCHIVE", Score::points(1, 50), text);
    }

    fn broken(&mut self, place: &Place, words: &str) {
        // Where the budget ended nothing is broken.
        if !self.budget.is_spent() {
            self.analysis.opaque(format!("{} is {words} that does not unpack", place.shown));
        }
    }
}

fn behind(place: &Place, what: &str) -> String {
    format!("{} is a {what} archive behind other bytes", place.shown)
}

/// Whether a name says that this is something harmless.
fn is_disguise(name: &str, kind: ContentKind) -> bool {
    kinds::extension(name).is_some() && kinds::of_name(name) != Some(kind) && kind == ContentKind::Executable
}

#[cfg(test)]
mod tests;
