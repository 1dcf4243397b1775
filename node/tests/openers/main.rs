//! Threat rows 23, 27, 28 and 38 with real processes: what an opener may do, and what it costs when it does something else. This
//! program is also what its tests start, an opener, a bad one, and a node that has some, so it goes without the usual harness.

mod bad;
mod family;
mod pool;
mod samples;
mod shut;

use std::{panic::AssertUnwindSafe, process::ExitCode};

use node::checks::opener;

/// Each is a sentence and what shows it.
type Test = (&'static str, fn());

const TESTS: [Test; 18] = [
    ("an opener says of every sample what the reader itself says", pool::as_the_reader_itself),
    ("the program of the node is an opener when it is asked for one, and its help says nothing of it", pool::the_node),
    ("whatever a process that is shut off tries, the kernel ends it", shut::whatever_it_tries),
    ("a process that is shut off has no descriptor and no environment of its node", shut::what_it_was_given),
    ("what an opener does costs its message, and the next one is read", pool::what_it_does),
    ("what an opener says is believed only if a good one could say it", pool::what_it_says),
    ("an opener that is killed in the middle is chance, and no longer the third time", pool::killed),
    ("an opener that stands still costs one message, also while others are read", pool::frozen),
    ("an opener that was killed before costs nothing", pool::killed_before),
    ("an opener leaves it to its node to stop when all are asked to", pool::asked_to_stop),
    ("a question that nobody waits for any more ends its opener", pool::forgotten),
    ("no free opener, or none that starts, is nothing said of the message", pool::not_now),
    ("one client has its share of the openers, and the others have theirs", pool::fair),
    ("the clients of one site have half of the openers, and the others have theirs", pool::fair_to_sites),
    ("what cannot be started is tried again without mail", pool::tried_again),
    ("an opener is replaced after a thousand messages", pool::worn),
    ("a row of bad messages starts no more processes than there are places", pool::storm),
    ("openers end with their node, however it ends", family::orphans),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [opener::ARGUMENT] => opener::run(),
        ["bad", deed] => bad::opener(deed),
        ["shut", deed, canary] => shut::off(deed, canary),
        ["node"] => family::node(),
        _ => tests(&arguments),
    }
}

/// Runs those whose sentence has one of the words in it; flags are for other harnesses.
fn tests(arguments: &[String]) -> ExitCode {
    let words: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let chosen =
        TESTS.iter().filter(|(sentence, _)| words.is_empty() || words.iter().any(|word| sentence.contains(*word)));
    let mut failed = 0;
    for (sentence, test) in chosen {
        let is_well = std::panic::catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("{} {sentence}", if is_well { "ok    " } else { "FAILED" });
        failed += u8::from(!is_well);
    }
    ExitCode::from(failed)
}
