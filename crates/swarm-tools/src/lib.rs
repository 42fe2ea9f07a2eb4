//! One outside thing each: port in, client behind.

pub mod checks;
pub mod forge;
pub mod git;
pub mod model;
pub mod prompt;
pub mod sandbox;
pub mod toolbox;
pub mod workspace;
