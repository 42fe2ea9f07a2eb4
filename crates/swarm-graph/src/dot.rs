//! A graph printed for people: Mermaid, DOT, SVG.
