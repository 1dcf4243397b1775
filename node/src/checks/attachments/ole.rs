//! Looks into compound files: macros, Excel 4 sheets, DDE, embedded files, encryption (MS-DOC, MS-XLS, MS-PPT, MS-OLEDS).

use flate2::bufread::ZlibDecoder;
use proto::policy::ContentKind;

use super::{
    Look, Place,
    budget::Metered,
    compound::{Compound, Entry, number, utf16},
    format::Format,
    kinds,
    vba::{Macros, macros},
    zip,
};

/// The class of Windows installers.
const INSTALLER: [u8; 16] = *b"\x84\x10\x0c\0\0\0\0\0\xc0\0\0\0\0\0\0\x46";
/// Classes of objects that did something by themselves: equations (CVE-2017-11882), pages and scripts.
const RUN: [([u8; 16], &str); 3] = [
    (*b"\x02\xce\x02\0\0\0\0\0\xc0\0\0\0\0\0\0\x46", "equation"),
    (*b"\x20\x69\x33\x25\xf9\x03\xcf\x11\x8f\xd0\0\xaa\0\x68\x6f\x13", "page"),
    (*b"\xd3\x0b\x29\x06\xaa\x48\xd2\x11\x84\x32\0\x60\x08\xc3\xfb\xfc", "script"),
];
/// The class of links that are followed when they are shown (CVE-2017-0199). Within a document they are common.
const LINK: [u8; 16] = *b"\0\x03\0\0\0\0\0\0\xc0\0\0\0\0\0\0\x46";
/// Where the packed bytes of an ActiveMime file begin.
const ACTIVE_MIME_HEADER_BYTES: usize = 0x32;
/// What an unpacked byte costs.
const WEIGHT: u64 = 1;

impl Look<'_> {
    pub(super) fn ole(&mut self, place: &Place, content: &[u8]) {
        let Some(compound) = Compound::read(content, &self.budget) else {
            self.broken(place, "a compound file");
            return;
        };
        if !compound.is_whole {
            self.broken(place, "a compound file");
        }
        if compound.class == INSTALLER {
            let text = format!("{} is a Windows installer", place.shown);
            self.analysis.found(ContentKind::Executable, "BLOCKED_TYPE", text);
        }
        let classes = compound.entries.iter().map(|entry| &entry.class).chain([&compound.class]);
        if let Some((_, what)) = classes.filter_map(|class| RUN.iter().find(|(run, _)| run == class)).next() {
            self.runs(place, &format!("an object of the class {what}"));
        } else if compound.class == LINK {
            self.runs(place, "an object that is a link");
        }
        // Of the ends of archives those that lie in no stream are none that a document carries.
        let ends = |bytes: &[u8]| memchr::memmem::find_iter(bytes, b"PK\x05\x06").count();
        let within: usize = compound.entries.iter().filter_map(|entry| entry.content.as_deref()).map(ends).sum();
        if ends(content) > within && zip::is_hidden(content) {
            self.hidden_zip(place, content);
        }
        self.macros(place, &compound.entries);
        for Entry { name, content, .. } in &compound.entries {
            // Names are equal whatever their case is (MS-CFB 2.6.4).
            let name = name.to_ascii_lowercase();
            match name.as_str() {
                "equation native" => self.runs(place, "an object of the class equation"),
                "encryptedpackage" | "encryptedsummary" | "\u{9}drmcontent" => self.encrypted(place),
                _ => {}
            }
            if let Some(content) = content {
                self.stream(place, &name, content);
            }
        }
    }

    fn macros(&mut self, place: &Place, entries: &[Entry]) {
        let shown = &place.shown;
        match macros(entries, &self.budget) {
            Macros::None => {}
            Macros::Asked => self.analysis.found(ContentKind::Macro, "MACROS", format!("{shown} has macros")),
            Macros::Called(name) => self.run_themselves(place, &name),
            Macros::Unreadable => {
                let text = format!("{shown} has macros whose source is not to be found");
                self.analysis.found(ContentKind::Active, "MACROS_HIDDEN", text);
            }
        }
    }

    fn stream(&mut self, place: &Place, name: &str, content: &[u8]) {
        match name {
            "worddocument" => {
                if content.get(11).is_some_and(|flags| flags & 1 == 1) {
                    self.encrypted(place);
                }
                if has_dde_field(content) {
                    self.dde(place);
                }
            }
            "workbook" | "book" => self.workbook(place, content),
            "powerpoint document" => self.presentation(place, content),
            "\u{1}ole10native" => self.package(place, content.get(4..).unwrap_or_default()),
            // The names of what is attached to an Outlook message.
            _ if name.starts_with("__substg1.0_3707") || name.starts_with("__substg1.0_3704") => {
                let name =
                    if name.ends_with("001f") { utf16(content) } else { String::from_utf8_lossy(content).into() };
                self.names(&place.inside(Some(&name)), None);
            }
            _ => self.embedded(place, content),
        }
    }

    /// A compound file as Office packs it for pages: behind a header of its own.
    pub(super) fn active_mime(&mut self, place: &Place, content: &[u8]) {
        let packed = content.get(ACTIVE_MIME_HEADER_BYTES..).unwrap_or_default();
        let unpacked = self.budget.unpack(ZlibDecoder::new(Metered::new(packed, &self.budget)), WEIGHT);
        if !unpacked.is_whole {
            self.broken(place, "an ActiveMime file");
        }
        self.embedded(place, &unpacked.content);
    }

    /// Bytes that may be a file; of a sort that chance does not make.
    pub(super) fn embedded(&mut self, place: &Place, content: &[u8]) {
        if kinds::by_signature(content).is_some() || Format::of(content).is_some() || zip::is_hidden(content) {
            self.look(&place.inside(None), content);
        }
    }

    /// A file as the packager keeps it: label, path, path again, bytes. Of a link there are the names alone.
    pub(super) fn package(&mut self, place: &Place, content: &[u8]) {
        let Some((names, rest)) = labels(content) else { return self.embedded(place, content) };
        let mut inside = place.inside(names.first().map(String::as_str));
        inside.names = names;
        match packaged(rest) {
            Some(file) => self.look(&inside, file),
            None => {
                self.names(&inside, None);
                self.embedded(place, content);
            }
        }
    }

    pub(super) fn dde(&mut self, place: &Place) {
        let text = format!("{} calls another program (DDE)", place.shown);
        self.analysis.found(ContentKind::Active, "DDE", text);
    }

    pub(super) fn excel4(&mut self, place: &Place) {
        let text = format!("{} has a sheet of Excel 4 macros", place.shown);
        self.analysis.found(ContentKind::Active, "EXCEL4_MACROS", text);
    }

    /// The records of a workbook (MS-XLS 2.1.4).
    fn workbook(&mut self, place: &Place, content: &[u8]) {
        let mut rest = content;
        while let [a, b, c, d, after @ ..] = rest {
            let length = usize::from(u16::from_le_bytes([*c, *d]));
            let Some((record, next)) = after.split_at_checked(length) else { return };
            rest = next;
            match u16::from_le_bytes([*a, *b]) {
                // Passwords; what comes after it is encrypted.
                0x002f => return self.encrypted(place),
                // A sheet: where, whether it is hidden, of what sort.
                0x0085 if record.get(5) == Some(&1) => self.excel4(place),
                // Another document, or a program and a topic with a 3 between them.
                0x01ae if record.len() > 4 && record[4..].contains(&3) && !record.ends_with(b"\x01\x04") => {
                    self.dde(place);
                }
                _ => {}
            }
        }
    }

    /// Objects and macros lie packed in the stream (MS-PPT 2.10.34).
    fn presentation(&mut self, place: &Place, content: &[u8]) {
        for at in memchr::memmem::find_iter(content, b"\0\x11\x10").filter_map(|at| at.checked_sub(1)) {
            let Some((kind, length)) = content.get(at).zip(number(content, at + 4)) else { continue };
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let Some(object) = content.get(at + 8..).and_then(|rest| rest.get(..length)) else { continue };
            if self.budget.entry().is_err() {
                return;
            }
            match kind {
                0x10 => {
                    let packed = object.get(4..).unwrap_or_default();
                    let unpacked = self.budget.unpack(ZlibDecoder::new(Metered::new(packed, &self.budget)), WEIGHT);
                    self.embedded(place, &unpacked.content);
                }
                0 => self.embedded(place, object),
                _ => {}
            }
        }
    }
}

/// Label and path of what is packaged, and what follows them.
fn labels(content: &[u8]) -> Option<(Vec<String>, &[u8])> {
    let mut rest = content.strip_prefix(b"\x02\0").unwrap_or(content);
    let mut names = Vec::new();
    for _ in 0..2 {
        let end = memchr::memchr(0, rest)?;
        names.push(String::from_utf8_lossy(rest.get(..end.min(1000))?).into_owned());
        rest = rest.get(end + 1..)?;
    }
    Some((names, rest))
}

fn packaged(rest: &[u8]) -> Option<&[u8]> {
    let path = usize::try_from(number(rest, 4)?).ok()?;
    let rest = rest.get(8..)?.get(path..)?;
    let length = usize::try_from(number(rest, 0)?).ok()?;
    let file = rest.get(4..)?;
    Some(&file[..file.len().min(length)])
}

/// Whether a field begins with DDE or DDEAUTO, in text of one or two bytes a character.
fn has_dde_field(content: &[u8]) -> bool {
    memchr::memchr_iter(0x13, content).any(|at| {
        let after = content.get(at + 1..content.len().min(at + 64)).unwrap_or_default();
        let text: Vec<u8> =
            after.iter().copied().filter(|byte| !matches!(byte, 0 | b' ' | b'"' | b'\t' | 0x13)).take(3).collect();
        text.eq_ignore_ascii_case(b"dde")
    })
}
