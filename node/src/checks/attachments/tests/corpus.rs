//! Files of others, which are not part of the repository: `POSTERN_ATTACHMENTS=FOLDER cargo test -p node --lib corpus`.

use std::path::{Path, PathBuf};

use proto::policy::ContentKind;

use super::{Analysis, analyse, with_part};

/// What is expected of files by what stands in their path, or in what file(1) says of them: the first that fits. Nothing that is
/// refused by default where there is no kind.
const EXPECTED: [(&str, Option<ContentKind>); 23] = [
    ("/encrypted/", Some(ContentKind::Encrypted)),
    ("basic/encrypted.docx", Some(ContentKind::Encrypted)),
    (".doc.zip", Some(ContentKind::Encrypted)),
    ("dde-in-word2003.xml.zip", Some(ContentKind::Encrypted)),
    ("harmless", None),
    ("/RTF-Spec", None),
    ("dde-in-word2007.xml.zip", Some(ContentKind::Encrypted)),
    ("/dde-", Some(ContentKind::Active)),
    ("/excel4_", Some(ContentKind::Active)),
    ("/external_link/", Some(ContentKind::Active)),
    ("/sample_with_lnk", Some(ContentKind::Executable)),
    ("/sample_with_calc", Some(ContentKind::Executable)),
    ("/sample_with_vba", Some(ContentKind::Macro)),
    ("RPM v3", Some(ContentKind::Executable)),
    ("script executable", Some(ContentKind::Script)),
    ("text executable", Some(ContentKind::Script)),
    ("ARJ archive", Some(ContentKind::Archive)),
    ("data (v0.8+)", Some(ContentKind::Archive)),
    ("Microsoft Word 2007+", None),
    ("Microsoft Excel 2007+", None),
    ("Netpbm image", None),
    ("PNG image", None),
    ("JSON text", None),
];

fn is_as_expected(analysis: &Analysis, expected: Option<ContentKind>) -> bool {
    let refused = [ContentKind::Executable, ContentKind::Script, ContentKind::Active, ContentKind::Encrypted];
    match expected {
        Some(kind) => analysis.found.iter().any(|found| found.kind == kind),
        None => analysis.opaque.is_empty() && !analysis.found.iter().any(|found| refused.contains(&found.kind)),
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn every_file_of_a_folder_gets_an_answer() {
    #[expect(clippy::disallowed_methods, reason = "the folder is named by whoever has one")]
    let Ok(folder) = std::env::var("POSTERN_ATTACHMENTS") else { return };
    let mut files = files(Path::new(&folder));
    files.retain(|file| file.extension().is_none_or(|ending| ending != "result"));
    files.sort();
    assert!(!files.is_empty());
    let mut others = Vec::new();
    for file in files {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let content = std::fs::read(&file).expect("a readable file");
        let began = std::time::Instant::now();
        let analysis = analyse(&with_part(&name, content));
        println!("{:>6} ms {name}", began.elapsed().as_millis());
        analysis.found.iter().for_each(|found| println!("    {:?} {} {}", found.kind, found.rule, found.text));
        analysis.opaque.iter().for_each(|text| println!("    opaque: {text}"));
        analysis.reasons.iter().for_each(|reason| println!("    {} {} {}", reason.score, reason.rule, reason.text));
        let said = std::fs::read_to_string(file.with_extension("result")).unwrap_or_default();
        let described = format!("{} {said}", file.display());
        let expected = EXPECTED.iter().find(|(words, _)| described.contains(words)).map(|(_, kind)| *kind);
        others.extend(expected.filter(|expected| !is_as_expected(&analysis, *expected)).map(|_| described));
    }
    assert!(others.is_empty(), "{others:#?}");
}
