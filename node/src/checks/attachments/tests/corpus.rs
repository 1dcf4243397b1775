//! Files of others, which are not part of the repository: `POSTERN_ATTACHMENTS=FOLDER cargo test -p node --lib corpus`.

use std::path::{Path, PathBuf};

use super::{analyse, with_part};

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn every_file_of_a_folder_gets_an_answer() {
    #[expect(clippy::disallowed_methods, reason = "the folder is named by whoever has one")]
    let Ok(folder) = std::env::var("POSTERN_ATTACHMENTS") else { return };
    let mut files = files(Path::new(&folder));
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let content = std::fs::read(&file).expect("a readable file");
        let began = std::time::Instant::now();
        let analysis = analyse(&with_part(&name, content));
        println!("{:>6} ms {name}", began.elapsed().as_millis());
        analysis.found.iter().for_each(|found| println!("    {:?} {} {}", found.kind, found.rule, found.text));
        analysis.opaque.iter().for_each(|text| println!("    opaque: {text}"));
        analysis.reasons.iter().for_each(|reason| println!("    {} {} {}", reason.score, reason.rule, reason.text));
    }
}
