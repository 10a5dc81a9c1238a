"""The steps of the pipeline, one module each, and the runner that claims, runs and records them.

A step takes a `RunContext` and returns an outcome; it knows neither the step before nor the one after.
"""
