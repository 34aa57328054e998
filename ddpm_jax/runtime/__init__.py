"""This process: signals, folders, downloads, compiled programs."""
