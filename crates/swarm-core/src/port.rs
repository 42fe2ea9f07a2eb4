//! Ports: what the outside must be able to do. Declared here, awaited by the engine and the
//! node kinds, filled by the host. Each documents what holds once a call returns.

pub mod clock;
pub mod forge;
pub mod model;
pub mod records;
pub mod sandbox;
pub mod store;
pub mod tool;
