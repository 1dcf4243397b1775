//! In which letters it is written.

use super::{Criterion, Group, bad, hint};
use crate::checks::facts::Facts;

pub(super) const GROUP: Group = Group { name: "language", about: "scripts and character sets", criteria: &CRITERIA };

const CRITERIA: [Criterion; 4] = [
    bad("CHARSET_ODD", "its character set is one of far away or of nobody", |f| {
        f.message.parts.iter().filter_map(|part| part.charset.as_deref()).any(|charset| {
            let charset = charset.to_ascii_lowercase();
            [
                "gb2312",
                "gbk",
                "gb18030",
                "big5",
                "euc-kr",
                "ks_c_5601-1987",
                "iso-2022-kr",
                "koi8-r",
                "windows-1251",
                "iso-2022-jp",
                "shift_jis",
                "windows-1255",
                "windows-1256",
            ]
            .contains(&charset.as_str())
        })
    }),
    hint("SCRIPT_FAR_EAST", "it is written in letters of the Far East", |f| {
        part(f, |c| matches!(c, '\u{3040}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}')) > 20
    }),
    hint("SCRIPT_CYRILLIC", "it is written in Cyrillic letters", |f| {
        part(f, |c| matches!(c, '\u{400}'..='\u{52f}')) > 30
    }),
    hint("SCRIPT_RIGHT_TO_LEFT", "it is written in Hebrew or Arabic letters", |f| {
        part(f, |c| matches!(c, '\u{590}'..='\u{6ff}')) > 30
    }),
];

/// Of the letters how many in a hundred are such.
fn part(f: &Facts<'_>, is: fn(char) -> bool) -> usize {
    if f.raw_text.is_ascii() {
        return 0;
    }
    let letters = f.raw_text.chars().filter(|c| c.is_alphabetic());
    let (such, all) = letters.fold((0, 0), |(such, all), c| (such + usize::from(is(c)), all + 1));
    such * 100 / all.max(1)
}
