//! Looks into PDF (ISO 32000-1): scripts, actions at opening, programs that are started, embedded files; also in object streams.
//! Objects are read where they stand, whatever the table of references says: readers repair it, each in its own way.

use std::{collections::BTreeMap, io::Read as _};

use flate2::bufread::ZlibDecoder;
use proto::policy::ContentKind;

use super::{
    Look, Place,
    budget::{Budget, Metered},
    format::Format,
    kinds, length_of,
    pdf_tokens::{Token, Tokens},
};

/// So far into a file the signature is looked for, as readers do.
const HEAD_BYTES: usize = 1024;
/// What an unpacked byte costs.
const WEIGHT: u64 = 1;
/// What reading a byte into tokens costs.
const READING_COST: u64 = 4;
/// What a stream costs beside its bytes: each may take a decoder.
const STREAM_COST: u64 = 4096;
/// Filters of one stream; real ones have two at most.
const FILTERS_MAX: usize = 8;
/// Types of streams that are no embedded files. Any other word is no reason not to look.
const NO_FILES: [&str; 9] =
    ["XObject", "XRef", "Metadata", "Pattern", "Image", "Form", "Type1C", "CIDFontType0C", "OpenType"];
/// Objects of one file that are remembered.
const OBJECTS_MAX: usize = 200_000;

pub(super) fn is_pdf(content: &[u8]) -> bool {
    memchr::memmem::find(&content[..content.len().min(HEAD_BYTES)], b"%PDF-").is_some()
}

/// Bytes of a stream without a type that tell whether it is a file.
const PEEK_BYTES: u64 = 1024;

/// What an object says that matters here.
#[derive(Default)]
struct Object {
    /// Whether it is, or holds, an action that runs a script.
    script: bool,
    /// Whether it is, or holds, an action that starts a program.
    launch: bool,
    /// Objects that are run when the document, or a page, is opened.
    opening: Vec<u32>,
    /// Whether what is run at opening stands in it.
    opens_script: bool,
    /// Names of files.
    files: Vec<String>,
    is_embedded: bool,
    is_object_stream: bool,
    /// Whether it says of what type it is: pages and files may not.
    is_typed: bool,
    /// Whether that type is one of streams that readers do not hand out as files.
    is_no_file: bool,
    filters: Vec<String>,
    /// Of an object stream: where its objects begin.
    first: usize,
}

#[derive(Default)]
struct Document {
    objects: BTreeMap<u32, Object>,
    is_encrypted: bool,
    /// Object streams that could not be read.
    unread: usize,
    embedded: Vec<Vec<u8>>,
    is_too_much: bool,
}

impl Look<'_> {
    pub(super) fn pdf(&mut self, place: &Place, content: &[u8]) {
        if self.budget.work(length_of(content.len()).saturating_mul(READING_COST)).is_err() {
            return;
        }
        let mut document = Document::default();
        document.read(content, &self.budget);
        let shown = &place.shown;
        let at_opening = |object: &Object| {
            let runs = |number: &u32| document.objects.get(number).is_some_and(|object| object.script);
            object.opens_script || object.opening.iter().any(runs)
        };
        if document.objects.values().any(|object| object.launch) {
            self.analysis.found(ContentKind::Active, "PDF_LAUNCH", format!("{shown} starts a program"));
        }
        if document.objects.values().any(at_opening) {
            self.analysis.found(
                ContentKind::Active,
                "PDF_SCRIPT_RUNS",
                format!("{shown} has a script that runs when it is opened"),
            );
        } else if document.objects.values().any(|object| object.script) {
            self.analysis.found(ContentKind::Macro, "PDF_SCRIPT", format!("{shown} has a script"));
        }
        if document.is_encrypted {
            self.encrypted(place);
        } else if document.unread > 0 {
            self.analysis.opaque(format!("{shown} has objects that do not unpack"));
        }
        if document.is_too_much {
            self.analysis.opaque(format!("{shown} has more objects than are looked into"));
        }
        let names = document.objects.values().flat_map(|object| &object.files);
        for name in names.filter(|name| kinds::of_name(name).is_some()) {
            self.names(&place.inside(Some(name)), None);
        }
        for file in document.embedded {
            if self.budget.entry().is_err() {
                return;
            }
            self.look(&place.inside(None), &file);
        }
    }
}

impl Document {
    /// Reads objects one after the other; what stands outside of them, as the trailer does, is an object without a number.
    fn read(&mut self, content: &[u8], budget: &Budget) {
        let mut tokens = Tokens::new(content);
        let mut object = Reading::default();
        let mut number = 0;
        let mut last = [0; 2];
        let mut is_after_dictionary = false;
        while let Some(token) = tokens.next() {
            let is_stream = std::mem::replace(&mut is_after_dictionary, token == Token::Close);
            match token {
                Token::Number(value) => last = [last[1], value],
                // Readers find objects by their table: what seems to be text to its end may hold some.
                Token::Text(_) if tokens.text_holds_objects() => {
                    if budget.work(length_of(tokens.read_again())).is_err() {
                        return;
                    }
                    continue;
                }
                Token::Word(b"obj") => {
                    self.keep(number, std::mem::take(&mut object));
                    number = last[0];
                }
                Token::Word(b"endobj") => {
                    self.keep(number, std::mem::take(&mut object));
                    number = 0;
                }
                Token::Word(b"stream") if is_stream => {
                    let packed = tokens.stream();
                    if budget.work(length_of(packed.len()).saturating_add(STREAM_COST)).is_err() {
                        return;
                    }
                    self.stream(&object.object, packed, budget);
                }
                Token::Word(_) | Token::Name(_) | Token::Text(_) | Token::Open | Token::Close => {}
            }
            self.is_encrypted |= matches!(&token, Token::Name(name) if name == "Encrypt");
            object.token(&token, last);
        }
        self.keep(number, object);
    }

    /// Two objects of one number are one here: which of them counts is for readers to differ about.
    fn keep(&mut self, number: u32, reading: Reading) {
        let new = reading.object;
        if self.objects.len() >= OBJECTS_MAX {
            self.is_too_much = true;
            return;
        }
        let object = self.objects.entry(number).or_default();
        object.script |= new.script;
        object.launch |= new.launch;
        object.opens_script |= new.opens_script;
        object.opening.extend(new.opening);
        object.files.extend(new.files);
    }

    fn stream(&mut self, object: &Object, packed: &[u8], budget: &Budget) {
        if object.is_object_stream {
            match unpacked(&object.filters, packed, u64::MAX, budget) {
                Some(bytes) if self.object_stream(&bytes, object.first, budget).is_some() => {}
                Some(_) | None => self.unread += 1,
            }
            return;
        }
        let is_file = object.is_embedded || (!object.is_no_file && is_file(&object.filters, packed, budget));
        if is_file {
            match unpacked(&object.filters, packed, u64::MAX, budget) {
                Some(bytes) => self.embedded.push(bytes),
                None => self.unread += 1,
            }
        }
    }

    /// Numbers and places of the objects, then the objects (section 7.5.7). `None` when they do not lie as they should.
    fn object_stream(&mut self, bytes: &[u8], first: usize, budget: &Budget) -> Option<()> {
        let (header, bytes) = bytes.split_at_checked(first)?;
        let mut tokens = Tokens::new(header);
        let mut numbers = Vec::new();
        while let Some(Token::Number(number)) = tokens.next() {
            numbers.push(number);
        }
        let mut places: Vec<(usize, u32)> =
            numbers.chunks_exact(2).filter_map(|pair| Some((usize::try_from(pair[1]).ok()?, pair[0]))).collect();
        places.sort_unstable();
        places.dedup_by_key(|(at, _)| *at);
        for (index, (at, number)) in places.iter().enumerate() {
            let end = places.get(index + 1).map_or(bytes.len(), |(end, _)| (*end).min(bytes.len()));
            let object = bytes.get(*at..end)?;
            budget.work(length_of(object.len()).saturating_mul(READING_COST)).ok()?;
            let mut tokens = Tokens::new(object);
            let (mut reading, mut last) = (Reading::default(), [0; 2]);
            while let Some(token) = tokens.next() {
                if let Token::Number(value) = token {
                    last = [last[1], value];
                }
                reading.token(&token, last);
            }
            self.keep(*number, reading);
        }
        Some(())
    }
}

/// Whether a stream without a type begins as a program or archive does.
fn is_file(filters: &[String], packed: &[u8], budget: &Budget) -> bool {
    let head = unpacked(filters, packed, PEEK_BYTES, budget).unwrap_or_default();
    let is_program = matches!(kinds::of_content(&head), Some((ContentKind::Executable, _)));
    is_program || Format::of(&head).is_some()
}

/// Undoes the filters of a stream; `None` when one is not known or the end is missing.
fn unpacked(filters: &[String], packed: &[u8], bytes_max: u64, budget: &Budget) -> Option<Vec<u8>> {
    if filters.len() > FILTERS_MAX {
        return None;
    }
    let mut bytes = packed.to_vec();
    for filter in filters {
        bytes = match filter.as_str() {
            "FlateDecode" | "Fl" => {
                let decoder = ZlibDecoder::new(Metered::new(&bytes, budget)).take(bytes_max);
                let unpacked = budget.unpack(decoder, WEIGHT);
                unpacked.is_whole.then_some(unpacked.content)?
            }
            "ASCIIHexDecode" | "AHx" => {
                let digits: Vec<u8> = bytes.iter().copied().filter(u8::is_ascii_hexdigit).collect();
                hex::decode(&digits[..digits.len() / 2 * 2]).ok()?
            }
            "ASCII85Decode" | "A85" => ascii85(&bytes),
            _ => return None,
        };
    }
    Some(bytes)
}

fn ascii85(packed: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut group = Vec::with_capacity(5);
    for byte in packed.iter().copied().take_while(|byte| *byte != b'~') {
        match byte {
            b'z' if group.is_empty() => bytes.extend([0; 4]),
            b'!'..=b'u' => group.push(u32::from(byte - b'!')),
            _ => {}
        }
        if group.len() == 5 {
            let value = group.iter().fold(0_u32, |value, digit| value.wrapping_mul(85).wrapping_add(*digit));
            bytes.extend(value.to_be_bytes());
            group.clear();
        }
    }
    if group.len() > 1 {
        let kept = group.len() - 1;
        group.resize(5, 84);
        let value = group.iter().fold(0_u32, |value, digit| value.wrapping_mul(85).wrapping_add(*digit));
        bytes.extend(value.to_be_bytes().into_iter().take(kept));
    }
    bytes
}

/// An object while its tokens come.
#[derive(Default)]
struct Reading {
    object: Object,
    /// The last name, and the one before it.
    names: [String; 2],
    /// How deep in dictionaries, and at what depth what is run at opening began.
    depth: usize,
    opening: Option<usize>,
    /// At what depth a dictionary of further actions began.
    actions: Option<usize>,
    /// Whether the last token was a name.
    is_after_name: bool,
}

impl Reading {
    fn token(&mut self, token: &Token<'_>, last: [u32; 2]) {
        let is_after_name = std::mem::replace(&mut self.is_after_name, matches!(token, Token::Name(_)));
        let is_tree = self.names[1] == "JavaScript" && self.names[0] != "S";
        match token {
            Token::Open => {
                // A tree of scripts: all of them run when the document is opened.
                self.object.opens_script |= is_tree && is_after_name;
                self.depth += 1;
            }
            Token::Close => {
                self.depth = self.depth.saturating_sub(1);
                if self.opening.is_some_and(|depth| self.depth <= depth) {
                    self.opening = None;
                }
                if self.actions.is_some_and(|depth| self.depth <= depth) {
                    self.actions = None;
                }
            }
            Token::Name(name) => self.name(name),
            Token::Word(b"R") => {
                self.object.opens_script |= is_tree;
                if self.opening.is_some() {
                    self.object.opening.push(last[0]);
                }
                if self.opening == Some(self.depth) {
                    self.opening = None;
                }
            }
            Token::Text(text) if matches!(self.names[1].as_str(), "F" | "UF" | "Desc") => {
                self.object.files.push(text.clone());
            }
            Token::Number(first) if is_after_name && self.names[1] == "First" => {
                self.object.first = usize::try_from(*first).unwrap_or(usize::MAX);
            }
            Token::Text(_) | Token::Number(_) | Token::Word(_) => {}
        }
    }

    fn name(&mut self, name: &str) {
        let before = std::mem::replace(&mut self.names[1], name.to_owned());
        match (before.as_str(), name) {
            ("S", "JavaScript") | (_, "JS") => {
                self.object.script = true;
                self.object.opens_script |= self.opening.is_some();
            }
            ("S", "Launch") => self.object.launch = true,
            ("Type", "EmbeddedFile") => self.object.is_embedded = true,
            ("Type", "ObjStm") => self.object.is_object_stream = true,
            ("Type" | "Subtype", _) => {
                self.object.is_typed = true;
                self.object.is_no_file |= NO_FILES.contains(&name);
            }
            (_, "OpenAction") => self.opening = Some(self.depth),
            (_, "AA") => self.actions = Some(self.depth),
            // Opening, closing, saving and printing; what a field does when it is filled in is asked for.
            (_, "O" | "C" | "PO" | "PC" | "PV" | "PI" | "WC" | "WS" | "DS" | "WP" | "DP")
                if self.actions.is_some() && self.object.is_typed =>
            {
                self.opening = Some(self.depth);
            }
            (
                _,
                "FlateDecode" | "Fl" | "ASCIIHexDecode" | "AHx" | "ASCII85Decode" | "A85" | "LZWDecode" | "LZW"
                | "RunLengthDecode" | "RL" | "Crypt" | "DCTDecode" | "JPXDecode" | "CCITTFaxDecode" | "Predictor",
                // One more than counts is enough to see that there are too many.
            ) if self.object.filters.len() <= FILTERS_MAX => self.object.filters.push(name.to_owned()),
            _ => {}
        }
        self.names[0] = before;
    }
}
