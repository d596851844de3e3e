"""Training stages: backbone, adapter, prototypes; each chosen on validation devices."""
