"""The contract: edit file, manifest, observation, measurement. NumPy only; mirrored in Kotlin and Swift."""
