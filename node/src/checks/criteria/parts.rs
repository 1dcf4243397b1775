//! What it brings along.

use super::{Criterion, Group, bad, good, hint};
use crate::checks::{facts::Facts, kinds};

pub(super) const GROUP: Group =
    Group { name: "parts", about: "pictures, attachments, invitations", criteria: &CRITERIA };

const CRITERIA: [Criterion; 8] = [
    bad("ACTIVE_ATTACHMENT", "an attachment is a page with a script or form", active_attachment),
    bad("PAGE_ATTACHED", "an attachment is a page", |f| {
        has_ending(f, &["html", "htm", "shtml", "xhtml", "svg", "mht", "mhtml"])
    }),
    hint("ARCHIVE_ATTACHED", "an attachment is an archive", |f| {
        has_ending(f, &["zip", "rar", "7z", "gz", "iso", "img", "ace", "cab", "tgz", "xz"])
    }),
    bad("DOCUMENT_WITH_LITTLE_TEXT", "it is little more than a document", |f| {
        f.words.len() < 300
            && has_ending(f, &["pdf", "doc", "docx", "xls", "xlsx", "docm", "xlsm", "rtf", "ppt", "pptx"])
    }),
    bad("PICTURE_WITH_LITTLE_TEXT", "it is little more than a picture", |f| {
        f.words.len() < 200 && f.message.parts.iter().any(|part| part.declared.starts_with("image/"))
    }),
    bad("EMPTY", "it says nothing", |f| f.words.len() < 12 + f.message.subject.len() && f.message.parts.len() <= 2),
    hint("INVITATION", "it is an invitation", |f| f.message.parts.iter().any(|part| part.declared == "text/calendar")),
    good("PATCH_OR_SIGNED", "it holds a patch or a signature of its author", |f| {
        f.message.parts.iter().any(|part| {
            part.declared == "application/pgp-signature"
                || part.declared == "application/pkcs7-signature"
                || part.declared == "text/x-patch"
                || part.declared == "text/x-diff"
        }) || f.raw_text.contains("\n@@ -")
            || f.raw_text.contains("-----BEGIN PGP SIGNATURE")
    }),
];

fn has_ending(f: &Facts<'_>, endings: &[&str]) -> bool {
    let names = f.message.parts.iter().flat_map(|part| &part.names);
    names.filter_map(|name| kinds::extension(name)).any(|ending| endings.contains(&ending.as_str()))
}

fn active_attachment(f: &Facts<'_>) -> bool {
    f.message.parts.iter().filter(|part| part.attached || !part.names.is_empty()).any(|part| {
        let is_page = part.names.iter().filter_map(|name| kinds::extension(name)).any(|extension| {
            matches!(extension.as_str(), "html" | "htm" | "shtml" | "xhtml" | "svg" | "mht" | "mhtml")
        });
        let head = part.content.get(..part.content.len().min(256 * 1024)).unwrap_or_default().to_ascii_lowercase();
        let has = |needle: &[u8]| memchr::memmem::find(&head, needle).is_some();
        is_page && (has(b"<script") || has(b"<form") || has(b"http-equiv=\"refresh"))
    })
}
