"""Decides what is run and runs it: manifest, grid, cells, claims, stages, the local runner.

Imports ``po``, ``eval`` and ``reports`` tables only; the stages themselves run as processes of their own.
"""
