//! Looks into RTF (version 1.9.1): embedded objects, templates from elsewhere, DDE. Writers of attacks spread the digits of an
//! object over nonsense; Word passes over it, and so do we.

use proto::policy::ContentKind;

use super::{
    Look, Place,
    compound::{self, number},
    office::is_elsewhere,
    quoted,
};

/// Objects that one file is taken apart into.
const OBJECTS_MAX: usize = 500;
/// Longest text of a field or template that is looked at.
const TEXT_BYTES_MAX: usize = 4096;
/// Longest name of a class; Windows has 39 characters.
const CLASS_BYTES_MAX: usize = 255;
/// Groups that are open at once.
const GROUPS_MAX: usize = 10_000;
/// Templates from elsewhere that are told.
const TEMPLATES_MAX: usize = 5;
/// Classes whose objects did something by themselves.
const RUN: [&str; 6] = ["equation", "ole2link", "otkloadr", "htmlfile", "script", "mshta"];

impl Look<'_> {
    pub(super) fn rtf(&mut self, place: &Place, content: &[u8]) {
        let mut read = Read::default();
        read.all(content);
        if self.budget.unpacked(read.objects.iter().map(Vec::len).sum(), 1).is_err() {
            return;
        }
        if read.has_dde {
            self.dde(place);
        }
        for template in &read.templates {
            let text = format!("{} loads its template from {}", place.shown, quoted(template));
            self.analysis.found(ContentKind::Active, "REMOTE_TEMPLATE", text);
        }
        if read.is_loaded_by_itself && !read.objects.is_empty() {
            self.runs(place, "an object that is loaded by itself");
        }
        for object in &read.objects {
            if self.budget.entry().is_err() {
                return;
            }
            self.object(place, object);
        }
        if read.is_too_much {
            self.analysis.opaque(format!("{} has more objects or groups than are looked into", place.shown));
        }
    }

    pub(super) fn runs(&mut self, place: &Place, what: &str) {
        let text = format!("{} has {what}", place.shown);
        self.analysis.found(ContentKind::Active, "OBJECT_RUNS", text);
    }

    /// An object as OLE 1 keeps it (MS-OLEDS 2.2.4): class, topic, item, bytes.
    fn object(&mut self, place: &Place, object: &[u8]) {
        let class = text_after(object, 8);
        // What it is Word still finds out by its bytes; where we cannot say, it is not known.
        if !object.is_empty() && class.as_ref().is_none_or(|(class, _)| !is_class(class)) {
            self.analysis.opaque(format!("{} has an object whose class cannot be read", place.shown));
        }
        let lower = class.as_ref().map(|(class, _)| class.to_ascii_lowercase()).unwrap_or_default();
        if let Some(run) = RUN.iter().find(|run| lower.contains(**run)) {
            self.runs(place, &format!("an object of the class {}", quoted(run)));
        }
        let data =
            class.as_ref().and_then(|(_, at)| text_after(object, *at)).and_then(|(_, at)| text_after(object, at));
        let data = data.and_then(|(_, at)| object.get(at + 4..)).unwrap_or(object);
        if lower.contains("package") {
            self.package(place, data);
        } else {
            self.embedded(place, data);
        }
        // However its header is bent, Word finds the compound file.
        if let Some(at) =
            memchr::memmem::find(object, compound::SIGNATURE).filter(|_| !data.starts_with(compound::SIGNATURE))
        {
            self.embedded(place, &object[at..]);
        }
    }
}

/// Whether this may be the name of a class; there may be none.
fn is_class(class: &str) -> bool {
    let name = class.split('\0').next().unwrap_or_default();
    name.len() <= CLASS_BYTES_MAX && name.chars().all(|c| c.is_ascii_graphic() || c == ' ')
}

/// A text behind its length, and where it ends.
fn text_after(object: &[u8], at: usize) -> Option<(String, usize)> {
    let length = usize::try_from(number(object, at)?).ok()?;
    let text = object.get(at + 4..)?.get(..length)?;
    Some((String::from_utf8_lossy(text).into_owned(), at + 4 + length))
}

/// What the current group is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    Other,
    Object,
    Template,
    Field,
}

#[derive(Default)]
struct Read {
    objects: Vec<Vec<u8>>,
    /// A digit of the last object that its second one is not yet there of.
    half: Option<u8>,
    /// Those from elsewhere.
    templates: Vec<String>,
    /// What the last field or template says, as far as it came.
    said: String,
    said_by: Option<About>,
    has_dde: bool,
    is_loaded_by_itself: bool,
    is_too_much: bool,
}

impl Read {
    fn all(&mut self, content: &[u8]) {
        // Of each open group; groups below an object's are part of it.
        let mut groups = vec![About::Other];
        let mut rest = content;
        while let [byte, after @ ..] = rest {
            rest = after;
            let about = groups.last().copied().unwrap_or(About::Other);
            match byte {
                b'{' => {
                    if groups.len() < GROUPS_MAX {
                        groups.push(about);
                    } else {
                        self.is_too_much = true;
                    }
                }
                b'}' => {
                    groups.pop();
                }
                b'\\' => rest = self.control(after, about, &mut groups),
                b'\r' | b'\n' => {}
                byte => self.text(*byte, about),
            }
        }
        self.is_said();
    }

    /// The field or template is at its end, for another begins. Documents may have any number of them.
    fn is_said(&mut self) {
        let said = std::mem::take(&mut self.said);
        match self.said_by.take() {
            Some(About::Field) => {
                let field = said.trim_start_matches([' ', '"']);
                self.has_dde |= field.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("dde"));
            }
            Some(About::Template) if is_elsewhere(&said) && self.templates.len() < TEMPLATES_MAX => {
                self.templates.push(said);
            }
            Some(About::Template | About::Object | About::Other) | None => {}
        }
    }

    fn text(&mut self, byte: u8, about: About) {
        let digit = char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (about, digit) {
            (About::Object, Some(digit)) => match self.half.take() {
                Some(high) => self.push(high << 4 | digit),
                None => self.half = Some(digit),
            },
            (About::Template | About::Field, _) if self.said.len() < TEXT_BYTES_MAX => self.said.push(char::from(byte)),
            (About::Template | About::Field, _) | (About::Object, None) | (About::Other, _) => {}
        }
    }

    fn push(&mut self, byte: u8) {
        if let Some(object) = self.objects.last_mut() {
            object.push(byte);
        }
    }

    /// A control word or symbol; what comes after it.
    fn control<'c>(&mut self, rest: &'c [u8], about: About, groups: &mut [About]) -> &'c [u8] {
        let letters = rest.iter().take(32).take_while(|byte| byte.is_ascii_alphabetic()).count();
        if letters == 0 {
            // `\'5c` is a byte, all else one sign.
            if let [b'\'', high, low, after @ ..] = rest {
                let code = [*high, *low].map(|digit| char::from(digit).to_digit(16));
                if let ([Some(high), Some(low)], true) = (code, about != About::Object) {
                    self.text(u8::try_from(high << 4 | low).unwrap_or_default(), about);
                }
                return after;
            }
            if let ([sign @ (b'\\' | b'{' | b'}'), ..], true) = (rest, about != About::Object) {
                self.text(*sign, about);
            }
            return rest.get(1..).unwrap_or_default();
        }
        let (word, rest) = rest.split_at(letters);
        let digits = rest.iter().take(10).take_while(|byte| byte.is_ascii_digit() || **byte == b'-').count();
        let (number, rest) = rest.split_at(digits);
        let rest = rest.strip_prefix(b" ").unwrap_or(rest);
        let becomes = match word {
            b"objdata" => About::Object,
            b"template" => About::Template,
            b"fldinst" => About::Field,
            b"objupdate" | b"objautlink" => {
                self.is_loaded_by_itself = true;
                return rest;
            }
            b"bin" => return self.binary(rest, number, about),
            _ => return rest,
        };
        if let Some(group) = groups.last_mut() {
            *group = becomes;
        }
        self.begin(becomes);
        rest
    }

    fn begin(&mut self, about: About) {
        match about {
            About::Object if self.objects.len() >= OBJECTS_MAX => self.is_too_much = true,
            About::Object => {
                self.half = None;
                self.objects.push(Vec::new());
            }
            About::Template | About::Field => {
                self.is_said();
                self.said_by = Some(about);
            }
            About::Other => {}
        }
    }

    /// `\binN`: so many bytes as they are.
    fn binary<'c>(&mut self, rest: &'c [u8], number: &[u8], about: About) -> &'c [u8] {
        let length = std::str::from_utf8(number).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0);
        let (bytes, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        if about == About::Object {
            bytes.iter().for_each(|byte| self.push(*byte));
        }
        after
    }
}
