//! Invitations (RFC 5545): they stand in calendars though nobody has said yes, so they are sent as spam. Only read for scoring.

use proto::{score::Score, verdict::Reason};

use super::facts::Facts;
use crate::{
    message::{html, mime::Part},
    policy::score::reason,
};

/// Bytes of all invitations that are looked at.
const BYTES_MAX: usize = 256 * 1024;
/// Rules, with what each is worth. They are not fitted: too few of the sorted messages are invitations.
pub const RULES: [(&str, Score, &str); 3] = [
    ("INVITATION_FROM_ELSEWHERE", Score(80), "it invites in the name of somebody whose domain is not the author's"),
    ("INVITATION_WITH_LINKS", Score(50), "its invitation has links to others than the author and where people meet"),
    ("INVITATION_RUNS", Score(300), "its invitation would start a program or open a file"),
];
/// Where people meet, and their calendars.
const MEETING_SITES: [&str; 10] = [
    "zoom.us",
    "microsoft.com",
    "live.com",
    "google.com",
    "webex.com",
    "gotomeeting.com",
    "goto.com",
    "jit.si",
    "whereby.com",
    "bigbluebutton.org",
];

/// What an invitation says.
#[derive(Debug, Default)]
struct Invitation {
    organizers: Vec<String>,
    hosts: Vec<String>,
    runs: bool,
}

/// What speaks against the invitations in a message.
#[must_use]
pub fn reasons(facts: &Facts<'_>) -> Vec<Reason> {
    let parts = facts.message.parts.iter().filter(|part| is_calendar(part));
    let mut all = Invitation::default();
    let mut left = BYTES_MAX;
    for text in parts.filter_map(|part| std::str::from_utf8(&part.content).ok()) {
        let text = &text[..text.floor_char_boundary(left)];
        left -= text.len();
        read(text, &mut all);
    }
    all.hosts.sort_unstable();
    all.hosts.dedup();
    let own = [Some(facts.author_site.as_str()), facts.return_site.as_deref()];
    let is_own = |site: &str| own.contains(&Some(site));
    let elsewhere = all.organizers.iter().any(|domain| !is_own(&Facts::site(domain)));
    let links = all.hosts.iter().map(|host| Facts::site(host));
    let is_meeting = |site: &str| MEETING_SITES.iter().any(|known| Facts::site(known) == site);
    let mut strange = links.filter(|site| !is_own(site) && !is_meeting(site));
    let found = [elsewhere, strange.next().is_some(), all.runs];
    let holding = RULES.into_iter().zip(found).filter(|(_, holds)| *holds);
    holding.map(|((rule, score, text), _)| reason(rule, score, text)).collect()
}

fn is_calendar(part: &Part) -> bool {
    part.declared == "text/calendar" || part.names.iter().any(|name| name.to_ascii_lowercase().ends_with(".ics"))
}

/// Reads content lines (section 3.1), which go on after a line end with a blank.
fn read(text: &str, into: &mut Invitation) {
    let unfolded = text.replace("\r\n ", "").replace("\r\n\t", "").replace("\n ", "").replace("\n\t", "");
    for line in unfolded.lines() {
        let Some((name, value)) = property(line) else { continue };
        let lower = value.to_ascii_lowercase();
        match name.as_str() {
            "ORGANIZER" => {
                let domain = lower.strip_prefix("mailto:").and_then(|address| address.rsplit_once('@'));
                into.organizers.extend(domain.map(|(_, domain)| domain.trim().to_owned()));
            }
            "DESCRIPTION" | "LOCATION" | "URL" | "X-ALT-DESC" | "COMMENT" => {
                let links = html::links_in_text(value);
                into.hosts.extend(links.iter().filter_map(html::Link::host));
            }
            "ACTION" => into.runs |= lower.trim() == "procedure",
            "ATTACH" => into.runs |= lower.starts_with("file:") || lower.starts_with("\\\\"),
            _ => {}
        }
    }
}

/// Name and value of a content line. A colon may stand in quoted parameters, such as `CN="a: b"`.
fn property(line: &str) -> Option<(String, &str)> {
    let mut quoted = false;
    let colon = line.char_indices().find(|(_, c)| {
        quoted ^= *c == '"';
        *c == ':' && !quoted
    });
    let (at, _) = colon?;
    let name = line[..at].split(';').next().unwrap_or_default();
    Some((name.trim().to_ascii_uppercase(), &line[at + 1..]))
}

#[cfg(test)]
mod tests {
    use proto::policy::PolicyLayer;

    use super::reasons;
    use crate::{
        checks::facts::Facts,
        policy::samples::{message, transaction, view},
    };

    fn rules(lines: &str) -> Vec<String> {
        let text = format!(
            "From: Karl <karl@partner.example>\nMIME-Version: 1.0\nContent-Type: text/calendar; method=REQUEST\n\nBEGIN:VCALENDAR\n{lines}END:VCALENDAR\n"
        );
        let transaction = transaction(view(PolicyLayer::default()), &["anna@interior.gov.test"]);
        reasons(&Facts::of(&message(&text), &transaction)).into_iter().map(|reason| reason.rule).collect()
    }

    #[test]
    fn an_invitation_is_judged_by_who_invites_where_it_links_and_what_it_runs() {
        let ordinary = "ORGANIZER;CN=\"Karl: P\":mailto:karl@mail.partner.example\nDESCRIPTION:https://us02.zoom.us/j/1 and \n  \
                        https://www.partner.example/plan\nBEGIN:VALARM\nACTION:DISPLAY\nEND:VALARM\n";
        assert_eq!(rules(ordinary), Vec::<String>::new());
        assert_eq!(rules("ORGANIZER;CN=\"a:b\":MAILTO:boss@evil.test\n"), ["INVITATION_FROM_ELSEWHERE"]);
        assert_eq!(rules("DESCRIPTION:pay at https://ev\n il.test/x\n"), ["INVITATION_WITH_LINKS"]);
        assert_eq!(rules("BEGIN:VALARM\nACTION:PROCEDURE\n"), ["INVITATION_RUNS"]);
        assert_eq!(rules("ATTACH;FMTTYPE=a/b:file://server/share/x.exe\n"), ["INVITATION_RUNS"]);
        assert_eq!(rules("no colon\n:\n\"\nORGANIZER:\n"), Vec::<String>::new());
    }
}
