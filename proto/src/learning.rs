//! What is learnt of mail that people have sorted: hashed features, and a weight for each.

pub mod features;
pub mod model;
pub mod training;
