//! Compares what a file is with what its names and its declared type say.

use super::kinds;

/// What a file is by its content, as far as endings promise it.
const SIGNATURES: [(&[u8], &str); 14] = [
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"7z\xbc\xaf\x27\x1c", "an archive"),
    (b"Rar!\x1a\x07", "an archive"),
    (b"\xfd7zXZ\0", "an archive"),
    (b"\x1f\x8b\x08", "an archive"),
    (b"MSCF\0\0\0\0", "an archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a compound file"),
    (b"{\\rt", "an RTF document"),
    (b"\x89PNG\r\n\x1a\n", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"<!doctype html", "a page"),
    (b"<html", "a page"),
];

/// Endings and what a file with them may be: Office goes by content where it opens several.
const PROMISES: [(&[&str], &[&str]); 6] = [
    (&["pdf"], &["a PDF document"]),
    (&["jpg", "jpeg", "png", "gif", "bmp", "tif", "tiff", "webp"], &["a picture"]),
    (&["docx", "xlsx", "pptx", "docm", "xlsm", "pptm", "odt", "ods", "odp"], &["a ZIP archive", "a compound file"]),
    (
        &["doc", "dot", "xls", "xlt", "ppt", "pot", "pps"],
        &["a compound file", "an RTF document", "a page", "a ZIP archive"],
    ),
    (&["rtf"], &["an RTF document"]),
    (&["txt", "log", "csv", "ics", "vcf"], &["a page", "an RTF document"]),
];

/// Declared types that promise as much as an ending does.
const TYPES: [(&str, &str); 7] = [
    ("application/pdf", "pdf"),
    ("image/jpeg", "jpg"),
    ("image/png", "png"),
    ("image/gif", "gif"),
    ("text/plain", "txt"),
    ("text/calendar", "ics"),
    ("application/rtf", "rtf"),
];

/// What contradicts the content, in words; `None` when nothing does or nothing is known.
pub(super) fn disguise(content: &[u8], names: &[String], declared: Option<&str>) -> Option<String> {
    let head = content[..content.len().min(32)].trim_ascii_start().to_ascii_lowercase();
    let fits =
        |signature: &[u8]| content.starts_with(signature) || (signature[0] == b'<' && head.starts_with(signature));
    let (_, found) = SIGNATURES.iter().find(|(signature, _)| fits(signature))?;
    let breaks = |ending: &str| {
        let promise = PROMISES.iter().find(|(endings, _)| endings.contains(&ending));
        promise.is_some_and(|(_, kinds)| !kinds.contains(found))
    };
    if names.iter().filter_map(|name| kinds::extension(name)).any(|ending| breaks(&ending)) {
        return Some(format!("is {found}, which its name denies"));
    }
    let ending = TYPES.iter().find(|(name, _)| Some(*name) == declared).map(|(_, ending)| *ending)?;
    breaks(ending).then(|| format!("is {found}, which its declared type denies"))
}

#[cfg(test)]
mod tests {
    use super::disguise;

    #[test]
    fn a_name_or_type_that_the_content_denies_is_found() {
        let names = |name: &str| vec![name.to_owned()];
        let found = |content: &[u8], name: &str, declared| disguise(content, &names(name), declared);
        assert!(found(b"PK\x03\x04", "a.pdf", None).expect("found").contains("its name"));
        assert!(found(b"%PDF-1.7", "a.jpg", None).is_some() && found(b" <HTML>", "a.pdf", None).is_some());
        assert!(found(b"\x89PNG\r\n\x1a\n", "a", Some("application/pdf")).expect("found").contains("declared"));
        for (content, name) in [
            (&b"PK\x03\x04"[..], "a.docx"),
            (b"{\\rtf1", "a.doc"),
            (b"<html>", "a.txt"),
            (b"\xff\xd8\xff", "a.png"),
            (b"PK\x03\x04", "a.weird"),
            (b"words", "a.pdf"),
        ] {
            assert_eq!(found(content, name, Some("application/octet-stream")), None, "{name}");
        }
    }
}
