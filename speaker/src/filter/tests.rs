//! The filter against a plain model of what source ranges mean, and its mind in stories.

mod machine;
mod model;
mod properties;
mod stories;
