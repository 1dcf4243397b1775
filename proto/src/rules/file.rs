//! Reads rules out of YAML, and tries them on the samples that stand beside them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    Condition, Content, EVIDENCE, Evidence, Evidenced, GROUP, List, NAME_BEGIN, NAME_CHARS_MAX, PLACES, POINTS_MAX,
    Place, RULES_BYTES_MAX, Rule, RuleSet, TEXT_CHARS_MAX,
    engine::{Engine, LeftOut},
    is_group, is_name,
};
use crate::{
    score::Score,
    yaml::{Fault, Map, Node},
};

/// Most samples of one rule, of either sort.
const SAMPLES_MAX: usize = 50;
/// All samples of all rules together, in bytes.
const SAMPLES_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What could be read of one file, or of several.
#[derive(Debug, Default)]
pub struct Drafts {
    rules: Vec<Draft>,
    caps: Vec<(String, Score, Fault)>,
}

#[derive(Debug)]
struct Draft {
    rule: Rule,
    /// Where it begins; no problem yet.
    place: Fault,
    conditions: HashMap<(List, usize), Fault>,
    samples: Vec<Sample>,
}

/// What a rule must hold for, or must not.
#[derive(Debug)]
struct Sample {
    holds: bool,
    fields: Vec<(&'static str, String)>,
    place: Fault,
}

impl Drafts {
    /// Takes in what another file says.
    pub fn add(&mut self, other: Self) {
        self.rules.extend(other.rules);
        self.caps.extend(other.caps);
    }

    /// All rules, compiled and tried on their samples.
    ///
    /// # Errors
    /// Each fault at its place.
    pub fn checked(self) -> Result<RuleSet, Vec<Fault>> {
        let mut faults = self.doubled();
        let caps: BTreeMap<String, Score> = self.caps.into_iter().map(|(group, cap, _)| (group, cap)).collect();
        let rules = self.rules.iter().map(|draft| draft.rule.clone()).collect();
        let set = Arc::new(RuleSet { rules, caps });
        if let Some(draft) = self.rules.last().filter(|_| set.size_bytes() > RULES_BYTES_MAX) {
            faults.push(Fault { problem: format!("{RULES_BYTES_MAX} bytes of rules at most"), ..draft.place.clone() });
        }
        let engine = Engine::new(set);
        for LeftOut { rule, condition, problem } in engine.left_out() {
            let Some(draft) = self.rules.get(*rule) else { continue };
            let place = condition.as_ref().and_then(|condition| draft.conditions.get(condition));
            faults.push(Fault { problem: problem.clone(), ..place.unwrap_or(&draft.place).clone() });
        }
        let mut bytes_left = SAMPLES_BYTES_MAX;
        for (at, draft) in self.rules.iter().enumerate() {
            let bytes: usize = draft.samples.iter().flat_map(|sample| &sample.fields).map(|(_, text)| text.len()).sum();
            let Some(left) = bytes_left.checked_sub(bytes) else {
                let problem = format!("the samples of all rules together are longer than {SAMPLES_BYTES_MAX} bytes");
                faults.push(Fault { problem, ..draft.place.clone() });
                break;
            };
            bytes_left = left;
            // A rule that is left out has its fault already.
            if engine.left_out().iter().all(|out| out.rule != at) {
                faults.extend(draft.tried());
            }
        }
        if faults.is_empty() { Ok(RuleSet::clone(engine.set())) } else { Err(faults) }
    }

    fn doubled(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut first: HashMap<&str, &Fault> = HashMap::new();
        for draft in &self.rules {
            if let Some(other) = first.get(draft.rule.name.as_str()) {
                let problem = format!("{} is already a rule in {}:{}", draft.rule.name, other.file, other.line);
                faults.push(Fault { problem, ..draft.place.clone() });
            } else {
                first.insert(&draft.rule.name, &draft.place);
            }
        }
        let mut groups: HashMap<&str, &Fault> = HashMap::new();
        for (group, _, place) in &self.caps {
            if self.rules.iter().all(|draft| draft.rule.group != *group) {
                faults.push(Fault { problem: format!("no rule is in the group {group}"), ..place.clone() });
            }
            if let Some(other) = groups.get(group.as_str()) {
                let problem = format!("the cap of {group} is already in {}:{}", other.file, other.line);
                faults.push(Fault { problem, ..place.clone() });
            } else {
                groups.insert(group, place);
            }
        }
        faults
    }
}

impl Draft {
    /// Faults of samples that do not do what they say.
    fn tried(&self) -> Vec<Fault> {
        let alone = RuleSet { rules: vec![self.rule.clone()], caps: BTreeMap::new() };
        let engine = if self.samples.is_empty() { Engine::default() } else { Engine::new(Arc::new(alone)) };
        let mut faults = Vec::new();
        for sample in &self.samples {
            let problem = match (sample.tried(&engine), sample.holds) {
                (Err(problem), _) => problem,
                (Ok(true), false) => format!("{} holds for this sample, and must not", self.rule.name),
                (Ok(false), true) => format!("{} does not hold for this sample", self.rule.name),
                (Ok(true), true) | (Ok(false), false) => continue,
            };
            faults.push(Fault { problem, ..sample.place.clone() });
        }
        faults
    }
}

impl Sample {
    /// Whether the rule of the engine holds for it.
    fn tried(&self, engine: &Engine) -> Result<bool, String> {
        let (mut content, mut evidence) = (Content::default(), Evidence::default());
        for (field, text) in &self.fields {
            if let Some(of) = Evidenced::of(field) {
                of.parse(text)?;
                evidence.set(of, text);
            } else {
                let (place, text) = Place::parse(field, text)?;
                content.add(&place, text);
            }
        }
        let found = engine.search(&content);
        if found.is_cut {
            return Err("it takes too much work".to_owned());
        }
        Ok(engine.holding(&found, &evidence).next().is_some())
    }
}

/// The file.
pub fn file(map: &mut Map<'_, '_>) -> Drafts {
    let caps = map.sections("groups", |group| {
        let place = group.place();
        let name = group.required("name", group_name);
        let cap = group.required("cap", |node| points(node, Score::ZERO));
        Some((name?, cap?, place))
    });
    let rules = map.sections("rules", draft);
    Drafts {
        rules: rules.into_iter().flatten().flatten().collect(),
        caps: caps.into_iter().flatten().flatten().collect(),
    }
}

fn draft(map: &mut Map<'_, '_>) -> Option<Draft> {
    let place = map.place();
    let name = map.required("name", |node| node.parsed(rule_name));
    let score = map.required("score", |node| points(node, Score(-POINTS_MAX.0)));
    let text = map.required("text", |node| node.parsed(words));
    let group = map.optional("group", group_name).unwrap_or_else(|| GROUP.to_owned());
    let mut conditions = HashMap::new();
    let mut all = Vec::new();
    // A simple rule has its condition in itself.
    for (condition, place) in condition(map) {
        conditions.insert((List::All, all.len()), place);
        all.push(condition);
    }
    let mut list = |key, list| {
        let read = map.sections(key, |one| {
            let found = condition(one);
            if found.len() != 1 {
                one.fault(format!("one condition is expected: {}", fields().collect::<Vec<_>>().join(", ")));
            }
            found.into_iter().next()
        });
        let mut read_conditions = Vec::new();
        for (condition, place) in read.into_iter().flatten().flatten() {
            let before = if list == List::All { all.len() } else { 0 };
            conditions.insert((list, before + read_conditions.len()), place);
            read_conditions.push(condition);
        }
        read_conditions
    };
    let (of_all, any, none) = (list("all", List::All), list("any", List::Any), list("none", List::None));
    all.extend(of_all);
    let rule = Rule { name: name?, group, score: score?, text: text?, all, any, none };
    let samples = samples(map, &rule);
    Some(Draft { rule, place, conditions, samples })
}

/// Everything that a condition or a sample can name.
fn fields() -> impl Iterator<Item = &'static str> {
    PLACES.into_iter().chain(EVIDENCE.into_iter().map(|(word, _)| word))
}

/// The conditions that a mapping names, each with its place.
fn condition(map: &mut Map<'_, '_>) -> Vec<(Condition, Fault)> {
    let mut found = Vec::new();
    for field in PLACES {
        let read = map.optional(field, |node| Ok((node.text()?, node.fault(""))));
        found.extend(read.map(|(value, place)| (Condition { field: field.to_owned(), value }, place)));
    }
    for (field, _) in EVIDENCE {
        let read = map.one_or_more(field, |node| Ok((node.text()?, node.fault(""))));
        let Some((words, places)) = read.map(|read| read.into_iter().unzip::<_, _, Vec<String>, Vec<Fault>>()) else {
            continue;
        };
        let place = places.into_iter().next().unwrap_or_else(|| map.place());
        found.push((Condition { field: field.to_owned(), value: words.join(" ") }, place));
    }
    found
}

fn samples(map: &mut Map<'_, '_>, rule: &Rule) -> Vec<Sample> {
    let mut samples = Vec::new();
    let only = only_field(rule);
    for (key, holds) in [("match", true), ("no_match", false)] {
        let read = map.texts_or_sections(
            key,
            |node| {
                let field = only.ok_or_else(|| {
                    node.fault("the rule looks at more than one field: a sample names them, such as {subject: text}")
                })?;
                Ok(Sample { holds, fields: vec![(field, node.text()?)], place: node.fault("") })
            },
            |sample| {
                let place = sample.place();
                let mut named = Vec::new();
                for field in fields() {
                    let texts = sample.one_or_more(field, Node::text).unwrap_or_default();
                    named.extend(texts.into_iter().map(|text| (field, text)));
                }
                Sample { holds, fields: named, place }
            },
        );
        let read = read.unwrap_or_default();
        if read.len() > SAMPLES_MAX {
            map.fault(format!("{key}: {SAMPLES_MAX} samples at most"));
        }
        samples.extend(read.into_iter().take(SAMPLES_MAX));
    }
    samples
}

/// The field that a rule looks at when it is one.
fn only_field(rule: &Rule) -> Option<&'static str> {
    let mut named = rule.conditions().map(|(_, _, condition)| condition.field.as_str());
    let first = named.next()?;
    if named.any(|other| other != first) {
        return None;
    }
    fields().find(|field| *field == first)
}

fn rule_name(text: &str) -> Result<String, String> {
    let wanted = || {
        format!(
            "a name of at most {NAME_CHARS_MAX} upper-case letters, digits and _ that begins with {NAME_BEGIN} is expected: names \
             without it are those of Postern"
        )
    };
    if is_name(text) { Ok(text.to_owned()) } else { Err(wanted()) }
}

fn group_name(node: &Node<'_, '_>) -> Result<String, Fault> {
    node.parsed(|text| {
        let wanted = || format!("a name of at most {NAME_CHARS_MAX} lower-case letters, digits, _ and - is expected");
        if is_group(text) { Ok(text.to_owned()) } else { Err(wanted()) }
    })
}

fn words(text: &str) -> Result<String, String> {
    let chars = text.chars().count();
    if text.trim().is_empty() || chars > TEXT_CHARS_MAX || text.chars().any(char::is_control) {
        return Err(format!("1 to {TEXT_CHARS_MAX} characters without control characters are expected"));
    }
    Ok(text.to_owned())
}

fn points(node: &Node<'_, '_>, least: Score) -> Result<Score, Fault> {
    let score = Score(node.hundredths()?);
    if (least..=POINTS_MAX).contains(&score) {
        return Ok(score);
    }
    Err(node.fault(format!("points from {least} to {POINTS_MAX} are expected")))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
