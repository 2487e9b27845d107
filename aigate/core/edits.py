"""Edits: the changes a target needs, planned once from the call and the target's quirks, then applied by one of two appliers.

`plan_edits` decides; `apply_to_pairs` (same dialect on both sides) and `apply_to_request` (the neutral form) only do as told.
Paths are neutral parameter names, so one plan serves every pair of dialects. Pure.
"""
