//! Nodes: what they implement and what they are given.
