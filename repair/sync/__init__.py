"""Bring rows of one cluster to another: each cell with its own write time and expiry, so that newer writes stay.

A sync goes the way of a repair, over two clusters: evidence from both sides, a decision, a plan file, a journal that
holds the pre-image before anything is written, proof by another reading, and a way back.
"""
