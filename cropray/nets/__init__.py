"""Networks: torch modules only, no files and no Ray.

Comes in: normalised series of pixels [B, T, C, H, W] and what is known of them (`context.Context`). Goes out: scores
of classes [B, K, H, W]. May be added: a network, as a class below `registry.NETS` and a line in `catalogue`.
"""
