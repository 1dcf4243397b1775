//! Looks into PDF (ISO 32000-1): scripts, actions at opening, programs that are started, embedded files; also in object streams.
//! Objects are read where they stand, whatever the table of references says: readers repair it, each in its own way.

use std::collections::{BTreeMap, BTreeSet};

use proto::policy::ContentKind;

use super::{
    Look, Place,
    budget::{Budget, Spent},
    format::Format,
    kinds, length_of,
    pdf_filters::Filters,
    pdf_tokens::{Token, Tokens},
};

/// So far into a file the signature is looked for, as readers do.
const HEAD_BYTES: usize = 1024;
/// What reading a byte into tokens costs.
const READING_COST: u64 = 4;
/// What a token costs beside its bytes: a quarter of a microsecond, where a unit is two nanoseconds.
const TOKEN_COST: u64 = 128;
/// What a stream costs beside its bytes: each may take a decoder.
const STREAM_COST: u64 = 4096;
/// Lengths that one stream may be said to have.
const LENGTHS_MAX: usize = 4;
/// Types of streams that are no embedded files. Any other word is no reason not to look.
const NO_FILES: [&str; 9] =
    ["XObject", "XRef", "Metadata", "Pattern", "Image", "Form", "Type1C", "CIDFontType0C", "OpenType"];
/// Objects of one file that are remembered.
const OBJECTS_MAX: usize = 200_000;

pub(super) fn is_pdf(content: &[u8]) -> bool {
    memchr::memmem::find(&content[..content.len().min(HEAD_BYTES)], b"%PDF-").is_some()
}

/// What has another beginning, or none, and still is called a PDF: readers open it when they find objects in it.
pub(super) fn is_called_so(content: &[u8], names: &[String], declared: Option<&str>) -> bool {
    let is_named = names.iter().filter_map(|name| kinds::extension(name)).any(|ending| ending == "pdf");
    let is_declared = declared.is_some_and(|declared| declared.eq_ignore_ascii_case("application/pdf"));
    (is_named || is_declared) && memchr::memmem::find(content, b" obj").is_some()
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
    /// Objects that are run when a page, or the document, is opened or left, should this be one of them.
    opening_of_page: Vec<u32>,
    /// Whether what is run at opening stands in it.
    opens_script: bool,
    /// The same, should it be a page or the document.
    opens_script_of_page: bool,
    /// Actions that are run after it, and what it gives as its kind.
    next: Vec<u32>,
    /// Names of files.
    files: Vec<String>,
    is_embedded: bool,
    is_object_stream: bool,
    /// Whether it says how many objects it has: readers take it for such a stream then, whatever its type.
    has_count: bool,
    /// Whether it is a field or note: what that does when it is filled in is asked for.
    is_field: bool,
    /// Whether it says of what type it is: pages and files may not.
    is_typed: bool,
    /// Whether that type is one of streams that readers do not hand out as files.
    is_no_file: bool,
    filters: Filters,
    /// What it says that its stream is long.
    lengths: Vec<usize>,
    /// The object that says it.
    length_at: Option<u32>,
    /// Of an object stream: where its objects begin.
    first: Option<usize>,
}

#[derive(Default)]
struct Document {
    objects: BTreeMap<u32, Object>,
    is_encrypted: bool,
    /// Streams that matter and could not be read.
    unread: usize,
    /// Objects that are nothing but a number, once one was asked for.
    numbers: Option<BTreeMap<u32, Vec<usize>>>,
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
        if document.objects.values().any(|object| object.launch) {
            self.analysis.found(ContentKind::Active, "PDF_LAUNCH", format!("{shown} starts a program"));
        }
        if document.is_run_at_opening() {
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
        let is_described = !self.unwanted.names.is_empty();
        for name in names.filter(|name| is_described || kinds::of_name(name).is_some()) {
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
            if budget.work(TOKEN_COST).is_err() {
                return;
            }
            let is_stream = std::mem::replace(&mut is_after_dictionary, token == Token::Close);
            match token {
                Token::Number(value) => last = [last[1], value],
                // Readers find objects by their table: what seems to be text to its end may hold some.
                Token::Text(_) if tokens.text_holds_objects() => {
                    if budget.work(length_of(tokens.read_again()).saturating_mul(READING_COST)).is_err() {
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
                    if let Some(at) = object.object.length_at {
                        let Ok(lengths) = self.lengths_at(at, content, budget) else { return };
                        object.object.lengths.extend(lengths);
                    }
                    let (packed, is_unclear) = tokens.stream(&object.object.lengths);
                    self.unread += usize::from(is_unclear);
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
        object.next.extend(new.next);
        if new.is_typed && !new.is_field {
            object.opens_script |= new.opens_script_of_page;
            object.opening.extend(new.opening_of_page);
        }
        object.files.extend(new.files);
    }

    /// Whether a script is among what is run at opening, or among what that leads to.
    fn is_run_at_opening(&self) -> bool {
        let mut seen = BTreeSet::new();
        let mut open: Vec<u32> = self.objects.values().flat_map(|object| object.opening.iter().copied()).collect();
        while let Some(number) = open.pop() {
            let Some(object) = self.objects.get(&number).filter(|_| seen.insert(number)) else { continue };
            if object.script {
                return true;
            }
            open.extend(&object.next);
        }
        self.objects.values().any(|object| object.opens_script)
    }

    /// The lengths that an object may give: readers differ about which of several objects of one number counts.
    fn lengths_at(&mut self, number: u32, content: &[u8], budget: &Budget) -> Result<Vec<usize>, Spent> {
        if self.numbers.is_none() {
            budget.work(length_of(content.len()).saturating_mul(READING_COST))?;
            self.numbers = Some(numbers(content));
        }
        Ok(self.numbers.as_ref().and_then(|numbers| numbers.get(&number)).cloned().unwrap_or_default())
    }

    fn stream(&mut self, object: &Object, packed: &[u8], budget: &Budget) {
        let first = object.first.filter(|_| object.has_count);
        if object.is_object_stream || first.is_some() {
            let undone = object.filters.undo(packed, u64::MAX, budget);
            let is_read = self.object_stream(&undone.content, object.first.unwrap_or_default(), budget).is_some();
            self.unread += usize::from(!undone.is_whole || !is_read);
            return;
        }
        let is_file = || {
            // Whether a stream without a type begins as a program or archive does.
            let head = object.filters.undo(packed, PEEK_BYTES, budget).content;
            kinds::by_signature(&head).is_some() || Format::of(&head).is_some()
        };
        if object.is_embedded || (!object.is_no_file && is_file()) {
            let undone = object.filters.undo(packed, u64::MAX, budget);
            self.unread += usize::from(!undone.is_whole);
            self.embedded.push(undone.content);
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
        if numbers.len() < 2 && !bytes.trim_ascii().is_empty() {
            return None;
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
                budget.work(TOKEN_COST).ok()?;
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

/// All objects of the file that are one number, as lengths of streams may be.
fn numbers(content: &[u8]) -> BTreeMap<u32, Vec<usize>> {
    let mut numbers: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for at in memchr::memmem::find_iter(content, b"obj") {
        let before = &content[at.saturating_sub(24)..at];
        let mut words = before.rsplit(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let (_, object) = (words.next(), words.next());
        let after = &content[at + 3..content.len().min(at + 64)];
        let mut words = after.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let (value, end) = (words.next(), words.next());
        let parsed = |word: Option<&[u8]>| std::str::from_utf8(word?).ok()?.parse::<u32>().ok();
        if let (Some(object), Some(value)) = (parsed(object), parsed(value))
            && end.is_some_and(|end| end.starts_with(b"endobj"))
        {
            let values = numbers.entry(object).or_default();
            if values.len() < LENGTHS_MAX {
                values.push(usize::try_from(value).unwrap_or(usize::MAX));
            }
        }
    }
    numbers
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
    /// Whether that is so for a page or document only.
    is_of_page: bool,
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
                match self.names[1].as_str() {
                    "Length" => self.object.length_at = Some(last[0]),
                    "Filter" => self.object.filters.is_elsewhere(),
                    _ => {}
                }
                if self.opening.is_some() {
                    let of_page = self.is_of_page;
                    let opening = if of_page { &mut self.object.opening_of_page } else { &mut self.object.opening };
                    opening.push(last[0]);
                }
                if matches!(self.names[1].as_str(), "Next" | "S") {
                    self.object.next.push(last[0]);
                }
                if self.opening == Some(self.depth) {
                    self.opening = None;
                }
            }
            Token::Text(text) if matches!(self.names[1].as_str(), "F" | "UF" | "Desc") => {
                self.object.files.push(text.clone());
            }
            Token::Number(first) if is_after_name && self.names[1] == "First" => {
                self.object.first = Some(usize::try_from(*first).unwrap_or(usize::MAX));
            }
            Token::Number(_) if is_after_name && self.names[1] == "N" => self.object.has_count = true,
            Token::Number(length) if is_after_name && self.names[1] == "Length" => {
                if self.object.lengths.len() < LENGTHS_MAX {
                    self.object.lengths.push(usize::try_from(*length).unwrap_or(usize::MAX));
                }
            }
            Token::Number(0) if is_after_name && self.names[1] == "EarlyChange" => self.object.filters.is_late = true,
            Token::Text(_) | Token::Number(_) | Token::Word(_) => {}
        }
    }

    fn name(&mut self, name: &str) {
        let before = std::mem::replace(&mut self.names[1], name.to_owned());
        match (before.as_str(), name) {
            ("S", "JavaScript") | (_, "JS") => {
                self.object.script = true;
                self.object.opens_script |= self.opening.is_some() && !self.is_of_page;
                self.object.opens_script_of_page |= self.opening.is_some();
            }
            // An object that is a name and nothing else, for another to call it its kind.
            (_, "JavaScript") if self.depth == 0 => self.object.script = true,
            (_, "Launch") if self.depth == 0 => self.object.launch = true,
            ("S", "Launch") => self.object.launch = true,
            ("Type", "EmbeddedFile") => self.object.is_embedded = true,
            ("Type", "ObjStm") => self.object.is_object_stream = true,
            ("Type" | "Subtype", _) => {
                self.object.is_typed = true;
                self.object.is_no_file |= NO_FILES.contains(&name);
                self.object.is_field |= matches!(name, "Annot" | "Widget");
            }
            (_, "OpenAction") => (self.opening, self.is_of_page) = (Some(self.depth), false),
            (_, "AA") => self.actions = Some(self.depth),
            // Opening, closing, saving and printing (ISO 32000-1 section 12.6.3): first of a field's page, then of all else.
            (_, "PO" | "PC" | "PV" | "PI") if self.actions.is_some() => {
                (self.opening, self.is_of_page) = (Some(self.depth), false);
            }
            (_, "O" | "C" | "WC" | "WS" | "DS" | "WP" | "DP") if self.actions.is_some() => {
                (self.opening, self.is_of_page) = (Some(self.depth), true);
            }
            _ => self.object.filters.name(name),
        }
        self.names[0] = before;
    }
}
