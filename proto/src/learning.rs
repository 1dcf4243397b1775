//! What is learnt of mail that people have sorted: hashed features, and a weight for each. A cluster learns a model of its own from
//! lessons; this is what its servers and nodes say to each other of it.

pub mod features;
pub mod lesson;
pub mod model;
pub mod training;
pub mod trial;

use serde::{Deserialize, Serialize};

use crate::{held::BodyRef, time::UnixMs};

/// Largest file of a model, in bytes.
pub const MODEL_BYTES_MAX: u64 = 260 * 1024;
/// Lessons that a report may carry.
pub const REPORT_LESSONS_MAX: usize = 50;

/// The cluster's own model, as nodes are told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learnt {
    /// Counts how often it was replaced or forgotten.
    pub version: u64,
    /// Its file; none while nothing is in use.
    pub body: Option<BodyRef>,
}

/// When and from how much a cluster learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearningRules {
    /// Whether it learns at all, and uses what it has learnt.
    pub enabled: bool,
    /// Lessons of either kind that are needed.
    pub lessons_min: u32,
    /// From one attempt to the next, in milliseconds.
    pub every_ms: u64,
}

impl Default for LearningRules {
    fn default() -> Self {
        Self { enabled: true, lessons_min: 20, every_ms: 60 * 60 * 1000 }
    }
}

/// What came of learning once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Log time.
    pub at: UnixMs,
    /// The control server that learnt.
    pub by: String,
    /// What the trial came to.
    pub figures: trial::Figures,
}
