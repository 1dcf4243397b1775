//! What entities of HTML stand for.

/// Entities that have a name: signs, and letters of Latin 1 (HTML 4.01 section 24).
const NAMED: [(&str, char); 90] = [
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
    ("ensp", '\u{2002}'),
    ("emsp", '\u{2003}'),
    ("thinsp", '\u{2009}'),
    ("lrm", '\u{200e}'),
    ("rlm", '\u{200f}'),
    ("copy", '\u{a9}'),
    ("reg", '\u{ae}'),
    ("trade", '\u{2122}'),
    ("deg", '\u{b0}'),
    ("iexcl", '\u{a1}'),
    ("iquest", '\u{bf}'),
    ("sect", '\u{a7}'),
    ("aring", '\u{e5}'),
    ("aelig", '\u{e6}'),
    ("euml", '\u{eb}'),
    ("igrave", '\u{ec}'),
    ("icirc", '\u{ee}'),
    ("iuml", '\u{ef}'),
    ("ograve", '\u{f2}'),
    ("oslash", '\u{f8}'),
    ("ugrave", '\u{f9}'),
    ("yacute", '\u{fd}'),
    ("Agrave", '\u{c0}'),
    ("Aacute", '\u{c1}'),
    ("Acirc", '\u{c2}'),
    ("Atilde", '\u{c3}'),
    ("Aring", '\u{c5}'),
    ("AElig", '\u{c6}'),
    ("Ccedil", '\u{c7}'),
    ("Egrave", '\u{c8}'),
    ("Eacute", '\u{c9}'),
    ("Ecirc", '\u{ca}'),
    ("Euml", '\u{cb}'),
    ("Igrave", '\u{cc}'),
    ("Iacute", '\u{cd}'),
    ("Icirc", '\u{ce}'),
    ("Iuml", '\u{cf}'),
    ("Ntilde", '\u{d1}'),
    ("Ograve", '\u{d2}'),
    ("Oacute", '\u{d3}'),
    ("Ocirc", '\u{d4}'),
    ("Otilde", '\u{d5}'),
    ("Oslash", '\u{d8}'),
    ("Ugrave", '\u{d9}'),
    ("Uacute", '\u{da}'),
    ("Ucirc", '\u{db}'),
];
/// The longest of them that is looked for, without `&` and `;`.
const NAME_BYTES_MAX: usize = 10;

/// With the characters that entities stand for. Numbers need no `;`, as in browsers.
pub(super) fn unescaped(text: &str) -> String {
    let mut parts = text.split('&');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let meant = part.strip_prefix('#').map_or_else(|| named(part), numbered);
        if let Some((character, rest)) = meant {
            plain.push(character);
            plain.push_str(rest);
        } else {
            plain.push('&');
            plain.push_str(part);
        }
    }
    plain
}

fn named(part: &str) -> Option<(char, &str)> {
    let end = part.bytes().take(NAME_BYTES_MAX + 1).position(|byte| byte == b';')?;
    let (name, rest) = (&part[..end], &part[end + 1..]);
    NAMED.iter().find(|(known, _)| *known == name).map(|(_, meant)| (*meant, rest))
}

fn numbered(part: &str) -> Option<(char, &str)> {
    let (digits, radix) = part.strip_prefix(['x', 'X']).map_or((part, 10), |digits| (digits, 16));
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let (number, rest) = digits.split_at(end);
    let significant = number.trim_start_matches('0');
    let number = if significant.is_empty() { return None } else { u32::from_str_radix(significant, radix).ok()? };
    let meant = char::from_u32(number).map(|character| if character == '\u{a0}' { ' ' } else { character })?;
    Some((meant, rest.strip_prefix(';').unwrap_or(rest)))
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
            ("a&b; & &#0000086; &#00000000086;&#86&#105 x", "a&b; & V VVi x"),
            ("&#xd800; &#x110000; &nope; &#-1; &#;", "&#xd800; &#x110000; &nope; &#-1; &#;"),
        ] {
            assert_eq!(unescaped(written), meant, "{written}");
        }
    }
}
