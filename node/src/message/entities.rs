//! What entities of HTML stand for.

/// Entities that have a name: signs, and the letters of Latin 1 (HTML 4.01 section 24).
const NAMED: [(&str, char); 44] = [
    ("nbsp", ' '),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("amp", '&'),
    ("zwnj", '\u{200c}'),
    ("zwj", '\u{200d}'),
    ("shy", '\u{ad}'),
    ("euro", '\u{20ac}'),
    ("pound", '\u{a3}'),
    ("middot", '\u{b7}'),
    ("bull", '\u{2022}'),
    ("hellip", '\u{2026}'),
    ("ndash", '\u{2013}'),
    ("mdash", '\u{2014}'),
    ("lsquo", '\u{2018}'),
    ("rsquo", '\u{2019}'),
    ("ldquo", '\u{201c}'),
    ("rdquo", '\u{201d}'),
    ("laquo", '\u{ab}'),
    ("raquo", '\u{bb}'),
    ("auml", '\u{e4}'),
    ("ouml", '\u{f6}'),
    ("uuml", '\u{fc}'),
    ("Auml", '\u{c4}'),
    ("Ouml", '\u{d6}'),
    ("Uuml", '\u{dc}'),
    ("szlig", '\u{df}'),
    ("agrave", '\u{e0}'),
    ("aacute", '\u{e1}'),
    ("acirc", '\u{e2}'),
    ("atilde", '\u{e3}'),
    ("ccedil", '\u{e7}'),
    ("egrave", '\u{e8}'),
    ("eacute", '\u{e9}'),
    ("ecirc", '\u{ea}'),
    ("iacute", '\u{ed}'),
    ("ntilde", '\u{f1}'),
    ("oacute", '\u{f3}'),
    ("ocirc", '\u{f4}'),
    ("otilde", '\u{f5}'),
    ("uacute", '\u{fa}'),
    ("ucirc", '\u{fb}'),
];
/// The longest of them that is looked for, without `&` and `;`.
const ENTITY_BYTES_MAX: usize = 10;

/// With the characters that entities stand for.
pub(super) fn unescaped(text: &str) -> String {
    let mut parts = text.split('&');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.bytes().take(ENTITY_BYTES_MAX + 1).position(|byte| byte == b';');
        match end.and_then(|end| Some((meant(&part[..end])?, &part[end + 1..]))) {
            Some((character, rest)) => {
                plain.push(character);
                plain.push_str(rest);
            }
            None => {
                plain.push('&');
                plain.push_str(part);
            }
        }
    }
    plain
}

fn meant(entity: &str) -> Option<char> {
    let Some(number) = entity.strip_prefix('#') else {
        return NAMED.iter().find(|(name, _)| *name == entity).map(|(_, meant)| *meant);
    };
    let number = match number.strip_prefix(['x', 'X']) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => number.parse(),
    };
    char::from_u32(number.ok()?).map(|character| if character == '\u{a0}' { ' ' } else { character })
}

#[cfg(test)]
mod tests {
    use super::unescaped;

    #[test]
    fn entities_are_read_once_and_what_is_none_stays() {
        for (written, meant) in [
            ("&#86;&#x69;agra", "Viagra"),
            ("&eacute;t&eacute;&nbsp;a", "\u{e9}t\u{e9} a"),
            ("&amp;lt;", "&lt;"),
            ("a&b; & &#0000086; &#00000000086;", "a&b; & V &#00000000086;"),
            ("&#xd800; &#x110000; &nope; &#-1; &#;", "&#xd800; &#x110000; &nope; &#-1; &#;"),
        ] {
            assert_eq!(unescaped(written), meant, "{written}");
        }
    }
}
