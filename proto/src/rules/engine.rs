//! Rules, ready to be asked about messages: compiled once, pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

pub use super::matcher::Found;
use super::{
    CONDITIONS_MAX, Condition, List, RULES_BYTES_MAX, RULES_MAX, Rule, RuleSet,
    content::{Content, Evidence},
    matcher::{Matcher, WITHOUT_LITERAL_MAX, work_of},
    pattern::{Pattern, WORK_MAX},
    place::{Evidenced, Place, Word},
};

/// Rules that are left out of which a warning tells.
const TOLD_MAX: usize = 5;
/// All patterns together, compiled, in bytes.
const COMPILED_BYTES_MAX: usize = 128 * 1024 * 1024;
/// All their literals, in bytes: what finds them takes up to a thousand times as much.
const LITERALS_BYTES_MAX: usize = 256 * 1024;

/// A rule that is not in force, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its place among the rules of the set.
    pub rule: usize,
    /// The condition that is to blame, when it is one.
    pub condition: Option<(List, usize)>,
    /// In words.
    pub problem: String,
}

/// What a condition asks of what was found.
#[derive(Clone, Debug)]
enum Asked {
    Pattern(usize),
    Evidence(Evidenced, Vec<Word>),
}

impl Asked {
    fn holds(&self, found: &Found, evidence: &Evidence) -> bool {
        match self {
            Self::Pattern(number) => found.has(*number),
            Self::Evidence(of, words) => words.contains(&evidence.of(*of)),
        }
    }
}

/// A rule of the set by its place, and its conditions.
#[derive(Clone, Debug)]
struct Ready {
    rule: usize,
    all: Vec<Asked>,
    any: Vec<Asked>,
    none: Vec<Asked>,
}

impl Ready {
    /// Patterns of which one must be found for it; `None` when it can hold without any.
    fn needed(&self) -> Option<Vec<usize>> {
        let pattern = |asked: &Asked| if let Asked::Pattern(number) = asked { Some(*number) } else { None };
        let of_all = self.all.iter().find_map(pattern).map(|one| vec![one]);
        of_all.or_else(|| self.any.iter().map(pattern).collect::<Option<Vec<_>>>().filter(|any| !any.is_empty()))
    }
}

/// All rules that can be used of a set.
#[derive(Clone, Default)]
pub struct Engine {
    set: Arc<RuleSet>,
    ready: Vec<Ready>,
    /// For each pattern those of `ready` that need it, and those that need none.
    of_pattern: Vec<Vec<usize>>,
    of_none: Vec<usize>,
    matchers: Vec<(Place, Matcher)>,
    left_out: Vec<LeftOut>,
}

/// Without the tables of the patterns.
impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({} rules in force, {} left out)", self.ready.len(), self.left_out.len())
    }
}

impl Engine {
    /// Compiles a set. What cannot be used is left out rule by rule, and told.
    #[must_use]
    pub fn new(set: Arc<RuleSet>) -> Self {
        let mut making = Making::default();
        let mut bytes_left = RULES_BYTES_MAX;
        for (at, rule) in set.rules.iter().enumerate() {
            let size = rule.size_bytes();
            let problem = (at >= RULES_MAX)
                .then(|| format!("{RULES_MAX} rules at most"))
                .or_else(|| (size > bytes_left).then(|| format!("{RULES_BYTES_MAX} bytes of rules at most")));
            match problem {
                Some(problem) => making.left_out.push(LeftOut { rule: at, condition: None, problem }),
                None => making.add(at, rule),
            }
            bytes_left = bytes_left.saturating_sub(size);
        }
        making.into_engine(set)
    }

    /// The set that it was made of.
    #[must_use]
    pub fn set(&self) -> &Arc<RuleSet> {
        &self.set
    }

    /// Rules that are not in force; none where all is well.
    #[must_use]
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// How many rules are in force, and how many are not.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 2] {
        let set = u64::try_from(self.set.rules.len()).unwrap_or(u64::MAX);
        let used = u64::try_from(self.ready.len()).unwrap_or(u64::MAX);
        [("in_force", used), ("left_out", set.saturating_sub(used))]
    }

    /// What is not in force, in words, when not all is.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let [(_, used), (_, gone)] = self.counts();
        let name = |one: &LeftOut| self.set.rules.get(one.rule).map_or("", |rule| rule.name.as_str()).to_owned();
        let told = self.left_out.iter().take(TOLD_MAX).map(|one| format!("{} ({})", name(one), one.problem));
        let told: Vec<String> = told.collect();
        (gone > 0)
            .then(|| format!("{gone} of {} rules of the policy are not in force: {}", used + gone, told.join(", ")))
    }

    /// Rules that are in force.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.ready.iter().filter_map(|ready| self.set.rules.get(ready.rule))
    }

    /// Places that are to be filled before [`Engine::search`].
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.matchers.iter().map(|(place, _)| place)
    }

    /// Looks for all patterns in a message.
    #[must_use]
    pub fn search(&self, content: &Content) -> Found {
        let mut found = Found::nothing(self.of_pattern.len());
        for (place, matcher) in &self.matchers {
            matcher.search(content.of(place), &mut found);
        }
        found
    }

    /// Rules that hold, in their order, by what [`Engine::search`] found and what the checks say.
    pub fn holding<'e>(&'e self, found: &'e Found, evidence: &'e Evidence) -> impl Iterator<Item = &'e Rule> {
        let holds = move |asked: &Asked| asked.holds(found, evidence);
        let of_found = found.all().iter().filter_map(|pattern| self.of_pattern.get(*pattern)).flatten();
        let asked: BTreeSet<usize> = of_found.chain(&self.of_none).copied().collect();
        let holding = asked.into_iter().filter_map(|at| self.ready.get(at)).filter(move |rule| {
            rule.all.iter().all(holds)
                && (rule.any.is_empty() || rule.any.iter().any(holds))
                && !rule.none.iter().any(holds)
        });
        holding.filter_map(|ready| self.set.rules.get(ready.rule))
    }
}

/// An engine that is being made.
#[derive(Default)]
struct Making {
    ready: Vec<Ready>,
    left_out: Vec<LeftOut>,
    numbers: HashMap<(Place, String), usize>,
    patterns: BTreeMap<Place, Vec<(usize, Pattern)>>,
    bytes: usize,
    literal_bytes: usize,
}

impl Making {
    fn add(&mut self, at: usize, rule: &Rule) {
        let before = self.left_out.len();
        if rule.conditions().count() > CONDITIONS_MAX {
            let problem = format!("{CONDITIONS_MAX} conditions at most");
            self.left_out.push(LeftOut { rule: at, condition: None, problem });
        } else if rule.all.is_empty() && rule.any.is_empty() {
            let problem = "nothing must hold for it: all or any is needed".to_owned();
            self.left_out.push(LeftOut { rule: at, condition: None, problem });
        }
        let mut ready = Ready { rule: at, all: Vec::new(), any: Vec::new(), none: Vec::new() };
        for (list, place, condition) in rule.conditions().take(CONDITIONS_MAX) {
            match self.ask(condition) {
                Ok(asked) => match list {
                    List::All => ready.all.push(asked),
                    List::Any => ready.any.push(asked),
                    List::None => ready.none.push(asked),
                },
                Err(problem) => self.left_out.push(LeftOut { rule: at, condition: Some((list, place)), problem }),
            }
        }
        if self.left_out.len() == before {
            self.ready.push(ready);
        }
    }

    fn ask(&mut self, Condition { field, value }: &Condition) -> Result<Asked, String> {
        if let Some(of) = Evidenced::of(field) {
            return Ok(Asked::Evidence(of, of.parse(value)?));
        }
        let (place, text) = Place::parse(field, value)?;
        let key = (place, text.to_owned());
        if let Some(number) = self.numbers.get(&key) {
            return Ok(Asked::Pattern(*number));
        }
        let (place, _) = &key;
        let pattern = Pattern::new(text, place)?;
        if self.bytes + pattern.bytes() > COMPILED_BYTES_MAX {
            return Err(format!("all patterns together take more than {COMPILED_BYTES_MAX} bytes when compiled"));
        }
        if self.literal_bytes + pattern.literal_bytes() > LITERALS_BYTES_MAX {
            return Err(format!("the fixed texts of all patterns together are longer than {LITERALS_BYTES_MAX} bytes"));
        }
        self.bytes += pattern.bytes();
        self.literal_bytes += pattern.literal_bytes();
        let (number, others) = (self.numbers.len(), self.patterns.entry(place.clone()).or_default());
        others.push((number, pattern));
        let without = others.iter().filter(|(_, pattern)| pattern.literals.is_empty()).count();
        if without > WITHOUT_LITERAL_MAX || work_of(others, place) > WORK_MAX / 4 {
            others.pop();
            return Err(format!(
                "at most {WITHOUT_LITERAL_MAX} short patterns of one field may be without three letters that are always there: each \
                 is tried on each message"
            ));
        }
        self.numbers.insert(key, number);
        Ok(Asked::Pattern(number))
    }

    fn into_engine(mut self, set: Arc<RuleSet>) -> Engine {
        let mut matchers = Vec::new();
        let all = std::mem::take(&mut self.patterns);
        for (place, patterns) in all {
            let numbers: Vec<usize> = patterns.iter().map(|(number, _)| *number).collect();
            match Matcher::new(patterns) {
                Ok(matcher) => matchers.push((place, matcher)),
                Err(problem) => self.leave_out_all(&numbers, &problem),
            }
        }
        let Self { ready, mut left_out, numbers, .. } = self;
        left_out.sort_by_key(|one| one.rule);
        let (mut of_pattern, mut of_none) = (vec![Vec::new(); numbers.len()], Vec::new());
        for (at, rule) in ready.iter().enumerate() {
            match rule.needed() {
                Some(patterns) => {
                    for pattern in patterns {
                        of_pattern.get_mut(pattern).into_iter().for_each(|rules: &mut Vec<usize>| rules.push(at));
                    }
                }
                None => of_none.push(at),
            }
        }
        Engine { set, ready, of_pattern, of_none, matchers, left_out }
    }

    /// Leaves out the rules that ask for any of these patterns.
    fn leave_out_all(&mut self, numbers: &[usize], problem: &str) {
        let asks = |asked: &Asked| matches!(asked, Asked::Pattern(number) if numbers.contains(number));
        let (gone, stays) = std::mem::take(&mut self.ready)
            .into_iter()
            .partition(|rule: &Ready| rule.all.iter().chain(&rule.any).chain(&rule.none).any(asks));
        self.ready = stays;
        let gone: Vec<Ready> = gone;
        self.left_out.extend(gone.iter().map(|ready| LeftOut {
            rule: ready.rule,
            condition: None,
            problem: problem.to_owned(),
        }));
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
