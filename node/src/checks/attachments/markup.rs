//! Looks into HTML, SVG, XML and the like that come as files (threat 30): a browser that opens them runs what is in them. And
//! into tables as text, whose formulas may call programs.

use proto::policy::ContentKind;

use super::{
    Look, Place, kinds,
    office::is_dde_formula,
    quoted,
    xml::{Tag, count, tags, text_of, xml_tags},
};

/// So far into a file it is asked whether it is markup.
const HEAD_BYTES: usize = 4096;
/// What it costs to read a tag beside its bytes, in all the passes over a page: two thirds of a microsecond.
const TAG_COST: u64 = 320;
/// What it costs to read a tag once more.
const QUOTED_COST: u64 = 4096;
/// Endings of what browsers and Windows open as markup.
const ENDINGS: [&str; 17] = [
    "html", "htm", "xhtml", "xht", "shtml", "svg", "svgz", "hta", "mht", "mhtml", "xml", "xsl", "xslt", "mml", "url",
    "htc", "eml",
];
/// Beginnings of tags that tell markup from text.
const BEGINNINGS: [&str; 9] =
    ["<html", "<svg", "<!doctype html", "<script", "<head", "<body", "<iframe", "<?xml", "<meta "];
/// Elements that run, or show in a frame, what is no part of the picture or page.
const RUN: [&str; 7] = ["script", "foreignobject", "iframe", "object", "embed", "applet", "frame"];
/// Addresses that are run when they are opened.
const ADDRESSES: [&str; 5] = ["javascript:", "vbscript:", "data:text/html", "data:image/svg+xml", "data:application/"];

/// Whether it is markup, by its beginning or by any name.
pub(super) fn is_markup(content: &[u8], names: &[String]) -> bool {
    let head = text_of(&content[..content.len().min(HEAD_BYTES)]).to_ascii_lowercase();
    let is_named =
        names.iter().filter_map(|name| kinds::extension(name)).any(|ending| ENDINGS.contains(&ending.as_str()));
    let begins = head.trim_start().starts_with('<') && BEGINNINGS.iter().any(|beginning| head.contains(beginning));
    // What is called a page is one, whatever stands before its first tag.
    begins || is_named
}

/// Whether a browser shows it as a page or picture; in other XML an element called `object` means nothing.
fn is_page(text: &str, names: &[String]) -> bool {
    let head = text[..text.floor_char_boundary(HEAD_BYTES)].to_ascii_lowercase();
    let ending = |name: &String| kinds::extension(name).filter(|ending| ENDINGS.contains(&ending.as_str()));
    names.iter().filter_map(ending).any(|ending| ending != "xml")
        || BEGINNINGS.iter().filter(|beginning| **beginning != "<?xml").any(|beginning| head.contains(beginning))
        || head.contains("http://www.w3.org/1999/xhtml")
        || head.contains("http://www.w3.org/2000/svg")
}

impl Look<'_> {
    pub(super) fn markup(&mut self, place: &Place, content: &[u8]) {
        if self.budget.work(super::length_of(content.len()).saturating_mul(8)).is_err() {
            return;
        }
        let text = text_of(content);
        if self.budget.work(count(&text).saturating_mul(TAG_COST)).is_err() {
            return;
        }
        let is_page = is_page(&text, &place.names);
        let is_run = |tag: &Tag<'_>| runs(tag).filter(|what| is_page || what == "<script>");
        let mut found = None;
        for tag in tags(&text) {
            let quoted = tag.quoted();
            if quoted.is_some() && self.budget.work(QUOTED_COST).is_err() {
                return;
            }
            found = is_run(&tag).or_else(|| is_run(&quoted?));
            if found.is_some() {
                break;
            }
        }
        if let Some(what) = found {
            let text = format!("{} runs what is in it when it is opened: {}", place.shown, quoted(&what));
            self.analysis.found(ContentKind::Active, "ACTIVE_MARKUP", text);
        }
        // Office documents in one file of XML.
        self.office_xml(place, &text);
        self.relationships(place, &text);
        for tag in xml_tags(&text).filter(|tag| matches!(tag.name(), "binData" | "binaryData")) {
            let packed: String = tag.text.chars().filter(|c| !c.is_whitespace()).collect();
            if self.budget.entry().is_err() || self.budget.unpacked(packed.len(), 1).is_err() {
                return;
            }
            let unpacked = mail_parser::decoders::base64::base64_decode(packed.as_bytes()).unwrap_or_default();
            self.embedded(place, &unpacked);
        }
    }

    /// Tables as text: CSV and SYLK.
    pub(super) fn table(&mut self, place: &Place, content: &[u8]) {
        let is_sylk = content.starts_with(b"ID;P");
        let mut endings = place.names.iter().filter_map(|name| kinds::extension(name));
        if !is_sylk && !endings.any(|ending| ["csv", "tsv", "iqy"].contains(&ending.as_str())) {
            return;
        }
        let text = text_of(content);
        if text.split(['\n', '\r', ',', ';', '\t']).any(is_dde_formula) {
            self.dde(place);
        }
        // A sheet of macros, or a name that is called at opening.
        let is_macro = |line: &str| line.starts_with("O;") && line.contains(";E") || line.starts_with("NN;NAuto_");
        if is_sylk && text.lines().any(is_macro) {
            self.excel4(place);
        }
    }
}

/// What of a tag is run, if anything.
fn runs(tag: &Tag<'_>) -> Option<String> {
    let name = tag.name().to_ascii_lowercase();
    if RUN.contains(&name.as_str()) {
        return Some(format!("<{name}>"));
    }
    if name == "meta" && tag.attribute("http-equiv").is_some_and(|value| value.eq_ignore_ascii_case("refresh")) {
        return Some("<meta refresh>".to_owned());
    }
    tag.attributes().find_map(|(name, value)| {
        let name = name.to_ascii_lowercase();
        let is_event = name.len() > 3 && name.starts_with("on") && name.bytes().all(|byte| byte.is_ascii_lowercase());
        let value: String = value.chars().filter(|c| !c.is_whitespace() && !c.is_control()).take(24).collect();
        let value = value.to_ascii_lowercase();
        let is_address = matches!(
            name.as_str(),
            "href" | "src" | "action" | "formaction" | "data" | "to" | "values" | "from" | "srcdoc"
        ) && (name == "srcdoc" || ADDRESSES.iter().any(|address| value.starts_with(address)));
        (is_event || is_address).then(|| format!("{name}="))
    })
}

#[cfg(test)]
mod tests {
    use super::{runs, tags};

    #[test]
    fn a_tag_goes_on_behind_what_a_value_holds_in_quotes() {
        for text in [
            "<img alt='>' src=x onerror=y>",
            "<img alt=\"a<b>c\" src=x onerror=y>",
            "<a title = '\">' href=javascript:x>",
        ] {
            assert!(tags(text).any(|tag| tag.quoted().is_some_and(|tag| runs(&tag).is_some())), "{text}");
        }
        for text in ["<p title='x'>onload=y</p>", "<p>it's > onload=y", "<p x=1>\" onload=y"] {
            assert!(!tags(text).any(|tag| tag.quoted().is_some_and(|tag| runs(&tag).is_some())), "{text}");
        }
        let mut open = tags("<a b='").map(|tag| tag.quoted().is_some());
        assert_eq!(open.next(), Some(true));
    }

    #[test]
    fn what_runs_is_told_from_what_is_shown() {
        for text in [
            "<svg><script>x</script>",
            "<svg onload=x()>",
            "<ScRiPt src=x>",
            "<svg:script>",
            "<a xlink:href='java&#115;cript:x'>",
            "<a href='&#106avascript:x'>",
            "<a href='&#x6A;avascript:x'>",
            "<a href='&#x000000000006a&#97vascript&colon;x'>",
            "<a href=java&Tab;scr&NewLine;ipt&colon;x>",
            "<a href='\u{1}\u{b} java\u{0}script\t:x'>",
            "<a href=' &#1;&#14;javascript:x'>",
            "<a href=\"java\nscript:x\">",
            "<iframe srcdoc='x'>",
            "<foreignObject>",
            "<meta http-equiv='Refresh' content='0;url=x'>",
            "<img src=x onerror='y'>",
        ] {
            assert!(tags(text).any(|tag| runs(&tag).is_some()), "{text}");
        }
        for text in [
            "<p>on load = nothing</p>",
            "<a href='https://a.test/?javascript:'>",
            "<img src='data:image/png;base64,x'>",
            "<svg once='x' on='y'>",
        ] {
            let found: Vec<_> = tags(text).filter_map(|tag| runs(&tag)).collect();
            assert!(found.is_empty() || text.contains("once"), "{text}: {found:?}");
        }
    }
}
