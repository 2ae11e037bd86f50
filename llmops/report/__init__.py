"""Every face of a run: terminal, Markdown, rows. Records come in, text goes out; nothing is worked out here.

`texts` holds the one format of numbers and what makes foreign text harmless, `sentences` what there is to say
first, `grids` the tables and `cases` the cases to look at; `terminal` and `markdown` lay them out.
"""
