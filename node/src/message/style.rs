//! Whether a style hides what it is put on from a reader: the ways of CSS that mail programs follow. Pure. Not a browser: colours,
//! sizes and places that come from elsewhere are not worked out.

use std::collections::HashMap;

/// A letter of so many pixels nobody reads.
const TINY_PX: f64 = 2.0;
/// So many pixels away nobody looks.
const FAR_PX: f64 = 900.0;
/// What is so transparent nobody sees.
const CLEAR: f64 = 0.05;
/// Names out of the style sheets of one message at most.
const NAMES_MAX: usize = 500;

/// How what stands in an element is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sight {
    /// Not at all, whatever is said further in.
    is_gone: bool,
    /// Its letters are too small, unless further in they are larger.
    is_tiny: bool,
    /// Its letters are transparent or as their ground, unless further in they have another colour.
    is_clear: bool,
}

impl Sight {
    /// Whether a reader does not see it.
    pub(super) fn is_hidden(self) -> bool {
        self.is_gone || self.is_tiny || self.is_clear
    }

    /// Within an element of this style.
    #[must_use]
    pub(super) fn within(self, style: Style) -> Self {
        Self {
            is_gone: self.is_gone || style.hides,
            is_tiny: style.is_tiny.unwrap_or(self.is_tiny),
            is_clear: style.is_clear.unwrap_or(self.is_clear),
        }
    }
}

/// What declarations say of how something is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    hides: bool,
    is_tiny: Option<bool>,
    is_clear: Option<bool>,
}

impl Style {
    /// Reads the value of a `style` attribute, or what stands between braces.
    #[must_use]
    pub(super) fn of(declarations: &str) -> Self {
        let mut style = Self::default();
        let (mut is_cut_off, mut has_no_size, mut color, mut ground) = (false, false, None, None);
        for (property, value) in declarations.split(';').filter_map(|declaration| declaration.split_once(':')) {
            let value = || {
                let value: String =
                    value.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()).collect();
                value.strip_suffix("!important").map(str::to_owned).unwrap_or(value)
            };
            match property.trim().to_ascii_lowercase().as_str() {
                "overflow" => is_cut_off = value() == "hidden",
                "height" | "width" | "max-width" => has_no_size |= pixels(&value()).is_some_and(|size| size <= 1.0),
                "color" => color = Some(value()),
                "background" | "background-color" => ground = Some(value()),
                "font-size" => style.is_tiny = Some(pixels(&value()).is_some_and(|size| size <= TINY_PX)),
                property => style.hides |= HIDING.contains(&property) && hides_alone(property, &value()),
            }
        }
        style.hides |= is_cut_off && has_no_size;
        style.is_clear = color.map(|color| color == "transparent" || ground == Some(color));
        style
    }
}

/// Properties that may hide alone.
const HIDING: [&str; 13] = [
    "display",
    "visibility",
    "mso-hide",
    "opacity",
    "max-height",
    "text-indent",
    "left",
    "top",
    "margin-left",
    "margin-top",
    "transform",
    "clip",
    "clip-path",
];

/// Whether a declaration hides whatever stands beside it.
fn hides_alone(property: &str, value: &str) -> bool {
    let is_far = || pixels(value).is_some_and(|size| size <= -FAR_PX);
    match property {
        "display" => value == "none",
        "visibility" => value == "hidden" || value == "collapse",
        "mso-hide" => value == "all",
        "opacity" => value.parse::<f64>().is_ok_and(|part| part <= CLEAR),
        "max-height" => pixels(value).is_some_and(|size| size <= 1.0),
        "transform" => value == "scale(0)" || value == "scale(0,0)",
        "clip" => value.starts_with("rect(0") && value.matches('0').count() >= 3,
        "clip-path" => value == "inset(100%)" || value == "inset(50%)" || value.starts_with("circle(0"),
        _ => is_far(),
    }
}

/// A length in pixels, of other units about as many as a reader's settings make of them; of a percentage only nothing is known to be so.
fn pixels(value: &str) -> Option<f64> {
    let end = value.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-')).unwrap_or(value.len());
    let (number, unit) = value.split_at(end);
    let number: f64 = number.parse().ok()?;
    match unit {
        "px" | "" => Some(number),
        "pt" => Some(number * 4.0 / 3.0),
        "em" | "rem" => Some(number * 16.0),
        _ => (number == 0.0).then_some(0.0),
    }
}

/// What a style sheet says of classes and ids, as `.name` and `#name`. What holds for some screens only is left out: mail for telephones
/// and for desks hides each other's parts.
#[must_use]
pub(super) fn of_names(sheet: &str) -> HashMap<String, Style> {
    let mut styles = HashMap::new();
    let mut rest = sheet;
    while let Some((selectors, after)) = rest.split_once('{') {
        let selectors = selectors.rsplit(['}', ';', '>']).next().unwrap_or_default().trim();
        if selectors.starts_with('@') {
            rest = after_block(after);
            continue;
        }
        let (declarations, after) = after.split_once('}').unwrap_or((after, ""));
        let simple = selectors.split(',').map(str::trim).filter(|selector| {
            let name = selector.get(1..).unwrap_or_default();
            selector.starts_with(['.', '#'])
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        });
        let (room, style) = (NAMES_MAX.saturating_sub(styles.len()), Style::of(declarations));
        styles.extend(simple.take(room).map(|selector| (selector.to_owned(), style)));
        rest = after;
    }
    styles
}

/// What follows the end of a block whose first brace has been read.
fn after_block(from: &str) -> &str {
    let mut depth = 1_usize;
    for (at, byte) in from.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &from[at + 1..];
        }
    }
    ""
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
            "max-height:0px",
            "height:1px;overflow:hidden",
            "position:absolute; left:-9999px",
            "text-indent:-999em",
            "color:#fff;background-color:#FFF",
            "color: transparent",
            "clip: rect(0, 0, 0, 0)",
            "mso-hide:all",
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
    }

    #[test]
    fn a_sheet_tells_of_names_what_holds_on_all_screens() {
        let sheet = "@import url(x);\nbody{margin:0}\n.pre, #top , p.x, .a .b{display:none}\n@media only screen and (max-width:480px){ .desk{display:none} \
                     .x{color:red} }\n.last{font-size:0";
        let named = of_names(sheet);
        let expected = [("#top", "display:none"), (".last", "font-size:0"), (".pre", "display:none")];
        assert_eq!(named, expected.map(|(name, style)| (name.to_owned(), Style::of(style))).into());
    }

    proptest! {
        #[test]
        fn any_sheet_is_read_without_harm(sheet in "(\\{|\\}|@media|\\.a|#|:|;|display:none|font-size:|-|0|px|é|,){0,60}") {
            let _ = (hides(&sheet), of_names(&sheet));
        }
    }
}
