//! How its HTML is made.

use super::{Criterion, Group, bad, hint};
use crate::checks::facts::Facts;

pub(super) const GROUP: Group = Group {
    name: "html",
    about: "hidden and tiny text, forms, scripts, pictures instead of text",
    criteria: &CRITERIA,
};

const CRITERIA: [Criterion; 20] = [
    hint("HTML_ONLY", "it is HTML without a plain text", |f| f.text.has_html && !f.text.has_plain),
    bad("HTML_PICTURE_ONLY", "it is a picture with little text", |f| pictures(f) && shown(f) < 150),
    hint("HTML_PICTURE_MOSTLY", "it is pictures with some text", |f| pictures(f) && (150..600).contains(&shown(f))),
    bad("HIDDEN_TEXT", "it holds much text that a reader does not see", |f| {
        let hidden = hidden(f);
        hidden > 400 && hidden > shown(f) / 3
    }),
    hint("HIDDEN_SOME", "it holds text that a reader does not see", |f| (120..=400).contains(&hidden(f))),
    bad("HTML_FORM", "it asks for data in a form", |f| f.text.html.forms),
    bad("HTML_SCRIPT", "it holds a script", |f| f.text.html.scripts),
    hint("HTML_TINY", "it holds tiny text", |f| {
        [
            "font-size:1px",
            "font-size: 1px",
            "font-size:0",
            "font-size: 0",
            "font-size:2px",
            "font-size: 2px",
            "line-height:0",
        ]
        .iter()
        .any(|way| f.html_raw.contains(way))
    }),
    hint("HTML_WHITE_ON_WHITE", "it holds text in the colour of its ground", |f| {
        [
            "color:#ffffff",
            "color: #ffffff",
            "color:#fff;",
            "color: #fff;",
            "color=\"#ffffff\"",
            "color=\"white\"",
            "color:white",
        ]
        .iter()
        .any(|way| f.html_raw.contains(way))
    }),
    bad("HTML_FRAME", "it fetches a page of another site", |f| {
        f.html_raw.contains("<iframe") || f.html_raw.contains("<object")
    }),
    bad("HTML_REFRESH", "it leads on by itself", |f| {
        f.html_raw.contains("http-equiv=\"refresh") || f.html_raw.contains("http-equiv=refresh")
    }),
    bad("HTML_DATA_LINK", "a link holds its page", |f| {
        f.html_raw.contains("href=\"data:") || f.html_raw.contains("href='data:")
    }),
    bad("HTML_BASE", "its links are not what they seem", |f| f.html_raw.contains("<base ")),
    hint("HTML_MAP", "a picture has places to click", |f| {
        f.html_raw.contains("<area") || f.html_raw.contains("usemap")
    }),
    hint("HTML_COMMENTS", "it holds long comments", |f| comments(&f.html_raw) > 1500),
    hint("HTML_BREAKS", "it is held apart by many empty lines", |f| {
        f.html_raw.contains("<br><br><br><br><br>")
            || f.html_raw.contains("<br /><br /><br /><br />")
            || f.text.plain.contains("\n\n\n\n\n\n")
            || f.text.plain.contains("\r\n\r\n\r\n\r\n\r\n\r\n")
    }),
    bad("HTML_PUSHED_OUT", "it pushes text out of sight", |f| pushes_out(&f.html_raw)),
    bad("HTML_CHARACTERS_CODED", "its letters are written as numbers", |f| f.html_raw.matches("&#").count() > 60),
    hint("HTML_CENTERED", "it is made of centred blocks", |f| f.html_raw.matches("<center").count() >= 2),
    bad("PARTS_DISAGREE", "its text and its HTML say different things", parts_disagree),
];

fn shown(f: &Facts<'_>) -> usize {
    f.text.html.text.split_whitespace().map(str::len).sum()
}

/// Letters of words that a reader does not see: what newsletters put behind their first line, to keep the second one out of a list of
/// mail, has none.
fn hidden(f: &Facts<'_>) -> usize {
    f.text.html.hidden.split(|c: char| !c.is_alphabetic()).map(str::len).filter(|length| *length > 1).sum()
}

fn pictures(f: &Facts<'_>) -> bool {
    f.text.has_html
        && (f.text.html.remote_pictures > 0 || f.message.parts.iter().any(|part| part.declared.starts_with("image/")))
}

/// Whether something is moved by a thousand pixels or more.
fn pushes_out(html: &str) -> bool {
    ["margin-top:", "margin-left:", "padding-top:", "text-indent:"].iter().any(|property| {
        html.split(property).skip(1).any(|value| {
            let value = value.trim_start().trim_start_matches('-');
            let end = value.bytes().take_while(u8::is_ascii_digit).count();
            end >= 4 && value[end..].starts_with("px")
        })
    })
}

/// Bytes in comments, but for those that only some mail programs read.
fn comments(html: &str) -> usize {
    let comments = html.split("<!--").skip(1).filter_map(|rest| rest.split_once("-->"));
    comments.map(|(comment, _)| comment).filter(|comment| !comment.starts_with("[if")).map(str::len).sum()
}

fn parts_disagree(f: &Facts<'_>) -> bool {
    if !f.text.has_html || !f.text.has_plain {
        return false;
    }
    let words = |text: &str| -> std::collections::HashSet<String> {
        let words = text.split(|c: char| !c.is_alphabetic()).filter(|word| word.len() > 3);
        words.map(str::to_lowercase).take(2000).collect()
    };
    let (plain, html) = (words(&f.text.plain), words(&f.text.html.text));
    let both = plain.intersection(&html).count();
    html.len() > 15 && both * 5 < html.len().min(plain.len().max(10))
}
