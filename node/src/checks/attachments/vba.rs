//! Reads the source of VBA macros (MS-OVBA) and says whether they run by themselves.

use super::{
    budget::{Budget, length_of},
    compound::{Entry, number, utf16},
};

/// Bytes that a chunk unpacks to.
const CHUNK_BYTES: usize = 4096;

/// Modules of a project that are looked at; real ones have some dozens.
const MODULES_MAX: usize = 1000;
/// Longest name of a module, in bytes: Office allows 31 characters.
const NAME_BYTES_MAX: usize = 64;

/// Procedures that Office calls by itself.
const CALLED: [&str; 34] = [
    "autoexec",
    "autoopen",
    "autonew",
    "autoclose",
    "autoexit",
    "auto_open",
    "auto_close",
    "auto_ope",
    "auto_activate",
    "auto_deactivate",
    "document_open",
    "document_new",
    "document_close",
    "document_beforeclose",
    "document_change",
    "document_contentcontrolonenter",
    "documentopen",
    "documentbeforeclose",
    "documentbeforesave",
    "documentchange",
    "newdocument",
    "workbook_open",
    "workbook_activate",
    "workbook_windowactivate",
    "workbook_windowresize",
    "workbook_sheetactivate",
    "worksheet_activate",
    "workbook_deactivate",
    "workbook_beforeclose",
    "workbook_close",
    "workbookopen",
    "worksheet_calculate",
    "onslideshowpagechange",
    "presentation_open",
];
/// Modules whose procedure `Main` Word calls by itself.
const MODULES: [&str; 5] = ["autoexec", "autoopen", "autonew", "autoclose", "autoexit"];
/// So much compiled code, in bytes, a module without any has not: about a thousand, for its tables.
const COMPILED_BYTES: usize = 4096;
/// Events of controls that happen when a document is shown.
const EVENTS: [&str; 14] = [
    "_layout",
    "_resize",
    "_gotfocus",
    "_lostfocus",
    "_mousehover",
    "_mouseenter",
    "_painted",
    "_painting",
    "_documentcomplete",
    "_downloadcomplete",
    "_beforenavigate2",
    "_navigatecomplete2",
    "_onconnecting",
    "_statechange",
];

/// What the macros of a compound file do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Macros {
    /// There are none, or they say nothing.
    None,
    /// Somebody must ask for them.
    Asked,
    /// This procedure is called by Office.
    Called(String),
    /// There are some, and their source does not stand where it should.
    Unreadable,
}

/// Looks at all modules.
pub(super) fn macros(entries: &[Entry], budget: &Budget) -> Macros {
    let streams = || entries.iter().filter_map(|entry| Some((entry.name.as_str(), entry.content.as_deref()?)));
    if !streams().any(|(name, _)| name.eq_ignore_ascii_case("_VBA_PROJECT")) {
        return Macros::None;
    }
    let listed: Vec<(String, usize)> = streams()
        .filter(|(name, _)| name.eq_ignore_ascii_case("dir"))
        .flat_map(|(_, dir)| modules(&decompress(dir, budget).unwrap_or_default()))
        .collect();
    let mut sources = Vec::new();
    let mut is_unreadable = listed.len() >= MODULES_MAX;
    let mut is_compiled = false;
    for (name, content) in streams() {
        let places = listed.iter().filter(|(module, _)| module.eq_ignore_ascii_case(name)).map(|(_, at)| *at);
        // Where a directory lies, its modules are still found by how each begins.
        let begun = memchr::memmem::find_iter(content, b"\0Attribut").filter_map(|at| at.checked_sub(3));
        for at in places {
            is_compiled |= at >= COMPILED_BYTES;
            let source = content.get(at..).and_then(|packed| decompress(packed, budget));
            is_unreadable |= source.is_none();
            sources.extend(source);
        }
        sources.extend(begun.filter_map(|at| decompress(content.get(at..)?, budget)));
    }
    let sources: Vec<String> =
        sources.iter().map(|source| joined(&String::from_utf8_lossy(source).to_ascii_lowercase())).collect();
    if let Some(called) = sources.iter().find_map(|source| called(source)) {
        return Macros::Called(called);
    }
    if is_unreadable || sources.is_empty() {
        return Macros::Unreadable;
    }
    match sources.iter().any(|source| says_something(source)) {
        true => Macros::Asked,
        // Office runs what is compiled, if it is of its own version.
        false if is_compiled => Macros::Unreadable,
        false => Macros::None,
    }
}

/// Names and places of the modules (MS-OVBA 2.3.4.2).
fn modules(dir: &[u8]) -> Vec<(String, usize)> {
    let mut modules = Vec::new();
    let (mut at, mut name) = (0, String::new());
    while let (Some(id), Some(size)) = (dir.get(at..at + 2), number(dir, at + 2))
        && modules.len() < MODULES_MAX
    {
        // The record of the version says less than it has.
        let size = if id == [9, 0] { 6 } else { usize::try_from(size).unwrap_or(usize::MAX) };
        let Some(data) = dir.get(at + 6..).and_then(|rest| rest.get(..size)) else { break };
        match id {
            [0x1a, 0] => name = String::from_utf8_lossy(&data[..data.len().min(NAME_BYTES_MAX)]).into_owned(),
            [0x32, 0] => name = utf16(&data[..data.len().min(2 * NAME_BYTES_MAX)]),
            [0x31, 0] => {
                let place = number(data, 0).and_then(|place| usize::try_from(place).ok());
                modules.extend(place.map(|place| (name.clone(), place)));
            }
            _ => {}
        }
        at += 6 + size;
    }
    modules
}

/// Undoes the compression of MS-OVBA 2.4.1, as far as it makes sense; `None` when it does not begin as it must.
pub(super) fn decompress(packed: &[u8], budget: &Budget) -> Option<Vec<u8>> {
    let mut rest = packed.strip_prefix(b"\x01")?;
    let mut out = Vec::new();
    while let [low, high, after @ ..] = rest {
        let header = u16::from_le_bytes([*low, *high]);
        if header >> 12 & 7 != 3 {
            break;
        }
        let length = (usize::from(header & 0xfff) + 1).min(after.len());
        let (chunk, next) = after.split_at(length);
        let from = out.len();
        budget.work(length_of(length)).ok()?;
        if header >> 15 == 1 {
            let _ = tokens(chunk, &mut out);
        } else {
            out.extend_from_slice(chunk);
        }
        budget.unpacked(out.len() - from, 1).ok()?;
        rest = next;
    }
    (!out.is_empty()).then_some(out)
}

/// `None` where the tokens end or make no sense.
fn tokens(chunk: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let from = out.len();
    let mut bytes = chunk.iter().copied();
    loop {
        let flags = bytes.next()?;
        for bit in 0..8 {
            if out.len() - from >= CHUNK_BYTES {
                return None;
            }
            if flags >> bit & 1 == 0 {
                out.push(bytes.next()?);
                continue;
            }
            let token = u16::from_le_bytes([bytes.next()?, bytes.next()?]);
            let done = out.len() - from;
            let bits = (4..12).find(|bits| 1 << bits >= done).unwrap_or(12);
            let length = usize::from(token & (0xffff >> bits)) + 3;
            let back = usize::from(token >> (16 - bits)) + 1;
            for _ in 0..length.min(CHUNK_BYTES - done) {
                out.push(*out.get(out.len().checked_sub(back)?)?);
            }
        }
    }
}

/// With lines that go on after ` _` as one (MS-VBAL 3.2.2).
fn joined(source: &str) -> String {
    source.replace(" _\r\n", " ").replace(" _\n", " ")
}

/// The lines that do something.
fn lines(source: &str) -> impl Iterator<Item = &str> {
    let lines = source.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('\'') && !line.starts_with("rem "))
}

fn says_something(source: &str) -> bool {
    lines(source).any(|line| !line.starts_with("attribute ") && !line.starts_with("option "))
}

/// The first procedure that is called by itself, in lower case.
fn called(source: &str) -> Option<String> {
    let module = lines(source).find_map(|line| line.strip_prefix("attribute vb_name = "));
    let has_main = module.is_some_and(|module| MODULES.contains(&module.trim_matches('"')));
    lines(source).find_map(|line| {
        let words: Vec<&str> =
            line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
        words.windows(2).find_map(|pair| {
            let name = pair[1];
            let begins = matches!(pair[0], "sub" | "function");
            let is_called = CALLED.contains(&name) || EVENTS.iter().any(|event| name.ends_with(event));
            let is_called = is_called || has_main && name == "main";
            (begins && is_called).then(|| name.to_owned())
        })
    })
}
