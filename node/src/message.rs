//! The parsed mail.
