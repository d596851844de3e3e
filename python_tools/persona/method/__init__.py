"""The method: slots, adapter, prototypes. Pure torch; knows no files, network or data sets."""
