//! What each recipient has been given so far, over all next hops that were tried. Pure.

use super::Handed;
use crate::smtp::reply::Reply;

/// The answers in the order of the recipients.
#[derive(Debug)]
pub(super) struct Given {
    answers: Vec<Option<Handed>>,
    /// For recipients without an answer of their own: what the last hop said to each, and what became of it.
    postponed: Vec<Option<Reply>>,
    /// Who may have the message already: a hop had promised to take it for them, and it was sent to its end.
    sent: Vec<bool>,
    problem: Reply,
    committed: bool,
}

impl Given {
    /// Nobody has anything; `problem` holds while nothing else is known.
    pub(super) fn nothing(recipients: usize, problem: Reply) -> Self {
        let (answers, postponed) = (vec![None; recipients], vec![None; recipients]);
        Self { answers, postponed, sent: vec![false; recipients], problem, committed: false }
    }

    /// The recipients without a final answer.
    pub(super) fn open(&self) -> Vec<usize> {
        (0..self.answers.len()).filter(|&at| self.answers[at].is_none()).collect()
    }

    pub(super) fn has_open(&self) -> bool {
        self.answers.iter().any(Option::is_none)
    }

    /// The final answer for one.
    pub(super) fn answer(&mut self, at: usize, handed: Handed) {
        self.answers[at] = Some(handed);
    }

    /// One was told to come back; another hop may still take it.
    pub(super) fn postpone(&mut self, at: usize, reply: Reply) {
        self.problem = reply.clone();
        self.postponed[at] = Some(reply);
    }

    /// Refused for good for each who is open.
    pub(super) fn refused(&mut self, reply: &Reply) {
        for at in self.open() {
            self.answer(at, Handed::Refused(reply.clone()));
        }
    }

    /// What holds from now on for each who is open and has not been told anything of its own.
    pub(super) fn deferred(&mut self, problem: Reply) {
        self.problem = problem;
    }

    pub(super) fn problem(&self) -> Reply {
        self.problem.clone()
    }

    /// A hop may have the message: trying another could deliver it twice.
    pub(super) fn committed(&mut self) {
        self.committed = true;
    }

    /// The end of the message goes out for these: from now on only the hop's answer tells whether it has it.
    pub(super) fn sent(&mut self, to: &[usize]) {
        for &at in to {
            self.sent[at] = true;
        }
    }

    pub(super) fn is_sent(&self) -> bool {
        self.sent.contains(&true)
    }

    pub(super) fn is_committed(&self) -> bool {
        self.committed
    }

    /// The answers; whoever has none is deferred, or nobody knows whether the message arrived.
    pub(super) fn finish(self) -> Vec<Handed> {
        let Self { answers, postponed, sent, problem, .. } = self;
        let open = |own: Option<Reply>, sent: bool| {
            if sent {
                Handed::Unknown(problem.clone())
            } else {
                Handed::Deferred(own.unwrap_or_else(|| problem.clone()))
            }
        };
        let known = answers.into_iter().zip(postponed).zip(sent);
        known.map(|((answer, own), sent)| answer.unwrap_or_else(|| open(own, sent))).collect()
    }
}
