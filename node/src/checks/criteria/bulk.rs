//! Signs of mass mail: of one that keeps to the customs, and of one that does not.

use super::{Criterion, Group, good, hint};

pub(super) const GROUP: Group = Group {
    name: super::BULK,
    about: "List-*, Precedence, Feedback-ID and the customs of mass mail",
    criteria: &CRITERIA,
};

const CRITERIA: [Criterion; 9] = [
    hint("BULK_WITHOUT_UNSUBSCRIBE", "it is mass mail without a way out", |f| {
        let bulk = f.message.field("precedence").is_some_and(|value| value.eq_ignore_ascii_case("bulk"));
        bulk && !f.message.has("list-unsubscribe") && !f.words.contains("unsubscribe") && !f.message.has("list-id")
    }),
    hint("WAY_OUT_IN_TEXT_ONLY", "it offers a way out that its header does not know", |f| {
        !f.message.has("list-unsubscribe")
            && ["unsubscribe", "opt out", "opt-out", "abmelden"].iter().any(|w| f.words.contains(w))
    }),
    hint("LIST_UNSUBSCRIBE_ELSEWHERE", "its way out is at another domain than the author's", |f| {
        f.raw("list-unsubscribe").is_some_and(|raw| !f.author_site.is_empty() && !names_author(&raw, f))
    }),
    hint("LIST_UNSUBSCRIBE_MAIL_ONLY", "its way out is a mailbox only", |f| {
        f.raw("list-unsubscribe").is_some_and(|raw| raw.contains("mailto:") && !raw.contains("http"))
    }),
    hint("LIST_UNSUBSCRIBE_CLEAR", "its way out is not protected", |f| {
        f.raw("list-unsubscribe").is_some_and(|raw| raw.contains("<http://"))
    }),
    good("LIST_UNSUBSCRIBE_OWN", "its way out is at the author's domain", |f| {
        f.raw("list-unsubscribe").is_some_and(|raw| names_author(&raw, f))
    }),
    good("LIST_ID", "it is of a mailing list", |f| f.message.has("list-id")),
    good("FEEDBACK_ID", "its sender takes complaints and offers a way out", |f| {
        let complaints = ["feedback-id", "x-report-abuse", "x-csa-complaints"];
        f.message.has("list-unsubscribe") && complaints.iter().any(|name| f.message.has(name))
    }),
    good("IN_THREAD", "it is part of a conversation", |f| {
        (f.message.has("in-reply-to") || f.message.has("references")) && answers(&f.message.subject)
    }),
];

/// Whether a subject is that of an answer, or of one of several patches that are sent as answers to the first: who writes a field of
/// conversations into advertising leaves the subject as it sells.
fn answers(subject: &str) -> bool {
    let mut rest = subject.trim_start();
    while let Some((tag, behind)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        if tag.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word.eq_ignore_ascii_case("patch")) {
            return true;
        }
        rest = behind.trim_start();
    }
    let (prefix, _) = rest.split_once(':').unwrap_or_default();
    let prefix = prefix.trim_end().trim_end_matches(|c: char| c == ']' || c == '[' || c.is_ascii_digit());
    ["re", "aw", "fw", "fwd", "wg", "sv", "antw", "antwort", "r", "tr", "rif", "odp", "vs", "res", "enc", "rv"]
        .iter()
        .any(|one| one.eq_ignore_ascii_case(prefix))
}

fn names_author(raw: &str, f: &super::Facts<'_>) -> bool {
    let label = f.author_label();
    label.len() > 2 && raw.to_ascii_lowercase().contains(label)
}

#[cfg(test)]
mod tests {
    use super::answers;

    #[test]
    fn subjects_of_answers_are_told_from_those_of_advertising() {
        let cases = [
            ("Re: minutes", true),
            ("RE : minutes", true),
            ("[list] [ext] AW: minutes", true),
            ("Re[2]: minutes", true),
            ("Antwort: minutes", true),
            ("[PATCH v2 3/7] net: fix", true),
            ("[RFC PATCH] net: fix", true),
            ("Your parcel: pay now", false),
            ("[Dispatch] Your parcel", false),
            ("[offer] 50 % off", false),
            ("regards", false),
            ("", false),
        ];
        for (subject, expected) in cases {
            assert_eq!(answers(subject), expected, "{subject}");
        }
    }
}
