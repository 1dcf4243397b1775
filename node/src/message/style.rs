//! Whether a style hides what it is put on from a reader: the ways of CSS that mail programs follow. Pure. Not a browser: colours,
//! sizes and places that come from elsewhere are not worked out.

use std::collections::{HashMap, HashSet};

/// A letter of so many pixels nobody reads.
const TINY_PX: f64 = 2.0;
/// So many pixels away nobody looks.
const FAR_PX: f64 = 900.0;
/// What is so transparent nobody sees.
const CLEAR: f64 = 0.05;
/// Names out of one style sheet at most.
const NAMES_MAX: usize = 2000;

/// How what stands in an element is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sight {
    /// Not at all, whatever is said further in.
    is_gone: bool,
    /// `visibility`, which is said anew further in.
    is_invisible: bool,
    /// Its letters are too small, unless further in they are larger.
    is_tiny: bool,
    /// Its letters are transparent or as their ground, unless further in they have another colour.
    is_clear: bool,
}

impl Sight {
    /// Whether a reader does not see it.
    pub(super) fn is_hidden(self) -> bool {
        self.is_gone || self.is_invisible || self.is_tiny || self.is_clear
    }

    /// Within an element of this style.
    #[must_use]
    pub(super) fn within(self, style: Style) -> Self {
        Self {
            is_gone: self.is_gone || style.hides || style.no_display == Some(true),
            is_invisible: style.is_invisible.unwrap_or(self.is_invisible),
            is_tiny: style.is_tiny.unwrap_or(self.is_tiny),
            is_clear: style.is_clear.unwrap_or(self.is_clear),
        }
    }
}

/// What declarations say of how something is seen; nothing where they do not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    /// It is cut off, moved far away or transparent.
    hides: bool,
    no_display: Option<bool>,
    is_invisible: Option<bool>,
    is_tiny: Option<bool>,
    is_clear: Option<bool>,
}

impl Style {
    /// Reads the value of a `style` attribute, or what stands between braces.
    #[must_use]
    pub(super) fn of(declarations: &str) -> Self {
        let mut style = Self::default();
        let (mut is_cut_off, mut has_no_size, mut is_placed, mut is_far) = (false, false, false, false);
        let (mut color, mut ground) = (None, None);
        let all = || declarations.split(';').filter_map(|declaration| declaration.split_once(':'));
        let important = |value: &str| value.trim_end().to_ascii_lowercase().ends_with("!important");
        // What is important holds against what comes after it.
        let in_order = all().filter(|(_, value)| !important(value)).chain(all().filter(|(_, value)| important(value)));
        for (property, value) in in_order {
            let value = || {
                let value: String =
                    value.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()).collect();
                value.strip_suffix("!important").map(str::to_owned).unwrap_or(value)
            };
            match property.trim().to_ascii_lowercase().as_str() {
                "display" => style.no_display = Some(value() == "none"),
                "visibility" => style.is_invisible = Some(value() == "hidden" || value() == "collapse"),
                "font-size" => style.is_tiny = tiny(&value()).or(style.is_tiny),
                "color" => color = known(value()),
                "background" | "background-color" => ground = known(value()),
                "overflow" => is_cut_off = value() == "hidden",
                "height" | "width" | "max-height" | "max-width" => {
                    has_no_size |= pixels(&value()).is_some_and(|size| size <= 1.0);
                }
                "position" => is_placed = value() != "static",
                "left" | "top" => is_far |= far(&value()),
                "clip" => is_far |= value().starts_with("rect(0") && value().matches('0').count() >= 3,
                "margin-left" | "margin-top" => style.hides |= far(&value()),
                "opacity" => style.hides |= value().parse::<f64>().is_ok_and(|part| part <= CLEAR),
                "transform" => style.hides |= value() == "scale(0)" || value() == "scale(0,0)",
                _ => {}
            }
        }
        style.hides |= (is_cut_off && has_no_size) || (is_placed && is_far);
        style.is_clear = color.map(|color| is_transparent(&color) || ground == Some(color));
        style
    }

    /// With what is said later of the same element.
    #[must_use]
    pub(super) fn then(self, later: Self) -> Self {
        Self {
            hides: self.hides || later.hides,
            no_display: later.no_display.or(self.no_display),
            is_invisible: later.is_invisible.or(self.is_invisible),
            is_tiny: later.is_tiny.or(self.is_tiny),
            is_clear: later.is_clear.or(self.is_clear),
        }
    }
}

fn far(value: &str) -> bool {
    pixels(value).is_some_and(|size| size <= -FAR_PX)
}

/// Whether letters of this size are too small; nothing when that depends on what they stand in.
fn tiny(size: &str) -> Option<bool> {
    let is_tiny = pixels(size).map(|size| size <= TINY_PX);
    let is_relative = size.ends_with('%') || (size.ends_with("em") && !size.ends_with("rem"));
    let is_word = ["small", "medium", "large"].iter().any(|word| size.ends_with(word));
    if is_relative { is_tiny.filter(|is_tiny| *is_tiny) } else { is_tiny.or(is_word.then_some(false)) }
}

/// A colour in one way of writing; nothing when it is that of what it stands in.
fn known(color: String) -> Option<String> {
    match color.as_str() {
        "inherit" | "initial" | "unset" | "currentcolor" => None,
        "white" => Some("#ffffff".to_owned()),
        "black" => Some("#000000".to_owned()),
        short if short.len() == 4 && short.starts_with('#') => {
            Some(short.chars().flat_map(|c| std::iter::repeat_n(c, if c == '#' { 1 } else { 2 })).collect())
        }
        _ => Some(color),
    }
}

fn is_transparent(color: &str) -> bool {
    color == "transparent" || (color.starts_with("rgba(") && color.ends_with(",0)"))
}

/// A length in pixels, of other units about as many as a reader's settings make of them.
fn pixels(value: &str) -> Option<f64> {
    let end = value.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-')).unwrap_or(value.len());
    let (number, unit) = value.split_at(end);
    let number: f64 = number.parse().ok()?;
    match unit {
        "px" | "" => Some(number),
        "pt" => Some(number * 4.0 / 3.0),
        "em" | "rem" => Some(number * 16.0),
        "%" => (number == 0.0).then_some(0.0),
        _ => None,
    }
}

/// What a style sheet says of elements, classes and ids (`p`, `.name`, `p.name`, `#name`) on all screens. What some screens show again
/// is left out: mail for telephones and for desks hides each other's parts.
#[must_use]
pub(super) fn of_names(sheet: &str) -> HashMap<String, Style> {
    let sheet = without_comments(sheet);
    let (mut styles, mut shown_again) = (HashMap::new(), HashSet::new());
    let mut rest = sheet.as_str();
    while let Some((selectors, after)) = rest.split_once('{') {
        let selectors = selectors.rsplit(['}', ';']).next().unwrap_or_default().trim();
        if let Some(condition) = selectors.strip_prefix('@') {
            if holds_everywhere(condition) {
                rest = after;
                continue;
            }
            let (block, behind) = after.split_at(block_bytes(after));
            shown_again.extend(shown(block).map(str::to_owned).take(NAMES_MAX));
            rest = behind;
            continue;
        }
        let (declarations, after) = after.split_once('}').unwrap_or((after, ""));
        let style = Style::of(declarations);
        if style != Style::default() {
            for name in selectors.split(',').map(str::trim).filter(|name| is_simple(name)) {
                if let Some(known) = styles.get_mut(name) {
                    *known = Style::then(*known, style);
                } else if styles.len() < NAMES_MAX {
                    styles.insert(name.to_owned(), style);
                }
            }
        }
        rest = after;
    }
    styles.retain(|name, _| !shown_again.contains(name));
    styles
}

/// Whether what is in an `@` block holds on screens of all kinds.
fn holds_everywhere(condition: &str) -> bool {
    let condition = condition.to_ascii_lowercase();
    condition.starts_with("media") && !condition.contains('(') && !condition.contains("print")
}

/// Names that a block displays.
fn shown(block: &str) -> impl Iterator<Item = &str> {
    let rules = block.split('}').filter_map(|rule| rule.rsplit_once('{'));
    let displayed = rules.filter(|(_, declarations)| Style::of(declarations).no_display == Some(false));
    displayed.flat_map(|(selectors, _)| selectors.split(',').map(str::trim))
}

fn is_simple(selector: &str) -> bool {
    let (element, name) = selector.split_at(selector.find(['.', '#']).unwrap_or(selector.len()));
    let is_word = |word: &str| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    !selector.is_empty() && is_word(element) && is_word(name.get(1..).unwrap_or_default())
}

fn without_comments(sheet: &str) -> String {
    let mut plain = String::with_capacity(sheet.len());
    let mut rest = sheet;
    while let Some((before, comment)) = rest.split_once("/*") {
        plain.push_str(before);
        rest = comment.split_once("*/").map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain.replace("<!--", " ").replace("-->", " ")
}

/// Bytes of a block whose first brace has been read, with its last.
fn block_bytes(from: &str) -> usize {
    let mut depth = 1_usize;
    for (at, byte) in from.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    from.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Sight, Style, of_names};

    fn hides(style: &str) -> bool {
        Sight::default().within(Style::of(style)).is_hidden()
    }

    #[test]
    fn what_a_reader_does_not_see_is_hidden() {
        for style in [
            "display: none",
            "DISPLAY:NONE !important",
            "visibility:collapse; height:0; width:0;",
            "display:block; font-size:0; max-width:0; overflow:hidden;",
            "transform: scale(0); height:0;",
            "font-size:0.1em",
            "font-size: 1px; color: #333",
            "font-size:0",
            "opacity:0.01",
            "max-height:0px;overflow:hidden",
            "height:1px;overflow:hidden",
            "position:absolute; left:-9999px",
            "margin-left:-999em",
            "color:#fff;background-color:#FFFFFF",
            "color:white;background:#fff",
            "color: transparent",
            "position:absolute; clip: rect(0, 0, 0, 0)",
            "display:none!important;display:block",
        ] {
            assert!(hides(style), "{style}");
        }
    }

    #[test]
    fn what_a_reader_sees_is_not() {
        for style in [
            "",
            "display:block",
            "font-size:10px; line-height:0",
            "font-size:100%",
            "opacity:0.6",
            "height:0",
            "width:100%; overflow:hidden",
            "width:600px;max-width:100%",
            "margin-left:-10px",
            "color:#ffffff; background-color:#0a6ebd",
            "color:#fff",
            "max-height:none",
            "transform:scale(0.9)",
            "border-top:0; padding:0; margin:0",
            "display:none;display:block",
            "display:block !important;display:none",
            "left:-9999px",
            "mso-hide:all",
            "color:inherit;background-color:inherit",
            "max-height:0",
        ] {
            assert!(!hides(style), "{style}");
        }
    }

    #[test]
    fn small_letters_may_be_large_again_further_in_and_what_is_gone_stays_so() {
        let hidden =
            |outer: &str, inner: &str| Sight::default().within(Style::of(outer)).within(Style::of(inner)).is_hidden();
        assert!(hidden("font-size:0", "margin:0") && !hidden("font-size:0", "font-size:14px"));
        assert!(hidden("color:transparent", "") && !hidden("color:transparent", "color:#333"));
        assert!(hidden("display:none", "display:block;font-size:14px;color:red"));
        assert!(hidden("font-size:0", "font-size:100%") && hidden("color:transparent", "color:inherit"));
        assert!(!hidden("visibility:hidden", "visibility:visible"));
    }

    #[test]
    fn a_sheet_tells_of_names_what_holds_on_all_screens() {
        let sheet = "<!-- @import url(x);\nbody{margin:0}\n.pre, #top , p.x, .a .b{display:none}/* Mobile */@media only screen and (max-width:480px){ .desk{display:none} \
                     .phone{display:block!important} }\n.phone, i{display:none}@media screen{.all{font-size:0}} .pre{color:red} table>.in{display:none}.last{font-size:0 -->";
        let named = of_names(sheet);
        let none = Style::of("display:none");
        let expected = [
            ("#top", none),
            (".all", Style::of("font-size:0")),
            (".last", Style::of("font-size:0")),
            (".pre", none.then(Style::of("color:red"))),
            ("i", none),
            ("p.x", none),
        ];
        assert_eq!(named, expected.map(|(name, style)| (name.to_owned(), style)).into());
    }

    proptest! {
        #[test]
        fn any_sheet_is_read_without_harm(sheet in "(\\{|\\}|@media|\\.a|#|:|;|display:none|font-size:|-|0|px|é|,){0,60}") {
            let _ = (hides(&sheet), of_names(&sheet));
        }
    }
}
