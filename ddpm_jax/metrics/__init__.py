"""How good samples are: what networks see in them, and the scores of the field over that."""
