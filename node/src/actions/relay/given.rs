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
    /// Who cannot have the message from the last hop that was asked, and why: it offers too little.
    unfit: Vec<Option<Reply>>,
    /// What failed last of what may work another time.
    failed: Option<Reply>,
    problem: Reply,
    committed: bool,
}

impl Given {
    /// Nobody has anything; `problem` holds while nothing else is known.
    pub(super) fn nothing(recipients: usize, problem: Reply) -> Self {
        let (answers, postponed) = (vec![None; recipients], vec![None; recipients]);
        let unfit = vec![None; recipients];
        Self { answers, postponed, sent: vec![false; recipients], unfit, failed: None, problem, committed: false }
    }

    /// The recipients without a final answer.
    pub(super) fn open(&self) -> Vec<usize> {
        (0..self.answers.len()).filter(|&at| self.answers[at].is_none()).collect()
    }

    pub(super) fn has_open(&self) -> bool {
        self.answers.iter().any(Option::is_none)
    }

    /// Whether somebody is open whom the last hop could have had the message for.
    pub(super) fn has_open_unless_unfit(&self) -> bool {
        self.answers.iter().zip(&self.unfit).any(|(answer, unfit)| answer.is_none() && unfit.is_none())
    }

    /// Puts down whether a hop can have the message for one, and why not; true when it can. Another hop may be fit.
    pub(super) fn fits(&mut self, at: usize, why_not: Option<Reply>) -> bool {
        self.unfit[at] = why_not;
        self.unfit[at].is_none()
    }

    /// No hop like this one can have the message for any who is open.
    pub(super) fn all_unfit(&mut self, reply: &Reply) {
        for at in self.open() {
            self.unfit[at] = Some(reply.clone());
        }
    }

    /// A hop that may work another time did not: then nobody is refused because the others offer too little.
    pub(super) fn failed(&mut self, problem: Reply) {
        self.failed = Some(problem.clone());
        self.deferred(problem);
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
        let Self { answers, postponed, sent, unfit, failed, problem, .. } = self;
        let open = |own: Option<Reply>, sent: bool, unfit: Option<Reply>| match (own, unfit, &failed) {
            _ if sent => Handed::Unknown(problem.clone()),
            (Some(own), _, _) => Handed::Deferred(own),
            (None, Some(unfit), None) => Handed::Refused(unfit),
            (None, Some(_), Some(failed)) => Handed::Deferred(failed.clone()),
            (None, None, _) => Handed::Deferred(problem.clone()),
        };
        let known = answers.into_iter().zip(postponed).zip(sent).zip(unfit);
        known.map(|(((answer, own), sent), unfit)| answer.unwrap_or_else(|| open(own, sent, unfit))).collect()
    }
}
