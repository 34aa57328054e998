"""The paper beside us (Ho et al. 2020, arXiv:2006.11239v2): `ddpm-paper runs/cifar10 --figures`.

published.py   the numbers that its tables print
tables.py      our numbers beside them
summary.py     all tables and figures of several work folders
report.py      the tables of one model, for the terminal
track.py       the curve of a run that ended where the paper's did
figures.py     its figures, of any work folder
generation.py  what they show, as arrays of images
plots.py       its curves
"""
