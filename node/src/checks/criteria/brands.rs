//! Whether it speaks in the name of somebody whom it does not come from.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::{Criterion, Group, bad};
use crate::checks::facts::Facts;

pub(super) const GROUP: Group = Group {
    name: "brands",
    about: "names of banks, carriers and services that it does not come from",
    criteria: &CRITERIA,
};

const CRITERIA: [Criterion; 6] = [
    bad("BRAND_IN_NAME", "the author's name is that of somebody else", |f| {
        f.message.from.iter().any(|mailbox| claims(&mailbox.name, f))
    }),
    bad("BRAND_IN_SUBJECT", "its subject names somebody whom it does not come from", |f| claims(&f.message.subject, f)),
    bad("BRAND_IN_MAILBOX", "the author's mailbox is named after somebody else", |f| claims(&f.author_local, f)),
    bad("BRAND_IN_HOST", "a host's name holds that of somebody else", |f| {
        let hosts = f.hosts.iter().map(String::as_str).chain([f.author_domain.as_str()]);
        hosts.into_iter().any(|host| within(host, 5).any(|brand| !Facts::site(host).contains(brand)))
    }),
    bad("BRAND_IN_PATH", "a link's path names somebody else", |f| {
        f.targets.iter().any(|target| {
            let Some((_, rest)) = target.split_once("://") else { return false };
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            within(path.split('?').next().unwrap_or_default(), 6).any(|brand| !host.contains(brand))
        })
    }),
    bad("BRAND_SPEAKS", "it speaks as somebody whom none of its hosts belongs to", |f| {
        let begin = f.words.get(..f.words.floor_char_boundary(BEGIN_BYTES)).unwrap_or_default();
        let mut times = [0_u8; BRANDS.len()];
        named(begin).for_each(|at| times[at] = times[at].saturating_add(1));
        let foreign = |brand: &str| !owned(brand, f) && f.hosts.iter().all(|host| !host.contains(&compact(brand)));
        !f.message.has("list-id") && times.iter().zip(BRANDS).any(|(times, brand)| *times >= 2 && foreign(brand))
    }),
];

/// Of the text so much is looked at for who speaks, in bytes.
const BEGIN_BYTES: usize = 1500;

/// Every brand as a word, and as a piece of a name.
static SEARCH: LazyLock<Option<(AhoCorasick, AhoCorasick)>> = LazyLock::new(|| {
    let words = AhoCorasick::new(BRANDS.map(|brand| format!(" {brand} "))).ok()?;
    Some((words, AhoCorasick::new(BRANDS).ok()?))
});

/// Places of the brands that are words of a text, which has a space at both ends.
fn named(text: &str) -> impl Iterator<Item = usize> {
    let found = SEARCH.iter().flat_map(move |(words, _)| words.find_overlapping_iter(text));
    found.map(|found| found.pattern().as_usize())
}

/// Brands of at least so many letters that are pieces of a name.
fn within(name: &str, letters_min: usize) -> impl Iterator<Item = &'static str> {
    let found = SEARCH.iter().flat_map(move |(_, pieces)| pieces.find_overlapping_iter(name));
    found
        .filter_map(|found| BRANDS.get(found.pattern().as_usize()).copied())
        .filter(move |brand| brand.len() >= letters_min)
}

/// Whether a text names a brand that the author's domain does not belong to.
fn claims(text: &str, f: &Facts<'_>) -> bool {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let padded = format!(" {} ", words.join(" "));
    // Three letters are many things: a power supply is a UPS, too, and has nothing to click or to open.
    let is_meant =
        |brand: &str| brand.len() > 3 || !f.hosts.is_empty() || f.message.parts.iter().any(|part| part.attached);
    let foreign = |brand: &&str| is_meant(brand) && !owned(brand, f);
    !f.message.has("list-id") && named(&padded).any(|at| BRANDS.get(at).is_some_and(foreign))
}

fn owned(brand: &str, f: &Facts<'_>) -> bool {
    let compact = compact(brand);
    f.author_domain.contains(&compact) || f.return_site.as_ref().is_some_and(|site| site.contains(&compact))
}

fn compact(brand: &str) -> String {
    brand.chars().filter(|c| *c != ' ').collect()
}

/// Whose names are borrowed most.
pub(super) const BRANDS: [&str; 146] = [
    "paypal",
    "ebay",
    "amazon",
    "microsoft",
    "office 365",
    "microsoft 365",
    "office365",
    "outlook",
    "onedrive",
    "sharepoint",
    "teams",
    "apple",
    "icloud",
    "itunes",
    "netflix",
    "google",
    "gmail",
    "facebook",
    "instagram",
    "whatsapp",
    "linkedin",
    "twitter",
    "tiktok",
    "spotify",
    "dropbox",
    "adobe",
    "docusign",
    "wetransfer",
    "zoom",
    "dhl",
    "fedex",
    "ups",
    "usps",
    "dpd",
    "gls",
    "hermes",
    "royal mail",
    "correios",
    "la poste",
    "swiss post",
    "post ch",
    "deutsche post",
    "metamask",
    "coinbase",
    "binance",
    "blockchain",
    "trust wallet",
    "trustwallet",
    "ledger",
    "trezor",
    "kraken",
    "crypto com",
    "opensea",
    "phantom",
    "bank of america",
    "wells fargo",
    "chase",
    "citibank",
    "citi",
    "barclays",
    "hsbc",
    "lloyds",
    "natwest",
    "santander",
    "bradesco",
    "itau",
    "caixa",
    "banco do brasil",
    "nubank",
    "bbva",
    "sparkasse",
    "volksbank",
    "postbank",
    "commerzbank",
    "deutsche bank",
    "ing",
    "n26",
    "credit agricole",
    "bnp paribas",
    "societe generale",
    "la banque postale",
    "ubs",
    "credit suisse",
    "postfinance",
    "american express",
    "amex",
    "visa",
    "mastercard",
    "western union",
    "moneygram",
    "irs",
    "hmrc",
    "elster",
    "finanzamt",
    "rakuten",
    "costco",
    "walmart",
    "walgreens",
    "cvs",
    "home depot",
    "lowes",
    "ace hardware",
    "harbor freight",
    "kohls",
    "verizon",
    "t mobile",
    "at t",
    "comcast",
    "xfinity",
    "vodafone",
    "telekom",
    "norton",
    "mcafee",
    "geek squad",
    "best buy",
    "aaa",
    "state farm",
    "blue cross",
    "tupperware",
    "yeti",
    "sams club",
    "sam s club",
    "bluecross",
    "blueshield",
    "blue shield",
    "starbucks",
    "mercado pago",
    "mercado livre",
    "openai",
    "electrum",
    "celsius network",
    "tractor supply",
    "dick s sporting goods",
    "cash app",
    "venmo",
    "lifelock",
    "geico",
    "starlink",
    "safemoon",
    "totalenergies",
    "post nl",
    "postnl",
    "bpost",
    "poste italiane",
    "livelo",
    "nordea",
];
