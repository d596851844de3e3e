"""The contract: edit file, manifest, observation, measurement. NumPy only.

Kotlin and Swift mirror it; `tests/conformance/` holds the cases that all of them read.
"""
