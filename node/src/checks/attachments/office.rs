//! Looks at the parts of Office documents in ZIP archives (ECMA-376, OpenDocument 1.3) and at those that are one XML file:
//! macro sheets, DDE, what is fetched from elsewhere when they are opened.

use proto::policy::ContentKind;

use super::{
    Look, Place, quoted,
    xml::{Tag, count, text_of, unescaped, xml_tags},
};

/// Relationships whose target Office loads by itself, each with its rule and words.
const LOADED: [(&str, &str, &str); 4] = [
    ("/attachedTemplate", "REMOTE_TEMPLATE", "loads its template from"),
    ("/oleObject", "EXTERNAL_OBJECT", "loads an object from"),
    ("/frame", "EXTERNAL_OBJECT", "loads a frame from"),
    ("/subDocument", "EXTERNAL_OBJECT", "loads a part of it from"),
];

/// What a tag costs beside its bytes: a quarter of a microsecond.
const TAG_COST: u64 = 128;

impl Look<'_> {
    /// A part of a document, by its name in the archive.
    pub(super) fn office_part(&mut self, place: &Place, name: &str, content: &[u8]) {
        let name = name.replace('\\', "/").to_ascii_lowercase();
        if name.ends_with(".rels") {
            self.relationships(place, &text_of(content));
        } else if name == "[content_types].xml" {
            self.content_types(place, &text_of(content));
        } else if name.starts_with("xl/macrosheets/") {
            self.excel4(place);
        } else if name.starts_with("customui/") {
            self.ribbon(place, &text_of(content));
        } else if name.starts_with("xl/externallinks/") {
            if is_dde_link(&name, content) {
                self.dde(place);
            }
        } else if name.starts_with("basic/") || name.starts_with("scripts/") {
            self.analysis.found(ContentKind::Macro, "MACROS", format!("{} has macros", place.shown));
        } else if name == "meta-inf/manifest.xml" {
            if text_of(content).contains("encryption-data") {
                self.encrypted(place);
            }
        } else if name.ends_with(".xml") {
            self.office_xml(place, &text_of(content));
        }
    }

    /// What the parts are: a sheet of macros may have any name, and be XML or binary (MS-XLSB 2.1.7.1).
    fn content_types(&mut self, place: &Place, text: &str) {
        if self.budget.work(count(text).saturating_mul(TAG_COST)).is_err() {
            return;
        }
        let mut types = xml_tags(text).filter_map(|tag| tag.attribute("ContentType"));
        if types.any(|kind| kind.to_ascii_lowercase().contains("macrosheet")) {
            self.excel4(place);
        }
    }

    /// What is added to the ribbon (MS-CUSTOMUI 2.2.1): a procedure may be called when it is loaded.
    fn ribbon(&mut self, place: &Place, text: &str) {
        if self.budget.work(count(text).saturating_mul(TAG_COST)).is_err() {
            return;
        }
        let called = xml_tags(text).filter(|tag| tag.name() == "customUI").find_map(|tag| tag.attribute("onLoad"));
        if let Some(called) = called {
            self.run_themselves(place, &called);
        }
    }

    pub(super) fn run_themselves(&mut self, place: &Place, called: &str) {
        let text = format!("{} has macros that run by themselves: {}", place.shown, quoted(called));
        self.analysis.found(ContentKind::Active, "MACROS_RUN", text);
    }

    /// The text of a document: fields and what it says happens when it is opened.
    pub(super) fn office_xml(&mut self, place: &Place, text: &str) {
        if self.budget.work(count(text).saturating_mul(TAG_COST)).is_err() {
            return;
        }
        if has_dde(text) {
            self.dde(place);
        }
        let called = xml_tags(text).filter(|tag| tag.name() == "event-listener").find_map(|tag| tag.attribute("href"));
        if let Some(script) = called.filter(|script| script.contains("script:")) {
            self.run_themselves(place, &script);
        }
    }

    pub(super) fn relationships(&mut self, place: &Place, text: &str) {
        if self.budget.work(count(text).saturating_mul(TAG_COST)).is_err() {
            return;
        }
        for tag in xml_tags(text).filter(|tag| tag.name() == "Relationship") {
            let is_external = tag.attribute("TargetMode").is_some_and(|mode| mode.eq_ignore_ascii_case("External"));
            let (Some(kind), Some(target)) = (tag.attribute("Type"), tag.attribute("Target")) else { continue };
            if kind.to_ascii_lowercase().ends_with("macrosheet") {
                self.excel4(place);
            }
            let loaded = LOADED.iter().find(|(ending, ..)| kind.ends_with(ending));
            if let Some((_, rule, words)) = loaded.filter(|_| is_external && is_elsewhere(&target)) {
                let text = format!("{} {words} {}", place.shown, quoted(&target));
                self.analysis.found(ContentKind::Active, rule, text);
            }
        }
    }
}

/// Whether a target is on another machine. Templates on the author's own disk are common and do no harm.
pub(super) fn is_elsewhere(target: &str) -> bool {
    let target = target.trim().to_ascii_lowercase().replace('\\', "/");
    let file = target.strip_prefix("file:").unwrap_or(&target);
    let host = file.trim_start_matches('/');
    let is_drive = host.as_bytes().get(1) == Some(&b':');
    let is_share = file.starts_with("//") && !file.starts_with("///") && !is_drive;
    let is_deep_share = file.starts_with("/////") || (file.starts_with("////") && !is_drive);
    let schemes = ["http:", "https:", "ftp:", "mhtml:", "ms-", "smb:", "webdav:", "script:", "mk:", "javascript:"];
    is_share || is_deep_share || schemes.iter().any(|scheme| target.starts_with(scheme))
}

/// Fields (`instrText`, `fldSimple`), sources of OpenDocument, links and formulas of workbooks.
fn has_dde(text: &str) -> bool {
    if !["dde", "DDE", "Dde", "instr", "Formula"].iter().any(|word| text.contains(word)) {
        return false;
    }
    // A field's text may be spread over many pieces, so all of one field are put together.
    let mut field = String::new();
    for tag in xml_tags(text) {
        match tag.name() {
            "instrText" | "delInstrText" => field.push_str(&unescaped(tag.text)),
            "fldChar" => {
                if is_dde(&field) {
                    return true;
                }
                field.clear();
            }
            "fldSimple" if tag.attribute("instr").is_some_and(|field| is_dde(&field)) => return true,
            "ddeLink" | "dde-source" | "dde-link" => return true,
            "Cell" if calls_a_program(&tag) => return true,
            _ => {}
        }
    }
    is_dde(&field)
}

fn is_dde(field: &str) -> bool {
    let field: String = field.chars().filter(|c| !c.is_whitespace() && *c != '"').take(3).collect();
    field.eq_ignore_ascii_case("dde")
}

/// `=program|'topic'!item`.
fn calls_a_program(cell: &Tag<'_>) -> bool {
    cell.attribute("Formula").is_some_and(|formula| is_dde_formula(&formula))
}

/// Whether a formula asks another program.
pub(super) fn is_dde_formula(formula: &str) -> bool {
    let formula = formula.trim_start_matches([' ', '\t', '"', '\'']);
    let Some(formula) = formula.strip_prefix(['=', '+', '-', '@']) else { return false };
    let Some((program, topic)) = formula.split_once('|') else { return false };
    let program = program.trim_start_matches(|c: char| !c.is_alphanumeric());
    let program = program.rsplit(['+', '-', '=', '(', '*', '/']).next().unwrap_or(program);
    !program.is_empty()
        && program.len() < 64
        && program.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'))
        && topic.contains('!')
}

/// A link of a workbook to a program: in XML, or in the binary form (MS-XLSB 2.4.303), whose record says of what sort it is.
fn is_dde_link(name: &str, content: &[u8]) -> bool {
    if name.ends_with(".bin") {
        let record = memchr::memmem::find(content, b"\xe8\x02").and_then(|at| content.get(at + 2..));
        return record.is_some_and(|record| after_length(record).starts_with(&[1, 0]));
    }
    name.ends_with(".xml") && has_dde(&text_of(content))
}

/// What follows the length of a record, seven bits a byte.
fn after_length(record: &[u8]) -> &[u8] {
    let length = record.iter().take(4).take_while(|byte| **byte >= 0x80).count() + 1;
    record.get(length..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{has_dde, is_dde_formula, is_elsewhere};

    #[test]
    fn a_field_in_pieces_is_one_field() {
        let field = |pieces: &[&str]| {
            let pieces: String =
                pieces.iter().map(|piece| format!("<w:r><w:instrText x='y'>{piece}</w:instrText></w:r>")).collect();
            format!("<w:fldChar w:fldCharType='begin'/>{pieces}<w:fldChar w:fldCharType='end'/>")
        };
        assert!(has_dde(&field(&[" D", "D", "EAUTO c:\\\\windows"])));
        assert!(has_dde(&field(&["&quot;d&#100;", "e\" x"])));
        let page = field(&["PAGE"]);
        assert!(has_dde(&format!("{page}{}", field(&["DDEAUTO c"]))), "behind another field");
        assert!(has_dde("<w:fldSimple w:instr='DDE cmd'/>"));
        assert!(has_dde("<w:fldSimple xmlns:x=\"a>b\" w:instr='DDE cmd'/>"), "a value may hold the end of a tag");
        assert!(has_dde("<w:instrText xmlns:x='a\">b'>DDEAUTO c</w:instrText>"));
        assert!(!has_dde(&field(&["PAGE"])) && !has_dde("<w:t>a word on DDE and its hidden form</w:t>"));
    }

    #[test]
    fn a_formula_that_asks_a_program_is_told_from_one_that_does_not() {
        for formula in [
            "=cmd|'/c calc'!A1",
            "+MSEXCEL|'..\\x'!''",
            "@SUM(1+1)*cmd|' /C calc'!A0",
            "\"=cmd|'/c'!A\"",
            "-2+3+cmd|' /C calc'!A0",
        ] {
            assert!(is_dde_formula(formula), "{formula}");
        }
        for formula in ["=A1+B1", "a|b!c", "=IF(A1,\"a|b\",2)", "= | ", "-"] {
            assert!(!is_dde_formula(formula), "{formula}");
        }
    }

    #[test]
    fn a_template_on_the_authors_disk_is_not_elsewhere() {
        for target in [
            "http://a.test/t.dotm",
            "\\\\host\\share\\t.dot",
            "file://host/t.dot",
            "file:///\\\\host\\t.dot",
            "mhtml:http://x",
        ] {
            assert!(is_elsewhere(target), "{target}");
        }
        for target in ["file:///C:\\Users\\a\\Normal.dotm", "C:\\Normal.dotm", "Normal.dotm", "file:///home/a/t.dotx"] {
            assert!(!is_elsewhere(target), "{target}");
        }
    }
}
