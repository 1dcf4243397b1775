//! What names of hosts and mailboxes give away.

use std::net::IpAddr;

use super::{facts::Facts, phrases::FREEMAIL};

/// Suffixes under which most names are bought for a few days.
const ABUSED: [&str; 71] = [
    "shop",
    "xyz",
    "top",
    "click",
    "icu",
    "live",
    "buzz",
    "online",
    "site",
    "website",
    "store",
    "fun",
    "space",
    "club",
    "work",
    "bid",
    "loan",
    "win",
    "download",
    "stream",
    "review",
    "date",
    "racing",
    "party",
    "trade",
    "science",
    "gdn",
    "monster",
    "cyou",
    "cfd",
    "sbs",
    "rest",
    "quest",
    "bond",
    "lol",
    "life",
    "today",
    "world",
    "best",
    "guru",
    "pw",
    "ws",
    "tk",
    "ml",
    "ga",
    "cf",
    "gq",
    "bar",
    "hair",
    "beauty",
    "makeup",
    "skin",
    "autos",
    "boats",
    "homes",
    "yachts",
    "motorcycles",
    "mom",
    "pics",
    "lat",
    "help",
    "forum",
    "delivery",
    "cricket",
    "men",
    "vip",
    "zip",
    "mov",
    // Names below these are sold like those below a country.
    "sa.com",
    "za.com",
    "ru.com",
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

/// Words in the name of a subscriber's line.
const LINES: [&str; 27] = [
    "dsl",
    "adsl",
    "vdsl",
    "xdsl",
    "dyn",
    "dynamic",
    "pool",
    "ppp",
    "pppoe",
    "dial",
    "dialup",
    "dialin",
    "cable",
    "dip",
    "dhcp",
    "catv",
    "broadband",
    "client",
    "cust",
    "customer",
    "hsd",
    "user",
    "home",
    "kabel",
    "revip",
    "mobile",
    "ftth",
];
/// Words in the name of a machine that is rented by the hour and named by nobody.
const RENTED: [&str; 14] = [
    "vps",
    "vds",
    "vmi",
    "host",
    "hosted",
    "static",
    "ptr",
    "rdns",
    "reverse",
    "unassigned",
    "colo",
    "cloud",
    "server",
    "compute",
];
/// Who rents them out, when the name is theirs.
const LANDLORDS: [&str; 9] = [
    "amazonaws.com",
    "googleusercontent.com",
    "colocrossing.com",
    "contaboserver.net",
    "linodeusercontent.com",
    "members.linode.com",
    "hwclouds-dns.com",
    "clients.your-server.de",
    "vultrusercontent.com",
];
/// Services that send for others and take complaints: below these names are their servers.
const MAILING_SERVICES: [&str; 52] = [
    "sendgrid.net",
    "sparkpostmail.com",
    "mailgun.org",
    "mailgun.net",
    "mcsv.net",
    "mcdlv.net",
    "rsgsv.net",
    "mandrillapp.com",
    "klaviyomail.com",
    "constantcontact.com",
    "ccsend.com",
    "exacttarget.com",
    "mktomail.com",
    "mktroute.com",
    "createsend.com",
    "cmail19.com",
    "cmail20.com",
    "sender-sib.com",
    "mailin.fr",
    "sendinblue.com",
    "brevo.com",
    "mailjet.com",
    "amazonses.com",
    "mtasv.net",
    "hubspotemail.net",
    "govdelivery.com",
    "responsys.net",
    "rsys2.com",
    "lstrk.net",
    "listrakbi.com",
    "bm23.com",
    "silverpop.com",
    "zetaglobal.net",
    "emarsys.net",
    "customeriomail.com",
    "email-od.com",
    "smtp2go.com",
    "elasticemail.com",
    "omnisend.email",
    "docusign.net",
    "transmail.net",
    "aweber.com",
    "getresponse.com",
    "infusionmail.com",
    "icpbounce.com",
    "vresp.com",
    "activehosted.com",
    "sailthru.com",
    "dotmailer.com",
    "cleverreach.com",
    "rapidmail.de",
    "inxmail.com",
];
/// Where the servers of free mailboxes are that are not below the mailboxes' own domains.
const MAIL_PROVIDERS: [&str; 11] = [
    "me.com",
    "google.com",
    "yahoo.net",
    "yahoodns.net",
    "apple.com",
    "kundenserver.de",
    "yandex.net",
    "163.net",
    "netease.com",
    "protonmail.ch",
    "proton.ch",
];

/// Whether a host is under a suffix that is often abused.
#[must_use]
pub fn is_abused_suffix(host: &str) -> bool {
    host.rmatch_indices('.').take(2).any(|(at, _)| ABUSED.contains(&&host[at + 1..]))
}

/// Whether anybody can have a page at this host.
#[must_use]
pub fn is_free_host(host: &str) -> bool {
    is_below(host, &FREE_HOSTS)
}

/// Whether it is the name of a subscriber's line.
#[must_use]
pub fn is_line(host: &str) -> bool {
    has_word(host, &LINES)
}

/// Whether it is the name of a machine that is rented and named by nobody.
#[must_use]
pub fn is_rented(host: &str) -> bool {
    has_word(host, &RENTED) || is_below(host, &LANDLORDS)
}

/// Whether a mailing service that many honest senders use has a server of this name.
#[must_use]
pub fn is_mailing_service(host: &str) -> bool {
    is_below(host, &MAILING_SERVICES)
}

/// Whether this is a server of somebody who keeps free mailboxes.
#[must_use]
pub fn is_mail_provider(host: &str) -> bool {
    is_below(host, &MAIL_PROVIDERS) || is_below(host, &FREEMAIL)
}

/// Whether one of these words stands in a host's name before the owner's own: what that is tells nothing.
fn has_word(host: &str, words: &[&str]) -> bool {
    let own = Facts::site(host).matches('.').count();
    let Some((at, _)) = host.rmatch_indices('.').nth(own) else { return false };
    let mut found = host[..at].split(|c: char| !c.is_ascii_alphabetic());
    found.any(|word| words.iter().any(|one| one.eq_ignore_ascii_case(word)))
}

fn is_below(host: &str, domains: &[&str]) -> bool {
    domains.iter().any(|domain| host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

/// Whether the name of an address is made of it, as providers name dial-up lines: all four numbers of an IPv4 address stand in it
/// in order or backwards, or as eight hexadecimal digits.
#[must_use]
pub fn is_generic(name: &str, client: IpAddr) -> bool {
    let IpAddr::V4(v4) = client else { return false };
    let octets = v4.octets();
    let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    let name = name.to_ascii_lowercase();
    if name.contains(&hex) {
        return true;
    }
    let numbers: Vec<u16> =
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
    let forth: Vec<u16> = octets.iter().map(|octet| u16::from(*octet)).collect();
    let back: Vec<u16> = forth.iter().rev().copied().collect();
    numbers.windows(4).any(|four| four == forth || four == back)
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{is_abused_suffix, is_generic, is_line, is_mailing_service, is_rented};

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_name_that_is_made_of_the_address_is_generic() {
        let table = [
            ("192-0-2-7.dsl.example", true),
            ("host7.2.0.192.pool.example", true),
            ("c0000207.cable.example", true),
            ("mail.example", false),
            ("mx7.example", false),
            ("192-0-2-8.dsl.example", false),
            ("192-0-2.mail7.example", true),
        ];
        for (name, expected) in table {
            assert_eq!(is_generic(name, ip("192.0.2.7")), expected, "{name}");
        }
        assert!(!is_generic("192-0-2-7.example", ip("2001:db8::7")));
    }

    #[test]
    fn names_of_lines_rented_machines_and_services_are_told_from_those_that_somebody_gave() {
        let table = [
            ("c-192-0-2-7.hsd1.wa.example.net", (true, false, false)),
            ("adsl7.pool.example.it", (true, false, false)),
            ("192-0-2-7-host.colocrossing.com", (false, true, false)),
            ("vmi7.contaboserver.net", (false, true, false)),
            ("o1.wfb.outbound-mail.sendgrid.net", (false, false, true)),
            ("sendgrid.net", (false, false, true)),
            ("notsendgrid.net", (false, false, false)),
            ("mail.home.example", (false, false, false)),
            ("mail.server.co.uk", (false, false, false)),
            ("mo4.mail-out.ovh.net", (false, false, false)),
            ("mx.cable.example", (false, false, false)),
            ("mail.example", (false, false, false)),
        ];
        for (name, expected) in table {
            assert_eq!((is_line(name), is_rented(name), is_mailing_service(name)), expected, "{name}");
        }
    }

    #[test]
    fn a_suffix_is_one_label_or_two() {
        for (host, expected) in [("a.shop", true), ("a.sa.com", true), ("x.a.sa.com", true), ("sa.com.example", false)]
        {
            assert_eq!(is_abused_suffix(host), expected, "{host}");
        }
        assert!(!is_abused_suffix("shop.com") && !is_abused_suffix("a.shop.com"));
    }
}
