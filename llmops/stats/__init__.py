"""Numbers in, numbers out: intervals, paired tests, verdicts on prepared numbers, power.

Nothing here knows of cases, scores or runs. Users import the modules, so that whoever needs no interval pays
neither for numpy nor for `scipy.special`. A gate needs `noninferiority`, `limits` and `figures` for one metric,
`decision` for all of them, `looks` to stop early, `power` to plan.
"""
