"""Numbers in, numbers out: intervals of means, ratios and paired differences, and the bootstrap.

Nothing here knows of cases, scores or runs. Users import the modules, so that whoever needs no interval pays
neither for numpy nor for `scipy.special`.
"""
