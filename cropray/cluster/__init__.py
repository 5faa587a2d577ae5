"""Ray: its start and end, its nodes, who is placed where, and one function per zone on it."""
