"""Allocation, compiler intrinsics and pools of distinct byte strings. Imports nothing of the core."""
