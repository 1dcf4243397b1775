//! Who says that he wrote it: the forms of From and Reply-To, and whether they agree with each other and with the envelope.

use super::{Criterion, Group, bad, good, hint, subject::is_gappy};
use crate::{
    checks::{
        facts::Facts,
        names::{is_abused_suffix, is_free_host, is_random},
        phrases::FREEMAIL,
    },
    message::Mailbox,
};

pub(super) const GROUP: Group =
    Group { name: "author", about: "From, Reply-To and Return-Path, and whether they agree", criteria: &CRITERIA };

const CRITERIA: [Criterion; 25] = [
    bad("MISSING_FROM", "it has no author", |f| f.message.from.is_empty()),
    bad("FROM_WITHOUT_ADDRESS", "its author has no address", |f| {
        !f.message.from.is_empty() && f.message.from.iter().any(|mailbox| mailbox.domain.is_none())
    }),
    bad("NAME_SHOWS_OTHER_ADDRESS", "the author's name shows another address", name_shows_other_address),
    bad("NAME_CLAIMS_DEPARTMENT", "the author's name claims to be a department", name_claims_department),
    bad("NAME_SHOUTS", "the author's name shouts", |f| {
        let name = author_name(f);
        name.chars().filter(|c| c.is_uppercase()).count() >= 8 && !name.chars().any(char::is_lowercase)
    }),
    hint("NAME_DECORATED", "the author's name is decorated", |f| {
        author_name(f).chars().any(|c| is_pictograph(c) || "!$*#|~=".contains(c))
    }),
    bad("NAME_IN_CAPS_AND_DIGITS", "the author's name holds a number", |f| {
        author_name(f).chars().filter(char::is_ascii_digit).count() >= 3
    }),
    bad("NAME_PADDED", "the author's name is padded with spaces", |f| {
        f.raw("from").is_some_and(|raw| raw.contains("=?UTF-8?B?IE") || raw.starts_with("\" ") || raw.contains("  <"))
    }),
    bad("NAME_GAPPY", "the letters of the author's name are spaced out", |f| is_gappy(author_name(f), &[' '])),
    hint("NO_NAME", "the author gives no name", |f| !f.message.from.is_empty() && author_name(f).is_empty()),
    bad("LOCAL_PART_RANDOM", "the author's mailbox has a random name", |f| is_random(&f.author_local)),
    bad("LOCAL_PART_OF_WORDS", "the author's mailbox is named by several words in one", |f| {
        let name = f.author_local.as_bytes();
        let begun = name.windows(2).filter(|two| two[0].is_ascii_lowercase() && two[1].is_ascii_uppercase()).count();
        begun >= 3 && name.iter().all(u8::is_ascii_alphanumeric)
    }),
    bad("LOCAL_PART_IN_TURNS", "the author's mailbox is named by letters and digits in turn", |f| {
        let name = f.author_local.as_bytes();
        let turns = name.windows(2).filter(|two| two[0].is_ascii_digit() != two[1].is_ascii_digit()).count();
        turns == 3 && name.len() >= 7 && name.iter().all(u8::is_ascii_alphanumeric)
    }),
    hint("LOCAL_PART_LONG", "the author's mailbox has a very long name", |f| f.author_local.len() > 28),
    bad("DOMAIN_RANDOM", "the author's domain has a random name", |f| is_random(f.author_label())),
    hint("DOMAIN_LONG", "the author's domain has a very long name", |f| f.author_label().len() > 22),
    hint("DOMAIN_DEEP", "the author's domain is far below another", |f| f.author_domain.matches('.').count() >= 4),
    bad("DOMAIN_BARE", "the author's domain is none of the Internet", |f| {
        !f.author_domain.is_empty() && !f.author_domain.contains('.')
    }),
    bad("DOMAIN_ABUSED_SUFFIX", "the author's domain is of a kind that is often abused", |f| {
        is_abused_suffix(&f.author_domain)
    }),
    bad("AUTHOR_AT_FREE_HOST", "the author's domain is one where anybody can put up a page", |f| {
        f.author_domain.split_once('.').is_some_and(|(_, above)| is_free_host(above))
    }),
    hint("REPLY_TO_ELSEWHERE", "answers go to another domain than the author's", |f| {
        !f.message.has("list-id") && reply_domains(f).is_some()
    }),
    bad("REPLY_TO_FREEMAIL", "answers go to a free mailbox that is not the author's", |f| {
        reply_domains(f).is_some_and(|reply| FREEMAIL.contains(&reply.as_str()))
    }),
    hint("RETURN_PATH_ELSEWHERE", "it was sent by another domain than the author's", |f| {
        f.return_site.as_ref().is_some_and(|site| *site != f.author_site && !f.author_site.is_empty())
    }),
    hint("RETURN_PATH_OF_SERVICE", "errors go to an account of programs, as of what a web page sends", |f| {
        let accounts = ["root", "www-data", "apache", "nobody", "www", "httpd", "nginx", "daemon"];
        let local = f.transaction.reverse_path.address().map(|address| address.local().to_ascii_lowercase());
        local.is_some_and(|local| accounts.contains(&local.as_str()))
    }),
    good("RETURN_PATH_SAME", "it was sent by the author's own domain", |f| {
        f.return_site.as_ref().is_some_and(|site| *site == f.author_site)
    }),
];

fn author_name<'f>(f: &'f Facts<'_>) -> &'f str {
    f.message.from.first().map_or("", |mailbox| mailbox.name.as_str())
}

/// Whether a character is a picture.
pub(super) fn is_pictograph(c: char) -> bool {
    matches!(c, '\u{2190}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}' | '\u{fe0f}')
}

fn name_shows_other_address(f: &Facts<'_>) -> bool {
    f.message.from.iter().any(|mailbox| {
        let shown = mailbox.name.rsplit_once('@').map(|(_, domain)| domain.to_ascii_lowercase());
        let is_end = |c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-';
        let shown = shown.map(|domain| domain.split(is_end).next().unwrap_or_default().to_owned());
        match (shown, &mailbox.domain) {
            (Some(shown), Some(domain)) => shown.contains('.') && Facts::site(&shown) != Facts::site(domain.as_str()),
            (Some(_), None) | (None, Some(_) | None) => false,
        }
    })
}

fn name_claims_department(f: &Facts<'_>) -> bool {
    let names: Vec<String> = f.message.from.iter().map(|mailbox| mailbox.name.to_lowercase()).collect();
    f.transaction.view.tenants().any(|tenant| {
        let title = tenant.department.name.to_lowercase();
        let claims = |name: &String| {
            (title.len() >= 8 && name.contains(&title))
                || tenant.department.domains.iter().any(|domain| name.contains(domain.as_str()))
        };
        names.iter().any(claims)
    })
}

fn reply_domains(f: &Facts<'_>) -> Option<String> {
    let of = |mailboxes: &[Mailbox]| {
        mailboxes.first().and_then(|mailbox| mailbox.domain.as_ref()).map(|domain| domain.as_str().to_owned())
    };
    let (from, reply) = (of(&f.message.from)?, of(&f.message.reply_to)?);
    (Facts::site(&from) != Facts::site(&reply)).then_some(reply)
}
