"""The reference device: what the phone apps do, in Python, over ExecuTorch's own runtime."""
