"""Can these hosts train together? `python -m ddpm_jax.doctor`, run on all at once, says so or names what is wrong.

facts.py       what one process knows of itself
meeting.py     how the facts come to process 0, over plain TCP, so that it works where JAX does not
diagnosis.py   facts -> what is wrong
__main__.py    the command: the meeting, then JAX's own runtime and a barrier
"""
