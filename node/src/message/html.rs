//! Reads out of HTML what a reader sees and where its links go, in one linear pass. Not a browser: it is for scoring.

use std::{collections::HashMap, sync::LazyLock};

use aho_corasick::AhoCorasick;

use super::{
    entities::unescaped,
    style::{self, Sight, Style},
};

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where it goes, as written, at most 2,000 characters.
    pub target: String,
    /// What the reader sees; empty for a link in plain text or around a picture.
    pub shown: String,
}

impl Link {
    /// The host that it goes to, in lower case, without user and port.
    #[must_use]
    pub fn host(&self) -> Option<String> {
        host_of(&self.target)
    }
}

/// What was read out of HTML.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// What a reader sees.
    pub text: String,
    /// What a reader does not see: styled away or in nothing like the background.
    pub hidden: String,
    /// Links in their order.
    pub links: Vec<Link>,
    /// How many pictures are fetched from elsewhere.
    pub remote_pictures: usize,
    /// Whether scripts run in it.
    pub scripts: bool,
    /// Whether it asks for data in a form.
    pub forms: bool,
}

/// How a link begins that is written out in plain text. It is there: both are good patterns.
static LINK_STARTS: LazyLock<Option<AhoCorasick>> =
    LazyLock::new(|| AhoCorasick::builder().ascii_case_insensitive(true).build(["http", "www."]).ok());

/// Links taken out of one message at most.
pub const LINKS_MAX: usize = 2000;

/// The host of an `http`, `https` or bare `www.` address.
#[must_use]
pub fn host_of(target: &str) -> Option<String> {
    let target = target.trim();
    let begins = |start: &str| target.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start));
    if !begins("http") && !begins("www.") {
        return None;
    }
    let lower = target.to_ascii_lowercase();
    let rest = lower.strip_prefix("http://").or_else(|| lower.strip_prefix("https://"));
    let rest = rest.or_else(|| lower.starts_with("www.").then_some(lower.as_str()))?;
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = if host.starts_with('[') { host } else { host.split(':').next().unwrap_or_default() };
    (!host.is_empty()).then(|| host.trim_end_matches('.').to_owned())
}

/// Links written out in plain text.
#[must_use]
pub fn links_in_text(text: &str) -> Vec<Link> {
    let parts = |c: char| matches!(c, '<' | '>' | '"' | '(' | ')' | '[' | ']' | '{' | '}') || c.is_whitespace();
    let Some(starts) = &*LINK_STARTS else { return Vec::new() };
    let at_word_starts = starts.find_iter(text).map(|found| text.split_at(found.start()));
    let at_word_starts = at_word_starts.filter(|(before, _)| before.chars().next_back().is_none_or(parts));
    let words = at_word_starts.filter_map(|(_, from)| from.split(parts).next());
    let links = words.filter(|word| host_of(word).is_some_and(|host| host.contains('.')));
    links.take(LINKS_MAX).map(|word| Link { target: capped(word), shown: String::new() }).collect()
}

fn capped(text: &str) -> String {
    text.trim().chars().take(2000).collect()
}

/// Reads a piece of HTML.
#[must_use]
pub fn read(html: &str) -> Read {
    let mut read = Read::default();
    // Elements and how what is in them is seen, innermost last; and the link that is open.
    let mut elements = Elements::default();
    let mut open: Option<Link> = None;
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        read.shown(&rest[..at], elements.sight().is_hidden(), open.as_mut());
        rest = &rest[at..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            let is_empty = comment.starts_with('>') || comment.starts_with("->");
            rest = comment.split_once(if is_empty { ">" } else { "-->" }).map_or("", |(_, after)| after);
            continue;
        }
        let Some((tag, after)) = rest[1..].split_once('>') else {
            rest = "";
            break;
        };
        rest = after;
        let end = tag.bytes().skip(1).position(|byte| !byte.is_ascii_alphanumeric()).map_or(tag.len(), |at| at + 1);
        let name: String = tag.get(..end.min(16)).unwrap_or_default().to_owned();
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            "style" | "script" | "title" | "template" => {
                read.scripts |= name == "script";
                let (content, after) = until_closing(rest, &name);
                let everywhere = |media: String| ["", "all", "screen"].contains(&media.trim());
                if name == "style" && attribute(tag, "media").is_none_or(everywhere) {
                    elements.styles.extend(style::of_names(content));
                }
                rest = after;
                continue;
            }
            "a" => {
                read.close(open.take());
                open = attribute(tag, "href").map(|target| Link { target: capped(&target), shown: String::new() });
            }
            "/a" => read.close(open.take()),
            "img" => {
                read.remote_pictures +=
                    usize::from(attribute(tag, "src").is_some_and(|source| host_of(&source).is_some()));
            }
            "form" => read.forms = true,
            "br" | "p" | "div" | "tr" | "td" | "li" | "/p" | "/div" | "/tr" => read.text.push(' '),
            _ => {}
        }
        elements.tag(name, tag);
    }
    read.shown(rest, elements.sight().is_hidden(), open.as_mut());
    read.close(open);
    read
}

impl Read {
    fn shown(&mut self, text: &str, is_hidden: bool, link: Option<&mut Link>) {
        let text = unescaped(text);
        if let Some(link) = link.filter(|link| link.shown.len() < 500) {
            link.shown.push_str(&text);
        }
        if is_hidden { self.hidden.push_str(&text) } else { self.text.push_str(&text) }
    }

    fn close(&mut self, link: Option<Link>) {
        if let Some(mut link) = link.filter(|_| self.links.len() < LINKS_MAX) {
            link.shown = link.shown.trim().to_owned();
            self.links.push(link);
        }
    }
}

/// Elements without an end.
const VOID: [&str; 13] =
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "wbr"];
/// Elements that end where the next of their name begins.
const ENDED_BY_NEXT: [&str; 6] = ["p", "li", "tr", "td", "th", "option"];
/// Elements in each other at most; those further in are seen as the last of them.
const DEPTH_MAX: usize = 256;

/// The elements that are open.
#[derive(Debug, Default)]
struct Elements {
    open: Vec<(String, Sight)>,
    /// How many more are open, which are not looked at.
    deeper: usize,
    /// What style sheets say of classes and ids.
    styles: HashMap<String, Style>,
}

impl Elements {
    fn sight(&self) -> Sight {
        self.open.last().map(|(_, sight)| *sight).unwrap_or_default()
    }

    fn tag(&mut self, name: String, tag: &str) {
        if let Some(closed) = name.strip_prefix('/') {
            if self.deeper > 0 {
                self.deeper -= 1;
            } else if let Some(at) = self.open.iter().rposition(|(open, _)| open == closed) {
                self.open.truncate(at);
            }
            return;
        }
        if name.is_empty() || VOID.contains(&name.as_str()) {
            return;
        }
        if ENDED_BY_NEXT.contains(&name.as_str()) && self.open.last().is_some_and(|(open, _)| *open == name) {
            self.open.pop();
        }
        if self.open.len() < DEPTH_MAX {
            let sight = self.within(&name, tag);
            self.open.push((name, sight));
        } else {
            self.deeper += 1;
        }
    }

    /// How what stands in an element with this tag is seen.
    fn within(&self, name: &str, tag: &str) -> Sight {
        let lower = tag.to_ascii_lowercase();
        let mut style = Style::default();
        if !self.styles.is_empty() {
            let mut add = |key: &str| style = self.styles.get(key).map_or(style, |named| style.then(*named));
            add(name);
            for (attribute, sign) in [("class", '.'), ("id", '#')] {
                for own in value_of(tag, &lower, attribute).unwrap_or_default().split_ascii_whitespace() {
                    add(&format!("{sign}{own}"));
                    add(&format!("{name}{sign}{own}"));
                }
            }
        }
        let own = value_of(tag, &lower, "style").map(|style| Style::of(&style)).unwrap_or_default();
        self.sight().within(style.then(own))
    }
}

/// What stands before the end of an element, and what follows it.
fn until_closing<'h>(rest: &'h str, name: &str) -> (&'h str, &'h str) {
    let mut from = 0;
    while let Some(at) = rest[from..].find("</") {
        let (content, after) = rest.split_at(from + at);
        let is_end = after.get(2..2 + name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name));
        if is_end {
            return (content, after.split_once('>').map_or("", |(_, after)| after));
        }
        from += at + 2;
    }
    (rest, "")
}

/// The value of an attribute in a tag's text.
fn attribute(tag: &str, name: &str) -> Option<String> {
    value_of(tag, &tag.to_ascii_lowercase(), name)
}

/// The same, of a tag that is there in lower case, too.
fn value_of(tag: &str, lower: &str, name: &str) -> Option<String> {
    let mut from = 0;
    while let Some(found) = lower.get(from..)?.find(name) {
        let at = from + found;
        from = at + name.len();
        let before_ok = at > 0 && lower.as_bytes().get(at - 1).is_some_and(u8::is_ascii_whitespace);
        let Some(value) = tag.get(from..).map(str::trim_start).and_then(|rest| rest.strip_prefix('=')) else {
            continue;
        };
        if !before_ok {
            continue;
        }
        let value = value.trim_start();
        let quoted = value.strip_prefix('"').map(|rest| rest.split('"').next());
        let quoted = quoted.or_else(|| value.strip_prefix('\'').map(|rest| rest.split('\'').next()));
        let value = quoted.flatten().or_else(|| value.split_ascii_whitespace().next()).unwrap_or_default();
        return Some(unescaped(value));
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{host_of, links_in_text, read};

    #[test]
    fn a_reader_sees_the_text_and_the_links_go_where_they_go() {
        let html = "<html><style>p{}</style><!-- no > --><p>Hello <a class=x HREF='http://evil.test/a?b&amp;c'>\
                    <b>www.bank.test</b></a><div style=\"display: none\">poetry <div>more</div></div>&lt;end";
        let read = read(html);
        assert_eq!(read.text.split_whitespace().collect::<Vec<_>>(), ["Hello", "www.bank.test", "<end"]);
        assert_eq!(read.hidden, "poetry more");
        assert_eq!(read.links.len(), 1);
        assert_eq!(read.links[0].target, "http://evil.test/a?b&c");
        assert_eq!(read.links[0].shown, "www.bank.test");
    }

    #[test]
    fn what_outlook_and_newsletters_write_is_shown() {
        let outlook = "<style type=\"text/css\" style=\"display:none;\"> P {margin:0} </style><div><p>Dear Anna<p>see below</div>";
        assert_eq!((read(outlook).text.split_whitespace().count(), read(outlook).hidden.as_str()), (4, ""));
        let columns = "<td style='font-size:0'><div style='font-size:16px'>left</div> <div style='font-size:16px'>right</div></td>";
        assert_eq!(read(columns).text.split_whitespace().collect::<Vec<_>>(), ["left", "right"]);
    }

    #[test]
    fn what_a_style_sheet_hides_is_not_shown() {
        let html = "<style>.poem{font-size:0} @media print{.note{display:none}}</style><span class='a poem'>roses</span><b class=note>now</b>\
                    <div style='visibility:collapse; height:0'>violets</div>";
        let read = read(html);
        assert_eq!((read.text.trim(), read.hidden.as_str()), ("now", "rosesviolets"));
        let deep = format!("{}<div style='display:none'>poem</div>end", "<br/>".repeat(300));
        assert_eq!((super::read(&deep).text.trim(), super::read(&deep).hidden.as_str()), ("end", "poem"));
        assert_eq!(super::read("<!-->a<!--->b<!-- c -->d").text, "abd");
    }

    #[test]
    fn the_host_is_what_the_browser_connects_to() {
        assert_eq!(host_of("http://bank.test@evil.test:80/x").as_deref(), Some("evil.test"));
        assert_eq!(host_of("HTTPS://Evil.Test.").as_deref(), Some("evil.test"));
        assert_eq!(host_of("mailto:a@b.test"), None);
        assert_eq!(links_in_text("see http://a.test/x, or www.b.test.").len(), 2);
    }

    proptest! {
        #[test]
        fn links_in_text_are_the_words_that_begin_as_links(
            text in "(http|HTTPS|www|\\.|://|a|/|@|,| |\r\n|<|>|\u{e9}|\u{a0}|\\(){0,24}",
        ) {
            let parts = |c: char| "<>\"()[]{}".contains(c) || c.is_whitespace();
            let words = text.split(parts).filter(|word| host_of(word).is_some_and(|host| host.contains('.')));
            let links: Vec<String> = links_in_text(&text).into_iter().map(|link| link.target).collect();
            prop_assert_eq!(links, words.collect::<Vec<_>>());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(html in "\\PC{0,300}") {
            let _ = read(&html);
        }

        #[test]
        fn any_tags_are_read_without_harm(html in "(<|>|a|/|href|=|\"|'| |style|display:none|<!--|-->|é){0,80}") {
            let _ = read(&html);
        }
    }
}
