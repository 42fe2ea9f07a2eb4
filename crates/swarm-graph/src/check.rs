//! Checks a spec: a graph, or every defect at once.
