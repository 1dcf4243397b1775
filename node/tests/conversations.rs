//! Conversations with the SMTP server: golden transcripts against the pure session, properties of random ones, a million
//! against a model, and a few over a real socket.

#[path = "conversations/client.rs"]
mod client;
#[path = "conversations/edges.rs"]
mod edges;
#[path = "conversations/encryption.rs"]
mod encryption;
#[path = "conversations/fixture.rs"]
mod fixture;
#[path = "conversations/loopback.rs"]
mod loopback;
#[path = "conversations/machine.rs"]
mod machine;
#[path = "conversations/model.rs"]
mod model;
#[path = "conversations/oversize.rs"]
mod oversize;
#[path = "conversations/properties.rs"]
mod properties;
#[path = "conversations/said.rs"]
mod said;
#[path = "conversations/sequences.rs"]
mod sequences;
#[path = "conversations/stress.rs"]
mod stress;
#[path = "conversations/transcript.rs"]
mod transcript;

use std::path::Path;

use transcript::Transcript;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conversations"))
}

fn transcripts() -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = std::fs::read_dir(folder())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).expect("a transcript"))
        })
        .collect();
    found.sort();
    found
}

#[test]
fn every_transcript_goes_as_it_is_written() {
    let all = transcripts();
    assert!(all.len() >= 15, "the transcripts are where they are looked for");
    let mut wrong = Vec::new();
    for (name, text) in &all {
        let actual = Transcript::parse(name, text).run();
        if actual != *text {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
            std::fs::write(&path, &actual).expect("write the actual conversation");
            wrong.push(format!("{name}: the actual conversation is in {}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn transcripts_do_not_depend_on_how_the_bytes_arrive() {
    for (name, text) in &transcripts() {
        let transcript = Transcript::parse(name, text);
        if transcript.segments_matter {
            continue;
        }
        for size in [1, 2, 3, 7] {
            assert_eq!(&transcript.run_split(size), text, "{name} in segments of {size}");
        }
    }
}

#[test]
fn the_open_relay_transcript_has_sixty_forms_and_none_is_taken() {
    let text = std::fs::read_to_string(folder().join("open-relay.txt")).expect("the transcript");
    let lines: Vec<&str> = text.lines().collect();
    let answers: Vec<&str> =
        lines.windows(2).filter(|pair| pair[0].starts_with("C: RCPT")).map(|pair| pair[1]).collect();
    assert!(answers.len() >= 60, "{} forms", answers.len());
    assert!(answers.iter().all(|answer| answer.starts_with("S: 5")), "{answers:?}");
}
