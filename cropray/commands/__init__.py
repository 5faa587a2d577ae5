"""Commands that are no stage.

Comes in: the command line's arguments. Goes out: what is printed, and for `demo` and `new` files. May be added: a
command, as a module that `cli` calls.
"""
