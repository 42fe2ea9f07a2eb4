//! DevinSwarm.
