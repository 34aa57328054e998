"""The paper beside us (Ho et al. 2020, arXiv:2006.11239v2).

published.py  what its tables say
figures.py    its figures, of any work folder
"""
