"""Trainings as jobs: a request, what it is checked for, and the runs that come of it."""
