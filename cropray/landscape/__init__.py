"""The drawn landscape: a deterministic France in a box, for tests and the demo."""
