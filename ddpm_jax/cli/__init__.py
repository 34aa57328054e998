"""The commands: flags in, library calls out."""
