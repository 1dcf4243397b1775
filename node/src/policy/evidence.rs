//! What the checks found.
