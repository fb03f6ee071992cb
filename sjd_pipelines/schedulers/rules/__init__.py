"""Acceptance rules, a file each: which drafts hold, and what a rejection leaves of the target.

A rule is a function of laws and drafts and knows of no topology: windows, trees and rows ask the same one.
"""
