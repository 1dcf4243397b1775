//! The opener's side: it shuts itself off and answers questions until there are no more.

use std::{
    io::{self, ErrorKind, Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use proto::codec;

use super::{
    confine::{Confined, confine},
    frame::{QUESTION_BYTES_MAX, Question, Said, framed, length_of},
};
use crate::checks::attachments;

/// What a process does that was started as an opener: it ends when its standard input does, and with it the node.
#[must_use]
pub fn run() -> ExitCode {
    // What a panic says may quote mail, and nobody reads it here.
    std::panic::set_hook(Box::new(|_| {}));
    let mut output = io::stdout().lock();
    let ready = match confine() {
        Ok(Confined { landlock }) => Said::Ready { landlock },
        Err(error) => Said::Unfit(error.to_string()),
    };
    let is_ready = matches!(ready, Said::Ready { .. });
    let said = say(&mut output, &ready);
    if is_ready && said.is_ok() && serve(io::stdin().lock(), output).is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Answers each question, to the end of the input.
fn serve(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    loop {
        let mut head = [0; 4];
        match input.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let length = length_of(head, QUESTION_BYTES_MAX).ok_or(ErrorKind::InvalidData)?;
        let mut question = vec![0; length];
        input.read_exact(&mut question)?;
        let question = codec::decode("question", &question).map_err(io::Error::other)?;
        let answer = catch_unwind(AssertUnwindSafe(|| answer(question)));
        say(&mut output, &answer.unwrap_or(Said::BrokeOff))?;
    }
}

fn answer(Question { parts, fingerprints }: Question) -> Said {
    Said::Found(attachments::analyse_parts(&parts, &fingerprints))
}

fn say(output: &mut impl Write, word: &Said) -> io::Result<()> {
    output.write_all(&framed(word).ok_or(ErrorKind::InvalidData)?)?;
    output.flush()
}
