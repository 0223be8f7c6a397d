"""Converters of data sets: raw files -> the files that boa.py reads."""
