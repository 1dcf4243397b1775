//! What names of hosts and mailboxes give away.

/// Suffixes under which most names are bought for a few days.
const ABUSED: [&str; 46] = [
    "shop", "xyz", "top", "click", "icu", "live", "buzz", "online", "site", "website", "store", "fun", "space", "club",
    "work", "bid", "loan", "win", "download", "stream", "review", "date", "racing", "party", "trade", "science", "gdn",
    "monster", "cyou", "cfd", "sbs", "rest", "quest", "bond", "lol", "life", "today", "world", "best", "guru", "pw",
    "ws", "tk", "ml", "ga", "cf",
];
/// Where anybody can put up a page under a good name.
const FREE_HOSTS: [&str; 44] = [
    "firebaseapp.com",
    "web.app",
    "weebly.com",
    "wixsite.com",
    "blogspot.com",
    "github.io",
    "glitch.me",
    "netlify.app",
    "vercel.app",
    "pages.dev",
    "workers.dev",
    "r2.dev",
    "herokuapp.com",
    "000webhostapp.com",
    "square.site",
    "godaddysites.com",
    "myshopify.com",
    "sites.google.com",
    "docs.google.com",
    "forms.gle",
    "drive.google.com",
    "storage.googleapis.com",
    "amazonaws.com",
    "cloudfront.net",
    "azurewebsites.net",
    "windows.net",
    "azureedge.net",
    "cloudapp.azure.com",
    "wordpress.com",
    "webflow.io",
    "ipfs.io",
    "dweb.link",
    "backblazeb2.com",
    "digitaloceanspaces.com",
    "linodeobjects.com",
    "typeform.com",
    "jotform.com",
    "notion.site",
    "carrd.co",
    "canva.site",
    "framer.app",
    "ngrok.io",
    "repl.co",
    "translate.goog",
];

/// Whether a host is under a suffix that is often abused.
#[must_use]
pub fn is_abused_suffix(host: &str) -> bool {
    host.rsplit('.').next().is_some_and(|suffix| ABUSED.contains(&suffix))
}

/// Whether anybody can have a page at this host.
#[must_use]
pub fn is_free_host(host: &str) -> bool {
    FREE_HOSTS.iter().any(|free| host == *free || host.strip_suffix(free).is_some_and(|rest| rest.ends_with('.')))
}

/// Whether a name looks as if it were drawn by lot: letters and digits in turn, or many consonants in a row.
#[must_use]
pub fn is_random(name: &str) -> bool {
    let bytes = name.as_bytes();
    if bytes.len() < 6 || !name.is_ascii() {
        return false;
    }
    let turns = bytes
        .windows(2)
        .filter(|two| {
            two[0].is_ascii_alphabetic() != two[1].is_ascii_alphabetic() && two.iter().all(u8::is_ascii_alphanumeric)
        })
        .count();
    let (mut run, mut longest) = (0, 0);
    for byte in bytes {
        let consonant = byte.is_ascii_alphabetic() && !b"aeiouyAEIOUY".contains(byte);
        run = if consonant { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    turns >= 4 || longest >= 6
}
