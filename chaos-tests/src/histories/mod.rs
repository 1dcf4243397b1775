//! Whether what clients were told about an object could have come from that object alone in one place, each operation at one
//! instant between its request and its answer: linearizability, by the search of Wing and Gong with Lowe's memory of what was
//! tried (Lowe, "Testing for linearizability", 2017).

pub mod held;
pub mod policy;

use std::{collections::HashSet, fmt::Debug, hash::Hash};

use crate::oracle::Told;

/// States that are looked at before a history counts as undecided.
const STATES_MAX: usize = 2_000_000;

/// What an object does when one operation comes after the other.
pub trait Spec {
    /// All there is to know about it.
    type State: Clone + Debug + Eq + Hash;
    /// What it is asked for.
    type Op: Clone + Debug;
    /// What it answers.
    type Answer: Clone + Debug + PartialEq;

    /// The state after an operation, and its answer.
    fn step(state: &Self::State, op: &Self::Op) -> (Self::State, Self::Answer);
}

/// All that clients were told about one object.
#[derive(Clone, Debug)]
pub struct History<S: Spec> {
    /// Names the object.
    pub object: String,
    /// How it began.
    pub initial: S::State,
    /// In any order.
    pub told: Vec<Told<S::Op, S::Answer>>,
}

/// What a check comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none; the text shows the history and how far it can be explained.
    Violated(String),
    /// The search was given up: not a pass.
    Undecided(String),
}

/// Which operations have taken effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Taken(Vec<u64>);

impl Taken {
    fn none(of: usize) -> Self {
        Self(vec![0; of.div_ceil(64)])
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }

    fn with(&self, at: usize) -> Self {
        let mut taken = self.clone();
        taken.0[at / 64] |= 1 << (at % 64);
        taken
    }
}

impl<S: Spec> History<S> {
    /// Looks for an order.
    #[must_use]
    pub fn judge(&self) -> Judgement {
        self.judge_within(STATES_MAX)
    }

    fn judge_within(&self, states_max: usize) -> Judgement {
        let answered = self.told.iter().filter(|told| told.answer.is_some()).count();
        let start = (Taken::none(self.told.len()), self.initial.clone(), 0);
        let mut seen = HashSet::from([(start.0.clone(), start.1.clone())]);
        let mut open = vec![start];
        let (mut furthest, mut furthest_taken) = (0, Taken::none(self.told.len()));
        while let Some((taken, state, explained)) = open.pop() {
            if explained == answered {
                return Judgement::Linearizable;
            }
            if explained > furthest {
                (furthest, furthest_taken) = (explained, taken.clone());
            }
            if seen.len() > states_max {
                return Judgement::Undecided(format!("{}: more than {states_max} states", self.object));
            }
            // Nothing that began after an answer may come before what was answered.
            let waiting = || self.told.iter().enumerate().filter(|(at, _)| !taken.has(*at));
            let first_answer = waiting().filter(|(_, told)| told.answer.is_some()).map(|(_, told)| told.to.tick).min();
            let now = waiting().filter(|(_, told)| first_answer.is_none_or(|first| told.from.tick < first));
            for (at, told) in now {
                let (after, answer) = S::step(&state, &told.op);
                let explained = match &told.answer {
                    Some(told) if *told == answer => explained + 1,
                    Some(_) => continue,
                    // One without an effect explains nothing.
                    None if after == state => continue,
                    None => explained,
                };
                let next = (taken.with(at), after);
                if seen.insert(next.clone()) {
                    open.push((next.0, next.1, explained));
                }
            }
        }
        Judgement::Violated(self.shown(&furthest_taken, furthest, answered))
    }

    fn shown(&self, taken: &Taken, explained: usize, answered: usize) -> String {
        let mut lines: Vec<(u64, String)> = self
            .told
            .iter()
            .enumerate()
            .map(|(at, told)| {
                let mark = if taken.has(at) { ' ' } else { '!' };
                (told.from.tick, format!("{mark} {told}"))
            })
            .collect();
        lines.sort();
        let lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
        format!(
            "{} began as {:?}; no order explains more than {explained} of {answered} answers (! is not explained):\n{}",
            self.object,
            self.initial,
            lines.join("\n")
        )
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::{History, Judgement, Spec};
    use crate::oracle::{Moment, Told};

    /// A register that can be written and read.
    struct Register;

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Write(u32),
        Read,
    }

    impl Spec for Register {
        type State = u32;
        type Op = Op;
        type Answer = u32;

        fn step(state: &u32, op: &Op) -> (u32, u32) {
            match op {
                Op::Write(value) => (*value, *value),
                Op::Read => (*state, *state),
            }
        }
    }

    /// An operation from tick `from` to tick `to`.
    pub(crate) fn told<Op, Answer>(from: u64, to: u64, op: Op, answer: Option<Answer>) -> Told<Op, Answer> {
        let moment = |tick| Moment { tick, at: Duration::from_millis(tick) };
        Told { server: 0, op, from: moment(from), to: moment(to), answer }
    }

    fn history(told: Vec<Told<Op, u32>>) -> History<Register> {
        History { object: "a register".into(), initial: 0, told }
    }

    #[test]
    fn a_read_while_a_write_is_under_way_may_see_either_value() {
        for seen in [0, 1] {
            let all = vec![told(1, 4, Op::Write(1), Some(1)), told(2, 3, Op::Read, Some(seen))];
            assert_eq!(history(all).judge(), Judgement::Linearizable);
        }
    }

    #[test]
    fn a_stale_read_is_found() {
        let all = vec![told(1, 2, Op::Write(1), Some(1)), told(3, 4, Op::Read, Some(0))];
        let Judgement::Violated(text) = history(all).judge() else { panic!("it passed") };
        assert!(text.contains("! ") && text.contains("Read -> 0"), "{text}");
    }

    #[test]
    fn two_reads_may_not_see_a_value_come_and_go() {
        let reads = [(5, 6, 1), (7, 8, 0)].map(|(from, to, seen)| told(from, to, Op::Read, Some(seen)));
        let all = [told(1, 9, Op::Write(1), Some(1))].into_iter().chain(reads).collect();
        assert!(matches!(history(all).judge(), Judgement::Violated(_)));
    }

    #[test]
    fn an_unknown_write_may_take_effect_late_or_never_but_not_before_it_was_sent() {
        let unknown = || told(3, 4, Op::Write(7), None);
        let read = |from, seen| told(from, from + 1, Op::Read, Some(seen));
        assert_eq!(history(vec![unknown(), read(5, 0), read(90, 7)]).judge(), Judgement::Linearizable);
        assert_eq!(history(vec![unknown(), read(5, 0)]).judge(), Judgement::Linearizable);
        assert!(matches!(history(vec![read(1, 7), unknown()]).judge(), Judgement::Violated(_)));
        assert!(matches!(history(vec![unknown(), read(5, 7), read(7, 0)]).judge(), Judgement::Violated(_)));
    }

    #[test]
    fn a_search_that_is_given_up_is_no_pass() {
        let all = (0..20).map(|value| told(1, 100, Op::Write(value), Some(value))).collect();
        assert!(matches!(history(all).judge_within(5), Judgement::Undecided(_)));
    }
}
