"""Pictures, score tables and the HTML page.

Comes in: results, the dataset and its composites. Goes out: tables of the terminal, pictures, one page. May be added:
a picture (a function that draws on a figure) and its place in `page`.
"""
