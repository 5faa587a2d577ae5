"""Ray: its start and end, its nodes, who is placed where, and one function per zone on it.

Comes in: what a fit or a zone needs (`resources.Need`). Goes out: a running Ray, and how many fit at once. May be
added: a resource that settings can ask for.
"""
