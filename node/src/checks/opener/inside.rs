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
    while let Some(question) = question(&mut input)? {
        let answer = catch_unwind(AssertUnwindSafe(|| answer(question)));
        say(&mut output, &answer.unwrap_or(Said::BrokeOff))?;
    }
    Ok(())
}

/// The next question; `None` when there are no more.
fn question(input: &mut impl Read) -> io::Result<Option<Question>> {
    let mut head = [0; 4];
    match input.read_exact(&mut head) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = length_of(head, QUESTION_BYTES_MAX).ok_or(ErrorKind::InvalidData)?;
    let mut encoded = vec![0; length];
    input.read_exact(&mut encoded)?;
    codec::decode("question", &encoded).map(Some).map_err(io::Error::other)
}

fn answer(Question { parts, unwanted }: Question) -> Said {
    Said::Found(attachments::analyse_parts(&parts, &unwanted))
}

fn say(output: &mut impl Write, word: &Said) -> io::Result<()> {
    output.write_all(&framed(word).ok_or(ErrorKind::InvalidData)?)?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::{
        super::frame::{QUESTION_BYTES_MAX, Question, framed},
        serve,
    };
    use crate::checks::attachments::Unwanted;

    #[test]
    fn each_question_has_an_answer_and_the_end_of_the_input_is_no_error() {
        let question = framed(&Question { parts: Vec::new(), unwanted: Unwanted::default() }).expect("short");
        let mut answers = Vec::new();
        serve(&question.repeat(3)[..], &mut answers).expect("it ends well");
        assert_eq!(answers.windows(5).filter(|words| *words == b"Found").count(), 3);
        serve(&b""[..], &mut answers).expect("nothing is asked");
    }

    #[test]
    fn what_is_no_question_ends_it() {
        let too_long = u32::try_from(QUESTION_BYTES_MAX + 1).expect("it fits").to_be_bytes();
        for nonsense in [&too_long[..], b"\0\0\0\x01", b"\0\0\0\x05noise"] {
            assert!(serve(nonsense, Vec::new()).is_err(), "{nonsense:?}");
        }
    }
}
