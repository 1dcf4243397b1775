//! Every input that the fuzzer has kept, and every one that once broke something, through the bodies of the fuzz targets.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "to the fuzz targets it is a library")]
mod bodies;

use std::{fs, panic, path::Path};

fn replay(target: &str, body: fn(&[u8])) {
    // What somebody wrote, by what it is; and what the fuzzer found on from there.
    for (folder, files_min) in [("seeds", 20), ("corpus", 5)] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder).join(target);
        let entries = fs::read_dir(&folder).expect("the folder");
        let files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        assert!(files.len() >= files_min, "{} inputs in {}", files.len(), folder.display());
        for file in files {
            let input = fs::read(&file).expect("an input");
            let outcome = panic::catch_unwind(|| body(&input));
            assert!(outcome.is_ok(), "{} breaks a promise: {:?}", file.display(), String::from_utf8_lossy(&input));
        }
    }
}

#[test]
fn conversations_that_the_fuzzer_found_break_no_promise() {
    replay("commands", bodies::commands);
}

#[test]
fn data_and_chunks_that_the_fuzzer_found_are_read_as_by_a_plain_reader() {
    replay("data", bodies::data);
}

#[test]
fn headers_of_balancers_that_the_fuzzer_found_name_whom_they_name() {
    replay("proxy", bodies::proxy);
}

#[test]
fn answers_of_next_hops_that_the_fuzzer_found_are_bounded_and_clean() {
    replay("next_hop", bodies::next_hop);
}

#[test]
fn rules_that_the_fuzzer_found_hold_among_others_as_they_do_alone() {
    replay("rules", bodies::rules);
}

#[test]
fn structures_of_messages_that_the_fuzzer_found_are_judged() {
    replay("mime", bodies::mime);
}

#[test]
fn values_of_header_fields_that_the_fuzzer_found_are_read_and_make_no_field() {
    replay("words", bodies::words);
}

#[test]
fn archives_that_the_fuzzer_found_are_looked_into_or_said_not_to_be_known() {
    replay("archives", bodies::archives);
}

#[test]
fn documents_that_the_fuzzer_found_are_looked_into_or_said_not_to_be_known() {
    replay("documents", bodies::documents);
}

#[test]
fn formats_of_people_that_the_fuzzer_found_fit_as_they_are_written() {
    replay("fingerprints", bodies::fingerprints);
}

#[test]
fn answers_of_clamd_that_the_fuzzer_found_are_the_exact_words_or_none() {
    replay("clamd", bodies::clamd);
}
