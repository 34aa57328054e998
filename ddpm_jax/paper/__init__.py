"""The paper beside us (Ho et al. 2020, arXiv:2006.11239v2): `python -m ddpm_jax.paper runs/cifar10 --figures`.

published.py  what its tables say
tables.py     our numbers beside them
track.py      the curve of a run that ended where the paper's did
figures.py    its figures, of any work folder
"""
