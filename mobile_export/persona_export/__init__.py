"""Export: one run becomes one bundle, with a program for each target."""
