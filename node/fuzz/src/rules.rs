//! Rules that people write, and texts that they are tried on.

use std::sync::Arc;

use proto::{
    codec,
    rules::{
        Content, Evidence, RuleSet,
        engine::Engine,
        file::{self, Drafts},
    },
    yaml,
};

/// A rule file, a NUL, and a text that each field of a message is made of.
///
/// # Panics
/// When a fault stands where there is no line, when what was read well is not used whole, or is not after it was stored, or when a
/// rule holds among others and not alone.
pub fn rules(input: &[u8]) {
    let (text, letter) = input.split_at(input.iter().position(|byte| *byte == 0).unwrap_or(input.len()));
    let (text, letter) = (String::from_utf8_lossy(text), String::from_utf8_lossy(letter));
    let Some(set) = read(&text) else { return };
    let stored: RuleSet = codec::decode("rules", &codec::encode(&set)).expect("what was encoded is decoded");
    assert_eq!(stored, set);
    let all = Engine::new(Arc::new(stored));
    assert_eq!(all.left_out(), [], "a file without faults is in force");
    let together = holding(&all, &letter);
    for rule in &set.rules {
        let alone = Engine::new(Arc::new(RuleSet { rules: vec![rule.clone()], ..RuleSet::default() }));
        let alone = holding(&alone, &letter);
        if let Some((together, alone)) = together.as_ref().zip(alone) {
            assert_eq!(together.contains(&rule.name), alone.contains(&rule.name), "{rule:?}");
        }
    }
}

/// The rules, when there is no fault in them.
fn read(text: &str) -> Option<RuleSet> {
    let mut drafts = Drafts::default();
    let faults = yaml::read("rules.yaml", text, |map| drafts = file::file(map)).err();
    let checked = drafts.checked();
    let faults =
        faults.into_iter().flat_map(|faults| faults.0).chain(checked.as_ref().err().into_iter().flatten().cloned());
    // A line of YAML may end with CR alone (YAML 1.2.2 section 5.4).
    let lines = text.split(['\n', '\r']).count() + 1;
    let mut is_well = true;
    for fault in faults {
        assert!((1..=lines).contains(&fault.line) && !fault.problem.is_empty(), "{fault} of {lines} lines");
        is_well = false;
    }
    checked.ok().filter(|_| is_well)
}

/// Names of the rules that hold for a text in each place; `None` when that is too much work.
fn holding(engine: &Engine, letter: &str) -> Option<Vec<String>> {
    let mut content = Content::default();
    for place in engine.places() {
        letter.split('\u{1}').for_each(|text| content.add(place, text));
    }
    let found = engine.search(&content);
    (!found.is_cut).then(|| engine.holding(&found, &Evidence::default()).map(|rule| rule.name.clone()).collect())
}
